"""Sinks: where the record of a run goes. Telemetry is bounded and lossy under overload, and counts what it lost."""

from __future__ import annotations

import atexit
import logging
import queue
import threading
from pathlib import Path
from typing import Protocol

from misstep.events import Event
from misstep.records import to_line, to_record
from misstep.redact import redacted_json

log = logging.getLogger("misstep")


class Sink(Protocol):
    """Takes every event of every run. `write` is called under load and must not block; it may raise."""

    def write(self, event: Event) -> None:
        """Take one event."""
        ...

    def close(self) -> None:
        """Write what is still held, and stop."""
        ...


class JsonlSink:
    """
    Appends redacted records to a file, one JSON object a line, from a thread of its own.

    At most `capacity` events wait; one that finds no room is dropped and counted in `lost`. A file that cannot be
    written is reported once in the log and in `error`; what cannot be written is counted as lost. A program that ends
    writes what waits; a killed one loses at most that and the line being written: every batch is flushed when the
    queue runs empty.
    """

    def __init__(self, path: str | Path, capacity: int = 10_000) -> None:
        self.path = Path(path)
        self.lost = 0
        self.error: OSError | None = None
        self._queue: queue.Queue[Event | None] = queue.Queue(capacity)
        self._closed = False
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def write(self, event: Event) -> None:
        """Queue one event; never blocks."""
        if self._closed:
            self.lost += 1
            return
        if self._thread is None:
            self._start()
        try:
            self._queue.put_nowait(event)
        except queue.Full:
            self.lost += 1

    def close(self, timeout: float = 5.0) -> None:
        """Write what waits, for at most `timeout` seconds."""
        with self._lock:
            running, self._closed = not self._closed and self._thread is not None, True
        if not running or self._thread is None:
            return
        atexit.unregister(self.close)
        try:
            self._queue.put(None, timeout=timeout)
        except queue.Full:
            return
        self._thread.join(timeout)

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="misstep-sink", daemon=True)
                self._thread.start()
                atexit.register(self.close)

    def _work(self) -> None:
        while True:
            batch = [self._queue.get()]
            while not self._queue.empty() and len(batch) < 1000:
                batch.append(self._queue.get())
            self._append([event for event in batch if event is not None])
            if None in batch:
                return

    def _append(self, events: list[Event]) -> None:
        lines = [line for line in map(self._line, events) if line is not None]
        if not lines:
            return
        try:
            with self.path.open("a", encoding="utf-8", errors="replace") as file:
                file.writelines(lines)
        except OSError as error:
            self._failed(error, len(lines))

    def _line(self, event: Event) -> str | None:
        try:
            return f"{to_line(redacted_json(to_record(event)))}\n"
        except Exception as error:  # one event that cannot be written takes no other with it
            self._failed(error, 1)
            return None

    def _failed(self, error: Exception, events: int) -> None:
        self.lost += events
        if self.error is None:
            self.error = error if isinstance(error, OSError) else OSError(str(error))
            log.error("sink `%s` cannot be written: %s; events are being lost", self.path, error)
