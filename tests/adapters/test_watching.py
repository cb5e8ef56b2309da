"""Watching only, on the real frameworks: what is seen, that nothing is changed, and when a run is over."""

from __future__ import annotations

import asyncio
import copy
import os
import tempfile
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

os.environ.update(
    CREWAI_DISABLE_TELEMETRY="true",
    CREWAI_DISABLE_TRACKING="true",
    CREWAI_TESTING="true",
    CREWAI_TRACING_ENABLED="false",
    OTEL_SDK_DISABLED="true",
)
os.environ.setdefault("CREWAI_STORAGE_DIR", tempfile.mkdtemp())

pytest.importorskip("autogen_agentchat")
pytest.importorskip("crewai")

from autogen_agentchat.agents import AssistantAgent, BaseChatAgent, UserProxyAgent
from autogen_agentchat.base import Response, TaskResult
from autogen_agentchat.conditions import MaxMessageTermination
from autogen_agentchat.messages import TextMessage, ThoughtEvent, UserInputRequestedEvent
from autogen_agentchat.teams import RoundRobinGroupChat, Swarm
from autogen_core import CancellationToken, DefaultInterventionHandler, DropMessage, SingleThreadedAgentRuntime
from crewai import Agent, Crew, Task
from crewai.events import crewai_event_bus
from crewai.tools import tool

from misstep import Guard, RunReport, Severity
from misstep.decisions import Kind
from misstep.events import (
    AnomalyFound,
    DecisionTaken,
    HandoffRequested,
    MessageSent,
    ModelResponded,
    RunEnded,
    RunStarted,
    ToolFailed,
    ToolRequested,
    ToolReturned,
    TurnEnded,
    TurnStarted,
)
from misstep.taxonomy import AnomalyType
from misstep.testing import Ask, Say, Script, Step
from misstep_autogen import MisstepInterventionHandler
from misstep_autogen import seats as autogen_seats
from misstep_autogen.chat import Chat
from misstep_autogen.testing import ScriptedChatClient
from misstep_crewai import callbacks
from misstep_crewai import seats as crewai_seats
from misstep_crewai.testing import ScriptedLLM
from misstep_crewai.watching import CrewWatch, Kickoff
from tests.core.scenes import Records

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*cannot be serialized.*:UserWarning",
    "ignore:Intervention handler on_response returned None.*:RuntimeWarning",
    "ignore::DeprecationWarning",
    "ignore::pydantic.warnings.PydanticDeprecatedSince20",
)


def seen(**options: Any) -> tuple[Guard, Records]:
    """A guard with the default policy, strict, and what it is told."""
    events = Records()
    return Guard(sink=events, **{"strict": True, **options}), events


def again(count: int = 3, tool: str = "act", q: str = "x") -> list[Step]:
    """The same call again and again."""
    return [Ask(tool, {"q": q}, id=f"c{number}") for number in range(count)]


def types(report: RunReport) -> list[AnomalyType]:
    """What was found."""
    return [found.type for found in report.anomalies]


@pytest.mark.parametrize("seats", [autogen_seats.WATCHING, crewai_seats.WATCHING])
def test_what_only_watches_is_declared(seats: Any) -> None:
    """The seats of what only watches are there as data, and none of them can enact anything."""
    assert seats.enacts
    assert not seats.acts


# -- AutoGen ----------------------------------------------------------------------------------------------------------


def member(name: str, script: Script, *tools: Any, **options: Any) -> AssistantAgent:
    """An agent that plays a script."""
    settings = {"max_tool_iterations": 9, "system_message": None, **options}
    return AssistantAgent(name, ScriptedChatClient(script), tools=list(tools), **settings)


def acting(done: list[str]) -> Callable[[str], str]:
    """A tool with an effect."""

    def act(q: str) -> str:
        """Act."""
        done.append(q)
        if q == "boom":
            raise RuntimeError("boom")
        return f"nothing about {q}"

    return act


class Custom(BaseChatAgent):
    """An agent without a model, that may fail."""

    @property
    def produced_message_types(self) -> Any:
        """Texts."""
        return (TextMessage,)

    async def on_messages(self, messages: Any, cancellation_token: CancellationToken) -> Response:
        """Answer, or raise, or take for ever, as it is called."""
        if self.name == "fails":
            raise LookupError("the agent's own mistake")
        if self.name == "hangs":
            await asyncio.sleep(60)
        return Response(chat_message=TextMessage(content="custom words", source=self.name))

    async def on_reset(self, cancellation_token: CancellationToken) -> None:
        """Nothing to forget."""


