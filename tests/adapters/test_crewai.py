"""The CrewAI adapter: every way to run a crew, both ways of calling tools, co-workers, streams, what is left after."""

from __future__ import annotations

import asyncio
import contextvars
import http.server
import importlib
import json
import os
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

os.environ.update(
    CREWAI_DISABLE_TELEMETRY="true",
    CREWAI_DISABLE_TRACKING="true",
    CREWAI_STORAGE_DIR=tempfile.mkdtemp(),
    CREWAI_TESTING="true",
    CREWAI_TRACING_ENABLED="false",
    OTEL_SDK_DISABLED="true",
)

pytest.importorskip("crewai")

from crewai import LLM, Agent, Crew, CrewOutput, Process, Task
from crewai.agent.planning_config import PlanningConfig
from crewai.events import LLMStreamChunkEvent, crewai_event_bus
from crewai.events.event_context import event_scope, get_current_parent_id
from crewai.flow.flow import Flow, start
from crewai.hooks import (
    HookAborted,
    InterceptionPoint,
    ToolCallHookContext,
    get_hooks,
    register_hook,
    unregister_hook,
)
from crewai.hooks.dispatch import get_scoped_hooks, register_scoped, scoped_hooks
from crewai.llms.base_llm import BaseLLM
from crewai.project import CrewBase
from crewai.project import agent as as_agent
from crewai.project import crew as as_crew
from crewai.project import task as as_task
from crewai.tools import tool
from crewai.tools.tool_failure import ToolFailure
from crewai.utilities.i18n import I18N_DEFAULT
from pydantic import BaseModel

import misstep
from misstep import Anomaly, AnomalyType, AttachError, Guard, Policy, Rule, Run, Rung
from misstep.decisions import Kind
from misstep.events import (
    Event,
    HistoryRewritten,
    MessageSent,
    ModelRequested,
    ModelResponded,
    ProposedCall,
    RunEnded,
    RunStarted,
    ToolCancelled,
    ToolFailed,
    ToolRequested,
    ToolReturned,
)
from misstep.session import Verdict
from misstep.testing import Ask, AskAll, Reply, Say, Script, Step
from misstep_crewai import Halted, guarded, unguard
from misstep_crewai.messages import pieces
from misstep_crewai.place import Place
from misstep_crewai.proposals import Proposals
from misstep_crewai.testing import ScriptedLLM
from tests.core.scenes import Records

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::pydantic.warnings.PydanticDeprecatedSince20"
)

OBJECTION = "[misstep: repeated_call] This call was not executed"
FEEDBACK = "[misstep: repeated_call] Your last reply was not used"
UNCHECKED = "[misstep: guard_failure] This call was not executed"


def rule(type_: AnomalyType, *rungs: Any, output: Any = "pass", closed: bool = False) -> Policy:
    """A policy with one rule."""
    ladder = tuple(map(Rung.model_validate, rungs))
    return Policy(rules={type_: Rule(ladder=ladder, output=output, on_guard_failure="closed" if closed else "open")})


REFUSE = rule(AnomalyType.REPEATED_CALL, {"refuse": 9})
REPROMPT = rule(AnomalyType.REPEATED_CALL, {"reprompt": 1})
HALT = rule(AnomalyType.REPEATED_CALL, "halt")
RETRY = rule(AnomalyType.EMPTY_RESPONSE, {"retry": 2})


def same(count: int = 3) -> list[Step]:
    """The same call again and again."""
    return [Ask("act", {"q": "x"}, id=f"c{number}") for number in range(count)]


def turns(count: int = 5) -> list[Step]:
    """Two calls in turns: in text mode CrewAI itself keeps an agent from making one call twice in a row."""
    return [Ask("act", {"q": "xy"[number % 2]}, id=f"c{number}") for number in range(count)]


def loop(native: bool) -> tuple[list[Step], list[str]]:
    """Calls of which the guard finds the last to be one too many, and the effects of those before."""
    return (same(), ["x", "x"]) if native else (turns(), ["x", "y", "x", "y"])


def acting(done: list[str], name: str = "act", **fields: Any) -> Any:
    """A tool with an effect."""

    @tool(name, **fields)
    def act(q: str) -> str:
        """Act."""
        done.append(q)
        return "nothing"

    return act


def agent(
    script: Script, *tools: Any, role: str = "alice", native: bool = True, llm: Any = None, **fields: Any
) -> Agent:
    """An agent that plays the script."""
    llm = llm or ScriptedLLM(script, native=native)
    return Agent(role=role, goal="g", backstory="b", llm=llm, tools=list(tools), verbose=False, **fields)


def crew_of(*agents: Agent, task: str = "do it", **fields: Any) -> Crew:
    """A crew with one task for each agent."""
    tasks = [Task(description=task, expected_output="o", agent=each) for each in agents]
    return Crew(agents=list(agents), tasks=tasks, verbose=False, **fields)


def crew(script: Script, *tools: Any, native: bool = True, **fields: Any) -> Crew:
    """A crew of one agent with one task."""
    return crew_of(agent(script, *tools, native=native), **fields)


def sync(crew: Crew) -> CrewOutput:
    """`kickoff`."""
    return crew.kickoff()


def native_async(crew: Crew) -> CrewOutput:
    """`akickoff`."""
    return asyncio.run(crew.akickoff())


def threaded_async(crew: Crew) -> CrewOutput:
    """`kickoff_async`."""
    return asyncio.run(crew.kickoff_async())


def stream(crew: Crew) -> CrewOutput:
    """`kickoff` with `stream=True`."""
    crew.stream = True
    streaming = crew.kickoff()
    list(streaming)
    return streaming.result


def async_stream(crew: Crew) -> CrewOutput:
    """`akickoff` with `stream=True`."""

    async def consume() -> CrewOutput:
        streaming = await crew.akickoff()
        async for _ in streaming:
            pass
        return streaming.result

    crew.stream = True
    return asyncio.run(consume())


def each(crew: Crew) -> CrewOutput:
    """`kickoff_for_each` with one item."""
    return crew.kickoff_for_each([{}])[0]


def each_async(crew: Crew) -> CrewOutput:
    """`kickoff_for_each_async` with one item."""
    return asyncio.run(crew.kickoff_for_each_async([{}]))[0]


def each_native_async(crew: Crew) -> CrewOutput:
    """`akickoff_for_each` with one item."""
    return asyncio.run(crew.akickoff_for_each([{}]))[0]


WAYS: list[Callable[[Crew], CrewOutput]] = [
    sync,
    native_async,
    threaded_async,
    stream,
    async_stream,
    each,
    each_async,
    each_native_async,
]
ways = pytest.mark.parametrize("kickoff", WAYS)
both = pytest.mark.parametrize("native", [True, False], ids=["native", "text"])


@pytest.fixture(autouse=True)
def nothing_is_left() -> Any:
    """After every test CrewAI is as it was: no hook, no patched class, no open scope of events."""
    scope = get_current_parent_id()
    yield
    assert "__getattribute__" not in BaseLLM.__dict__
    dispatching = importlib.import_module("crewai.hooks.dispatch")  # the package has a function of that name
    assert dispatching._resolve_hooks.__module__ == dispatching.__name__
    assert all(get_hooks(point) == [] and get_scoped_hooks(point) == [] for point in InterceptionPoint)
    assert get_current_parent_id() == scope


# -- what `guarded` returns


def test_guarded_is_the_same_crew() -> None:
    """`guarded` returns the user's own crew, still a `Crew` by type and name."""
    mine = crew(Script(Say("done")))
    assert guarded(mine, Guard()) is mine
    assert isinstance(mine, Crew)
    assert type(mine).__name__ == "Crew"
    assert "misstep" not in mine.model_dump()


def test_guarding_twice_with_one_guard_is_guarding_once() -> None:
    """`guarded` is idempotent, and another guard takes the place of the first."""
    first, second, log = Guard(strict=True), Guard(strict=True), Records()
    mine = guarded(guarded(crew(Script(Say("done"))), first), first)
    mine.kickoff()
    assert len(first.report().runs) == 1
    guarded(mine, second).kickoff()
    assert (len(first.report().runs), len(second.report().runs)) == (0, 1)
    assert log.events == []


def test_unguard_restores_the_crew() -> None:
    """After `unguard` the crew is what it was, and runs as it did; on a bare crew it changes nothing."""
    done: list[str] = []
    mine = crew(Script(*same(), Say("done")), acting(done))
    before = dict(mine.__dict__)
    assert unguard(mine) is mine
    assert unguard(guarded(mine, Guard(REFUSE))) is mine
    assert type(mine) is Crew
    assert mine.__dict__ == before
    mine.kickoff()
    assert done == ["x"] * 3


