"""The calls of a reply that no tool seat will meet: what was decided of them is carried out on the reply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from misstep.approval import question_of
from misstep.decisions import Ask, Refuse, Reroute, Rewrite
from misstep.enact.effects import NOT_EXECUTED, Consult, Steps, rejection
from misstep.enact.ending import leave
from misstep.enact.seats import ModelSeat
from misstep.events import ToolRequested, cancelled
from misstep.guard import Guard


def proposed_calls(guard: Guard, seat: ModelSeat[Any, Any], calls: Sequence[ToolRequested]) -> Steps:
    """
    What becomes of each call of a reply that was judged: by its id, the arguments it is made with instead of its own,
    or the objection in its place. What is not there stays as it is.
    """
    changed: dict[str, Mapping[str, Any] | str] = {}
    for call in calls:
        verdict = guard.verdict(call)
        decision = verdict.decision
        instead: Mapping[str, Any] | str | None = None
        detail = ""
        match decision:
            case Rewrite(arguments):
                instead = arguments
            case Refuse(objection):
                instead = objection
            case Ask():
                answer = yield Consult(question_of(decision, call))
                detail = answer.verdict
                if answer.verdict != "approve":
                    instead = answer.edited if answer.verdict == "edit" else rejection(NOT_EXECUTED, answer)
            case Reroute():
                return leave(seat, verdict)
            case _:
                continue
        if isinstance(instead, str):
            guard.observe(cancelled(call, "refused", instead))
        if instead is not None:
            changed[call.call or ""] = instead
        guard.settle(seat.session, verdict, took_effect=True, detail=detail)
    return changed
