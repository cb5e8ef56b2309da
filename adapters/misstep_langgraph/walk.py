"""What a runnable holds without being run: agents, middlewares and code of the application's own."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from typing import Any, TypeVar

from langchain_core.runnables import Runnable, RunnableSerializable
from langchain_core.tools import BaseTool
from langgraph.prebuilt import ToolNode
from langgraph.pregel import Pregel

from misstep_langgraph.private import function_of

T = TypeVar("T")

_DEEP = 12

_AGENTS = ("langchain.agents.factory", "langgraph.prebuilt.chat_agent_executor")
"""The modules whose nodes make a graph an agent: what else is in it are its middlewares and hooks."""


def held(thing: Any, kind: type[T]) -> Iterator[T]:
    """
    Everything of that kind that a runnable, function or tool holds: as an attribute, in a closure or as a global.

    What is in a thing of that kind is not looked for.
    """
    yield from _held(thing, kind, {}, _DEEP)


def own_body(graph: Any, node: Any) -> bool:
    """Whether a node's body is code of the application's own; an agent's middlewares are its framework's to call."""
    if is_agent(graph) or isinstance(node.bound, Pregel | ToolNode):
        return False
    return any(not _of_framework(function) for function in _functions(node.bound))


def is_agent(graph: Any) -> bool:
    """Whether a graph was made by `create_agent` or `create_react_agent`."""
    return any(function.__module__ in _AGENTS for node in graph.nodes.values() for function in _functions(node.bound))


def _functions(bound: Any) -> Iterator[Any]:
    """The functions a runnable consists of."""
    for name in ("func", "afunc"):
        function = getattr(bound, name, None)
        if inspect.isroutine(function) or isinstance(function, functools.partial):
            yield inspect.unwrap(getattr(function, "func", function))
    for part in (*getattr(bound, "steps", ()), getattr(bound, "bound", None)):
        if isinstance(part, Runnable):
            yield from _functions(part)


def _of_framework(function: Any) -> bool:
    return str(function.__module__).partition(".")[0].startswith(("langchain", "langgraph"))


def _held(thing: Any, kind: type[T], seen: dict[int, Any], depth: int) -> Iterator[T]:
    if id(thing) in seen or not depth:
        return
    seen[id(thing)] = thing  # kept, so that no other thing gets its id
    if isinstance(thing, kind):
        yield thing
        return
    for part in _parts(thing):
        yield from _held(part, kind, seen, depth - 1)


def _parts(thing: Any) -> Iterator[Any]:
    match thing:
        case list() | tuple() | set():
            yield from thing
        case dict():
            yield from thing.values()
        case functools.partial():
            yield from (thing.func, thing.args, thing.keywords)
        case Pregel():
            yield from (node.bound for node in thing.nodes.values())
        case BaseTool():
            yield from (getattr(thing, "func", None), getattr(thing, "coroutine", None), function_of(thing))
            yield [value for value in vars(thing).values() if isinstance(value, Runnable)]
        case RunnableSerializable():
            yield from vars(thing).values()
        case _ if inspect.ismethod(thing):
            yield from (thing.__self__, thing.__func__)
        case _ if inspect.isfunction(thing):
            yield from _reached(thing)
        case Runnable():
            yield from vars(thing).values()
        case _ if type(thing).__module__.partition(".")[0] not in ("builtins", "pydantic"):
            yield [value for value in getattr(thing, "__dict__", {}).values() if isinstance(value, Runnable)]


def _reached(function: Any) -> Iterator[Any]:
    """What a function can get at: what it closes over, and, of an application's own, the globals it names."""
    yield from (cell.cell_contents for cell in function.__closure__ or () if _filled(cell))
    yield from (function.__defaults__, getattr(function, "__wrapped__", None))
    if not _of_framework(function):
        named = (function.__globals__.get(name) for name in function.__code__.co_names)
        yield from (value for value in named if isinstance(value, Runnable) or _neighbour(value, function))


def _neighbour(value: Any, function: Any) -> bool:
    return inspect.isfunction(value) and value.__module__ == function.__module__


def _filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # not assigned yet
        return False
