"""Every kind of team, and where a team's agents may be or come from."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from autogen_agentchat.teams import (
    DiGraphBuilder,
    GraphFlow,
    MagenticOneGroupChat,
    SelectorGroupChat,
    Swarm,
)
from autogen_agentchat.teams._group_chat._magentic_one._magentic_one_orchestrator import MagenticOneOrchestrator
from autogen_core import AgentId, FunctionCall, SingleThreadedAgentRuntime
from autogen_core.tool_agent import ToolAgent

from misstep import AttachError
from misstep.decisions import Kind
from misstep.events import ModelResponded, ToolRequested
from misstep.testing import Ask, Say, Script
from misstep_autogen import guarded
from tests.conformance.decisions import BAD, bad_call, bad_reply, finds, guarding
from tests.conformance.host import World
from tests.enforcement.autogen.listed import AUTOGEN
from tests.enforcement.autogen.parts import (
    Keep,
    Slow,
    acts,
    agent,
    alone,
    client_of,
    held,
    refused,
    refusing,
    talker,
    told,
    took,
    tools_in,
    within,
)

NO_CHOICE = finds(ModelResponded, bad_reply)
"""Finds fault with a model that chooses a speaker, or plans, in bad words."""


def trio(world: World) -> list[Any]:
    """Alice, who goes the usual course, between two who do something themselves."""
    bob = agent("bob", world, *acts("by bob"), Say("bob is done"))
    return [bob, agent("alice", world), agent("carol", world, *acts("by carol"), Say("carol is done"))]


def selecting(world: World, *choices: str, **options: Any) -> SelectorGroupChat:
    """A team whose model chooses these, one after the other."""
    client = client_of(*map(Say, choices))
    return SelectorGroupChat(trio(world), client, max_turns=len(choices), **options)


@AUTOGEN.holds("a selector's model")
def selector() -> None:
    """Whom the model gave the turn to is judged; what the model itself says is, too: a bad choice gives no turn."""

    async def go(world: World, keep: Keep) -> Any:
        await keep(selecting(world, "bob", "alice", "carol")).run(task="go")

    held(go)
    _bad_choice(streams=False)


@AUTOGEN.holds("a selector that streams")
def selector_streams() -> None:
    """The same where the choice is streamed."""

    async def go(world: World, keep: Keep) -> Any:
        await keep(selecting(world, "bob", "alice", "carol", model_client_streaming=True)).run(task="go")

    held(go)
    _bad_choice(streams=True)


def _bad_choice(*, streams: bool) -> None:
    """A choice that is found fault with ends the run before anybody has the turn it gives."""
    guard, world = guarding(NO_CHOICE, "halt"), World()
    team = selecting(world, "bob", "bad: alice", "carol", model_client_streaming=streams)
    within(guarded(team, guard).run(task="go"))
    assert world.done == ["by bob"]
    assert took(guard) == [(Kind.HALT, True)]


@AUTOGEN.holds("a selector function")
def selector_function() -> None:
    """A function of the application's chooses; no model is asked."""

    async def go(world: World, keep: Keep) -> Any:
        order = iter(("bob", "alice", "carol"))
        team = SelectorGroupChat(trio(world), client_of(), selector_func=lambda thread: next(order), max_turns=3)
        await keep(team).run(task="go")

    held(go)


@AUTOGEN.holds("a swarm")
def swarm() -> None:
    """The agent a turn is handed to is judged as the first one was."""

    async def go(world: World, keep: Keep) -> Any:
        first = agent("first", world, Ask("transfer_to_alice", id="h"), handoffs=["alice"])
        await keep(Swarm([first, agent("alice", world)], max_turns=2)).run(task="go")

    held(go)


def flow(*edges: tuple[Any, Any], **options: Any) -> GraphFlow:
    """A flow along these edges."""
    builder = DiGraphBuilder()
    for node in dict.fromkeys(node for edge in edges for node in edge):
        builder.add_node(node)
    for start, end in edges:
        builder.add_edge(start, end)
    return GraphFlow(builder.get_participants(), builder.build(), **options)


