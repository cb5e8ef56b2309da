"""Support: which decisions can be enacted where an event is judged, and what a policy asks for beyond that."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from misstep.decisions import Kind
from misstep.detectors import Detector
from misstep.dispatch import subscription
from misstep.events import (
    Event,
    HandoffRequested,
    MessageSent,
    ModelFailed,
    ModelRequested,
    ModelResponded,
    ToolFailed,
    ToolRequested,
    ToolReturned,
    TurnEnded,
    TurnStarted,
)
from misstep.policy import EVERYTHING, Policy, Reach, Rung
from misstep.seats import Seat, Seats
from misstep.taxonomy import AnomalyType

_REPLY = frozenset({Kind.RETRY, Kind.REPROMPT, Kind.VOTE, Kind.FALLBACK, Kind.REWRITE, Kind.ASK, Kind.HALT})
_NOTICE = frozenset({Kind.REPROMPT})
_CALL = frozenset({Kind.REWRITE, Kind.REFUSE, Kind.ASK, Kind.REROUTE, Kind.HALT})
_RESULT = frozenset({Kind.REWRITE, Kind.REFUSE, Kind.ASK, Kind.RETRY, Kind.HALT})
_TURN = frozenset({Kind.REROUTE})
_RUN = frozenset({Kind.HALT, Kind.ROLL_BACK})
_END = frozenset({Kind.HALT})

_SEATS: Mapping[type[Event], Mapping[Seat, frozenset[Kind]]] = {
    ModelRequested: {Seat.MODEL: frozenset({Kind.REPROMPT, Kind.FALLBACK, Kind.HALT}), Seat.RUN: _END},
    ModelResponded: {Seat.MODEL: _REPLY, Seat.TURN: _TURN, Seat.RUN: _RUN},
    ModelFailed: {Seat.MODEL: frozenset({Kind.RETRY, Kind.FALLBACK, Kind.HALT}), Seat.RUN: _END},
    ToolRequested: {Seat.TOOL: _CALL, Seat.TURN: _TURN, Seat.RUN: _RUN},
    ToolReturned: {Seat.TOOL: _RESULT, Seat.MODEL: _NOTICE, Seat.RUN: _RUN},
    ToolFailed: {Seat.TOOL: _RESULT, Seat.MODEL: _NOTICE, Seat.RUN: _RUN},
    TurnStarted: {Seat.MODEL: _NOTICE, Seat.TURN: _TURN, Seat.RUN: _END},
    TurnEnded: {Seat.MODEL: _NOTICE, Seat.TURN: _TURN, Seat.MESSAGE: frozenset({Kind.REWRITE}), Seat.RUN: _END},
    MessageSent: {Seat.MODEL: _NOTICE, Seat.RUN: _END},
    HandoffRequested: {Seat.MODEL: _NOTICE, Seat.TURN: _TURN, Seat.RUN: _END},
}
"""What can still be done about what an event tells, by the seat that does it."""

_PROPOSAL = frozenset({Kind.RETRY, Kind.REPROMPT, Kind.VOTE, Kind.FALLBACK})
"""What can be done about a call beside that where its reply is at hand: the reply is thrown away."""

_ELSEWHERE: Mapping[Seat, frozenset[Kind]] = {Seat.RUN: _END}


@dataclass(frozen=True, slots=True)
class Means:
    """What an app gives the guard to act with: its models by name, whether there is anybody to ask."""

    models: Collection[str] = ()
    person: bool = False


def reach(
    event: type[Event],
    seats: Seats | None,
    means: Means,
    agents: Collection[str] | None = None,
    *,
    proposed: bool = False,
) -> Reach:
    """
    What can be enacted on an event; everything where nobody declared any seats.

    `proposed` where it is a call whose reply is at hand.
    """
    if seats is None:
        return EVERYTHING
    kinds = {kind for place, able in _SEATS.get(event, _ELSEWHERE).items() for kind in able & seats.kinds(place)}
    if proposed:
        kinds |= _PROPOSAL & seats.kinds(Seat.MODEL)
    if not (means.person or (seats.pauses and event is ToolRequested)):  # what was done would be done again
        kinds.discard(Kind.ASK)
    return Reach(frozenset(kinds), means.models, agents)


def gaps(
    policy: Policy,
    seats: Seats,
    means: Means,
    agents: Collection[str] | None = None,
    own: Iterable[Detector] = (),
) -> list[str]:
    """
    Each rung no seat of the adapter can enact: what, where, and what there is instead.

    `own` are detectors that take the places of the policy's.
    """
    missing: list[str] = []
    for type_, heard in _heard(policy, own):
        within = [reach(event, seats, means, agents, proposed=event is ToolRequested) for event in heard]
        for rung in policy.ladder(type_):
            if not any(each.has(rung) for each in within):
                missing.append(f"`{type_}` asks for {_why(rung, seats, agents, heard)}")
    return missing


def _why(rung: Rung, seats: Seats, agents: Collection[str] | None, heard: Collection[type[Event]]) -> str:
    """A rung that cannot be enacted, and what would have to be otherwise."""
    enacted: set[Kind] = set()
    places: set[Seat] = set()
    for event in heard:
        enacted |= reach(event, seats, Means(person=True), proposed=event is ToolRequested).kinds
        places |= {*_SEATS.get(event, _ELSEWHERE), *([Seat.MODEL] if event is ToolRequested else [])}
    if rung.kind is Kind.ASK and Kind.ASK in enacted:
        return "`ask`, but there is nobody to ask: give the guard an `approver`"
    if rung.kind is Kind.FALLBACK and Kind.FALLBACK in enacted:
        name = rung.to or "small"
        return f"`fallback`, but the guard has no model for it: `Guard(models={{{name!r}: ...}})`"
    if rung.kind is Kind.REROUTE and Kind.REROUTE in enacted:
        known = ", ".join(f"`{agent}`" for agent in agents or ()) or "none that is known"
        return f"`reroute` to {rung.to or 'another agent'}, but there is no such agent; there is: {known}"
    there = " and ".join(f"`{place}`" for place in sorted(places & set(seats.enacts))) or "no seat"
    instead = ", ".join(f"`{kind}`" for kind in sorted(enacted)) or "nothing: it can only watch"
    return f"`{rung.kind}`, which {there} of `{seats.adapter}` cannot enact; it can: {instead}"


def _heard(policy: Policy, own: Iterable[Detector]) -> Iterator[tuple[AnomalyType, tuple[type[Event], ...]]]:
    """What each rule listens to; the guard itself may fail at anything."""
    detectors = {detector.type: detector for detector, _ in policy.detectors()}
    detectors.update((detector.type, detector) for detector in own)
    for type_, detector in detectors.items():
        yield type_, subscription(detector)
    yield AnomalyType.GUARD_FAILURE, tuple(_SEATS)
