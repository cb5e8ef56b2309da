"""Whether a model call is being judged right now, so that a seat further in lets it through: one call, one verdict."""

from __future__ import annotations

import contextvars
from collections.abc import Iterator
from contextlib import contextmanager

from misstep.guard import Guard

_guards: contextvars.ContextVar[frozenset[int]] = contextvars.ContextVar("misstep_crewai_in_hand", default=frozenset())


@contextmanager
def in_hand(guard: Guard) -> Iterator[None]:
    """While the model seat has a call in hand."""
    token = _guards.set(_guards.get() | {id(guard)})
    try:
        yield
    finally:
        _guards.reset(token)


@contextmanager
def let_go(guard: Guard) -> Iterator[None]:
    """While a function runs that the model was given: what is asked of models in there are calls of their own."""
    token = _guards.set(_guards.get() - {id(guard)})
    try:
        yield
    finally:
        _guards.reset(token)


def has_in_hand(guard: Guard) -> bool:
    """Whether a seat of that guard further out has the call in hand: a model's own retry, a router's inner model."""
    return id(guard) in _guards.get()
