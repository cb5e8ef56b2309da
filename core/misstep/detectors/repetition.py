"""Loops: the agent does again what it has just done, and learns nothing from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import ClassVar

from misstep.anomalies import Anomaly
from misstep.calls import Call
from misstep.events import ToolRequested
from misstep.provenance import tokens
from misstep.run import Run
from misstep.taxonomy import AnomalyType


@dataclass(slots=True)
class Seen:
    """The words of the calls compared in this run, by the `seq` of the request; at most 256 are kept."""

    words: dict[int, frozenset[str]] = field(default_factory=dict)

    def of(self, call: Call, keep: int = 256) -> frozenset[str]:
        """The words of one call's arguments."""
        known = self.words.get(call.seq)
        if known is None:
            known = self.words[call.seq] = frozenset(tokens(call.text))
            if len(self.words) > keep:
                self.words.pop(next(iter(self.words)))
        return known


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
        streak = _one_a_round(run.calls.same(event))[: self.limit - 1]
        if len(streak) >= self.limit - 1 and not run.progressed(event, since=streak[-1]):
            return self._found(event, streak, "the same arguments")
        near = self._near(event, run)
        if len(near) >= self.near_limit - 1 and not run.progressed(event, since=near[-1]):
            return self._found(event, near, "nearly the same arguments and the same result")
        return None

    def _near(self, event: ToolRequested, run: Run) -> list[Call]:
        """One call of each latest round, newest first, as long as all in it are near and came back alike."""
        asked = run.calls.get(event.call or event.id)
        near: list[Call] = []
        if asked is None:
            return near
        seen = run.memory(self, Seen)
        for round_, batch in groupby(run.calls.recent(event.instance), key=lambda call: call.round):
            if round_ >= asked.round:
                continue
            calls = list(batch)
            result = near[0].result if near else calls[0].result
            if result is None or any(call.result != result or not self._alike(asked, call, seen) for call in calls):
                break
            near.append(calls[0])
            if len(near) == self.near_limit - 1:
                break
        return near

    def _alike(self, asked: Call, call: Call, seen: Seen) -> bool:
        return call.tool == asked.tool and _overlap(seen.of(asked), seen.of(call)) >= self.similarity

    def _found(self, event: ToolRequested, streak: list[Call], how: str) -> Anomaly:
        times = len(streak) + 1
        return Anomaly(
            type=self.type,
            message=f"`{event.tool}` called {times} times with {how}, and nothing new was learned in between",
            evidence=tuple(call.seq for call in streak),
            facts={"tool": event.tool, "times": times},
        )


@dataclass(frozen=True)
class Oscillation:
    """
    Two or more different rounds of calls alternate (A-B-A-B), and the agent sets out on one more cycle after *cycles*.

    At most `longest` rounds make one cycle, and since the first cycle nothing new came of any of them. A result that
    is not the one before, and a word from the user, is progress; so edit and test, or polling two things in turn, are
    legal while the results change. Only cycles that came back whole are counted: what the call at hand will bring,
    nobody knows yet.
    """

    cycles: int = 2
    longest: int = 4
    type: ClassVar[AnomalyType] = AnomalyType.OSCILLATION

    def __post_init__(self) -> None:
        for name, most in (("cycles", 8), ("longest", 8)):
            if not 2 <= getattr(self, name) <= most:
                raise ValueError(f"`{name}` must be 2 to {most}, found {getattr(self, name)!r}")
        if self.cycles * self.longest > 32:  # no more calls are indexed
            raise ValueError(f"`cycles` times `longest` must be at most 32, found {self.cycles * self.longest}")

    def __call__(self, event: ToolRequested, run: Run) -> Anomaly | None:
        """Judge one proposed call by the rounds before it."""
        asked = run.calls.get(event.call or event.id)
        if asked is None or not run.calls.same(event):
            return None
        rounds = _rounds(run.calls.recent(event.instance), asked.round, self.cycles * self.longest)
        for length in range(2, self.longest + 1):
            before = rounds[: self.cycles * length]
            if self._alternates(asked, before, length) and not run.progressed(event, since=before[-length][0]):
                return self._found(event, before, length)
        return None

    def _alternates(self, asked: Call, before: list[list[Call]], length: int) -> bool:
        """Whether the rounds before a call (newest first) are the same cycle over and over, and it begins another."""
        if len(before) < self.cycles * length:
            return False
        made = [frozenset(call.signature for call in calls) for calls in before]
        if asked.signature not in made[length - 1] or asked.signature in made[0]:
            return False
        if any(made[place] != made[place + length] for place in range(len(made) - length)):
            return False
        return all(call.result is not None for calls in before for call in calls)

    def _found(self, event: ToolRequested, before: list[list[Call]], length: int) -> Anomaly:
        tools = sorted({call.tool for calls in before[:length] for call in calls})
        return Anomaly(
            type=self.type,
            message=f"{length} rounds of calls ({', '.join(f'`{tool}`' for tool in tools)}) alternate, "
            f"{self.cycles} times so far, and nothing new was learned in between",
            evidence=tuple(call.seq for calls in before for call in calls),
            facts={"tool": event.tool, "times": self.cycles},
        )


def _rounds(calls: Iterator[Call], before: int, most: int) -> list[list[Call]]:
    """The calls of the last rounds before a round, newest first."""
    earlier = (call for call in calls if call.round < before)
    return [list(batch) for _, batch in islice(groupby(earlier, key=lambda call: call.round), most)]


def _one_a_round(calls: list[Call]) -> list[Call]:
    return [next(batch) for _, batch in groupby(calls, key=lambda call: call.round)]


def _overlap(words: frozenset[str], others: frozenset[str]) -> float:
    """The share of words two calls have in common (Jaccard); two calls without words are alike."""
    either = len(words | others)
    return len(words & others) / either if either else 1.0