@AUTOGEN.holds("a graph's fan-out")
def fan_out() -> None:
    """Of agents at work at once only the bad call is refused; a halt in one of them lets none go on after it."""

    async def go(world: World, keep: Keep) -> Any:
        first, last = talker("first"), agent("last", world, *acts("at last"), Say("end"))
        alice, bob = agent("alice", world), agent("bob", world, Say("bob speaks"))
        await keep(flow((first, alice), (first, bob), (alice, last), (bob, last))).run(task="go")

    held(go)


@AUTOGEN.holds("a graph's loop")
def graph_loop() -> None:
    """An agent that has its turn again is judged again."""

    async def go(world: World, keep: Keep) -> Any:
        alice = agent("alice", world, *acts("first"), Say("again"), *acts(BAD), Say("enough"))
        first, bob = talker("first"), talker("bob", "go on", "stop")
        builder = DiGraphBuilder()
        builder.add_node(first).add_node(alice).add_node(bob)
        builder.add_edge(first, alice, activation_group="start")
        builder.add_edge(alice, bob, condition="again")
        builder.add_edge(bob, alice, condition="go on", activation_group="loop")
        builder.set_entry_point(first)
        end = agent("end", world, *acts("after"), Say("end"))
        builder.add_node(end).add_edge(alice, end, condition="enough")
        await keep(GraphFlow(builder.get_participants(), builder.build(), max_turns=9)).run(task="go")

    held(go)


@AUTOGEN.holds("a graph's condition")
def graph_condition() -> None:
    """Whichever way a function of the application's sends the flow, the agent there is judged."""

    async def go(world: World, keep: Keep) -> Any:
        first, alice, bob = talker("first"), agent("alice", world), agent("bob", world, Say("not me"))
        builder = DiGraphBuilder()
        builder.add_node(first).add_node(alice).add_node(bob)
        builder.add_edge(first, alice, condition=lambda message: "speaks" in message.to_text())
        builder.add_edge(first, bob, condition=lambda message: "speaks" not in message.to_text())
        await keep(GraphFlow(builder.get_participants(), builder.build())).run(task="go")

    held(go)


def ledger(done: bool, speaker: str = "alice") -> Say:
    """What MagenticOne's orchestrator says of how far it is."""
    answers = {
        "is_request_satisfied": done,
        "is_in_loop": False,
        "is_progress_being_made": True,
        "next_speaker": speaker,
        "instruction_or_question": "please act",
    }
    return Say(json.dumps({name: {"reason": "r", "answer": answer} for name, answer in answers.items()}))


def orchestrated(world: World, plan: str = "plan", *others: Any) -> MagenticOneGroupChat:
    """A team that is planned and orchestrated by a model."""
    client = client_of(Say("facts"), Say(plan), ledger(False), ledger(True), Say("the end"))
    return MagenticOneGroupChat([agent("alice", world), *others], client)


@AUTOGEN.holds("an orchestrator's model")
def orchestrator() -> None:
    """A plan that is found fault with is followed by nobody's turn."""
    guard, world = guarding(NO_CHOICE, "halt"), World()
    result = within(guarded(orchestrated(world, "bad plan"), guard).run(task="go"))
    assert world.done == []
    assert took(guard) == [(Kind.HALT, True)]
    assert "misstep" in str(result.stop_reason)


@AUTOGEN.holds("an agent of MagenticOne's")
def orchestrated_agent() -> None:
    """An agent that is given its turn by the orchestrator."""

    async def go(world: World, keep: Keep) -> Any:
        await keep(orchestrated(world)).run(task="go")

    held(go)


