"""The runs going on in this context: what the seats of a guarded run share, and how a seat finds it."""

from __future__ import annotations

import contextvars
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from crewai.hooks import InterceptionPoint
from crewai.hooks.dispatch import get_scoped_hooks, scoped_hooks

import misstep
from misstep.conversation import digest
from misstep.guard import Guard
from misstep.session import Session
from misstep_crewai.place import Place
from misstep_crewai.proposals import Proposals

_lives: contextvars.ContextVar[tuple[Live, ...]] = contextvars.ContextVar("misstep_crewai_lives", default=())

_PLACES = 1024


class Live:
    """One run of a guarded crew while it is going on; threads and tasks CrewAI starts inherit it by their context."""

    def __init__(self, guard: Guard, session: Session) -> None:
        self.guard, self.session = guard, session
        self.proposals = Proposals()
        self.hooks: Mapping[InterceptionPoint, Callable[[Any], Any]] = {}
        self.crash: Exception | None = None
        """What a hook of ours raised last: CrewAI would swallow it."""
        self._places: OrderedDict[tuple[str, ...], Place] = OrderedDict()

    @contextmanager
    def entered(self) -> Iterator[None]:
        """While the run is going on here, and its hooks stand behind those in scope."""
        lives = _lives.get()
        token = _lives.set(lives if self in lives else (*lives, self))
        scope = {point: get_scoped_hooks(point) for point in InterceptionPoint}
        for point, hook in self.hooks.items():
            if hook not in scope[point]:
                scope[point].append(hook)
        try:
            with scoped_hooks(scope):
                yield
        finally:
            _lives.reset(token)

    def halted_by(self, error: BaseException | None) -> str | None:
        """Why the run was halted, if that ends it: by our signal, by its words in another exception, or swallowed."""
        reason = self.session.halted
        if reason is None or error is None or isinstance(error, misstep.Halted):
            return reason
        return reason if isinstance(error, Exception) and reason in str(error) else None

    def failed(self, error: Exception) -> None:
        """A hook of ours crashed."""
        self.crash = error
        self.guard.failed("a hook", error)

    def found(self, opening: tuple[str, ...], place: Place | None) -> Place:
        """
        Whose call it is: of the agent CrewAI names, else of the agent whose conversation begins alike.

        CrewAI names nobody when it asks for a last answer, nor in its own calls (summaries, conversions, memory).
        """
        if place is None:
            return self._places.get(opening) or Place("crew", f"crew/{digest(*opening)}", "agent")
        self._places[opening] = place
        if len(self._places) > _PLACES:
            self._places.popitem(last=False)
        return place


def lives() -> tuple[Live, ...]:
    """The runs going on in this context, the outermost first."""
    return _lives.get()


def live_of(guard: Guard) -> Live | None:
    """The run of that guard going on in this context."""
    return next((live for live in _lives.get() if live.guard is guard and not live.session.ended), None)
