"""What an importer makes: a trace, as the events a guard would have seen live."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from misstep.errors import TraceError
from misstep.events import Event, Outcome

RUN = "trace"
"""The run id of every imported trace: it says nothing, so that the same trace always reads the same."""


@dataclass(frozen=True, slots=True)
class Trace:
    """
    One recorded run.

    `label` is "" for a document's only trace, else "#" and its 0-based index; `events` are in order and without
    `seq`, from a `RunStarted` to a `RunEnded`; `steps` counts the source's own messages, each of which is one step;
    `agents` are those who act, in order of appearance.
    """

    label: str
    source: str
    events: tuple[Event, ...]
    steps: int
    agents: tuple[str, ...]
    outcome: Outcome | None


@dataclass(frozen=True, slots=True)
class Unread:
    """One trace of several that cannot be read; the others can."""

    label: str
    error: TraceError


@dataclass(frozen=True, slots=True)
class Importer:
    """
    One format: its name, what it is in a few words, whether a parsed document is of it, and the trace in one.

    `matches` looks at the content alone, and is cheap; `read` raises `TraceError` where a document that looks right
    is broken. `gather` is there where a document may hold several runs, or a file one run in several documents: it
    makes of the documents of a file that match one document a run.
    """

    name: str
    what: str
    matches: Callable[[object], bool]
    read: Callable[[object, str], Trace]
    gather: Callable[[list[object]], list[object]] | None = None
