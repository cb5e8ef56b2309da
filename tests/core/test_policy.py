"""Policies: what may be written, and what is said of a mistake: where, what, and what to do about it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from misstep import Guard, PolicyError, default_policy, load_policy
from misstep.decisions import Kind
from misstep.policy import Policy, Rule, Rung, parse_policy
from misstep.taxonomy import AnomalyType, taxonomy
from tests.core.scenes import ARGUMENT, EMPTY, FAILURE, LOOP, examples

WHOLE = """\
version: 1
mode: shadow
unsupported: degrade
rules:
  repeated_call:
    with: {limit: 4, near_limit: 5, similarity: 0.9}
    ladder: [{reprompt: 1}, {refuse: 2}, halt]
    on_guard_failure: closed
    output: hold
  ungrounded_argument:
    ladder: []
    enabled: false
  empty_response: {}
"""

TWIN = Policy(
    version=1,
    mode="shadow",
    unsupported="degrade",
    rules={
        LOOP: Rule(
            thresholds={"limit": 4, "near_limit": 5, "similarity": 0.9},
            ladder=(Rung(kind=Kind.REPROMPT, limit=1), Rung(kind=Kind.REFUSE, limit=2), Rung(kind=Kind.HALT)),
            on_guard_failure="closed",
            output="hold",
        ),
        ARGUMENT: Rule(ladder=(), enabled=False),
        EMPTY: Rule(),
    },
)


def mistakes(text: str) -> list[str]:
    """What is said of a policy that is wrong."""
    with pytest.raises(PolicyError) as caught:
        parse_policy(text, source="p.yaml")
    return str(caught.value).splitlines()


# -- what may be written ----------------------------------------------------------------------------------------------


def test_yaml_and_python_are_the_same_policy() -> None:
    """A policy is the same data whether it is read from YAML or written in Python."""
    assert parse_policy(WHOLE) == TWIN


def test_a_policy_survives_its_own_dump() -> None:
    """What a policy is dumped to validates to the same policy again."""
    assert Policy.model_validate(TWIN.model_dump()) == TWIN
    assert Policy.model_validate_json(TWIN.model_dump_json(by_alias=True)) == TWIN


def test_the_least_policy() -> None:
    """A version is all a policy needs; it then finds nothing, enforces, and counts what is unsupported an error."""
    policy = parse_policy("version: 1")
    assert (policy.mode, policy.unsupported, policy.rules, policy.detectors()) == ("enforce", "error", {}, [])


@pytest.mark.parametrize("word", ["off", "'off'", "shadow", "enforce"])
def test_a_mode_is_written_as_a_word(word: str) -> None:
    """`mode: off` is that mode, though YAML takes the bare word for false."""
    assert parse_policy(f"version: 1\nmode: {word}\n").mode == word.strip("'")


@pytest.mark.parametrize(
    ("written", "kind", "limit"),
    [
        ("halt", Kind.HALT, None),
        ({"reprompt": 2}, Kind.REPROMPT, 2),
        ({"refuse": None}, Kind.REFUSE, None),
        ({"kind": "refuse", "limit": 3}, Kind.REFUSE, 3),
        ({"refuse": {"limit": 3}}, Kind.REFUSE, 3),
    ],
)
def test_ways_to_write_a_rung(written: object, kind: Kind, limit: int | None) -> None:
    """A rung is a decision, a decision with its limit, or both by name."""
    assert Rung.model_validate(written) == Rung(kind=kind, limit=limit)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"reroute": {"to": "bob", "limit": 1}}, {"to": "bob", "limit": 1}),
        ({"fallback": {"to": "small", "limit": 2}}, {"to": "small", "limit": 2}),
        ({"vote": {"samples": 5, "limit": 1}}, {"samples": 5, "limit": 1}),
        ({"ask": {"timeout": 60, "default": "approve"}}, {"timeout": 60, "default": "approve"}),
    ],
)
def test_what_a_rung_may_say(written: dict[str, Any], said: dict[str, Any]) -> None:
    """A rung says to whom, of how many, for how long, under the decision it belongs to."""
    rung = Rung.model_validate(written)
    assert rung.kind in written
    assert rung.model_dump(exclude={"kind"}, exclude_none=True) == said


@pytest.mark.parametrize(
    ("rung", "problem"),
    [
        ("{reroute: {to: bob, limit: 1, x: 2}}", "unknown key `x`"),
        ("{vote: {samples: 1, limit: 1}}", "greater than or equal to 2, found 1"),
        ("{ask: {timeout: -3}}", "greater than 0, found -3"),
        ("{ask: {timeout: .inf}}", "finite number"),
        ("{ask: {default: maybe}}", "'approve' or 'reject', found 'maybe'"),
        ("{refuse: {to: bob}}", "`to` goes with `reroute` or `fallback`, not `refuse`"),
        ("{fallback: {to: small}}", "`fallback` needs a limit"),
        ("{vote: 2, ask: 1}", "one decision to a rung"),
        ("{refuse: {kind: halt}}", "the decision is `refuse`; leave `kind` out"),
        ("{refuse: '2'}", "valid integer, found '2'"),
    ],
)
def test_what_a_rung_may_not_say(rung: str, problem: str) -> None:
    """What goes with no such decision, or with none, is a mistake in its line."""
    (told,) = mistakes(f"version: 1\nrules:\n  repeated_call:\n    ladder: [{rung}]\n")
    assert told.startswith("p.yaml: line 4, `rules.repeated_call.ladder.0")
    assert problem in told


def test_a_rule_without_a_ladder_has_the_taxonomys() -> None:
    """A ladder that is left out is the type's default one; an empty one only records; no rule, no remedy."""
    policy = Policy(rules={LOOP: Rule(), ARGUMENT: Rule(ladder=())})
    assert policy.ladder(LOOP) == tuple(Rung.model_validate(rung) for rung in taxonomy()[LOOP].ladder)
    assert policy.ladder(ARGUMENT) == ()
    assert policy.ladder(EMPTY) == ()


