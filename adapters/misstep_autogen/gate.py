"""
Agents and teams no walk finds, such as one a tool makes: where they are run within a guarded run, they belong to it.

The classes' own entrances are wrapped for as long as anything is guarded. They act only at a place in a guarded run,
on an object that has no patch yet; it is let go once no run of that guarded object goes on any more.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import threading
import weakref
from collections.abc import Callable
from typing import Any

from autogen_agentchat.agents import (
    AssistantAgent,
    BaseChatAgent,
    CodeExecutorAgent,
    MessageFilterAgent,
    SocietyOfMindAgent,
    UserProxyAgent,
)
from autogen_agentchat.teams import BaseGroupChat
from autogen_core.tools import FunctionTool

from misstep_autogen import private
from misstep_autogen.live import Root, shielded
from misstep_autogen.patch import patch_of
from misstep_autogen.place import here, joined

_ENTRANCES = ("run", "run_stream", "on_messages", "on_messages_stream")

_CLASSES = (
    BaseChatAgent,
    AssistantAgent,
    CodeExecutorAgent,
    MessageFilterAgent,
    SocietyOfMindAgent,
    UserProxyAgent,
    BaseGroupChat,
)

_roots: weakref.WeakSet[Root] = weakref.WeakSet()
_originals: dict[tuple[type, str], tuple[Any, Any]] = {}
_lock = threading.Lock()


def open_for(root: Root) -> None:
    """Wrap the classes' entrances, unless they are."""
    with _lock:
        _roots.add(root)
        for cls in _CLASSES if not _originals else ():
            for name in _ENTRANCES:
                if name in vars(cls):
                    _put(cls, name, _entrance(name, vars(cls)[name]))
        if (FunctionTool, "run") not in _originals:
            _put(FunctionTool, "run", _in_context(FunctionTool.run))


def close_for(root: Root) -> None:
    """Take the wrappers away once nothing is guarded; what somebody else has put over them since is left alone."""
    with _lock:
        _roots.discard(root)
        if _roots:
            return
        for (cls, name), (original, ours) in _originals.items():
            if vars(cls).get(name) is ours:
                setattr(cls, name, original)
        _originals.clear()


def _put(cls: type, name: str, ours: Any) -> None:
    _originals[cls, name] = vars(cls)[name], ours
    setattr(cls, name, ours)


def _entrance(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    """An entrance that has its object patched first, where it is entered from a guarded run."""

    def begin(self: Any, args: Any, kwargs: Any) -> Any:
        return (getattr(self, name) if _taken_in(self) else functools.partial(original, self))(*args, **kwargs)

    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def entered(self: Any, *args: Any, **kwargs: Any) -> Any:
            return await begin(self, args, kwargs)

        return entered

    @functools.wraps(original)
    def streamed(self: Any, *args: Any, **kwargs: Any) -> Any:
        return begin(self, args, kwargs)

    return streamed


def _taken_in(target: Any) -> bool:
    """Whether an object has just been patched, since it is run within a run that does not hold it."""
    place = here()
    if place is None or place.live.over or patch_of(target) is not None:
        return False
    root = place.live.root
    with shielded(root.guard, f"taking `{target.name}` into a run"):
        root.take_in(target, joined(place.instance, target.name))
    return patch_of(target) is not None


def _in_context(original: Callable[..., Any]) -> Callable[..., Any]:
    """A tool's run whose thread, where it has one, is at the same place; AutoGen's threads know no context."""

    @functools.wraps(original)
    async def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        inside = self if here() is None else private.in_context(self, contextvars.copy_context())
        return await original(inside, *args, **kwargs)

    return run