def played(
    handlers: list[Any], *teams: Callable[[Any], Any], task: Any = "go", turns: int = 1, seconds: float = 20.0
) -> list[TaskResult]:
    """Teams run on one runtime with these handlers, at once, `turns` times; fails if they hang."""

    async def main() -> list[TaskResult]:
        runtime = SingleThreadedAgentRuntime(intervention_handlers=handlers, ignore_unhandled_exceptions=True)
        runtime.start()
        made = [team(runtime) for team in teams]
        results: list[TaskResult] = []
        for _ in range(turns):
            results += await asyncio.gather(*(each.run(task=task) for each in made))
        await runtime.stop_when_idle()
        return results

    async def timed() -> list[TaskResult]:
        running = asyncio.ensure_future(main())
        done, _ = await asyncio.wait({running}, timeout=seconds)
        assert done, "it hangs"
        return running.result()

    return asyncio.run(timed())


def robin(*members: Callable[[], Any], messages: int = 9, **options: Any) -> Callable[[Any], Any]:
    """A team that gives each the turn, once, on a runtime."""

    def made(runtime: Any) -> Any:
        return RoundRobinGroupChat(
            [each() for each in members],
            runtime=runtime,
            max_turns=len(members),
            termination_condition=MaxMessageTermination(99),
            **options,
        )

    return made


def looping(done: list[str]) -> Callable[[Any], Any]:
    """A team whose first agent loops, and whose second talks."""
    return robin(
        lambda: member("alice", Script(*again(), Say("alice is done")), acting(done)),
        lambda: member("bob", Script(Say("bob agrees"))),
    )


def texts(result: TaskResult) -> list[str]:
    """What was said, as the caller reads it."""
    return [f"{message.source}: {message.to_text()}" for message in result.messages]


def test_a_team_is_watched_and_left_alone() -> None:
    """A loop is found with its decision hypothetical; every call is made, and the result is that of a bare team."""
    guard, events = seen()
    handler = MisstepInterventionHandler(guard)
    bare: list[str] = []
    done: list[str] = []
    (expected,) = played([], looping(bare))
    (result,) = played([handler], looping(done))
    assert (texts(result), result.stop_reason, done) == (texts(expected), expected.stop_reason, bare)
    assert len(done) == 3
    (found,) = events.of(AnomalyFound)
    (taken,) = events.of(DecisionTaken)
    assert (found.type, found.agent, taken.decision, taken.hypothetical) == ("repeated_call", "alice", "reprompt", True)
    report = guard.report().runs[0]
    assert (report.run, report.framework, report.status) == (handler.last_run, "autogen", "completed")
    assert report.cost.model_calls == 5
    assert report.cost.tool_calls == 3
    assert report.cost.input_tokens == 50


def test_what_a_runtime_shows_becomes_events() -> None:
    """Turns, what each agent hears, replies with their calls, results and errors of tools, in order, by agent."""
    guard, events = seen()
    script = Script(Ask("act", {"q": "A17"}), Ask("act", {"q": "boom"}, id="c2"), Say("it is B42"))
    team = robin(lambda: member("alice", script, acting([])), lambda: member("bob", Script(Say("fine"))))
    played([MisstepInterventionHandler(guard)], team, task="look up A17")
    ours = RunStarted | RunEnded | AnomalyFound
    told = [(type(event).__name__, event.agent) for event in events.events if not isinstance(event, ours)]
    assert told == [
        ("TurnStarted", "alice"),
        ("MessageSent", "alice"),
        ("ModelResponded", "alice"),
        ("ToolRequested", "alice"),
        ("ToolReturned", "alice"),
        ("ModelResponded", "alice"),
        ("ToolRequested", "alice"),
        ("ToolFailed", "alice"),
        ("ModelResponded", "alice"),
        ("TurnEnded", "alice"),
        ("TurnStarted", "bob"),
        ("MessageSent", "bob"),
        ("MessageSent", "bob"),
        ("ModelResponded", "bob"),
        ("TurnEnded", "bob"),
    ]
    assert events.of(RunStarted)[0].task == "look up A17"
    assert [(sent.sender, sent.trust, sent.content) for sent in events.of(MessageSent)] == [
        ("user", "user", "look up A17"),
        ("user", "user", "look up A17"),
        ("alice", "agent", "it is B42"),
    ]
    assert [(event.tool, event.call) for event in events.of(ToolReturned, ToolFailed)] == [
        ("act", "alice:c1"),
        ("act", "alice:c2"),
    ]
    assert events.of(TurnEnded)[-1].content == "fine"


