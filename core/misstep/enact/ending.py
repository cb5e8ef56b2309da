"""What ends a loop early: a halt, a way elsewhere, a decision that comes too late."""

from __future__ import annotations

from typing import Any

from misstep.decisions import Halt, Reprompt, Reroute, RollBack
from misstep.enact.seats import ModelSeat, ToolSeat
from misstep.errors import Halted
from misstep.guard import Guard
from misstep.session import Session, Verdict

AnySeat = ModelSeat[Any, Any] | ToolSeat[Any, Any]


def stopped(guard: Guard, seat: AnySeat, reason: str, *verdicts: Verdict) -> Any:
    """End here; the receipts are written once that has worked."""
    signal: Halted | None = None
    answer: Any = None
    try:
        answer = seat.stop(reason)
    except Halted as raised:
        signal = raised
    for verdict in verdicts:
        guard.settle(seat.session, verdict, took_effect=True)
    if signal is not None:
        raise signal
    return answer


def leave(seat: AnySeat, verdict: Verdict) -> Any:
    """Leave it to the turn or the run seat where the run goes on; that one writes the receipt."""
    assert isinstance(verdict.decision, Reroute | RollBack)
    with seat.session.run.lock:
        seat.session.put_off(verdict)
    return seat.leave(verdict.decision)


def past(guard: Guard, session: Session, verdict: Verdict, why: str, instance: str | None = None) -> None:
    """
    What was decided where no seat acts on it.

    But a halt is met again at the next seat, and a reprompt, where the `instance` is known, is kept for its next
    model call.
    """
    if isinstance(verdict.decision, Reprompt) and instance is not None:
        with session.run.lock:
            session.notify(instance, verdict)
    elif not isinstance(verdict.decision, Halt):
        guard.settle(session, verdict, took_effect=False, detail=why)
