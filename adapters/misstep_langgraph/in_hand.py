"""Which call is being judged right now, so that the seats further in let it through: one call, one verdict."""

from __future__ import annotations

import contextvars
from typing import Any

from misstep.guard import Guard
from misstep_langgraph.messages import call_key

_calls: contextvars.ContextVar[frozenset[tuple[int, str]]] = contextvars.ContextVar(
    "misstep_calls", default=frozenset()
)


class in_hand:  # noqa: N801 - used like a function; a class costs a third of a generator
    """While a seat has a call in hand; `what` is a model call's or a tool call's key."""

    __slots__ = ("_held", "_token")

    def __init__(self, guard: Guard, what: str) -> None:
        self._held = (id(guard), what)

    def __enter__(self) -> None:
        self._token = _calls.set(_calls.get() | {self._held})

    def __exit__(self, *error: object) -> None:
        _calls.reset(self._token)


def has_in_hand(guard: Guard, what: str) -> bool:
    """Whether a seat of that guard further out has the call in hand."""
    return (id(guard), what) in _calls.get()


def model_in_hand(scope: str) -> str:
    """A model call's key: a graph run inside it makes calls of its own, in another scope."""
    return f"model:{scope}"


def call_in_hand(scope: str, call_id: str | None, run_id: Any) -> str:
    """A tool call's key: its own id, else the id LangChain runs it under."""
    return f"tool:{call_key(scope, call_id) if call_id else run_id}"
