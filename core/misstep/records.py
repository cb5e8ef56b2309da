"""Records: events on the wire, one JSON object a line, each with the version of the format."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from misstep.events import AnyEvent, Event

VERSION = 1
"""Kinds and fields are only ever added; a change that is more than that would be version 2."""

_DEEPEST = 50


@dataclass(frozen=True, slots=True)
class UnknownRecord:
    """A record of a kind this version does not know: kept as it is, and skipped."""

    kind: str
    record: dict[str, Any]


@functools.cache
def _adapter() -> TypeAdapter[Any]:
    return TypeAdapter(Annotated[AnyEvent, Field(discriminator="kind")])


def to_record(event: Event) -> dict[str, Any]:
    """An event as a JSON object; fields at their default are left out, and what JSON cannot hold is described."""
    try:
        fields = _adapter().dump_python(event, mode="json", exclude_defaults=True, warnings=False)
    except (ValueError, RecursionError):  # a host may put anything into the arguments of a call
        fields = _described(event)
    return {"v": VERSION, "kind": event.kind, **fields}  # type: ignore[attr-defined]


def from_record(record: dict[str, Any]) -> Event | UnknownRecord:
    """The event a record holds. Raises ValueError where a known kind lacks a field or holds a wrong one."""
    kind = str(record.get("kind"))
    try:
        return _adapter().validate_python({name: value for name, value in record.items() if name != "v"})  # type: ignore[no-any-return]
    except ValidationError as error:
        if error.errors()[0]["type"] in ("union_tag_invalid", "union_tag_not_found"):
            return UnknownRecord(kind, record)
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"record of kind `{kind}`: `{place}`: {first['msg']}") from error


def _described(value: Any, depth: int = 0) -> Any:
    """A value in JSON's terms; what has none, or lies too deep, by the name of its type."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case _ if depth > _DEEPEST:
            return f"<{type(value).__name__}>"
        case Mapping():
            return {str(name): _described(inner, depth + 1) for name, inner in value.items()}
        case list() | tuple():
            return [_described(inner, depth + 1) for inner in value]
        case _ if dataclasses.is_dataclass(value):
            fields = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
            return {name: _described(inner, depth + 1) for name, inner in fields}
        case _:
            return f"<{type(value).__name__}>"


def to_line(record: dict[str, Any]) -> str:
    """A record as one line of JSON."""
    return json.dumps(record, ensure_ascii=False, default=str)
