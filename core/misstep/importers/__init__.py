"""
Importers: saved traces as the events a guard would have seen live.

What a file is, its content says, never its name. Only the fields named in `fields.py` are read: nothing a benchmark
knows about its own answer can reach a detector. A new format is one file with an `Importer`, and one line here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

from misstep.errors import TraceError
from misstep.importers import fields, load, messages, openai, whowhen
from misstep.importers.load import MAX_BYTES
from misstep.importers.trace import Importer, Trace, Unread

IMPORTERS: dict[str, Importer] = {
    importer.name: importer for importer in (whowhen.IMPORTER, openai.IMPORTER, messages.IMPORTER)
}
"""Every format, in the order they are asked whether a document is theirs."""


def read(path: str | Path, source: str | None = None) -> Iterator[Trace | Unread]:
    """
    The traces of a file, one after another: a JSON document with one, a list of several, or JSON Lines.

    Of several, one that is broken is an `Unread` and the others go on. `source` names the format where it should not
    be found out. Raises `TraceError` where nothing can be read, KeyError for a source that does not exist.
    """
    importer = IMPORTERS[source] if source is not None else None
    text = load.text_of(path)
    documents: list[object]
    try:
        document = load.parsed(text)
    except TraceError:
        lines = load.lines_of(text)
        if lines is None:
            raise
        if not any(_known(line) for line in lines):
            raise TraceError("unknown_format", f"none of its {len(lines)} lines is a trace: {_KNOWN}") from None
        documents = lines
    else:
        if not _holds_several(document):
            yield _trace(document, "", importer)
            return
        documents = document
    del text
    for index, found in enumerate(documents):
        yield _one(found, f"#{index}", importer)


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
    return next((importer for importer in IMPORTERS.values() if importer.matches(document)), None)


def _holds_several(document: object) -> TypeGuard[list[object]]:
    """Whether a document is a list of traces, not one trace that is a list of messages."""
    return isinstance(document, list) and any(_is_frame(item) for item in document)


def _is_frame(item: object) -> bool:
    if isinstance(item, list):
        return fields.spoken(item)
    return isinstance(item, dict) and "role" not in item and any(name in item for name in fields.CONVERSATION)


def _described(document: object) -> str:
    if isinstance(document, list) and document:
        return f"{fields.kind(document)} of {len(document)} ({fields.kind(document[0])} first)"
    return fields.kind(document)


_KNOWN = "misstep reads " + "; ".join(f"`{importer.name}` ({importer.what})" for importer in IMPORTERS.values())

__all__ = ["IMPORTERS", "MAX_BYTES", "Importer", "Trace", "Unread", "read"]
