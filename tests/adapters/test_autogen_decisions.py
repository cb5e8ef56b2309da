"""The AutoGen adapter carries out every decision: in teams of each kind, streams, hand-offs, cancelled and failing."""

from __future__ import annotations

import asyncio
import copy
import itertools
import threading
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

import pytest

pytest.importorskip("autogen_agentchat")

from autogen_agentchat.agents import SocietyOfMindAgent
from autogen_agentchat.base import Handoff, Response, TaskResult
from autogen_agentchat.conditions import MaxMessageTermination
from autogen_agentchat.messages import HandoffMessage, StructuredMessage, TextMessage
from autogen_agentchat.teams import (
    DiGraphBuilder,
    GraphFlow,
    MagenticOneGroupChat,
    RoundRobinGroupChat,
    SelectorGroupChat,
    Swarm,
)
from autogen_agentchat.tools import AgentTool, TeamTool
from autogen_core import CancellationToken, FunctionCall, SingleThreadedAgentRuntime
from autogen_core.models import (
    AssistantMessage,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    UserMessage,
)
from autogen_core.tools import BaseStreamTool, FunctionTool
from pydantic import BaseModel

from misstep import Anomaly, Answer, AttachError, Guard, Policy, Run
from misstep.decisions import Kind
from misstep.events import (
    CheckpointRestored,
    Event,
    HandoffRequested,
    MessageSent,
    ModelResponded,
    ToolFailed,
    ToolRequested,
    ToolReturned,
    TurnEnded,
    TurnStarted,
)
from misstep.testing import Ask, AskAll, Say, Script
from misstep_autogen import guarded
from misstep_autogen.rollback import Lesson, taught
from misstep_autogen.testing import ScriptedChatClient
from tests.adapters.test_autogen import (
    EMPTY,
    HALT,
    LOOP,
    Custom,
    acting,
    again,
    agent,
    chunks,
    report,
    rule,
    speaker,
    swarm,
    texts,
    told,
    within,
)
from tests.conformance.decisions import bad_call, bad_reply, bad_result, finds, guarding
from tests.core.scenes import Records

LEFT = "[misstep] This turn was ended, and another agent goes on."
TAKEN_BACK = "was taken back"

BAD_CALL = finds(ToolRequested, bad_call)
BAD_REPLY = finds(ModelResponded, bad_reply)
TO_BOB = {"reroute": {"to": "bob", "limit": 1}}


def took(guard: Guard, x: Any) -> list[tuple[Kind, bool | None]]:
    """What was decided in the run begun last, and whether it took effect."""
    return [(each.kind, each.took_effect) for each in report(guard, x).decisions]


def bad(id: str = "b") -> Ask:  # noqa: A002 - as in `Ask`
    """A call the rules find fault with."""
    return Ask("act", {"q": "bad"}, id=id)


def says(what: str) -> Any:
    """A rule for turns that end with just these words."""
    return finds(TurnEnded, lambda event: event.content == what)


async def streamed(stream: AsyncGenerator[Any, None]) -> list[Any]:
    """All a stream gives."""
    return [item async for item in stream]


async def alone(work: Any) -> Any:
    """The result of some work that leaves no task behind."""
    before = asyncio.all_tasks()
    result = await work
    for _ in range(100):  # AutoGen leaves its agents' streams to be closed by the event loop
        if asyncio.all_tasks() <= before:
            return result
        await asyncio.sleep(0.01)
    assert asyncio.all_tasks() <= before
    return result


# -- the model seat


def test_rewritten_words_are_known_again_as_the_agents_own() -> None:
    """At its next turn an agent finds the rewritten words in its conversation: nobody else's, and not from before."""
    events = Records()
    guard = guarding(finds(ModelResponded, bad_reply, rewrite="kinder words"), "rewrite", sink=events)
    script = Script(Say("bad words"), Say("second"))
    team = guarded(RoundRobinGroupChat([agent("alice", script), speaker("bob")], max_turns=3), guard)
    result = within(team.run(task="go"))
    assert texts(result) == ["user: go", "alice: kinder words", "bob: bob speaks", "alice: second"]
    assert "kinder words" in script.seen[1]
    assert not any(event.history for event in events.of(ModelResponded))
    heard = [event for event in events.of(MessageSent) if event.content == "kinder words"]
    assert [(event.sender, event.agent, event.trust) for event in heard] == [("alice", "bob", "agent")]


def test_words_an_agent_could_not_read_are_not_put_in_its_mouth() -> None:
    """An agent that must answer with data keeps its own answer where the rewritten one is none, and does not break."""
    found = finds(ModelResponded, lambda event: True, rewrite="no data")
    guard = Guard(rule(LOOP, "rewrite"), detectors=[found])
    alice = agent("alice", Script(Say('{"q": "x"}')), output_content_type=Query)
    result = within(guarded(alice, guard).run(task="go"))
    assert result.messages[-1].content == Query(q="x")
    assert took(guard, alice) == [(Kind.REWRITE, False)]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "tokens"])
def test_a_fallback_plays_for_the_agent(stream: bool) -> None:
    """Another client answers this call, streamed or not, and the next one is the agent's own again."""
    small, script = Script(Say("good words")), Script(Say("bad words"), Say("second"))
    guard = guarding(BAD_REPLY, {"fallback": {"to": "small", "limit": 1}}, models={"small": ScriptedChatClient(small)})
    team = guarded(RoundRobinGroupChat([agent("alice", script, model_client_stream=stream)], max_turns=2), guard)
    assert texts(within(team.run(task="go"))) == ["user: go", "alice: good words", "alice: second"]
    assert (small.calls, script.calls) == (1, 2)
    assert took(guard, team) == [(Kind.FALLBACK, True)]


@pytest.mark.parametrize(("ballots", "seen"), [(("odd one", "even one", "even one"), "even one")])
def test_only_the_tokens_of_the_reply_that_was_elected_are_streamed(ballots: Sequence[str], seen: str) -> None:
    """Where answers are held, a vote's losers are not heard, whichever came last."""
    for replies in (ballots, [*ballots[1:], ballots[0]]):
        guard = Guard(rule(LOOP, {"vote": {"samples": 3, "limit": 1}}, output="hold"), detectors=[BAD_REPLY])
        script = Script(Say("bad words"), *map(Say, replies))
        items = within(streamed(guarded(agent("alice", script, model_client_stream=True), guard).run_stream(task="go")))
        assert chunks(items) == seen
        assert items[-1].messages[-1].content == seen


def test_the_tokens_of_rewritten_words_are_not_streamed() -> None:
    """Where answers are held, the words a rule replaced reach nobody."""
    rewriting = finds(ModelResponded, bad_reply, rewrite="kinder words")
    guard = Guard(rule(LOOP, "rewrite", output="hold"), detectors=[rewriting], strict=True)
    alice = guarded(agent("alice", Script(Say("bad words")), model_client_stream=True), guard)
    items = within(streamed(alice.run_stream(task="go")))
    assert chunks(items) == ""
    assert texts(items[-1])[-1] == "alice: kinder words"


@pytest.mark.parametrize(
    ("answer", "last"),
    [
        (Answer("approve"), "bad words"),
        (Answer("edit", "edited words"), "edited words"),
        (Answer("reject", comment="no"), "second"),
    ],
    ids=["approve", "edit", "reject"],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "tokens"])
