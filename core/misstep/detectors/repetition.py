"""Loops: the agent does again what it has just done, and learns nothing from it."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field
from typing import ClassVar

from misstep.anomalies import Anomaly
from misstep.calls import Call
from misstep.events import ToolRequested
from misstep.provenance import tokens
from misstep.run import Run
from misstep.taxonomy import AnomalyType


@dataclass(slots=True)
class Seen:
    """The words of the last calls in this run, by call id: what near-duplicates are told by."""

    order: deque[str] = field(default_factory=deque)
    words: dict[str, frozenset[str]] = field(default_factory=dict)

    def add(self, call: str, words: frozenset[str], keep: int = 256) -> None:
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
    call in between is progress. Calls of one batch are simultaneous and do not repeat each other. Arguments that
    are nearly the same (at least `similarity` of their words shared) repeat too, at *near_limit*, if every one of
    the calls came back with the same result.
    """

    limit: int = 3
    near_limit: int = 4
    similarity: float = 0.8
    type: ClassVar[AnomalyType] = AnomalyType.REPEATED_CALL

    def __call__(self, event: ToolRequested, run: Run) -> Anomaly | None:
        """Judge one proposed call."""
        seen = run.memory(self, Seen)
        words = frozenset(tokens(event.raw or json.dumps(event.arguments, default=str)))
        near = self._near(event, run, seen, words)
        seen.add(event.call or event.id, words)

        streak = run.calls.same(event)[: self.limit - 1]
        if len(streak) >= self.limit - 1 and not run.progressed(event, since=streak[-1]):
            return self._found(event, streak, "the same arguments")
        if len(near) >= self.near_limit - 1 and not run.progressed(event, since=near[-1]):
            return self._found(event, near, "nearly the same arguments and the same result")
        return None

    def _near(self, event: ToolRequested, run: Run, seen: Seen, words: frozenset[str]) -> list[Call]:
        """The instance's latest calls, newest first, as long as they are near and came back alike."""
        record = run.calls.get(event.call or event.id)
        near: list[Call] = []
        for call in run.calls.recent(event.instance):
            if len(near) == self.near_limit - 1:
                break
            if record is not None and call.round >= record.round:
                continue
            alike = call.tool == event.tool and _overlap(words, seen.words.get(call.call)) >= self.similarity
            if not alike or call.result is None or (near and call.result != near[0].result):
                break
            near.append(call)
        return near

    def _found(self, event: ToolRequested, streak: list[Call], how: str) -> Anomaly:
        times = len(streak) + 1
        return Anomaly(
            type=self.type,
            message=f"`{event.tool}` called {times} times with {how}, and nothing new was learned in between",
            evidence=tuple(call.seq for call in streak),
            facts={"tool": event.tool, "times": times},
        )


def _overlap(words: frozenset[str], others: frozenset[str] | None) -> float:
    """The share of words two calls have in common (Jaccard); two calls without words are alike."""
    if others is None:
        return 0.0
    either = len(words | others)
    return len(words & others) / either if either else 1.0
