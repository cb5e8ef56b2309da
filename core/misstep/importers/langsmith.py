"""
LangSmith: runs as its SDK posts them (one, a batch with `post` and `patch`) or models them (a tree, a list).

A run that is written in two parts, at its start and at its end, is one run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from misstep.errors import TraceError
from misstep.events import Tool
from misstep.importers import fields, langfuse
from misstep.importers.spans import Kind, Span, made
from misstep.importers.spoken import replied, shown
from misstep.importers.times import seconds
from misstep.importers.trace import Importer, Trace
from misstep.importers.turns import asked

NAME = "langsmith"

Fields: TypeAlias = Mapping[object, object]

_KINDS: dict[str, Kind] = {"llm": "model", "tool": "tool", "retriever": "retrieval"}
_BATCH = ("post", "patch")
_TRACEBACK = "Traceback (most recent call last)"
"""What follows it no agent was told."""


def matches(document: object) -> bool:
    """A run, a list of runs, or a batch as the SDK posts it."""
    if isinstance(document, dict):
        parts = [document[name] for name in _BATCH if isinstance(document.get(name), list)]
        return _is_run(document) or any(part and _is_run(part[0]) for part in parts)
    return isinstance(document, list) and bool(document) and _is_run(document[0])


def _is_run(item: object) -> bool:
    """A run; the part that is written at its end need not say its type, but says its place in the tree."""
    return isinstance(item, dict) and ("run_type" in item or "dotted_order" in item) and ("id" in item)


def gather(documents: list[object]) -> list[object]:
    """One list of whole runs for each trace in some documents."""
    runs: dict[str, dict[object, object]] = {}
    for document in documents:
        for run in _runs(document):
            id_ = fields.text(run.get("id"))
            given = {name: value for name, value in run.items() if value is not None and name != "child_runs"}
            runs[id_] = {**runs.get(id_, {}), **given}
    traces: dict[str, list[object]] = {}
    for id_, run in runs.items():
        traces.setdefault(fields.text(run.get("trace_id")) or _top(runs, id_), []).append(run)
    return list(traces.values())


def _top(runs: Mapping[str, Fields], id_: str) -> str:
    """The run at the top of the tree a run is in."""
    seen: set[str] = set()
    while id_ not in seen and (above := fields.text(runs[id_].get("parent_run_id"))) in runs:
        seen.add(id_)
        id_ = above
    return id_


def _runs(document: object) -> Iterator[Fields]:
    """Every run of a document, the children of each after it. Raises `TraceError` where one is none."""
    waiting: list[object] = [document]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting += reversed(item)
        elif not isinstance(item, dict):
            raise TraceError("unknown_format", f"a run must be an object, found {fields.kind(item)}")
        elif any(name in item for name in _BATCH) and not _is_run(item):
            waiting += [item[name] for name in reversed(_BATCH) if item.get(name)]
        else:
            yield item
            children = item.get("child_runs")
            waiting += reversed(children) if isinstance(children, list) else ()


def read(document: object, label: str = "") -> Trace:
    """The trace; a step is a run's rank by start time. Raises `TraceError`."""
    runs = [run for trace in gather([document]) for run in _runs(trace)]
    return made(NAME, label, [_span(run) for run in runs])


def _span(run: Fields) -> Span:
    start = seconds(run.get("start_time"))
    error = fields.words(run.get("error")).partition(_TRACEBACK)[0].strip()
    return Span(
        id=fields.text(run.get("id")),
        parent=fields.text(run.get("parent_run_id")),
        start=start,
        end=max(seconds(run.get("end_time")), start),
        agent=_agent(run),
        error=error or ("failed" if run.get("error") else None),
        **_work(run),
    )


def _agent(run: Fields) -> str:
    """Whose run it is: the agent LangChain says, else the node of the graph."""
    metadata = _inner(run, "extra", "metadata")
    names = (fields.text(metadata.get(name)).strip() for name in ("lc_agent_name", "langgraph_node"))
    return next((name for name in names if name), "")


def _inner(run: Fields, *path: str) -> Fields:
    at: object = run
    for name in path:
        at = at.get(name) if isinstance(at, dict) else None
    return at if isinstance(at, dict) else {}


def _work(run: Fields) -> dict[str, Any]:
    given, found = run.get("inputs"), run.get("outputs")
    name = fields.text(run.get("name"))
    match _KINDS.get(fields.text(run.get("run_type")), "other"):
        case "model":
            return {"kind": "model", "heard": shown(given), "said": replied(found), "tools": _tools(run)}
        case "tool":
            return {"kind": "tool", "call": asked("", name, _arguments(given)), **langfuse.result(found or None)}
        case "retrieval":
            return {
                "kind": "retrieval",
                "query": langfuse.query(given),
                "documents": langfuse.documents(found),
            }
        case _:
            return {"kind": "other", "name": name}


def _arguments(given: object) -> object:
    """A tool's arguments: LangChain writes them as text, in Python's own notation, under `input`."""
    if isinstance(given, dict) and list(given) == ["input"]:
        return given["input"] if isinstance(given["input"], str) else given
    return given


def _tools(run: Fields) -> tuple[Tool, ...] | None:
    return fields.tools(_inner(run, "extra", "invocation_params")) or None


IMPORTER = Importer(NAME, "LangSmith's runs: a tree, a list, or what its SDK posts", matches, read, gather)