@pytest.mark.parametrize(
    ("order", "found"), [("W7741", []), ("Z9913", ["ungrounded_argument"])], ids=["known", "invented"]
)
def test_an_agent_knows_what_it_was_told(order: str, found: list[str]) -> None:
    """What another agent's tool brought and that agent passed on is known; an identifier from nowhere is not."""

    def look(order_id: str) -> str:
        """Look."""
        return "nothing"

    guard, _ = seen()
    team = robin(
        lambda: member("alice", Script(Ask("act", {"q": "orders"}), Say("the order is W7741")), acting([])),
        lambda: member("bob", Script(Ask("look", {"order_id": order}), Say("done")), look),
    )
    played([MisstepInterventionHandler(guard)], team)
    assert types(guard.report().runs[0]) == found


def test_a_hand_off_is_seen() -> None:
    """A swarm's hand-off is requested by the one and followed by the turn of the other."""
    guard, events = seen()
    script = Script(Ask("transfer_to_bob", {}), Say("never"))

    def swarm(runtime: Any) -> Any:
        members = [member("alice", script, handoffs=["bob"]), member("bob", Script(Say("bob has it")))]
        return Swarm(members, runtime=runtime, max_turns=2)  # type: ignore[arg-type]

    played([MisstepInterventionHandler(guard)], swarm)
    (handoff,) = events.of(HandoffRequested)
    assert (handoff.agent, handoff.target) == ("alice", "bob")
    assert [turn.agent for turn in events.of(TurnStarted)] == ["alice", "bob"]


def test_a_person_is_trusted_as_one() -> None:
    """What a person says through a user proxy is vouched for by the user, what an agent without a model says is not."""
    guard, events = seen()
    team = robin(
        lambda: UserProxyAgent("human", input_func=lambda prompt: "my order is W7741"),
        lambda: Custom("custom", "no model"),
        lambda: member("alice", Script(Say("fine"))),
    )
    played([MisstepInterventionHandler(guard)], team)
    trust = {sent.sender: sent.trust for sent in events.of(MessageSent) if sent.agent == "alice"}
    assert trust == {"user": "user", "human": "user", "custom": "agent"}


def test_a_team_in_a_team_is_seen_as_far_as_it_is_shown() -> None:
    """What the agents of an inner team do is put down to them, by their path; its turn is the team's."""
    guard, events = seen()
    done: list[str] = []

    def outer(runtime: Any) -> Any:
        inner = RoundRobinGroupChat(
            [member("alice", Script(*again(), Say("inner is done")), acting(done))], name="inner", max_turns=1
        )
        return RoundRobinGroupChat([inner, member("bob", Script(Say("fine")))], runtime=runtime, max_turns=2)

    played([MisstepInterventionHandler(guard)], outer)
    (report,) = guard.report().runs
    assert (types(report), len(done)) == ([AnomalyType.REPEATED_CALL], 3)
    assert {request.instance for request in events.of(ToolRequested)} == {"inner/alice"}
    assert [turn.agent for turn in events.of(TurnStarted)] == ["inner", "bob"]


def test_runs_of_a_team_follow_each_other() -> None:
    """Each run of a team is a run of its own, of one conversation; nothing of the one is held against the next."""
    guard, events = seen()
    handler = MisstepInterventionHandler(guard)
    team = robin(lambda: member("alice", Script(*again(2), Say("a"), *again(2), Say("b")), acting([])))
    played([handler], team, turns=2)
    first, second = guard.report().runs
    assert (first.status, second.status, types(first), types(second)) == ("completed", "completed", [], [])
    assert len({started.thread for started in events.of(RunStarted)}) == 1
    assert handler._chats == {}