def test_a_person_decides_on_a_reply(answer: Answer, last: str, stream: bool) -> None:
    """Approved it is passed on, edited as edited, and a rejected one is asked for again."""

    async def person(question: Any) -> Answer:
        return answer

    guard = guarding(BAD_REPLY, {"ask": {"timeout": 5}}, approver=person)
    alice = guarded(agent("alice", Script(Say("bad words"), Say("second")), model_client_stream=stream), guard)
    assert texts(within(alice.run(task="go")))[-1] == f"alice: {last}"
    assert took(guard, alice) == [(Kind.ASK, True)]


# -- a person who is asked


@pytest.mark.parametrize("at", ["model", "tool", "hand-off"])
@pytest.mark.parametrize("cancels", ["token", "task"])
@pytest.mark.parametrize("team", [False, True], ids=["agent", "team"])
def test_a_run_cancelled_while_a_person_is_asked(at: str, cancels: str, team: bool) -> None:
    """Whoever is asked and wherever: the run ends at once, and leaves no task behind."""
    silent = threading.Event()

    def wait(question: Any) -> Answer:
        silent.wait(20)
        return Answer("approve")

    async def main() -> None:
        call = {"model": Say("bad words"), "tool": bad(), "hand-off": Ask("transfer_to_bob", {}, id="h")}[at]
        found = BAD_REPLY if at == "model" else finds(ToolRequested, lambda event: True)
        guard = guarding(found, {"ask": {"timeout": 30}}, approver=wait)
        alice = agent("alice", Script(call, Say("on")), acting([]), handoffs=["bob"])
        x = guarded(Swarm([alice, speaker("bob")], max_turns=2) if team else alice, guard)
        token = CancellationToken()
        running = asyncio.ensure_future(x.run(task="go", cancellation_token=token))
        await asyncio.sleep(0.2)
        token.cancel() if cancels == "token" else running.cancel()
        with pytest.raises((asyncio.CancelledError, RuntimeError)):
            await running
        await asyncio.sleep(0.2)
        assert asyncio.all_tasks() == before

    async def timed() -> None:
        before.update(asyncio.all_tasks())
        await main()

    before: set[Any] = set()
    within(timed())
    silent.set()


def test_a_reader_that_leaves_while_a_person_is_asked() -> None:
    """Nobody is waited for whose answer nobody will read."""
    asked, silent = threading.Event(), threading.Event()

    def wait(question: Any) -> Answer:
        asked.set()
        silent.wait(20)
        return Answer("approve")

    async def main() -> None:
        guard = guarding(BAD_CALL, {"ask": {"timeout": 30}}, approver=wait)
        team = guarded(RoundRobinGroupChat([agent("alice", Script(bad(), Say("on")), acting([]))], max_turns=1), guard)
        stream = team.run_stream(task="go")
        async for _ in stream:
            break
        while not asked.is_set():
            await asyncio.sleep(0.01)
        await alone(stream.aclose())

    within(main())
    silent.set()


def test_others_go_on_while_a_person_is_asked() -> None:
    """An agent that waits for a person holds up only itself."""

    async def person(question: Any) -> Answer:
        await asyncio.sleep(0.3)
        return Answer("approve")

    async def main() -> None:
        guard = guarding(BAD_CALL, {"ask": {"timeout": 5}}, approver=person)
        waiting = guarded(agent("alice", Script(bad(), Say("on")), acting([])), guard)
        quick = guarded(speaker("bob"), guard)
        task = asyncio.ensure_future(waiting.run(task="go"))
        await asyncio.sleep(0.05)
        assert texts(await quick.run(task="go"))[-1] == "bob: bob speaks"
        assert not task.done()
        assert texts(await task)[-1] == "alice: on"

    within(main())


# -- the tool seat


class Query(BaseModel):
    """What a streaming tool is given."""

    q: str


class Slowly(BaseStreamTool[Query, TextMessage, BaseModel]):
    """A tool that streams some words, each after a while, and never ends unless it is told to."""

    def __init__(self, words: int, pause: float) -> None:
        super().__init__(Query, BaseModel, "act", "Act.")
        self.words, self.pause = words, pause

    async def run_stream(
        self, args: Query, cancellation_token: CancellationToken, call_id: str | None = None
    ) -> AsyncGenerator[Any, None]:
        """Stream."""
        for number in range(self.words):
            await asyncio.sleep(self.pause)
            yield TextMessage(content=f"word {number}", source="act")
        yield args

    async def run(self, args: Query, cancellation_token: CancellationToken) -> BaseModel:
        """Never called."""
        raise NotImplementedError


def hurried(seconds: float) -> Guard:
    """A guard that gives tools so much time."""
    guard = Guard(HALT, strict=True)
    guard._deadline = seconds
    return guard


def test_a_tool_that_streams_too_long_is_cut_off() -> None:
    """What it streamed in time is passed on; then the agent reads that it took too long, and goes on."""
    events, script = Records(), Script(Ask("act", {"q": "x"}), Say("went on"))
    guard = Guard(HALT, sink=events, strict=True)
    guard._deadline = 0.25
    alice = guarded(agent("alice", script, Slowly(100, 0.1)), guard)
    result = within(alone(alice.run(task="go")))
    assert "act: word 0" in texts(result)
    assert "act: word 3" not in texts(result)
    assert "[misstep: tool_timeout] The tool gave no answer within 0.25 s" in script.seen[1][-1]
    assert texts(result)[-1] == "alice: went on"
    assert [event.error_type for event in events.of(ToolFailed)] == ["ToolTimeout"]


def test_a_reader_that_is_slow_is_not_cut_off() -> None:
    """The deadline is the tool's: whoever reads its stream is never cancelled by it."""

    async def main() -> None:
        alice = guarded(agent("alice", Script(Say("?")), Slowly(1, 0.01)), hurried(0.1))
        (workbench,) = alice._workbench
        script = Script(Ask("act", {"q": "x"}), Say("went on"))
        alice._model_client._misstep_client.script = script
        items = []
        async for item in alice.run_stream(task="go"):
            items.append(item)
            await asyncio.sleep(0.15)
        assert script.calls == 2
        assert items[-1].messages[-1].content == "went on"
        assert workbench is alice._workbench[0]

    within(main())


def test_an_agent_that_is_called_as_a_tool_and_hangs() -> None:
    """An inner agent that takes too long is cancelled with its model call, and nothing is left of it."""

    class Hanging(ScriptedChatClient):
        async def create(self, messages: Any, **kwargs: Any) -> Any:
            """Never answer."""
            await asyncio.sleep(60)

    async def main() -> None:
        helper = agent("helper", Script(Say("?")))
        helper._model_client = Hanging(Script(Say("?")))
        script = Script(Ask("helper", {"task": "x"}), Say("went on"))
        boss = guarded(agent("boss", script, AgentTool(helper)), hurried(0.2))
        assert texts(await alone(boss.run(task="go")))[-1] == "boss: went on"
        assert "tool_timeout" in script.seen[1][-1]

    within(main())


def test_a_team_that_is_called_as_a_tool_and_hangs() -> None:
    """An inner team that cannot be stopped is not waited for either."""
    released = asyncio.Event()

    class Hanging(ScriptedChatClient):
        async def create(self, messages: Any, **kwargs: Any) -> Any:
            """Answer when the test is over."""
            await released.wait()
            return await super().create(messages, **kwargs)

    async def main() -> None:
        helper = agent("helper", Script(Say("late")))
        helper._model_client = Hanging(Script(Say("late")))
        inner = RoundRobinGroupChat([helper], max_turns=1, name="inner")
        script = Script(Ask("inner", {"task": "x"}), Say("went on"))
        boss = guarded(agent("boss", script, TeamTool(inner, "inner", "A team.")), hurried(0.2))
        assert texts(await boss.run(task="go"))[-1] == "boss: went on"
        assert "tool_timeout" in script.seen[1][-1]
        await alone(asyncio.sleep(0, released.set()))

    within(main(), 5)


