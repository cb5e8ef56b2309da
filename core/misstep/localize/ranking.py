"""A ranking from the anomalies alone: each speaks for the earliest event it rests on."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field

from misstep.events import AnomalyFound
from misstep.taxonomy import Category, CauseClass, taxonomy

_SURE = 0.5
"""Up to this confidence the ranking abstains, and still lists its candidates."""


class Candidate(BaseModel):
    """One step that may be the misstep; `score` is its share of all the evidence, 0 to 1."""

    model_config = ConfigDict(frozen=True)

    agent: str
    step: int
    score: float
    why: str


class RootCause(BaseModel):
    """The ranked candidates, most suspicious first; `abstained` means: do not act on this."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    cause: CauseClass = Field(alias="class")
    confidence: float
    abstained: bool
    candidates: tuple[Candidate, ...]


def localize(anomalies: Iterable[AnomalyFound], outcome: str | None = None) -> RootCause | None:
    """
    Rank the steps the anomalies point to; None where the run succeeded or no anomaly of any weight was found. A failure
    of the guard itself is never put down to the agents.

    An anomaly's weight, its severity's rank times its confidence, goes to the earliest event of its evidence.
    Confidence is the leading step's share, halved where a single anomaly is all there is: a place to look first,
    not a verdict.
    """
    weights: dict[tuple[str, int], float] = {}
    reasons: dict[tuple[str, int], AnomalyFound] = {}
    count = 0
    for anomaly in anomalies:
        weight = anomaly.severity.rank * anomaly.confidence
        if not weight > 0 or anomaly.category is Category.GUARD or outcome == "success":
            continue
        count += 1
        place = _earliest(anomaly)
        weights[place] = weights.get(place, 0.0) + weight
        reasons.setdefault(place, anomaly)
    if not weights:
        return None

    total = sum(weights.values())
    ranked = sorted(weights, key=lambda place: (-weights[place], place[1]))
    share = weights[ranked[0]] / total
    confidence = round(share * min(1.0, count / 2) * (1.0 if outcome == "failure" else 0.8), 3)
    return RootCause(
        **{"class": taxonomy()[reasons[ranked[0]].type].cause},
        confidence=confidence,
        abstained=confidence <= _SURE,
        candidates=tuple(
            Candidate(
                agent=agent, step=step, score=round(weights[agent, step] / total, 3), why=reasons[agent, step].message
            )
            for agent, step in ranked[:5]
        ),
    )


def _earliest(anomaly: AnomalyFound) -> tuple[str, int]:
    steps = [(evidence.step, evidence.agent) for evidence in anomaly.evidence if evidence.step is not None]
    if not steps:
        return anomaly.agent, anomaly.step or 0
    step, agent = min(steps)
    return agent or anomaly.agent, step