@pytest.mark.parametrize("make", [lambda mine: mine.copy(), lambda mine: mine.model_copy()], ids=["copy", "model_copy"])
def test_copies_are_guarded(make: Callable[[Crew], Crew]) -> None:
    """A copy of a guarded crew is guarded by the same guard, and its runs are its own."""
    done: list[str] = []
    guard = Guard(REFUSE, strict=True)
    mine = guarded(crew(Script(*same(), Say("done")), acting(done)), guard)
    copy = make(mine)
    copy.kickoff()
    assert done == ["x", "x"]
    assert copy.last_run == guard.report().runs[0].run
    assert mine.last_run is None


def test_what_is_no_crew_is_refused() -> None:
    """An agent, a flow or anything else is told what to do instead."""

    class Steps(Flow):  # type: ignore[type-arg]
        @start()
        def begin(self) -> None:
            """Nothing."""

    for wrong in (agent(Script(Say(""))), Steps(), "crew"):
        with pytest.raises(TypeError, match="takes a `Crew`"):
            guarded(wrong, Guard())


def test_a_policy_beyond_the_seats_is_refused() -> None:
    """A policy that would refuse a reply is refused when the crew is guarded, and the crew stays bare."""
    mine = crew(Script(Say("done")))
    with pytest.raises(AttachError, match="refuse"):
        guarded(mine, Guard(rule(AnomalyType.EMPTY_RESPONSE, "refuse")))
    assert type(mine) is Crew


# -- nothing is wrong


@both
@ways
def test_a_healthy_run_passes_through_unchanged(kickoff: Callable[[Crew], CrewOutput], native: bool) -> None:
    """A healthy run gives the same output and shows the model the same prompts, guarded or not."""
    results = []
    for guard in (None, Guard(strict=True)):
        done: list[str] = []
        script = Script(*turns(2), Say("all done"))
        mine = crew(script, acting(done), native=native)
        output = kickoff(guarded(mine, guard) if guard else mine)
        results.append((output.model_dump(), script.seen, done))
        if guard is not None:
            found = guard.report(mine.last_run).runs[0]
            assert (found.status, found.anomalies, found.decisions) == ("completed", (), ())
            assert (found.cost.model_calls, found.cost.tool_calls) == (3, 2)
            assert (found.cost.input_tokens, found.cost.output_tokens, found.cost.estimated) == (30, 15, False)
            assert len(guard.report().runs) == 1, "one kickoff is one run"
    assert results[0] == results[1]


@both
def test_a_run_is_told_as_events(native: bool) -> None:
    """The task is the user's word, each call and its result are paired, and nothing is told twice."""
    log = Records()
    mine = guarded(crew(Script(*turns(2), Say("done")), acting([]), native=native), Guard(sink=log, strict=True))
    mine.kickoff()
    assert [event.agent for event in log.of(ModelResponded)] == ["alice"] * 3
    requested, returned = log.of(ToolRequested), log.of(ToolReturned)
    assert [event.arguments for event in requested] == [{"q": "x"}, {"q": "y"}]
    assert [event.call for event in requested] == [event.call for event in returned]
    assert [event.batch for event in requested] == [event.call for event in log.of(ModelResponded)[:2]]
    assert log.of(ModelRequested)[0].tools[0].name == "act"
    assert [event.tools for event in log.of(ModelRequested)[1:]] == [None, None]
    words = [event for event in log.of(MessageSent) if event.trust == "user"]
    assert len(words) == 1
    assert "do it" in words[0].content
    assert log.of(HistoryRewritten) == []
    assert not [event for event in log.events if event.history]


# -- the decisions


@both
@ways
def test_a_refused_call_has_no_effect_and_the_agent_goes_on(
    kickoff: Callable[[Crew], CrewOutput], native: bool
) -> None:
    """The call is not executed, the agent reads the objection in its place and goes on."""
    done: list[str] = []
    calls, effects = loop(native)
    script = Script(*calls, lambda texts: Say("went on" if OBJECTION in "".join(texts) else "never told"))
    guard = Guard(REFUSE, strict=True)
    mine = guarded(crew(script, acting(done), native=native), guard)
    assert kickoff(mine).raw == "went on"
    assert done == effects
    (decision,) = guard.report(mine.last_run).runs[0].decisions
    assert (decision.kind, decision.took_effect, decision.recurred) == (Kind.REFUSE, True, False)


@both
@ways
def test_an_empty_reply_is_sampled_again(kickoff: Callable[[Crew], CrewOutput], native: bool) -> None:
    """An empty reply is thrown away and asked for again, where CrewAI alone would run the whole task anew."""
    script = Script(Say(""), Say("good"))
    guard = Guard(RETRY, strict=True)
    mine = guarded(crew(script, native=native), guard)
    assert kickoff(mine).raw == "good"
    assert script.calls == 2
    assert script.seen[0] == script.seen[1]
    (decision,) = guard.report(mine.last_run).runs[0].decisions
    assert (decision.kind, decision.took_effect, decision.recurred) == (Kind.RETRY, True, False)


@both
@ways
def test_a_reprompt_is_for_the_model_alone(kickoff: Callable[[Crew], CrewOutput], native: bool) -> None:
    """The model is told why its reply was not used; the conversation holds neither the reply nor the feedback."""
    done: list[str] = []
    calls, effects = loop(native)
    script = Script(*calls, Ask("act", {"q": "other"}, id="o"), Say("changed"))
    guard = Guard(REPROMPT, strict=True)
    mine = guarded(crew(script, acting(done), native=native), guard)
    output = kickoff(mine)
    assert output.raw == "changed"
    assert done == [*effects, "other"]
    assert [FEEDBACK in "".join(texts) for texts in script.seen] == [False] * len(calls) + [True, False]
    assert FEEDBACK not in str(output.tasks_output[0].messages)
    (decision,) = guard.report(mine.last_run).runs[0].decisions
    assert (decision.kind, decision.took_effect, decision.recurred) == (Kind.REPROMPT, True, False)


@both
@ways
def test_a_halt_returns_what_was_finished(kickoff: Callable[[Crew], CrewOutput], native: bool) -> None:
    """A halt returns a `CrewOutput` of the finished tasks, and no exception."""
    done: list[str] = []
    calls, effects = loop(native)
    script = Script(*calls, Say("too late"))
    guard = Guard(HALT, strict=True)
    first = agent(Script(Say("first part")), role="bob", native=native)
    mine = guarded(crew_of(first, agent(script, acting(done), native=native)), guard)
    output = kickoff(mine)
    assert isinstance(output, CrewOutput)
    assert output.raw == "first part"
    assert [each.agent for each in output.tasks_output] == ["bob"]
    assert output.token_usage.total_tokens == 15 * (1 + len(calls))
    assert done == effects
    assert script.calls == len(calls), "neither the task nor the call is tried again"
    found = guard.report(mine.last_run).runs[0]
    assert found.status == "halted"
    assert [(decision.kind, decision.took_effect) for decision in found.decisions] == [(Kind.HALT, True)]


def test_a_halt_before_any_task_was_finished_returns_the_reason() -> None:
    """With nothing to return, the output says why; tasks finished by an earlier kickoff are not passed off as new."""
    script = Script(Say("first"), Say("second"), *same(), Say("too late"))
    alice = agent(script, acting([]))
    mine = guarded(crew_of(alice, alice), Guard(HALT, strict=True))
    assert [each.raw for each in mine.kickoff().tasks_output] == ["first", "second"]
    output = mine.kickoff()
    assert output.tasks_output == []
    assert output.raw == "misstep ended this run: repeated_call on `act`, and milder remedies did not help"


def test_a_halt_leaves_crewais_events_in_order() -> None:
    """CrewAI leaves its scope of events unbalanced where it is aborted; after a halt it is what it was before."""
    for on_halt in ("return", "raise"):
        mine = guarded(crew(Script(*same()), acting([])), Guard(HALT, strict=True), on_halt=on_halt)  # type: ignore[arg-type]
        with event_scope("ours", "flow_started"):
            if on_halt == "return":
                mine.kickoff()
            else:
                with pytest.raises(Halted):
                    mine.kickoff()
            assert get_current_parent_id() == "ours"


