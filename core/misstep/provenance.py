"""
Provenance: which event first brought a word in, and who vouches for it best.

One bounded index of tokens serves grounding, injection, trust between agents and the walk back to a root cause.
Tokens are indexed as they stream by; a value is only taken apart when somebody asks where it comes from.
"""

from __future__ import annotations

import string
import unicodedata
from collections import deque
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal


class Source(IntEnum):
    """Who vouches for a token, weakest first. What only a model ever said is vouched for by nobody."""

    MODEL = 0
    AGENT = 1
    TOOL = 2
    SYSTEM = 3
    USER = 4


SOURCE = {source.name.lower(): source for source in Source}
"""`Trust` of an event → `Source`."""

Origin = Literal["grounded", "model", "nowhere", "forgotten"]

_GLUE = "@._-"  # inside an identifier, number, address or date these belong to it
_BLOCKS = ((0xA0, 0xBF), (0x2000, 0x20BF), (0x3000, 0x303F), (0xFF01, 0xFF65))  # punctuation beyond ASCII
_FOREIGN = (chr(code) for first, last in _BLOCKS for code in range(first, last + 1))
_MARKS = [mark for mark in _FOREIGN if unicodedata.category(mark)[0] in "CPSZ"]
_SPLIT = str.maketrans({mark: " " for mark in [*string.punctuation, *_MARKS] if mark not in _GLUE})


def tokens(text: str) -> list[str]:
    """The tokens of a text: lower case, split at space and punctuation but for what identifiers are glued with."""
    return [word.strip(_GLUE) or word for word in text.lower().translate(_SPLIT).split()]


@dataclass(frozen=True, slots=True)
class Trace:
    """
    Where a value comes from.

    `grounded`: every token was said by somebody other than a model; `model`: at least one only by a model, first at
    `seq`; `nowhere`: at least one never said; `forgotten`: seen, or perhaps seen, but no longer indexed. `unknown`
    lists the tokens that are not grounded; `best` is the weakest of the tokens' best sources.
    """

    origin: Origin
    seq: int | None = None
    best: Source | None = None
    unknown: tuple[str, ...] = ()


class Provenance:
    """
    Token → (first seq, first source, best source), of the last `generations` times `limit` distinct tokens.

    Tokens go into the youngest generation; when that is full a new one begins, and the oldest beyond the limit is
    dropped whole. From then on a token that nobody vouches for counts as `forgotten`, not as the model's own or from
    `nowhere`. A question looks through all generations, so what was said again lives on, and is known by its first
    mention still kept.
    """

    __slots__ = ("_generations", "_longest", "_young", "complete", "grown", "limit")

    def __init__(self, limit: int = 50_000, generations: int = 2, longest: int = 100_000) -> None:
        self.limit = limit
        self.complete = True
        """False once something said can no longer be told from something never said."""
        self.grown = 0
        """How many tokens were new to their generation so far: it stands still while nobody says anything new."""
        self._longest = longest
        self._young: dict[str, int] = {}
        self._generations: deque[dict[str, int]] = deque([self._young], maxlen=generations)

    def __len__(self) -> int:
        return sum(map(len, self._generations))

    def add(self, text: str, seq: int, source: Source) -> None:
        """Index what an event brought in; O(length of the text), of which head and tail beyond 100,000 characters."""
        if len(text) > self._longest:
            half = self._longest // 2
            text = f"{text[:half]} {text[-half:]}"
            self.complete = False
        entry = seq << 6 | source << 3 | source
        young = self._young
        words = tokens(text)
        if "@" in text:  # of an e-mail address the local part is known too
            words += [word.partition("@")[0] for word in words if "@" in word]
        size = len(young)
        keep = young.setdefault
        for word in words:
            known = keep(word, entry)
            if known is not entry and known & 7 < source:
                young[word] = known & ~7 | source
        self.grown += len(young) - size
        if len(young) >= self.limit:
            self.complete = self.complete and len(self._generations) < (self._generations.maxlen or 0)
            self._young = {}
            self._generations.append(self._young)

    def find(self, word: str) -> tuple[int, Source, Source] | None:
        """First seq, first source and best source of one token, or None where it is not indexed."""
        entries = [generation[word] for generation in self._generations if word in generation]
        if not entries:
            return None
        return entries[0] >> 6, Source(entries[0] >> 3 & 7), Source(max(entry & 7 for entry in entries))

    def vouched(self, value: str) -> bool:
        """Whether the value, as one token, was said by somebody other than a model: the quick answer to `trace`."""
        word = value.lower()
        for generation in self._generations:  # noqa: SIM110 - a generator costs three times as much
            if generation.get(word, 0) & 7:
                return True
        return False

    def trace(self, value: str) -> Trace:
        """Where a value comes from; an empty value is grounded."""
        best: Source | None = None
        first: int | None = None
        made_up: int | None = None
        missing: list[str] = []
        invented: list[str] = []
        for word in tokens(value):
            found = self.find(word)
            if found is None:
                missing.append(word)
                continue
            seq, _, source = found
            if source is Source.MODEL:
                invented.append(word)
                made_up = seq if made_up is None else min(made_up, seq)
            first = seq if first is None else max(first, seq)
            best = source if best is None else min(best, source)
        if not (missing or invented):
            return Trace("grounded", first, best)
        if not self.complete:  # whoever vouched for it may be what was forgotten
            return Trace("forgotten", None, None, tuple(missing + invented))
        if missing:
            return Trace("nowhere", None, None, tuple(missing + invented))
        return Trace("model", made_up, Source.MODEL, tuple(invented))