def test_detectors_come_with_their_thresholds() -> None:
    """Every rule that is on gives a detector, set as the rule says; one that is off gives none."""
    assert [(detector.type, rule.output) for detector, rule in TWIN.detectors()] == [(LOOP, "hold"), (EMPTY, "pass")]
    detector, _ = TWIN.detectors()[0]
    assert (vars(detector) if hasattr(detector, "__dict__") else {})["limit"] == 4


def test_thresholds_may_be_tables_and_lists() -> None:
    """A mapping or a list in a policy is what the detector's field says it is, wherever it was written."""
    policy = parse_policy(
        "version: 1\nrules:\n  budget_exceeded:\n    with: {money: 5, prices: {m: [1, 2.5], free: [0, 0]}}\n"
        "  pii_leak:\n    with: {kinds: [card, email]}\n"
    )
    budget, leak = (detector for detector, _ in policy.detectors())
    assert (budget.prices, budget.money) == ({"m": (1.0, 2.5), "free": (0.0, 0.0)}, 5.0)  # type: ignore[attr-defined]
    assert leak.kinds == ("card", "email")  # type: ignore[attr-defined]
    assert hash(budget) != hash(leak)


@pytest.mark.parametrize(
    ("fields", "holds"),
    [
        ({"output": "hold"}, True),
        ({"output": "hold", "ladder": []}, False),
        ({"output": "hold", "enabled": False}, False),
        ({"output": "pass"}, False),
    ],
)
def test_answers_are_held_only_where_they_may_be_refused(fields: dict[str, Any], holds: bool) -> None:
    """An answer is held back from a stream only for a rule that is on, that says so, and that would do something."""
    rules = {LOOP: Rule.model_validate(fields)}
    assert Policy(rules=rules).holds() is holds
    assert Guard(Policy(rules=rules)).holds is holds
    assert not Guard(Policy(rules=rules), mode="shadow").holds
    assert Guard(Policy(rules=rules, mode="shadow"), mode="enforce").holds is holds


def test_the_default_policy() -> None:
    """By default the guard enforces, records invented arguments without acting, and degrades where it must."""
    policy = default_policy()
    assert (policy.mode, policy.unsupported) == ("enforce", "degrade")
    assert policy.ladder(ARGUMENT) == ()
    assert policy.ladder(LOOP)
    assert policy.ladder(EMPTY)
    assert all(rule.enabled for rule in policy.rules.values())


# -- what is said of mistakes -----------------------------------------------------------------------------------------

RULE = "version: 1\nrules:\n  repeated_call:\n    {}\n"