@both
@ways
def test_a_halt_is_raised_on_request(kickoff: Callable[[Crew], CrewOutput], native: bool) -> None:
    """With `on_halt="raise"` the caller gets `Halted`, which is misstep's and CrewAI's signal in one."""
    calls, _ = loop(native)
    script = Script(*calls, Say("too late"))
    guard = Guard(HALT, strict=True)
    mine = guarded(crew(script, acting([]), native=native), guard, on_halt="raise")
    with pytest.raises(Halted, match="repeated_call") as caught:
        kickoff(mine)
    assert isinstance(caught.value, misstep.Halted)
    assert isinstance(caught.value, HookAborted)
    assert script.calls == len(calls)
    assert guard.report(mine.last_run).runs[0].status == "halted"


@both
def test_a_halt_at_the_tool_seat_blocks_the_call_and_ends_the_run(native: bool) -> None:
    """A call no model proposed (a user's hook changed it) is judged where it is made, and does not happen."""
    done: list[str] = []
    script = Script(*[Ask("act", {"q": str(number)}, id=f"c{number}") for number in range(9)])
    guard = Guard(HALT, strict=True)
    mine = guarded(crew(script, acting(done), native=native), guard)
    values = iter(["x", "y"] * 9)

    def change(context: ToolCallHookContext) -> None:
        context.tool_input["q"] = next(values)

    with scoped_hooks({InterceptionPoint.PRE_TOOL_CALL: [change]}):
        output = mine.kickoff()
    assert done == ["x", "y", "x", "y"]
    assert "misstep ended this run" in output.raw
    assert [(each.kind, each.took_effect) for each in guard.report().runs[0].decisions] == [(Kind.HALT, True)]


# -- the guard itself fails


