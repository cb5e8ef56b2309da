"""Dispatch: which detector hears which event, and what becomes of a detector that crashes or stalls."""

from __future__ import annotations

import logging
import time
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field

from misstep.anomalies import Anomaly
from misstep.detectors import Detector
from misstep.events import AnyEvent, Event
from misstep.run import Run
from misstep.taxonomy import AnomalyType

log = logging.getLogger("misstep")


@dataclass(slots=True)
class Rulewatch:
    """One rule at work: its detector, and what it has cost."""

    detector: Detector
    closed: bool = False
    """Whether a failure refuses the call (fail-closed) instead of letting it pass."""
    failures: int = 0
    slow: int = 0
    quarantined: str = ""
    """Why the rule is no longer asked; empty while it is."""
    disabled: bool = False
    """Whether an operator switched the rule off."""
    seconds: float = 0.0
    asked: int = 0

    def enable(self) -> None:
        """Ask the rule again: it is switched on, and a quarantine is lifted."""
        self.disabled, self.quarantined, self.failures, self.slow = False, "", 0, 0


@dataclass(frozen=True, slots=True)
class Failure:
    """A rule failed on an event."""

    rule: AnomalyType
    reason: str
    closed: bool


@dataclass(slots=True)
class Findings:
    """What the detectors said of one event."""

    anomalies: list[Anomaly] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


class Dispatch:
    """
    A table from event class to the rules that hear it, built from the detectors' annotations.

    A rule that fails `patience` times is quarantined, and so is one that is slower than `budget` seconds as often and
    in more than the `share` of all it was asked: under load any rule may have to wait for its turn now and then. A
    fail-closed rule never is, since nobody would then be protected without knowing. With `strict`, a failure is
    raised (tests).
    """

    def __init__(
        self,
        rules: Iterable[Rulewatch],
        *,
        patience: int = 3,
        budget: float = 0.05,
        share: float = 0.05,
        strict: bool = False,
    ) -> None:
        self.rules = list(rules)
        self.patience, self.budget, self.share, self.strict = patience, budget, share, strict
        self._table: dict[type[Event], list[Rulewatch]] = {}
        for rule in self.rules:
            for event_class in subscription(rule.detector):
                self._table.setdefault(event_class, []).append(rule)

    def detect(self, event: Event, run: Run) -> Findings | None:
        """Ask every rule that hears this event; None where no rule had anything to say."""
        findings: Findings | None = None
        began = time.perf_counter()
        for rule in self._table.get(type(event), ()):
            if rule.quarantined or rule.disabled:
                continue
            try:
                anomaly = rule.detector(event, run)
            except Exception as error:
                if self.strict:
                    raise
                findings = findings or Findings()
                findings.failures.append(self._failed(rule, error))
                began = time.perf_counter()
                continue
            ended = time.perf_counter()
            took, began = ended - began, ended
            rule.asked += 1
            rule.seconds += took
            if took > self.budget:
                self._stalled(rule, took)
            if anomaly is not None:
                findings = findings or Findings()
                findings.anomalies.append(anomaly)
        return findings

    def find(self, type_: AnomalyType) -> Rulewatch | None:
        """The rule for a type, if there is one."""
        return next((rule for rule in self.rules if rule.detector.type is type_), None)

    def disabled(self) -> tuple[str, ...]:
        """The rules an operator switched off."""
        return tuple(rule.detector.type.value for rule in self.rules if rule.disabled)

    def quarantined(self) -> tuple[str, ...]:
        """The rules that are no longer asked, and why."""
        return tuple(f"{rule.detector.type}: {rule.quarantined}" for rule in self.rules if rule.quarantined)

    def _failed(self, rule: Rulewatch, error: Exception) -> Failure:
        rule.failures += 1
        name = rule.detector.type.value
        log.error("rule `%s` crashed (%d): %s: %s", name, rule.failures, type(error).__name__, error)
        if rule.failures >= self.patience and not rule.closed:
            self._quarantine(rule, f"crashed {rule.failures} times, last: {type(error).__name__}")
        return Failure(rule.detector.type, f"rule `{name}` crashed: {type(error).__name__}", rule.closed)

    def _stalled(self, rule: Rulewatch, took: float) -> None:
        rule.slow += 1
        if rule.slow >= self.patience and rule.slow > rule.asked * self.share and not rule.closed:
            self._quarantine(rule, f"slower than {self.budget:g} s {rule.slow} times, last {took:.2f} s")

    def _quarantine(self, rule: Rulewatch, why: str) -> None:
        rule.quarantined = why
        log.error(
            "rule `%s` is quarantined: %s. It protects nothing until `guard.enable` puts it back.",
            rule.detector.type.value,
            why,
        )


def subscription(detector: Detector) -> tuple[type[Event], ...]:
    """The event classes a detector hears, from the annotation of its parameter `event`; `Event` means all of them."""
    call = detector if isinstance(detector, types.FunctionType) else type(detector).__call__
    hint = typing.get_type_hints(call).get("event")
    classes = typing.get_args(hint) if isinstance(hint, types.UnionType) or typing.get_origin(hint) else (hint,)
    if not classes or not all(isinstance(cls, type) and issubclass(cls, Event) for cls in classes):
        raise TypeError(
            f"detector {detector!r} must annotate its parameter `event` with the event classes it hears, found {hint!r}"
        )
    return typing.get_args(AnyEvent) if Event in classes else classes
