"""The AutoGen adapter beyond the shared scenarios: teams, halts, nesting, streams, hand-offs, hangs, undoing."""

from __future__ import annotations

import asyncio
import copy
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

pytest.importorskip("autogen_agentchat")

from autogen_agentchat.agents import (
    ApprovalResponse,
    AssistantAgent,
    BaseChatAgent,
    CodeExecutorAgent,
    MessageFilterAgent,
    MessageFilterConfig,
    PerSourceFilter,
    SocietyOfMindAgent,
    UserProxyAgent,
)
from autogen_agentchat.base import Response, TaskResult
from autogen_agentchat.conditions import MaxMessageTermination
from autogen_agentchat.messages import (
    ModelClientStreamingChunkEvent,
    StopMessage,
    TextMessage,
    ToolCallExecutionEvent,
    ToolCallSummaryMessage,
)
from autogen_agentchat.teams import (
    DiGraphBuilder,
    GraphFlow,
    MagenticOneGroupChat,
    RoundRobinGroupChat,
    SelectorGroupChat,
    Swarm,
)
from autogen_agentchat.tools import AgentTool, TeamTool
from autogen_core import CancellationToken, SingleThreadedAgentRuntime
from autogen_core.code_executor import CodeExecutor, CodeResult
from autogen_core.memory import ListMemory, MemoryContent, MemoryMimeType
from autogen_core.model_context import BufferedChatCompletionContext
from autogen_core.models import ChatCompletionClient, CreateResult, ModelInfo
from autogen_core.tools import FunctionTool, StaticWorkbench, ToolResult
from autogen_ext.models.replay import ReplayChatCompletionClient

import misstep
import misstep_autogen
from misstep import Anomaly, AnomalyType, AttachError, Guard, Policy, Rule, Run, Rung, RunReport
from misstep.decisions import Kind
from misstep.events import (
    Event,
    HandoffRequested,
    HistoryRewritten,
    MessageSent,
    ModelResponded,
    RunStarted,
    ToolFailed,
    ToolRequested,
    ToolReturned,
    TurnEnded,
    TurnStarted,
)
from misstep.testing import Ask, AskAll, Reply, Say, Script
from misstep_autogen import Halted, guarded, unguard
from misstep_autogen.messages import call_key
from misstep_autogen.patch import Patch, patch_of
from misstep_autogen.place import here
from misstep_autogen.testing import ScriptedChatClient
from tests.core.scenes import Records

LOOP = AnomalyType.REPEATED_CALL
EMPTY = AnomalyType.EMPTY_RESPONSE
OBJECTION = "[misstep: repeated_call] This call was not executed"
FEEDBACK = "[misstep: repeated_call] Your last reply was not used"
REASON = "misstep ended this run"


# -- what the tests are written with


def within(main: Coroutine[Any, Any, Any], seconds: float = 10.0) -> Any:
    """Run to the end, or fail: a hang is what these tests look for."""

    async def timed() -> Any:
        task = asyncio.ensure_future(main)
        done, _ = await asyncio.wait({task}, timeout=seconds)
        assert done, f"still not done after {seconds:g} s: it hangs"
        return task.result()

    return asyncio.run(timed())


def rule(type_: AnomalyType, *rungs: Any, output: Any = "pass", closed: bool = False) -> Policy:
    """A policy with one rule."""
    ladder = tuple(map(Rung.model_validate, rungs))
    return Policy(rules={type_: Rule(ladder=ladder, output=output, on_guard_failure="closed" if closed else "open")})


REFUSE = rule(LOOP, {"refuse": 9})
REPROMPT = rule(LOOP, {"reprompt": 1})
RETRY = rule(EMPTY, {"retry": 2})
HALT = rule(LOOP, "halt")
HALT_ON_NOTHING = rule(EMPTY, "halt")


def again(count: int, tool: str = "act", q: str = "x") -> list[Ask]:
    """The same call, `count` times, each with an id of its own."""
    return [Ask(tool, {"q": q}, id=f"c{number}") for number in range(count)]


def acting(done: list[str]) -> Callable[[str], str]:
    """A tool with an effect."""

    def act(q: str) -> str:
        """Act."""
        done.append(q)
        return "nothing"

    return act


def agent(name: str, script: Script, *tools: Any, **options: Any) -> AssistantAgent:
    """An agent that plays a script."""
    return AssistantAgent(
        name,
        ScriptedChatClient(script),
        tools=list(tools),
        **{"max_tool_iterations": 9, "system_message": None, **options},
    )


def speaker(name: str, *texts: str) -> AssistantAgent:
    """An agent that only talks."""
    return agent(name, Script(*map(Say, texts or (f"{name} speaks",))))


def report(guard: Guard, x: Any) -> RunReport:
    """The report of the run begun last."""
    return guard.report(x.last_run).runs[0]


def kinds(found: RunReport) -> list[tuple[Kind, bool | None, bool | None]]:
    """What was decided, and what became of it."""
    return [(each.kind, each.took_effect, each.recurred) for each in found.decisions]


def texts(result: TaskResult) -> list[str]:
    """What was said, as the caller reads it."""
    return [f"{message.source}: {message.to_text()}" for message in result.messages]


async def told(x: Any) -> list[str]:
    """What an agent's own context holds."""
    return [str(message.content) for message in await x.model_context.get_messages()]


@dataclass(frozen=True)
class Finding:
    """A rule that finds something in every event it hears: a tool's answer, or a turn."""

    hears: type[Event]
    type: ClassVar[AnomalyType] = LOOP

    def __call__(self, event: ToolReturned | TurnStarted | TurnEnded | HandoffRequested, run: Run) -> Anomaly | None:
        """Find it."""
        return Anomaly(type=self.type, message="found") if isinstance(event, self.hears) else None


class Slow(ScriptedChatClient):
    """A model that takes its time."""

    async def create(self, messages: Any, **kwargs: Any) -> CreateResult:
        """Answer late."""
        await asyncio.sleep(0.2)
        return await super().create(messages, **kwargs)


class Custom(BaseChatAgent):
    """A custom agent without a model."""

    def __init__(self, name: str = "custom", *answers: str) -> None:
        super().__init__(name, "answers by itself")
        self.heard: list[str] = []
        self.answers = list(answers)

    @property
    def produced_message_types(self) -> Sequence[type[TextMessage]]:
        """Texts."""
        return (TextMessage,)

    async def on_messages(self, messages: Any, cancellation_token: CancellationToken) -> Response:
        """Answer."""
        self.heard.extend(message.to_text() for message in messages)
        text = self.answers.pop(0) if self.answers else "custom answer"
        return Response(chat_message=TextMessage(content=text, source=self.name))

    async def on_reset(self, cancellation_token: CancellationToken) -> None:
        """Nothing to forget."""


# -- nothing is wrong


def healthy(stream: bool) -> AssistantAgent:
    """An agent with two calls and an answer."""
    script = Script(
        *again(1), AskAll((Ask("act", {"q": "y"}, id="d"), Ask("act", {"q": "z"}, id="e"))), Say("all done")
    )
    return agent("alice", script, acting([]), model_client_stream=stream)


def bare(result: Any) -> Any:
    """A result without what differs from run to run."""
    if isinstance(result, TaskResult):
        return [bare(message) for message in result.messages], result.stop_reason
    return type(result).__name__, result.model_dump(exclude={"id", "created_at", "full_message_id"})


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "tokens"])
@pytest.mark.parametrize("team", [False, True], ids=["agent", "team"])
def test_a_healthy_run_is_the_run_it_would_have_been(team: bool, stream: bool) -> None:
    """Under the default guard a healthy run gives the same messages, the same stream and the same contexts."""

    async def main() -> None:
        seen = []
        for guard in (None, Guard(strict=True)):
            alice = healthy(stream)
            x: Any = RoundRobinGroupChat([alice, speaker("bob")], max_turns=2) if team else alice
            if guard is not None:
                guarded(x, guard)
            items = [bare(item) async for item in x.run_stream(task="go")]
            again_ = bare(await x.run(task="once more"))
            seen.append((items, again_, await told(alice)))
        assert seen[0] == seen[1]

    within(main())


def test_guarded_is_the_same_object() -> None:
    """`guarded` returns the user's own object, of the user's own type; for the same guard it changes nothing more."""
    team, guard = RoundRobinGroupChat([speaker("alice")], max_turns=1), Guard()
    assert guarded(team, guard) is team
    assert type(team) is RoundRobinGroupChat
    before = dict(vars(team))
    assert guarded(team, guard) is team
    assert dict(vars(team)) == before
    assert inspect.iscoroutinefunction(team.run)


