"""
What misstep is tested with, for testing what is guarded by it: scripts for models, anomalies caught in a list, and
saved traces in which nothing may be found.

A script is a list of replies, one for each model call in order; the last one stands for all calls after it. Each
adapter's own `testing` module turns a script into a model of its framework. None of it needs a key or a network.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from misstep.analysis import NotRead, analyze
from misstep.events import AnomalyFound
from misstep.guard import Guard
from misstep.policy import Policy
from misstep.taxonomy import AnomalyType, Severity
from misstep.terminal import Page, account


@dataclass(frozen=True, slots=True)
class Say:
    """The model answers with words."""

    text: str


@dataclass(frozen=True, slots=True)
class Ask:
    """The model proposes one call of a tool."""

    tool: str
    arguments: dict[str, Any] = field(default_factory=dict)
    id: str = "c1"


@dataclass(frozen=True, slots=True)
class AskAll:
    """The model proposes several calls at once."""

    calls: tuple[Ask, ...]


Reply: TypeAlias = Say | Ask | AskAll | Exception
"""An exception is raised in place of an answer."""

Step: TypeAlias = Reply | Callable[[Sequence[str]], Reply]
"""A function chooses the reply from the texts the model is shown."""


class Script:
    """Plays replies in order, from any thread, and remembers in `seen` the texts the model was shown at each call."""

    def __init__(self, *steps: Step) -> None:
        if not steps:
            raise ValueError("a script needs at least one reply")
        self.seen: list[list[str]] = []
        self._steps = steps
        self._lock = threading.Lock()

    @property
    def calls(self) -> int:
        """How often the model was called."""
        return len(self.seen)

    def next(self, texts: Sequence[str]) -> Say | AskAll:
        """The next reply to a model that is shown these texts; a single call comes as a batch of one."""
        with self._lock:
            step = self._steps[min(len(self.seen), len(self._steps) - 1)]
            self.seen.append(list(texts))
        reply = step(texts) if callable(step) else step
        if isinstance(reply, Exception):
            raise reply
        return AskAll((reply,)) if isinstance(reply, Ask) else reply


@contextmanager
def capture_anomalies(guard: Guard) -> Iterator[list[AnomalyFound]]:
    """Every anomaly the guard finds while the context is open, in order."""
    found: list[AnomalyFound] = []
    subscribed = [guard.on(type_, found.append) for type_ in AnomalyType]
    try:
        yield found
    finally:
        for unsubscribe in subscribed:
            unsubscribe()


def assert_clean(*paths: str | Path, fail_on: Severity | str = Severity.HIGH, policy: Policy | None = None) -> None:
    """
    Saved traces, files or folders of them, in which nothing at least as severe as `fail_on` is found.

    `policy` is the default one where it is left out. Raises AssertionError with the account of every trace that is
    not clean, or that could not be read, and ValueError for no path at all.
    """
    __tracebackhide__ = True
    if not paths:
        raise ValueError("no saved trace to look at")
    least = Severity(fail_on)
    page, bad = Page(), []
    for found in analyze(map(str, paths), policy=policy):
        if isinstance(found, NotRead) or (found.worst is not None and found.worst.rank >= least.rank):
            bad.append(page.rendered(account(found)))
    if bad:
        raise AssertionError(f"{len(bad)} of the saved traces not clean:\n\n{''.join(bad)}")
