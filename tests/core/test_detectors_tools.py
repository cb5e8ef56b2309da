"""Calls that cannot be carried out, as tables: of no tool there is, with the wrong arguments, unreadable."""

from __future__ import annotations

import json
from typing import Any

import pytest

from misstep.detectors import InvalidArguments, MalformedCall, UnknownTool
from misstep.detectors.tools import tolerantly
from misstep.events import Event, ProposedCall, Tool
from misstep.taxonomy import Severity
from tests.core.scenes import declared, judged, proposed, replied, requested, returned, tool

BOOK = Tool(
    "book",
    "Books a flight.",
    {
        "type": "object",
        "properties": {
            "user": {"type": "string"},
            "seats": {"type": "integer", "minimum": 1},
            "price": {"type": "number"},
            "meal": {"type": "boolean"},
            "cabin": {"enum": ["economy", "business"]},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "limit": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            "payment": {"$ref": "#/$defs/payment"},
            "flights": {"type": "array", "items": {"$ref": "#/$defs/flight"}},
        },
        "required": ["user"],
        "additionalProperties": False,
        "$defs": {
            "payment": {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]},
            "flight": {"type": "object", "properties": {"number": {"type": "string"}, "day": {"type": "integer"}}},
        },
    },
)


# -- tools there are none of ------------------------------------------------------------------------------------------

UNKNOWN: list[tuple[str, list[Event], int]] = [
    ("none of the tools", [declared(tool("search")), requested("c1", "serach")], 1),
    ("no name at all", [declared(tool("search")), requested("c1", "")], 1),
    ("another case", [declared(tool("search")), requested("c1", "Search")], 1),
    ("each time", [declared(tool("search")), requested("c1", "x"), requested("c2", "x")], 2),
    ("proposed in a reply", [declared(tool("search")), replied("", proposed("c1", "x"), proposed("c2"))], 1),

    ("one of the tools", [declared(tool("search")), requested("c1", "search")], 0),
    ("one of another agent's tools", [declared(tool("a"), instance="x"), declared(tool("b"), instance="y"),
                                      requested("c1", "a", instance="y")], 0),
    ("an agent nobody told about", [declared(tool("a"), instance="x"), requested("c1", "b", instance="y")], 0),
    ("no tools declared", [requested("c1", "b")], 0),
    ("a list that is empty", [declared(), requested("c1", "b")], 0),
    ("a tool given up since", [declared(tool("a"), tool("b")), declared(tool("a")), requested("c1", "b")], 0),
    ("before the guard came", [declared(tool("a")), requested("c1", "b", history=True)], 0),
]  # fmt: skip


@pytest.mark.parametrize(("events", "times"), [row[1:] for row in UNKNOWN], ids=[row[0] for row in UNKNOWN])
def test_unknown_tools(events: list[Event], times: int) -> None:
    """A tool is unknown where the agent was given tools and nobody in the run was ever given this one."""
    assert len(judged(UnknownTool(), events)) == times


# -- arguments that do not fit ----------------------------------------------------------------------------------------