def test_only_teams_and_agents_can_be_guarded() -> None:
    """Anything else is refused at once, by name."""
    with pytest.raises(TypeError, match="takes an AutoGen team or agent, found str"):
        guarded("team", Guard())


def test_the_public_names() -> None:
    """What is exported is there, and sorted."""
    assert misstep_autogen.__all__ == sorted(misstep_autogen.__all__)
    assert all(hasattr(misstep_autogen, name) for name in misstep_autogen.__all__)
    assert issubclass(Halted, misstep.Halted)


# -- what is decided


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "tokens"])
@pytest.mark.parametrize("team", [False, True], ids=["agent", "team"])
def test_a_refused_call_has_no_effect(team: bool, stream: bool) -> None:
    """The third identical call is not executed; the agent reads the objection in its place and goes on."""
    guard, done = Guard(REFUSE, strict=True), list[str]()

    def answer(shown: Sequence[str]) -> Reply:
        return Say("went on" if OBJECTION in shown[-1] else "never told")

    alice = agent("alice", Script(*again(3), answer), acting(done), model_client_stream=stream)
    x: Any = RoundRobinGroupChat([alice], max_turns=1) if team else alice
    result = within(guarded(x, guard).run(task="go"))

    assert done == ["x", "x"]
    assert texts(result)[-1] == "alice: went on"
    last = [message for message in result.messages if isinstance(message, ToolCallExecutionEvent)][-1]
    assert last.content[0].is_error
    assert kinds(report(guard, x)) == [(Kind.REFUSE, True, False)]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "tokens"])
def test_an_empty_reply_is_sampled_again(stream: bool) -> None:
    """An empty reply never gets into the context; the model is asked again with the same input."""
    guard, script = Guard(RETRY, strict=True), Script(Say(""), Say("good"))
    alice = guarded(agent("alice", script, model_client_stream=stream), guard)

    async def main() -> None:
        result = await alice.run(task="go")
        assert texts(result) == ["user: go", "alice: good"]
        assert await told(alice) == ["go", "good"]

    within(main())
    assert script.seen[0] == script.seen[1]
    assert kinds(report(guard, alice)) == [(Kind.RETRY, True, False)]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "tokens"])
def test_feedback_is_for_the_model_alone(stream: bool) -> None:
    """A reprompted model reads the feedback; the context afterwards holds neither that nor the rejected reply."""
    guard, done = Guard(REPROMPT, strict=True), list[str]()
    script = Script(*again(3), Ask("act", {"q": "other"}, id="o"), Say("changed"))
    alice = guarded(agent("alice", script, acting(done), model_client_stream=stream), guard)

    async def main() -> None:
        assert texts(await alice.run(task="go"))[-1] == "alice: changed"
        held = await told(alice)
        assert not any(FEEDBACK in text for text in held)
        assert not any("c2" in text for text in held)

    within(main())
    assert done == ["x", "x", "other"]
    assert FEEDBACK in script.seen[3][-1]
    assert not any(FEEDBACK in text for text in script.seen[4])
    assert kinds(report(guard, alice)) == [(Kind.REPROMPT, True, False)]


def test_a_halted_agent_returns_what_it_did() -> None:
    """A halt ends each way of running an agent softly: what was done, and the reason."""

    async def main(begin: Callable[[Any], Any]) -> None:
        guard, done = Guard(HALT, strict=True), list[str]()
        alice = guarded(agent("alice", Script(*again(9)), acting(done)), guard)
        last = await begin(alice)
        if isinstance(last, TaskResult):
            said, reason = texts(last), last.stop_reason
            assert said[0] == "user: go"
        else:
            assert isinstance(last.chat_message, StopMessage)
            said, reason = [message.to_text() for message in last.inner_messages], last.chat_message.content
        assert reason is not None
        assert reason.startswith(REASON)
        assert sum("nothing" in text for text in said) == 2
        assert done == ["x", "x"]
        assert report(guard, alice).status == "halted"
        assert kinds(report(guard, alice)) == [(Kind.HALT, True, False)]

    async def last_of(stream: AsyncIterator[Any]) -> Any:
        return [item async for item in stream][-1]

    task = [TextMessage(content="go", source="user")]
    for begin in (
        lambda alice: alice.run(task="go"),
        lambda alice: last_of(alice.run_stream(task="go")),
        lambda alice: alice.on_messages(task, CancellationToken()),
        lambda alice: last_of(alice.on_messages_stream(task, CancellationToken())),
    ):
        within(main(begin))


def team_to_halt(guard: Guard, done: list[str], **options: Any) -> tuple[Any, AssistantAgent, Script]:
    """A team whose second speaker loops, once; what it says later is fine."""
    looping = Script(*again(3), Say("bob is well"))
    bob = agent("bob", looping, acting(done))
    team = RoundRobinGroupChat([speaker("alice"), bob, speaker("carol")], name="crew", **options)
    return guarded(team, guard), bob, looping


def test_a_halted_team_returns_what_it_did(caplog: pytest.LogCaptureFixture) -> None:
    """A halt ends a team as a termination condition does: no exception, no error in the log, nobody is told of it."""
    caplog.set_level(logging.ERROR)
    guard, done = Guard(HALT, strict=True), list[str]()

    async def main() -> None:
        team, bob, _ = team_to_halt(guard, done, max_turns=6)
        streamed = [item async for item in team.run_stream(task="go")]
        result = streamed[-1]
        assert isinstance(result, TaskResult)
        assert [message.id for message in result.messages] == [item.id for item in streamed[:-1]]
        assert texts(result)[:2] == ["user: go", "alice: alice speaks"]
        assert not any(REASON in text for text in texts(result))
        assert str(result.stop_reason).startswith(REASON)
        state = str(await team.save_state())
        assert REASON not in state
        assert done == ["x", "x"]
        assert len(await told(bob)) == 6

    within(main())
    assert [record for record in caplog.records if record.name.startswith("autogen")] == []


def test_a_halted_team_can_be_used_again() -> None:
    """After a halt the team runs its whole course again, and each agent hears everything once."""
    guard, done = Guard(HALT, strict=True), list[str]()

    async def main() -> None:
        team, _, script = team_to_halt(guard, done, termination_condition=MaxMessageTermination(5))
        await team.run(task="go")
        result = await team.run(task="again")
        said = [text for text in texts(result) if "speaks" in text or "well" in text or "user" in text]
        assert said == [
            "user: again",
            "carol: carol speaks",
            "alice: alice speaks",
            "bob: bob is well",
            "carol: carol speaks",
        ]
        assert "Maximum number of messages 5 reached" in str(result.stop_reason)
        heard = script.seen[-1]
        assert [text for text in heard if text in ("go", "again")] == ["go", "again"]
        assert not any(REASON in text for text in heard)

    within(main())
    first, second = guard.report().runs
    assert (first.status, second.status) == ("halted", "completed")


@pytest.mark.parametrize("stream", [False, True], ids=["run", "stream"])
@pytest.mark.parametrize("team", [False, True], ids=["agent", "team"])
def test_a_halt_is_raised_on_request(team: bool, stream: bool) -> None:
    """With `on_halt="raise"` the caller gets misstep_autogen.Halted itself, of a team too, and can run it again."""
    guard, done = Guard(HALT, strict=True), list[str]()
    alice = agent("alice", Script(*again(3), Say("well again")), acting(done))
    x: Any = RoundRobinGroupChat([alice], max_turns=1) if team else alice
    guarded(x, guard, on_halt="raise")

    async def streamed() -> None:
        async for _ in x.run_stream(task="go"):
            pass

    async def main() -> None:
        with pytest.raises(Halted, match=REASON) as caught:
            await (streamed() if stream else x.run(task="go"))
        assert type(caught.value) is Halted
        assert caught.value.reason.startswith(REASON)
        assert texts(await x.run(task="again"))[-1] == "alice: well again"

    within(main())
    assert [run.status for run in guard.report().runs] == ["halted", "completed"]


