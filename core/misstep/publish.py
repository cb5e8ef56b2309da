"""Publishing: the sink, the log and whoever asked to be told; none of them can hold up or break a run."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from misstep.decisions import Kind
from misstep.events import AnomalyFound, DecisionTaken, Event
from misstep.redact import printable
from misstep.sink import Sink
from misstep.taxonomy import AnomalyType, Severity

log = logging.getLogger("misstep")

Listener = Callable[[AnomalyFound], object]
DecisionListener = Callable[[DecisionTaken], object]
Unsubscribe = Callable[[], None]


class Publisher:
    """Tells the outside what happened, in the order it happened, outside any lock; a `quiet` one tells nobody."""

    def __init__(self, sink: Sink | None, *, quiet: bool = False) -> None:
        self.sink, self._quiet = sink, quiet
        self._listeners: dict[Hashable, tuple[list[Any], ...]] = {}
        self._subscribing = threading.Lock()
        self._reported = False

    def subscribe(self, topic: AnomalyType | Kind | None, listener: Callable[[Any], object]) -> Unsubscribe:
        """
        Call `listener` with every anomaly of a type, or with every decision of a kind (None: of any kind).

        What is returned ends that; a second call of it does nothing.
        """
        entry = [listener]
        with self._subscribing:
            self._listeners[topic] = (*self._listeners.get(topic, ()), entry)

        def unsubscribe() -> None:
            with self._subscribing:
                left = tuple(other for other in self._listeners.get(topic, ()) if other is not entry)
                self._listeners[topic] = left

        return unsubscribe

    def publish(self, news: Iterable[Event]) -> None:
        """Tell of these events."""
        for event in () if self._quiet else news:
            if self.sink is not None:
                self._store(self.sink, event)
            if isinstance(event, AnomalyFound):
                _log_anomaly(event)
                self._tell(event.type, event)
            elif isinstance(event, DecisionTaken):
                verb = "would decide" if event.hypothetical else "decided"
                log.info("run %s: %s %s for %s", event.run, verb, event.decision, printable(event.agent) or "the agent")
                self._tell(event.decision, event)
                self._tell(None, event)

    def close(self) -> None:
        """Close the sink."""
        if self.sink is not None:
            self.sink.close()

    def _store(self, sink: Sink, event: Event) -> None:
        try:
            sink.write(event)
        except Exception:
            if not self._reported:
                self._reported = True
                log.exception("the sink failed; events are being lost")

    def _tell(self, topic: AnomalyType | Kind | None, event: Event) -> None:
        for (listener,) in self._listeners.get(topic, ()):
            try:
                listener(event)
            except Exception:
                log.exception("a listener for `%s` raised", topic or "decisions")


def _log_anomaly(event: AnomalyFound) -> None:
    level = logging.INFO if event.severity.rank <= Severity.LOW.rank else logging.WARNING
    if log.isEnabledFor(level):
        where = f"run {event.run} step {event.step} {' '.join(printable(event.agent).splitlines())}"
        log.log(level, "%s: %s: %s", where, event.type.value, " ".join(printable(event.message).splitlines()))
