"""Every way of running a graph: none goes round the guard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphRecursionError

from misstep.testing import Say, Script
from misstep_langgraph import guarded
from tests.conformance.host import World
from tests.enforcement.langgraph.apps import (
    BOTH,
    TASK,
    acting,
    bad,
    builder,
    calls,
    good,
    node,
    only_good,
    refusing,
    repeating,
    resampling,
    texts,
    thread,
)
from tests.enforcement.langgraph.paths import LANGGRAPH

STREAMS: list[Any] = ["values", "updates", "messages", "custom", "debug", "tasks", "checkpoints"]


@LANGGRAPH.holds("invoke", "ainvoke")
def plainly() -> None:
    """Neither makes the bad call."""
    only_good(lambda app: app.invoke(TASK))
    only_good(lambda app: asyncio.run(app.ainvoke(TASK)))


@LANGGRAPH.holds("batch and batch_as_completed", "abatch")
def several_inputs() -> None:
    """Of two inputs run side by side neither has its bad call made."""

    def runs(app: Any) -> Any:
        return app.batch([TASK, TASK]), list(app.batch_as_completed([TASK, TASK])), asyncio.run(app.abatch([TASK] * 2))

    for attach in BOTH:
        world = World()
        runs(attach(calls(), acting(world), refusing()))
        assert world.done == ["good"] * 6, attach


@LANGGRAPH.holds(*(f"stream {mode}" for mode in STREAMS), "several stream modes at once")
def streamed() -> None:
    """Whatever a stream shows, the bad call is not made on the way."""
    for mode in (*STREAMS, STREAMS):
        saver = {"checkpointer": InMemorySaver()}
        only_good(lambda app, mode=mode: list(app.stream(TASK, thread(), stream_mode=mode)), **saver)  # type: ignore[misc]


@LANGGRAPH.holds("astream in every mode")
def streamed_in_a_loop() -> None:
    """Nor in an event loop."""
    for mode in (*STREAMS, STREAMS):
        saver = {"checkpointer": InMemorySaver()}
        only_good(lambda app, mode=mode: asyncio.run(_all(app.astream(TASK, thread(), stream_mode=mode))), **saver)  # type: ignore[misc]


async def _all(stream: AsyncIterator[Any]) -> list[Any]:
    return [each async for each in stream]


@LANGGRAPH.holds("astream_events v2", "stream_events v3")
def as_events() -> None:
    """Event streams show no word of a rejected reply, and make no bad call."""
    only_good(lambda app: asyncio.run(_all(app.astream_events(TASK, version="v2"))))
    only_good(lambda app: list(app.stream_events(TASK, version="v3")))
    for attach in BOTH:
        app = attach(Script(Say("bad SECRET words"), Say("fine words")), [], resampling())
        assert "SECRET" not in str(asyncio.run(_all(app.astream_events(TASK, version="v2")))), attach
        app = attach(Script(Say("bad SECRET words"), Say("fine words")), [], resampling())
        shown = str(list(app.stream_events(TASK, version="v3")))
        assert "SECRET" not in shown, attach
        assert "fine words" in shown, attach


@LANGGRAPH.holds("a stream that is left half-way")
def left() -> None:
    """A caller that stops reading leaves no bad call behind it, and the next run is judged."""
    for attach in BOTH:
        world = World()
        app = attach(calls(), acting(world), refusing())
        for _ in app.stream(TASK, stream_mode="updates"):
            break
        assert world.done == [], attach
        app.invoke(TASK)
        assert world.done == ["good"], attach


@LANGGRAPH.holds("each durability")
def durable() -> None:
    """However checkpoints are kept, the bad call is not made."""
    for durability in ("sync", "async", "exit"):
        saver = {"checkpointer": InMemorySaver()}
        only_good(lambda app, kept=durability: app.invoke(TASK, thread(), durability=kept), **saver)  # type: ignore[misc]


@LANGGRAPH.holds("a graph in a chain")
def chained() -> None:
    """As a part of a chain the app is guarded as it is alone."""
    before, after = RunnableLambda(lambda task: task), RunnableLambda(texts)
    only_good(lambda app: (before | app | after).invoke(TASK))
    only_good(lambda app: asyncio.run((before | app | after).ainvoke(TASK)))


@LANGGRAPH.holds("a run from an earlier checkpoint")
def replayed() -> None:
    """Run again from where the bad call was proposed, it is refused again."""
    for attach in BOTH:
        world, config = World(), thread()
        app = attach(calls(), acting(world), refusing(), checkpointer=InMemorySaver())
        app.invoke(TASK, config)
        proposed = next(
            state
            for state in app.get_state_history(config)
            if state.next == ("tools",) and state.values["messages"][-1].tool_calls[0]["id"] == "a"
        )
        app.invoke(None, proposed.config)
        assert world.done == ["good"] * 2, attach


@LANGGRAPH.holds("static breakpoints")
def stopped_before() -> None:
    """A run that stops between proposal and call, and goes on, does not make the bad call."""

    def by_steps(app: Any) -> None:
        config, value = thread(), TASK
        for _ in range(4):
            app.invoke(value, config)
            value = None

    only_good(by_steps, checkpointer=InMemorySaver(), interrupt_before=["tools"])


@LANGGRAPH.holds("a recursion limit that is hit")
def cut_off() -> None:
    """A run that LangGraph cuts off made no bad call, and the next run makes none either."""
    for attach in BOTH:
        world = World()
        app = attach(repeating(bad("a"), bad("b"), bad("c"), good(), Say("done")), acting(world), refusing())
        with pytest.raises(GraphRecursionError):
            app.invoke(TASK, {"recursion_limit": 4})
        app.invoke(TASK)
        assert world.done == ["good"], attach


@LANGGRAPH.holds("ToolNode alone", "a reply no model gave")
def no_model() -> None:
    """Calls of a reply that a node, or the caller, made up are judged where they are made."""
    world = World()
    made_up = AIMessage("", tool_calls=[{"name": "act", "args": {"q": q}, "id": q} for q in ("bad", "good")])
    app = guarded(builder(Script(Say("done")), acting(world)), refusing())
    guarded_node = app.builder.nodes["tools"].runnable
    guarded(node(guarded_node), refusing()).invoke({"messages": [made_up]})
    app.invoke({"messages": [*TASK["messages"], made_up]})
    assert world.done == ["good"]