WRONG: list[tuple[str, str, str]] = [
    ("unknown key", "version: 1\nrule: {}\n", r"line 2, `rule`: unknown key `rule`\. Did you mean `rules`\?"),
    ("a key like no other", "version: 1\nzzz: 1\n", r"line 2, `zzz`: unknown key `zzz`\. Known: version, mode, uns"),
    ("unknown key of a rule", RULE.format("lader: [halt]"), r"line 4, .*`lader`\. Did you mean `ladder`\?"),
    ("unknown type", "version: 1\nrules:\n  repeated_cal: {}\n",
     r"line 3, `rules\.repeated_cal`: unknown anomaly type 'repeated_cal'\. Did you mean `repeated_call`\?"),
    ("a type nobody finds", "version: 1\nrules:\n  stale_memory: {}\n", r"line 3, .*no detector finds `stale_memory`"),
    ("unknown decision", RULE.format("ladder: [{refus: 1}]"),
     r"line 4, .*unknown decision 'refus'\. Did you mean `refuse`\?"),
    ("unknown decision on its own line", RULE.format("ladder:\n      - reprompt: 1\n      - halp"),
     r"line 6, .*ladder\.1`: unknown decision 'halp'\. Did you mean `halt`\?"),
    ("two decisions in one rung", RULE.format("ladder: [{reprompt: 1, refuse: 2}]"), r"line 4, .*one decision to"),
    ("a word in the place of a ladder", RULE.format("ladder: halt"), r"line 4, .*ladder`: .*found 'halt'"),
    ("endless retry", RULE.format("ladder: [retry]"), r"line 4, .*`retry` needs a limit.*`\{retry: 1\}`"),
    ("endless reprompt", RULE.format("ladder: [{reprompt: }]"), r"line 4, .*`reprompt` needs a limit"),
    ("allow", RULE.format("ladder: [allow]"), r"line 4, .*`allow` is no remedy"),
    ("limit of nothing", RULE.format("ladder: [{refuse: 0}]"), r"line 4, .*limit`: .*found 0"),
    ("limit in words", RULE.format("ladder: [{refuse: twice}]"), r"line 4, .*limit`: .*found 'twice'"),
    ("unknown threshold", RULE.format("with: {lmit: 3}"),
     r"line 4, .*with\.lmit`: unknown threshold; `repeated_call` has `limit`"),
    ("threshold of another type", RULE.format("with: {limit: '3'}"), r"line 4, .*limit`: must be int, found '3'"),
    ("threshold of yes", RULE.format("with: {limit: yes}"), r"line 4, .*limit`: must be int, found True"),
    ("share in quotes", RULE.format("with: {similarity: '0.9'}"), r"line 4, .*similarity`: must be float, found '0.9'"),
    ("rule half on", RULE.format("enabled: 'yes'"), r"line 4, .*enabled`: .*found 'yes'"),
    ("threshold below zero", RULE.format("with: {near_limit: -1}"), r"line 4, .*must be above 0, found -1"),
    ("threshold that cannot be", RULE.format("with: {limit: 1}"), r"line 4, .*`limit` must be 2 to 16, found 1"),
    ("threshold that is no number", RULE.format("with: {similarity: .nan}"), r"line 4, .*similarity.*nan"),
    ("threshold of a rule without", "version: 1\nrules:\n  guard_failure:\n    with: {limit: 1}\n",
     r"line 4, .*`guard_failure` has no thresholds"),
    ("a list with what is no kind", "version: 1\nrules:\n  pii_leak:\n    with: {kinds: [card, 3]}\n",
     r"line 4, .*kinds`: must be a list of str, found \['card', 3\]"),
    ("a list in the place of a mapping", "version: 1\nrules:\n  budget_exceeded:\n    with: {prices: [1, 2]}\n",
     r"line 4, .*prices`: must be a mapping of str to a list of float and float, found \[1, 2\]"),
    ("a price too few", "version: 1\nrules:\n  budget_exceeded:\n    with: {prices: {m: [1]}}\n",
     r"line 4, .*prices`: must be a mapping of str to a list of float and float"),
    ("a price below zero", "version: 1\nrules:\n  budget_exceeded:\n    with: {prices: {m: [1, -1]}}\n",
     r"line 4, .*prices`: must be"),
    ("a kind there is none of", "version: 1\nrules:\n  pii_leak:\n    with: {kinds: [name]}\n",
     r"line 4, .*`kinds` may hold email, card"),
    ("a threshold that is a date", "version: 1\nrules:\n  step_limit:\n    with: {steps: 2031-01-01}\n",
     r"line 4, .*steps`: must be float"),
    ("threshold that is a list", RULE.format("with: {limit: [1]}"), r"line 4, .*must be int"),
    ("written twice", "version: 1\nmode: off\nmode: shadow\n",
     r"line 3, `mode`: written twice, first in line 2\. Keep one"),
    ("rule written twice", "version: 1\nrules:\n  repeated_call: {}\n  repeated_call: {}\n",
     r"line 4, .*written twice, first in line 3"),
    ("no version", "rules: {}\n", r"line 1, `version`: is missing\. Write `version: 1`"),
    ("another version", "version: 2\n", r"line 1, `version`: .*found 2"),
    ("version in quotes", "version: '1'\n", r"line 1, `version`: .*found '1'"),
    ("unknown mode", "version: 1\nmode: enforced\n", r"line 2, `mode`: .*'enforce'.*found 'enforced'"),
    ("no rule", "version: 1\nrules:\n  repeated_call:\n", r"line 3, `rules\.repeated_call`: .*found None"),
    ("rules in a list", "version: 1\nrules: [repeated_call]\n", r"line 2, `rules`: "),
    ("not a mapping", "- a\n- b\n", r"line 1, `policy`: must be a mapping, found list\. Start with `version: 1`"),
    ("nothing", "", r"`policy`: must be a mapping, found nothing"),
    ("words", "be nice", r"must be a mapping, found str"),
    ("broken syntax", "version: 1\nrules: {a: [\n", r"line \d, `policy`: is not valid YAML: .+\. Mend the syntax"),
    ("two documents", "version: 1\n---\nversion: 1\n", r"line 2, .*is not valid YAML"),
    ("a tag we do not follow", "version: !!python/object:os.system 1\n", r"line 1, .*is not valid YAML"),
    ("an empty number", "version: !!int ''\n", r"is not valid YAML"),
    ("a date that is none", "version: 1\nmode: !!timestamp abc\n", r"is not valid YAML"),
    ("a truth that is none", "version: 1\nmode: !!bool abc\n", r"is not valid YAML"),
    ("a key that is a list", "? [a, b]\n: 1\n", r"is not valid YAML"),
    ("a key that is a number", "version: 1\n1: 2\n", r"`1`: keys should be strings"),
    ("itself", "version: 1\nrules: &r\n  repeated_call: *r\n", r"line 3, .*unknown key"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_mistakes(text: str, said: str) -> None:
    """A mistake is told with its file, its line, its place, what is wrong and what to do about it."""
    told = mistakes(text)
    assert re.search(said, "\n".join(told))
    assert all(line.startswith("p.yaml: ") and re.search(r"[.?] [A-Z].+", line) for line in told)


def test_all_mistakes_are_told_at_once() -> None:
    """Whoever mends a policy is told everything that is wrong with it in one go, not one thing at a time."""
    told = mistakes(
        "mode: on\nrules:\n  repeated_call:\n    with: {lmit: 1, limit: x}\n  empty_response:\n    with: {a: 1}\n"
        "  stale_memory: {}\n"
    )
    assert [re.search(r"`([\w.]+)`", line)[1] for line in told] == [  # type: ignore[index]
        "version", "mode", "rules.repeated_call.with.lmit", "rules.repeated_call.with.limit",
        "rules.empty_response.with.a", "rules.stale_memory",
    ]  # fmt: skip


def test_mistakes_are_data_too() -> None:
    """A program can read of each mistake where it is, in which line, what is wrong and what to do."""
    with pytest.raises(PolicyError) as caught:
        parse_policy("version: 1\nrule: {}\n", source="p.yaml")
    (mistake,) = caught.value.mistakes
    assert (caught.value.source, mistake.where, mistake.line) == ("p.yaml", "rule", 2)
    assert (mistake.problem, mistake.remedy) == ("unknown key `rule`", "Did you mean `rules`?")
    assert isinstance(caught.value, ValueError)


def test_aliases_of_aliases_are_read_once() -> None:
    """A file whose aliases would unfold to billions of items is told its mistakes like any other."""
    text = "version: 1\na: &a [1,1,1,1,1,1,1,1,1]\n"
    for name, before in zip("bcdefghij", "abcdefghi", strict=True):
        text += f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n"
    assert len(mistakes(text)) == 10


def test_aliases_may_be_used() -> None:
    """A ladder may be written once and used for several types."""
    text = "version: 1\nrules:\n  repeated_call: &r {ladder: [halt]}\n  empty_response: *r\n"
    assert {rule.ladder for rule in parse_policy(text).rules.values()} == {(Rung(kind=Kind.HALT),)}


@pytest.mark.parametrize(
    "fields",
    [
        {"rules": {"repeated_call": {"with": {"limit": "3"}}}},
        {"rules": {"stale_memory": {}}},
        {"rules": {"repeated_call": {"ladder": ["retry"]}}},
        {"mode": "on"},
        {"colour": "blue"},
    ],
    ids=str,
)
def test_a_policy_in_python_is_held_to_the_same(fields: dict[str, Any]) -> None:
    """What YAML may not say, Python may not either."""
    with pytest.raises(ValidationError):
        Policy.model_validate(fields)


# -- files ------------------------------------------------------------------------------------------------------------


def test_a_policy_is_read_from_a_file(tmp_path: Path) -> None:
    """A policy file gives the policy, and a guard can be made of it at once."""
    file = tmp_path / "misstep.yaml"
    file.write_text(WHOLE, encoding="utf-8")
    assert load_policy(file) == load_policy(str(file)) == TWIN
    assert Guard.from_file(file).policy == TWIN


def content(tmp_path: Path, data: bytes | None) -> Path:
    """A file with these bytes, or none at all."""
    file = tmp_path / "misstep.yaml"
    if data is not None:
        file.write_bytes(data)
    return file


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, "cannot be read: No such file"),
        (b"version: 1\n#" + b"x" * 1_000_001, "larger than 1 MB"),
        (b"version: \xff\xfe", "is not UTF-8 text. Save it as UTF-8"),
        (b"\x00\x01", "is not valid YAML"),
    ],
    ids=["missing", "huge", "not UTF-8", "binary"],
)
def test_files_that_are_no_policy(tmp_path: Path, data: bytes | None, said: str) -> None:
    """A file that cannot be a policy is named, with the reason."""
    file = content(tmp_path, data)
    with pytest.raises(PolicyError, match=re.escape(said)) as caught:
        load_policy(file)
    assert str(file) in str(caught.value)


