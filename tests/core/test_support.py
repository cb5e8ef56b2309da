"""Support: what can be done about an event, and what of a policy cannot."""

from __future__ import annotations

from typing import Any

import pytest

from misstep import AttachError, Guard
from misstep.decisions import Kind
from misstep.events import Event, MessageSent, ModelRequested, ModelResponded, ToolRequested, ToolReturned, TurnEnded
from misstep.policy import Reach, Rung
from misstep.seats import Seat, Seats
from misstep.support import Means, reach
from tests.core.scenes import EMPTY, EVERYTHING, LOOP, finds, policy

ALL = Means(models=("small",), person=True)


@pytest.mark.parametrize(
    ("event", "proposed", "possible"),
    [
        (ModelRequested, False, "reprompt fallback halt"),
        (ModelResponded, False, "rewrite retry reprompt vote fallback ask reroute roll_back halt"),
        (ToolRequested, False, "rewrite refuse ask reroute roll_back halt"),
        (ToolRequested, True, "rewrite refuse ask reroute roll_back halt retry reprompt vote fallback"),
        (ToolReturned, False, "rewrite refuse ask retry reprompt roll_back halt"),
        (TurnEnded, False, "rewrite reprompt reroute halt"),
        (MessageSent, False, "reprompt halt"),
    ],
)
def test_what_can_be_done_about_an_event(event: type[Event], proposed: bool, possible: str) -> None:
    """Each event can be answered by what the seats after it can still do, and by nothing else."""
    assert reach(event, EVERYTHING, ALL, proposed=proposed).kinds == set(possible.split())


def test_a_seat_does_only_what_it_declares() -> None:
    """What can be done about an event is limited to what its seats declare."""
    seats = Seats("some", {Seat.TOOL: {Kind.REFUSE: "", Kind.RETRY: ""}, Seat.RUN: {Kind.HALT: ""}})
    assert reach(ToolRequested, seats, ALL, proposed=True).kinds == {Kind.REFUSE, Kind.HALT}
    assert reach(ToolReturned, seats, ALL).kinds == {Kind.REFUSE, Kind.RETRY, Kind.HALT}


def test_somebody_must_be_there_to_be_asked() -> None:
    """A person can be asked where the guard has an approver, or where the framework pauses by itself."""
    pausing = Seats("pausing", {Seat.TOOL: {Kind.ASK: ""}}, pauses=True)
    assert Kind.ASK not in reach(ToolRequested, EVERYTHING, Means()).kinds
    assert Kind.ASK in reach(ToolRequested, EVERYTHING, Means(person=True)).kinds
    assert Kind.ASK in reach(ToolRequested, pausing, Means()).kinds
    assert Kind.ASK not in reach(ToolReturned, pausing, Means()).kinds, "what was done would be done again"


@pytest.mark.parametrize(
    ("rung", "agent", "target"),
    [
        ({"reroute": {"to": "bob", "limit": 1}}, "ann", "bob"),
        ({"reroute": {"to": "bob", "limit": 1}}, "bob", None),
        ({"reroute": {"to": "zoe", "limit": 1}}, "ann", None),
        ({"reroute": 1}, "bob", "cid"),
        ({"reroute": 1}, "cid", "ann"),
        ({"reroute": 1}, "a stranger", "ann"),
        ({"fallback": 1}, "ann", "small"),
        ({"fallback": {"to": "large", "limit": 1}}, "ann", "large"),
        ({"fallback": {"to": "huge", "limit": 1}}, "ann", None),
    ],
)
def test_to_whom(rung: Any, agent: str, target: str | None) -> None:
    """A reroute goes to whom it names, else to the next agent after this one; a fallback to a model there is."""
    kinds = frozenset(Kind)
    within = Reach(kinds, models=("small", "large"), agents=("ann", "bob", "cid"))
    assert within.target(Rung.model_validate(rung), agent) == target
    assert within.has(Rung.model_validate(rung), agent) is (target is not None)


@pytest.mark.parametrize(
    ("ladder", "gap"),
    [
        ([{"ask": {}}], "`repeated_call` asks for `ask`, but there is nobody to ask: give the guard an `approver`"),
        (
            [{"fallback": {"to": "huge", "limit": 1}}],
            "`repeated_call` asks for `fallback`, but the guard has no model for it: `Guard(models={'huge': ...})`",
        ),
        (
            [{"reroute": {"to": "zoe", "limit": 1}}],
            "`repeated_call` asks for `reroute` to zoe, but there is no such agent; there is: `ann`, `bob`",
        ),
    ],
)
def test_what_is_missing_is_told_at_attach_time(ladder: list[Any], gap: str) -> None:
    """A policy that names a model, an agent or a person that is not there is refused, with what to do about it."""
    with pytest.raises(AttachError) as caught:
        Guard(policy({LOOP: ladder})).attach(EVERYTHING, agents=("ann", "bob"))
    assert caught.value.gaps == (gap,)


def test_what_is_there_is_no_gap() -> None:
    """With the model, the agent and the person there, the same policy is attached."""
    ladder = [{"ask": {}}, {"fallback": {"to": "huge", "limit": 1}}, {"reroute": {"to": "bob", "limit": 1}}]
    guard = Guard(policy({LOOP: ladder, EMPTY: [{"fallback": 1}]}), models={"huge": 1}, approver=lambda asked: None)  # type: ignore[arg-type,return-value]
    guard.attach(EVERYTHING, agents=("ann", "bob"))
    assert guard.report().unsupported == ()


def test_seats_without() -> None:
    """An adapter can take back what it cannot do on one app; the rest stays, and so do the originals."""
    fewer = EVERYTHING.without(Kind.ROLL_BACK, Kind.REROUTE)
    assert fewer.kinds(*Seat) == set(Kind) - {Kind.ROLL_BACK, Kind.REROUTE}
    assert Kind.ROLL_BACK in EVERYTHING.kinds(Seat.RUN)


def test_a_users_own_detector_is_what_counts() -> None:
    """A rung is held against what the guard's own detector for its type listens to, not the built-in one's."""
    on_results = finds(LOOP, ToolReturned)
    Guard(policy({LOOP: [{"retry": 1}]}), detectors=[on_results]).attach(EVERYTHING)
    with pytest.raises(AttachError, match="asks for `vote`"):
        Guard(policy({LOOP: [{"vote": 1}]}), detectors=[on_results]).attach(EVERYTHING)
