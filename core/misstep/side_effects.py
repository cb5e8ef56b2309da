"""
Side effects: what a tool's call does to the world, and how that is known.

The application says so, in its policy or on the tool's function; else the tool's server hints at it (MCP); else it is
inferred from the tool's name and description. The schema is not read: no argument's name shows that nothing changes.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from types import MethodType
from typing import Any, Literal, TypeVar

T = TypeVar("T")

By = Literal["policy", "code", "hint", "name", "description", "nothing"]


class SideEffect(StrEnum):
    """
    What becomes of the world when a tool is called, mildest first.

    `read_only` changes nothing. What a `reversible` call changes can be set back, and the same call made twice leaves
    what one leaves (an update). A `compensable` one is made good by another call, and made twice it counts twice (a
    creation). An `irreversible` one cannot be taken back (a payment, an e-mail, a deletion).
    """

    READ_ONLY = "read_only"
    REVERSIBLE = "reversible"
    COMPENSABLE = "compensable"
    IRREVERSIBLE = "irreversible"

    @property
    def lasting(self) -> bool:
        """Whether a second call does more than the first: what must not be repeated unawares."""
        return self in (SideEffect.COMPENSABLE, SideEffect.IRREVERSIBLE)


@dataclass(frozen=True, slots=True)
class Classified:
    """A tool's class, and how it is known: `by` whom or what, and `why` for people."""

    side_effect: SideEffect
    by: By = "code"
    why: str = ""

    @property
    def declared(self) -> bool:
        """Whether the application itself said so; only then is it taken at its word that a call may be repeated."""
        return self.by in ("policy", "code")

    @property
    def known(self) -> bool:
        """Whether anything at all speaks for the class."""
        return self.by != "nothing"

    def __str__(self) -> str:
        how = "declared" if self.declared else "hinted" if self.by == "hint" else "inferred"
        return f"{self.side_effect} ({how}: {self.why})"


HANDOFF = Classified(SideEffect.REVERSIBLE, "code", "a hand-off between agents")
"""What adapters say of the calls by which one agent hands over to another, whatever their tools are called."""

_MARK = "__misstep_side_effect__"


def side_effect(kind: SideEffect | str) -> Callable[[T], T]:
    """
    Declare what a tool does: `@side_effect("irreversible")` on its function or class, below the framework's decorator.

    The function itself is returned, with a mark on it. Raises ValueError for a class that does not exist.
    """
    classified = Classified(SideEffect(kind), "code", "`@side_effect` on the tool")

    def mark(tool: T) -> T:
        setattr(tool, _MARK, classified)
        return tool

    return mark


def declared_on(*tools: object) -> Classified | None:
    """What was declared on the first of these functions or classes that has it, however often it was wrapped."""
    return next((found for tool in tools for found in _marks(tool)), None)


def hinted(hints: Mapping[str, Any] | None) -> Classified | None:
    """
    What a tool's server says of it: MCP's tool annotations (`readOnlyHint`, `destructiveHint`, `idempotentHint`).

    What is not said is as the standard has it: not read-only, destructive, not idempotent (MCP 2025-06-18). They are
    hints of a server that need not be trusted: a tool is not repeated on their word. None where nothing is hinted.
    """
    if not hints:
        return None
    given = {name: hints.get(name) for name in ("readOnlyHint", "destructiveHint", "idempotentHint")}
    said = {name: value for name, value in given.items() if isinstance(value, bool)}
    if not said:
        return None
    why = ", ".join(f"{name}: {str(value).lower()}" for name, value in said.items())
    if said.get("readOnlyHint"):
        return Classified(SideEffect.READ_ONLY, "hint", why)
    if said.get("destructiveHint", True):
        return Classified(SideEffect.IRREVERSIBLE, "hint", why)
    additive = SideEffect.REVERSIBLE if said.get("idempotentHint") else SideEffect.COMPENSABLE
    return Classified(additive, "hint", why)


class Classes:
    """
    The class of every tool; `patterns` are the policy's, name or glob → class, of which the first that fits counts.

    The policy's word counts before that of the code, that before a hint. A hint is not believed where the tool's own
    name says more: a `pay` that is hinted to be read-only is irreversible.
    """

    def __init__(self, patterns: Mapping[str, SideEffect] | None = None) -> None:
        self.heed(patterns or {})

    def heed(self, patterns: Mapping[str, SideEffect]) -> None:
        """The policy says this from now on."""
        self._patterns = dict(patterns)
        self._by_policy = functools.lru_cache(maxsize=4096)(self._match)

    def of(self, tool: str, description: str = "", says: Classified | None = None) -> Classified:
        """The class of a tool; `says` is what its code declares or its server hints at."""
        by_policy = self._by_policy(tool)
        if by_policy is not None:
            return by_policy
        if says is not None and says.declared:
            return says
        guess = inferred(tool, description)
        if says is None:
            return guess
        return guess if guess.by == "name" and _stricter(guess, says) else says

    def _match(self, tool: str) -> Classified | None:
        for pattern, kind in self._patterns.items():
            if fnmatchcase(tool, pattern):
                return Classified(kind, "policy", f"`{pattern}` in the policy")
        return None


