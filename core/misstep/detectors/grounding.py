"""Arguments from nowhere: an identifier nobody gave the agent."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from misstep.anomalies import Anomaly
from misstep.events import ToolRequested
from misstep.provenance import Trace
from misstep.run import Run
from misstep.taxonomy import AnomalyType

IDENTIFIERS = frozenset(
    {"id", "ids", "uuid", "account", "iban", "email", "mail", "password", "passcode", "pin", "code", "token", "ssn"}
)
"""Last words of argument names whose values identify something, and so must come from somewhere."""

_PLACEHOLDER = re.compile(
    r"(?:your|the|my|\w+'s) [\w ]{1,30} here|your[_-]\w+|\w+[_-]here|<[\w -]{1,40}>|\[[\w -]{1,40}\]|[\w-]*x{4,}[\w-]*|"
    r"(user|name|john|jane|alice|bob|test)[\w.]*@(example|domain|email)\.\w+",
    re.IGNORECASE,
)
_NAME_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_PIECES = re.compile(r"[._-]+")
_IDENTIFIER = re.compile(r"[\w@.+#-]+")
_PREFIXED = re.compile(r"#?[A-Za-z]{0,3}(\d{4,})")


@dataclass(frozen=True)
class UngroundedArgument:
    """
    An identifier (id, account, e-mail, code, password) that neither the user, a system prompt, a tool nor another
    agent ever said, or a placeholder left where a value belongs.

    Free text, queries, paths, plain numbers and words of the tool's own schema are not judged. What counts as derived:
    case, surrounding punctuation, known parts joined (`certificate_7504` from "certificate" and "7504"), a known
    number behind a short prefix of letters (`#W7504`), the local part of a known e-mail address. An address itself
    must have been said as it is.
    """

    longest: int = 80
    """Characters; a longer value is text, not an identifier."""
    type: ClassVar[AnomalyType] = AnomalyType.UNGROUNDED_ARGUMENT

    def __call__(self, event: ToolRequested, run: Run) -> Anomaly | None:
        """Judge one proposed call; the first ungrounded argument speaks for it."""
        for name, value in _leaves(event.arguments):
            if not value or len(value) > self.longest or run.provenance.vouched(value):
                continue
            placeholder = _PLACEHOLDER.fullmatch(value) is not None
            if not placeholder and not _identifies(name, value):
                continue
            trace = run.provenance.trace(value)
            if trace.origin in ("grounded", "forgotten") or (not placeholder and _joined(value, run)):
                continue
            return self._found(event, name, trace, placeholder)
        return None

    def _found(self, event: ToolRequested, name: str, trace: Trace, placeholder: bool) -> Anomaly:
        what = "a placeholder" if placeholder else "an identifier nobody gave it"
        source = "only a model said it" if trace.origin == "model" else "it appears nowhere before"
        return Anomaly(
            type=self.type,
            message=f"`{event.tool}` called with {what} as `{name}`: {source}",
            evidence=(event.seq,) if trace.seq is None else (event.seq, trace.seq),
            confidence=0.9,
            facts={"tool": event.tool, "argument": name.split(".")[0]},
        )


def _leaves(arguments: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every scalar of the arguments with its dotted name, as text; truth values and None are left out."""
    waiting: list[tuple[str, Any]] = [("", arguments)]
    while waiting:  # and not a recursion, which a model could drive too deep
        name, value = waiting.pop()
        if isinstance(value, Mapping):
            inner = [(f"{name}.{key}" if name else str(key), item) for key, item in value.items()]
            waiting.extend(reversed(inner))
        elif isinstance(value, list | tuple):
            waiting.extend((name, item) for item in reversed(value))
        elif isinstance(value, str):
            yield name, value
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield name, str(value)


def _identifies(name: str, value: str) -> bool:
    """Whether this argument is an identifier: by its name, and because its value looks like one."""
    if not _named(name) or _IDENTIFIER.fullmatch(value) is None:
        return False
    return "@" in value or any(letter.isdigit() for letter in value)


@functools.lru_cache(maxsize=4096)
def _named(name: str) -> bool:
    parts = _NAME_PARTS.findall(name)
    return bool(parts) and parts[-1].lower() in IDENTIFIERS


def _joined(value: str, run: Run) -> bool:
    """Whether the value is put together from parts that were all said; never true of an e-mail address."""
    if "@" in value:
        return False
    prefixed = _PREFIXED.fullmatch(value)
    if prefixed is not None and run.provenance.vouched(prefixed[1]):
        return True
    pieces = [piece for piece in _PIECES.split(value) if piece]
    return len(pieces) > 1 and all(run.provenance.trace(piece).origin == "grounded" for piece in pieces)
