"""The paths every framework is held against: those the shared scenarios prove, and those of calls."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from misstep import AttachError, Guard, PolicyError
from misstep.events import ToolRequested
from misstep.testing import Say
from misstep_autogen import guarded, unguard
from misstep_autogen.patch import patch_of
from tests.conformance import decisions, scenarios
from tests.conformance.decisions import BAD, bad_call, finds, guarding
from tests.conformance.host import World
from tests.conformance.scenarios import Scenario
from tests.enforcement.autogen.listed import AUTOGEN
from tests.enforcement.autogen.parts import (
    BAD_CALL,
    HOST,
    Keep,
    act,
    acts,
    agent,
    alone,
    held,
    keeping,
    refused,
    refusing,
    tools_in,
    within,
)


def played(scenario: Scenario, *names: str) -> None:
    """These paths are proved by that scenario, whole and streamed."""

    @AUTOGEN.holds(*names)
    def proof() -> None:
        scenario(HOST, "async")
        scenario(HOST, "stream")

    proof.__doc__ = scenario.__doc__


played(scenarios.refuse, "a plain deny rule")
played(scenarios.rule_crash_closed, "a rule that raises and is fail-closed", "a check that crashes")
played(scenarios.sink_down, "a sink that is down")
played(scenarios.parallel_calls, "one bad call of several at once")
played(decisions.withhold_result, "an injected result")
played(decisions.ask_reject, "a person rejects")
played(decisions.ask_edit, "a person edits, then the run goes on")
played(decisions.ask_nobody_answers, "nobody answers")
played(scenarios.nested_halt, "a halt in a nested agent")
played(scenarios.nested_refuse, "a refusal in a nested agent")
played(scenarios.two_at_once, "many runs at once")
played(scenarios.reprompt, "a rejected reply in the conversation")
played(decisions.model_error, "a model that raises")

AUTOGEN.lacks(
    "a rejected call and a hook that runs it",
    "a hook that runs a call before it is asked about",
    why="no hook of AutoGen's runs a call: its interventions see messages between agents only",
)


@AUTOGEN.holds("sync without an event loop, and async")
def sync_and_async() -> None:
    """AutoGen is async; a loop of one's own and a loop that is running."""
    scenarios.refuse(HOST, "sync")
    scenarios.refuse(HOST, "async")


@AUTOGEN.holds("a tool that is not allowed", "allowed and denied tools in one app")
def not_allowed() -> None:
    """Of an app's tools only the allowed one has its effect."""
    world = World()
    guard = guarding(finds(ToolRequested, lambda event: event.tool != "act"), {"refuse": 9})
    steps = *acts("one"), act("x", "look"), act("x"), Say("end")
    within(guarded(agent("alice", world, *steps, tools=("act", "look")), guard).run(task="go"))
    assert world.done == ["one", "x"]


@AUTOGEN.holds("no tool calls at all")
def none_at_all() -> None:
    """No call is made."""
    world = World()
    guard = guarding(finds(ToolRequested, lambda event: True), {"refuse": 9})
    within(guarded(agent("alice", world), guard).run(task="go"))
    assert world.done == []


@AUTOGEN.holds("a policy's text in the place of its path")
def text_for_path() -> None:
    """It is refused at once."""
    with pytest.raises(PolicyError):
        Guard.from_file("version: 1\nrules:\n  repeated_call: {}\n")


@AUTOGEN.holds("nothing left behind once unguarded")
def unguarded() -> None:
    """No patch is left, and the bad call is made again."""
    world = World()
    team = unguard(guarded(alone(agent("alice", world)), refusing()))
    within(team.run(task="go"))
    assert BAD in world.done
    assert patch_of(team) is patch_of(team._participants[0]) is None


@AUTOGEN.holds("a tool added after attaching")
def tool_added() -> None:
    """One that is put into an agent's workbench later."""

    async def go(world: World, keep: Keep) -> Any:
        alice = agent("alice", world, tools=("look",))
        keep(alice)
        alice._workbench[0]._tools.extend(tools_in(world, "act"))  # type: ignore[attr-defined]
        await alice.run(task="go")

    held(go)


@AUTOGEN.holds("one tool object in two agents")
def one_tool() -> None:
    """One tool object at two agents of a team."""

    async def go(world: World, keep: Keep) -> Any:
        (tool,) = tools_in(world, "act")
        await keep(alone(*(agent(name, world, tools=[tool]) for name in ("alice", "bob")))).run(task="go")

    refused(go)


@AUTOGEN.holds("the approver raises")
def approver_raises() -> None:
    """A crash is no consent."""

    def person(question: Any) -> Any:
        raise OSError("nobody there")

    world, guard = World(), guarding(BAD_CALL, {"ask": {"timeout": 5}}, approver=person)
    within(guarded(agent("alice", world), guard).run(task="go"))
    assert world.done == ["first", "after"]


@AUTOGEN.holds("a run in a thread of its own")
def in_thread() -> None:
    """A team that is run in a loop on another thread."""

    async def go(world: World, keep: Keep) -> Any:
        team = keep(alone(agent("alice", world)))
        thread = threading.Thread(target=lambda: asyncio.run(team.run(task="go")))
        thread.start()
        thread.join(8)

    held(go)


@AUTOGEN.holds("a second guard on the same app")
def second_guard() -> None:
    """The second takes over."""
    world = World()
    alice = guarded(guarded(agent("alice", world), Guard(strict=True)), refusing())
    within(alice.run(task="go"))
    assert world.done == ["first", "after"]


@AUTOGEN.holds("guarding twice")
def guarding_twice() -> None:
    """A call is judged once."""

    async def go(world: World, keep: Keep) -> Any:
        await keep(keep(agent("alice", world))).run(task="go")

    assert [len(run.decisions) for run in refused(go)] == [1]


@AUTOGEN.holds("guard off, then on again")
def off_and_on() -> None:
    """Once it is on again the next run is judged."""
    world, guard = World(), refusing()

    async def main() -> None:
        alice = guarded(agent("alice", world, *acts(BAD), Say("one"), *acts(BAD), Say("two")), guard)
        guard.mode = "off"
        await alice.run(task="go")
        guard.mode = "enforce"
        await alice.run(task="go")

    within(main())
    assert world.done == [BAD]


@AUTOGEN.holds("a policy the seats cannot enact")
def not_enacted() -> None:
    """It is refused when it is attached."""
    guard = guarding(finds(ToolRequested, bad_call), {"reroute": {"to": "bob", "limit": 1}})
    with pytest.raises(AttachError, match="reroute"):
        keeping(guard)(agent("alice", World()))
