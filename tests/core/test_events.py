"""Events and their records: every kind survives the way out and back, and old records stay readable."""

from __future__ import annotations

import dataclasses
import json
import typing
from pathlib import Path
from typing import Any

import pytest

from misstep import events as module
from misstep.decisions import Kind
from misstep.events import (
    AnomalyFound,
    AnyEvent,
    CheckpointRestored,
    CheckpointSaved,
    DecisionSettled,
    DecisionTaken,
    Event,
    Evidence,
    HandoffRequested,
    HistoryRewritten,
    MemoryRead,
    MemoryWritten,
    MessageSent,
    ModelFailed,
    ModelRequested,
    ModelResponded,
    ProposedCall,
    RetrievalRequested,
    RetrievalReturned,
    RunEnded,
    RunResumed,
    RunStarted,
    Tool,
    ToolCancelled,
    ToolFailed,
    ToolRequested,
    ToolReturned,
    TurnEnded,
    TurnStarted,
    Usage,
    text_of,
)
from misstep.records import VERSION, UnknownRecord, from_record, to_line, to_record
from misstep.side_effects import Classified, SideEffect
from misstep.taxonomy import AnomalyType, Category, Severity

GOLDEN = Path(__file__).parent / "golden" / "records-v1.jsonl"

CLASSES: tuple[type[Event], ...] = typing.get_args(AnyEvent)

COMMON: dict[str, Any] = {
    "run": "run-1",
    "seq": 7,
    "id": "e7",
    "parent": "e3",
    "call": "c1",
    "batch": "m1",
    "attempt": 1,
    "agent": "writer",
    "instance": "team/writer:1",
    "step": 4,
    "turn": 2,
    "time": 1767225600.5,
    "elapsed": 12.25,
    "history": True,
}
"""A value for every field all events have, none of them its default."""

LOOKUP = ProposedCall("c2", "lookup", {"id": "A12", "deep": [1, {"a": None}]})
BROKEN = ProposedCall("c3", "lookup", None, '{"id": ')
TOOL = Tool("lookup", "finds an order", {"type": "object", "properties": {"id": {"type": "string"}}})

OWN: dict[type[Event], dict[str, Any]] = {
    RunStarted: {
        "task": "Book “it” – now ☂",
        "framework": "langgraph", "framework_version": "1.2", "mode": "shadow", "thread": "t",
    },
    RunResumed: {"continues": "run-0"},
    RunEnded: {"status": "halted", "outcome": "failure", "score": 0.5, "error": "no"},
    TurnStarted: {"task": "write"},
    TurnEnded: {"content": "written"},
    ModelRequested: {"model": "m", "tools": (TOOL,), "messages": 3, "feedback": ("again",)},
    ModelResponded: {
        "content": "let me look",
        "calls": (LOOKUP, BROKEN),
        "usage": Usage(10, 20, True),
        "finish_reason": "tool_calls",
        "logprobs": (-0.5, -1.25),
        "message": "msg-1",
    },
    ModelFailed: {"error": "too many requests", "error_type": "RateLimitError"},
    ToolRequested: {
        "tool": "lookup",
        "arguments": {"id": "A12", "n": 2, "ok": True, "none": None},
        "raw": "{",
        "says": Classified(SideEffect.READ_ONLY, "code", "`@side_effect` on the tool"),
    },
    ToolReturned: {"tool": "lookup", "output": "found", "recorded": True},
    ToolFailed: {"tool": "lookup", "error": "not found", "error_type": "KeyError"},
    ToolCancelled: {"tool": "lookup", "reason": "refused", "objection": "do not"},
    MessageSent: {"role": "user", "content": "hello", "sender": "critic", "recipient": "writer", "trust": "agent"},
    HandoffRequested: {"target": "critic", "content": "yours"},
    RetrievalRequested: {"query": "refunds"},
    RetrievalReturned: {"documents": ("one", "two")},
    MemoryRead: {"key": "name", "content": "Ada"},
    MemoryWritten: {"key": "name", "content": "Ada"},
    CheckpointSaved: {"checkpoint": "cp-1"},
    CheckpointRestored: {"checkpoint": "cp-1"},
    HistoryRewritten: {"kept": 3, "dropped": 5},
    AnomalyFound: {
        "type": AnomalyType.REPEATED_CALL,
        "category": Category.ACTION,
        "severity": Severity.MEDIUM,
        "confidence": 0.9,
        "message": "again",
        "evidence": (Evidence(3, 1, "writer", "lookup"), Evidence(5)),
    },
    DecisionTaken: {
        "decision": Kind.REFUSE, "anomalies": ("e5", "e6"), "seat": "tool", "hypothetical": True, "detail": "do not",
    },
    DecisionSettled: {"decision_id": "e6", "took_effect": True, "recurred": False, "detail": "held"},
}  # fmt: skip
"""A value for every field of each kind, none of them its default."""

