"""Arguments that a tool's JSON schema accepts: the smallest there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_DEEP = 8
_PLAIN: Mapping[str, Any] = {"boolean": True, "null": None}


def arguments_for(schema: Mapping[str, Any], agent: str | None = None) -> dict[str, Any]:
    """
    One value for each property of an object's schema (JSON Schema 2020-12: types, enums, constants, references,
    unions, least lengths and bounds). `agent` is the value of every text that may name whom a call hands over to.
    """
    return {
        name: agent if agent is not None and _names_agent(name) else _value(each, schema, _DEEP)
        for name, each in (schema.get("properties") or {}).items()
    }


def _names_agent(name: str) -> bool:
    return name in ("coworker", "agent", "agent_name", "to")


def _value(schema: Any, root: Mapping[str, Any], depth: int) -> Any:
    if not isinstance(schema, Mapping) or not depth:
        return "canary"
    if "$ref" in schema:
        return _value(_referred(str(schema["$ref"]), root), root, depth - 1)
    for given in ("const", "default"):
        if given in schema:
            return schema[given]
    if schema.get("enum"):
        return schema["enum"][0]
    for union in ("anyOf", "oneOf", "allOf"):
        if schema.get(union):
            return _value(schema[union][0], root, depth - 1)
    type_ = schema.get("type")
    type_ = type_[0] if isinstance(type_, list) and type_ else type_
    if type_ == "object":
        return {name: _value(each, root, depth - 1) for name, each in (schema.get("properties") or {}).items()}
    if type_ == "array":
        return [_value(schema.get("items") or {}, root, depth - 1)] * int(schema.get("minItems", 0))
    if type_ in ("integer", "number"):
        return schema.get("minimum", schema.get("maximum", 1))
    if type_ == "string":
        return "canary".ljust(int(schema.get("minLength", 0)), "y")[: schema.get("maxLength")]
    return _PLAIN.get(str(type_), "canary")


def _referred(reference: str, root: Mapping[str, Any]) -> Any:
    found: Any = root
    for step in reference.removeprefix("#/").split("/"):
        found = found.get(step, {}) if isinstance(found, Mapping) else {}
    return found