@pytest.mark.parametrize("hears", [ToolReturned, TurnStarted, TurnEnded])
def test_a_halt_where_no_model_is_asked_any_more(hears: type[Event]) -> None:
    """What is found in a last tool result or in a turn ends the run as well: no later agent is given the turn."""
    guard, done = Guard(HALT, detectors=[Finding(hears)], strict=True), list[str]()
    alice = agent("alice", Script(*again(9)), acting(done), max_tool_iterations=1)
    bob = Custom("bob")

    async def main() -> None:
        team = guarded(RoundRobinGroupChat([alice, bob], max_turns=4), guard)
        result = await team.run(task="go")
        assert str(result.stop_reason).startswith(REASON)
        assert bob.heard == []
        assert done == ([] if hears is TurnStarted else ["x"])
        found = report(guard, team)
        assert found.status == "halted"
        assert kinds(found) == [(Kind.HALT, True, False)]
        lone = guarded(agent("lone", Script(*again(9)), acting(done), max_tool_iterations=1), guard)
        assert str((await lone.run(task="go")).stop_reason).startswith(REASON)

    within(main())


# -- the guard itself fails


def crashing(method: str) -> Guard:
    """A guard one of whose methods crashes."""

    def crash(self: Guard, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("a bug in the guard")

    broken: type[Guard] = type("Broken", (Guard,), {method: crash})
    return broken(HALT)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "tokens"])
@pytest.mark.parametrize("team", [False, True], ids=["agent", "team"])
@pytest.mark.parametrize("method", ["open", "judge", "observe", "verdict", "session", "settle", "end"])
def test_a_guard_that_crashes_is_as_good_as_none(method: str, team: bool, stream: bool) -> None:
    """Whichever of our hooks crashes, the host's result is what it is without us, and nothing hangs."""

    async def main() -> None:
        seen = []
        for guard in (None, crashing(method)):
            alice = healthy(stream)
            x: Any = RoundRobinGroupChat([alice, speaker("bob")], max_turns=2) if team else alice
            if guard is not None:
                guarded(x, guard)
            seen.append(bare(await x.run(task="go")))
        assert seen[0] == seen[1]

    within(main())


@pytest.mark.parametrize("name", ["key_of", "said", "own_key", "proposed", "declared", "usage_of"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "tokens"])
def test_a_translation_that_crashes_never_reaches_the_host(
    name: str, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message we cannot read costs the host nothing."""

    def crash(*args: Any, **kwargs: Any) -> Any:
        raise KeyError("a bug in the adapter")

    monkeypatch.setattr(f"misstep_autogen.model.{name}", crash)
    guard = Guard()
    results = [within(x.run(task="go")) for x in (healthy(stream), guarded(healthy(stream), guard))]
    assert bare(results[0]) == bare(results[1])


def test_a_turn_that_crashes_never_reaches_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does a bug at the beginning or end of a turn."""

    def crash(*args: Any, **kwargs: Any) -> Any:
        raise KeyError("a bug in the adapter")

    monkeypatch.setattr("misstep_autogen.turn.TurnStarted", crash)
    monkeypatch.setattr("misstep_autogen.turn.TurnEnded", crash)
    result = within(guarded(RoundRobinGroupChat([healthy(False)], max_turns=1), Guard()).run(task="go"))
    assert texts(result)[-1] == "alice: all done"


@dataclass(frozen=True)
class Crashing:
    """A rule that always crashes."""

    type: ClassVar[AnomalyType] = LOOP

    def __call__(self, event: ToolRequested, run: Run) -> Anomaly | None:
        """Crash."""
        raise RuntimeError("a bug in a rule")


@pytest.mark.parametrize("closed", [False, True], ids=["open", "closed"])
def test_a_rule_that_crashes(closed: bool) -> None:
    """A fail-open rule lets the call pass; a fail-closed one refuses this call, and the run goes on."""
    guard = Guard(rule(LOOP, {"refuse": 9}, closed=closed), detectors=[Crashing()])
    done: list[str] = []
    script = Script(*again(1), Say("went on"))
    result = within(guarded(agent("alice", script, acting(done)), guard).run(task="go"))
    assert texts(result)[-1] == "alice: went on"
    assert done == ([] if closed else ["x"])
    assert ("[misstep: guard_failure]" in script.seen[1][-1]) is closed


def test_a_tool_seat_that_crashes_refuses_under_a_fail_closed_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where our own code fails before a call was made, a fail-closed policy refuses it, and nothing hangs."""

    def crash(*args: Any, **kwargs: Any) -> Any:
        raise KeyError("a bug in the adapter")

    monkeypatch.setattr("misstep_autogen.tool.AutoGenToolSeat.requested", crash)
    done: list[str] = []
    alice = agent("alice", Script(*again(1), Say("went on")), acting(done))
    result = within(guarded(alice, Guard(rule(LOOP, {"refuse": 9}, closed=True))).run(task="go"))
    assert done == []
    assert texts(result)[-1] == "alice: went on"


def test_a_strict_guard_raises_from_the_tool_seat_without_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    """In tests our failures are raised, even from a seat where raising makes AutoGen hang."""

    def crash(*args: Any, **kwargs: Any) -> Any:
        raise KeyError("a bug in the adapter")

    monkeypatch.setattr("misstep_autogen.tool.AutoGenToolSeat.requested", crash)
    alice = guarded(agent("alice", Script(*again(1), Say("on")), acting([])), Guard(strict=True))
    with pytest.raises(KeyError, match="a bug in the adapter"):
        within(alice.run(task="go"))


# -- calls


def test_of_parallel_calls_only_the_bad_one_is_refused() -> None:
    """Of two calls in one reply one is refused, the other is executed."""
    guard, done = Guard(REFUSE, strict=True), list[str]()
    both = AskAll((Ask("act", {"q": "x"}, id="p"), Ask("act", {"q": "y"}, id="r")))
    alice = guarded(agent("alice", Script(*again(2), both, Say("done")), acting(done)), guard)
    result = within(alice.run(task="go"))
    assert done == ["x", "x", "y"]
    results = [message for message in result.messages if isinstance(message, ToolCallExecutionEvent)][-1].content
    assert [(each.call_id, each.is_error) for each in results] == [("p", True), ("r", False)]


def test_a_tool_that_raises() -> None:
    """A tool's exception is its answer, as without us, and on the record."""

    def act(q: str) -> str:
        """Fail."""
        raise ValueError("no such thing")

    events = Records()
    script = Script(*again(1), Say("went on"))
    alice = guarded(agent("alice", script, act), Guard(sink=events, strict=True))
    assert texts(within(alice.run(task="go")))[-1] == "alice: went on"
    assert script.seen[1][-1] == "no such thing"
    assert [event.error for event in events.of(ToolFailed)] == ["no such thing"]


class Raising(StaticWorkbench):
    """A workbench that raises, from which a bare agent hangs."""

    async def call_tool(self, *args: Any, **kwargs: Any) -> ToolResult:
        """Raise."""
        raise ConnectionError("server gone")


def test_a_workbench_that_raises_does_not_hang_the_agent() -> None:
    """A bare agent waits for ever for a workbench that raised; under guard it reads the error."""
    tool = FunctionTool(acting([]), description="act")
    script = Script(*again(1), Say("went on"))
    alice = AssistantAgent("alice", ScriptedChatClient(script), workbench=Raising([tool]), max_tool_iterations=3)
    result = within(guarded(alice, Guard(strict=True)).run(task="go"))
    assert texts(result)[-1] == "alice: went on"
    assert script.seen[1][-1] == "server gone"


def test_calls_that_never_reach_a_tool_are_settled() -> None:
    """An unknown tool, and arguments that are no JSON, are answered by AutoGen itself; the record has both."""

    class Broken(ScriptedChatClient):
        async def create(self, messages: Any, **kwargs: Any) -> CreateResult:
            reply = await super().create(messages, **kwargs)
            for call in reply.content if isinstance(reply.content, list) else ():
                call.arguments = call.arguments.replace("}", "") if call.id == "bad" else call.arguments
            return reply

    events = Records()
    script = Script(AskAll((Ask("nope", {}, id="n"), Ask("act", {"q": "x"}, id="bad"))), Say("went on"))
    alice = AssistantAgent("alice", Broken(script), tools=[acting([])], max_tool_iterations=3)
    result = within(guarded(alice, Guard(sink=events, strict=True)).run(task="go"))
    assert texts(result)[-1] == "alice: went on"
    assert {event.call for event in events.of(ToolFailed)} == {"n", "bad"}
    (broken,) = [event for event in events.of(ToolRequested) if event.call == "bad"]
    assert broken.raw == '{"q": "x"'


def test_an_exception_of_the_model_passes_unchanged() -> None:
    """The user's own exception reaches the caller of an agent as it is, and of a team as AutoGen makes it."""
    boom = ConnectionError("no network")
    guard = Guard(HALT, strict=True)

    async def main() -> None:
        alice = guarded(agent("alice", Script(boom)), guard)
        with pytest.raises(ConnectionError) as caught:
            await alice.run(task="go")
        assert caught.value is boom
        team = guarded(RoundRobinGroupChat([agent("alice", Script(boom))]), guard)
        with pytest.raises(RuntimeError, match="ConnectionError: no network"):
            await team.run(task="go")

    within(main())
    assert [run.status for run in guard.report().runs] == ["failed", "failed"]


# -- never hang


async def slow(q: str) -> str:
    """Take long."""
    await asyncio.sleep(0.5)
    return "late"


@pytest.mark.parametrize("team", [False, True], ids=["agent", "team"])
def test_a_token_cancelled_in_mid_tool_call_does_not_hang(team: bool) -> None:
    """A bare agent hangs there for ever; under guard the run is cancelled, and ends as interrupted."""
    guard = Guard(strict=True)
    alice = agent("alice", Script(*again(1, "slow"), Say("never said")), slow)
    x: Any = guarded(RoundRobinGroupChat([alice], max_turns=1) if team else alice, guard)

    async def main() -> None:
        token = CancellationToken()
        asyncio.get_running_loop().call_later(0.1, token.cancel)
        with pytest.raises(asyncio.CancelledError):
            await x.run(task="go", cancellation_token=token)

    within(main(), 5)
    assert report(guard, x).status == "interrupted"


@pytest.mark.parametrize("team", [False, True], ids=["agent", "team"])
def test_a_task_cancelled_in_mid_tool_call_does_not_hang(team: bool) -> None:
    """Cancelling the caller's own task ends the run, as soon as AutoGen lets it."""
    guard = Guard(strict=True)
    alice = agent("alice", Script(*again(1, "slow"), Say("said")), slow)
    x: Any = guarded(RoundRobinGroupChat([alice], max_turns=1) if team else alice, guard)

    async def main() -> None:
        task = asyncio.ensure_future(x.run(task="go"))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    within(main(), 5)
    assert report(guard, x).status == "interrupted"


def test_what_a_run_has_left_behind_is_not_taken_for_a_run() -> None:
    """A tool that outlives its cancelled run finishes unwatched: its run is over, and stays so."""
    guard, done = Guard(strict=True), list[str]()

    async def late(q: str) -> str:
        """Act late."""
        await asyncio.sleep(0.2)
        done.append(q)
        return "done"

    alice = guarded(agent("alice", Script(*again(1, "late"), Say("said")), late), guard)

    async def main() -> None:
        task = asyncio.ensure_future(alice.run(task="go"))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.3)
        assert done == ["x"]
        assert report(guard, alice).status == "interrupted"
        assert texts(await alice.run(task="again"))[-1] == "alice: said"

    within(main())
    assert [run.status for run in guard.report().runs] == ["interrupted", "completed"]


