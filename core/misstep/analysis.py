"""Analysis: saved traces in, one finished account of each out, as objects and as the JSON of `misstep analyze`."""

from __future__ import annotations

import functools
import logging
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from misstep.errors import TraceError, TraceErrorCode
from misstep.importers import Trace, Unread, read
from misstep.policy import Policy, default_policy
from misstep.redact import printable
from misstep.replay import replay, watcher
from misstep.report import RunReport
from misstep.taxonomy import AnomalyType, Severity

log = logging.getLogger("misstep")

SCHEMA = 1
"""The version of the JSON; fields are only added to it."""

_SECRET = re.compile(r"<secret:(\w+):([0-9a-f]{6})>")


@dataclass(frozen=True, slots=True)
class Analyzed:
    """A trace that was read: where it was found, what it is, and what the guard has to say of it."""

    trace: str
    source: str
    steps: int
    agents: tuple[str, ...]
    report: RunReport

    @property
    def worst(self) -> Severity | None:
        """The highest severity of an anomaly in it."""
        return max((found.severity for found in self.report.anomalies), key=lambda found: found.rank, default=None)

    @property
    def guard_failures(self) -> int:
        """How often the guard itself failed on it: what it says of this trace is then incomplete."""
        return sum(found.type is AnomalyType.GUARD_FAILURE for found in self.report.anomalies)

    def record(self) -> dict[str, object]:
        """The JSON object of this trace."""
        report = self.report.model_dump(mode="json", by_alias=True)
        return {
            "schema": SCHEMA,
            "trace": self.trace,
            "source": self.source,
            "steps": self.steps,
            "agents": list(self.agents),
            "outcome": report["outcome"],
            "anomalies": report["anomalies"],
            "decisions": [
                {name: decision[name] for name in ("step", "agent", "kind", "anomaly", "hypothetical")}
                for decision in report["decisions"]
            ],
            "root_cause": report["root_cause"],
        }


@dataclass(frozen=True, slots=True)
class NotRead:
    """A trace that could not be read, and why."""

    trace: str
    code: TraceErrorCode
    message: str

    def record(self) -> dict[str, object]:
        """The JSON object of this trace."""
        return {"schema": SCHEMA, "trace": self.trace, "error": {"code": self.code, "message": self.message}}


def analyze(
    paths: Iterable[str], source: str | None = None, policy: Policy | None = None
) -> Iterator[Analyzed | NotRead]:
    """
    Every trace of every file, one as soon as it is done; in folders every regular file is tried, sorted by path.

    `source` names the format of all of them where it should not be found out; `policy` is the default one where it is
    left out. Nothing a file holds raises.
    """
    for path in paths:
        for file in _files(path):
            yield from [file] if isinstance(file, NotRead) else _of_file(file, source, policy)


def judged(trace: Trace, name: str, policy: Policy | None = None) -> Analyzed:
    """One trace, replayed through a guard of its own."""
    report = replay(trace.events, watcher(trace.events, policy or _policy()))
    agents = tuple(printable(agent) for agent in trace.agents)
    return Analyzed(name, trace.source, trace.steps, agents, steady(report))


def steady(report: RunReport) -> RunReport:
    """
    The report with secrets numbered as they come, in place of pseudonyms that differ from process to process.

    What is written about a trace is then the same whenever it is written.
    """
    if "<secret:" not in report.model_dump_json():
        return report
    numbers: dict[str, int] = {}

    def numbered(match: re.Match[str]) -> str:
        kind, digest = match.groups()
        return f"<secret:{kind}:{numbers.setdefault(digest, len(numbers) + 1)}>"

    return RunReport.model_validate(_mapped(report.model_dump(by_alias=True), numbered))


def _mapped(value: Any, change: Any) -> Any:
    match value:
        case str() if type(value) is str:
            return _SECRET.sub(change, value)
        case dict():
            return {key: _mapped(inner, change) for key, inner in value.items()}
        case tuple() | list():
            return tuple(_mapped(inner, change) for inner in value)
        case _:
            return value


@functools.cache
def _policy() -> Policy:
    return default_policy()


def _files(path: str) -> Iterator[str | NotRead]:
    """The files of a path: itself, or every regular file below it."""
    if not os.path.isdir(path):
        yield path
        return
    below, closed = _below(path)
    if not below and not closed:
        yield NotRead(path, "unreadable", "a folder with no file in it")
    yield from closed
    yield from below


def _below(folder: str) -> tuple[list[str], list[NotRead]]:
    """The regular files of a folder and all below it, sorted; and the folders that cannot be opened."""
    closed: list[NotRead] = []

    def refused(error: OSError) -> None:
        closed.append(NotRead(str(error.filename), "unreadable", f"cannot be opened: {error.strerror}"))

    found = [
        os.path.join(where, name)
        for where, _, names in os.walk(folder, onerror=refused)
        for name in names
        if Path(where, name).is_file()
    ]
    return sorted(found), sorted(closed, key=lambda one: one.trace)


def _of_file(path: str, source: str | None, policy: Policy | None) -> Iterator[Analyzed | NotRead]:
    try:
        for trace in read(path, source):
            yield _of_trace(trace, path, policy)
    except TraceError as error:
        yield _not_read(path, error)


def _of_trace(trace: Trace | Unread, path: str, policy: Policy | None) -> Analyzed | NotRead:
    name = f"{path}{trace.label}"
    if isinstance(trace, Unread):
        return _not_read(name, trace.error)
    try:
        return judged(trace, name, policy)
    except Exception as error:
        log.exception("misstep failed on a trace")
        return NotRead(name, "unreadable", f"misstep failed on it, which is a bug: {type(error).__name__}")


def _not_read(name: str, error: TraceError) -> NotRead:
    return NotRead(name, error.code, printable(str(error)))
