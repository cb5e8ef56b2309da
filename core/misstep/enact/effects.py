"""Effects: what the loop asks of whoever drives it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias

from misstep import feedback
from misstep.approval import Answer, Question
from misstep.enact.seats import Request


@dataclass(frozen=True, slots=True)
class Call(Generic[Request]):
    """Hand this request to the framework's own handler; an async one has `deadline` seconds, if any are set."""

    request: Request
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class Consult:
    """Ask a person, by the guard's approver."""

    question: Question


@dataclass(frozen=True, slots=True)
class Store:
    """Do a piece of work that writes to the disk; async code has it done on a thread."""

    work: Callable[[], Any]


Effect: TypeAlias = Call[Any] | Consult | Store

Steps: TypeAlias = Generator[Effect, Any, Any]


NOT_EXECUTED = "[misstep] This call was not executed."
"""How the objection to a call that a person rejects begins."""


def rejection(text: str, answer: Answer) -> str:
    """What an agent is told instead of what a person rejected; `text` is how the objection begins."""
    why = feedback.rejected(answer.comment) if answer.given else "A person was asked about this and did not answer."
    return f"{text} {why}"