@functools.lru_cache(maxsize=4096)
def inferred(tool: str, description: str = "") -> Classified:
    """
    The class a tool's name suggests by its first verb, else the verb its description begins with.

    Of verbs joined by `and` or `or` the gravest counts. A hand-off to another agent can be handed back. Where nothing
    says what a tool does it is irreversible.
    """
    if _HANDOFF.match(tool) and _AGENT.search(description[:200]):
        return Classified(SideEffect.REVERSIBLE, "description", "it hands over to another agent")
    own = tool.rpartition("__")[2]  # `mcp__mail__read_inbox`: the tools of a server carry its name in front
    parts = re.split(r"_(?:and|or|then)_", "_".join(_words(own or tool)))
    found = [word for part in parts if (word := _telling(part.split("_"))) is not None]
    if found:
        word = max(found, key=lambda word: _ORDER.index(_KINDS[word]))
        return Classified(_KINDS[word], "name", f"`{word}` in its name")
    first = next(iter(_words(description[:200])), "")
    verb = next((verb for verb in _infinitives(first) if verb in _KINDS), None)
    if verb is not None:
        return Classified(_KINDS[verb], "description", f"its description begins with `{verb}`")
    return Classified(SideEffect.IRREVERSIBLE, "nothing", "nothing says what it does")


_ORDER = list(SideEffect)

_VERBS: dict[SideEffect, str] = {
    SideEffect.READ_ONLY: """
        get list search read find fetch lookup look query check view show describe count calculate compute retrieve
        browse inspect verify validate summarize summarise analyze analyse translate classify extract compare estimate
        convert parse preview explain think rank detect measure monitor scan ping load download filter sort""",
    SideEffect.REVERSIBLE: """
        update set edit modify change rename move replace enable disable assign unassign tag untag label toggle mark
        configure archive unarchive restore pin unpin mute unmute star unstar write save patch put lock unlock""",
    SideEffect.COMPENSABLE: "create add insert append upload register schedule copy duplicate clone import",
    SideEffect.IRREVERSIBLE: """
        send pay delete remove refund book reserve order buy purchase sell trade transfer withdraw deposit charge cancel
        submit publish post reply forward email mail message notify share invite drop destroy purge wipe erase terminate
        kill deploy merge release revoke redeem donate wire checkout place approve return exchange push""",
}
_READING = frozenset({"status", "history", "details", "info"})
"""Nouns that, at its end, say that a tool only reads."""

_NOUNS = frozenset(
    {"order", "email", "mail", "message", "post", "book", "trade", "share", "charge", "return", "exchange"}
)
"""Verbs that are nouns as well: `order_status` orders nothing."""

_KINDS = {verb: kind for kind, verbs in _VERBS.items() for verb in verbs.split()}
_KINDS |= dict.fromkeys(_READING, SideEffect.READ_ONLY)

_HANDOFF = re.compile(r"(?:transfer|hand_?off|delegate)_", re.IGNORECASE)
_AGENT = re.compile(r"\bagents?\b|\bhand-?off\b|\bco-?worker", re.IGNORECASE)

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]


def _telling(words: list[str]) -> str | None:
    """The first verb of a name; where that may be a noun and the name ends in a word for reading, the latter."""
    first = next((word for word in words if word in _KINDS and word not in _READING), None)
    if (first is None or first in _NOUNS) and words[-1] in _KINDS and _KINDS[words[-1]] is SideEffect.READ_ONLY:
        return words[-1]
    return first


def _infinitives(word: str) -> tuple[str, ...]:
    """A verb in the third person as it may be listed."""
    return word, word.removesuffix("s"), word.removesuffix("es"), f"{word.removesuffix('ies')}y"


def _stricter(one: Classified, other: Classified) -> bool:
    return _ORDER.index(one.side_effect) > _ORDER.index(other.side_effect)


def _marks(tool: object) -> Iterator[Classified]:
    """
    Marks on an object, its class, and what it wraps: `functools.wraps`, bound methods, partials.

    Nothing is asked of the object itself: a pydantic model takes microseconds to say that it lacks an attribute.
    """
    for _ in range(16):
        held = getattr(tool, "__dict__", {})
        found = held.get(_MARK) or getattr(tool if isinstance(tool, type) else type(tool), _MARK, None)
        if isinstance(found, Classified):
            yield found
        if isinstance(tool, functools.partial):
            tool = tool.func
        elif isinstance(tool, MethodType):
            tool = tool.__func__
        elif (tool := held.get("__wrapped__")) is None:
            return