def test_a_workbenchs_result_is_rewritten_and_its_error_stays_one() -> None:
    """A rewritten result keeps whether it was an error."""

    def act(q: str) -> str:
        """Act."""
        raise ValueError("found K7310")

    found = finds(ToolFailed, lambda event: "K7310" in event.error, rewrite="masked")
    guard = guarding(found, "rewrite")
    script = Script(Ask("act", {"q": "x"}), Say("on"))
    result = within(guarded(agent("alice", script, act), guard).run(task="go"))
    (executed,) = [message for message in result.messages if message.type == "ToolCallExecutionEvent"]
    assert [(each.content, each.is_error) for each in executed.content] == [("masked", True)]
    assert script.seen[1][-1] == "masked"


def failing_once(tries: list[str]) -> Any:
    """A tool that has an answer at its second call."""

    def act(q: str) -> str:
        """Act."""
        tries.append(q)
        return "found nothing" if len(tries) == 1 else "fine"

    return FunctionTool(act, "Act.")


def test_a_call_that_changes_nothing_is_made_again() -> None:
    """A tool's failed call is repeated where its tool is declared to change nothing, and only there."""
    for harmless in (True, False):
        tries: list[str] = []

        class Declaring(Guard):
            """A guard that knows whether its tools change anything."""

            def repeatable(self, tool: str, run: Run, harmless: bool = harmless) -> bool:
                """As the case has it."""
                return harmless

        ladder = rule(LOOP, {"retry": 1}, {"refuse": 1})
        guard = Declaring(ladder, detectors=[finds(ToolReturned, bad_result)], strict=True)
        script = Script(Ask("act", {"q": "x"}), Say("on"))
        within(guarded(agent("alice", script, failing_once(tries)), guard).run(task="go"))
        assert len(tries) == (2 if harmless else 1)
        assert ("fine" in script.seen[1][-1]) is harmless


# -- hand-offs


def trio(*replies: Any, **options: Any) -> list[Any]:
    """Alice, who plays a script and may hand over, Bob and Carol, who talk."""
    alice = agent("alice", Script(*replies), acting([]), handoffs=["bob", "carol"], **options)
    return [alice, speaker("bob"), speaker("carol")]


TO_CAROL = Ask("transfer_to_carol", {}, id="h")
HANDED = finds(ToolRequested, lambda event: event.tool == "transfer_to_carol")


def test_a_hand_off_is_redirected_in_a_swarm() -> None:
    """Its message names the new agent, in the stream as for the others, and so does the record."""
    events = Records()
    guard = guarding(HANDED, TO_BOB, sink=events)
    team = guarded(Swarm(trio(TO_CAROL), max_turns=3), guard)
    items = within(streamed(team.run_stream(task="go")))
    (handoff,) = [item for item in items if isinstance(item, HandoffMessage)]
    assert (handoff.target, handoff.content) == ("bob", Handoff(target="bob").message)
    assert texts(items[-1])[-2:] == ["bob: bob speaks", "bob: bob speaks"]
    assert [event.target for event in events.of(HandoffRequested)] == ["bob"]
    assert took(guard, team) == [(Kind.REROUTE, True)]


def test_a_hand_off_keeps_words_of_its_own() -> None:
    """A message the application wrote is passed on as it is."""
    alice = agent("alice", Script(TO_CAROL), handoffs=[Handoff(target="carol", message="take my notes")])
    guard = guarding(HANDED, TO_BOB)
    team = guarded(Swarm([alice, speaker("bob"), speaker("carol")], max_turns=2), guard)
    assert texts(within(team.run(task="go")))[-2:] == ["alice: take my notes", "bob: bob speaks"]


def test_a_hand_off_where_no_swarm_follows_it() -> None:
    """It is refused with an objection, and the manager gives the turn to the policy's agent."""
    guard = guarding(HANDED, {"reroute": {"to": "carol", "limit": 1}})
    team = guarded(RoundRobinGroupChat(trio(TO_CAROL), max_turns=2), guard)
    result = within(team.run(task="go"))
    assert "another agent is given the turn" in texts(result)[-2]
    assert texts(result)[-1] == "carol: carol speaks"
    assert took(guard, team) == [(Kind.REROUTE, True)]


def test_a_hand_off_that_is_found_fault_with_as_one() -> None:
    """A rule that hears of hand-offs redirects them just as well."""
    guard = guarding(finds(HandoffRequested, lambda event: event.target == "carol"), TO_BOB)
    team = guarded(Swarm(trio(TO_CAROL), max_turns=2), guard)
    assert texts(within(team.run(task="go")))[-1] == "bob: bob speaks"
    assert took(guard, team) == [(Kind.REROUTE, True)]


def test_a_hand_offs_words_are_withheld() -> None:
    """A hand-off whose words are refused is not made."""
    guard = guarding(finds(ToolReturned, lambda event: event.tool.startswith("transfer")), {"refuse": 1})
    alice = agent("alice", Script(TO_CAROL, Say("kept it")), handoffs=["carol"])
    team = guarded(Swarm([alice, speaker("carol")], max_turns=2), guard)
    assert texts(within(team.run(task="go")))[-1] == "alice: kept it"


# -- reroute


def choosing(kind: str, members: Sequence[Any], turns: int) -> Any:
    """A team of each kind, in which Alice is first."""
    if kind == "round robin":
        return RoundRobinGroupChat(members, max_turns=turns)
    if kind == "swarm":
        return Swarm(members, max_turns=turns)
    if kind == "selector function":
        client = ScriptedChatClient(Script(Say("?")))
        return SelectorGroupChat(members, client, selector_func=lambda thread: "alice", max_turns=turns)
    if kind == "selecting model":
        return SelectorGroupChat(
            members, ScriptedChatClient(Script(Say("alice"))), allow_repeated_speaker=True, max_turns=turns
        )
    builder = DiGraphBuilder()
    for member in members:
        builder.add_node(member)
    builder.add_edge(members[0], members[1]).add_edge(members[1], members[2])
    return GraphFlow(builder.get_participants(), builder.build(), max_turns=turns)


NATURALLY = {
    "round robin": ["alice", "carol", "alice"],
    "swarm": ["alice", "carol", "alice"],
    "selector function": ["alice", "carol", "alice"],
    "selecting model": ["alice", "carol", "alice"],
    "flow": ["alice", "carol", "bob", "carol"],
}
"""Who speaks where the turn after Alice's first is Carol's."""


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "tokens"])
@pytest.mark.parametrize("heard", [ModelResponded, ToolRequested, TurnEnded])
@pytest.mark.parametrize("kind", NATURALLY)
def test_the_turn_is_given_to_another_agent_once(kind: str, heard: type[Event], stream: bool) -> None:
    """At the next choice of a speaker, whoever makes it; then the team goes on as ever, and is of use again."""
    when: Any = {ModelResponded: bad_reply, ToolRequested: bad_call, TurnEnded: lambda event: event.content == "over"}
    first = {ModelResponded: [Say("bad words")], ToolRequested: [bad(), Say("stepped back")], TurnEnded: [Say("over")]}
    guard = guarding(finds(heard, when[heard]), {"reroute": {"to": "carol", "limit": 1}})
    done: list[str] = []
    alice = agent("alice", Script(*first[heard], Say("alice speaks")), acting(done), model_client_stream=stream)
    turns = len(NATURALLY[kind])
    team = guarded(choosing(kind, [alice, speaker("bob"), speaker("carol")], turns), guard)

    async def main() -> None:
        result = await alone(team.run(task="go"))
        said = [message.source for message in result.messages if isinstance(message, TextMessage)]
        assert said == ["user", *NATURALLY[kind]]
        assert took(guard, team) == [(Kind.REROUTE, True)]
        again = await alone(team.run(task="more"))
        assert again.messages[0].source == "user"
        assert len(again.messages) == turns + (0 if kind == "flow" else 1)

    within(main())
    assert done == []