def test_a_reader_that_leaves_early() -> None:
    """A stream that is not read to its end is an interrupted run; the reader is never inside the run."""
    guard = Guard(strict=True)
    team = guarded(RoundRobinGroupChat([speaker("alice"), speaker("bob")], max_turns=2), guard)

    async def main() -> None:
        stream = team.run_stream(task="go")
        async for _ in stream:
            assert here() is None
            break
        await stream.aclose()
        assert here() is None
        assert texts(await team.run(task="again"))[0] == "user: again"

    within(main())
    assert [run.status for run in guard.report().runs] == ["interrupted", "completed"]


# -- streams


def chunks(items: Sequence[Any]) -> str:
    """The tokens that came out, together."""
    return "".join(item.content for item in items if isinstance(item, ModelClientStreamingChunkEvent))


@pytest.mark.parametrize(("output", "seen"), [("hold", "the good words"), ("pass", "   the good words")])
def test_tokens_of_a_rejected_reply(output: str, seen: str) -> None:
    """With `output: hold` only an accepted reply's tokens come out; else a rejected one's were out before."""
    guard = Guard(rule(EMPTY, {"retry": 2}, output=output), strict=True)
    alice = guarded(agent("alice", Script(Say("   "), Say("the good words")), model_client_stream=True), guard)

    async def main() -> list[Any]:
        return [item async for item in alice.run_stream(task="go")]

    items = within(main())
    assert chunks(items) == seen
    assert texts(items[-1]) == ["user: go", "alice: the good words"]
    (decision,) = report(guard, alice).decisions
    assert ("late" in decision.detail) is (output == "pass") or decision.took_effect


def test_tokens_pass_one_by_one() -> None:
    """Without `hold` a token comes out before the next is made."""
    out: list[str] = []

    class Noting(ScriptedChatClient):
        async def create_stream(self, messages: Any, **kwargs: Any) -> AsyncIterator[Any]:
            async for item in super().create_stream(messages, **kwargs):
                out.append("made")
                yield item

    alice = AssistantAgent("alice", Noting(Script(Say("one two"))), model_client_stream=True)

    async def main() -> None:
        async for item in guarded(alice, Guard(strict=True)).run_stream(task="go"):
            if isinstance(item, ModelClientStreamingChunkEvent):
                out.append(item.content)

    within(main())
    assert out == ["made", "one", "made", " two", "made"]


def test_a_shadowed_policy_holds_nothing_back() -> None:
    """In shadow mode tokens stream untouched, whatever the policy would hold."""
    guard = Guard(rule(EMPTY, {"retry": 2}, output="hold"), mode="shadow", strict=True)
    alice = guarded(agent("alice", Script(Say("  "), Say("x")), model_client_stream=True), guard)

    async def main() -> list[Any]:
        return [item async for item in alice.run_stream(task="go")]

    assert chunks(within(main())) == "  "


# -- whose run it is


def test_two_teams_at_once_share_an_agent() -> None:
    """One agent at work in two teams at once is two agents: neither run counts what the other does."""
    guard = Guard(REFUSE, strict=True)
    done: list[str] = []
    calls = AskAll((Ask("act", {"q": "x"}, id="c"),))
    shared = AssistantAgent("shared", Slow(Script(calls)), tools=[acting(done)])
    teams = [guarded(RoundRobinGroupChat([shared], max_turns=2), guard) for _ in range(2)]

    async def main() -> None:
        await asyncio.gather(*(team.run(task="go") for team in teams))

    within(main())
    assert done == ["x"] * 4
    runs = [report(guard, team) for team in teams]
    assert len({run.run for run in runs}) == 2
    assert all((run.anomalies, run.cost.tool_calls, run.cost.model_calls) == ((), 2, 2) for run in runs)


def test_two_runs_of_one_agent_at_once() -> None:
    """Two runs of one agent are two runs, though its context is one."""
    guard = Guard(strict=True)
    alice = guarded(AssistantAgent("alice", Slow(Script(Say("hi")))), guard)

    async def main() -> None:
        await asyncio.gather(alice.run(task="one"), alice.run(task="two"))

    within(main())
    assert [(run.cost.model_calls, run.status) for run in guard.report().runs] == [(1, "completed")] * 2


def runtime_teams(agents: Sequence[Any], guard: Guard, count: int) -> tuple[SingleThreadedAgentRuntime, list[Any]]:
    """Teams on a runtime the user started."""
    runtime = SingleThreadedAgentRuntime()
    teams = [RoundRobinGroupChat(list(agents), max_turns=2, runtime=runtime) for _ in range(count)]
    return runtime, [guarded(team, guard) for team in teams]


def test_a_team_on_a_runtime_started_before() -> None:
    """On a runtime that does not inherit our context the agents are known by the one run that can have called them."""
    guard, done = Guard(HALT, strict=True), list[str]()

    async def main() -> None:
        alice = agent("alice", Script(Say("hello"), *again(9)), acting(done))
        runtime, (team,) = runtime_teams([alice], guard, 1)
        runtime.start()
        result = await team.run(task="go")
        assert str(result.stop_reason).startswith(REASON)
        assert texts(result)[:2] == ["user: go", "alice: hello"]
        assert done == ["x", "x"]
        assert "alice: " in texts(await team.run(task="again"))[-1]
        await runtime.stop()

    within(main())
    first, second = guard.report().runs
    assert (first.status, first.cost.model_calls) == ("halted", 4)
    assert second.agents == ("alice",)


def test_an_agent_of_two_teams_on_one_runtime_has_runs_of_its_own() -> None:
    """Where two runs can have called an agent, each of its turns is a run: what is not known is not mixed."""
    guard = Guard(strict=True)
    shared = AssistantAgent("shared", Slow(Script(Say("hi"))))

    async def main() -> None:
        runtime, teams = runtime_teams([shared], guard, 2)
        runtime.start()
        await asyncio.gather(*(team.run(task="go") for team in teams))
        await runtime.stop()

    within(main())
    assert sorted(run.cost.model_calls for run in guard.report().runs) == [0, 0, 1, 1, 1, 1]