ADDED: dict[type[Event], tuple[str, ...]] = {ToolRequested: ("says",), ToolReturned: ("recorded",)}
"""The fields that came after the golden records were written."""

EVERY = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)


def full(cls: type[Event]) -> Event:
    """An event with every field set."""
    return cls(**COMMON, **OWN[cls])


def golden(cls: type[Event]) -> Event:
    """The event as the golden records hold it."""
    return cls(**COMMON, **{name: value for name, value in OWN[cls].items() if name not in ADDED.get(cls, ())})


def kind_of(cls: type[Event]) -> str:
    """The kind a class stands for."""
    return str(next(field.default for field in dataclasses.fields(cls) if field.name == "kind"))


@EVERY
def test_every_field_is_tried(cls: type[Event]) -> None:
    """The events these tests are made with have no field at its default."""
    event = full(cls)
    for field in dataclasses.fields(cls):
        default = field.default_factory() if callable(field.default_factory) else field.default
        assert field.name == "kind" or getattr(event, field.name) != default


@EVERY
def test_round_trip(cls: type[Event]) -> None:
    """A full event comes back from its record, by way of a line of JSON, as it was."""
    event = full(cls)
    assert from_record(json.loads(to_line(to_record(event)))) == event


@EVERY
def test_round_trip_of_the_least(cls: type[Event]) -> None:
    """A record holds no field that is at its default, and comes back with those defaults."""
    needed = {
        field.name: OWN[cls][field.name]
        for field in dataclasses.fields(cls)
        if field.name in OWN[cls]
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    }
    event = cls(run="run-1", **needed)
    record = to_record(event)
    assert set(record) == {"v", "kind", "run"} | set(needed)
    assert from_record(record) == event


def test_golden_records_still_read() -> None:
    """Records of the first version load to the events they were written from, one of every kind."""
    lines = GOLDEN.read_text(encoding="utf-8").splitlines()
    assert [from_record(json.loads(line)) for line in lines] == [golden(cls) for cls in OWN]
    assert {json.loads(line)["v"] for line in lines} == {VERSION} == {1}


def test_golden_records_are_still_written() -> None:
    """Those events are written to the very same lines, so that no reader of an older version is surprised."""
    lines = GOLDEN.read_text(encoding="utf-8").splitlines()
    assert [to_line(to_record(golden(cls))) for cls in OWN] == lines


def test_kinds_are_unique_and_all_in_the_union() -> None:
    """Each kind has one class, and every class of an event is in the union that is written and read."""
    kinds = [kind_of(cls) for cls in CLASSES]
    assert len(set(kinds)) == len(kinds)
    defined = {value for value in vars(module).values() if isinstance(value, type) and issubclass(value, Event)}
    assert defined - {Event} == set(CLASSES) == set(OWN)


def rows() -> dict[str, tuple[str, list[str]]]:
    """The table of the module's docstring: kind → (class, fields)."""
    found: dict[str, tuple[str, list[str]]] = {}
    table = [line.strip("| ").split(" | ") for line in (module.__doc__ or "").splitlines() if line.startswith("| ")]
    for kinds, names, fields in table[1:]:
        first, *others = kinds.split(" / ")
        whole = [first, *(other if other[0] != "." else first.split(".")[0] + other for other in others)]
        parts = fields.split(" / ") if " / " in fields else [fields] * len(whole)
        for kind, name, part in zip(whole, names.split(" / "), parts, strict=True):
            found[kind] = (name, part.split(", "))
    return found


def test_table_of_fields_is_true() -> None:
    """The table at the top of `events.py` lists every kind with its class and its own fields, in order."""
    common = {field.name for field in dataclasses.fields(Event)} | {"kind"}
    assert rows() == {
        kind_of(cls): (
            cls.__name__,
            [field.name for field in dataclasses.fields(cls) if field.name not in common],
        )
        for cls in CLASSES
    }