def broken(where: type[Event] | str) -> type[Guard]:
    """A guard that crashes on one kind of event, or in one of its methods."""

    class Broken(Guard):
        def judge(self, event: Event) -> Verdict:
            """Crash."""
            if isinstance(where, type) and isinstance(event, where):
                raise RuntimeError("a bug in the guard")
            return super().judge(event)

    def crash(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("a bug in the guard")

    if isinstance(where, str):
        setattr(Broken, where, crash)
    return Broken


CRASHES: list[type[Event] | str] = [
    RunStarted,
    RunEnded,
    MessageSent,
    ModelRequested,
    ModelResponded,
    ToolRequested,
    ToolReturned,
    Event,
    "open",
    "end",
    "verdict",
    "observe",
]


@both
@pytest.mark.parametrize("where", CRASHES, ids=lambda where: where if isinstance(where, str) else where.__name__)
def test_a_guard_that_crashes_changes_nothing(where: Any, native: bool) -> None:
    """Wherever the guard crashes, the run is the one it would have been without it."""
    for kickoff in (sync, native_async, stream):
        done: list[str] = []
        mine = guarded(crew(Script(*turns(4), Say("all done")), acting(done), native=native), broken(where)(REFUSE))
        assert kickoff(mine).raw == "all done"
        assert done == ["x", "y", "x", "y"]


@both
@pytest.mark.parametrize(
    "name",
    [
        "misstep_crewai.model.pieces",
        "misstep_crewai.model.place",
        "misstep_crewai.model.spoken",
        "misstep_crewai.model.streams",
        "misstep_crewai.model._usage",
        "misstep_crewai.tool.place",
        "misstep_crewai.tool.answer_of",
        "misstep_crewai.tool.tool_call",
        "misstep_crewai.run.event_scope",
        "misstep_crewai.run.ToolHooks",
        "misstep_crewai.run.Live",
    ],
)
def test_a_translation_that_crashes_changes_nothing(name: str, native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug of the adapter itself never reaches the host."""

    def crash(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("a bug in the adapter")

    monkeypatch.setattr(name, crash)
    done: list[str] = []
    mine = guarded(crew(Script(*turns(4), Say("all done")), acting(done), native=native), Guard(RETRY))
    assert mine.kickoff().raw == "all done"
    assert done == ["x", "y", "x", "y"]


@both
@pytest.mark.parametrize(("name", "told"), [("place", UNCHECKED), ("Loop", "Tool execution blocked by hook")])
def test_an_adapter_that_crashes_refuses_under_a_fail_closed_policy(
    name: str, told: str, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be checked is not executed where a rule is fail-closed; the agent is told, and the run goes on."""

    def crash(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("a bug in the adapter")

    monkeypatch.setattr(f"misstep_crewai.tool.{name}", crash)
    done: list[str] = []
    script = Script(*turns(1), Say("all done"))
    guard = Guard(rule(AnomalyType.REPEATED_CALL, {"refuse": 9}, closed=True))
    assert guarded(crew(script, acting(done), native=native), guard).kickoff().raw == "all done"
    assert done == []
    assert told in "".join(script.seen[1])


@dataclass(frozen=True)
class Crashing:
    """A rule that always crashes."""

    type: ClassVar[AnomalyType] = AnomalyType.REPEATED_CALL

    def __call__(self, event: ToolRequested | ModelResponded, run: Run) -> Anomaly | None:
        """Crash."""
        raise RuntimeError("a bug in a rule")


@both
def test_a_detector_that_crashes_changes_nothing(native: bool) -> None:
    """A crashing fail-open rule lets everything pass, and the report says so."""
    done: list[str] = []
    guard = Guard(REFUSE, detectors=[Crashing()])
    mine = guarded(crew(Script(*turns(4), Say("all done")), acting(done), native=native), guard)
    assert mine.kickoff().raw == "all done"
    assert done == ["x", "y", "x", "y"]
    assert {each.type for each in guard.report().runs[0].anomalies} == {AnomalyType.GUARD_FAILURE}


def test_a_strict_guard_raises_what_crewai_would_swallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """In tests a crash inside a hook comes out at the end of the run."""

    def crash(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("a bug in the adapter")

    monkeypatch.setattr("misstep_crewai.tool.place", crash)
    mine = guarded(crew(Script(*same(1), Say("done")), acting([])), Guard(strict=True))
    with pytest.raises(RuntimeError, match="a bug in the adapter"):
        mine.kickoff()


def test_a_users_own_error_passes_unchanged() -> None:
    """What a model raises comes out as it is, after CrewAI's own tries, and the run is on record as failed."""
    script = Script(ConnectionError("model down"))
    guard = Guard(strict=True)
    with pytest.raises(ConnectionError, match="model down"):
        guarded(crew(script), guard).kickoff()
    assert script.calls == 3
    assert guard.report().runs[0].status == "failed"


def test_a_users_own_error_is_not_taken_for_a_halt() -> None:
    """What the user's code raises after a halt was decided passes unchanged; the halt in other words is a halt."""
    for words, expected in (("the disk is full", OSError), ("wrapped: {}", None)):
        mine = crew(Script(*same(), Say("too late")), acting([]))

        original = mine._execute_tasks

        def execute(*args: Any, words: str = words, original: Any = original) -> Any:
            try:
                return original(*args)
            except HookAborted as halt:
                raise OSError(words.format(halt)) from halt

        object.__setattr__(mine, "_execute_tasks", execute)
        guard = Guard(HALT, strict=True)
        if expected is not None:
            with pytest.raises(expected, match="the disk is full"):
                guarded(mine, guard).kickoff()
        else:
            assert "misstep ended this run" in guarded(mine, guard).kickoff().raw
        assert guard.report().runs[0].status == ("failed" if expected else "halted")


def test_an_interrupt_ends_the_run() -> None:
    """Ctrl-C in a tool passes through at once, and leaves no run open."""
    log = Records()

    @tool("act")
    def act(q: str) -> str:
        """Act."""
        raise KeyboardInterrupt

    guard = Guard(sink=log, strict=True)
    mine = guarded(crew(Script(*same(1), Say("done")), act), guard)
    with pytest.raises(KeyboardInterrupt):
        contextvars.copy_context().run(mine.kickoff)  # CrewAI leaves its scope of events open
    assert guard.report().runs[0].status == "interrupted"
    assert [event.reason for event in log.of(ToolCancelled)] == ["GeneratorExit"]
    assert isinstance(log.events[-1], RunEnded)


# -- tools


@both
def test_a_tool_that_raises_is_a_failed_call(native: bool) -> None:
    """CrewAI tells the agent of the error as it would, and the call is on record as failed."""
    log = Records()

    @tool("act")
    def act(q: str) -> str:
        """Act."""
        raise ValueError("out of order")

    scripts = []
    for guard in (None, Guard(sink=log, strict=True)):
        script = Script(*turns(1), Say("done"))
        mine = crew(script, act, native=native)
        (guarded(mine, guard) if guard else mine).kickoff()
        scripts.append(script.seen)
    assert scripts[0] == scripts[1]
    (failed,) = log.of(ToolFailed)
    assert "out of order" in failed.error


@both
def test_a_tool_that_reports_a_failure_is_a_failed_call(native: bool) -> None:
    """CrewAI's `ToolFailure` is a failure."""
    log = Records()

    @tool("act")
    def act(q: str) -> ToolFailure:
        """Act."""
        return ToolFailure(message="no such channel")

    guarded(crew(Script(*turns(1), Say("done")), act, native=native), Guard(sink=log, strict=True)).kickoff()
    assert ["no such channel" in event.error for event in log.of(ToolFailed)] == [True]


@both
def test_a_call_of_an_unknown_tool_is_judged_and_fails(native: bool) -> None:
    """A tool that does not exist is on record as proposed and failed, in text mode too where no hook fires."""
    log = Records()
    script = Script(Ask("nope", {"q": "x"}), Say("done"))
    guarded(crew(script, acting([]), native=native), Guard(sink=log, strict=True)).kickoff()
    assert [event.tool for event in log.of(ToolRequested)] == ["nope"]
    assert [event.call for event in log.of(ToolFailed)] == [event.call for event in log.of(ToolRequested)]


def test_of_parallel_calls_only_the_bad_one_is_refused() -> None:
    """Native calls of one reply run on several threads; each gets its own verdict and its own answer."""
    done: list[str] = []
    batch = AskAll(tuple(Ask("act", {"q": q}, id=f"p{q}") for q in "xyz"))
    script = Script(*same(2), batch, Say("all done"))
    guard = Guard(REFUSE, strict=True)
    output = guarded(crew(script, acting(done)), guard).kickoff()
    assert output.raw == "all done"
    assert sorted(done) == ["x", "x", "y", "z"]
    told = {each["tool_call_id"]: each["content"] for each in output.tasks_output[0].messages if each["role"] == "tool"}
    assert OBJECTION in told["px"]
    assert (told["py"], told["pz"]) == ("nothing", "nothing")


def test_a_halt_in_one_of_parallel_calls_ends_the_run() -> None:
    """A reply with one call too many is thrown away whole: none of its calls happen."""
    done: list[str] = []
    batch = AskAll(tuple(Ask("act", {"q": q}, id=f"p{q}") for q in "xyz"))
    guarded(crew(Script(*same(2), batch, Say("too late")), acting(done)), Guard(HALT, strict=True)).kickoff()
    assert done == ["x", "x"]


def test_a_call_is_the_newest_proposal_that_fits_it() -> None:
    """Hooks do not say which proposal a call is: the newest reply's comes first, and one thrown away never comes."""
    proposals = Proposals()

    def propose(batch: int, *calls: tuple[str, dict[str, str] | None], loose: bool = False) -> None:
        asked = [ProposedCall(call, "act", arguments) for call, arguments in calls]
        proposals.propose("alice", batch, asked, loose=loose)

    def taken(q: str, tool: str = "act", instance: str = "alice") -> str | None:
        found = proposals.take(instance, tool, {"q": q})
        return found.call.call if found else None

    propose(1, ("never made", {"q": "x"}))
    propose(2, ("first", {"q": "x"}), ("second", {"q": "x"}), ("other", {"q": "y"}))
    assert [taken("x") for _ in range(4)] == ["first", "second", "never made", None]
    assert [taken("y", tool="look"), taken("y", instance="bob"), taken("y")] == [None, None, "other"]
    propose(3, ("thrown away", {"q": "x"}))
    propose(3, ("tried again", {"q": "x"}))
    assert [taken("x"), taken("x")] == ["tried again", None]
    propose(4, ("misspelt", {"q": "x"}), loose=True)
    propose(5, ("mumbled", None), loose=True)
    assert [taken("x", tool="acct"), taken("y"), taken("y")] == ["mumbled", None, None]


def test_broken_arguments_are_proposed_as_they_are() -> None:
    """Arguments that are no JSON are judged by their text; CrewAI tells the agent, no tool runs, nothing is lost."""
    log = Records()

    class Stammering(ScriptedLLM):
        def _reply(self, messages: Any) -> Any:
            reply = super()._reply(messages)
            if isinstance(reply, list):
                reply[0]["function"]["arguments"] = '{"q": '
            return reply

    done: list[str] = []
    script = Script(*same(1), Say("done"))
    mine = crew_of(agent(script, acting(done), llm=Stammering(script)))
    guarded(mine, Guard(sink=log, strict=True)).kickoff()
    assert done == []
    assert [event.raw for event in log.of(ToolRequested)] == ['{"q": ']
    assert "Failed to parse tool arguments" in log.of(ToolFailed, ToolReturned)[0].output


def test_the_objection_ends_the_task_of_a_tool_whose_result_is_the_answer() -> None:
    """A limit of CrewAI's: with `result_as_answer=True` and native calling, the objection becomes the answer."""
    done: list[str] = []
    script = Script(*same(2), Ask("say", {"q": "x"}, id="s"), Say("never asked"))

    @dataclass(frozen=True)
    class NoSaying:
        type: ClassVar[AnomalyType] = AnomalyType.REPEATED_CALL

        def __call__(self, event: ToolRequested, run: Run) -> Anomaly | None:
            """Object to one tool."""
            return Anomaly(type=self.type, message="no") if event.tool == "say" else None

    tools = acting(done), acting(done, "say", result_as_answer=True)
    output = guarded(crew(script, *tools), Guard(REFUSE, strict=True, detectors=[NoSaying()])).kickoff()
    assert output.raw.startswith(OBJECTION)
    assert done == ["x", "x"]
    assert script.calls == 3


@both
def test_users_hooks_keep_working(native: bool) -> None:
    """Hooks of the user's own scope fire as before, see the same calls, and may block or change what they like."""
    done: list[str] = []
    seen: list[str] = []

    def before(context: ToolCallHookContext) -> bool | None:
        seen.append(f"before {context.tool_input['q']}")
        return False if context.tool_input["q"] == "y" else None

    def after(context: ToolCallHookContext) -> str | None:
        seen.append(f"after {context.tool_result}")
        return "cleaned" if context.tool_result == "nothing" else None

    script, log = Script(*turns(2), Say("done")), Records()
    mine = guarded(crew(script, acting(done), native=native), Guard(sink=log, strict=True))
    theirs = {InterceptionPoint.PRE_TOOL_CALL: [before], InterceptionPoint.POST_TOOL_CALL: [after]}
    with scoped_hooks(theirs):
        mine.kickoff()
        assert get_scoped_hooks(InterceptionPoint.PRE_TOOL_CALL) == [before]
    assert done == ["x"]
    assert seen == ["before x", "after nothing", "before y", "after Tool execution blocked by hook. Tool: act"]
    assert log.of(ToolReturned)[0].output == "cleaned", "what the model reads"


# -- models


def test_a_reply_is_judged_once_however_models_are_stacked() -> None:
    """A model that asks another, one that calls itself, and one patched on the instance are each one call."""
    log = Records()

    class Router(ScriptedLLM):
        def call(self, *args: Any, **kwargs: Any) -> Any:
            return inner.call(*args, **kwargs)

    class Again(ScriptedLLM):
        again: bool = True

        def call(self, *args: Any, **kwargs: Any) -> Any:
            if self.again:
                self.again = False
                return self.call(*args, **kwargs)
            return super().call(*args, **kwargs)

    script = Script(Say("done"))
    inner = ScriptedLLM(script)
    patched = ScriptedLLM(script)
    own = patched.call
    patched.call = lambda *args, **kwargs: own(*args, **kwargs)  # type: ignore[method-assign]
    for llm in (Router(script), Again(script), patched):
        mine = guarded(crew_of(agent(script, llm=llm)), Guard(sink=log, strict=True))
        mine.kickoff()
    assert len(log.of(ModelResponded)) == 3
    assert script.calls == 3


def test_models_nobody_could_list_beforehand_are_covered() -> None:
    """A planner made during the kickoff, a class defined in it and an async call are all seen, and acted on."""
    log = Records()
    replies = iter(["", "late two"])

    @tool("late")
    def late() -> str:
        """Make a model and ask it, both ways."""

        class Late(ScriptedLLM):
            async def acall(self, *args: Any, **kwargs: Any) -> Any:
                return next(replies)

        llm = Late(Script(Say("late one")))
        return f"{llm.call('first')} {asyncio.run(llm.acall(messages='second'))}"

    plan = '{"list_of_plans_per_task": [{"task_number": 1, "task": "do it", "plan": "just do"}]}'
    planner = ScriptedLLM(Script(Say(plan)), native=False)
    mine = crew(Script(Ask("late"), Say("done")), late, planning=True, planning_llm=planner)
    guarded(mine, Guard(RETRY, sink=log, strict=True)).kickoff()
    said = [event.content for event in log.of(ModelResponded)]
    assert "just do" in said[0]
    assert said[1:] == ["", "late one", "", "late two", "done"]
    assert log.of(ToolReturned)[0].output == "late one late two"
    assert {event.agent for event in log.of(ModelResponded)} == {"Task Execution Planner", "alice", "crew"}


def test_a_function_calling_model_in_text_mode_is_covered() -> None:
    """The model CrewAI asks to mend an action's input is asked through the gate too."""
    log = Records()
    mender = ScriptedLLM(Script(Say('{"tool_name": "act", "arguments": {"q": "mended"}}')), native=False)
    done: list[str] = []

    class Mumbling(ScriptedLLM):
        def _reply(self, messages: Any) -> Any:
            reply = super()._reply(messages)
            return reply.replace('{"q": "x"}', "mumble") if "Action" in reply else reply

    script = Script(*same(1), Say("done"))
    alice = agent(script, acting(done), llm=Mumbling(script, native=False), function_calling_llm=mender)
    guarded(crew_of(alice), Guard(sink=log, strict=True)).kickoff()
    assert done == ["mended"]
    assert len(log.of(ModelResponded)) == 3
    (returned,) = log.of(ToolReturned)
    assert returned.call == log.of(ToolRequested)[0].call, "what CrewAI mended is still the call that was judged"


def test_a_model_with_a_signature_of_its_own_is_called_as_it_was() -> None:
    """A call the adapter cannot read reaches the model with the arguments it was made with."""

    class Odd(ScriptedLLM):
        def call(self, *, prompt: str) -> Any:  # type: ignore[override]
            return f"odd {prompt}"

    llm = Odd(Script(Say("")))

    @tool("act")
    def act(q: str) -> str:
        """Ask in another way."""
        return llm.call(prompt="hello")

    log = Records()
    script = Script(*same(1), Say("done"))
    assert guarded(crew(script, act), Guard(sink=log)).kickoff().raw == "done"
    assert log.of(ToolReturned)[0].output == "odd hello"


def test_structured_output_is_asked_for_through_the_gate() -> None:
    """The conversion of a task's output is a model call like any other, sync and async."""

    class Answer(BaseModel):
        text: str

    for kickoff in (sync, native_async):
        log = Records()
        script = Script(Say("no json"), Say('{"text": "yes"}'))
        alice = agent(script, native=False)
        task = Task(description="do it", expected_output="o", agent=alice, output_pydantic=Answer)
        mine = guarded(Crew(agents=[alice], tasks=[task], verbose=False), Guard(sink=log, strict=True))
        assert kickoff(mine).raw == "no json"
        assert len(log.of(ModelResponded)) == script.calls >= 2


def test_the_forced_last_answer_is_the_agents_own() -> None:
    """At `max_iter` CrewAI asks without saying for whom; the call still belongs to the agent."""
    log = Records()
    script = Script(*turns(2), Say("last"))
    mine = crew_of(agent(script, acting([]), max_iter=2))
    assert guarded(mine, Guard(sink=log, strict=True)).kickoff().raw == "last"
    assert len({event.instance for event in log.of(ModelResponded)}) == 1


def test_tokens_are_estimated_where_a_model_reports_none() -> None:
    """A model without events or counters is counted by the length of its words, and the report says so."""

    class Silent(BaseLLM):
        def call(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
            return "twelve chars"

    guard = Guard(strict=True)
    guarded(crew_of(agent(Script(Say("")), llm=Silent(model="silent"))), guard).kickoff()
    cost = guard.report().runs[0].cost
    assert (cost.output_tokens, cost.estimated) == (3, True)


# -- streams


def chunks_of(mine: Crew) -> tuple[list[str], CrewOutput]:
    """What a consumer of the stream gets, and the result."""
    mine.stream = True
    streaming = mine.kickoff()
    return [chunk.content for chunk in streaming], streaming.result


def test_a_stream_passes_token_by_token() -> None:
    """Under rules that do not hold, a stream is what it would have been."""
    chunks, output = chunks_of(guarded(crew(Script(Say("all is well"))), Guard(strict=True)))
    assert chunks == ["all ", "is ", "well "]
    assert output.raw == "all is well"


def test_a_held_answer_is_streamed_once_it_is_accepted() -> None:
    """Under `output: hold` a consumer never sees a token of a reply that was thrown away."""
    held = rule(AnomalyType.EMPTY_RESPONSE, {"retry": 2}, output="hold")
    script = Script(Say("   "), Say("all is well"))
    chunks, output = chunks_of(guarded(crew(script), Guard(held, strict=True)))
    assert chunks == ["all is well"]
    assert output.raw == "all is well"
    bare, _ = chunks_of(crew(Script(Say("   "), Say("all is well"))))
    assert len(bare) > 1


def test_a_verdict_after_the_tokens_are_out_is_late() -> None:
    """Without holding, a thrown-away reply was already streamed, and its receipt says so."""
    log = Records()
    script = Script(Say("   "), Say("fine"))
    chunks, _ = chunks_of(guarded(crew(script), Guard(RETRY, sink=log, strict=True)))
    assert "".join(chunks).strip() == "fine"
    details = [event.detail for event in log.events if event.kind == "decision.settled"]  # type: ignore[attr-defined]
    assert "late: its tokens were already streamed" in details


class OpenAIServer(http.server.BaseHTTPRequestHandler):
    """Speaks OpenAI's protocol from this machine: three times the same call, then an answer."""

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        """One completion."""
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        told = sum(message["role"] == "tool" for message in asked["messages"])
        call = {"id": f"c{told}", "type": "function", "function": {"name": "act", "arguments": '{"q": "x"}'}}
        says = {"content": "all done"} if told == 3 else {"content": None, "tool_calls": [{**call, "index": 0}]}
        choice = {"index": 0, "finish_reason": "stop" if told == 3 else "tool_calls"}
        usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        whole = {"id": "x", "created": 1, "model": "m"}
        said = {"role": "assistant", **says}
        if asked.get("stream"):
            chunk = {**whole, "object": "chat.completion.chunk"}
            chunks = [{**chunk, "choices": [{**choice, "delta": said}]}, {**chunk, "choices": [], "usage": usage}]
            body = "".join(f"data: {each}\n\n" for each in (*map(json.dumps, chunks), "[DONE]"))
            kind = "text/event-stream"
        else:
            answer = {**whole, "object": "chat.completion", "usage": usage}
            body = json.dumps({**answer, "choices": [{**choice, "message": said}]})
            kind = "application/json"
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())


@pytest.mark.parametrize("output", ["pass", "hold"])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_crewais_own_openai_client_is_guarded(streamed: bool, output: str) -> None:
    """A provider's client as CrewAI ships it is judged, counted, streamed and held like a scripted one."""
    done: list[str] = []
    guard = Guard(rule(AnomalyType.REPEATED_CALL, {"refuse": 9}, output=output), strict=True)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), OpenAIServer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        llm = LLM(model="openai/gpt-4o", api_key="none", base_url=f"http://127.0.0.1:{server.server_port}/v1")
        mine = guarded(crew_of(agent(Script(Say("")), acting(done), llm=llm)), guard)
        if streamed:
            chunks, result = chunks_of(mine)
            assert chunks == ['{"q": "x"}'] * 3 + ["all done"]
        else:
            result = mine.kickoff()
        server.shutdown()
    assert result.raw == "all done"
    assert done == ["x", "x"]
    found = guard.report().runs[0]
    assert (found.cost.input_tokens, found.cost.output_tokens, found.cost.estimated) == (28, 12, False)
    assert [(each.kind, each.took_effect) for each in found.decisions] == [(Kind.REFUSE, True)]


# -- many runs


def test_each_item_is_a_run_of_its_own() -> None:
    """`kickoff_for_each` opens a run for each item, and the crew knows the one begun last."""
    script = Script(*same(2), Say("done"), *same(2), Say("done"))
    done: list[str] = []
    guard = Guard(REFUSE, strict=True)
    mine = guarded(crew(script, acting(done)), guard)
    mine.kickoff_for_each([{"n": "1"}, {"n": "2"}])
    runs = guard.report().runs
    assert done == ["x"] * 4, "what one item did does not count against the next"
    assert len(runs) == 2
    assert mine.last_run == runs[-1].run


@pytest.mark.parametrize("name", ["kickoff_for_each_async", "akickoff_for_each"])
def test_items_at_once_are_runs_of_their_own(name: str) -> None:
    """Items run at once do not mix."""
    guard = Guard(REFUSE, strict=True)

    def reply(texts: Sequence[str]) -> Reply:
        return Say("done") if len(texts) > 5 else Ask("act", {"q": "x"})

    mine = guarded(crew(Script(reply), acting([])), guard)
    outputs = asyncio.run(getattr(mine, name)([{}, {}, {}]))
    runs = guard.report().runs
    assert [each.raw for each in outputs] == ["done"] * 3
    assert [(each.status, each.cost.tool_calls, each.anomalies) for each in runs] == [("completed", 2, ())] * 3
    assert mine.last_run in {each.run for each in runs}


def test_a_second_kickoff_is_a_new_run_that_counts_anew() -> None:
    """The same crew may be kicked off again and again; each is a run."""
    done: list[str] = []
    guard = Guard(REFUSE, strict=True)
    mine = guarded(crew(Script(*same(2), Say("one"), *same(3), Say("two")), acting(done)), guard)
    assert (mine.kickoff().raw, mine.kickoff().raw) == ("one", "two")
    assert done == ["x"] * 4
    first, second = guard.report().runs
    assert (len(first.decisions), len(second.decisions)) == (0, 1)
    assert mine.last_run == second.run


def test_two_crews_at_once_share_a_model_and_nothing_else() -> None:
    """Two guarded crews and a bare one, at once, on one model: each guard sees its own crew, nobody the bare one."""
    meeting = threading.Barrier(3, timeout=20)
    tally: dict[int, int] = {}

    def reply(texts: Sequence[str]) -> Reply:
        meeting.wait()
        me = threading.get_ident()
        tally[me] = tally.get(me, 0) + 1
        return Say("done") if len(texts) > 7 else Ask("act", {"q": "x"})

    llm = ScriptedLLM(Script(reply))
    done: list[list[str]] = [[], [], []]
    crews = [crew_of(agent(Script(Say("")), acting(each), llm=llm)) for each in done]
    logs = [Records(), Records()]
    for mine, log in zip(crews, logs, strict=False):
        guarded(mine, Guard(REFUSE, sink=log, strict=True))
    threads = [threading.Thread(target=mine.kickoff) for mine in crews]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert done == [["x", "x"], ["x", "x"], ["x", "x", "x"]]
    assert [len(log.of(ModelResponded)) for log in logs] == [4, 4]
    assert {event.run for event in logs[0].events}.isdisjoint({event.run for event in logs[1].events})


def test_a_bare_crew_before_and_after_is_not_touched() -> None:
    """A crew that is not guarded runs as ever, also on the model and the agent of one that is."""
    done: list[str] = []
    log = Records()
    alice = agent(Script(*same(), Say("one"), *same(), Say("two"), *same(), Say("three")), acting(done))
    bare, mine = crew_of(alice), guarded(crew_of(alice), Guard(REFUSE, sink=log, strict=True))
    assert [bare.kickoff().raw, mine.kickoff().raw, bare.kickoff().raw] == ["one", "two", "three"]
    assert len(done) == 3 + 2 + 3
    assert len(log.of(ModelResponded)) == 4


def test_a_context_kept_from_a_run_begins_new_ones() -> None:
    """A kickoff in a context copied while another run was going on is a run of its own once that one is over."""
    kept: list[contextvars.Context] = []
    guard = Guard(REFUSE, strict=True)

    @tool("act")
    def act(q: str) -> str:
        """Keep the context."""
        kept.append(contextvars.copy_context())
        return "nothing"

    guarded(crew(Script(*same(1), Say("done")), act), guard).kickoff()
    done: list[str] = []
    kept[0].run(guarded(crew(Script(*same(), Say("done")), acting(done)), guard).kickoff)
    assert done == ["x", "x"]
    assert [len(each.decisions) for each in guard.report().runs] == [0, 1]


def test_replay_is_guarded() -> None:
    """A crew replayed from a task is a run like any other."""
    done: list[str] = []
    guard = Guard(REFUSE, strict=True)
    script = Script(Say("first"), Say("second"), *same(), Say("again"))
    alice = agent(script, acting(done))
    tasks = [Task(description=text, expected_output="o", agent=alice) for text in ("one", "two")]
    mine = guarded(Crew(agents=[alice], tasks=tasks, verbose=False), guard)
    mine.kickoff()
    mine.replay(str(tasks[1].id))
    assert done == ["x", "x"]
    assert [len(each.decisions) for each in guard.report().runs] == [0, 1]


@pytest.mark.parametrize("fields", [{"async_execution": True}, {}], ids=["async_execution", "max_execution_time"])
def test_threads_of_crewais_own_are_covered(fields: dict[str, Any]) -> None:
    """A task run on a thread of its own, and an agent with a time limit, are guarded like others."""
    done: list[str] = []
    alice = agent(Script(*same(), Say("done")), acting(done), max_execution_time=None if fields else 20)
    task = Task(description="do it", expected_output="o", agent=alice, **fields)
    guarded(Crew(agents=[alice], tasks=[task], verbose=False), Guard(REFUSE, strict=True)).kickoff()
    assert done == ["x", "x"]


def test_what_straggles_after_a_halt_does_no_more() -> None:
    """A task still running on its thread when another one is halted has its next call blocked."""
    done: list[str] = []
    halted, ended = threading.Event(), threading.Event()

    def wait(texts: Sequence[str]) -> Reply:
        assert halted.wait(20)
        return Ask("act", {"q": "straggler"})

    class Slow(ScriptedLLM):
        def call(self, *args: Any, **kwargs: Any) -> Any:
            ended.clear()
            try:
                return super().call(*args, **kwargs)
            finally:
                ended.set()

    script = Script(wait, Say("done"))
    quick = agent(Script(*same(), Say("too late")), acting(done), role="quick")
    slow = agent(script, acting(done), role="slow", llm=Slow(script), max_retry_limit=0)
    tasks = [
        Task(description="quick", expected_output="o", agent=quick, async_execution=True),
        Task(description="slow", expected_output="o", agent=slow, async_execution=True),
        Task(description="last", expected_output="o", agent=quick),
    ]
    mine = guarded(Crew(agents=[slow, quick], tasks=tasks, verbose=False), Guard(HALT, strict=True))
    output = mine.kickoff()
    before = set(threading.enumerate())
    halted.set()
    for thread in before - {threading.current_thread()}:
        if thread.name.startswith("Thread-"):
            thread.join(20)
    assert ended.is_set()
    assert "misstep ended this run" in output.raw
    assert done == ["x", "x"]
    assert script.calls == 1


# -- agents of agents


def delegate(task: str = "sub", id: str = "d1") -> Ask:  # noqa: A002 - as in `Ask`
    """The call by which a co-worker is given work."""
    return Ask("delegate_work_to_coworker", {"task": task, "context": "none", "coworker": "bob"}, id=id)


def pair(outer: Script, inner: Script, done: list[str], native: bool = True, **fields: Any) -> Crew:
    """Alice, who may delegate to Bob; the task is Alice's."""
    alice = agent(outer, acting(done), native=native, allow_delegation=True)
    bob = agent(inner, acting(done), role="bob", native=native)
    task = Task(description="do it", expected_output="o", agent=alice)
    return Crew(agents=[alice, bob], tasks=[task], verbose=False, **fields)


@both
def test_a_co_workers_calls_are_refused_and_are_its_own(native: bool) -> None:
    """The co-worker is guarded within the delegating call, as an instance of its own; its task is an agent's word."""
    done: list[str] = []
    log = Records()
    calls, effects = loop(native)
    inner = Script(*calls, lambda texts: Say("inner went on" if OBJECTION in "".join(texts) else "inner never told"))
    outer = Script(*calls[:2], delegate(), lambda texts: Say(f"heard {'inner went on' in ''.join(texts)}"))
    mine = guarded(pair(outer, inner, done, native), Guard(REFUSE, sink=log, strict=True))
    assert mine.kickoff().raw == "heard True"
    assert done == [*effects[:2], *effects]
    instances = {event.agent: event.instance for event in log.of(ModelResponded)}
    assert instances["alice"] != instances["bob"]
    assert {event.trust for event in log.of(MessageSent) if event.agent == "bob" and "sub" in event.content} == {
        "agent"
    }
    assert len({event.run for event in log.events}) == 1


@both
@ways
def test_a_halt_inside_a_co_worker_ends_the_whole_run(kickoff: Callable[[Crew], CrewOutput], native: bool) -> None:
    """CrewAI turns a co-worker's halt into text; it is raised again at the delegating call."""
    done: list[str] = []
    calls, effects = loop(native)
    inner, outer = Script(*calls), Script(delegate(), Say("outer went on"))
    guard = Guard(HALT, strict=True)
    mine = guarded(pair(outer, inner, done, native), guard)
    assert "misstep ended this run" in kickoff(mine).raw
    assert done == effects
    assert outer.calls == 1
    assert guard.report(mine.last_run).runs[0].status == "halted"


def test_a_hierarchical_manager_is_guarded() -> None:
    """The manager CrewAI makes at kickoff is guarded, and so are those it gives work to."""
    done: list[str] = []
    log = Records()
    manager = Script(delegate(id="d1"), delegate(id="d2"), delegate(id="d3"), Say("managed"))
    bob = agent(Script(Say("the same")), acting(done), role="bob")
    task = Task(description="do it", expected_output="o")
    mine = Crew(
        agents=[bob], tasks=[task], process=Process.hierarchical, manager_llm=ScriptedLLM(manager), verbose=False
    )
    guard = Guard(REFUSE, sink=log, strict=True)
    assert guarded(mine, guard).kickoff().raw == "managed"
    assert OBJECTION in "".join(manager.seen[3])
    assert [event.agent for event in log.of(ModelResponded)] == ["Crew Manager", "bob", "Crew Manager", "bob"] + [
        "Crew Manager"
    ] * 2
    assert [each.kind for each in guard.report().runs[0].decisions] == [Kind.REFUSE]


def helper(inner: Crew) -> Any:
    """A crew as a tool."""

    @tool("helper")
    def call() -> str:
        """Have a crew do a part."""
        return str(inner.kickoff())

    return call


@pytest.mark.parametrize("inside", ["bare", "guarded"])
def test_a_crew_in_a_tool_is_part_of_the_run(inside: str) -> None:
    """A crew run in a tool belongs to the outer run, whether or not it is guarded by the same guard itself."""
    done: list[str] = []
    guard = Guard(REFUSE, strict=True)
    inner = crew(Script(*same(), Say("inner done")), acting(done))
    if inside == "guarded":
        guarded(inner, guard)
    outer = guarded(crew(Script(Ask("helper"), *same(), Say("done")), acting(done), helper(inner)), guard)
    assert outer.kickoff().raw == "done"
    assert done == ["x"] * 4
    (run,) = guard.report().runs
    assert [each.kind for each in run.decisions] == [Kind.REFUSE] * 2, "the inner crew's end is not the run's"


@pytest.mark.parametrize("inside", ["bare", "guarded"])
def test_a_halt_in_a_crew_in_a_tool_ends_the_outer_run(inside: str) -> None:
    """The inner crew does not end softly where an outer one would walk on."""
    done: list[str] = []
    guard = Guard(HALT, strict=True)
    inner = crew(Script(*same(), Say("too late")), acting(done))
    if inside == "guarded":
        guarded(inner, guard)
    script = Script(Ask("helper"), Say("outer went on"))
    outer = guarded(crew(script, helper(inner)), guard)
    assert "misstep ended this run" in outer.kickoff().raw
    assert script.calls == 1
    assert [each.status for each in guard.report().runs] == ["halted"]


def test_an_inner_crew_in_a_scope_of_hooks_of_its_own_stays_guarded() -> None:
    """A scope of hooks inside replaces the one outside; a guarded crew puts its guard behind those again."""
    done: list[str] = []
    guard = Guard(REFUSE, strict=True)
    inner = guarded(crew(Script(*same(), Say("inner done")), acting(done)), guard)

    @tool("helper")
    def call() -> str:
        """Have a crew do a part, in a scope of its own."""
        with scoped_hooks({}):
            return str(inner.kickoff())

    guarded(crew(Script(Ask("helper"), Say("done")), call), guard).kickoff()
    assert done == ["x", "x"]


def test_two_guards_both_have_their_say() -> None:
    """A crew under one guard, run in a tool of a crew under another, is judged by both, each in its own run."""
    done: list[str] = []
    logs = Records(), Records()
    lenient, severe = Guard(RETRY, sink=logs[0], strict=True), Guard(REFUSE, sink=logs[1], strict=True)
    inner = guarded(crew(Script(*same(), Say("inner done")), acting(done)), lenient)
    outer = guarded(crew(Script(Ask("helper"), Say("done")), helper(inner)), severe)
    assert outer.kickoff().raw == "done"
    assert done == ["x", "x"]
    assert [len(log.of(ModelResponded)) for log in logs] == [4, 6]
    assert [len({event.run for event in log.events}) for log in logs] == [1, 1]


def test_crews_in_a_flow_are_runs_of_their_own() -> None:
    """A flow is not guarded, its crews are; a soft halt of one leaves the flow to go on."""
    done: list[str] = []
    guard = Guard(HALT, strict=True)
    mine = guarded(crew(Script(*same(), Say("done"), Say("fine")), acting(done)), guard)

    class Steps(Flow):  # type: ignore[type-arg]
        @start()
        def begin(self) -> str:
            """Run the crew."""
            return str(mine.kickoff())

    assert "misstep ended this run" in str(Steps().kickoff())
    assert done == ["x", "x"]
    assert [each.status for each in guard.report().runs] == ["halted"]


def test_what_earlier_tasks_said_is_not_the_users_word() -> None:
    """Earlier tasks' results, which CrewAI writes into the next task's prompt, come from agents; the task does not."""
    log = Records()
    first = agent(Script(Say("order K7310 it is")), role="bob")
    second = agent(Script(Say("done")))
    guarded(crew_of(first, second, task="find the order"), Guard(sink=log, strict=True)).kickoff()
    heard = [(event.trust, "K7310" in event.content) for event in log.of(MessageSent) if event.agent == "alice"]
    assert ("user", False) in heard
    assert ("agent", True) in heard
    assert ("user", True) not in heard


@both
def test_an_agent_that_plans_is_guarded_in_every_step(native: bool) -> None:
    """A plan, its steps and the look at each step are conversations of the agent's; only one prompt is a user's."""
    steps = [{"step_number": 1, "description": "act", "tool_to_use": "act", "depends_on": []}]
    plan = json.dumps({"plan": "p", "steps": steps, "ready": True})
    observed = {"step_completed_successfully": True, "key_information_learned": "k", "remaining_plan_still_valid": True}
    planner = ScriptedLLM(Script(Say(plan), Say(json.dumps(observed))))
    calls, effects = loop(native)
    script = Script(*calls, Say("step done"), Say("all done"))
    done: list[str] = []
    log = Records()
    alice = agent(script, acting(done), native=native, planning_config=PlanningConfig(max_attempts=1, llm=planner))
    output = guarded(crew_of(alice), Guard(REFUSE, sink=log, strict=True)).kickoff()
    assert "all done" in output.raw
    assert done == effects
    assert len(log.of(ModelResponded)) == len(calls) + 4
    assert [event.trust for event in log.of(MessageSent) if event.role == "user"] == ["user", "agent", "agent", "agent"]
    returned = [event for event in log.of(ToolReturned) if not event.history]
    assert len(returned) == len(effects)


def test_a_crew_base_crew_is_guarded() -> None:
    """A crew made by `@CrewBase` is guarded like any other."""
    done: list[str] = []

    @CrewBase
    class Made:
        agents_config: Any = {}  # noqa: RUF012 - CrewAI's convention
        tasks_config: Any = {}  # noqa: RUF012

        @as_agent
        def alice(self) -> Agent:
            """The agent."""
            return agent(Script(*same(), Say("done")), acting(done))

        @as_task
        def work(self) -> Task:
            """The task."""
            return Task(description="do it", expected_output="o", agent=self.alice())

        @as_crew
        def crew(self) -> Crew:
            """The crew."""
            return Crew(agents=self.agents, tasks=self.tasks, verbose=False)  # type: ignore[attr-defined]

    assert guarded(Made().crew(), Guard(REFUSE, strict=True)).kickoff().raw == "done"
    assert done == ["x", "x"]


def test_a_model_looked_up_in_a_halted_run_is_not_asked_any_more() -> None:
    """Whoever kept `llm.call` from a run that was halted is stopped; from one that ended well, goes on unguarded."""
    kept: list[Any] = []
    for calls in (same(), same(1)):
        llm = ScriptedLLM(Script(*calls, Say("done")))

        @tool("act")
        def act(q: str) -> str:
            """Keep the model's method."""
            kept.append(llm.call)  # noqa: B023
            return "nothing"

        guarded(crew_of(agent(Script(Say("")), act, llm=llm)), Guard(HALT, strict=True)).kickoff()
    with pytest.raises(Halted):
        kept[0]("hello")
    assert kept[-1]("hello") == "done"


@both
def test_an_agent_run_by_hand_in_a_tool_is_guarded(native: bool) -> None:
    """`Agent.kickoff` within a guarded run is part of it; CrewAI's own prompts to go on are no words of the user's."""
    done: list[str] = []
    log = Records()
    calls, effects = loop(native)
    inner = agent(Script(*calls, Say("inner done")), acting(done), role="bob", native=native)

    @tool("helper")
    def call() -> str:
        """Have an agent do a part."""
        return str(inner.kickoff("your part"))

    mine = guarded(crew(Script(Ask("helper"), Say("done")), call), Guard(REFUSE, sink=log, strict=True))
    assert mine.kickoff().raw == "done"
    assert done == effects
    assert [event.trust for event in log.of(MessageSent) if event.agent == "bob"].count("user") == 1


def test_a_bare_crew_in_a_scope_of_hooks_of_its_own_is_guarded() -> None:
    """Such a scope hides the hooks outside of it, but not ours, which are in no scope."""
    done: list[str] = []
    guard = Guard(REFUSE, strict=True)
    inner = crew(Script(*same(), Say("inner done")), acting(done))

    @tool("helper")
    def call() -> str:
        """Have a crew do a part, in a scope of its own."""
        with scoped_hooks({}):
            return str(inner.kickoff())

    guarded(crew(Script(Ask("helper"), Say("done")), call), guard).kickoff()
    assert done == ["x", "x"]
    assert [each.took_effect for each in guard.report().runs[0].decisions] == [True]


def test_a_hook_registered_during_a_run_comes_before_ours() -> None:
    """What a hook makes of a call is what is judged, whenever it was registered and wherever."""
    for register in (register_hook, register_scoped):
        done: list[str] = []

        def change(context: ToolCallHookContext) -> None:
            context.tool_input["q"] = "x"

        @tool("late")
        def late() -> str:
            """Register a hook."""
            register(InterceptionPoint.PRE_TOOL_CALL, change)  # noqa: B023
            return "registered"

        calls = [Ask("act", {"q": str(number)}, id=f"c{number}") for number in range(3)]
        mine = guarded(crew(Script(Ask("late"), *calls, Say("done")), acting(done), late), Guard(REFUSE, strict=True))
        with scoped_hooks():
            mine.kickoff()
        unregister_hook(InterceptionPoint.PRE_TOOL_CALL, change)
        assert done == ["x", "x"]


def text_of(key: str, **values: str) -> str:
    """A text of CrewAI's own."""
    return I18N_DEFAULT.slice(key).format(**values)


ACTION = "Thought: t\nAction: act\nAction Input: {}"
SPOKEN: list[tuple[str, list[dict[str, Any]], list[tuple[str, str | None]]]] = [
    ("a prompt", [{"role": "user", "content": "do"}], [("user", "user")]),
    (
        "with an earlier task's result",
        [{"role": "user", "content": text_of("task_with_context", task="do", context="it is K7310")}],
        [("user", "user"), ("user", "agent")],
    ),
    (
        "with memories",
        [{"role": "user", "content": "do" + text_of("memory", memory="it was K7310")}],
        [("user", "user"), ("user", "agent")],
    ),
    (
        "an action and its observation",
        [{"role": "user", "content": "do"}, {"role": "assistant", "content": f"{ACTION}\nObservation: nothing"}],
        [("user", "user"), ("assistant", None), ("tool", None)],
    ),
    (
        "an observation of a step",
        [
            {"role": "user", "content": "do"},
            {"role": "assistant", "content": ACTION},
            {"role": "user", "content": "Observation: nothing"},
        ],
        [("user", "user"), ("assistant", None), ("tool", None)],
    ),
    (
        "what CrewAI says in between",
        [
            {"role": "user", "content": "do"},
            {"role": "assistant", "content": ACTION},
            {"role": "user", "content": text_of("post_tool_reasoning")},
            {"role": "user", "content": "Native tool calling is unavailable"},
            {"role": "user", "content": text_of("feedback_instructions", feedback="shorter")},
        ],
        [("user", "user"), ("assistant", None), ("user", "system"), ("user", "agent"), ("user", "user")],
    ),
    (
        "a summary of what was said",
        [{"role": "system", "content": "s"}, {"role": "user", "content": text_of("summary", merged_summary="m")}],
        [("system", None), ("user", "agent")],
    ),
    (
        "parts that are no text",
        [{"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {}}]}],
        [("user", "user")],
    ),
]


@pytest.mark.parametrize(("messages", "expected"), [case[1:] for case in SPOKEN], ids=[case[0] for case in SPOKEN])
def test_who_vouches_for_a_message(messages: list[dict[str, Any]], expected: list[tuple[str, str | None]]) -> None:
    """What CrewAI writes into one message is told apart by who said it."""
    found = pieces(messages, Place("alice", "t/alice", task=True), first=True)
    assert [(piece.role, piece.trust) for piece in found] == expected
    assert all(piece.trust != "user" or "K7310" not in piece.text for piece in found)


# -- modes


@both
def test_shadow_records_and_does_nothing(native: bool) -> None:
    """In shadow mode everything happens as without the guard, and what would have been decided is on the record."""
    done: list[str] = []
    calls, effects = loop(native)
    guard = Guard(HALT, mode="shadow", strict=True)
    mine = guarded(crew(Script(*calls, Say("done")), acting(done), native=native), guard)
    assert mine.kickoff().raw == "done"
    assert len(done) == len(effects) + 1
    (decision,) = guard.report().runs[0].decisions
    assert (decision.kind, decision.hypothetical, decision.took_effect) == (Kind.HALT, True, None)


@both
def test_off_does_nothing(native: bool) -> None:
    """Switched off, the guard sees nothing; switched on again during a run, it holds for the rest of that run."""
    log = Records()
    guard = Guard(HALT, mode="off", sink=log, strict=True)

    def reply(texts: Sequence[str]) -> Reply:
        assert log.events == []
        guard.mode = "enforce"
        return Say("done")

    calls, effects = loop(native)
    done: list[str] = []
    alice = agent(Script(*turns(5), reply, *calls, Say("too late")), acting(done), native=native)
    assert guarded(crew_of(alice, alice), guard).kickoff().raw == "done"
    assert done == [*"xyxyx", *effects]


def test_a_kickoff_taken_before_the_crew_was_guarded_is_guarded() -> None:
    """Whoever kept `crew.kickoff` runs the guarded crew; halted, it ends softly, and is one run."""
    for name in ("kickoff", "akickoff"):
        done: list[str] = []
        guard = Guard(HALT, strict=True)
        mine = crew(Script(*same(), Say("too late")), acting(done))
        kept = getattr(mine, name)
        guarded(mine, guard)
        output = asyncio.run(kept()) if name == "akickoff" else kept()
        assert "misstep ended this run" in output.raw
        assert done == ["x", "x"]
        assert [each.run for each in guard.report().runs] == [mine.last_run]


def test_a_crew_guarded_by_its_own_kickoff_is_guarded() -> None:
    """A callback before the kickoff comes early enough."""
    done: list[str] = []
    guard = Guard(REFUSE, strict=True)
    mine = crew(Script(*same(), Say("done")), acting(done))
    mine.before_kickoff_callbacks.append(lambda inputs: guarded(mine, guard) and inputs)
    assert mine.kickoff().raw == "done"
    assert done == ["x", "x"]


def test_nothing_is_global_during_a_run() -> None:
    """While a crew runs, no hook of the process is ours, and what another thread does is not judged."""
    log = Records()
    seen: list[int] = []
    other = ScriptedLLM(Script(Say("elsewhere")))

    def reply(texts: Sequence[str]) -> Reply:
        thread = threading.Thread(target=lambda: other.call("hello"))
        thread.start()
        thread.join()
        seen.append(sum(len(get_hooks(point)) for point in InterceptionPoint))
        return Say("done")

    guarded(crew(Script(reply)), Guard(sink=log, strict=True)).kickoff()
    assert seen == [0]
    assert [event.content for event in log.of(ModelResponded)] == ["done"]


def test_the_bus_has_no_handler_of_ours_left() -> None:
    """No handler stays on CrewAI's event bus."""
    before = {kind: set(handlers) for kind, handlers in crewai_event_bus._sync_handlers.items()}
    chunks_of(guarded(crew(Script(Say("fine"))), Guard(strict=True)))
    after = {kind: set(handlers) for kind, handlers in crewai_event_bus._sync_handlers.items()}
    before.setdefault(LLMStreamChunkEvent, set())
    assert after == before
