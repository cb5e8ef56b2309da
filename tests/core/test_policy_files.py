"""What policies are written with: the policy to start from, and the JSON schema editors check it with."""

from __future__ import annotations

import contextlib
import json
import re
import textwrap
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from misstep import PolicyError, default_policy
from misstep.decisions import Kind
from misstep.detectors import known_detectors
from misstep.policy import parse_policy, schema, starter
from misstep.taxonomy import AnomalyType, taxonomy
from tests.core.scenes import examples
from tests.core.test_policy import WHOLE, WRONG

SCHEMA = jsonschema.Draft202012Validator(schema())


def valid(document: object) -> bool:
    """Whether an editor would accept a document."""
    return bool(SCHEMA.is_valid(document))


def accepted(document: object) -> bool:
    """Whether the parser accepts it."""
    try:
        parse_policy(json.dumps(document))
    except PolicyError:
        return False
    return True


# -- the policy to start from -----------------------------------------------------------------------------------------


def test_the_starter_is_the_default_policy() -> None:
    """What `misstep init` writes is, read again, the policy that runs without any file."""
    assert parse_policy(starter()) == default_policy()


def test_the_starter_explains_every_rule() -> None:
    """Every rule of the default policy stands there below its definition, category and severity, in 80 columns."""
    text = starter()
    assert max(map(len, text.splitlines())) <= 80
    for type_ in default_policy().rules:
        info = taxonomy()[type_]
        (about,) = re.findall(rf"((?:  # .*\n)+)  {type_}:\n", text)
        told = " ".join(textwrap.dedent(about).replace("# ", "").split())
        assert told == " ".join(f"{info.category}, {info.severity}. {info.definition}".split())


def test_what_is_commented_out_is_what_holds() -> None:
    """Uncommented, every line of a rule means the same policy: thresholds, taxonomy's ladder, settings."""
    text = starter()
    rules = text.partition("rules:\n")[2]
    without_ladders = re.sub(r"^    ladder: \[\]\n", "", rules, flags=re.MULTILINE)
    spelt = re.sub(r"^    # (with|ladder|on_guard_failure|output):", r"    \1:", without_ladders, flags=re.MULTILINE)
    spelt = re.sub(r"^    #   (\w+):", r"      \1:", spelt, flags=re.MULTILINE)
    assert spelt != without_ladders
    whole = parse_policy(f"version: 1\nunsupported: degrade\nrules:\n{spelt}")
    plain = parse_policy(f"version: 1\nunsupported: degrade\nrules:\n{without_ladders}")
    assert whole.detectors()[0][0] == plain.detectors()[0][0]
    assert [detector for detector, _ in whole.detectors()] == [detector for detector, _ in default_policy().detectors()]
    for type_, rule in whole.rules.items():
        assert rule.ladder == whole.ladder(type_) == plain.ladder(type_)
        assert (rule.on_guard_failure, rule.output) == ("open", "pass")


# -- the schema -------------------------------------------------------------------------------------------------------


def test_the_schema_is_one() -> None:
    """The schema is valid JSON Schema, whole, and the same every time."""
    jsonschema.Draft202012Validator.check_schema(schema())
    assert json.dumps(schema()) == json.dumps(schema())


def test_the_schema_knows_every_rule_and_threshold() -> None:
    """An editor offers the types a detector finds, and for each its thresholds with their defaults."""
    rules = schema()["properties"]["rules"]["properties"]
    assert set(rules) == {type_.value for type_ in known_detectors()} | {"guard_failure"}
    assert rules["repeated_call"]["properties"]["with"]["properties"]["limit"]["default"] == 3
    assert rules["repeated_call"]["description"] == taxonomy()[AnomalyType.REPEATED_CALL].definition


