"""
OpenTelemetry: spans as OTLP JSON, with the attributes of the GenAI semantic conventions (`gen_ai.*`).

Messages are read from the attributes or from the spans' events, in the current form (`gen_ai.input.messages`) and the
earlier one (`gen_ai.user.message`, `gen_ai.choice`). Two dialects are understood beside them: Langfuse's
(`langfuse.observation.*`), and AutoGen's runtime, whose spans hold the messages that agents send each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from misstep.errors import TraceError
from misstep.importers import autogen, fields, langfuse
from misstep.importers.spans import Kind, Span, made
from misstep.importers.spoken import parsed_or_text, replied, shown
from misstep.importers.trace import Importer, Trace
from misstep.importers.turns import Turn, asked

NAME = "otlp"

Fields: TypeAlias = Mapping[object, object]
Attributes: TypeAlias = Mapping[str, object]

_KINDS: dict[str, Kind] = {
    "chat": "model",
    "text_completion": "model",
    "generate_content": "model",
    "invoke_agent": "agent",
    "execute_tool": "tool",
    "retrieval": "retrieval",
}
_SHOWN = ("gen_ai.input.messages", "gen_ai.prompt")
_REPLIED = ("gen_ai.output.messages", "gen_ai.completion")
_SAID = frozenset({"gen_ai.system.message", "gen_ai.user.message", "gen_ai.assistant.message", "gen_ai.tool.message"})
_CHOICE = "gen_ai.choice"
_DETAILS = "gen_ai.client.inference.operation.details"
_FAILED = ("STATUS_CODE_ERROR", 2)
_PARTICIPANT = "ChatAgentContainer"
_VALUES = ("stringValue", "boolValue", "intValue", "doubleValue", "arrayValue", "kvlistValue", "bytesValue")
_DEEPEST = 20


def matches(document: object) -> bool:
    """An object with `resourceSpans`."""
    return isinstance(document, dict) and "resourceSpans" in document


def gather(documents: list[object]) -> list[object]:
    """
    One document for each trace in some; a trace whose spans tell of no agent's work is left out, if any other does.

    A collector writes the spans of one trace over several lines; AutoGen's runtime begins a trace with every message
    of a team, unless the application has a span round its run.
    """
    traces: dict[str, list[Fields]] = {}
    for document in documents:
        for span in _spans(document):
            traces.setdefault(fields.text(span.get("traceId")), []).append(span)
    runs: dict[str, list[Fields]] = {}
    for trace, spans in traces.items():
        runs.setdefault(_team(spans) or trace, []).extend(spans)
    working = [spans for spans in runs.values() if any(_kind(_attributes(span)) != "other" for span in spans)]
    return [{"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]} for spans in working or list(runs.values())[:1]]


def _team(spans: list[Fields]) -> str:
    """What AutoGen's runtime calls the team whose messages are in some spans: the end of the names of its agents."""
    names = (_attributes(span).get("recipient_agent_type") for span in spans)
    return next((name.rpartition("_")[2] for name in names if isinstance(name, str)), "")


def read(document: object, label: str = "") -> Trace:
    """The trace; a step is a span's rank by start time. Raises `TraceError`."""
    return made(NAME, label, [_span(span) for span in _spans(document)])


def _spans(document: object) -> Iterator[Fields]:
    for resource in _objects(document, "resourceSpans"):
        for scope in _objects(resource, "scopeSpans"):
            yield from _objects(scope, "spans")


def _objects(holder: object, name: str) -> list[Fields]:
    items = holder.get(name, []) if isinstance(holder, dict) else holder
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise TraceError("unknown_format", f"`{name}` must be a list of objects, found {fields.kind(items)}")
    return items


def _attributes(holder: Fields) -> dict[str, object]:
    """The attributes of a span or event as plain values."""
    given = holder.get("attributes")
    pairs = [pair for pair in given if isinstance(pair, dict)] if isinstance(given, list) else []
    return {fields.text(pair.get("key")): _value(pair.get("value")) for pair in pairs}


def _value(given: object, depth: int = 0) -> object:
    name = next((name for name in _VALUES if name in given), "") if isinstance(given, dict) else ""
    if not isinstance(given, dict) or not name or depth > _DEEPEST:
        return None
    value = given[name]
    inner = value.get("values") if isinstance(value, dict) else None
    items = [item for item in inner if isinstance(item, dict)] if isinstance(inner, list) else []
    match name:
        case "arrayValue":
            return [_value(item, depth + 1) for item in items]
        case "kvlistValue":
            return {fields.text(item.get("key")): _value(item.get("value"), depth + 1) for item in items}
        case _:
            return value


def _span(span: Fields) -> Span:
    attributes = _attributes(span)
    start = _nanoseconds(span.get("startTimeUnixNano"))
    return Span(
        id=fields.text(span.get("spanId")),
        parent=fields.text(span.get("parentSpanId")),
        start=start,
        end=max(_nanoseconds(span.get("endTimeUnixNano")), start),
        error=_error(span, attributes),
        **_work(span, attributes),
    )