INVALID: list[tuple[str, dict[str, Any], str, dict[str, Any] | None]] = [
    ("one is missing", {"seats": 2}, "user", None),
    ("unknown", {"user": "a", "colour": "red"}, "colour", None),
    ("no whole number", {"user": "a", "seats": 1.5}, "seats", None),
    ("too small", {"user": "a", "seats": 0}, "seats", None),
    ("no number", {"user": "a", "seats": "two"}, "seats", None),
    ("not a choice", {"user": "a", "cabin": "first"}, "cabin", None),
    ("deep inside", {"user": "a", "payment": {"id": 1.5}}, "payment", None),
    ("missing deep inside", {"user": "a", "payment": {}}, "payment", None),
    ("in a list", {"user": "a", "flights": [{"number": "A1"}, {"number": []}]}, "flights", None),
    ("text for an object", {"user": "a", "payment": "card"}, "payment", None),
    ("an object as text that does not fit", {"user": "a", "payment": '{"no": 1}'}, "payment", None),
    ("null for what is required", {"user": None}, "user", None),
    ("one to mend, one not", {"user": "a", "seats": "2", "price": "cheap"}, "seats", None),
    ("yes for a truth value", {"user": "a", "meal": "yes"}, "meal", None),

    ("digits for a whole number", {"user": "a", "seats": "2"}, "seats", {"user": "a", "seats": 2}),
    ("digits where null is allowed", {"user": "a", "limit": "2"}, "limit", {"user": "a", "limit": 2}),
    ("digits for a number", {"user": "a", "price": " 9.50 "}, "price", {"user": "a", "price": 9.5}),
    ("a truth value as text", {"user": "a", "meal": "True"}, "meal", {"user": "a", "meal": True}),
    ("a number for a text", {"user": 7}, "user", {"user": "7"}),
    ("null for what may be left out", {"user": "a", "seats": None}, "seats", {"user": "a"}),
    ("an object as text", {"user": "a", "payment": '{"id": "c1"}'}, "payment", {"user": "a", "payment": {"id": "c1"}}),
    ("a list as text", {"user": "a", "flights": '[{"day": 1}]'}, "flights", {"user": "a", "flights": [{"day": 1}]}),
    ("a choice in other case", {"user": "a", "cabin": "Economy"}, "cabin", {"user": "a", "cabin": "economy"}),
    ("several", {"user": 7, "seats": "2"}, "seats", {"user": "7", "seats": 2}),
    ("deep in a list", {"user": "a", "flights": [{"day": "3"}]}, "flights", {"user": "a", "flights": [{"day": 3}]}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "named", "mended"), [row[1:] for row in INVALID], ids=[row[0] for row in INVALID]
)
def test_invalid_arguments(arguments: dict[str, Any], named: str, mended: dict[str, Any] | None) -> None:
    """Arguments that break the schema are found; what was certainly meant comes along, and then it only informs."""
    (anomaly,) = judged(InvalidArguments(), [declared(BOOK), requested("c1", "book", arguments=arguments)])
    assert named in anomaly.message
    assert anomaly.facts["tool"] == "book"
    assert anomaly.rewrite == mended
    assert anomaly.weight is (Severity.MEDIUM if mended is None else Severity.INFO)


VALID: list[tuple[str, Tool, dict[str, Any]]] = [
    ("all that is required", BOOK, {"user": "a"}),
    ("everything", BOOK, {"user": "a", "seats": 2, "price": 9, "meal": False, "cabin": "business", "note": None,
                          "payment": {"id": "c1", "more": 1}, "flights": []}),
    ("a whole number with a point", BOOK, {"user": "a", "seats": 2.0}),
    ("no schema", Tool("book"), {"anything": 1}),
    ("a schema that is none", Tool("book", "", {"type": "objekt"}), {"anything": 1}),
    ("a schema that is elsewhere", Tool("book", "", {"$ref": "http://schema.test/x.json"}), {"anything": 1}),
    ("a schema that cannot be written down", Tool("book", "", {"default": object()}), {"anything": 1}),
    ("arguments that are no JSON", BOOK, {"user": object()}),
    ("another tool", tool("other"), {"seats": "x"}),
]  # fmt: skip


@pytest.mark.parametrize(("known", "arguments"), [row[1:] for row in VALID], ids=[row[0] for row in VALID])
def test_valid_arguments(known: Tool, arguments: dict[str, Any]) -> None:
    """What fits is silent; so is what cannot be judged: no schema, a broken or remote one, the host's own objects."""
    assert judged(InvalidArguments(), [declared(known), requested("c1", "book", arguments=arguments)]) == []


def test_the_schema_in_force_is_the_callers_own() -> None:
    """Two agents may have different tools of one name; each is held to its own, as last declared."""
    loose, strict = Tool("book", "", {"properties": {}}), BOOK
    events = [
        declared(loose, instance="x"),
        declared(strict, instance="y"),
        requested("c1", "book", instance="x"),
        requested("c2", "book", instance="y"),
        declared(loose, instance="y"),
        requested("c3", "book", instance="y"),
    ]
    assert len(judged(InvalidArguments(), events)) == 1