@EVERY
def test_events_say_what_they_mean(cls: type[Event]) -> None:
    """Events are frozen, slotted and named by keyword only, and have a docstring of their own."""
    event = full(cls)
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.run = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        cls("run-1")  # type: ignore[misc]
    assert not hasattr(event, "__dict__")
    assert cls.__doc__
    assert cls.__doc__ != Event.__doc__


@pytest.mark.parametrize("kind", ["tool.teleported", "", None, 3, ["run.started"]])
def test_an_unknown_kind_is_kept(kind: object) -> None:
    """A record of a kind we do not know, perhaps of a later version, is kept whole and raises nothing."""
    record = {"v": 9, "kind": kind, "run": "run-1", "colour": "blue"}
    kept = from_record(record)
    assert isinstance(kept, UnknownRecord)
    assert (kept.kind, kept.record) == (str(kind), record)


def test_a_record_without_a_kind_is_kept() -> None:
    """A record that names no kind is kept like one of an unknown kind."""
    assert isinstance(from_record({"run": "run-1"}), UnknownRecord)


def test_an_unknown_field_is_skipped() -> None:
    """Fields are only added: one that a later version wrote does not keep us from reading the rest."""
    record = {**to_record(full(ToolReturned)), "colour": "blue"}
    assert from_record(record) == full(ToolReturned)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"tool": None}, "tool"),
        ({"seq": "first"}, "seq"),
        ({"arguments": [1]}, "arguments"),
        ({"history": "perhaps"}, "history"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, object], named: str) -> None:
    """A record of a known kind with a wrong value says which kind and which field."""
    with pytest.raises(ValueError, match=rf"`tool\.requested`.*{named}"):
        from_record({**to_record(full(ToolRequested)), **change})


@EVERY
def test_a_missing_field_is_named(cls: type[Event]) -> None:
    """A record of a known kind that lacks its run says so."""
    record = to_record(full(cls))
    del record["run"]
    with pytest.raises(ValueError, match=rf"`{kind_of(cls)}`.*run"):
        from_record(record)


def circle() -> dict[str, Any]:
    """A mapping that holds itself."""
    loop: dict[str, Any] = {}
    loop["again"] = loop
    return loop


def depth(levels: int) -> dict[str, Any]:
    """A mapping in a mapping in a mapping."""
    deep: dict[str, Any] = {}
    for _ in range(levels):
        deep = {"deeper": deep}
    return deep


@pytest.mark.parametrize(
    "arguments",
    [
        {"x": object()},
        {"x": b"\xff"},
        {"x": {1, 2}},
        {"x": {(1, 2): 3, 4: 5}},
        {"x": float("nan")},
        {"x": "\ud800"},
        circle(),
        depth(3000),
        {"x": lambda: None},
    ],
    ids=["object", "bytes", "set", "odd keys", "nan", "lone surrogate", "circle", "deep", "function"],
)
def test_whatever_a_host_passes_can_be_written(arguments: dict[str, Any]) -> None:
    """An event whose arguments JSON cannot hold still becomes a record that reads back, all else unchanged."""
    event = ToolRequested(run="run-1", seq=3, tool="lookup", arguments=arguments)
    back = from_record(json.loads(to_line(to_record(event))))
    assert isinstance(back, ToolRequested)
    assert (back.run, back.seq, back.tool) == ("run-1", 3, "lookup")
    assert list(back.arguments) == list(arguments)


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (full(MessageSent), "hello"),
        (full(ModelResponded), "let me look"),
        (full(ToolReturned), "found"),
        (full(ToolFailed), "not found"),
        (full(ModelFailed), "too many requests"),
        (ToolRequested(run="r", tool="t", arguments={"a": "x", "b": 1}), "t(a='x', b=1)"),
        (full(ToolRequested), "lookup({)"),
        (full(RetrievalReturned), "one\ntwo"),
        (full(MemoryRead), "Ada"),
        (full(HandoffRequested), "yours"),
        (full(RunStarted), "Book “it” – now ☂"),
        (full(CheckpointSaved), ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Event) else None,
)
def test_words_of_an_event(event: Event, words: str) -> None:
    """What evidence quotes of an event is what was said in it."""
    assert text_of(event) == words