def _nanoseconds(given: object) -> int:
    """A time of OTLP: a 64-bit number, in JSON mostly as text; 0 where there is none."""
    digits = str(given) if isinstance(given, int | str) and not isinstance(given, bool) else ""
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 21 else 0


def _error(span: Fields, attributes: Attributes) -> str | None:
    status = span.get("status")
    if not isinstance(status, dict) or status.get("code") not in _FAILED:
        return None
    return fields.text(status.get("message")) or fields.text(attributes.get("error.type")) or "failed"


def _kind(attributes: Attributes) -> Kind:
    operation = attributes.get("gen_ai.operation.name")
    if isinstance(operation, str):
        return _KINDS.get(operation, "other")
    if isinstance(kind := attributes.get("langfuse.observation.type"), str):
        found: Kind = langfuse.work(kind, "", None, None)["kind"]
        return found
    return "messages" if _passed(attributes) else "other"


def _work(span: Fields, attributes: Attributes) -> dict[str, Any]:
    if "gen_ai.operation.name" not in attributes and "langfuse.observation.type" in attributes:
        return langfuse.work(
            fields.text(attributes["langfuse.observation.type"]),
            fields.text(span.get("name")),
            attributes.get("langfuse.observation.input"),
            attributes.get("langfuse.observation.output"),
        )
    agent = fields.text(attributes.get("gen_ai.agent.name")).strip()
    match _kind(attributes):
        case "tool":
            return {"kind": "tool", "agent": agent, **_tool(attributes)}
        case "retrieval":
            query = fields.words(attributes.get("gen_ai.retrieval.query.text"))
            found = parsed_or_text(attributes.get("gen_ai.retrieval.documents"))
            return {"kind": "retrieval", "agent": agent, "query": query, "documents": langfuse.documents(found)}
        case "messages":
            return {"kind": "messages", "said": _passed(attributes)}
        case "other":
            return {"kind": "other"}
        case kind:
            return {"kind": kind, "agent": agent, **_spoken(span, attributes)}


def _tool(attributes: Attributes) -> dict[str, Any]:
    given = attributes.get("gen_ai.tool.call.arguments")
    call = asked(attributes.get("gen_ai.tool.call.id"), attributes.get("gen_ai.tool.name"), given)
    found = attributes.get("gen_ai.tool.call.result")
    return {"call": call, "output": None if found is None else fields.words(found), "recorded": given is not None}


def _spoken(span: Fields, attributes: Attributes) -> dict[str, Any]:
    """What a model was shown and what it said, from the attributes, else from the span's events."""
    given = span.get("events")
    events = [event for event in given if isinstance(event, dict)] if isinstance(given, list) else []
    details = (_attributes(event) for event in events if event.get("name") == _DETAILS)
    known = {**next(details, {}), **attributes}
    heard = shown(parsed_or_text(_first(known, _SHOWN))) or _said(events)
    system = parsed_or_text(known.get("gen_ai.system_instructions"))
    if system:
        heard = (Turn(0, "system", "system", fields.words(system)), *heard)
    replies = replied(parsed_or_text(_first(known, _REPLIED))) or _chosen(events)
    tools = fields.tools({"tools": parsed_or_text(known.get("gen_ai.tool.definitions"))})
    return {"heard": heard, "said": replies, "tools": tools or None}


def _first(attributes: Attributes, names: tuple[str, ...]) -> object:
    return next((attributes[name] for name in names if name in attributes), None)


def _said(events: Sequence[Fields]) -> tuple[Turn, ...]:
    """What a model was shown, one event a message, its role in the event's name."""
    told = [event for event in events if fields.text(event.get("name")) in _SAID]
    return tuple(turn for event in told for turn in shown([_message(event)]))


def _chosen(events: Sequence[Fields]) -> tuple[Turn, ...]:
    choices = [event for event in events if event.get("name") == _CHOICE]
    return replied([_message(event) for event in choices[:1]])


def _message(event: Fields) -> dict[str, object]:
    """The message an event of the earlier conventions tells."""
    attributes = _attributes(event)
    role = {_CHOICE: "assistant"}.get(fields.text(event.get("name"))) or fields.text(event.get("name")).split(".")[1]
    inner = parsed_or_text(attributes.get("message"))
    given = inner if isinstance(inner, dict) else attributes
    return {
        "role": role,
        "content": given.get("content"),
        "tool_calls": parsed_or_text(given.get("tool_calls")),
        "tool_call_id": given.get("id"),
    }


def _passed(attributes: Attributes) -> tuple[Turn, ...]:
    """The messages AutoGen's runtime hands to the manager of a group chat; those to its participants repeat them."""
    to = attributes.get("recipient_agent_class")
    if not isinstance(to, str) or to == _PARTICIPANT or "message" not in attributes:
        return ()
    given = parsed_or_text(attributes["message"])
    if not isinstance(given, dict):
        return ()
    items = given.get("messages", [given.get("message")])
    told = items if isinstance(items, list) else []
    return tuple(turn for item in told if autogen.is_message(item) for turn in autogen.turns_of(0, item))


IMPORTER = Importer(NAME, "OpenTelemetry's OTLP JSON, with GenAI attributes", matches, read, gather)