def test_teams_on_one_runtime_do_not_mix() -> None:
    """Two teams at once are two runs, each with its own agents and findings, though the agents' names are the same."""
    guard, events = seen()
    calm = robin(lambda: member("alice", Script(*again(1), Say("fine")), acting([])))
    played([MisstepInterventionHandler(guard)], looping([]), calm)
    reports = guard.report().runs
    assert sorted(map(types, reports)) == [[], [AnomalyType.REPEATED_CALL]]
    assert len({event.run for event in events.of(ModelResponded)}) == 2


def test_nothing_grows() -> None:
    """After a hundred runs there is no run open, and the handler holds nothing of any."""
    guard, _ = seen()
    handler = MisstepInterventionHandler(guard)
    team = robin(lambda: member("alice", Script(Say("fine"))))
    played([handler], team, turns=100)
    assert handler._chats == {}
    assert guard._sessions.ids() == []
    assert len(guard.report().runs) == 100


def test_a_chat_forgets_what_nobody_waits_for() -> None:
    """However long a chat is, what is kept of it for those who have not had their turn is bounded."""
    guard, _ = seen()
    chat = Chat(guard, "t", [])
    for number in range(2500):
        name = f"agent{number}"
        chat.item(name, ThoughtEvent(content="hm", source=name))
        chat.item(name, UserInputRequestedEvent(request_id="r", source=name))
        chat.answered(name, [TextMessage(content=str(number), source=name)])
        if number % 50 == 0:
            chat.turn("listener")
    assert list(map(len, (chat._said, chat._thoughts, chat._people, chat._heard))) == [1000, 1000, 1000, 1]


def test_a_failed_run_is_over() -> None:
    """A team whose agent raises ends its run as failed, with the error; the caller gets what it always got."""
    guard, _ = seen()
    handler = MisstepInterventionHandler(guard)
    with pytest.raises(RuntimeError, match="the agent's own mistake"):
        played([handler], robin(lambda: Custom("fails", "fails")))
    (report,) = guard.report().runs
    assert report.status == "failed"
    assert handler._chats == {}


def test_a_cancelled_run_is_over_when_the_team_runs_again() -> None:
    """AutoGen tells no handler of a cancellation: the run is ended as interrupted later, or by `close`."""
    guard, _ = seen()
    handler = MisstepInterventionHandler(guard)

    async def main() -> None:
        runtime = SingleThreadedAgentRuntime(intervention_handlers=[handler])
        runtime.start()
        for _ in range(2):
            token = CancellationToken()
            team = RoundRobinGroupChat([Custom("hangs", "hangs")], runtime=runtime, max_turns=1)
            running = asyncio.ensure_future(team.run(task="go", cancellation_token=token))
            await asyncio.sleep(0.2)
            token.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
        await runtime.stop()

    asyncio.run(main())
    assert len(handler._chats) == 2
    handler.close()
    assert [report.status for report in guard.report().runs] == ["interrupted", "interrupted"]
    assert handler._chats == {}


class Rewriting(DefaultInterventionHandler):
    """A handler of the application's, that changes what agents say."""

    def __init__(self, word: str) -> None:
        self.word = word

    async def on_publish(self, message: Any, *, message_context: Any) -> Any:
        """Add a word."""
        message = copy.deepcopy(message)
        chat = getattr(getattr(message, "response", None), "chat_message", None) or getattr(message, "message", None)
        if isinstance(chat, TextMessage) and chat.source == "alice":
            chat.content += f" {self.word}"
        return message


def test_handlers_of_ones_own_are_chained() -> None:
    """Other handlers see what the one before returned, their changes are delivered, and misstep watches those."""
    guard, events = seen()
    handler = MisstepInterventionHandler(guard, Rewriting("one"), Rewriting("two"))
    bob = Script(Say("fine"))
    team = robin(lambda: member("alice", Script(Say("hello"))), lambda: member("bob", bob))
    (result,) = played([handler], team)
    assert "alice: hello one two" in texts(result)
    assert bob.seen[0][-1] == "hello one two"
    assert events.of(ModelResponded)[0].content == "hello one two"


@pytest.mark.parametrize("dropped", [DropMessage, DropMessage()])
@pytest.mark.parametrize("hook", ["on_send", "on_publish", "on_response"])
def test_what_another_handler_drops_is_dropped(hook: str, dropped: Any) -> None:
    """A handler of the application's may drop what it likes: misstep passes that on and hears nothing of it."""

    async def drop(message: Any, **context: Any) -> Any:
        return dropped

    other: Any = SimpleNamespace(on_send=drop, on_publish=drop, on_response=drop)
    handler = MisstepInterventionHandler(Guard(strict=True), other, Rewriting("never"))
    context = {"on_send": {"message_context": None, "recipient": None}, "on_publish": {"message_context": None}}
    asked = getattr(handler, hook)("a message", **context.get(hook, {"sender": None, "recipient": None}))
    assert asyncio.run(asked) is dropped


