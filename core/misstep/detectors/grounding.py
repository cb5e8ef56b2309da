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
    r"your[_-]\w+|\w+[_-]here|<[\w -]{1,40}>|\[[\w -]{1,40}\]|[\w-]*x{4,}[\w-]*|"
    r"(user|name|john|jane|alice|bob|test)[\w.]*@(example|domain|email)\.\w+",
    re.IGNORECASE,
)
_NAME_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_PIECES = re.compile(r"[._-]+")


@dataclass(frozen=True)
class UngroundedArgument:
    """
    An identifier (id, account, e-mail, code, password) that neither the user, a system prompt, a tool nor another
    agent ever said, or a placeholder left where a value belongs.

    Free text, queries, paths, plain numbers and words of the tool's own schema are not judged. Case, surrounding
    punctuation and joining known parts (`certificate_7504` from "certificate" and "7504") count as derived; an
    e-mail address must have been said as it is.
    """

    longest: int = 80
    """Characters; a longer value is text, not an identifier."""
    type: ClassVar[AnomalyType] = AnomalyType.UNGROUNDED_ARGUMENT

    def __call__(self, event: ToolRequested, run: Run) -> Anomaly | None:
        """Judge one proposed call; the first ungrounded argument speaks for it."""
        for name, value in _leaves(event.arguments):
            if not value or len(value) > self.longest or " " in value:
                continue
            if run.provenance.vouched(value):
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
    return _named(name) and ("@" in value or any(letter.isdigit() for letter in value))


@functools.lru_cache(maxsize=4096)
def _named(name: str) -> bool:
    parts = _NAME_PARTS.findall(name)
    return bool(parts) and parts[-1].lower() in IDENTIFIERS


def _joined(value: str, run: Run) -> bool:
    """Whether the value is put together from parts that were all said; never true of an e-mail address."""
    if "@" in value:
        return False
    pieces = [piece for piece in _PIECES.split(value) if piece]
    return len(pieces) > 1 and all(run.provenance.trace(piece).origin == "grounded" for piece in pieces)