def test_the_others_are_told_that_a_turn_was_ended() -> None:
    """The reply is not passed on, nor remembered: its agent says that another goes on, and the others read that."""
    script, bob = Script(Say("bad words"), Say("back again")), Script(Say("bob took over"))
    guard = guarding(BAD_REPLY, TO_BOB)
    team = guarded(RoundRobinGroupChat([agent("alice", script), agent("bob", bob)], max_turns=3), guard)
    result = within(team.run(task="go"))
    assert texts(result) == ["user: go", f"alice: {LEFT}", "bob: bob took over", "alice: back again"]
    assert bob.seen[0][-1] == LEFT
    assert "bad words" not in script.seen[1]
    assert script.seen[1][-2:] == ["go", "bob took over"]


def test_structured_answers_are_left_the_same_way() -> None:
    """An agent that answers with data ends its turn with words, and does not break."""
    alice = agent("alice", Script(Say("bad words"), Say('{"q": "x"}')), output_content_type=Query)
    guard = guarding(BAD_REPLY, TO_BOB)
    team = RoundRobinGroupChat([alice, speaker("bob")], max_turns=3, custom_message_types=[StructuredMessage[Query]])
    result = within(guarded(team, guard).run(task="go"))
    assert [message.source for message in result.messages] == ["user", "alice", "bob", "alice"]
    assert isinstance(result.messages[-1], StructuredMessage)


def test_an_agent_that_loses_its_turn_at_once_hears_later_what_it_missed() -> None:
    """A turn that is taken away where it begins leaves its messages to be heard at the agent's next turn."""
    script = Script(Say("alice speaks"))
    guard = guarding(finds(TurnStarted, lambda event: event.agent == "alice"), TO_BOB)
    team = guarded(RoundRobinGroupChat([agent("alice", script), speaker("bob")], max_turns=3), guard)
    result = within(team.run(task="go"))
    assert texts(result) == ["user: go", f"alice: {LEFT}", "bob: bob speaks", "alice: alice speaks"]
    assert script.seen == [["go", "bob speaks"]]


def test_what_was_missed_is_heard_in_the_next_run() -> None:
    """Also where the team ends before the agent is given a turn again; and only once."""
    script = Script(Say("alice speaks"))
    guard = guarding(finds(TurnStarted, lambda event: event.agent == "alice"), TO_BOB)
    team = guarded(RoundRobinGroupChat([agent("alice", script), speaker("bob")], max_turns=1), guard)

    async def main() -> None:
        await team.run(task="go")
        assert took(guard, team) == [(Kind.REROUTE, False)]
        guard._judge._ladder._rungs.clear()
        for task in ("second", "third"):
            await team.run(task=task)
        await team.run(task="fourth")

    within(main())
    assert [sum(text == "go" for text in seen) for seen in script.seen] == [1] * script.calls


def test_an_agent_called_as_a_tool_leaves_its_turn_to_its_caller() -> None:
    """The tool answers that another goes on, the caller ends its own turn, and then the other is given it."""
    helper = agent("helper", Script(Say("bad words")))
    script = Script(Ask("helper", {"task": "x"}), Say("boss is done"))
    boss = agent("boss", script, AgentTool(helper))
    guard = guarding(BAD_REPLY, TO_BOB)
    team = guarded(RoundRobinGroupChat([boss, speaker("alice"), speaker("bob")], max_turns=2), guard)
    assert texts(within(alone(team.run(task="go"))))[-2:] == ["boss: boss is done", "bob: bob speaks"]
    assert LEFT in script.seen[1][-1]
    assert took(guard, team) == [(Kind.REROUTE, True)]


def test_a_society_leaves_its_turn() -> None:
    """What a society of mind would say in the end is judged as any agent's words are."""
    inner = RoundRobinGroupChat([speaker("dave")], max_turns=1)
    society = SocietyOfMindAgent("society", inner, ScriptedChatClient(Script(Say("bad words"))))
    guard = guarding(BAD_REPLY, TO_BOB)
    team = guarded(RoundRobinGroupChat([society, speaker("alice"), speaker("bob")], max_turns=2), guard)
    result = within(alone(team.run(task="go")))
    assert texts(result)[-2:] == [f"society: {LEFT}", "bob: bob speaks"]
    assert took(guard, team) == [(Kind.REROUTE, True)]


def test_a_copied_team_is_rerouted_by_itself() -> None:
    """A deep copy gives turns to its own agents."""
    guard = guarding(BAD_REPLY, TO_BOB)
    members = [agent("alice", Script(Say("bad words"))), speaker("carol"), speaker("bob")]
    clone = copy.deepcopy(guarded(RoundRobinGroupChat(members, max_turns=2), guard))
    assert within(clone.run(task="go")).messages[-1].source == "bob"
    assert took(guard, clone) == [(Kind.REROUTE, True)]


def test_a_team_on_a_runtime_of_the_users() -> None:
    """A turn is given to another agent, and a run is taken back, where the runtime was started before the run."""

    async def main() -> None:
        for found, rung, script, said in (
            (BAD_REPLY, {"reroute": {"to": "carol", "limit": 1}}, Script(Say("bad words")), "carol: carol speaks"),
            (BAD_CALL, {"roll_back": 1}, Script(bad(), LEARNED), "alice: learned"),
        ):
            runtime = SingleThreadedAgentRuntime()
            runtime.start()
            guard = guarding(found, rung)
            members = [agent("alice", script, acting([])), speaker("bob"), speaker("carol")]
            team = guarded(RoundRobinGroupChat(members, max_turns=2, runtime=runtime), guard)
            result = await team.run(task="go")
            assert said in texts(result)
            assert len(result.messages) == 3
            assert [kept for _, kept in took(guard, team)] == [True]
            await runtime.stop_when_idle()

    within(main())


def test_what_was_missed_in_an_inner_team_is_heard_once() -> None:
    """Also where the inner team has several turns in one run, and ended before the guard could give its own."""
    script = Script(Say("alice speaks"))
    guard = guarding(finds(TurnStarted, lambda event: event.agent == "alice"), {"reroute": {"to": "dave", "limit": 1}})
    inner = RoundRobinGroupChat([agent("alice", script), speaker("dave")], name="inner", max_turns=1)
    team = guarded(RoundRobinGroupChat([inner, speaker("bob")], max_turns=9), guard)
    result = within(team.run(task="go"))
    said = [message.source for message in result.messages if message.source != "bob"]
    assert said == ["user", "alice", "dave", "alice", "dave", "alice"]
    assert [sum(text == "go" for text in seen) for seen in script.seen] == [1, 1]


