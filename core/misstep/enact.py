"""
Enactment: the loop that carries decisions out, once for a model call and once for a tool call.

Each is a generator that yields `Call`, gets back what the framework answered, and returns the value to pass on. It
never waits and does no I/O; the two drivers, `drive` and `adrive`, are the only things that come in a sync and an
async form. What a framework looks like it learns from a seat, which an adapter implements.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, assert_never

from misstep.decisions import Allow, Ask, Fallback, Halt, Refuse, Reprompt, Reroute, Retry, Rewrite, RollBack, Vote
from misstep.errors import Halted
from misstep.events import Event, ModelFailed, ModelResponded, ToolCancelled, ToolFailed, ToolRequested, ToolReturned
from misstep.guard import Guard
from misstep.judge import UNCHECKED
from misstep.session import PASSED, Session, Verdict

Request = TypeVar("Request", covariant=True)
Raw = TypeVar("Raw")

MOST_ATTEMPTS = 100
"""No model call is tried more often than this. A ladder ends by itself, since every rung that repeats has a limit."""


@dataclass(frozen=True, slots=True)
class Call(Generic[Request]):
    """An effect: hand this request to the framework's own handler."""

    request: Request


Steps: TypeAlias = Generator[Call[Any], Any, Any]


class ModelSeat(Protocol[Request, Raw]):
    """One model call, as an adapter presents it. Nothing here judges; every method only translates."""

    session: Session
    streaming: bool
    """Whether the reply's tokens reach somebody before it is judged."""

    def opening(self) -> Sequence[Event]:
        """What is new before the call: messages not seen before, then the `ModelRequested`."""
        ...

    def request(self, feedback: Sequence[str]) -> Request:
        """What to hand to the handler, with `feedback` appended for the model alone."""
        ...

    def reply(self, raw: Raw, attempt: int) -> ModelResponded:
        """What came back."""
        ...

    def failure(self, error: BaseException, attempt: int) -> ModelFailed:
        """What was raised instead."""
        ...

    def stop(self, reason: str) -> Raw:
        """End here: raise the framework's own halt, or return a reply after which nothing follows."""
        ...


class ToolSeat(Protocol[Request, Raw]):
    """One tool call, as an adapter presents it."""

    session: Session

    def requested(self) -> ToolRequested:
        """The call."""
        ...

    def request(self) -> Request:
        """What to hand to the handler."""
        ...

    def result(self, raw: Raw) -> ToolReturned | ToolFailed:
        """What came back."""
        ...

    def failure(self, error: BaseException) -> ToolFailed | ToolCancelled:
        """What was raised instead."""
        ...

    def object(self, objection: str) -> Raw:
        """A result in the framework's terms that the agent reads in place of the tool's."""
        ...

    def stop(self, reason: str) -> Raw:
        """End here: raise the framework's own halt, or, where that is not safe, object; the halt is sticky."""
        ...


def model_call(guard: Guard, take: Callable[[], ModelSeat[Any, Any]]) -> Steps:
    """
    One model call: ask, judge, and ask again as the policy says; returns the reply to pass on.

    `take` takes the seat, inside the boundary a driver puts round these steps.
    """
    seat = take()
    if guard.mode == "off":
        return (yield Call(seat.request(())))
    session = seat.session
    for event in seat.opening():
        _past(guard, session, guard.judge(event), "nothing was asked of the model yet")
    if session.halted is not None:
        return _stopped(guard, seat, session.halted, session.halt)

    feedback: list[str] = []
    last = PASSED
    for attempt in range(MOST_ATTEMPTS):
        try:
            raw = yield Call(seat.request(feedback))
        except BaseException as error:
            guard.observe(seat.failure(error, attempt))
            raise
        verdict = guard.judge(seat.reply(raw, attempt))
        if last.taken and not last.types & verdict.types:
            guard.settle(session, last, took_effect=True, recurred=False)
        if seat.streaming and verdict.taken:
            guard.settle(session, verdict, took_effect=True, detail="late: its tokens were already streamed")
        match verdict.decision:
            case Allow() | Refuse():  # what is refused is a call, and it is refused where it is made
                return raw
            case Retry():
                last = verdict
            case Reprompt(text):
                feedback.append(text)
                last = verdict
            case Halt(reason):
                return _stopped(guard, seat, reason, verdict)
            case Rewrite() | Reroute() | Fallback() | Vote() | Ask() | RollBack():
                guard.settle(session, verdict, took_effect=False, detail="no seat enacts this yet")
                return raw
            case _:
                assert_never(verdict.decision)
    guard.settle(session, last, took_effect=False, detail=f"gave up after {MOST_ATTEMPTS} attempts")
    return raw


