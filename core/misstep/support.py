"""Support: which decisions can be enacted where an event is judged, and what a policy asks for beyond that."""

from __future__ import annotations

from collections.abc import Iterator

from misstep.decisions import ENACTED, Kind
from misstep.dispatch import subscription
from misstep.events import (
    Event,
    HandoffRequested,
    MessageSent,
    ModelRequested,
    ModelResponded,
    ToolFailed,
    ToolRequested,
    ToolReturned,
    TurnEnded,
    TurnStarted,
)
from misstep.policy import Policy
from misstep.seats import Seat, Seats
from misstep.taxonomy import AnomalyType

_SEATS: dict[type[Event], tuple[Seat, ...]] = {
    ModelRequested: (Seat.MODEL, Seat.RUN),
    ModelResponded: (Seat.MODEL, Seat.RUN),
    ToolRequested: (Seat.TOOL, Seat.RUN),
    ToolReturned: (Seat.TOOL, Seat.RUN),
    ToolFailed: (Seat.TOOL, Seat.RUN),
    TurnStarted: (Seat.TURN, Seat.RUN),
    TurnEnded: (Seat.TURN, Seat.RUN),
    MessageSent: (Seat.MESSAGE, Seat.RUN),
    HandoffRequested: (Seat.MESSAGE, Seat.TURN, Seat.RUN),
}
"""The seats that can still act on what an event tells."""


def reach(event: type[Event], seats: Seats | None, *also: Seat) -> frozenset[Kind]:
    """The decisions that can be enacted on an event; all of this version's where nobody declared any seats."""
    if seats is None:
        return ENACTED
    return seats.kinds(*_SEATS.get(event, (Seat.RUN,)), *also)


def gaps(policy: Policy, seats: Seats) -> list[str]:
    """Each rung no seat of the adapter can enact: what, where, and what there is instead."""
    missing: list[str] = []
    for type_, places in _places(policy):
        possible = seats.kinds(*places)
        for rung in policy.ladder(type_):
            if rung.kind not in possible:
                there = " and ".join(f"`{place}`" for place in sorted(places & set(seats.enacts))) or "no seat"
                instead = ", ".join(f"`{kind}`" for kind in sorted(possible)) or "nothing: it can only watch"
                missing.append(
                    f"`{type_}` asks for `{rung.kind}`, which {there} of `{seats.adapter}` "
                    f"cannot enact; it can: {instead}"
                )
    return missing


def _places(policy: Policy) -> Iterator[tuple[AnomalyType, set[Seat]]]:
    """Where each rule can be acted on; where the guard itself fails, that is anywhere."""
    for detector, _ in policy.detectors():
        heard = subscription(detector)
        places = {place for event in heard for place in _SEATS.get(event, (Seat.RUN,))}
        yield detector.type, places | {Seat.MODEL} if ToolRequested in heard else places
    yield AnomalyType.GUARD_FAILURE, set(Seat)