def test_a_selecting_model_is_rerouted() -> None:
    """A choice the guard does not like is replaced by its own."""
    chooser = Script(Say("bad: carol"), Say("alice"))
    guard = guarding(BAD_REPLY, TO_BOB)
    team = guarded(
        SelectorGroupChat([*map(speaker, ("alice", "bob", "carol"))], ScriptedChatClient(chooser), max_turns=2), guard
    )
    result = within(team.run(task="go"))
    assert [message.source for message in result.messages] == ["user", "bob", "alice"]
    assert took(guard, team) == [(Kind.REROUTE, True)]


def test_a_turn_that_was_to_come_next_in_a_flow_comes_once() -> None:
    """A reroute to the agent a flow goes on with changes nothing, and is said to have worked."""
    guard = guarding(BAD_REPLY, TO_BOB)
    alice = agent("alice", Script(Say("bad words")))
    team = guarded(choosing("flow", [alice, speaker("bob"), speaker("carol")], 9), guard)
    result = within(team.run(task="go"))
    assert [message.source for message in result.messages if isinstance(message, TextMessage)] == [
        "user", "alice", "bob", "carol",
    ]  # fmt: skip
    assert took(guard, team) == [(Kind.REROUTE, True)]


def test_a_turn_outside_a_flow_does_not_move_it() -> None:
    """What comes after the agent in the flow waits for its own turn there."""
    alice = agent("alice", Script(Say("bad words")))
    members = [alice, *map(speaker, ("bob", "carol", "dave"))]
    builder = DiGraphBuilder()
    for member in members:
        builder.add_node(member)
    for one, next_ in itertools.pairwise(members):
        builder.add_edge(one, next_)
    guard = guarding(BAD_REPLY, {"reroute": {"to": "carol", "limit": 1}})
    result = within(guarded(GraphFlow(builder.get_participants(), builder.build()), guard).run(task="go"))
    said = [message.source for message in result.messages if isinstance(message, TextMessage)]
    assert said == ["user", "alice", "carol", "bob", "carol", "dave"]


def test_an_agent_of_an_inner_team_is_followed_by_one_of_the_outer() -> None:
    """Whichever team has the agent gives it the turn at its next choice."""
    inner = RoundRobinGroupChat([agent("alice", Script(Say("bad words"))), speaker("dave")], name="inner", max_turns=2)
    team = RoundRobinGroupChat([inner, speaker("bob"), speaker("carol")], max_turns=2)
    guard = guarding(BAD_REPLY, {"reroute": {"to": "carol", "limit": 1}})
    result = within(guarded(team, guard).run(task="go"))
    assert [message.source for message in result.messages] == ["user", "alice", "dave", "carol"]
    assert took(guard, team) == [(Kind.REROUTE, True)]


def test_who_cannot_be_given_the_turn_is_said_when_the_guard_is_attached() -> None:
    """An agent the team does not have, a single agent, and a team whose orchestrator chooses inside itself."""
    unknown = {"reroute": {"to": "nobody", "limit": 1}}
    for x, rung, why in (
        (RoundRobinGroupChat(trio(Say("?"))), unknown, "no such agent; there is: `alice`, `bob`, `carol`"),
        (speaker("alice"), TO_BOB, "asks for `reroute`"),
        (MagenticOneGroupChat(trio(Say("?")), ScriptedChatClient(Script(Say("?")))), TO_BOB, "asks for `reroute`"),
    ):
        with pytest.raises(AttachError, match=why):
            guarded(x, guarding(BAD_REPLY, rung))


# -- what an agent tells the others


@pytest.mark.parametrize("team", [False, True], ids=["agent", "team"])
def test_what_an_agent_says_is_rewritten_for_all_who_hear_it(team: bool) -> None:
    """The stream, the result and the others have the new words; the agent itself remembers what it said."""
    guard = guarding(finds(TurnEnded, lambda event: "K7310" in (event.content or ""), rewrite="masked"), "rewrite")
    alice, bob = agent("alice", Script(Say("it is K7310"))), Script(Say("fine"))
    x: Any = RoundRobinGroupChat([alice, agent("bob", bob)], max_turns=2) if team else alice
    guarded(x, guard)

    async def main() -> None:
        items = await streamed(x.run_stream(task="go"))
        assert not any("K7310" in str(item) for item in items)
        assert "alice: masked" in texts(items[-1])
        assert "it is K7310" in await told(alice)

    within(main())
    assert bob.seen == ([["go", "masked"]] if team else [])
    assert took(guard, x) == [(Kind.REWRITE, True)]


def test_data_an_agent_tells_is_not_rewritten_into_a_text() -> None:
    """A message that is no text stays what it is, and the receipt says so."""
    alice = agent("alice", Script(Say('{"q": "K7310"}')), output_content_type=Query)
    guard = guarding(finds(TurnEnded, lambda event: True, rewrite="masked"), "rewrite")
    result = within(guarded(alice, guard).run(task="go"))
    assert result.messages[-1].content == Query(q="K7310")
    assert took(guard, alice) == [(Kind.REWRITE, False)]


def test_a_word_about_a_turn_reaches_its_agent_at_its_next_model_call() -> None:
    """What a rule says of a turn that is over is told later, to that agent alone, once."""
    script, bob = Script(Say("over"), Say("second"), Say("third")), Script(Say("bob speaks"))
    guard = guarding(says("over"), {"reprompt": 1})
    team = guarded(RoundRobinGroupChat([agent("alice", script), agent("bob", bob)], max_turns=5), guard)
    within(team.run(task="go"))
    assert ["[misstep:" in " ".join(seen) for seen in script.seen] == [False, True, False]
    assert "[misstep:" not in str(bob.seen)
    assert took(guard, team) == [(Kind.REPROMPT, True)]


# -- rolling back

LEARNED: Callable[[Sequence[str]], Say] = lambda seen: Say(  # noqa: E731 - a step of a script
    "learned" if any(TAKEN_BACK in text for text in seen) else "never told"
)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "tokens"])
@pytest.mark.parametrize("begin", ["run", "run_stream", "on_messages", "on_messages_stream"])
def test_a_single_agent_is_taken_back_to_before_the_run(begin: str, stream: bool) -> None:
    """Whichever way it was begun: the answer is the last try's, and the first left no trace in the agent."""
    guard = guarding(BAD_CALL, {"roll_back": 1})
    script = Script(Ask("act", {"q": "x"}, id="a"), bad(), LEARNED)
    alice = guarded(agent("alice", script, acting([]), model_client_stream=stream), guard)

    async def main() -> None:
        token = CancellationToken()
        task = [TextMessage(content="go", source="user")]
        last: Any
        if begin == "run":
            last = await alone(alice.run(task="go"))
        elif begin == "run_stream":
            last = (await alone(streamed(alice.run_stream(task="go"))))[-1]
        elif begin == "on_messages":
            last = await alone(alice.on_messages(task, token))
        else:
            last = (await alone(streamed(alice.on_messages_stream(task, token))))[-1]
        if isinstance(last, Response):
            assert (last.chat_message.content, last.inner_messages) == ("learned", [])
        else:
            assert texts(last) == ["user: go", "alice: learned"]
        assert await told(alice) == ["go", "learned"]

    within(main())
    assert took(guard, alice) == [(Kind.ROLL_BACK, True)]
    assert report(guard, alice).status == "completed"


def going_wrong(turn: int) -> Script:
    """What Alice says: at that turn of hers a good call and a bad one; once both are taken back, what she learned."""
    turns = (Say(f"turn {number}") for number in range(turn))
    return Script(*turns, Ask("act", {"q": "x"}, id="a"), bad(), LEARNED, Say("later"))


