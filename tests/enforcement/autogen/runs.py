"""Every way of running an agent or a team."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from autogen_agentchat.messages import TextMessage
from autogen_agentchat.ui import Console
from autogen_core import CancellationToken

from misstep.testing import Say
from tests.conformance.decisions import BAD
from tests.conformance.host import World
from tests.enforcement.autogen.listed import AUTOGEN
from tests.enforcement.autogen.parts import (
    COURSE,
    Keep,
    acts,
    agent,
    alone,
    bare,
    halting,
    held,
    keeping,
    read,
    refused,
    refusing,
    talker,
    told,
    within,
)


def task() -> list[TextMessage]:
    """A task, as AutoGen's agents are given it."""
    return [TextMessage(content="go", source="user")]


@AUTOGEN.holds("agent.run")
def run() -> None:
    """A lone agent that is run."""

    async def go(world: World, keep: Keep) -> Any:
        return await keep(agent("alice", world)).run(task="go")

    held(go)


@AUTOGEN.holds("agent.run_stream")
def run_stream() -> None:
    """A lone agent whose run is streamed."""

    async def go(world: World, keep: Keep) -> Any:
        return await read(keep(agent("alice", world)).run_stream(task="go"))

    held(go)


@AUTOGEN.holds("agent.on_messages")
def on_messages() -> None:
    """A lone agent that is given a turn."""

    async def go(world: World, keep: Keep) -> Any:
        return await keep(agent("alice", world)).on_messages(task(), CancellationToken())

    held(go)


@AUTOGEN.holds("agent.on_messages_stream")
def on_messages_stream() -> None:
    """A lone agent that is given a turn, streamed."""

    async def go(world: World, keep: Keep) -> Any:
        return await read(keep(agent("alice", world)).on_messages_stream(task(), CancellationToken()))

    held(go)


@AUTOGEN.holds("team.run", "a round-robin team")
def team_run() -> None:
    """A team that goes round; after a halt the next agent has no turn."""

    async def go(world: World, keep: Keep) -> Any:
        members = agent("alice", world), agent("bob", world, *acts("by bob"), Say("bob is done"))
        return await keep(alone(*members)).run(task="go")

    held(go)


@AUTOGEN.holds("team.run_stream")
def team_run_stream() -> None:
    """A team whose run is streamed."""

    async def go(world: World, keep: Keep) -> Any:
        return await read(keep(alone(agent("alice", world))).run_stream(task="go"))

    held(go)


@AUTOGEN.holds("a team read by Console")
def console() -> None:
    """AutoGen's own reader gets the result of a refused and of a halted run."""

    async def go(world: World, keep: Keep) -> Any:
        result = await Console(keep(alone(agent("alice", world))).run_stream(task="go"))
        assert told(result)[0] == "user: go"

    held(go)


@AUTOGEN.holds("a task of several messages")
def several_messages() -> None:
    """A task that is a list, to a team and to an agent."""

    async def go(world: World, keep: Keep) -> Any:
        given = [*task(), TextMessage(content="and be quick", source="user")]
        await keep(alone(agent("alice", world))).run(task=given)

    async def lone(world: World, keep: Keep) -> Any:
        await keep(agent("alice", world)).run(task=[*task(), TextMessage(content="be quick", source="user")])

    held(go)
    held(lone)


@AUTOGEN.holds("a run without a task")
def no_task() -> None:
    """A team that goes on from where it stopped."""

    async def go(world: World, keep: Keep) -> Any:
        team = keep(alone(talker("bob"), agent("alice", world), turns=1))
        await team.run(task="go")
        await team.run()

    held(go)


@AUTOGEN.holds("a team run twice")
def twice() -> None:
    """The second run is judged as the first one was, and by itself; a halt in the first does not end the second."""

    async def go(world: World, keep: Keep) -> Any:
        team = keep(alone(agent("alice", world, *acts("one", BAD), Say("done"), *acts("two", BAD), Say("done"))))
        return [told(await team.run(task=each)) for each in ("go", "again")]

    refused(go)
    guard, world = halting(), World()
    within(go(world, keeping(guard)))
    assert world.done == ["one"], "the halted run's script is gone on with in the second"
    assert [run.status for run in guard.report().runs] == ["halted", "completed"]


@AUTOGEN.holds("a team reset between runs")
def reset() -> None:
    """After a reset the team is guarded as before."""

    async def go(world: World, keep: Keep) -> Any:
        team = keep(alone(agent("alice", world, Say("warm"), *COURSE)))
        await team.run(task="warm up")
        await team.reset()
        await team.run(task="go")

    refused(go)


@AUTOGEN.holds("a team paused and resumed")
def paused() -> None:
    """Pausing and resuming in mid-run lets nothing past."""

    async def go(world: World, keep: Keep) -> Any:
        team = keep(alone(talker("bob"), agent("alice", world)))
        running = asyncio.ensure_future(team.run(task="go"))
        while not team._initialized:
            await asyncio.sleep(0)
        await team.pause()
        await team.resume()
        await running

    held(go)


@AUTOGEN.holds("a team that is running already")
def running_already() -> None:
    """AutoGen's own refusal of the second run passes unchanged, and the first one stays guarded."""

    async def go(world: World, keep: Keep) -> Any:
        team = keep(alone(agent("alice", world)))
        first = asyncio.ensure_future(team.run(task="go"))
        await asyncio.sleep(0)
        with pytest.raises(ValueError, match="already running"):
            await team.run(task="at the same time")
        await first

    held(go)


@AUTOGEN.holds("a reader that leaves the stream")
def left() -> None:
    """Who leaves a stream before the bad call does not set it free, nor what the team does next."""

    async def go(world: World, keep: Keep) -> Any:
        team = keep(alone(talker("bob"), agent("alice", world)))
        stream = team.run_stream(task="go")
        async for _ in stream:
            break
        await stream.aclose()
        await team.run(task="again")

    guard = refusing()
    free, world = bare(go), World()
    within(go(world, keeping(guard)))
    assert BAD not in world.done
    assert set(world.done) == set(free.done) - {BAD}
    assert guard.report().runs[0].status == "interrupted"


@AUTOGEN.holds("a token cancelled before the run")
def cancelled_before() -> None:
    """Such a run ends at once, in no tool; the next one is guarded."""

    async def go(world: World, keep: Keep) -> Any:
        team = keep(alone(agent("alice", world)))
        token = CancellationToken()
        token.cancel()
        try:
            await team.run(task="go", cancellation_token=token)
        except asyncio.CancelledError:
            assert world.done == []
        await team.run(task="again")

    refused(go)


@AUTOGEN.holds("a run that leaves out the task's messages")
def task_left_out() -> None:
    """A run whose result leaves the task out."""

    async def go(world: World, keep: Keep) -> Any:
        x = keep(alone(agent("alice", world)))
        result = await x.run(task="go", output_task_messages=False)
        assert not any(text.startswith("user:") for text in told(result))

    held(go)


@AUTOGEN.holds("a team that tells its own events")
def team_events() -> None:
    """A team whose manager tells whom it gives the turn to."""

    async def go(world: World, keep: Keep) -> Any:
        result = await keep(alone(agent("alice", world), emit_team_events=True)).run(task="go")
        return [type(message).__name__ for message in result.messages]

    held(go)