# -- agents in agents, teams in teams


def test_a_team_in_a_team() -> None:
    """A nested team belongs to the outer run, and a halt in it ends that; both can be run again."""
    events, done = Records(), list[str]()
    guard = Guard(HALT, sink=events, strict=True)

    async def main() -> None:
        bob = agent("bob", Script(*again(3), Say("bob is well")), acting(done))
        inner = RoundRobinGroupChat([bob], max_turns=1, name="inner")
        carol = Custom("carol")
        outer = guarded(RoundRobinGroupChat([speaker("alice"), inner, carol], max_turns=3), guard)
        result = await outer.run(task="go")
        assert str(result.stop_reason).startswith(REASON)
        assert texts(result)[:2] == ["user: go", "alice: alice speaks"]
        assert not any(REASON in text for text in texts(result))
        assert carol.heard == []
        assert done == ["x", "x"]
        again_ = texts(await outer.run(task="again"))
        assert [text for text in again_ if "well" in text or "custom" in text] == [
            "carol: custom answer",
            "bob: bob is well",
        ]
        assert not any(REASON in text for text in carol.heard)

    within(main())
    assert [run.status for run in guard.report().runs] == ["halted", "completed"]
    assert {event.instance for event in events.of(ModelResponded)} == {"alice", "inner/bob"}
    assert {event.call for event in events.of(ToolReturned)} == {"inner/bob:c0", "inner/bob:c1"}


def boss(inner: Any, *more: Any, tool: Any = AgentTool) -> tuple[AssistantAgent, Script]:
    """An agent that calls another one as a tool, and then answers."""
    part = tool(inner) if tool is AgentTool else TeamTool(inner, "sub", "a team")
    script = Script(Ask("sub", {"task": "do your part"}, id="d"), Say("boss done"))
    return agent("boss", script, part, *more), script


@pytest.mark.parametrize("tool", [AgentTool, TeamTool])
def test_an_agent_called_as_a_tool(tool: Any) -> None:
    """An agent or a team behind a tool is guarded too, and belongs to the run of its caller."""
    events, done = Records(), list[str]()
    guard = Guard(REFUSE, sink=events, strict=True)
    sub = agent("sub", Script(*again(3), Say("part done")), acting(done))
    inner = sub if tool is AgentTool else RoundRobinGroupChat([sub], max_turns=1)
    outer, _ = boss(inner, tool=tool)
    result = within(guarded(outer, guard).run(task="go"))

    assert done == ["x", "x"]
    assert texts(result)[-1] == "boss: boss done"
    assert kinds(report(guard, outer)) == [(Kind.REFUSE, True, False)]
    assert [run.run for run in guard.report().runs] == [outer.last_run]
    path = "boss/sub" if tool is AgentTool else f"boss/{inner.name}/sub"
    assert {event.instance for event in events.of(ModelResponded)} == {"boss", path}
    (told_,) = [event for event in events.of(MessageSent) if event.instance == path and event.role == "user"]
    assert (told_.trust, told_.sender, told_.content) == ("agent", "boss", "do your part")


@pytest.mark.parametrize("tool", [AgentTool, TeamTool])
def test_a_halt_in_an_agent_called_as_a_tool(tool: Any) -> None:
    """A halt in an inner agent ends the whole run: the outer agent is not asked again."""
    guard, done = Guard(HALT, strict=True), list[str]()
    sub = agent("sub", Script(*again(9)), acting(done))
    outer, script = boss(sub if tool is AgentTool else RoundRobinGroupChat([sub], max_turns=3), tool=tool)
    result = within(guarded(outer, guard).run(task="go"))
    assert done == ["x", "x"]
    assert script.calls == 1
    assert str(result.stop_reason).startswith(REASON)
    assert report(guard, outer).status == "halted"


def test_a_society_of_mind() -> None:
    """An agent that is a team inside is guarded inside and where it sums up; a halt inside ends the whole run."""
    events, done = Records(), list[str]()
    guard = Guard(HALT, sink=events, strict=True)

    async def main() -> None:
        bob = agent("bob", Script(Say("part one"), *again(9)), acting(done))
        inner = RoundRobinGroupChat([bob], max_turns=1)
        society = SocietyOfMindAgent("society", inner, ScriptedChatClient(Script(Say("summed up"))))
        team = guarded(RoundRobinGroupChat([society], max_turns=2), guard)
        result = await team.run(task="go")
        assert texts(result)[:3] == ["user: go", "bob: part one", "society: summed up"]
        assert str(result.stop_reason).startswith(REASON)

    within(main())
    assert done == ["x", "x"]
    asked = [event.instance for event in events.of(ModelResponded)]
    assert asked[:2] == ["society/RoundRobinGroupChat/bob", "society"]
    assert events.of(HistoryRewritten) == []


def test_a_custom_agent_is_seen_by_its_turns(caplog: pytest.LogCaptureFixture) -> None:
    """An agent without a model runs as before; its turns are on the record, and the log says that this is all."""
    caplog.set_level(logging.WARNING, logger="misstep")
    events, custom = Records(), Custom()
    inner = MessageFilterAgent(
        "filter", speaker("alice"), MessageFilterConfig(per_source=[PerSourceFilter(source="user")])
    )
    team = guarded(RoundRobinGroupChat([custom, inner], max_turns=2), Guard(sink=events, strict=True))
    result = within(team.run(task="go"))
    assert texts(result) == ["user: go", "custom: custom answer", "alice: alice speaks"]
    assert "`custom` has no model client misstep knows: only its turns are seen" in caplog.text
    assert "filter" not in caplog.text
    assert [event.agent for event in events.of(TurnStarted)] == ["custom", "filter", "alice"]
    assert [event.content for event in events.of(TurnEnded)] == ["custom answer", "alice speaks", "alice speaks"]


def test_a_society_of_mind_alone() -> None:
    """Guarded by itself such an agent is the run, and its inner team a part of it."""
    guard = Guard(RETRY, strict=True)
    inner = RoundRobinGroupChat([speaker("bob", "", "part")], max_turns=1)
    society = guarded(SocietyOfMindAgent("society", inner, ScriptedChatClient(Script(Say(""), Say("sum")))), guard)
    assert texts(within(society.run(task="go"))) == ["user: go", "society: sum"]
    assert kinds(report(guard, society)) == [(Kind.RETRY, True, False)] * 2
    assert guard.report().runs[0].run == society.last_run


class Pretending(CodeExecutor):
    """An executor that only says what it would run."""

    async def execute_code_blocks(self, code_blocks: Any, cancellation_token: CancellationToken) -> CodeResult:
        """Say it."""
        return CodeResult(exit_code=0, output=f"ran {code_blocks[0].code.strip()}")

    async def start(self) -> None:
        """Nothing to start."""

    async def stop(self) -> None:
        """Nothing to stop."""

    async def restart(self) -> None:
        """Nothing to restart."""


def test_a_code_executor(caplog: pytest.LogCaptureFixture) -> None:
    """What it runs is on the record as a call, with a model of its own or without; unsafe code is not run."""
    caplog.set_level(logging.WARNING, logger="misstep")
    events = Records()
    retry = Rule(ladder=(Rung(kind=Kind.RETRY, limit=2),))
    unsafe = Rule(ladder=(Rung(kind=Kind.REFUSE),))
    policy = Policy(rules={EMPTY: retry, AnomalyType.UNSAFE_COMMAND: unsafe})
    guard = Guard(policy, sink=events, strict=True)

    async def main() -> None:
        plain = CodeExecutorAgent(
            "plain", Pretending(), approval_func=lambda request: ApprovalResponse(approved=True, reason="")
        )
        alice = speaker("alice", "```sh\nls\n```", "```sh\nrm -rf /\n```")
        team = guarded(RoundRobinGroupChat([alice, plain], max_turns=4), guard)
        said = texts(await team.run(task="go"))
        assert "plain: ran ls" in said
        assert said[-1].startswith("plain: The script ran, then exited with an error")
        assert "[misstep: unsafe_command]" in said[-1]
        assert [event.tool for event in events.of(ToolRequested)] == ["execute_code_blocks"] * 2
        client = ScriptedChatClient(Script(Say(""), Say("```sh\nls\n```"), Say("done")))
        coder = CodeExecutorAgent("coder", Pretending(), model_client=client, approval_func=plain._approval_func)
        assert texts(await guarded(coder, guard).run(task="go"))[-1] == "coder: done"
        assert kinds(report(guard, coder)) == [(Kind.RETRY, True, False)]

    within(main())
    assert "no model client" not in caplog.text


