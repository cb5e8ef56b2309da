"""The ladder: from an anomaly to a decision, one rung after another, none more often than it may."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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
from misstep.events import Event, ModelResponded, ToolFailed, ToolRequested, ToolReturned
from misstep.policy.model import Policy, Rung
from misstep.policy.reach import Reach
from misstep.run import Run

_ELSEWHERE = frozenset({Kind.REROUTE, Kind.ROLL_BACK})
"""Who meets these may come back as another instance; so they are counted by the agent's name."""


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
        self._rungs = {type_: _named(policy.ladder(type_)) for type_ in policy.rules}
        self._order = {type_: place for place, type_ in enumerate(policy.rules)}

    def answer(self, anomaly: Anomaly, event: Event, run: Run, reach: Reach) -> Decision:
        """The decision on an event; `allow` where the ladder is empty, used up or out of every seat's reach."""
        uses = run.memory("ladder", Uses)
        batch = None if event.batch is None else f"{event.batch}|{event.attempt}"
        for name, rung in self._rungs.get(anomaly.type, ()):
            if not reach.has(rung, event.agent) or not _fits(rung, anomaly, event):
                continue
            who = event.agent if rung.kind in _ELSEWHERE else event.instance
            counters = {f"{who}|{anomaly.type.value}|{name}": rung.limit}
            if rung.per_run is not None:
                counters[f"|{anomaly.type.value}|{name}|run"] = rung.per_run
            if all(uses.may(key, limit, batch) for key, limit in counters.items()):
                for key in counters:
                    uses.add(key, batch)
                return _decision(rung, anomaly, event, run, reach)
        return ALLOW

    def precedence(self, anomaly: Anomaly, decision: Decision) -> tuple[int, int, int]:
        """Sorts several answers on one event, strongest last: by decision, then severity, then policy order."""
        return decision.kind.strength, anomaly.weight.rank, -self._order.get(anomaly.type, len(self._order))


def _named(ladder: Sequence[Rung]) -> list[tuple[str, Rung]]:
    """Each rung with a name that it keeps in a policy where others come or go: the how-manieth of its kind it is."""
    kinds = [rung.kind for rung in ladder]
    return [(f"{rung.kind}.{kinds[:place].count(rung.kind)}", rung) for place, rung in enumerate(ladder)]


def _fits(rung: Rung, anomaly: Anomaly, event: Event) -> bool:
    """Whether a rung says anything here: a rewrite needs something to pass on."""
    return rung.kind is not Kind.REWRITE or isinstance(
        anomaly.rewrite, Mapping if isinstance(event, ToolRequested) else str
    )


def _decision(rung: Rung, anomaly: Anomaly, event: Event, run: Run, reach: Reach) -> Decision:
    match rung.kind:
        case Kind.REFUSE:
            happened = isinstance(event, ToolReturned | ToolFailed)
            return Refuse((feedback.withheld if happened else feedback.objection)(anomaly, run))
        case Kind.RETRY:
            return Retry()
        case Kind.REPROMPT:
            thrown = isinstance(event, ModelResponded | ToolRequested)
            return Reprompt((feedback.reprompt if thrown else feedback.notice)(anomaly, run))
        case Kind.HALT:
            return Halt(feedback.halted(anomaly, run))
        case Kind.REWRITE:
            return Rewrite(anomaly.rewrite)
        case Kind.REROUTE:
            return Reroute(str(reach.target(rung, event.agent)))
        case Kind.FALLBACK:
            return Fallback(str(reach.target(rung, event.agent)))
        case Kind.VOTE:
            return Vote(**_options(rung, "samples"))
        case Kind.ASK:
            return asking(rung, anomaly)
        case Kind.ROLL_BACK:
            return RollBack(_misstep(anomaly, event, run), feedback.lesson(anomaly, run))
        case Kind.ALLOW:
            return ALLOW


def asking(rung: Rung, anomaly: Anomaly) -> Ask:
    """The question an `ask` rung has a person asked."""
    return Ask(feedback.question(anomaly), **_options(rung, "timeout", "default"))


def _options(rung: Rung, *names: str) -> dict[str, Any]:
    """What the rung says of these; of the rest the decision's own defaults hold."""
    return {name: getattr(rung, name) for name in names if getattr(rung, name) is not None}


def _misstep(anomaly: Anomaly, event: Event, run: Run) -> int | None:
    """The step to take back: the earliest the anomaly rests on that the same agent took, else the event's own."""
    found = (run.find(seq) for seq in anomaly.evidence)
    steps = [each.step for each in found if each is not None and each.instance == event.instance]
    return min((step for step in steps if step is not None), default=event.step)
