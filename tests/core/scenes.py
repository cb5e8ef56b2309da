"""What the core's tests are played with: short ways to write events, rules of a test's own, and a small host."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import operator
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from hypothesis import HealthCheck, settings

from misstep.anomalies import Anomaly
from misstep.decisions import Kind, Reroute, RollBack
from misstep.dispatch import subscription
from misstep.enact import Rescue, adrive, drive, model_call, tool_call
from misstep.errors import Diverted, Halted
from misstep.events import (
    Event,
    MessageSent,
    ModelFailed,
    ModelRequested,
    ModelResponded,
    ProposedCall,
    Tool,
    ToolCancelled,
    ToolFailed,
    ToolRequested,
    ToolReturned,
)
from misstep.guard import Guard
from misstep.policy import Policy, Rule
from misstep.report import RunReport
from misstep.run import Run
from misstep.seats import Seat, Seats
from misstep.session import Session
from misstep.taxonomy import AnomalyType

RUN = "r"

LOOP = AnomalyType.REPEATED_CALL
ARGUMENT = AnomalyType.UNGROUNDED_ARGUMENT
EMPTY = AnomalyType.EMPTY_RESPONSE
FAILURE = AnomalyType.GUARD_FAILURE

EVERYTHING = Seats("everything", {seat: dict.fromkeys(Kind, "") for seat in Seat})
"""An adapter that can do all there is."""


THOROUGH = int(os.environ.get("THOROUGH", "1"))
"""How many times as many examples a property is tried with; above 1 they are new ones every time."""


def examples(count: int) -> settings:
    """How a property is tried: never against the clock, and the same way every time unless thoroughly."""
    return settings(
        max_examples=count * THOROUGH,
        deadline=None,
        derandomize=THOROUGH == 1,
        suppress_health_check=[HealthCheck.too_slow],
    )


# -- events -----------------------------------------------------------------------------------------------------------


def user(content: str, **fields: Any) -> MessageSent:
    """The user says something."""
    return MessageSent(run=fields.pop("run", RUN), role="user", trust="user", content=content, **fields)


def requested(call: str = "c1", tool: str = "search", **fields: Any) -> ToolRequested:
    """A call is asked for; further names are its arguments, but for those of the event."""
    return ToolRequested(run=fields.pop("run", RUN), call=call, tool=tool, **fields)


def returned(call: str = "c1", output: str = "nothing", tool: str = "search", **fields: Any) -> ToolReturned:
    """A call came back."""
    return ToolReturned(run=fields.pop("run", RUN), call=call, tool=tool, output=output, **fields)


def failed(call: str = "c1", error: str = "no", tool: str = "search", **fields: Any) -> ToolFailed:
    """A call failed."""
    return ToolFailed(run=fields.pop("run", RUN), call=call, tool=tool, error=error, **fields)


def proposed(call: str = "c1", tool: str = "search", **arguments: Any) -> ProposedCall:
    """A call as a reply proposes it."""
    return ProposedCall(call, tool, arguments)


def replied(content: str = "", *calls: ProposedCall, call: str | None = "m1", **fields: Any) -> ModelResponded:
    """A model answers."""
    return ModelResponded(run=fields.pop("run", RUN), call=call, content=content, calls=calls, **fields)


def declared(*tools: Tool, **fields: Any) -> ModelRequested:
    """A model is about to be called with these tools."""
    return ModelRequested(run=fields.pop("run", RUN), tools=tools, **fields)


def tool(name: str = "search", *arguments: str) -> Tool:
    """A tool with a schema that has these properties."""
    properties = {argument: {"type": "string"} for argument in arguments}
    return Tool(name, f"the {name} tool", {"type": "object", "properties": properties})


def exchange(call: str, output: str = "nothing", tool: str = "search", **arguments: Any) -> list[Event]:
    """A call and its result."""
    return [requested(call, tool, arguments=arguments), returned(call, output, tool)]


# -- rules and guards -------------------------------------------------------------------------------------------------


def detector(type_: AnomalyType, heard: Any, judge: Callable[[Any, Run], Anomaly | None]) -> Any:
    """A detector of a test's own: `heard` is what it subscribes to, `judge` what it says."""

    class Own:
        type = type_

        def __call__(self, event: Any, run: Run) -> Anomaly | None:
            return judge(event, run)

    Own.__call__.__annotations__["event"] = heard
    return Own()


