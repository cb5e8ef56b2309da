"""The sessions of a guard: which runs are open, which are over, which conversation each belongs to."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

from misstep.report import RunReport
from misstep.session import Session

_PAUSED = 100
"""So many interrupted runs are kept as they were, for their conversation to go on; of the others only the report."""


class Sessions:
    """
    At most `most` open runs, and as many reports of runs that ended.

    A run without an event for `age` seconds is due to be evicted, and beyond `most` the longest silent are.
    """

    def __init__(self, most: int, age: float) -> None:
        self.most, self.age = most, age
        self.evicted = 0
        self.lock = threading.RLock()
        self._open: OrderedDict[str, Session] = OrderedDict()
        self._finished: OrderedDict[str, RunReport] = OrderedDict()
        self._unreported: OrderedDict[str, None] = OrderedDict()
        self._threads: OrderedDict[str, str] = OrderedDict()
        self._paused: OrderedDict[str, Session] = OrderedDict()

    def get(self, run: str) -> Session | None:
        """An open run's session."""
        return self._open.get(run)

    def active(self, run: str) -> Session | None:
        """An open run's session, which something was just heard of."""
        with self.lock:
            session = self._open.get(run)
            if session is not None:
                self._open.move_to_end(run)
            return session

    def ids(self) -> list[str]:
        """The open runs, the longest silent first."""
        return list(self._open)

    def add(self, session: Session) -> None:
        """A run begins."""
        self._open[session.run.id] = session

    def follow(self, thread: str | None, run: str) -> str | None:
        """The conversation's last run before this one."""
        if thread is None:
            return None
        earlier = self._threads.pop(thread, None)
        self._threads[thread] = run
        if len(self._threads) > self.most:
            self._threads.popitem(last=False)
        return earlier

    def pause(self, session: Session) -> None:
        """A conversation was interrupted: its run may go on."""
        if session.thread is None:
            return
        with self.lock:
            self._paused[session.thread] = session
            self._paused.move_to_end(session.thread)
            if len(self._paused) > _PAUSED:
                self._paused.popitem(last=False)

    def paused(self, thread: str | None) -> Session | None:
        """The interrupted run of a conversation; from now on it is nobody's."""
        return None if thread is None else self._paused.pop(thread, None)

    def finish(self, run: str, report: RunReport) -> None:
        """A run is over."""
        with self.lock:
            self._open.pop(run, None)
            self._finished[run] = report
            self._unreported[run] = None
            if len(self._finished) > self.most:
                self._unreported.pop(self._finished.popitem(last=False)[0], None)

    def finished(self, run: str) -> RunReport | None:
        """The report of a run that ended."""
        return self._finished.get(run)

    def amend(self, report: RunReport) -> None:
        """Put a changed report in the place of the old one."""
        self._finished[report.run] = report

    def unreported(self) -> list[RunReport]:
        """The runs that ended since the last call."""
        with self.lock:
            runs = [self._finished[run] for run in self._unreported]
            self._unreported.clear()
            return runs

    def due(self) -> list[str]:
        """Runs to be evicted."""
        now, excess = time.monotonic(), len(self._open) - self.most
        due: list[str] = []
        for run, session in self._open.items():
            if len(due) >= excess and now - session.run.touched <= self.age:
                break
            due.append(run)
        self.evicted += len(due)
        return due
