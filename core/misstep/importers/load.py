"""Getting JSON documents out of a file, or saying exactly why not."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from misstep.errors import TraceError

MAX_BYTES = 200_000_000
"""A larger file is refused: parsed, it would take gigabytes."""

_LONGEST_INT = 4000
_CUT_NUMBER = re.compile(r"(?:\.\d*)?(?:[eE][+-]?)?")
_CUT_WORD = ("true", "false", "null", "NaN", "Infinity", "-Infinity")
_CUT_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{0,4}(?:\\(?:u[0-9a-fA-F]{0,4})?)?)?")


def text_of(path: str | Path) -> str:
    """A file's text. Raises `TraceError`: unreadable, too_large, or not_json where it is no text at all."""
    data = _bytes(path)
    if data is None:
        raise TraceError("too_large", f"larger than {MAX_BYTES // 1_000_000} MB: split it, one run a file")
    try:
        return data.decode(json.detect_encoding(data), "surrogatepass").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise TraceError("not_json", "not JSON: not even text") from error


def _bytes(path: str | Path) -> bytes | None:
    """What is in a file; None where it is too large. A pipe does not tell its size before it is read."""
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size > MAX_BYTES:
                return None
            data = file.read(MAX_BYTES + 1)
            return data if len(data) <= MAX_BYTES else None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise TraceError("unreadable", f"cannot be read: {reason}") from error


def parsed(text: str) -> object:
    """The document a text holds. Raises `TraceError`: truncated, not_json, or unreadable where nested too deeply."""
    try:
        return json.loads(text, parse_int=_int)
    except json.JSONDecodeError as error:
        raise _explained(text, error) from error
    except RecursionError as error:
        raise TraceError("unreadable", "nested too deeply to be read") from error


def _int(digits: str) -> int | str:
    return int(digits) if len(digits) <= _LONGEST_INT else digits


def _explained(text: str, error: json.JSONDecodeError) -> TraceError:
    if not text.strip():
        return TraceError("truncated", "empty")
    if _ends_early(text, error):
        return TraceError("truncated", f"JSON that ends early, after {len(text):,} characters: was it fully written?")
    return TraceError("not_json", f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}")


def _ends_early(text: str, error: json.JSONDecodeError) -> bool:
    """Whether the text is the beginning of an object or list, and what is wrong is that there is no more of it."""
    if text.lstrip()[:1] not in ("{", "["):
        return False
    rest = text[error.pos :].rstrip()
    if not rest or error.msg.startswith("Unterminated string"):
        return True
    if "escape" in error.msg:
        start = text.rfind("\\", 0, error.pos + 1)
        return start >= 0 and any(_CUT_ESCAPE.fullmatch(text[at:]) for at in (start, text.rfind("\\", 0, start)))
    if any(word.startswith(rest) for word in _CUT_WORD):
        return True
    return text[error.pos - 1].isdigit() and _CUT_NUMBER.fullmatch(rest) is not None


def lines_of(text: str) -> list[object] | None:
    """
    The documents of a JSON Lines text, each an object or list, or the `TraceError` that says why a line is none.

    None where it is no such text: it is one if it has several lines, and the first of them or more than half are a
    document each.
    """
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if len(lines) < 2:
        return None
    found = [_line(number, line) for number, line in lines]
    good = [not isinstance(document, TraceError) for document in found]
    return found if good[0] or sum(good) * 2 > len(good) else None


def _line(number: int, line: str) -> object:
    try:
        document = parsed(line)
    except TraceError as error:
        return TraceError(error.code, f"line {number}: {error}")
    if isinstance(document, dict | list):
        return document
    return TraceError("unknown_format", f"line {number}: neither an object nor a list")