def test_a_lesson_stays_where_it_was_learned() -> None:
    """The agent's model reads it at every call from then on, in one place, and nobody else ever does."""
    guard = guarding(BAD_CALL, {"roll_back": 1})
    script, bob = (
        Script(bad(), Ask("act", {"q": "x"}, id="a"), Say("all done"), Say("again")),
        Script(Say("bob speaks")),
    )
    alice = agent("alice", script, acting([]))
    team = guarded(RoundRobinGroupChat([alice, agent("bob", bob)], max_turns=3), guard)
    within(team.run(task="go"))
    lesson = script.seen[1][-1]
    assert TAKEN_BACK in lesson
    assert script.seen[1:] == [
        ["go", lesson],
        ["go", lesson, "", "nothing"],
        ["go", lesson, "", "nothing", "all done", "bob speaks"],
    ]
    assert not any(TAKEN_BACK in text for text in [*bob.seen[0], *within(told(alice))])


def test_a_lesson_never_parts_a_call_from_its_result() -> None:
    """Where a conversation was shortened, a lesson stands behind the results, or at its end."""
    call = AssistantMessage(content=[FunctionCall(id="a", name="act", arguments="{}")], source="alice")
    result = FunctionExecutionResultMessage(
        content=[FunctionExecutionResult(content="nothing", name="act", call_id="a", is_error=False)]
    )
    user = UserMessage(content="go", source="user")
    for messages, at, place in (
        ([call, result, user], 1, 2),
        ([call, result], 1, 2),
        ([user], 5, 1),
        ([user], None, 1),
    ):
        conversation = taught(messages, [Lesson("learn", at)])
        assert [message.content for message in conversation].index("learn") == place


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("kind", ["round robin", "swarm", "selector function", "selecting model"])
def test_a_team_is_taken_back_to_before_the_turn(kind: str, stream: bool) -> None:
    """What was said before the turn stands and is not said again; the turns counted before it stay counted."""
    events, script = Records(), going_wrong(2)
    guard = guarding(BAD_CALL, {"roll_back": 1}, sink=events)
    bob = Script(Say("bob speaks"))
    members = [agent("alice", script, acting([])), agent("bob", bob), speaker("carol")]
    turns = 7 if kind == "round robin" else 4
    team = guarded(choosing(kind, members, turns), guard)

    async def main() -> None:
        work = streamed(team.run_stream(task="go")) if stream else team.run(task="go")
        found = await alone(work)
        result = found[-1] if stream else found
        said = texts(result)
        wanted = ["user: go", "alice: turn 0", "bob: bob speaks", "carol: carol speaks", "alice: turn 1"]
        wanted += ["bob: bob speaks", "carol: carol speaks", "alice: learned"]
        if kind != "round robin":
            wanted = ["user: go", "alice: turn 0", "alice: turn 1", "alice: learned", "alice: later"]
        assert said == wanted
        assert await told(members[0]) == [text.split(": ")[1] for text in wanted]
        assert "Maximum number of turns" in str(result.stop_reason)

    within(main())
    assert len(events.of(CheckpointRestored)) == 1
    assert took(guard, team) == [(Kind.ROLL_BACK, True)]
    assert not any(TAKEN_BACK in text for seen in bob.seen for text in seen)


def test_a_selecting_models_prompt_is_taken_back_too() -> None:
    """What the team has said is shown to it once, not once more for every roll-back."""
    chooser = Script(Say("alice"))
    guard = guarding(BAD_CALL, {"roll_back": 1})
    members = [agent("alice", going_wrong(1), acting([])), speaker("bob"), speaker("carol")]
    team = SelectorGroupChat(members, ScriptedChatClient(chooser), allow_repeated_speaker=True, max_turns=3)
    within(guarded(team, guard).run(task="go"))
    assert [seen[0].count("turn 0") for seen in chooser.seen] == [0, 1, 1, 1]


def test_a_flow_is_taken_back_within_its_loop() -> None:
    """A loop that was under way goes on after a roll-back as it would have."""
    alice, bob, carol = agent("alice", going_wrong(1), acting([])), speaker("bob"), speaker("carol", "carol speaks")
    builder = DiGraphBuilder()
    builder.add_node(alice).add_node(bob).add_node(carol)
    builder.add_edge(alice, bob, activation_condition="any", activation_group="on")
    builder.add_edge(bob, alice, condition=lambda message: bob_turns() < 3, activation_condition="any")
    builder.add_edge(bob, carol, condition=lambda message: bob_turns() >= 3)
    builder.set_entry_point(alice)

    def bob_turns() -> int:
        return bob._model_client.script.calls  # type: ignore[no-any-return]

    guard = guarding(BAD_CALL, {"roll_back": 1})
    team = guarded(GraphFlow(builder.get_participants(), builder.build(), max_turns=20), guard)
    result = within(team.run(task="go"))
    said = [text for text in texts(result) if "Digraph" not in text]
    assert said == [
        "user: go", "alice: turn 0", "bob: bob speaks", "alice: learned", "bob: bob speaks", "alice: later",
        "bob: bob speaks", "carol: carol speaks",
    ]  # fmt: skip
    assert took(guard, team) == [(Kind.ROLL_BACK, True)]


def test_a_flow_is_taken_back_while_others_are_at_work() -> None:
    """All whose turn came together have it again, and each says its part once."""

    class Slow(ScriptedChatClient):
        async def create(self, messages: Any, **kwargs: Any) -> Any:
            """Answer late."""
            await asyncio.sleep(0.1)
            return await super().create(messages, **kwargs)

    start, end = speaker("start"), speaker("end")
    alice, bob = agent("alice", Script(bad(), LEARNED), acting([])), agent("bob", Script(Say("bob speaks")))
    bob._model_client = Slow(Script(Say("bob speaks")))
    builder = DiGraphBuilder()
    for member in (start, alice, bob, end):
        builder.add_node(member)
    builder.add_edge(start, alice).add_edge(start, bob).add_edge(alice, end).add_edge(bob, end)
    guard = guarding(BAD_CALL, {"roll_back": 1})
    team = guarded(GraphFlow(builder.get_participants(), builder.build()), guard)

    async def main() -> None:
        result = await alone(team.run(task="go"))
        said = [text for text in texts(result) if "Digraph" not in text]
        assert sorted(said) == [
            "alice: learned",
            "bob: bob speaks",
            "end: end speaks",
            "start: start speaks",
            "user: go",
        ]
        assert said[-1] == "end: end speaks"
        assert (await told(end))[0:2] == ["go", "start speaks"]
        assert await told(bob) == ["go", "start speaks", "bob speaks"]

    within(main())
    assert took(guard, team) == [(Kind.ROLL_BACK, True)]


def test_an_orchestrated_team_is_taken_back_to_before_the_run() -> None:
    """Its orchestrator plans anew."""
    ledger = (
        '{"is_request_satisfied": {"answer": %s, "reason": ""}, "is_in_loop": {"answer": false, "reason": ""}, '
        '"is_progress_being_made": {"answer": true, "reason": ""}, "next_speaker": {"answer": "alice", "reason": ""}, '
        '"instruction_or_question": {"answer": "do it", "reason": ""}}'
    )
    plan = [Say("facts"), Say("plan")]
    chief = Script(*plan, Say(ledger % "false"), *plan, Say(ledger % "false"), Say(ledger % "true"), Say("the end"))
    guard = guarding(BAD_CALL, {"roll_back": 1})
    team = MagenticOneGroupChat([agent("alice", Script(bad(), LEARNED), acting([]))], ScriptedChatClient(chief))
    result = within(guarded(team, guard).run(task="go"))
    assert [message.source for message in result.messages].count("user") == 1
    assert "alice: learned" in texts(result)
    assert texts(result)[-1].endswith("the end")
    assert took(guard, team) == [(Kind.ROLL_BACK, True)]