def broken(*args: Any, **kwargs: Any) -> Any:
    """What our code does when it is wrong."""
    raise ZeroDivisionError("a mistake of ours")


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("owner", "method"),
    [
        (Guard, "open"),
        (Guard, "observe"),
        (Guard, "judge"),
        (Guard, "end"),
        (Chat, "__init__"),
        (Chat, "turn"),
        (Chat, "item"),
        (Chat, "answered"),
        (Chat, "end"),
        (MisstepInterventionHandler, "_told"),
    ],
)
def test_a_crash_of_ours_changes_no_team(
    owner: type, method: str, strict: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever of ours fails, the team's result is the same, nothing hangs, and the log says what failed."""
    done: list[str] = []
    (expected,) = played([], looping([]))
    guard, _ = seen(strict=strict)
    handler = MisstepInterventionHandler(guard)
    monkeypatch.setattr(owner, method, broken)
    results = played([handler], looping(done), turns=1)
    assert texts(results[0]) == texts(expected)
    assert len(done) == 3
    assert "misstep failed in the intervention handler: ZeroDivisionError" in caplog.text
    assert handler._chats == {}


def test_an_intervention_handler_that_is_off() -> None:
    """A guard that is off opens no run."""
    guard, events = seen(mode="off")
    played([MisstepInterventionHandler(guard)], looping([]))
    assert events.events == []
    assert guard._sessions.ids() == []


# -- CrewAI -----------------------------------------------------------------------------------------------------------


def worker(script: Script, *tools: Any, role: str = "alice", native: bool = True) -> Agent:
    """An agent that plays a script."""
    llm = ScriptedLLM(script, native=native)
    return Agent(role=role, goal="g", backstory="b", llm=llm, tools=list(tools), verbose=False)


def crew(*workers: Agent, task: str = "do it", **fields: Any) -> Crew:
    """A crew with one task for each."""
    tasks = [Task(description=task, expected_output="o", agent=each) for each in workers]
    return Crew(agents=list(workers), tasks=tasks, verbose=False, **fields)


def effect(done: list[str], name: str = "act") -> Any:
    """A tool with an effect."""

    @tool(name)
    def act(q: str) -> str:
        """Act."""
        done.append(q)
        if q == "boom":
            raise RuntimeError("boom")
        return "nothing"

    return act


def steps(native: bool) -> list[Step]:
    """A loop: in text mode CrewAI itself keeps an agent from making one call twice in a row."""
    turns: list[Step] = [Ask("act", {"q": "xy"[number % 2]}, id=f"c{number}") for number in range(5)]
    return [*(again() if native else turns), Say("done")]


WAYS: dict[str, Callable[[Crew], Any]] = {
    "sync": lambda crew: crew.kickoff(),
    "async": lambda crew: asyncio.run(crew.akickoff()),
    "thread": lambda crew: asyncio.run(crew.kickoff_async()),
    "each": lambda crew: crew.kickoff_for_each([{}])[0],
    "each async": lambda crew: asyncio.run(crew.kickoff_for_each_async([{}]))[0],
}


@pytest.mark.parametrize("native", [True, False], ids=["native", "text"])
@pytest.mark.parametrize("way", WAYS)
def test_a_crew_is_watched_and_left_alone(way: str, native: bool) -> None:
    """A loop is found with its decision hypothetical; every call is made, and the result is that of a bare crew."""
    guard, events = seen()
    bare: list[str] = []
    done: list[str] = []
    expected = WAYS[way](crew(worker(Script(*steps(native)), effect(bare), native=native)))
    result = WAYS[way](crew(worker(Script(*steps(native)), effect(done), native=native), **callbacks(guard)))
    assert (result.raw, done) == (expected.raw, bare)
    (report,) = guard.report().runs
    assert (report.framework, report.status, report.agents) == ("crewai", "completed", ("alice",))
    assert AnomalyType.REPEATED_CALL in types(report)
    assert [(each.kind, each.hypothetical) for each in report.decisions] == [(Kind.REPROMPT, True)]
    assert len(events.of(ToolRequested)) == len(done)
    assert guard._sessions.ids() == []


def test_what_a_task_tells_becomes_events() -> None:
    """A task's prompt, replies, calls, results, errors and answer, in order, each with who vouches for it."""
    guard, events = seen()
    script = Script(Ask("act", {"q": "A17"}), Ask("act", {"q": "boom"}, id="c2"), Say("it is B42"))
    made = crew(worker(script, effect([])), worker(Script(Say("fine")), role="bob"), task="look", **callbacks(guard))
    made.kickoff()
    told = [
        (type(event).__name__, event.agent) for event in events.events if isinstance(event, ToolReturned | ToolFailed)
    ]
    assert told == [("ToolReturned", "alice"), ("ToolFailed", "alice")]
    assert [ended.content for ended in events.of(TurnEnded)] == ["it is B42", "fine"]
    assert [reply.content for reply in events.of(ModelResponded)] == ["", "", "it is B42", "fine"]
    trusts = [(sent.agent, sent.trust) for sent in events.of(MessageSent)]
    assert trusts == [
        ("alice", "system"),
        ("alice", "user"),
        ("bob", "system"),
        ("bob", "user"),
        ("bob", "agent"),
    ]
    assert len(events.of(TurnStarted)) == 2


@pytest.mark.parametrize(("order", "found"), [("W7741", []), ("Z9913", [AnomalyType.UNGROUNDED_ARGUMENT])])
@pytest.mark.parametrize("native", [True, False], ids=["native", "text"])
def test_an_agent_knows_its_task(order: str, found: list[AnomalyType], native: bool) -> None:
    """An identifier of the task is known; one from nowhere is found, whenever CrewAI tells of it."""

    @tool("send")
    def send(order_id: str) -> str:
        """Send."""
        return "sent"

    guard, _ = seen()
    script = Script(Ask("send", {"order_id": order}), Say("done"))
    crew(worker(script, send, native=native), task="send order W7741", **callbacks(guard)).kickoff()
    assert types(guard.report().runs[0]) == found


def test_kickoffs_are_runs_of_their_own() -> None:
    """Kickoffs one after another and at once are as many runs, all over; the watch holds nothing of them."""
    guard, _ = seen()
    fields = callbacks(guard)
    made = crew(worker(Script(Say("done"))), task="do {x}", **fields)
    for _ in range(3):
        made.kickoff(inputs={"x": 1})
    made.kickoff_for_each([{"x": 1}, {"x": 2}])
    asyncio.run(made.kickoff_for_each_async([{"x": 1}, {"x": 2}, {"x": 3}]))
    assert [report.status for report in guard.report().runs] == ["completed"] * 8
    watch: CrewWatch = fields["task_callback"].__self__
    assert watch._kickoffs == {}
    assert guard._sessions.ids() == []


def test_a_kickoff_that_raises_is_over() -> None:
    """A kickoff that fails ends its run as failed, and the caller gets the same exception as ever."""
    guard, _ = seen()
    fields = callbacks(guard)
    with pytest.raises(RuntimeError, match="the model is down"):
        crew(worker(Script(RuntimeError("the model is down"))), **fields).kickoff()
    crewai_event_bus.flush()
    (report,) = guard.report().runs
    assert report.status == "failed"
    assert fields["task_callback"].__self__._kickoffs == {}


def nesting(guard: Guard, inner: Script, **fields: Any) -> Crew:
    """A crew whose agent runs another crew in a tool, both watched by the same callbacks."""

    @tool("inner")
    def run_inner(q: str) -> str:
        """Run."""
        return str(crew(worker(inner, role="bob"), **fields).kickoff().raw)

    return crew(worker(Script(Ask("inner", {"q": "x"}), Say("outer is done")), run_inner), **fields)


def test_a_crew_in_a_crew_is_one_run() -> None:
    """A crew run in another's tool belongs to its run, which is over when the outer one is."""
    guard, events = seen()
    assert nesting(guard, Script(Say("inner is done")), **callbacks(guard)).kickoff().raw == "outer is done"
    (report,) = guard.report().runs
    assert (report.status, set(report.agents)) == ("completed", {"alice", "bob"})
    assert len(events.of(RunEnded)) == 1
    assert [ended.agent for ended in events.of(TurnEnded)] == ["bob", "alice"]


def test_a_crew_that_fails_in_a_crew_does_not_end_the_run() -> None:
    """Where the inner crew fails and the outer one goes on, the run goes on, and is over when that is."""
    guard, events = seen()
    assert nesting(guard, Script(RuntimeError("down")), **callbacks(guard)).kickoff().raw == "outer is done"
    crewai_event_bus.flush()
    (report,) = guard.report().runs
    assert report.status == "completed"
    assert guard._sessions.ids() == []
    assert len(events.of(RunEnded)) == 1


def test_another_crews_failure_is_none_of_ours() -> None:
    """A crew without the callbacks fails within a watched one: the run is not ended by that."""
    guard, events = seen()

    @tool("inner")
    def run_inner(q: str) -> str:
        """Run."""
        return str(crew(worker(Script(RuntimeError("down")), role="bob")).kickoff().raw)

    made = crew(worker(Script(Ask("inner", {"q": "x"}), Say("done")), run_inner), **callbacks(guard))
    assert made.kickoff().raw == "done"
    crewai_event_bus.flush()
    assert [ended.status for ended in events.of(RunEnded)] == ["completed"]


def test_two_callbacks_alone() -> None:
    """With the step and the task callback alone everything is seen, and the run ends by the guard's own limits."""
    guard, _ = seen()
    fields = callbacks(guard)
    done: list[str] = []
    two = {name: fields[name] for name in ("step_callback", "task_callback")}
    crew(worker(Script(*steps(True)), effect(done)), **two).kickoff()
    guard.close()
    (report,) = guard.report().runs
    assert (report.status, types(report)) == ("evicted", [AnomalyType.REPEATED_CALL])


def test_callbacks_of_ones_own_are_called_too() -> None:
    """Each of the callbacks is a plain function, to be called by one's own."""
    guard, _ = seen()
    fields, own = callbacks(guard), []

    def task_callback(output: Any) -> None:
        own.append(output.raw)
        fields["task_callback"](output)

    crew(worker(Script(Say("done"))), **{**fields, "task_callback": task_callback}).kickoff()
    assert own == ["done"]
    assert guard.report().runs[0].status == "completed"


def test_kickoffs_that_never_end_are_forgotten() -> None:
    """What is held of kickoffs whose end nobody tells is bounded, as is what the guard holds."""
    guard, _ = seen(runs=5000)
    watch: CrewWatch = callbacks(guard)["step_callback"].__self__
    for number in range(1100):
        watch._kickoffs[f"gone{number}"] = watch._opened()
        watch.step(object())
    assert len(watch._kickoffs) <= 1001


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("owner", "method"),
    [
        (Guard, "open"),
        (Guard, "observe"),
        (Guard, "judge"),
        (Guard, "end"),
        (Kickoff, "__init__"),
        (Kickoff, "began"),
        (Kickoff, "done"),
        (CrewWatch, "_of_kickoff"),
        (CrewWatch, "_enter"),
        (CrewWatch, "_left"),
    ],
)
def test_a_crash_of_ours_changes_no_crew(
    owner: type, method: str, strict: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever of ours fails, no task is run again, the result is the same, and the log says what failed."""
    guard, _ = seen(strict=strict)
    done: list[str] = []
    script = Script(*steps(True))
    made = crew(worker(script, effect(done)), **callbacks(guard))
    monkeypatch.setattr(owner, method, broken)
    assert made.kickoff().raw == "done"
    assert (len(done), script.calls) == (3, 4)
    assert "misstep failed in a callback: ZeroDivisionError" in caplog.text


def test_callbacks_of_a_guard_that_is_off() -> None:
    """A guard that is off opens no run."""
    guard, events = seen(mode="off")
    assert crew(worker(Script(Say("done"))), **callbacks(guard)).kickoff().raw == "done"
    assert (events.events, guard._sessions.ids()) == ([], [])


def test_severity_is_what_is_told() -> None:
    """Subscribers hear of a watched run as of any other."""
    guard, _ = seen()
    heard: list[AnomalyFound] = []
    guard.on("repeated_call", heard.append)
    crew(worker(Script(*steps(True)), effect([])), **callbacks(guard)).kickoff()
    assert [found.severity for found in heard] == [Severity.MEDIUM]