def test_mending_changes_nothing_that_was_asked() -> None:
    """The mended arguments are a copy."""
    asked = {"user": "a", "seats": "2", "flights": [{"day": "3"}]}
    (anomaly,) = judged(InvalidArguments(), [declared(BOOK), requested("c1", "book", arguments=asked)])
    assert asked == {"user": "a", "seats": "2", "flights": [{"day": "3"}]}
    assert anomaly.rewrite == {"user": "a", "seats": 2, "flights": [{"day": 3}]}


def test_a_pattern_cannot_stop_the_guard() -> None:
    """A schema's regular expression may go back only so often."""
    slow = Tool("book", "", {"properties": {"a": {"type": "string", "pattern": "^(a+)+$(?=x)"}}})
    judged(InvalidArguments(), [declared(slow), requested("c1", "book", arguments={"a": "a" * 40 + "b"})])


# -- calls that cannot be read ----------------------------------------------------------------------------------------

RAW: list[tuple[str, str, dict[str, Any] | None]] = [
    ("a trailing comma", '{"a": 1, "b": [1, 2,],}', {"a": 1, "b": [1, 2]}),
    ("a comma in a text", '{"a": "x,}", }', {"a": "x,}"}),
    ("Python's quotes", "{'a': 'it', 'b': None, 'c': True}", {"a": "it", "b": None, "c": True}),
    ("a code fence", '```json\n{"a": 1}\n```', {"a": 1}),
    ("a bare fence", '```\n{"a": 1}\n```', {"a": 1}),
    ("JSON in JSON", json.dumps('{"a": 1}'), {"a": 1}),
    ("cut short", '{"a": "x", "b": ', None),
    ("cut short in a text", '{"a": "x', None),
    ("two objects", '{"a": 1}{"b": 2}', None),
    ("a list", "[1, 2]", None),
    ("words", "search for x", None),
    ("nothing", "", None),
    ("code", "__import__('os').system('x')", None),
    ("numbers as names", "{1: 2}", None),
    ("nested without end", "[" * 5000, None),
    ("huge", '{"a": "' + "x" * 200_000 + '",}', None),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "meant"), [row[1:] for row in RAW], ids=[row[0] for row in RAW])
def test_arguments_that_cannot_be_read(raw: str, meant: dict[str, Any] | None) -> None:
    """Unreadable arguments are found, with what they certainly mean; text cut short means nothing for certain."""
    (anomaly,) = judged(MalformedCall(), [replied("", ProposedCall("c1", "search", None, raw))])
    assert anomaly.rewrite == tolerantly(raw) == meant
    assert "`search`" in anomaly.message


CALL = '{"name": "search", "arguments": {"q": "x"}}'
WRITTEN: list[tuple[str, Event, int]] = [
    ("a call as text", replied(CALL), 1),
    ("in a fence", replied(f"```json\n{CALL}\n```"), 1),
    ("between tags", replied(f"Let me see.\n<tool_call>\n{CALL}\n</tool_call>"), 1),
    ("with parameters", replied('{"tool": "search", "parameters": {}}'), 1),

    ("an example in prose", replied(f"You would write {CALL} to search."), 0),
    ("of no tool", replied('{"name": "Ann", "arguments": {"a": 1}}'), 0),
    ("without arguments", replied('{"name": "search", "hits": 3}'), 0),
    ("an answer in JSON", replied('{"answer": "search"}'), 0),
    ("a broken one", replied('{"name": "search", "arguments": }'), 0),
    ("beside a proper call", replied(CALL, proposed()), 0),
    ("words", replied("I used search."), 0),
    ("readable arguments", requested("c1", arguments={"q": "{"}), 0),
    ("a result", returned("c1", CALL), 0),
]  # fmt: skip


@pytest.mark.parametrize(("event", "times"), [row[1:] for row in WRITTEN], ids=[row[0] for row in WRITTEN])
def test_calls_written_as_text(event: Event, times: int) -> None:
    """A reply that is nothing but a call of a tool the model has is a call that was written wrongly; prose is prose."""
    assert len(judged(MalformedCall(), [declared(tool("search")), event])) == times


def test_without_tools_nothing_is_a_call() -> None:
    """Of a model that was given no tools, JSON is an answer."""
    assert judged(MalformedCall(), [replied(CALL)]) == []
