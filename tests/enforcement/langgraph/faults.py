"""Faults of the guard's own: the host gets its result, and what is fail-closed stays closed."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langgraph.checkpoint.memory import InMemorySaver

from misstep import Anomaly, AnomalyType, AttachError, Guard, Policy, Rule, Rung
from misstep.events import ToolRequested
from misstep.run import Run
from misstep.testing import Say, Script
from misstep_langgraph import guarded
from misstep_langgraph.model import GateModelSeat, MiddlewareModelSeat
from misstep_langgraph.tool import LangChainToolSeat
from tests.conformance.decisions import bad_call, finds, guarding
from tests.conformance.host import World
from tests.conformance.scenarios import DeadSink
from tests.enforcement.langgraph.apps import (
    BOTH,
    TASK,
    acting,
    bad,
    builder,
    by_guarded,
    calls,
    failing_closed,
    good,
    logged,
    only_good,
    refusing,
    texts,
    thread,
)
from tests.enforcement.langgraph.paths import LANGGRAPH

BAD_CALL = finds(ToolRequested, bad_call)


def broken(*args: Any, **kwargs: Any) -> Any:
    """Crash."""
    raise RuntimeError("a bug of our own")


def crashing(target: Any, name: str, run: Callable[[], object]) -> list[str]:
    """Run with one function of ours crashing; what was logged."""
    with pytest.MonkeyPatch.context() as patch, logged() as said:
        patch.setattr(target, name, broken)
        run()
    return said


def unchecked(app: Any) -> None:
    """The run comes to its end, and nothing was done in it."""
    for result in (app.invoke(TASK), asyncio.run(app.ainvoke(TASK))):
        assert texts(result)[-1] == "all done"
        assert any("it could not be checked" in text for text in texts(result))


@LANGGRAPH.holds("the guard crashes in the model seat")
def in_the_model_seat() -> None:
    """A reply that nobody judged has its calls judged where they are made."""
    for attach, seat in zip(BOTH, (GateModelSeat, MiddlewareModelSeat), strict=True):
        world = World()
        app = attach(calls(), acting(world), failing_closed(BAD_CALL, {"refuse": 9}))
        said = crashing(seat, "reply", lambda app=app: app.invoke(TASK))  # type: ignore[misc]
        assert world.done == ["good"], attach
        assert any("failed in a seat" in each for each in said), attach


@LANGGRAPH.holds("the guard crashes in the tool seat")
def in_the_tool_seat() -> None:
    """What a fail-closed guard could not check is not done; without such a rule the host gets what it would have."""
    for attach in BOTH:
        world = World()
        app = attach(calls(), acting(world), failing_closed(BAD_CALL, {"refuse": 9}))
        crashing(LangChainToolSeat, "requested", lambda app=app: unchecked(app))  # type: ignore[misc]
        assert world.done == [], attach

        open_ = refusing()
        open_.strict = False
        app = attach(calls(), acting(world), open_)
        said = crashing(LangChainToolSeat, "requested", lambda app=app: app.invoke(TASK))  # type: ignore[misc]
        assert world.done == ["bad", "good"], attach
        assert any("failed in a seat" in each for each in said), attach


@LANGGRAPH.holds("the guard crashes in the run seat")
def in_the_run_seat() -> None:
    """A run that could not be opened comes to its end, and a fail-closed guard lets nothing be done in it."""
    for attach in BOTH:
        world = World()
        app = attach(calls(), acting(world), failing_closed(BAD_CALL, {"refuse": 9}))
        crashing(Guard, "open", lambda app=app: unchecked(app))  # type: ignore[misc]
        assert world.done == [], attach


@LANGGRAPH.holds("the guard crashes in the turn seat")
def in_the_turn_seat() -> None:
    """A turn that could not be given to another agent goes on without the call it was to cost."""
    for rung, function in (
        ({"reroute": {"to": "bob", "limit": 1}}, "rerouted"),
        ({"roll_back": 1}, "rolled_back"),
    ):
        world = World()
        graph = builder(calls(), acting(world))
        graph.add_node("bob", lambda state: {})
        app = guarded(graph, failing_closed(BAD_CALL, rung, {"refuse": 9}), checkpointer=InMemorySaver())
        results: list[Any] = []
        crashing(
            sys.modules["misstep_langgraph.run"],
            function,
            lambda app=app, results=results: results.append(app.invoke(TASK, thread())),  # type: ignore[misc]
        )
        assert world.done == ["good"], function
        assert texts(results[0])[-1] == "all done", function


LANGGRAPH.lacks(
    "the guard crashes in the message seat",
    why="agents of a graph send each other no messages: they share a state, and hand over by calls",
)


@LANGGRAPH.holds("the guard crashes in a callback")
def in_a_callback() -> None:
    """Callbacks only watch: with all of them crashing the bad call is not made."""

    def runs() -> None:
        only_good(lambda app: app.invoke(TASK), [_lenient])
        only_good(lambda app: asyncio.run(app.ainvoke(TASK)), [_lenient])

    said = crashing(sys.modules["misstep_langgraph.watcher"], "place", runs)
    assert any("failed in a callback" in each for each in said)


def _lenient(script: Script, tools: Any, guard: Guard) -> Any:
    guard.strict = False
    return by_guarded(script, tools, guard)


class Slow:
    """A rule that takes its time."""

    type = AnomalyType.REPEATED_CALL

    def __call__(self, event: ToolRequested, run: Run) -> Anomaly | None:
        """Judge one call."""
        time.sleep(0.002)
        return BAD_CALL(event, run)  # type: ignore[no-any-return]


@LANGGRAPH.holds("a slow rule")
def slowly() -> None:
    """A fail-closed rule is waited for, call after call; one that is open is quarantined, and the report says so."""
    for attach in BOTH:
        world = World()
        script = Script(*(bad(f"c{number}") for number in range(6)), good(), Say("done"))
        attach(script, acting(world), failing_closed(Slow(), {"refuse": 99}, budget=0.001)).invoke(TASK)
        assert world.done == ["good"], attach

        guard = guarding(Slow(), {"refuse": 99}, budget=0.001)
        attach(Script(*(bad(f"c{number}") for number in range(6)), Say("done")), acting(world), guard).invoke(TASK)
        assert "slower than" in str(guard.report().quarantined), attach


@LANGGRAPH.holds("a sink that is down")
def no_sink() -> None:
    """What is told to nobody is refused all the same."""
    only_good(lambda app: app.invoke(TASK), [_unheard(attach) for attach in BOTH])


def _unheard(attach: Any) -> Any:
    return lambda script, tools, _: attach(script, tools, refusing(sink=DeadSink()))


class Loud(BaseCallbackHandler):
    """A callback of the application's own that raises wherever it is called."""

    def __init__(self, *, raise_error: bool = False) -> None:
        self.raise_error = raise_error

    def on_tool_start(self, *args: Any, **kwargs: Any) -> None:
        """Crash."""
        broken()

    on_chat_model_start = on_llm_end = on_tool_end = on_chain_start = on_tool_start