RIGHT = [
    yaml.safe_load(WHOLE),
    yaml.safe_load(starter()),
    {"version": 1},
    yaml.safe_load("{version: 1, mode: off}"),
    {"version": 1, "mode": "off"},
    {"version": 1, "rules": {"guard_failure": {"ladder": ["halt"]}}},
    {"version": 1, "rules": {"repeated_call": {"thresholds": {"limit": 4}}}},
    {"version": 1, "rules": {"repeated_call": {"ladder": None}}},
    {"version": 1, "rules": {"repeated_call": {"ladder": [{"refuse": None}, {"kind": "refuse", "limit": 3}]}}},
    {"version": 1, "rules": {"repeated_call": {"ladder": [{"kind": "halt", "limit": None}, "ask", {"retry": 1}]}}},
]


@pytest.mark.parametrize("document", RIGHT, ids=str)
def test_the_schema_accepts_what_is_right(document: object) -> None:
    """Every way to write a policy, the short ways to write a rung included, is valid."""
    assert accepted(document)
    SCHEMA.validate(document)


BEYOND = {
    "threshold that cannot be",  # a bound of the detector's own
    "a kind there is none of",
    "a price below zero",
    "threshold that is no number",  # no JSON
    "written twice",  # a parser has dropped one of them before it validates
    "rule written twice",
    "itself",
}
"""Mistakes only the parser finds."""


def documents() -> dict[str, object]:
    """The wrong policies that are YAML at all, and wrong in a way a schema can see."""
    found: dict[str, object] = {}
    for name, text, _ in WRONG:
        with contextlib.suppress(Exception):  # what PyYAML's constructors trip over is no YAML either
            found[name] = yaml.safe_load(text)
    return {name: document for name, document in found.items() if name not in BEYOND}


@pytest.mark.parametrize("document", documents().values(), ids=documents())
def test_the_schema_rejects_what_is_wrong(document: object) -> None:
    """Of the mistakes the parser finds in valid YAML, an editor finds all but a few that are named."""
    assert not valid(document)


WORDS = st.sampled_from([*(kind.value for kind in Kind), "enforce", "hold", "limit", "kind", "no"])
SCALARS = st.none() | st.integers(-1, 3) | st.floats(0.1, 0.9) | WORDS
OPTIONS = st.dictionaries(
    st.sampled_from(["limit", "kind", "to", "samples", "timeout", "default"]), SCALARS, max_size=3
)
RUNGS = st.lists(WORDS | st.dictionaries(WORDS, SCALARS | OPTIONS, max_size=2) | OPTIONS, max_size=2)
RULE = st.fixed_dictionaries(
    {},
    optional={
        "ladder": RUNGS | SCALARS,
        "with": st.dictionaries(st.sampled_from(["limit", "longest", "similarity"]), SCALARS, max_size=2),
        "thresholds": st.just({}),
        "enabled": st.booleans() | SCALARS,
        "output": st.sampled_from(["hold", "pass"]) | SCALARS,
        "on_guard_failure": st.sampled_from(["open", "closed"]),
    },
)
TYPES = st.sampled_from(["repeated_call", "empty_response", "ungrounded_argument", "guard_failure", "tool_timeout"])
POLICIES = st.fixed_dictionaries({"version": st.just(1)}, optional={"rules": st.dictionaries(TYPES, RULE, max_size=2)})


@given(POLICIES)
@examples(600)
def test_the_schema_and_the_parser_agree(document: dict[str, Any]) -> None:
    """What the parser accepts is valid; what is valid the parser accepts, but for bounds a detector sets itself."""
    if accepted(document):
        SCHEMA.validate(document)
    elif valid(document):
        with pytest.raises(PolicyError, match=r"must be \d|must be above 0 and at most"):
            parse_policy(json.dumps(document))


def test_the_policy_in_the_readme_is_one() -> None:
    """The policy README shows can be used as it stands."""
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (block,) = [part for part in readme.split("```yaml\n")[1:] if part.startswith("version: 1")]
    policy = parse_policy(block.split("```")[0])
    kinds = {rung.kind for type_ in policy.rules for rung in policy.ladder(type_)}
    assert kinds >= {Kind.REWRITE, Kind.FALLBACK, Kind.ASK, Kind.REROUTE, Kind.ROLL_BACK, Kind.HALT}
