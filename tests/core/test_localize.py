"""Localization: which step the anomalies of a run point to, how surely, and when it does not say."""

from __future__ import annotations

from typing import Any

import pytest

from misstep.events import AnomalyFound, Evidence
from misstep.guard import Guard
from misstep.localize import RootCause, localize
from misstep.taxonomy import AnomalyType, Severity, taxonomy
from tests.core.scenes import FAILURE, LOOP, RUN, crashes, finds, policy, requested


def found(step: int | None, *evidence: Evidence, type_: AnomalyType = LOOP, **fields: Any) -> AnomalyFound:
    """An anomaly at a step."""
    return AnomalyFound(
        run=RUN,
        step=step,
        type=type_,
        category=taxonomy()[type_].category,
        message=fields.pop("message", "seen"),
        **{"severity": Severity.MEDIUM, "confidence": 1.0, "agent": "ada", "evidence": evidence, **fields},
    )


def located(*anomalies: AnomalyFound, outcome: str | None = None) -> RootCause:
    """What the anomalies point to."""
    cause = localize(anomalies, outcome)
    assert cause is not None
    return cause


def ranking(*anomalies: AnomalyFound) -> list[tuple[str, int, float]]:
    """The candidates, most suspicious first."""
    return [(candidate.agent, candidate.step, candidate.score) for candidate in located(*anomalies).candidates]


def test_an_anomaly_speaks_for_the_earliest_event_it_rests_on() -> None:
    """The misstep is where it began, and whoever took that step, not where it was noticed."""
    evidence = (Evidence(9, 5, "bob"), Evidence(4, 2, "ann"), Evidence(6, 3, "ada"))
    assert ranking(found(5, *evidence)) == [("ann", 2, 1.0)]


def test_without_evidence_it_speaks_for_itself() -> None:
    """An anomaly whose evidence is gone, or never was, points to where it was found."""
    assert ranking(found(5, Evidence(1))) == [("ada", 5, 1.0)]
    assert ranking(found(None)) == [("ada", 0, 1.0)]
    assert ranking(found(5, Evidence(1, 2, ""))) == [("ada", 2, 1.0)]


def test_weight_is_severity_times_confidence() -> None:
    """A grave anomaly weighs more than a light one, a sure one more than a doubtful one, and several add up."""
    grave = found(1, severity=Severity.CRITICAL)
    light = found(2, severity=Severity.LOW, confidence=1.0)
    doubtful = found(3, severity=Severity.CRITICAL, confidence=0.5)
    assert [step for _, step, _ in ranking(light, doubtful, grave)] == [1, 3, 2]
    assert ranking(light, light, light, doubtful)[0] == ("ada", 2, 0.6)


def test_shares_add_up_and_ties_go_to_the_earlier_step() -> None:
    """Scores are shares of all the evidence; of two steps as suspicious the earlier is named first."""
    ranked = ranking(found(4), found(2))
    assert ranked == [("ada", 2, 0.5), ("ada", 4, 0.5)]


def test_five_candidates_are_enough() -> None:
    """No more than the five most suspicious steps are named."""
    assert len(ranking(*(found(step) for step in range(20)))) == 5


def test_the_first_reason_is_given() -> None:
    """A candidate says why in the words of the first anomaly that points to it; the cause is of that one's class."""
    cause = located(found(1, message="first"), found(1, message="second", type_=AnomalyType.TOOL_TIMEOUT))
    assert (cause.candidates[0].why, cause.cause) == ("first", taxonomy()[LOOP].cause)


def test_a_successful_run_has_no_misstep() -> None:
    """Where the run succeeded nothing is blamed."""
    assert localize([found(1), found(2)], "success") is None


@pytest.mark.parametrize(
    "harmless",
    [
        found(1, severity=Severity.INFO),
        found(1, type_=FAILURE, severity=Severity.HIGH),
        found(1, confidence=0.0),
        found(1, confidence=float("nan")),
    ],
    ids=["informs", "the guard's own failure", "doubted by its own rule", "no number"],
)
def test_what_blames_nobody(harmless: AnomalyFound) -> None:
    """Mere information, what the guard itself got wrong, and what has no weight, is put down to no agent."""
    assert localize([harmless]) is None
    assert ranking(harmless, found(2)) == [("ada", 2, 1.0)]


def test_one_anomaly_is_a_place_to_look_and_no_verdict() -> None:
    """A single anomaly is never enough to be sure, even of a run that failed."""
    for outcome in (None, "failure"):
        cause = located(found(1), outcome=outcome)
        assert cause.abstained
        assert cause.candidates
    assert located(found(1)).confidence < located(found(1), found(1)).confidence


def test_agreement_makes_sure() -> None:
    """Several anomalies that point to one step make sure, the more so where the run is known to have failed."""
    unknown, failed = (located(found(1), found(1), found(1), outcome=outcome) for outcome in (None, "failure"))
    assert not unknown.abstained
    assert unknown.confidence < failed.confidence <= 1.0


def test_disagreement_abstains() -> None:
    """Where the anomalies point everywhere the ranking says that it does not know, and lists them all the same."""
    cause = located(found(1), found(2), found(3), outcome="failure")
    assert cause.abstained
    assert len(cause.candidates) == 3


def test_a_report_names_the_misstep() -> None:
    """What a run's report names is what its anomalies point to; a rule that crashed is not put down to the agent."""
    guard = Guard(policy({LOOP: [], AnomalyType.EMPTY_RESPONSE: []}), detectors=[finds(LOOP)], strict=True)
    guard.observe(requested("c1", agent="ada"))
    cause = guard.report(RUN).runs[0].root_cause
    assert cause is not None
    assert cause.candidates[0].agent == "ada"

    broken = Guard(policy({LOOP: []}), detectors=[crashes()])
    broken.observe(requested("c1", agent="ada"))
    report = broken.report(RUN).runs[0]
    assert (len(report.anomalies), report.root_cause) == (1, None)


def test_a_root_cause_as_data() -> None:
    """On the wire the class of the cause is called `class`."""
    data = located(found(1)).model_dump(mode="json", by_alias=True)
    assert set(data) == {"class", "confidence", "abstained", "candidates"}
    assert RootCause.model_validate(data) == located(found(1))
