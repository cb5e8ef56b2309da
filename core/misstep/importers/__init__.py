"""
Importers: saved traces as the events a guard would have seen live.

What a file is, its content says, never its name. Only documented fields of a format are read, of a frame those named
in `fields.py`: nothing a benchmark knows about its own answer can reach a detector. A new format is one file with an
`Importer`, and one line here. A package of your own announces one as an entry point `misstep.importers`, which names
an `Importer`; it is asked after the formats misstep knows and before the two general ones.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import TypeGuard

from misstep.errors import TraceError
from misstep.importers import (
    agentdojo,
    autogen,
    crewai,
    fields,
    foreign,
    langchain,
    langfuse,
    langsmith,
    load,
    messages,
    openai,
    otlp,
    sweagent,
    whowhen,
)
from misstep.importers.load import MAX_BYTES
from misstep.importers.trace import Importer, Trace, Unread

_SPECIAL = (
    whowhen.IMPORTER,
    otlp.IMPORTER,
    langsmith.IMPORTER,
    langfuse.IMPORTER,
    langchain.IMPORTER,
    autogen.IMPORTER,
    crewai.IMPORTER,
    agentdojo.IMPORTER,
    sweagent.IMPORTER,
)
_GENERAL = (openai.IMPORTER, messages.IMPORTER)

IMPORTERS: dict[str, Importer] = {importer.name: importer for importer in (*_SPECIAL, *_GENERAL)}
"""The formats misstep knows, in the order they are asked whether a document is theirs."""


@functools.cache
def known_importers() -> dict[str, Importer]:
    """Every format, in the order they are asked: misstep's own, those of installed packages, the general ones."""
    found = {importer.name: importer for importer in _SPECIAL}
    for entry in entry_points(group="misstep.importers"):
        importer = foreign.guarded(entry.load())
        found[importer.name] = importer
    return found | {importer.name: importer for importer in _GENERAL}


def read(path: str | Path, source: str | None = None) -> Iterator[Trace | Unread]:
    """
    The traces of a file, one after another: a JSON document with one, a list of several, or JSON Lines.

    Of several, one that is broken is an `Unread` and the others go on. `source` names the format where it should not
    be found out. Raises `TraceError` where nothing can be read, KeyError for a source that does not exist.
    """
    importer = known_importers()[source] if source is not None else None
    documents, several = _documents(load.text_of(path), importer)
    if not several:
        yield _trace(documents[0], "", importer)
        return
    for index, found in enumerate(documents):
        yield _one(found, f"#{index}", importer)


def _documents(text: str, importer: Importer | None) -> tuple[list[object], bool]:
    """The documents of a text, one a trace, and whether there are several. Raises `TraceError`."""
    try:
        document = load.parsed(text)
    except TraceError:
        lines = load.lines_of(text)
        if lines is None:
            raise
        if not any(_known(line) for line in lines):
            raise TraceError("unknown_format", f"none of its {len(lines)} lines is a trace: {_KNOWN}") from None
        return _gathered(lines, importer)
    found = importer or _known(document)
    if found is not None and found.gather is not None:
        documents = found.gather([document])
        return documents or [document], len(documents) > 1
    return (document, True) if _holds_several(document) else ([document], False)


def _gathered(lines: list[object], importer: Importer | None) -> tuple[list[object], bool]:
    """Lines that are parts of runs as the runs themselves, and those that are none after them; else the lines."""
    first = importer or next(filter(None, map(_known, lines)), None)
    if first is None or first.gather is None:
        return lines, True
    mine = [first.matches(line) for line in lines]
    runs = first.gather([line for line, is_mine in zip(lines, mine, strict=True) if is_mine])
    others = [line for line, is_mine in zip(lines, mine, strict=True) if not is_mine]
    return [*runs, *others], len(runs) + len(others) > 1


def _one(document: object, label: str, importer: Importer | None) -> Trace | Unread:
    if isinstance(document, TraceError):
        return Unread(label, document)
    try:
        return _trace(document, label, importer)
    except TraceError as error:
        return Unread(label, error)


def _trace(document: object, label: str, importer: Importer | None) -> Trace:
    found = importer or _known(document)
    if found is None:
        raise TraceError("unknown_format", f"{_described(document)} is no trace: {_KNOWN}")
    return found.read(document, label)


def _known(document: object) -> Importer | None:
    """The importer whose format a document is in, by its content."""
    return next((importer for importer in known_importers().values() if importer.matches(document)), None)


def _holds_several(document: object) -> TypeGuard[list[object]]:
    """Whether a document is a list of traces, not one trace that is a list of messages."""
    return isinstance(document, list) and any(_is_frame(item) for item in document)


def _is_frame(item: object) -> bool:
    if isinstance(item, list):
        return bool(item) and _known(item) is not None
    return isinstance(item, dict) and "role" not in item and _known(item) is not None


def _described(document: object) -> str:
    if isinstance(document, list) and document:
        return f"{fields.kind(document)} of {len(document)} ({fields.kind(document[0])} first)"
    return fields.kind(document)


_KNOWN = "misstep reads " + "; ".join(f"`{importer.name}` ({importer.what})" for importer in IMPORTERS.values())

__all__ = ["IMPORTERS", "MAX_BYTES", "Importer", "Trace", "Unread", "known_importers", "read"]
