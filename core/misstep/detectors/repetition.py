"""Loops: the agent does again what it has just done, and learns nothing from it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import groupby
from typing import ClassVar

from misstep.anomalies import Anomaly
from misstep.calls import Call, written
from misstep.events import ToolRequested
from misstep.provenance import tokens
from misstep.run import Run
from misstep.taxonomy import AnomalyType


@dataclass(slots=True)
class Seen:
    """The words of the last calls in this run, by the `seq` of the request: what near-duplicates are told by."""

    order: deque[int] = field(default_factory=deque)
    words: dict[int, frozenset[str]] = field(default_factory=dict)

    def add(self, call: int, words: frozenset[str], keep: int = 256) -> None:
        """Remember one call, and forget the oldest beyond `keep`."""
        if call not in self.words:
            self.order.append(call)
        self.words[call] = words
        while len(self.order) > keep:
            self.words.pop(self.order.popleft(), None)


@dataclass(frozen=True)
class RepeatedCall:
    """
    One tool called with the same arguments *limit* times while nothing new was learned.

    Polling and paging are legal: a result that is not the one before, a word from the user, or news from any other
    call in between is progress. Calls of one batch are simultaneous: they do not repeat each other, and count once.
    Arguments that are nearly the same (at least `similarity` of their words shared) repeat too, at *near_limit*, if
    every one of the calls came back with the same result.
    """

    limit: int = 3
    near_limit: int = 4
    similarity: float = 0.8
    type: ClassVar[AnomalyType] = AnomalyType.REPEATED_CALL

    def __post_init__(self) -> None:
        for name, most in (("limit", 16), ("near_limit", 32)):  # no more calls are indexed
            if not 2 <= getattr(self, name) <= most:
                raise ValueError(f"`{name}` must be 2 to {most}, found {getattr(self, name)!r}")
        if not 0 < self.similarity <= 1:
            raise ValueError(f"`similarity` must be above 0 and at most 1, found {self.similarity!r}")

    def __call__(self, event: ToolRequested, run: Run) -> Anomaly | None:
        """Judge one proposed call."""
        record = run.calls.get(event.call or event.id)
        if record is None:
            return None
        seen = run.memory(self, Seen)
        words = frozenset(tokens(event.raw or written(event.arguments)))
        near = self._near(record, run, seen, words)
        seen.add(record.seq, words)

        streak = _one_a_round(run.calls.same(event))[: self.limit - 1]
        if len(streak) >= self.limit - 1 and not run.progressed(event, since=streak[-1]):
            return self._found(event, streak, "the same arguments")
        if len(near) >= self.near_limit - 1 and not run.progressed(event, since=near[-1]):
            return self._found(event, near, "nearly the same arguments and the same result")
        return None

    def _near(self, record: Call, run: Run, seen: Seen, words: frozenset[str]) -> list[Call]:
        """One call of each latest round, newest first, as long as all in it are near and came back alike."""
        near: list[Call] = []
        for place, batch in groupby(run.calls.recent(record.instance), key=lambda call: call.round):
            calls = list(batch)
            if place >= record.round:
                continue
            result = near[0].result if near else calls[0].result
            if len(near) == self.near_limit - 1 or result is None:
                break
            if any(call.result != result or not self._alike(record, call, seen, words) for call in calls):
                break
            near.append(calls[0])
        return near

    def _alike(self, record: Call, call: Call, seen: Seen, words: frozenset[str]) -> bool:
        return call.tool == record.tool and _overlap(words, seen.words.get(call.seq)) >= self.similarity

    def _found(self, event: ToolRequested, streak: list[Call], how: str) -> Anomaly:
        times = len(streak) + 1
        return Anomaly(
            type=self.type,
            message=f"`{event.tool}` called {times} times with {how}, and nothing new was learned in between",
            evidence=tuple(call.seq for call in streak),
            facts={"tool": event.tool, "times": times},
        )


def _one_a_round(calls: list[Call]) -> list[Call]:
    return [next(batch) for _, batch in groupby(calls, key=lambda call: call.round)]


def _overlap(words: frozenset[str], others: frozenset[str] | None) -> float:
    """The share of words two calls have in common (Jaccard); two calls without words are alike."""
    if others is None:
        return 0.0
    either = len(words | others)
    return len(words & others) / either if either else 1.0