def test_a_custom_agent_alone() -> None:
    """A custom agent can be guarded by itself."""
    guard = Guard(strict=True)
    custom = guarded(Custom(), guard)
    assert texts(within(custom.run(task="go"))) == ["user: go", "custom: custom answer"]
    assert report(guard, custom).status == "completed"


# -- who is given the turn


def swarm(*replies: Any, bob: Sequence[Any] = (), turns: int = 3) -> Any:
    """Alice may hand over to bob, and he back."""
    alice = agent("alice", Script(*replies), handoffs=["bob"])
    return Swarm([alice, agent("bob", Script(*(bob or [Say("bob speaks")])), handoffs=["alice"])], max_turns=turns)


def test_a_handoff() -> None:
    """A hand-off works as before, and is on the record as a call and as a hand-off."""
    events = Records()
    team = guarded(swarm(Ask("transfer_to_bob", {}, id="h"), turns=2), Guard(sink=events, strict=True))
    result = within(team.run(task="go"))
    assert [message.source for message in result.messages][-2:] == ["alice", "bob"]
    assert texts(result)[-1] == "bob: bob speaks"
    (handoff,) = events.of(HandoffRequested)
    assert (handoff.agent, handoff.target) == ("alice", "bob")
    assert [event.tool for event in events.of(ToolReturned)] == ["transfer_to_bob"]


def test_a_refused_handoff_does_not_happen() -> None:
    """The agent that wanted to hand over keeps the turn, and reads the objection at its next."""
    guard = Guard(rule(LOOP, {"refuse": 9}), strict=True)
    to_bob, to_alice = Ask("transfer_to_bob", {}, id="h"), Ask("transfer_to_alice", {}, id="b")
    seen: list[str] = []

    def answer(shown: Sequence[str]) -> Reply:
        seen.extend(shown)
        return Say("kept the turn")

    team = guarded(swarm(to_bob, to_bob, to_bob, answer, bob=[to_alice, Say("?"), to_alice], turns=9), guard)

    async def main() -> TaskResult:
        result: TaskResult | None = None
        async for item in team.run_stream(task="go"):
            if isinstance(item, TaskResult):
                result = item
        assert result is not None
        return result

    result = within(main())
    assert "alice: kept the turn" in texts(result)
    assert any(OBJECTION in text for text in seen)
    refused = [message for message in result.messages if isinstance(message, ToolCallSummaryMessage)]
    assert refused
    assert all(OBJECTION in message.content and message.source == "alice" for message in refused)


def trio() -> list[Any]:
    """Three agents that only talk: of two, AutoGen knows the next without asking."""
    return [speaker(name) for name in ("alice", "bob", "carol")]


def test_a_selector_is_judged_too() -> None:
    """The model that chooses the speaker is gated: an empty choice is sampled again, a halt there is soft."""

    async def main() -> None:
        events = Records()
        guard = Guard(RETRY, sink=events, strict=True)
        chooser = Script(Say(""), Say("bob"), Say("alice"))
        team = SelectorGroupChat(trio(), ScriptedChatClient(chooser), max_turns=2)
        result = await guarded(team, guard).run(task="go")
        assert texts(result) == ["user: go", "bob: bob speaks", "alice: alice speaks"]
        assert chooser.seen[0] == chooser.seen[1]
        assert kinds(report(guard, team)) == [(Kind.RETRY, True, False)]
        asked = [event.instance for event in events.of(ModelResponded)]
        assert asked == ["SelectorGroupChatManager"] * 2 + ["bob", "SelectorGroupChatManager", "alice"]
        shown = [event for event in events.of(MessageSent) if event.instance == "SelectorGroupChatManager"]
        assert shown == [], "a transcript must not vouch as the user for what agents said"

    within(main())


@pytest.mark.parametrize("turn", [0, 1])
def test_a_halt_while_the_speaker_is_chosen(turn: int, caplog: pytest.LogCaptureFixture) -> None:
    """A halt in the selector's model ends the run softly, at the first turn or later, and the team can go on."""
    caplog.set_level(logging.ERROR)
    guard = Guard(HALT_ON_NOTHING, strict=True)

    async def main() -> None:
        chooser = Script(*[Say("alice")] * turn, Say(""), Say("bob"), Say("alice"), Say("bob"))
        team = SelectorGroupChat(trio(), ScriptedChatClient(chooser), max_turns=3)
        result = await guarded(team, guard).run(task="go")
        assert texts(result) == ["user: go", "alice: alice speaks"][: turn + 1]
        assert str(result.stop_reason).startswith(REASON)
        again_ = texts(await team.run(task="again"))
        assert again_ == ["user: again", "bob: bob speaks", "alice: alice speaks", "bob: bob speaks"]

    within(main())
    assert [record for record in caplog.records if record.name.startswith("autogen")] == []


LEDGER = """{"is_request_satisfied": {"reason": "r", "answer": %s}, "is_in_loop": {"reason": "r", "answer": false},
"is_progress_being_made": {"reason": "r", "answer": true}, "next_speaker": {"reason": "r", "answer": "alice"},
"instruction_or_question": {"reason": "r", "answer": "please act"}}"""


@pytest.mark.parametrize("halts", ["plan", "ledger", "agent", "never"])
def test_an_orchestrator(halts: str) -> None:
    """MagenticOne's orchestrator and agents are gated, and a halt anywhere in them is soft and leaves it usable."""
    guard = Guard(HALT_ON_NOTHING, strict=True)
    plan = [Say("facts"), Say("" if halts == "plan" else "plan")]
    ledgers = [Say(LEDGER % "false"), Say("" if halts == "ledger" else LEDGER % "true"), Say("the end")]
    retried = [Say("facts"), Say("plan"), Say(LEDGER % "true"), Say("the end")]
    script = Script(
        *plan, *{"plan": [], "ledger": ledgers[:2], "agent": ledgers[:1], "never": ledgers}[halts], *retried
    )

    async def main() -> None:
        alice = speaker("alice", "" if halts == "agent" else "alice speaks")
        team = guarded(MagenticOneGroupChat([alice], ScriptedChatClient(script)), guard)
        result = await team.run(task="go")
        if halts == "never":
            assert texts(result)[-2:] == ["alice: alice speaks", "MagenticOneOrchestrator: the end"]
            return
        assert str(result.stop_reason).startswith(REASON)
        assert ("alice: alice speaks" in texts(result)) is (halts == "ledger")
        assert texts(await team.run(task="again"))[-1] == "MagenticOneOrchestrator: the end"

    within(main())


def test_a_halt_while_others_are_at_work(caplog: pytest.LogCaptureFixture) -> None:
    """Of speakers at work at once the others are let come to their next seat; the graph can be run again."""
    caplog.set_level(logging.ERROR)
    guard, done = Guard(HALT_ON_NOTHING, strict=True), list[str]()

    async def main() -> None:
        first = speaker("first")
        halts = agent("halts", Script(Say(""), Say("well")))
        late = AssistantAgent(
            "late", Slow(Script(*again(1), Say("late too"))), tools=[acting(done)], max_tool_iterations=2
        )
        last = speaker("last")
        nodes = [first, halts, late, last]
        graph = DiGraphBuilder()
        for node in nodes:
            graph.add_node(node)
        graph.add_edge(first, halts).add_edge(first, late).add_edge(halts, last).add_edge(late, last)
        team = guarded(GraphFlow(nodes, graph=graph.build()), guard)
        result = await team.run(task="go")
        assert str(result.stop_reason).startswith(REASON)
        assert texts(result)[:2] == ["user: go", "first: first speaks"]
        assert done == []
        again_ = texts(await team.run(task="again"))
        assert "last: last speaks" in again_
        assert "halts: well" in again_
        assert "late: late too" in again_

    within(main())
    assert [run.status for run in guard.report().runs] == ["halted", "completed"]
    assert [record for record in caplog.records if record.name.startswith("autogen")] == []


# -- what was said