def tool_call(guard: Guard, take: Callable[[], ToolSeat[Any, Any]]) -> Steps:
    """One tool call: execute it once, or not at all; returns the result to pass on. `take` as in `model_call`."""
    seat = take()
    if guard.mode == "off":
        return (yield Call(seat.request()))
    session = seat.session
    requested = seat.requested()
    verdict = guard.verdict(requested)
    if session.halted is not None:
        guard.observe(_cancelled(requested, "the run was ended"))
        return _stopped(guard, seat, session.halted, verdict, session.halt)
    match verdict.decision:
        case Refuse(text):
            answer = seat.object(text)
            guard.observe(_cancelled(requested, "refused", text))
            guard.settle(session, verdict, took_effect=True)
            return answer
        case Halt(reason):
            guard.observe(_cancelled(requested, "the run was ended"))
            return _stopped(guard, seat, reason, verdict)
        case Allow():
            pass
        case Retry() | Reprompt() | Rewrite() | Reroute() | Fallback() | Vote() | Ask() | RollBack():
            guard.settle(session, verdict, took_effect=False, detail="no seat enacts this here")
        case _:
            assert_never(verdict.decision)
    try:
        raw = yield Call(seat.request())
    except BaseException as error:
        guard.observe(seat.failure(error))
        raise
    _past(guard, session, guard.judge(seat.result(raw)), "the call was already made")
    return raw


def drive(guard: Guard, steps: Steps, handler: Callable[[Any], Raw], rescue: Rescue[Raw]) -> Raw:
    """Run the loop in sync code; see `Loop` for what becomes of exceptions."""
    loop = Loop(guard, steps, rescue)
    while (effect := loop.advance()) is not None:
        try:
            loop.answer = handler(effect.request)
            loop.called = True
        except BaseException as error:
            loop.error = error
    return loop.value  # type: ignore[no-any-return]


async def adrive(guard: Guard, steps: Steps, handler: Callable[[Any], Awaitable[Raw]], rescue: Rescue[Raw]) -> Raw:
    """`drive` for async code."""
    loop = Loop(guard, steps, rescue)
    while (effect := loop.advance()) is not None:
        try:
            loop.answer = await handler(effect.request)
            loop.called = True
        except BaseException as error:
            loop.error = error
    return loop.value  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Rescue(Generic[Raw]):
    """What a hook does without us: the request as it came, and how to refuse it under a fail-closed policy."""

    request: Any
    refuse: Callable[[str], Raw] | None = None


class Loop:
    """
    A driver but for the one line that calls the handler, and the one boundary round every hook.

    What the handler raises passes through unchanged, and so does our own halt. If our code fails, the failure is
    reported and the host goes on as without us: with the last answer, else with one plain call of the handler; or,
    under a fail-closed policy, with a refusal in place of a call that was not made yet.
    """

    __slots__ = ("_bare", "_guard", "_rescue", "_steps", "answer", "called", "error", "value")

    def __init__(self, guard: Guard, steps: Steps, rescue: Rescue[Any]) -> None:
        self._guard, self._steps, self._rescue = guard, steps, rescue
        self._bare = False
        self.answer: Any = None
        self.called = False
        self.error: BaseException | None = None
        self.value: Any = None

    def advance(self) -> Call[Any] | None:
        """The next call to make, or None once `value` is what to pass on."""
        error, self.error = self.error, None
        if self._bare:
            if error is not None:
                raise error
            self.value = self.answer
            return None
        try:
            return self._steps.throw(error) if error is not None else self._steps.send(self.answer)
        except StopIteration as end:
            self.value = end.value
            return None
        except Exception as failure:
            if failure is error or isinstance(failure, Halted) or self._guard.strict:
                raise
            self._guard.failed("a seat", failure)
        if error is not None:
            raise error
        return self._without_us()

    def _without_us(self) -> Call[Any] | None:
        if self.called:
            self.value = self.answer
            return None
        if self._guard.fails_closed and self._rescue.refuse is not None:
            self.value = self._rescue.refuse(UNCHECKED)
            return None
        self._bare = True
        return Call(self._rescue.request)


def _stopped(guard: Guard, seat: ModelSeat[Any, Any] | ToolSeat[Any, Any], reason: str, *verdicts: Verdict) -> Any:
    """End here; the receipts are written once that has worked."""
    signal: Halted | None = None
    answer: Any = None
    try:
        answer = seat.stop(reason)
    except Halted as raised:
        signal = raised
    for verdict in verdicts:
        guard.settle(seat.session, verdict, took_effect=True)
    if signal is not None:
        raise signal
    return answer


def _past(guard: Guard, session: Session, verdict: Verdict, why: str) -> None:
    """What was decided where no seat acts on it; but a halt is met again at the next seat."""
    if not isinstance(verdict.decision, Halt):
        guard.settle(session, verdict, took_effect=False, detail=why)


def _cancelled(requested: ToolRequested, reason: str, objection: str = "") -> ToolCancelled:
    return ToolCancelled(
        run=requested.run,
        call=requested.call,
        batch=requested.batch,
        agent=requested.agent,
        instance=requested.instance,
        tool=requested.tool,
        reason=reason,
        objection=objection,
    )