def test_an_inner_team_is_taken_back_by_the_outermost() -> None:
    """Its turn in the outer team is taken back as a whole, with what its agents remember."""
    alice = agent("alice", going_wrong(1), acting([]))
    inner = RoundRobinGroupChat([alice, speaker("dave")], name="inner", max_turns=2)
    guard = guarding(BAD_CALL, {"roll_back": 1})
    team = guarded(RoundRobinGroupChat([inner, speaker("bob")], max_turns=3), guard)

    async def main() -> None:
        result = await alone(team.run(task="go"))
        said = ["user: go", "alice: turn 0", "dave: dave speaks", "bob: bob speaks"]
        assert texts(result) == [*said, "alice: learned", "dave: dave speaks"]
        assert await told(alice) == [text.split(": ")[1] for text in [*said, "alice: learned"]]

    within(main())
    assert took(guard, team) == [(Kind.ROLL_BACK, True)]


def test_a_termination_condition_counts_on_from_what_stands() -> None:
    """A limit of messages holds for those that stand, not anew after each roll-back."""
    guard = guarding(BAD_CALL, {"roll_back": 1})
    members = [agent("alice", going_wrong(2), acting([])), speaker("bob")]
    team = RoundRobinGroupChat(members, termination_condition=MaxMessageTermination(7))
    result = within(guarded(team, guard).run(task="go"))
    assert len(result.messages) == 7
    assert "alice: learned" in texts(result)


def test_the_misstep_may_lie_further_back_than_the_last_turn() -> None:
    """A run goes back to before the step an anomaly rests on, not only to before its own turn."""
    first = Ask("act", {"q": "first"}, id="a")
    script = Script(first, Say("built on it"), Say("and on"), bad(), LEARNED)
    guard = guarding(finds(ToolRequested, bad_call, rests_on="alice:a"), {"roll_back": 1})
    team = RoundRobinGroupChat([agent("alice", script, acting([])), speaker("bob")], max_turns=5)
    result = within(guarded(team, guard).run(task="go"))
    assert texts(result)[:3] == ["user: go", "alice: learned", "bob: bob speaks"]


def test_a_result_that_is_found_fault_with_takes_the_run_back() -> None:
    """What else its reply proposed is not called any more, whoever approves of it."""
    calls = AskAll((Ask("look", {"q": "x"}, id="l"), Ask("act", {"q": "y"}, id="m")))

    async def look(q: str) -> str:
        """Look."""
        return "found K7310"

    async def person(question: Any) -> Answer:
        await asyncio.sleep(0.1)
        return Answer("approve")

    class Consent:
        """Asks about every call of a tool."""

        type = EMPTY

        def __call__(self, event: ToolRequested, run: Run) -> Anomaly | None:
            """Find fault."""
            return Anomaly(type=EMPTY, message="bad") if event.tool == "act" else None

    rules = {LOOP: {"ladder": [{"roll_back": 1}]}, EMPTY: {"ladder": [{"ask": {"timeout": 5}}]}}
    detectors = [finds(ToolReturned, bad_result), Consent()]
    guard = Guard(Policy.model_validate({"rules": rules}), detectors=detectors, approver=person, strict=True)
    script = Script(calls, LEARNED)
    done: list[str] = []
    alice = guarded(agent("alice", script, look, acting(done)), guard)
    assert texts(within(alone(alice.run(task="go")))) == ["user: go", "alice: learned"]
    assert script.calls == 2
    assert done == []
    assert took(guard, alice) == [(Kind.ASK, True), (Kind.ROLL_BACK, True)]


def test_a_team_is_of_use_after_every_roll_back() -> None:
    """An agent that is stopped twice does not keep the others from their turns."""
    guard = guarding(BAD_CALL, {"roll_back": 2})
    script = Script(Say("turn 0"), bad(), bad("c"), LEARNED)
    team = guarded(RoundRobinGroupChat([agent("alice", script, acting([])), speaker("bob")], max_turns=4), guard)
    said = ["user: go", "alice: turn 0", "bob: bob speaks", "alice: learned", "bob: bob speaks"]
    assert texts(within(alone(team.run(task="go")))) == said
    assert took(guard, team) == [(Kind.ROLL_BACK, True), (Kind.ROLL_BACK, True)]


def test_no_run_is_taken_back_more_often_than_its_rung_says() -> None:
    """A model that never learns meets the next rung, here a halt; what is returned is what stands."""
    guard = guarding(BAD_CALL, {"roll_back": 2}, "halt")
    script = Script(Say("turn 0"), bad())
    team = guarded(RoundRobinGroupChat([agent("alice", script, acting([])), speaker("bob")], max_turns=9), guard)

    async def main() -> None:
        result = await alone(team.run(task="go"))
        assert texts(result) == ["user: go", "alice: turn 0", "bob: bob speaks"]
        assert str(result.stop_reason).startswith("misstep ended this run")
        assert await told(team._participants[0]) == ["go", "turn 0", "bob speaks"]

    within(main())
    assert took(guard, team) == [(Kind.ROLL_BACK, True), (Kind.ROLL_BACK, True), (Kind.HALT, True)]


def test_a_call_that_is_made_again_after_a_roll_back_is_no_loop() -> None:
    """The agent does not know of the calls that were taken back, and may make them anew."""
    guard = Guard(rule(LOOP, {"roll_back": 1}, "halt"), strict=True)
    script = Script(*again(3), *[Ask("act", {"q": "x"}, id=f"d{number}") for number in range(2)], Say("learned"))
    done: list[str] = []
    alice = guarded(agent("alice", script, acting(done)), guard)
    assert texts(within(alice.run(task="go")))[-1] == "alice: learned"
    assert len(done) == 4
    assert took(guard, alice) == [(Kind.ROLL_BACK, True)]


def test_nothing_is_saved_where_no_rule_takes_runs_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saving states costs something, so only a policy that asks for it pays."""
    saved: list[int] = []
    original = RoundRobinGroupChat.save_state

    async def counting(self: Any) -> Mapping[str, Any]:
        saved.append(1)
        return await original(self)

    monkeypatch.setattr(RoundRobinGroupChat, "save_state", counting)
    for rung, states in (({"refuse": 1}, 0), ({"roll_back": 1}, 4)):
        saved.clear()
        team = RoundRobinGroupChat([speaker("alice"), speaker("bob")], max_turns=4)
        within(guarded(team, guarding(BAD_CALL, rung)).run(task="go"))
        assert len(saved) == states


# -- our own code crashes


def crash(*args: Any, **kwargs: Any) -> Any:
    """A bug in the adapter."""
    raise KeyError("a bug in the adapter")


def lenient(found: Any, *ladder: Any, closed: bool = False, **fields: Any) -> Guard:
    """As users have it: failures of ours are reported, and go no further."""
    return Guard(rule(LOOP, *ladder, closed=closed), detectors=[found], **fields)


@pytest.mark.parametrize(
    ("where", "found", "rung", "last"),
    [
        ("model.AutoGenModelSeat.rewrite", finds(ModelResponded, bad_reply, rewrite="kind"), "rewrite", "bad words"),
        ("model.AutoGenModelSeat.leave", BAD_REPLY, TO_BOB, "bad words"),
        ("model.AutoGenModelSeat.leave", BAD_REPLY, {"roll_back": 1}, "bad words"),
        ("live.Live.go_back", BAD_REPLY, {"roll_back": 1}, "bad words"),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "tokens"])
def test_a_model_seat_that_crashes(
    where: str, found: Any, rung: Any, last: str, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host gets the reply it would have got without us."""
    monkeypatch.setattr(f"misstep_autogen.{where}", crash)
    alice = agent("alice", Script(Say("bad words")), model_client_stream=stream)
    team = guarded(RoundRobinGroupChat([alice, speaker("bob")], max_turns=2), lenient(found, rung))
    assert texts(within(alone(team.run(task="go")))) == ["user: go", f"alice: {last}", "bob: bob speaks"]