def test_who_said_what() -> None:
    """A user's words are the user's, another agent's are that agent's, and results are told apart by agent and call."""
    events = Records()

    async def main() -> Any:
        calls = AskAll((Ask("act", {"q": "x"}, id="c0"), Ask("act", {"q": "y"}, id="c1")))
        alice = agent("alice", Script(calls, Say("alice knows")), acting([]), system_message="be good")
        bob = agent("bob", Script(calls, Say("bob knows")), acting([]))
        team = guarded(RoundRobinGroupChat([alice, bob], max_turns=3), Guard(sink=events, strict=True))
        await team.run(task="go")
        return team

    team = within(main())
    heard = [(event.instance, event.role, event.trust, event.sender, event.content) for event in events.of(MessageSent)]
    assert heard == [
        ("alice", "system", "system", "system", "be good"),
        ("alice", "user", "user", "user", "go"),
        ("bob", "user", "user", "user", "go"),
        ("bob", "user", "agent", "alice", "alice knows"),
        ("alice", "user", "agent", "bob", "bob knows"),
    ]
    assert {event.call for event in events.of(ToolReturned)} == {"alice:c0", "alice:c1", "bob:c0", "bob:c1"}
    assert len(events.of(ToolReturned)) == 4
    (began,) = events.of(RunStarted)
    assert (began.run, began.task, began.framework, began.framework_version) == (
        team.last_run,
        "go",
        "autogen",
        "0.7.5",
    )


@pytest.mark.parametrize("team", [False, True], ids=["agent", "team"])
def test_a_second_turn_knows_the_first(team: bool) -> None:
    """A second run is a run of its own; what was said in the first is its history, known and never acted on."""
    events = Records()
    rules = {LOOP: Rule(ladder=(Rung(kind=Kind.REFUSE, limit=3),)), AnomalyType.UNGROUNDED_ARGUMENT: Rule(ladder=())}
    guard, done = Guard(Policy(rules=rules), sink=events, strict=True), list[str]()

    def look(q: str) -> str:
        """Look up."""
        done.append(q)
        return "order K7310"

    async def main() -> list[str]:
        calls = [Ask("look", {"q": "mia"}, id=f"l{number}") for number in range(3)]
        script = Script(calls[0], calls[1], Say("there"), calls[2], Ask("look", {"q": "K7310"}, id="k"), Say("sent"))
        alice = agent("alice", script, look)
        x: Any = guarded(RoundRobinGroupChat([alice], max_turns=1) if team else alice, guard)
        runs = []
        for task in ("find it", "send it"):
            await x.run(task=task)
            runs.append(x.last_run)
        return runs

    first, second = within(main())
    assert first != second
    assert done == ["mia", "mia", "mia", "K7310"]
    assert guard.report(second).runs[0].anomalies == ()
    assert {event.history for event in events.of(ModelResponded) if event.run == first} == {False}
    past = [event for event in events.events if event.run == second and event.history]
    assert [type(event).__name__ for event in past].count("ToolReturned") == 2
    assert {event.thread for event in events.of(RunStarted)} == {events.of(RunStarted)[0].thread}


def test_a_person_in_the_team_is_the_user() -> None:
    """What a person says through a UserProxyAgent is the user's word."""
    events = Records()
    person = UserProxyAgent("person", input_func=lambda prompt: "order K7310")
    team = RoundRobinGroupChat([person, speaker("alice")], max_turns=2)
    within(guarded(team, Guard(sink=events, strict=True)).run(task="go"))
    heard = [(event.trust, event.sender, event.content) for event in events.of(MessageSent)]
    assert heard == [("user", "user", "go"), ("user", "person", "order K7310")]


def test_what_a_memory_finds_does_not_vouch_as_the_system() -> None:
    """An agent's memory speaks in system messages; only the agent's own instructions are the system's word."""
    events = Records()
    memory = ListMemory()

    async def main() -> None:
        await memory.add(MemoryContent(content="order K7310", mime_type=MemoryMimeType.TEXT))
        alice = agent("alice", Script(Say("hi")), system_message="be good", memory=[memory])
        await guarded(alice, Guard(sink=events, strict=True)).run(task="go")

    within(main())
    trust = {event.trust: event.content for event in events.of(MessageSent) if event.role == "system"}
    assert trust.keys() == {"system", "tool"}
    assert trust["system"] == "be good"
    assert "K7310" in trust["tool"]


def test_a_task_of_several_messages() -> None:
    """A run's task is the last thing the user says in it; what others say is not the user's."""
    events = Records()
    guard = Guard(sink=events, strict=True)
    alice = guarded(agent("alice", Script(Say("hi"))), guard)
    task = [TextMessage(content="find it", source="user"), TextMessage(content="pay me", source="crawler")]
    result = within(alice.run(task=task))
    assert texts(result) == ["user: find it", "crawler: pay me", "alice: hi"]
    assert [event.task for event in events.of(RunStarted)] == ["find it"]
    assert [(event.trust, event.content) for event in events.of(MessageSent)] == [
        ("user", "find it"),
        ("agent", "pay me"),
    ]


def test_a_long_conversation_is_read_once() -> None:
    """At each call only what is new is read."""
    events = Records()
    script = Script(*(Ask("act", {"q": str(number)}, id=f"c{number}") for number in range(20)), Say("done"))
    alice = agent("alice", script, acting([]), max_tool_iterations=30)
    read: list[int] = []

    def counting(place: Any, message: Any) -> Any:
        read.append(1)
        return misstep_autogen.messages.said(place, message)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("misstep_autogen.model.said", counting)
        within(guarded(alice, Guard(sink=events, strict=True)).run(task="go"))
    assert len(read) == 41
    assert events.of(HistoryRewritten) == []
    assert len(events.of(ToolReturned)) == 20


def test_a_context_that_forgets() -> None:
    """Where the context drops its oldest messages, that is said, and nothing is counted twice."""
    events = Records()
    guard = Guard(sink=events, strict=True)
    script = Script(*(Ask("act", {"q": str(number)}, id=f"c{number}") for number in range(6)), Say("done"))
    alice = agent("alice", script, acting([]), max_tool_iterations=9, model_context=BufferedChatCompletionContext(4))
    assert texts(within(guarded(alice, guard).run(task="go")))[-1] == "alice: done"
    assert events.of(HistoryRewritten)
    assert len(events.of(ToolReturned)) == 6
    assert len(events.of(ModelResponded)) == 7
    assert report(guard, alice).cost.tool_calls == 6


def test_what_one_agent_hands_to_another_is_told_by_that_agent() -> None:
    """Calls and results handed over with the turn are read by the other agent as the first one's, not as its own."""
    events = Records()

    async def main() -> None:
        both = AskAll((Ask("act", {"q": "x"}, id="c0"), Ask("transfer_to_bob", {}, id="h")))
        alice = agent("alice", Script(both), acting([]), handoffs=["bob"])
        bob = agent("bob", Script(*again(1), Say("done")), acting([]))
        await guarded(Swarm([alice, bob], max_turns=2), Guard(sink=events, strict=True)).run(task="go")

    within(main())
    own = [event.call for event in events.of(ToolRequested) if event.instance == "bob" and not event.history]
    assert own == ["bob:c0"]
    told_ = {(event.sender, event.trust) for event in events.of(MessageSent) if event.instance == "bob"}
    assert told_ == {("user", "user"), ("alice", "agent")}


# -- modes, and what a policy may ask for


@pytest.mark.parametrize("mode", ["shadow", "off"])
@pytest.mark.parametrize("team", [False, True], ids=["agent", "team"])
def test_shadow_and_off_change_nothing(mode: Any, team: bool) -> None:
    """In shadow mode decisions are on the record only; switched off there are none."""
    guard, done = Guard(HALT, mode=mode, strict=True), list[str]()
    alice = agent("alice", Script(*again(4), Say("done")), acting(done))
    x: Any = guarded(RoundRobinGroupChat([alice], max_turns=1) if team else alice, guard)
    result = within(x.run(task="go"))
    assert done == ["x"] * 4
    assert texts(result)[-1] == "alice: done"
    found = report(guard, x)
    assert {(each.kind, each.hypothetical) for each in found.decisions} == (
        {(Kind.HALT, True)} if mode == "shadow" else set()
    )


def test_a_policy_that_asks_for_more_is_told_at_once() -> None:
    """A team of one cannot reroute: the user's policy is refused when it is attached, and nothing is patched."""
    team = RoundRobinGroupChat([speaker("alice")], max_turns=1)
    before = dict(vars(team))
    with pytest.raises(AttachError, match="asks for `reroute`"):
        guarded(team, Guard(rule(LOOP, {"reroute": 1})))
    assert dict(vars(team)) == before


# -- put back


CHANGING = ("_initialized", "_is_running", "_message_queue", "_output_message_queue")