def finds(
    type_: AnomalyType,
    heard: Any = ToolRequested,
    when: Callable[[Any], bool] = lambda event: True,
    rewrite: Any = None,
) -> Any:
    """A detector that finds its anomaly in every event it hears `when` that holds; `rewrite` is what to pass on."""

    def judge(event: Any, run: Run) -> Anomaly | None:
        seen = Anomaly(type=type_, message="seen", evidence=(event.seq,), rewrite=rewrite)
        return seen if when(event) else None

    return detector(type_, heard, judge)


def judged(rule: Any, events: Iterable[Event]) -> list[Anomaly]:
    """What one detector, alone, says of these events: its anomalies as they are, with what can be passed on instead."""
    found: list[Anomaly] = []

    def note(event: Any, run: Run) -> Anomaly | None:
        anomaly: Anomaly | None = rule(event, run)
        found.extend([anomaly] if anomaly else [])
        return anomaly

    heard = functools.reduce(operator.or_, subscription(rule))
    watch(events, Guard(Policy(), detectors=[detector(rule.type, heard, note)], strict=True))
    return found


def crashes(type_: AnomalyType = LOOP, heard: Any = ToolRequested) -> Any:
    """A detector that raises at every event it hears."""

    def crash(event: Any, run: Run) -> None:
        raise LookupError("the rule's own mistake")

    return detector(type_, heard, crash)


def policy(rules: dict[AnomalyType, Sequence[Any] | Rule] | None = None, **fields: Any) -> Policy:
    """A policy of ladders by type; a `Rule` stands for itself."""
    written = {
        type_: rule if isinstance(rule, Rule) else Rule.model_validate({"ladder": list(rule)})
        for type_, rule in (rules or {}).items()
    }
    return Policy(rules=written, **fields)


def watch(events: Iterable[Event], guard: Guard | None = None, run: str = RUN) -> RunReport:
    """What a guard has to say of these events."""
    guard = guard or Guard(strict=True)
    for event in events:
        guard.observe(event)
    return guard.report(run).runs[0]


def types(report: RunReport) -> list[AnomalyType]:
    """The types of the anomalies in a report, in order."""
    return [found.type for found in report.anomalies]


# -- a host -----------------------------------------------------------------------------------------------------------


class Stopped(Halted):
    """The host's own way of ending a run."""


class Left(Diverted):
    """The host's own way of going on elsewhere."""


class Bug(RuntimeError):
    """A mistake in the adapter's code."""


class Handler:
    """The framework's own handler: plays answers in order, the last one for good, and remembers what it was asked."""

    def __init__(self, *answers: Any) -> None:
        self._answers = answers
        self.asked: list[Any] = []

    def __call__(self, request: Any) -> Any:
        """Answer, or raise an answer that is an exception."""
        answer = self._answers[min(len(self.asked), len(self._answers) - 1)]
        self.asked.append(request)
        if isinstance(answer, BaseException):
            raise answer
        return answer


class _Seat:
    """Every method may be made to fail, once each, by its name."""

    def __init__(self, session: Session, broken: str = "") -> None:
        self.session = session
        self._broken = broken

    def _may_fail(self, method: str) -> None:
        if method == self._broken:
            raise Bug(method)


class ModelSeat(_Seat):
    """One model call of a host whose replies are `ModelResponded` events themselves."""

    def __init__(
        self, session: Session, opening: Sequence[Event] = (), broken: str = "", streaming: bool = False
    ) -> None:
        super().__init__(session, broken)
        self._opening = opening
        self.streaming = streaming
        self.history = ["what was said"]

    def opening(self) -> list[Event]:
        """What the test says is new."""
        self._may_fail("opening")
        return [*self._opening, ModelRequested(run=self.session.run.id, model="scripted")]

    def request(self, feedback: Sequence[str], model: Any = None) -> list[str]:
        """The messages and the feedback, and first the model where it is another one."""
        self._may_fail("request")
        return [*([] if model is None else [f"to {model}"]), *self.history, *feedback]

    def reply(self, raw: ModelResponded, attempt: int) -> ModelResponded:
        """A copy of the reply, as another try if it is one."""
        self._may_fail("reply")
        return ModelResponded(
            run=self.session.run.id,
            call=raw.call,
            attempt=attempt,
            agent=raw.agent,
            instance=raw.instance,
            content=raw.content,
            calls=raw.calls,
        )

    def failure(self, error: BaseException, attempt: int) -> ModelFailed:
        """What was raised."""
        self._may_fail("failure")
        return ModelFailed(run=self.session.run.id, attempt=attempt, error_type=type(error).__name__)

    def rewrite(self, raw: ModelResponded, content: str) -> ModelResponded:
        """The reply in other words."""
        self._may_fail("rewrite")
        return dataclasses.replace(raw, content=content)

    def leave(self, decision: Reroute | RollBack) -> Any:
        """The host's own way elsewhere."""
        self._may_fail("leave")
        raise Left(decision.kind)

    def stop(self, reason: str) -> Any:
        """The host's own end."""
        self._may_fail("stop")
        raise Stopped(reason)