@pytest.mark.parametrize("closed", [False, True], ids=["open", "closed"])
@pytest.mark.parametrize(
    ("method", "found", "rung", "executed"),
    [
        ("WorkbenchSeat.rewrite", finds(ToolReturned, lambda event: True, rewrite="masked"), "rewrite", True),
        ("WorkbenchSeat.object", finds(ToolReturned, lambda event: True), {"refuse": 9}, True),
        ("WorkbenchSeat.object", BAD_CALL, {"refuse": 9}, False),
        ("AutoGenToolSeat.request", finds(ToolRequested, bad_call, rewrite={"q": "good"}), "rewrite", False),
        ("AutoGenToolSeat.redirect", BAD_CALL, TO_BOB, False),
        ("AutoGenToolSeat.leave", BAD_CALL, TO_BOB, False),
    ],
)
def test_a_tool_seat_that_crashes(
    method: str, found: Any, rung: Any, executed: bool, closed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call is made as without us, once; fail-closed, one that was not made yet is refused. Nothing hangs."""
    monkeypatch.setattr(f"misstep_autogen.tool.{method}", crash)
    done: list[str] = []
    script = Script(bad(), Say("went on"))
    team = RoundRobinGroupChat([agent("alice", script, acting(done)), speaker("bob")], max_turns=2)
    result = within(alone(guarded(team, lenient(found, rung, closed=closed)).run(task="go")))
    assert texts(result)[-2:] == ["alice: went on", "bob: bob speaks"]
    assert done == (["bad"] if executed or not closed else [])


@pytest.mark.parametrize("method", ["redirect", "redirected", "rewrite", "object"])
def test_a_hand_off_seat_that_crashes(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hand-off is made as without us."""
    monkeypatch.setattr(f"misstep_autogen.tool.HandoffSeat.{method}", crash)
    returned = finds(ToolReturned, lambda event: True, rewrite="take over")
    found, rung = {"rewrite": (returned, "rewrite"), "object": (returned, {"refuse": 9})}.get(method, (HANDED, TO_BOB))
    team = guarded(Swarm(trio(TO_CAROL), max_turns=2), lenient(found, rung))
    result = within(alone(team.run(task="go")))
    assert texts(result)[-1] == ("bob: bob speaks" if method == "redirected" else "carol: carol speaks")


@pytest.mark.parametrize("where", ["private.participants", "private.settle", "private.circle_on", "live.Live.due"])
def test_a_reroute_that_crashes(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manager chooses as without us, and the receipt says that nobody else was given the turn."""
    members = [agent("alice", Script(Say("bad words"))), speaker("carol"), speaker("bob")]
    guard = lenient(BAD_REPLY, TO_BOB)
    team = guarded(RoundRobinGroupChat(members, max_turns=2), guard)
    monkeypatch.setattr(f"misstep_autogen.{where}", crash)
    assert texts(within(alone(team.run(task="go"))))[1:] == [f"alice: {LEFT}", "carol: carol speaks"]
    assert took(guard, team) == [(Kind.REROUTE, False)]


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("rollback.Snapshots.begin", "learned"),
        ("rollback.Snapshots.before_choice", "learned"),
        ("rollback.Snapshots.restore", "learned"),
        ("private.clear_contexts", "learned"),
        ("run.CheckpointRestored", "learned"),
        ("run.Lesson", "never told"),
    ],
)
@pytest.mark.parametrize("team", [False, True], ids=["agent", "team"])
def test_a_roll_back_that_crashes(where: str, says: str, team: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run goes on: from a state that could be loaded, else from where it stands, and with the lesson."""
    monkeypatch.setattr(f"misstep_autogen.{where}", crash)
    guard = lenient(BAD_CALL, {"roll_back": 1})
    alice = agent("alice", Script(bad(), LEARNED), acting([]))
    x: Any = RoundRobinGroupChat([alice], max_turns=1) if team else alice
    result = within(alone(guarded(x, guard).run(task="go")))
    assert texts(result) == ["user: go", f"alice: {says}"]


class Unloadable(Custom):
    """An agent whose state cannot be loaded."""

    async def load_state(self, state: Mapping[str, Any]) -> None:
        """Fail."""
        raise OSError("no such state")


def test_an_agent_whose_state_cannot_be_loaded() -> None:
    """The receipt says that nothing was taken back, and the run goes on with the lesson."""
    guard = lenient(BAD_CALL, {"roll_back": 1})
    members = [agent("alice", Script(bad(), LEARNED), acting([])), Unloadable("custom")]
    team = guarded(RoundRobinGroupChat(members, max_turns=2), guard)
    result = within(alone(team.run(task="go")))
    assert "alice: learned" in texts(result)
    assert took(guard, team) == [(Kind.ROLL_BACK, False)]


@pytest.mark.parametrize("crashing", ["HandoffRequested", "TurnEnded", "TurnStarted", "_with"])
def test_a_turn_that_crashes(crashing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn's end or beginning that we fail at is the host's own."""
    monkeypatch.setattr(f"misstep_autogen.turn.{crashing}", crash)
    found = finds(TurnEnded, lambda event: event.agent == "bob", rewrite="masked")
    team = guarded(swarm(Ask("transfer_to_bob", {}, id="h"), turns=2), lenient(found, "rewrite"))
    result = within(alone(team.run(task="go")))
    last = "bob: masked" if crashing in ("HandoffRequested", "TurnStarted") else "bob: bob speaks"
    assert texts(result)[-1] == last


def test_an_approver_that_raises_is_no_answer() -> None:
    """What a person's code raises is not raised into the agent."""
    guard = lenient(BAD_CALL, {"ask": {"timeout": 5}}, approver=crash)
    done: list[str] = []
    alice = guarded(agent("alice", Script(bad(), Say("went on")), acting(done)), guard)
    assert texts(within(alone(alice.run(task="go"))))[-1] == "alice: went on"
    assert done == []


def test_a_halt_beats_a_roll_back() -> None:
    """A run that was halted while it was being taken back stays halted, and the receipt says which was done."""
    both = AskAll((Ask("look", {"q": "x"}, id="l"), bad()))

    def look(q: str) -> str:
        """Look."""
        return "found"

    back = finds(ToolReturned, bad_result)
    guard = Guard(rule(LOOP, {"roll_back": 1}, "halt"), detectors=[back], strict=True)
    alice = guarded(agent("alice", Script(both, both, LEARNED), look, acting([])), guard)
    result = within(alone(alice.run(task="go")))
    assert isinstance(result, TaskResult)
    assert str(result.stop_reason).startswith("misstep ended this run")
    assert took(guard, alice) == [(Kind.ROLL_BACK, True), (Kind.HALT, True)]
