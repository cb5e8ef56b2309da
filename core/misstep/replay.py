"""Replay: a recorded run through the very guard that would have watched it live."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

from misstep.events import (
    AnomalyFound,
    DecisionSettled,
    DecisionTaken,
    Event,
    ModelResponded,
    RunEnded,
    RunStarted,
    ToolRequested,
)
from misstep.guard import Guard
from misstep.policy import Policy
from misstep.report import RunReport
from misstep.run import Limits

_VERDICTS = (AnomalyFound, DecisionTaken, DecisionSettled)


def replay(events: Iterable[Event], guard: Guard) -> RunReport:
    """
    What `guard` has to say of a recorded run.

    Replay is shadow: what happened is the input, and every decision is hypothetical. Only the first is comparable
    with what happened; after it the run would have gone on differently. Verdicts in the record itself are skipped:
    the guard finds its own. The events are not changed, and can be replayed again.

    Raises ValueError for no events, for a guard that is off, and for a run the guard is just watching live.
    """
    recorded = list(events)
    if not recorded:
        raise ValueError("nothing to replay: there are no events")
    if guard.mode == "off":
        raise ValueError("a guard with mode 'off' sees nothing: replay through one with mode 'shadow'")
    run = recorded[0].run
    if guard.session(run) is not None:
        raise ValueError(f"run {run!r} is open: a live run cannot be replayed at the same time")
    _open(recorded[0], guard)
    rest = recorded[1:] if isinstance(recorded[0], RunStarted) else recorded
    for event in rest:
        if not isinstance(event, (*_VERDICTS, RunEnded)):
            _tell(event, guard)
    _end(run, rest, guard)
    return guard.report(run).runs[0]


def watcher(events: Sequence[Event], policy: Policy | None = None) -> Guard:
    """
    A guard for one recorded run: it only watches, forgets nothing of the run, and gives every rule its time.

    `MISSTEP_MODE` switches what runs live; a replay is asked for, and is always shadow.
    """
    size = len(events) + sum(len(event.calls) for event in events if isinstance(event, ModelResponded))
    least = Limits()
    limits = Limits(
        events=max(least.events, 20 * size),
        calls=max(least.calls, 2 * size),
        tokens=1_000_000,
        agents=max(least.agents, 2 * size),
    )
    guard = Guard(policy, mode="shadow", limits=limits, budget=math.inf)
    guard.mode = "shadow"
    return guard


def _open(first: Event, guard: Guard) -> None:
    if isinstance(first, RunStarted):
        guard.open(
            first.run,
            framework=first.framework,
            version=first.framework_version,
            task=first.task,
            thread=first.thread,
            watching=True,
        )
    else:
        guard.open(first.run, watching=True)


def _tell(event: Event, guard: Guard) -> None:
    copy = dataclasses.replace(event, seq=-1)
    if isinstance(copy, ToolRequested):
        guard.verdict(copy)
    else:
        guard.observe(copy)


def _end(run: str, events: Iterable[Event], guard: Guard) -> None:
    ended = next((event for event in events if isinstance(event, RunEnded)), None)
    if ended is None:
        guard.end(run)
        return
    success = None if ended.outcome is None else ended.outcome == "success"
    guard.outcome(run, success=success, score=ended.score)
    guard.end(run, ended.status, error=ended.error)
