"""Verification of a LangGraph graph or LangChain agent: what it consists of, and every way of running it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, get_type_hints

from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import BaseTool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START
from langgraph.prebuilt import ToolNode
from langgraph.pregel import Pregel
from langgraph.store.memory import InMemoryStore
from pydantic import TypeAdapter
from pydantic.errors import PydanticUserError

from misstep.guard import Guard
from misstep.seats import WATCHING, Seat, Seats
from misstep.verification import Canary, Part, Standing, Way
from misstep.verification.arguments import arguments_for
from misstep_langgraph.callback import MisstepCallbackHandler
from misstep_langgraph.handoff import destination
from misstep_langgraph.middleware import MisstepMiddleware
from misstep_langgraph.run import seats_of
from misstep_langgraph.seats import ENFORCING_HANDLER, MIDDLEWARE
from misstep_langgraph.stubs import stubbed
from misstep_langgraph.walk import held, is_agent, own_body

_threads = itertools.count(1)

_STREAMED = ["values", "updates", "messages", "custom"]


def rehearse(app: Any, *, bodies: bool = False, inputs: Any = None) -> LangGraphRehearsal:
    """What is known of a graph. Raises TypeError for what is none."""
    if not isinstance(app, Pregel):
        raise TypeError(
            f"`{type(app).__name__}` is no compiled graph: verify what is invoked, such as `builder.compile()`"
        )
    return LangGraphRehearsal(app, bodies, inputs)


class LangGraphRehearsal:
    """A compiled graph, to be run with a canary; its bodies are its own nodes and the agents inside its tools."""

    def __init__(self, graph: Any, bodies: bool, inputs: Any) -> None:
        self._graph, self._bodies = graph, bodies
        self._attachments = dict(_attachments(graph))
        self.guard: Guard | None = next(iter(self._attachments), None)
        self.seats: Seats | None = self._attachments.get(self.guard) if self.guard is not None else None
        self._saves = isinstance(graph.checkpointer, BaseCheckpointSaver)
        self._inputs = inputs if inputs is not None else _inputs(graph)

    def parts(self) -> Iterator[Part]:
        """Tools of tool nodes, models of agents, and what the canary is kept from."""
        gated = self.seats is not None and self.seats is not MIDDLEWARE
        yield from _parts(self._graph, "", self._bodies, gated=gated, seen=set())

    @contextmanager
    def stubbed(self, canary: Canary) -> Iterator[None]:
        """While every class of chat models, tools and retrievers answers with a stub."""
        with stubbed(canary, _leads(self._graph, self._bodies)):
            yield

    def ways(self) -> Iterator[Way]:
        """Invoked, streamed, in batches, in a copy, in a thread, resumed, and halted; sync and async."""
        graph = self._graph if self._bodies else _without_bodies(self._graph)
        given = self._inputs
        fresh = {"checkpointer": InMemorySaver() if self._saves else graph.checkpointer}
        fresh["store"] = graph.store and InMemoryStore()
        app = graph.copy(fresh)
        several = [given, given]
        yield Way("invoke", lambda: app.invoke(given, _config()))
        yield Way("ainvoke", lambda: asyncio.run(app.ainvoke(given, _config())))
        yield Way("stream", lambda: list(app.stream(given, _config(), stream_mode=_STREAMED, subgraphs=True)))
        yield Way("astream", lambda: asyncio.run(_gathered(app.astream(given, _config(), stream_mode=_STREAMED))))
        yield Way("batch", lambda: app.batch(several, [_config(), _config()]))
        yield Way("abatch", lambda: asyncio.run(app.abatch(several, [_config(), _config()])))
        yield Way("with_config", lambda: app.with_config(tags=["misstep"]).invoke(given, _config()))
        yield Way("copy", lambda: app.copy({}).invoke(given, _config()))
        if self._saves:
            yield Way("resumed", lambda: _resumed(app, given))
        yield Way("halted", lambda: app.invoke(given, _config()), halts=True)


# -- what there is ----------------------------------------------------------------------------------------------------


def _attachments(graph: Any) -> Iterator[tuple[Guard, Seats]]:
    """Every guard a graph is attached to, the outermost first, and what that attachment can enact."""
    guard = getattr(graph, "misstep_guard", None)
    if guard is not None:
        yield guard, seats_of(graph)
    handlers = (graph.config or {}).get("callbacks") or ()
    for handler in getattr(handlers, "handlers", handlers):
        if isinstance(handler, MisstepCallbackHandler):
            yield handler.guard, ENFORCING_HANDLER if handler.enforcing else WATCHING
    for node in graph.nodes.values():
        for middleware in held(node.bound, MisstepMiddleware):
            yield middleware.guard, MIDDLEWARE


def _parts(graph: Any, path: str, bodies: bool, *, gated: bool, seen: set[int]) -> Iterator[Part]:
    """The parts of a graph and of those in it; `gated` where the gate reaches whatever is called in its runs."""
    if id(graph) in seen:
        return
    seen.add(id(graph))
    for name, node in graph.nodes.items():
        here = f"{path}{name}"
        if name == START:
            continue
        if own_body(graph, node) and not bodies:
            yield Part(Seat.MODEL, here, why="its body is the application's own code: run it with `bodies`")
        known = isinstance(node.bound, ToolNode) or is_agent(graph)  # what these hold are their tools
        for inner in () if known else held(node.bound, Pregel):
            yield from _parts(inner, f"{here}/", bodies, gated=gated, seen=seen)
        for tool in _tools(node.bound):
            yield from _inside(tool, f"{here}/{tool.name}", bodies, gated=gated, seen=seen)


def _inside(tool: Any, name: str, bodies: bool, *, gated: bool, seen: set[int]) -> Iterator[Part]:
    """The agents inside a tool, which are run only with its body."""
    for inner in held(tool, Pregel):
        if id(inner) in seen:
            continue
        seen.add(id(inner))
        guarded = gated or any(True for _ in _attachments(inner))
        if not guarded:
            why = "an agent inside a tool has a middleware of its own or none, and this one has none"
            yield Part(Seat.MODEL, name, Standing.NOT_IN_PATH, why)
        elif not bodies:
            yield Part(Seat.MODEL, name, why="an agent inside a tool: run the tool's body with `bodies`")


def _tools(bound: Any) -> Iterable[BaseTool]:
    return bound.tools_by_name.values() if isinstance(bound, ToolNode) else ()


def _leads(graph: Any, bodies: bool) -> dict[str, str]:
    """The tools by which the canary gets on: to the agents they hand over to, or that they are made of."""
    graphs = list(_graphs(graph, set()))
    agents = {name for each in graphs for name in each.nodes if name != START}
    found = {}
    for tool in (tool for each in graphs for node in each.nodes.values() for tool in _tools(node.bound)):
        to = destination(tool.name, tool.metadata, agents)
        inside = f"inside {tool.name}" if bodies and any(True for _ in held(tool, Pregel)) else None
        if to or inside:
            found[tool.name] = str(to or inside)
    return found


def _graphs(graph: Any, seen: set[int]) -> Iterator[Any]:
    if id(graph) not in seen:
        seen.add(id(graph))
        yield graph
        for node in graph.nodes.values():
            for inner in held(node.bound, Pregel):
                yield from _graphs(inner, seen)
            for tool in _tools(node.bound):
                for inner in held(tool, Pregel):
                    yield from _graphs(inner, seen)


# -- how it is run ----------------------------------------------------------------------------------------------------


def _inputs(graph: Any) -> Any:
    """A request, where the graph talks; else the smallest input its schema accepts."""
    if "messages" in graph.channels:
        return {"messages": [HumanMessage("a canary of misstep's verification")]}
    fields = get_type_hints(graph.builder.input_schema)
    return {name: arguments_for({"properties": {name: _schema(type_)}})[name] for name, type_ in fields.items()}


def _schema(type_: Any) -> dict[str, Any]:
    try:
        return TypeAdapter(type_).json_schema()
    except PydanticUserError:  # a type pydantic knows nothing of: anything may do
        return {}


def _config() -> Any:
    return {"configurable": {"thread_id": f"misstep-verify-{next(_threads)}"}, "recursion_limit": 200}


async def _gathered(stream: Any) -> list[Any]:
    return [chunk async for chunk in stream]


def _resumed(app: Any, given: Any) -> list[Any]:
    """Stopped before every step, and resumed until there is none."""
    config = _config()
    got = [app.invoke(given, config, interrupt_before="*")]
    for _ in range(200):
        if not app.get_state(config).next:
            break
        got.append(app.invoke(None, config, interrupt_before="*"))
    return got


def _without_bodies(graph: Any) -> Any:
    """The graph with those nodes passed over whose bodies are the application's own; all others are the real ones."""
    changed = {}
    for name, node in graph.nodes.items():
        if name == START:
            continue
        if isinstance(node.bound, Pregel):
            inner = _without_bodies(node.bound)
            if inner is not node.bound:
                changed[name] = node.copy({"bound": inner})
        elif own_body(graph, node):
            changed[name] = node.copy({"bound": RunnableLambda(lambda _: None)})
    return graph.copy({"nodes": {**graph.nodes, **changed}}) if changed else graph
