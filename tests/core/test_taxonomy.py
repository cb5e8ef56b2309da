"""The taxonomy: the file and the types agree, and what it says can be used as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from string import Formatter

import pytest
import yaml

import misstep
from misstep.anomalies import Anomaly
from misstep.decisions import Kind
from misstep.policy import Rung
from misstep.taxonomy import AnomalyType, Category, Severity, category_definition, taxonomy

DOCUMENT = yaml.safe_load((Path(misstep.__file__).parent / "taxonomy.yaml").read_text(encoding="utf-8"))

TYPES = pytest.mark.parametrize("type_", AnomalyType)

ENDLESS = {Kind.RETRY, Kind.REPROMPT, Kind.VOTE, Kind.FALLBACK, Kind.REROUTE, Kind.ROLL_BACK}


def test_file_and_types_agree() -> None:
    """The file holds the types of `AnomalyType` and no other, in the same order."""
    assert list(DOCUMENT["types"]) == [type_.value for type_ in AnomalyType]
    assert list(taxonomy()) == list(AnomalyType)


def test_file_and_categories_agree() -> None:
    """The file holds the categories of `Category` and no other, each with a definition, and each has a type."""
    assert list(DOCUMENT["categories"]) == [category.value for category in Category]
    assert all(category_definition(category).endswith(".") for category in Category)
    assert {info.category for info in taxonomy().values()} == set(Category)


@TYPES
def test_entry_says_everything(type_: AnomalyType) -> None:
    """An entry of the file has the fields a type needs, no other, and none of them a word we do not know."""
    entry, info = DOCUMENT["types"][type_.value], taxonomy()[type_]
    references = {"mast", "owasp", "trail"}
    assert set(entry) == references | {
        "category", "definition", "scope", "phases", "severity", "ladder", "cause", "feedback",
    }  # fmt: skip
    assert info.type is type_
    assert info.definition.endswith(".")
    assert set(info.scope) <= {"intra", "inter"}
    assert info.scope
    assert set(info.phases) <= {"pre_execution", "execution", "post_execution"}
    assert info.phases
    assert info.cause in ("system", "model", "orchestration")


@TYPES
def test_scope_lies_in_reach(type_: AnomalyType) -> None:
    """A type that an agent shows alone is never of a category that only shows between agents and has no other side."""
    assert set(DOCUMENT["categories"][taxonomy()[type_].category.value]["scope"]) & set(taxonomy()[type_].scope)


@TYPES
def test_feedback_formats(type_: AnomalyType) -> None:
    """A feedback template holds only the four names there are, formats with them, and leaves no brace behind."""
    template = taxonomy()[type_].feedback
    names = {name for _, name, _, _ in Formatter().parse(template) if name is not None}
    assert names <= {"tool", "argument", "times", "agent"}
    said = template.format(tool="T", argument="A", times="N", agent="G")
    assert not set("{}") & set(said)


@TYPES
def test_whoever_is_told_is_told_something(type_: AnomalyType) -> None:
    """A type whose default ladder speaks to the agent has words to say."""
    info = taxonomy()[type_]
    speaks = {Rung.model_validate(rung).kind for rung in info.ladder} & {Kind.REPROMPT, Kind.REFUSE, Kind.ROLL_BACK}
    assert bool(info.feedback) or not speaks


@TYPES
def test_ladder_is_one(type_: AnomalyType) -> None:
    """A default ladder is made of rungs a policy could hold, and no rung comes twice."""
    rungs = [Rung.model_validate(rung) for rung in taxonomy()[type_].ladder]
    assert len({rung.kind for rung in rungs}) == len(rungs)
    assert all(rung.limit is not None for rung in rungs if rung.kind in ENDLESS)


@TYPES
def test_references_are_well_formed(type_: AnomalyType) -> None:
    """References to MAST and OWASP are identifiers of theirs, those to TRAIL are names, and none comes twice."""
    info = taxonomy()[type_]
    assert all(re.fullmatch(r"FM-[1-3]\.[1-6]", reference) for reference in info.mast)
    assert all(re.fullmatch(r"ASI(0[1-9]|10)", reference) for reference in info.owasp)
    assert all(re.fullmatch(r"[A-Z][A-Za-z]+([ -][A-Za-z]+)*", reference) for reference in info.trail)
    for references in (info.mast, info.owasp, info.trail):
        assert len(set(references)) == len(references)


@TYPES
def test_definitions_name_types_that_exist(type_: AnomalyType) -> None:
    """Where a definition tells a type from its neighbours, it names types there are, and not itself."""
    named = set(re.findall(r"`(\w+)`", taxonomy()[type_].definition))
    assert named <= {other.value for other in AnomalyType} - {type_.value}


def test_severities_are_ranked() -> None:
    """Severities go from info to critical."""
    ranked = [Severity.INFO, Severity.LOW, Severity.MEDIUM, Severity.HIGH, Severity.CRITICAL]
    assert [severity.rank for severity in ranked] == [0, 1, 2, 3, 4]


def test_severity_in_force() -> None:
    """An anomaly weighs what its type does, unless its detector says otherwise."""
    usual = Anomaly(type=AnomalyType.PROMPT_INJECTION, message="")
    milder = Anomaly(type=AnomalyType.PROMPT_INJECTION, message="", severity=Severity.LOW)
    assert (usual.weight, milder.weight) == (Severity.CRITICAL, Severity.LOW)


def test_a_failure_of_the_guard_is_remedied_by_nobody_else() -> None:
    """What the guard itself gets wrong is a category of its own, told to no agent and answered by no default remedy."""
    info = taxonomy()[AnomalyType.GUARD_FAILURE]
    assert [type_ for type_, other in taxonomy().items() if other.category is Category.GUARD] == [info.type]
    assert (info.ladder, info.feedback) == ((), "")
