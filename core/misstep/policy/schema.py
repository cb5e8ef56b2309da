"""
The JSON schema of policies, for editors.

It is asked of the models themselves: which ways to write a rung are accepted is tried out on `Rung`, and a rule's
thresholds are the fields of its detector, so the schema follows whatever this version accepts.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from misstep.decisions import Kind
from misstep.detectors import Detector, known_detectors
from misstep.policy.model import Mode, Policy, Rule, Rung, threshold_types
from misstep.taxonomy import AnomalyType, taxonomy

Schema = dict[str, Any]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_NULL: Schema = {"type": "null"}


def schema() -> Schema:
    """
    The schema of a policy file (JSON Schema 2020-12).

    Every policy the parser accepts is valid, as long as its numbers are not written as texts. What relates several
    values (a threshold's upper bound, two rungs of a ladder) is only checked by the parser.
    """
    whole = Policy.model_json_schema()
    detectors = known_detectors()
    rules = {
        type_.value: _rule(type_, detectors.get(type_))
        for type_ in AnomalyType
        if type_ in detectors or type_ is AnomalyType.GUARD_FAILURE
    }
    mode = {"enum": [*get_args(Mode), False], "default": "enforce"}  # `off` is false to a parser of YAML 1.1
    properties = whole["properties"] | {
        "mode": mode,
        "rules": {"type": "object", "properties": rules, "additionalProperties": False},
    }
    return {
        "$schema": _DIALECT,
        "title": "misstep policy",
        "type": "object",
        "properties": {name: _untitled(each) for name, each in properties.items()},
        "required": ["version"],
        "additionalProperties": False,
        "$defs": {"ladder": _ladder()},
    }


def _rule(type_: AnomalyType, detector: type[Detector] | None) -> Schema:
    own = {name: _untitled(each) for name, each in Rule.model_json_schema(by_alias=True)["properties"].items()}
    thresholds = _thresholds(detector)
    return {
        "description": taxonomy()[type_].definition,
        "type": "object",
        "properties": own | {"with": thresholds, "thresholds": thresholds, "ladder": {"$ref": "#/$defs/ladder"}},
        "not": {"required": ["with", "thresholds"]},
        "additionalProperties": False,
    }


def _thresholds(detector: type[Detector] | None) -> Schema:
    fields = dataclasses.fields(detector) if detector is not None else ()  # type: ignore[arg-type]
    types = threshold_types(detector) if detector is not None else {}
    return {
        "type": "object",
        "properties": {field.name: _threshold(types[field.name], field.default) for field in fields},
        "additionalProperties": False,
    }


def _threshold(type_: Any, default: Any) -> Schema:
    plain = isinstance(default, int | float) and not isinstance(default, bool)
    above_zero = {"exclusiveMinimum": 0} if plain else {}
    return {**TypeAdapter(type_).json_schema(), **above_zero, **_default(default)}


def _default(default: Any) -> Schema:
    """A default as JSON has it; none where it is made anew each time, or is no limit at all."""
    if default is dataclasses.MISSING or default == math.inf:
        return {}
    return {"default": list(default) if isinstance(default, tuple) else default}


def _ladder() -> Schema:
    """A ladder: each rung a decision, a decision with its limit or its options, or all of it by name."""
    found = Rung.model_json_schema()
    definitions = found.get("$defs", {})
    options = {
        name: _plain(each, definitions) for name, each in found["properties"].items() if name not in ("kind", "$defs")
    }
    bare: list[str] = []
    short: dict[str, Schema] = {}
    whole: list[Schema] = []
    for kind in Kind:
        accepted = [chosen for chosen in _subsets(options) if _accepts({"kind": kind.value, **_samples(chosen)})]
        if not accepted:
            continue
        needed = frozenset.intersection(*map(frozenset, accepted))
        fitting = {
            name: options[name] if name in needed else {"anyOf": [options[name], _NULL]}
            for name in options
            if any(name in chosen for chosen in accepted)
        }
        if _accepts(kind.value):
            bare.append(kind.value)
        short[kind.value] = {"anyOf": list(_shorthand(kind.value, fitting, needed, accepted))}
        whole.append(_object({"kind": {"const": kind.value}, **fitting}, ["kind", *sorted(needed)]))
    one = {"type": "object", "properties": short, "additionalProperties": False, "minProperties": 1, "maxProperties": 1}
    return {"anyOf": [{"type": "array", "items": {"anyOf": [{"enum": bare}, one, *whole]}}, _NULL]}


def _shorthand(
    kind: str, fitting: Mapping[str, Schema], needed: Iterable[str], accepted: list[Schema]
) -> Iterable[Schema]:
    """What may stand behind a decision: its limit, nothing, its options."""
    if _accepts({kind: 1}):
        yield fitting["limit"] if _accepts({kind: None}) else {"type": "integer", "minimum": 1}
    if any(_accepts({kind: _samples(chosen)}) for chosen in accepted if chosen):
        yield _object(fitting, sorted(needed))


def _object(properties: Mapping[str, Schema], required: list[str]) -> Schema:
    return {"type": "object", "properties": dict(properties), "required": required, "additionalProperties": False}


def _subsets(options: Mapping[str, Schema]) -> list[Schema]:
    return [dict(chosen) for size in range(len(options) + 1) for chosen in combinations(options.items(), size)]


def _samples(options: Mapping[str, Schema]) -> dict[str, Any]:
    return {name: _sample(each) for name, each in options.items()}


def _sample(option: Schema) -> Any:
    """A value an option's own schema accepts."""
    if "enum" in option:
        return option["enum"][0]
    if option.get("type") == "string":
        return "x" * max(option.get("minLength", 0), 1)
    return max(option.get("minimum", 1), 1)


def _accepts(rung: object) -> bool:
    try:
        Rung.model_validate(rung)
    except ValidationError:
        return False
    return True


def _plain(option: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """The schema of an option that is given: without its default, and without the null of one that is not."""
    given = [each for each in option.get("anyOf", [option]) if each != _NULL]
    (only,) = given
    if "$ref" in only:
        only = definitions[only["$ref"].rpartition("/")[2]]
    return {name: value for name, value in only.items() if name not in ("title", "default", "description")}


def _untitled(field: Schema) -> Schema:
    return {name: value for name, value in field.items() if name != "title"}
