"""Seats: the five places of a run where an adapter can act, and what it can do at each, as data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from misstep.decisions import Kind


class Seat(StrEnum):
    """Where in a run the guard sits."""

    RUN = "run"
    TURN = "turn"
    MODEL = "model"
    TOOL = "tool"
    MESSAGE = "message"


@dataclass(frozen=True, slots=True)
class Seats:
    """
    What one adapter can enact: seat → decision → the condition under which it can, empty where there is none.

    A seat that is missing is not there at all; a seat with no decisions only watches. `pauses` where the framework
    can wait by itself for a person to say whether a call may be made; elsewhere the guard's approver is asked.
    """

    adapter: str
    enacts: Mapping[Seat, Mapping[Kind, str]] = field(default_factory=dict)
    pauses: bool = False

    def kinds(self, *seats: Seat) -> frozenset[Kind]:
        """The decisions any of those seats can enact."""
        return frozenset(kind for seat in seats for kind in self.enacts.get(seat, {}))

    def without(self, *kinds: Kind) -> Seats:
        """The same seats, but for what cannot be enacted on this app."""
        left = {
            seat: {kind: condition for kind, condition in held.items() if kind not in kinds}
            for seat, held in self.enacts.items()
        }
        return dataclasses.replace(self, enacts=left)

    @property
    def acts(self) -> bool:
        """Whether any seat can enact anything."""
        return any(self.enacts.values())


WATCHING = Seats("watching")
"""No seat can enact anything: every decision is hypothetical."""


def described(seats: Seats) -> str:
    """One line for a person: each seat with what it can enact."""
    parts = (f"{seat}: {', '.join(sorted(kinds)) or 'watches'}" for seat, kinds in seats.enacts.items())
    return "; ".join(parts) or "watches only"
