"""
Langfuse: a trace with its `observations`, or a list of observations, as its API gives them out.

What its SDK sends are OpenTelemetry spans, which `otlp` reads; the meaning of an observation is told here for both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from misstep.errors import TraceError
from misstep.importers import fields
from misstep.importers.spans import Kind, Span, made
from misstep.importers.spoken import offered, parsed_or_text, replied, shown
from misstep.importers.times import seconds
from misstep.importers.trace import Importer, Trace
from misstep.importers.turns import asked

NAME = "langfuse"

Fields: TypeAlias = Mapping[object, object]

_KINDS: dict[str, Kind] = {"generation": "model", "agent": "agent", "tool": "tool", "retriever": "retrieval"}


def matches(document: object) -> bool:
    """An object with `observations`, a page of the API, or a list of observations."""
    items = _observations(document)
    return isinstance(items, list) and bool(items) and _is_observation(items[0])


def _is_observation(item: object) -> bool:
    return isinstance(item, dict) and "startTime" in item and isinstance(item.get("type"), str) and "id" in item


def _observations(document: object) -> object:
    if not isinstance(document, dict):
        return document
    return document.get("observations", document.get("data"))


def gather(documents: list[object]) -> list[object]:
    """One list of observations for each trace in some documents."""
    traces: dict[str, list[object]] = {}
    for document in documents:
        for item in _list(document):
            traces.setdefault(fields.text(item.get("traceId")), []).append(item)
    return list(traces.values())


def read(document: object, label: str = "") -> Trace:
    """The trace; a step is an observation's rank by start time. Raises `TraceError`."""
    return made(NAME, label, [_span(item) for item in _list(document)])


def _list(document: object) -> list[Fields]:
    items = [document] if _is_observation(document) else _observations(document)
    if not isinstance(items, list):
        raise TraceError("unknown_format", f"its observations must be a list, found {fields.kind(items)}")
    for place, item in enumerate(items):
        if not isinstance(item, dict):
            raise TraceError("unknown_format", f"observation {place} must be an object, found {fields.kind(item)}")
    return items


def _span(item: Fields) -> Span:
    kind = fields.text(item.get("type"))
    failed = item.get("level") == "ERROR"
    start = seconds(item.get("startTime"))
    return Span(
        id=fields.text(item.get("id")),
        parent=fields.text(item.get("parentObservationId")),
        start=start,
        end=max(seconds(item.get("endTime")), start),
        error=(fields.words(item.get("statusMessage")) or "failed") if failed else None,
        **work(kind, fields.text(item.get("name")), item.get("input"), item.get("output")),
    )


def work(kind: str, name: str, given: object, found: object) -> dict[str, Any]:
    """What an observation of a kind did, as the fields of a span; text that holds JSON is read as JSON."""
    given, found = parsed_or_text(given), parsed_or_text(found)
    match _KINDS.get(kind.lower(), "other"):
        case "model":
            tools = offered(given) or None
            return {"kind": "model", "heard": shown(given), "said": replied(found), "tools": tools}
        case "agent":
            said = replied(found) if found is not None else ()
            return {"kind": "agent", "name": name, "agent": name, "heard": shown(given), "said": said}
        case "tool":
            return {"kind": "tool", "call": asked("", name, given), **result(found)}
        case "retrieval":
            return {"kind": "retrieval", "query": query(given), "documents": documents(found)}
        case _:
            return {"kind": "other", "name": name}


def result(found: object) -> dict[str, Any]:
    """What a tool gave back: words, or a LangChain message that says which call it answers."""
    inner = found.get("output", found) if isinstance(found, dict) else found
    turns = shown([inner]) if isinstance(inner, dict) else ()
    if turns and turns[0].part == "tool":
        error = {"error": turns[0].content} if turns[0].failed else {}
        return {"output": turns[0].content, "answered": turns[0].answers, **error}
    return {"output": None if found is None else fields.words(inner)}


def query(given: object) -> str:
    """What a retriever was asked."""
    return fields.words(given.get("query", given) if isinstance(given, dict) else given)


def documents(found: object) -> tuple[str, ...]:
    """The texts a retriever found."""
    items = found.get("documents", found.get("output", found)) if isinstance(found, dict) else found
    return tuple(_text(item) for item in items) if isinstance(items, list) else (fields.words(items),) if items else ()


def _text(item: object) -> str:
    kept = item.get("kwargs", item) if isinstance(item, dict) else item
    if isinstance(kept, dict):
        for name in ("page_content", "content", "text"):
            if isinstance(kept.get(name), str):
                return fields.text(kept[name])
    return fields.words(kept)


IMPORTER = Importer(NAME, "Langfuse's observations, bare, in a trace or in a page of its API", matches, read, gather)
