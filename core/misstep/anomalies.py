"""An anomaly: what a detector says it has seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from misstep.taxonomy import AnomalyType, Severity, taxonomy


@dataclass(frozen=True, slots=True, kw_only=True)
class Anomaly:
    """
    One finding of one detector on one event.

    `message` is for people and may name what was seen; it is redacted and escaped wherever it is shown.
    `evidence` holds the `seq` numbers of the events it rests on, newest first. `confidence` is 0 to 1.
    `facts` fill the feedback template the agent is told (`tool`, `argument`, `times`, `agent`); only names the
    application itself declared get through, never a text of the run. `rewrite` is what can be passed on instead, where
    the detector knows it: arguments (a mapping) for a call, a text for a result, a reply or a message; without it a
    `rewrite` rung is passed over.
    """

    type: AnomalyType
    message: str
    evidence: tuple[int, ...] = ()
    confidence: float = 1.0
    severity: Severity | None = None
    """None means the type's default severity."""
    facts: Mapping[str, str | int] = field(default_factory=dict)
    rewrite: Any = None

    @property
    def weight(self) -> Severity:
        """The severity in force."""
        return self.severity or taxonomy()[self.type].severity
