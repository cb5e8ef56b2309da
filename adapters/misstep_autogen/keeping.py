"""The state of an app while it is verified: it is put back as if nothing had been run."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from autogen_agentchat.base import ChatAgent, Team, TerminationCondition
from autogen_core.memory import Memory
from autogen_core.model_context import ChatCompletionContext
from autogen_core.models import ChatCompletionClient
from pydantic import BaseModel

from misstep_autogen import private
from misstep_autogen.patch import Patch

_STATEFUL = (ChatAgent, Team, TerminationCondition, ChatCompletionContext, Patch)
_MODULES = ("autogen_agentchat", "autogen_core", "misstep_autogen")
_WAITING = (asyncio.Event, asyncio.Lock, asyncio.Queue, asyncio.Semaphore, asyncio.Condition)


class Kept:
    """
    What every object of an app has for attributes, and what its lists, sets and dictionaries hold.

    AutoGen's own states leave much of that out: a condition's count, the turn of a manager, agents in a runtime.
    """

    def __init__(self, app: Any) -> None:
        self._things = list(_within(app, set()))
        self._undo = [_undo(thing) for thing in self._things]

    def restore(self) -> None:
        """Put everything back in place."""
        for undo in self._undo:
            undo()

    def unbind(self) -> None:
        """Let queues and events that another event loop has used be used by a new one."""
        for thing in self._things:
            if _waits(thing):
                private.unbind(thing)


def _within(thing: Any, seen: set[int]) -> Iterator[Any]:
    """The object with all its own, depth first without recursion: a conversation may be long."""
    rest = [thing]
    while rest:
        thing = rest.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, dict):
            rest.extend(thing.values())
        elif isinstance(thing, list | set | deque | tuple):
            rest.extend(thing)
        elif _has_state(thing):
            rest.extend(vars(thing).values())
        else:
            continue
        if not isinstance(thing, tuple):
            yield thing


def _has_state(thing: Any) -> bool:
    cls = type(thing)
    if not hasattr(thing, "__dict__") or issubclass(cls, type | BaseModel | ChatCompletionClient | Memory):
        return False
    return issubclass(cls, _STATEFUL) or _waits(thing) or cls.__module__.partition(".")[0] in _MODULES


def _waits(thing: Any) -> bool:
    return isinstance(thing, _WAITING) or type(thing).__module__ == "autogen_core._queue"


def _undo(thing: Any) -> Callable[[], None]:
    if isinstance(thing, list):
        items = list(thing)
        return lambda: thing.__setitem__(slice(None), items)
    if isinstance(thing, dict | set):
        kept: Any = thing.copy()

        def refill() -> None:
            thing.clear()
            thing.update(kept)

        return refill
    if isinstance(thing, deque):
        queued = list(thing)

        def requeue() -> None:
            thing.clear()
            thing.extend(queued)

        return requeue
    attributes = dict(vars(thing))

    def reset() -> None:
        held = vars(thing)
        held.clear()
        held.update(attributes)

    return reset