class AsyncLoud(AsyncCallbackHandler):
    """The same in async code."""

    raise_error = True

    async def on_tool_start(self, *args: Any, **kwargs: Any) -> None:
        """Crash."""
        broken()


@LANGGRAPH.holds("a callback that raises", "an async handler under sync code")
def loud_callbacks() -> None:
    """What callbacks raise, swallowed or not, changes nothing in what is refused."""
    for handler in (Loud(), AsyncLoud()):
        config: Any = {"callbacks": [handler]}
        only_good(lambda app, config=config: app.invoke(TASK, config))  # type: ignore[misc]
    only_good(lambda app: asyncio.run(app.ainvoke(TASK, {"callbacks": [Loud()]})))
    only_good(lambda app: asyncio.run(app.ainvoke(TASK, {"callbacks": [AsyncLoud()]})))
    for attach in BOTH:
        world = World()
        app = attach(calls(), acting(world), refusing())
        with pytest.raises(RuntimeError, match="a bug of our own"):
            app.invoke(TASK, {"callbacks": [Loud(raise_error=True)]})
        app.invoke(TASK)
        assert "bad" not in world.done, attach


@LANGGRAPH.holds("a policy the seats cannot enact")
def too_much() -> None:
    """It is refused when the guard is attached; told to degrade, the next rung stands in, and holds."""
    rungs: tuple[Any, ...] = ({"roll_back": 1}, {"refuse": 9})
    for attach in BOTH:
        with pytest.raises(AttachError, match="roll_back"):
            attach(calls(), [], guarding(BAD_CALL, *rungs))
        world = World()
        rules = {AnomalyType.REPEATED_CALL: Rule(ladder=tuple(map(Rung.model_validate, rungs)))}
        guard = Guard(Policy(unsupported="degrade", rules=rules), detectors=[BAD_CALL], strict=True)
        attach(calls(), acting(world), guard).invoke(TASK)
        assert world.done == ["good"], attach
        assert "roll_back" in str(guard.report().unsupported), attach