@AUTOGEN.declares(
    "a turn taken from an orchestrated agent",
    why="MagenticOne chooses inside one long step of its own, and leaves nothing to replace; a policy that asks for "
    "it is refused when it is attached",
)
def orchestrated_reroute() -> None:
    """AutoGen asks no `select_speaker` there, and `guarded` says so beforehand; the team stays as it was."""
    team = orchestrated(World(), "plan", talker("bob"))
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(MagenticOneOrchestrator, "select_speaker")
        patch.setattr(MagenticOneOrchestrator, "__abstractmethods__", frozenset())
        assert "the end" in told(within(team.run(task="go")))[-1]
    with pytest.raises(AttachError, match="reroute"):
        guarded(team, guarding(finds(ToolRequested, bad_call), {"reroute": {"to": "bob", "limit": 1}}))


@AUTOGEN.holds("a team in a team")
def nested() -> None:
    """An agent of a nested team; a halt in it ends the outer team's run."""

    async def go(world: World, keep: Keep) -> Any:
        inner = alone(alone(agent("alice", world), name="innermost"), name="inner")
        outer = alone(talker("first"), inner, agent("last", world, *acts("at last"), Say("end")))
        await keep(outer).run(task="go")

    held(go)


@AUTOGEN.holds("an agent in two teams at once")
def two_teams() -> None:
    """One agent at work in two teams at once is refused in both, and neither counts what the other does."""

    async def go(world: World, keep: Keep) -> Any:
        shared = agent("shared", world, client=Slow(Script(*acts("one", "two", BAD, BAD), Say("done"))))
        teams = [keep(alone(shared)) for _ in range(2)]
        await asyncio.gather(*(team.run(task="go") for team in teams))

    assert [len(run.decisions) for run in refused(go)] == [1, 1]


@AUTOGEN.holds("a participant swapped before the first run")
def swapped() -> None:
    """Who is there when the team first runs is guarded, whoever was there when it was attached."""

    async def go(world: World, keep: Keep) -> Any:
        members = [talker("alice"), talker("bob")]
        team = alone(*members)
        keep(team)
        team._participants[0] = agent("alice", world)
        await team.run(task="go")

    held(go)


@AUTOGEN.holds("a runtime started earlier")
def started_earlier() -> None:
    """A runtime that does not inherit the run's context."""

    async def go(world: World, keep: Keep) -> Any:
        runtime = SingleThreadedAgentRuntime()
        runtime.start()
        team = keep(alone(agent("alice", world), runtime=runtime))
        await team.run(task="go")
        await runtime.stop()

    held(go)


@AUTOGEN.holds("two teams on one runtime")
def one_runtime() -> None:
    """Teams of different agents, and of one agent, at once on a runtime that was started earlier."""

    async def go(world: World, keep: Keep) -> Any:
        runtime = SingleThreadedAgentRuntime()
        runtime.start()
        shared = agent("shared", world, *acts("one", "two"), *acts(BAD, BAD), Say("done"))
        teams = [keep(alone(shared, agent(f"other{n}", world), runtime=runtime)) for n in range(2)]
        await asyncio.gather(*(team.run(task="go") for team in teams))
        await runtime.stop()

    refused(go)


@AUTOGEN.declares(
    "an agent of the Core API",
    why="`guarded` is for AgentChat; a core agent has no seat that may refuse: what AutoGen's intervention raises or "
    "drops never comes to an end. `guarded` raises TypeError for one, and for a runtime",
)
def core_agent() -> None:
    """A ToolAgent makes the call whatever watches the runtime, and `guarded` takes neither it nor its runtime."""
    world, guard = World(), refusing()

    async def main() -> None:
        runtime = SingleThreadedAgentRuntime()
        await ToolAgent.register(runtime, "tools", lambda: ToolAgent("tools", tools_in(world, "act")))
        for x in (runtime, ToolAgent):
            with pytest.raises(TypeError, match="team or agent"):
                guarded(x, guard)
        runtime.start()
        call = FunctionCall(id="c", name="act", arguments=json.dumps({"q": BAD}))
        await runtime.send_message(call, AgentId("tools", "default"))
        await runtime.stop()

    within(main())
    assert world.done == [BAD]
