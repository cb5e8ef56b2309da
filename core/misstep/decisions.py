"""What the guard decides: a closed union, from letting pass to ending the run."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Literal, TypeAlias

Default = Literal["approve", "reject"]
"""What stands where a person who was asked does not answer."""


class Kind(StrEnum):
    """The eleven decisions, weakest first: of several on one event, the strongest wins."""

    ALLOW = "allow"
    REWRITE = "rewrite"
    REPROMPT = "reprompt"
    RETRY = "retry"
    VOTE = "vote"
    FALLBACK = "fallback"
    REROUTE = "reroute"
    ASK = "ask"
    REFUSE = "refuse"
    ROLL_BACK = "roll_back"
    HALT = "halt"

    @property
    def strength(self) -> int:
        """0 (allow) to 10 (halt)."""
        return _STRENGTH[self]


_STRENGTH = {kind: rank for rank, kind in enumerate(Kind)}


@dataclass(frozen=True, slots=True)
class Allow:
    """Let it pass."""

    kind: ClassVar[Kind] = Kind.ALLOW


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Pass something else on: arguments (a mapping), a result or a message (a text)."""

    content: Any
    kind: ClassVar[Kind] = Kind.REWRITE


@dataclass(frozen=True, slots=True)
class Refuse:
    """Do not execute this call; the agent reads `objection` in place of a result and goes on."""

    objection: str
    kind: ClassVar[Kind] = Kind.REFUSE


@dataclass(frozen=True, slots=True)
class Retry:
    """Throw the model's reply away and sample again with the same input."""

    kind: ClassVar[Kind] = Kind.RETRY


@dataclass(frozen=True, slots=True)
class Reprompt:
    """Throw the model's reply away and ask again with `feedback` appended; the history stays clean of both."""

    feedback: str
    kind: ClassVar[Kind] = Kind.REPROMPT


@dataclass(frozen=True, slots=True)
class Reroute:
    """Give the turn to another agent."""

    agent: str
    kind: ClassVar[Kind] = Kind.REROUTE


@dataclass(frozen=True, slots=True)
class Fallback:
    """Ask another model, named as the policy names it."""

    model: str
    kind: ClassVar[Kind] = Kind.FALLBACK


@dataclass(frozen=True, slots=True)
class Vote:
    """Sample `samples` replies and pass the one most agree on."""

    samples: int = 3
    kind: ClassVar[Kind] = Kind.VOTE


@dataclass(frozen=True, slots=True)
class Ask:
    """A person approves, edits or rejects; after `timeout` seconds `default` stands."""

    question: str
    timeout: float = 300.0
    default: Default = "reject"
    kind: ClassVar[Kind] = Kind.ASK


@dataclass(frozen=True, slots=True)
class RollBack:
    """Go back to the state before `step` and go on with `lesson`."""

    step: int | None
    lesson: str
    kind: ClassVar[Kind] = Kind.ROLL_BACK


@dataclass(frozen=True, slots=True)
class Halt:
    """End the run here and keep what was done."""

    reason: str
    kind: ClassVar[Kind] = Kind.HALT


Decision: TypeAlias = Allow | Rewrite | Refuse | Retry | Reprompt | Reroute | Fallback | Vote | Ask | RollBack | Halt

ALLOW = Allow()
