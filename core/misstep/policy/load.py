"""Reading a policy: YAML in, a `Policy` out, or every mistake with its line and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from misstep.decisions import Kind
from misstep.errors import PolicyError, PolicyMistake
from misstep.policy.model import Policy, Rule, Rung
from misstep.side_effects import SideEffect
from misstep.taxonomy import AnomalyType

Path_ = tuple[str | int, ...]

_MAX_BYTES = 1_000_000


def load_policy(path: str | Path) -> Policy:
    """Read a policy file. Raises `PolicyError` with all its mistakes."""
    file = Path(path)
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise PolicyError(str(path), [_mistake((), None, "larger than 1 MB", "This is no policy file")])
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
        raise PolicyError(str(path), [_mistake((), None, f"cannot be read: {reason}", "Check the path")]) from error
    except UnicodeDecodeError as error:
        raise PolicyError(str(path), [_mistake((), None, "is not UTF-8 text", "Save it as UTF-8")]) from error
    return parse_policy(text, source=str(path))


def parse_policy(text: str, source: str = "<policy>") -> Policy:
    """Read a policy from YAML text; `source` names it in errors."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        document = yaml.safe_load(text)
    except Exception as error:  # beside YAMLError also what PyYAML's constructors trip over: `!!int ""`, `!!bool x`
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or type(error).__name__
        line = mark.line + 1 if mark else None
        raise PolicyError(source, [_mistake((), line, f"is not valid YAML: {problem}", "Mend the syntax")]) from error
    if not isinstance(document, dict):
        found = "nothing" if document is None else type(document).__name__
        remedy = "Start with `version: 1` and `rules:`"
        raise PolicyError(source, [_mistake((), 1, f"must be a mapping, found {found}", remedy)])

    lines: dict[Path_, int] = {}
    repeated: list[PolicyMistake] = []
    _walk(node, (), lines, repeated, set())
    mistakes = [*repeated]
    if "version" not in document:
        mistakes.append(_mistake(("version",), 1, "is missing", "Write `version: 1`"))
    try:
        policy = Policy.model_validate(document)
    except ValidationError as error:
        mistakes.extend(mistake for found in error.errors() for mistake in _translated(dict(found), lines))
    if mistakes:
        raise PolicyError(source, mistakes)
    return policy


def _walk(
    node: yaml.Node | None, at: Path_, lines: dict[Path_, int], repeated: list[PolicyMistake], seen: set[int]
) -> None:
    """The line of every key and item, and the keys written twice (YAML would silently keep the last)."""
    if node is None or len(at) > 8 or id(node) in seen:  # an alias is one node in many places
        return
    seen.add(id(node))
    lines.setdefault(at, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*at, str(key.value))
            line = key.start_mark.line + 1
            if here in lines:
                repeated.append(_mistake(here, line, f"written twice, first in line {lines[here]}", "Keep one"))
            lines[here] = line
            _walk(value, here, lines, repeated, seen)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _walk(item, (*at, index), lines, repeated, seen)


def _translated(error: Mapping[str, Any], lines: Mapping[Path_, int]) -> list[PolicyMistake]:
    """A pydantic error in the policy's own terms; that of a validator may hold several mistakes."""
    at: Path_ = tuple(part for part in error["loc"] if part != "[key]")
    message = str(error["msg"]).removeprefix("Value error, ")
    if "||" not in message:
        return [_one(error, at, message, lines)]
    places = (line.split("||", 1) for line in message.splitlines())
    return [_one(error, (*at, *place.split(".")), problem, lines) for place, problem in places]


def _one(error: Mapping[str, Any], at: Path_, message: str, lines: Mapping[Path_, int]) -> PolicyMistake:
    given = error.get("input")
    kind = str(error["type"])
    if kind == "extra_forbidden":
        field = str(at[-1])
        names = list(Policy.model_fields) if len(at) == 1 else _RULE_KEYS if len(at) == 3 else list(Rung.model_fields)
        return _mistake(at, _line(at, lines), f"unknown key `{field}`", _near(field, names))
    if kind == "enum" and at[-1:] == ("kind",):
        return _mistake(at[:-1], _line(at, lines), f"unknown decision {given!r}", _near(str(given), _KINDS))
    if kind == "enum" and at[:1] == ("side_effects",):
        return _mistake(at, _line(at, lines), f"unknown class {given!r}", _near(str(given), list(SideEffect)))
    if kind == "enum":
        types = [type_.value for type_ in AnomalyType]
        return _mistake(at, _line(at, lines), f"unknown anomaly type {given!r}", _near(str(given), types))
    shown = "" if isinstance(given, dict | list) or "found" in message else f", found {given!r}"
    return _mistake(
        at, _line(at, lines), f"{message[:1].lower()}{message[1:]}{shown}", "See `misstep taxonomy` and README"
    )


_KINDS = [kind.value for kind in Kind if kind is not Kind.ALLOW]
_RULE_KEYS = [field.alias or name for name, field in Rule.model_fields.items()]


def _near(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"Did you mean `{close[0]}`?" if close else f"Known: {', '.join(known)}"


def _line(at: Path_, lines: Mapping[Path_, int]) -> int | None:
    while at and at not in lines:
        at = at[:-1]
    return lines.get(at)


def _mistake(at: Path_, line: int | None, problem: str, remedy: str) -> PolicyMistake:
    return PolicyMistake(".".join(str(part) for part in at) or "policy", line, problem, remedy)
