"""
Remedies: how often each took effect, whether the anomaly came back after it, and whether runs fare better with it.

A remedy is worth having where p · r > (1 - p) · d, that is p > d / (r + d): p is how often a run fails in which it is
called for, r how often it recovers such a run, d how often it disrupts one that would have succeeded (arXiv
2602.03338). The difference of the two sides is how many fewer runs fail with it than without it, which a random share
of enforced runs measures; r and d apart it only bounds. A run's first decision alone is compared: what comes after it
is no longer the same run.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal, Protocol, TypeAlias

from pydantic import BaseModel, ConfigDict

from misstep.decisions import Kind
from misstep.events import Outcome
from misstep.taxonomy import AnomalyType

LEAST = 10
"""With fewer finished runs in either arm nothing is said."""

_Z = 1.959964
"""The normal quantile of a 95 % interval."""

Key: TypeAlias = tuple[AnomalyType, Kind]
Verdict: TypeAlias = Literal["helps", "harms", "unclear"]


class Decided(Protocol):
    """What is read of a decision in a report."""

    @property
    def anomaly(self) -> AnomalyType | None: ...  # noqa: D102
    @property
    def kind(self) -> Kind: ...  # noqa: D102
    @property
    def hypothetical(self) -> bool: ...  # noqa: D102
    @property
    def took_effect(self) -> bool | None: ...  # noqa: D102
    @property
    def recurred(self) -> bool | None: ...  # noqa: D102


class Arm(BaseModel):
    """Runs of known outcome in which a remedy was the first that was called for, all treated alike."""

    model_config = ConfigDict(frozen=True)

    succeeded: int = 0
    failed: int = 0

    @property
    def runs(self) -> int:
        """How many."""
        return self.succeeded + self.failed

    @property
    def share(self) -> float:
        """The share that failed."""
        return self.failed / self.runs if self.runs else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """The share that fails, with 95 % confidence (Wilson 1927)."""
        n, p = self.runs, self.share
        if not n:
            return 0.0, 1.0
        middle = (p + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
        half = _Z / (1 + _Z**2 / n) * math.sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2))
        return max(0.0, middle - half), min(1.0, middle + half)


class RemedyReport(BaseModel):
    """
    One remedy for one type of anomaly, over all runs since the guard was made.

    `taken` counts the decisions that were carried out or should have been; of these `took_effect` and `without_effect`
    have a receipt, and after `recurred` of those the anomaly came back, after `held` it did not. `enforced` are the
    runs in which it was carried out, `watched` those in which it was only called for.
    """

    model_config = ConfigDict(frozen=True)

    anomaly: AnomalyType
    kind: Kind
    taken: int = 0
    took_effect: int = 0
    without_effect: int = 0
    recurred: int = 0
    held: int = 0
    enforced: Arm = Arm()
    watched: Arm = Arm()

    @property
    def estimated(self) -> bool:
        """Whether there are enough runs in both arms to compare them."""
        return min(self.enforced.runs, self.watched.runs) >= LEAST

    @property
    def saved(self) -> float:
        """How many fewer of all runs fail with it than without it: p · r - (1 - p) · d; below 0 it costs runs."""
        return self.watched.share - self.enforced.share

    @property
    def interval(self) -> tuple[float, float]:
        """`saved` with 95 % confidence (Newcombe 1998, method 10)."""
        p, (low, high) = self.watched.share, self.watched.interval
        q, (lower, higher) = self.enforced.share, self.enforced.interval
        return self.saved - math.hypot(p - low, higher - q), self.saved + math.hypot(high - p, q - lower)

    @property
    def recovery(self) -> tuple[float, float]:
        """The least and the most that r can be, given the shares that failed."""
        p, q = self.watched.share, self.enforced.share
        return (max(0.0, (p - q) / p), min(1.0, (1 - q) / p)) if p else (0.0, 1.0)

    @property
    def disruption(self) -> tuple[float, float]:
        """The least and the most that d can be, given the shares that failed."""
        p, q = self.watched.share, self.enforced.share
        return (max(0.0, (q - p) / (1 - p)), min(1.0, q / (1 - p))) if p < 1 else (0.0, 1.0)

    @property
    def verdict(self) -> Verdict:
        """Whether it saves runs or costs them, where the interval leaves no doubt."""
        low, high = self.interval
        if not self.estimated or low <= 0 <= high:
            return "unclear"
        return "helps" if low > 0 else "harms"

    def __str__(self) -> str:
        low, high = self.interval
        (least, most), (least_d, most_d) = self.recovery, self.disruption
        return (
            f"{self.kind} for {self.anomaly} {self.verdict}: of the runs that called for it first, "
            f"{self.enforced.failed} of {self.enforced.runs} failed with it and {self.watched.failed} of "
            f"{self.watched.runs} without it; it saves {self.saved:+.2f} ({low:+.2f} to {high:+.2f}) of them; "
            f"recovers {least:.2f} to {most:.2f}, disrupts {least_d:.2f} to {most_d:.2f}"
        )


Count: TypeAlias = tuple[AnomalyType, Kind, str]


class Remedies:
    """What came of every remedy; as large as there are types and decisions. A run may be counted again, amended."""

    def __init__(self) -> None:
        self._counts: Counter[Count] = Counter()

    def add(self, decisions: Sequence[Decided], outcome: Outcome | None) -> None:
        """Count a run that is over."""
        self._counts.update(_counts(decisions, outcome))

    def remove(self, decisions: Sequence[Decided], outcome: Outcome | None) -> None:
        """Take back what was counted of a run."""
        self._counts.subtract(_counts(decisions, outcome))

    def report(self) -> tuple[RemedyReport, ...]:
        """Every remedy that was ever called for, sorted by type and decision."""
        keys = {(anomaly, kind) for (anomaly, kind, _), count in self._counts.items() if count}
        return tuple(self._of(key) for key in sorted(keys))

    def harmful(self) -> frozenset[Key]:
        """The remedies that cost more runs than they save."""
        return frozenset((each.anomaly, each.kind) for each in self.report() if each.verdict == "harms")

    def _of(self, key: Key) -> RemedyReport:
        count = {name: self._counts[(*key, name)] for name in _NAMES}
        return RemedyReport(
            anomaly=key[0],
            kind=key[1],
            taken=count["taken"],
            took_effect=count["took_effect"],
            without_effect=count["without_effect"],
            recurred=count["recurred"],
            held=count["held"],
            enforced=Arm(succeeded=count["enforced success"], failed=count["enforced failure"]),
            watched=Arm(succeeded=count["watched success"], failed=count["watched failure"]),
        )


_NAMES = (
    "taken",
    "took_effect",
    "without_effect",
    "recurred",
    "held",
    "enforced success",
    "enforced failure",
    "watched success",
    "watched failure",
)


def _counts(decisions: Sequence[Decided], outcome: Outcome | None) -> Iterator[Count]:
    for number, decision in enumerate(decisions):
        if decision.anomaly is None:
            continue
        names = [] if decision.hypothetical else list(_receipt(decision))
        if number == 0 and outcome is not None:
            names.append(f"{'watched' if decision.hypothetical else 'enforced'} {outcome}")
        yield from ((decision.anomaly, decision.kind, name) for name in names)


def _receipt(decision: Decided) -> Iterator[str]:
    yield "taken"
    if decision.took_effect is not None:
        yield "took_effect" if decision.took_effect else "without_effect"
    if decision.took_effect and decision.recurred is not None:
        yield "recurred" if decision.recurred else "held"
