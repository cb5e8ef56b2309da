"""
Trial: what a policy would have done over saved traces, counted rule by rule and apart for solved and failed runs.

What is decided in a replay is hypothetical, and only a run's first decision is comparable with what happened: after
it the run would have gone on differently. A trial tells how often a rule speaks, never how often its remedy helps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from misstep.analysis import Analyzed
from misstep.decisions import Kind
from misstep.policy import Policy
from misstep.report import DecisionReport
from misstep.taxonomy import AnomalyType

SCHEMA = 1
"""The version of the JSON; fields are only added to it."""


class Group(StrEnum):
    """How a run turned out, by what its trace says."""

    SOLVED = "solved"
    FAILED = "failed"
    UNKNOWN = "unknown"


_GROUP = {"success": Group.SOLVED, "failure": Group.FAILED, None: Group.UNKNOWN}


@dataclass(slots=True)
class Counts:
    """What one rule did over the runs of a group; `firsts` are the decisions that were a run's first, by kind."""

    alarms: int = 0
    alarmed_runs: int = 0
    decisions: int = 0
    decided_runs: int = 0
    firsts: Counter[Kind] = field(default_factory=Counter)

    def record(self) -> dict[str, object]:
        """The JSON object."""
        return {
            "alarms": self.alarms,
            "alarmed_runs": self.alarmed_runs,
            "decisions": self.decisions,
            "decided_runs": self.decided_runs,
            "first_decisions": {kind.value: count for kind, count in sorted(self.firsts.items())},
        }


class Trial:
    """One policy over any number of runs; holds counts, and of each run nothing."""

    def __init__(self, name: str, policy: Policy) -> None:
        self.name, self.policy = name, policy
        self.runs: Counter[Group] = Counter()
        self.not_read = 0
        self.rules: dict[AnomalyType, dict[Group, Counts]] = {type_: _counts() for type_ in policy.rules}

    def add(self, found: Analyzed) -> None:
        """Count one run."""
        group = _GROUP[found.report.outcome]
        self.runs[group] += 1
        alarms = Counter(anomaly.type for anomaly in found.report.anomalies)
        decisions = Counter(decision.anomaly for decision in found.report.decisions)
        for type_, count in alarms.items():
            counts = self.rules.setdefault(type_, _counts())[group]
            counts.alarms += count
            counts.alarmed_runs += 1
            counts.decisions += decisions[type_]
            counts.decided_runs += bool(decisions[type_])
        first = first_of(found)
        if first is not None and first.anomaly is not None:
            self.rules[first.anomaly][group].firsts[first.kind] += 1

    def record(self) -> dict[str, object]:
        """The JSON object; only what it names `comparable` is comparable with what happened."""
        return {
            "policy": self.name,
            "comparable": ["first_decisions"],
            "runs": _by_group(self.runs),
            "rules": [
                {"rule": type_.value, **{group.value: counts.record() for group, counts in groups.items()}}
                for type_, groups in self.rules.items()
            ],
        }


@dataclass(slots=True)
class Comparison:
    """Two policies over the same runs; `differing` counts the runs whose first decision is not the same."""

    trial: Trial
    against: Trial
    differing: Counter[Group] = field(default_factory=Counter)

    def add(self, found: Analyzed, other: Analyzed) -> None:
        """Count one run under both."""
        self.trial.add(found)
        self.against.add(other)
        if _place(first_of(found)) != _place(first_of(other)):
            self.differing[_GROUP[found.report.outcome]] += 1

    def record(self) -> dict[str, object]:
        """The JSON object."""
        return {"against": self.against.record(), "differing_runs": _by_group(self.differing)}


def first_of(found: Analyzed) -> DecisionReport | None:
    """
    The first decision of a run: of several on one event, the one that wins.

    A replay carries none out, so that the losers are not marked as such in the report.
    """
    decisions = found.report.decisions
    if not decisions:
        return None
    step, agent = decisions[0].step, decisions[0].agent
    return max(
        (decision for decision in decisions if (decision.step, decision.agent) == (step, agent)),
        key=lambda decision: decision.kind.strength,
    )


def _place(decision: DecisionReport | None) -> tuple[object, ...]:
    return () if decision is None else (decision.step, decision.agent, decision.kind, decision.anomaly)


def _counts() -> dict[Group, Counts]:
    return {group: Counts() for group in Group}


def _by_group(counts: Mapping[Group, int]) -> dict[str, int]:
    return {group.value: counts.get(group, 0) for group in Group}
