"""Where in a guarded run a call happens, and how what is called finds it."""

from __future__ import annotations

import contextvars
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from misstep_autogen.live import Live
    from misstep_autogen.turn import Turn

_here: contextvars.ContextVar[Place | None] = contextvars.ContextVar("misstep_autogen_place", default=None)

MODEL = "model"

Stream: TypeAlias = AsyncGenerator[Any, None]
"""What an agent, a team, a model or a workbench streams."""


@dataclass(frozen=True, slots=True)
class Place:
    """
    `agent` is a name for people; `instance` the path of teams and agents down to it; `scope` keeps its call ids apart.

    `owner` is the agent or team that was entered last, `turn` the agent's turn. `teller` is the agent in whose tool
    call this happens: what is told here as by the user is told by that agent. `minutes` is set where the model is
    shown what the framework wrote up for this one call, and not a conversation. `in_hand` is the call a seat further
    out has in hand: `MODEL`, or a tool call's key.
    """

    live: Live
    agent: str = ""
    instance: str = ""
    scope: str = ""
    owner: Any = None
    turn: Turn | None = None
    teller: str = ""
    minutes: bool = False
    in_hand: str = ""

    def within(self, name: str, owner: Any, *, minutes: bool = False) -> Place:
        """The place of an agent or team called from here."""
        path = joined(self.instance, name)
        return Place(self.live, name, path, path, owner, teller=self.teller, minutes=minutes)

    def holding(self, what: str) -> Place:
        """The same place, while a seat has a call in hand; what a tool calls, its agent calls."""
        if what == MODEL:
            return replace(self, in_hand=what)
        return replace(self, in_hand=what, owner=None, teller=self.agent)


def joined(path: str, name: str) -> str:
    """A path one step longer."""
    return f"{path}/{name}" if path else name


def here() -> Place | None:
    """The place of this call; None outside every guarded run."""
    return _here.get()


@contextmanager
def at(place: Place | None) -> Iterator[None]:
    """While something is called from a place; what runs on a runtime started meanwhile is called from there too."""
    token = _here.set(place)
    try:
        yield
    finally:
        _here.reset(token)


def streamed(place: Place | None, stream: AsyncIterable[Any]) -> Stream:
    """A stream made at a place: only its own code is there, not the code that reads it."""
    return within(lambda: at(place), stream)


async def within(entered: Callable[[], AbstractContextManager[None]], stream: AsyncIterable[Any]) -> Stream:
    """A stream whose own code is in a context, and not the code that reads it."""
    iterator = aiter(stream)
    try:
        while True:
            with entered():
                try:
                    item = await anext(iterator)
                except StopAsyncIteration:
                    return
            yield item
    finally:
        close = getattr(iterator, "aclose", None)
        if close is not None:
            with entered():
                await close()