class ToolSeat(_Seat):
    """One tool call of a host whose results are texts."""

    def __init__(self, session: Session, call: ToolRequested, broken: str = "") -> None:
        super().__init__(session, broken)
        self._call = call
        self.pause: Callable[[Mapping[str, Any]], Any] | None = None

    def requested(self) -> ToolRequested:
        """The call."""
        self._may_fail("requested")
        return self._call

    def request(self, arguments: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Its arguments."""
        self._may_fail("request")
        return dict(self._call.arguments if arguments is None else arguments)

    def result(self, raw: str) -> ToolReturned:
        """What came back."""
        self._may_fail("result")
        return returned(self._call.call or "", raw, self._call.tool, run=self.session.run.id)

    def failure(self, error: BaseException) -> ToolFailed | ToolCancelled:
        """What was raised."""
        self._may_fail("failure")
        return failed(self._call.call or "", str(error), self._call.tool, run=self.session.run.id)

    def object(self, objection: str) -> str:
        """The objection in place of a result."""
        self._may_fail("object")
        return objection

    def recorded(self, output: str) -> str:
        """What the tool answered."""
        self._may_fail("recorded")
        return output

    def whole(self, raw: str) -> bool:
        """All but pictures."""
        self._may_fail("whole")
        return raw != "a picture"

    def rewrite(self, raw: str, content: str) -> str:
        """Other words."""
        self._may_fail("rewrite")
        return content

    def redirect(self, agent: str) -> bool:
        """Calls of `hand_off` are hand-offs."""
        self._may_fail("redirect")
        self._agent = agent
        return self._call.tool == "hand_off"

    def redirected(self, raw: str) -> str:
        """The host's word for where it went."""
        self._may_fail("redirected")
        return f"to {self._agent}"

    def leave(self, decision: Reroute | RollBack) -> Any:
        """The host's own way elsewhere."""
        self._may_fail("leave")
        raise Left(decision.kind)

    def stop(self, reason: str) -> str:
        """The host's own end."""
        self._may_fail("stop")
        raise Stopped(reason)


class Driver:
    """Plays a seat through the core's loop, sync or async."""

    def __init__(self, name: str) -> None:
        self.name = name

    def model(self, guard: Guard, seat: ModelSeat, handler: Handler, refuse: Callable[[str], Any] | None = None) -> Any:
        """One guarded model call."""
        return self.play(guard, model_call(guard, lambda: seat), handler, Rescue("as it came", refuse))

    def tool(self, guard: Guard, seat: ToolSeat, handler: Handler, refuse: Callable[[str], Any] | None = None) -> Any:
        """One guarded tool call."""
        return self.play(guard, tool_call(guard, lambda: seat), handler, Rescue("as it came", refuse))

    def play(self, guard: Guard, steps: Any, handler: Handler, rescue: Rescue[Any]) -> Any:
        """Any steps."""
        if self.name == "sync":
            return drive(guard, steps, handler, rescue)

        async def answer(request: Any) -> Any:
            await asyncio.sleep(0)
            return handler(request)

        raised: list[BaseException] = []

        async def play() -> Any:
            try:
                return await adrive(guard, steps, answer, rescue)
            except BaseException as error:  # what the event loop makes of it is none of the core's business
                raised.append(error)

        value = asyncio.run(play())
        for error in raised:
            raise error
        return value


class Records:
    """A sink that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.closed = False

    def write(self, event: Event) -> None:
        """Keep one event."""
        self.events.append(event)

    def close(self) -> None:
        """Say that it was closed."""
        self.closed = True

    def of(self, *classes: type[Any]) -> list[Any]:
        """The events of these classes, in order."""
        return [event for event in self.events if isinstance(event, classes)]
