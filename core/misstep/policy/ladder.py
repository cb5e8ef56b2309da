"""The ladder: from an anomaly to a decision, one rung after another, none more often than it may."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, field

from misstep import feedback
from misstep.anomalies import Anomaly
from misstep.decisions import (
    ALLOW,
    Ask,
    Decision,
    Fallback,
    Halt,
    Kind,
    Refuse,
    Reprompt,
    Reroute,
    Retry,
    Rewrite,
    RollBack,
    Vote,
)
from misstep.events import Event
from misstep.policy.model import Policy, Rung
from misstep.run import Run


@dataclass(slots=True)
class Uses:
    """How often each rung was taken in one run, by (instance, type, rung), and in which batch last."""

    taken: OrderedDict[str, tuple[int, str | None]] = field(default_factory=OrderedDict)

    def may(self, key: str, limit: int | None, batch: str | None) -> bool:
        """Whether a rung is left; the calls of one batch are simultaneous, and take it together."""
        times, last = self.taken.get(key, (0, None))
        return limit is None or times < limit or (batch is not None and batch == last)

    def add(self, key: str, batch: str | None, keep: int = 4096) -> None:
        """Count one use; the counters used longest ago go beyond `keep`."""
        times, last = self.taken.pop(key, (0, None))
        self.taken[key] = (times if batch is not None and batch == last else times + 1, batch)
        if len(self.taken) > keep:
            self.taken.popitem(last=False)


class Ladder:
    """A policy at work: answers an anomaly with the first rung that is left and that a seat can enact."""

    def __init__(self, policy: Policy) -> None:
        self._rungs = {type_: policy.ladder(type_) for type_ in policy.rules}
        self._order = {type_: place for place, type_ in enumerate(policy.rules)}

    def answer(self, anomaly: Anomaly, event: Event, run: Run, enactable: Collection[Kind]) -> Decision:
        """The decision on an event; `allow` where the ladder is empty, used up or out of every seat's reach."""
        uses = run.memory("ladder", Uses)
        batch = None if event.batch is None else f"{event.batch}|{event.attempt}"
        for place, rung in enumerate(self._rungs.get(anomaly.type, ())):
            key = f"{event.instance}|{anomaly.type.value}|{place}"
            if rung.kind in enactable and uses.may(key, rung.limit, batch):
                uses.add(key, batch)
                return _decision(rung, anomaly, run)
        return ALLOW

    def precedence(self, anomaly: Anomaly, decision: Decision) -> tuple[int, int, int]:
        """Sorts several answers on one event, strongest last: by decision, then severity, then policy order."""
        return decision.kind.strength, anomaly.weight.rank, -self._order.get(anomaly.type, len(self._order))


def _decision(rung: Rung, anomaly: Anomaly, run: Run) -> Decision:
    match rung.kind:
        case Kind.REFUSE:
            return Refuse(feedback.objection(anomaly, run))
        case Kind.RETRY:
            return Retry()
        case Kind.REPROMPT:
            return Reprompt(feedback.reprompt(anomaly, run))
        case Kind.HALT:
            return Halt(feedback.halted(anomaly, run))
        case Kind.REWRITE:
            return Rewrite(None)
        case Kind.REROUTE:
            return Reroute("")
        case Kind.FALLBACK:
            return Fallback("")
        case Kind.VOTE:
            return Vote()
        case Kind.ASK:
            return Ask(feedback.advice(anomaly, run))
        case Kind.ROLL_BACK:
            return RollBack(None, feedback.advice(anomaly, run))
        case Kind.ALLOW:
            return ALLOW