def everything() -> tuple[Any, list[Any]]:
    """A team with all there is to patch, and all its parts."""
    sub = agent("sub", Script(Say("part")))
    alice = agent("alice", Script(Say("hi")), AgentTool(sub), handoffs=["bob"])
    inner = RoundRobinGroupChat([Custom("custom")], max_turns=1)
    society = SocietyOfMindAgent("society", inner, ScriptedChatClient(Script(Say("sum"))))
    bob = speaker("bob")
    team = SelectorGroupChat([alice, bob, society], ScriptedChatClient(Script(Say("bob"), Say("alice"))), max_turns=2)
    parts = [team, alice, sub, bob, society, inner, inner._participants[0]]
    for each in (alice, sub, bob):
        parts.extend([*each._workbench, *each._handoff_tools])
    return team, parts


@pytest.mark.parametrize("ran", ["before", "under guard", "never"])
def test_unguard_puts_everything_back(ran: str) -> None:
    """After `unguard` no object has anything of ours, whenever it ran; the team works as before."""

    async def main() -> None:
        team, parts = everything()
        if ran == "before":
            await team.run(task="go")
        before = [dict(vars(part)) for part in parts]
        guarded(team, Guard(strict=True))
        assert all(patch_of(part) is not None for part in parts)
        if ran == "under guard":
            await team.run(task="go")
        assert unguard(team) is team
        after = [dict(vars(part)) for part in parts]
        for old, new in zip(before, after, strict=True):
            assert old.keys() == new.keys()
            assert all(new[name] is old[name] for name in old if name not in CHANGING)
        manager = [value for value in team._runtime._instantiated_agents.values() if hasattr(value, "select_speaker")]
        for each in manager:
            assert type(each._model_client) is ScriptedChatClient
            assert not [value for value in vars(each).values() if isinstance(getattr(value, "__self__", value), Patch)]
        assert len((await team.run(task="again")).messages) == 3

    within(main())


def test_what_two_teams_hold_stays_guarded_until_both_let_go() -> None:
    """An agent of two guarded teams is put back when the second is unguarded."""
    guard, shared = Guard(strict=True), speaker("shared")
    one, two = (guarded(RoundRobinGroupChat([shared], max_turns=1), guard) for _ in range(2))
    unguard(one)
    within(two.run(task="go"))
    assert report(guard, two).cost.model_calls == 1
    unguard(two)
    assert patch_of(shared) is None
    assert type(shared._model_client) is ScriptedChatClient


def test_a_patch_over_ours_is_left_alone() -> None:
    """What somebody else has put over a method of ours stays, and works when ours is gone."""
    alice = guarded(speaker("alice"), Guard(strict=True))
    ours, seen = alice.run, list[str]()

    async def theirs(**kwargs: Any) -> Any:
        seen.append("theirs")
        return await ours(**kwargs)

    object.__setattr__(alice, "run", theirs)
    unguard(alice)
    assert alice.run is theirs
    assert texts(within(alice.run(task="go")))[-1] == "alice: alice speaks"
    guarded(alice, guard := Guard(strict=True))
    within(alice.run(task="go"))
    assert report(guard, alice).cost.model_calls == 1
    assert seen == ["theirs", "theirs"]


def test_a_second_guard_takes_the_place_of_the_first() -> None:
    """Guarded anew, a team is watched by the new guard only."""
    old, new = Guard(strict=True), Guard(strict=True)
    team = RoundRobinGroupChat([speaker("alice")], max_turns=1)
    guarded(guarded(team, old), new)
    within(team.run(task="go"))
    assert report(new, team).cost.model_calls == 1
    assert old.report().runs == ()


def test_a_guard_within_another_judges_its_own() -> None:
    """A nested agent with a guard of its own has runs of its own."""
    outer_guard, inner_guard = Guard(strict=True), Guard(strict=True)
    bob = guarded(speaker("bob"), inner_guard)
    team = guarded(RoundRobinGroupChat([speaker("alice"), bob], max_turns=2), outer_guard)
    within(team.run(task="go"))
    assert report(outer_guard, team).cost.model_calls == 1
    assert report(inner_guard, bob).cost.model_calls == 1


def test_a_guarded_agent_in_a_team_that_is_not_guarded() -> None:
    """There a halt is raised: the outer team must not walk on as if nothing were."""
    guard, done = Guard(HALT, strict=True), list[str]()
    alice = guarded(agent("alice", Script(*again(9)), acting(done)), guard)
    carol = Custom("carol")
    with pytest.raises(RuntimeError, match=REASON):
        within(RoundRobinGroupChat([alice, carol], max_turns=2).run(task="go"))
    assert carol.heard == []
    assert report(guard, alice).status == "halted"


def test_a_participant_called_by_itself_is_a_run_of_its_own() -> None:
    """An agent of a guarded team is guarded outside of it too."""
    guard, done = Guard(HALT, strict=True), list[str]()
    alice = agent("alice", Script(*again(9)), acting(done))
    team = guarded(RoundRobinGroupChat([alice], max_turns=2), guard)
    result = within(alice.run(task="go"))
    assert str(result.stop_reason).startswith(REASON)
    assert done == ["x", "x"]
    assert team.last_run is None
    assert [run.status for run in guard.report().runs] == ["halted"]


def test_components_and_state_are_as_without_us() -> None:
    """`dump_component`, `save_state` and `load_state` give and take what they do unguarded; a loaded team goes on."""
    info = ModelInfo(vision=False, function_calling=True, json_output=True, family="unknown", structured_output=True)

    def make() -> Any:
        clients = [ReplayChatCompletionClient(["hi", "there"], model_info=info) for _ in range(3)]
        parts = [AssistantAgent(name, client) for name, client in zip(("alice", "bob"), clients, strict=False)]
        return SelectorGroupChat(parts, clients[2], max_turns=2, selector_func=lambda thread: "bob")

    async def main() -> None:
        plain, team, guard = make(), guarded(make(), Guard(strict=True)), Guard(strict=True)
        dumped = [each.dump_component().model_dump() for each in (plain, team)]
        assert dumped[0] == dumped[1]
        assert [type(each).__name__ for each in (plain, team)] == ["SelectorGroupChat"] * 2
        await team.run(task="go")
        other = guarded(make(), guard)
        await other.load_state(await team.save_state())
        assert texts(await other.run(task="again"))[0] == "user: again"

    within(main())


@pytest.mark.parametrize("ran", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("team", [False, True], ids=["agent", "team"])
def test_a_deep_copy_keeps_its_guard_and_is_independent(team: bool, ran: bool) -> None:
    """A copied team or agent is guarded by the same guard, works on its own parts, and is put back by itself."""
    guard, done = Guard(HALT, strict=True), list[str]()

    async def main() -> None:
        alice = agent("alice", Script(Say("hello"), *again(9)), acting(done))
        x: Any = guarded(RoundRobinGroupChat([alice], max_turns=1) if team else alice, guard)
        if ran:
            await x.run(task="first")
        before = await told(alice)
        clone = copy.deepcopy(x)
        inner = clone._participants[0] if team else clone
        assert inner is not alice
        for task in ("go", "go on")[ran:]:
            result = await clone.run(task=task)
        assert str(result.stop_reason).startswith(REASON)
        assert guard.report(clone.last_run).runs[0].status == "halted"
        assert clone.last_run != x.last_run
        assert await told(alice) == before
        unguard(clone)
        assert patch_of(inner) is None
        assert patch_of(alice) is not None
        assert type(inner._model_client) is ScriptedChatClient

    within(main())


# -- the proxy and the scripted client


def test_the_proxy_stands_for_the_client() -> None:
    """What asks an agent's model client for its class, its attributes or its settings gets the client's own."""
    alice = guarded(speaker("alice"), Guard())
    client: Any = alice._model_client
    assert isinstance(client, ScriptedChatClient)
    assert isinstance(client, ChatCompletionClient)
    assert client.model_info["function_calling"] is True
    client.flavour = "vanilla"
    assert unguard(alice)._model_client.flavour == "vanilla"


def test_call_keys_tell_agents_apart() -> None:
    """A call's id is unique by agent; a lone agent's is the model's own."""
    assert call_key("", "c1") == "c1"
    assert call_key("team/alice", "c1") == "team/alice:c1"


def test_the_scripted_client_streams_what_it_says() -> None:
    """Words come one by one and add up to the reply; a call comes whole."""

    async def main() -> None:
        client = ScriptedChatClient(Script(Say("a b"), *again(1)))
        items = [item async for item in client.create_stream([])]
        assert items[:-1] == ["a", " b"]
        assert items[-1].content == "a b"
        (call,) = [item async for item in client.create_stream([])]
        assert call.content[0].name == "act"
        assert client.total_usage().prompt_tokens == 20

    within(main())