def test_a_folder_is_no_policy(tmp_path: Path) -> None:
    """A folder in the place of a file is a mistake as well."""
    with pytest.raises(PolicyError, match="cannot be read"):
        load_policy(tmp_path)


# -- whatever is written ----------------------------------------------------------------------------------------------


def parsed(text: str) -> Policy | None:
    """The policy of a text, or None where it has a mistake; anything else that is raised is a bug."""
    caught: PolicyError | None = None
    try:
        return parse_policy(text)
    except PolicyError as error:
        caught = error
    assert caught.mistakes
    assert all(mistake.line is None or mistake.line >= 1 for mistake in caught.mistakes)
    return None


@given(st.text())
@examples(200)
def test_any_text_is_a_policy_or_a_mistake(text: str) -> None:
    """Whatever text is given, reading it raises nothing but a PolicyError."""
    parsed(text)


@given(st.data())
@examples(200)
def test_any_change_to_a_policy_is_a_policy_or_a_mistake(data: st.DataObject) -> None:
    """However a valid policy is mangled, reading it raises nothing but a PolicyError."""
    text = WHOLE
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 12)))
        put = data.draw(
            st.sampled_from(["", "\n", ":", " ", "- ", "&a ", "*a", "!!int ", "!!set ", "<<: ", "~", "{", "]", "1e999"])
            | st.text(max_size=4)
        )
        text = text[:start] + put + text[end:]
    parsed(text)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from([*map(str, Kind)]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["with", "ladder", "limit", "kind", "refuse", "on_guard_failure"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([LOOP, ARGUMENT, FAILURE, *AnomalyType]), VALUES, max_size=3), VALUES)
@examples(200)
def test_any_values_are_a_policy_or_a_mistake(rules: dict[str, Any], mode: object) -> None:
    """Whatever values stand in the places of a policy, reading them raises nothing but a PolicyError."""
    policy = parsed(json.dumps({"version": 1, "mode": mode, "rules": rules}))
    if policy is not None:
        Guard(policy)
