"""Publishing: the sink, the log and whoever asked to be told; none of them can hold up or break a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from misstep.events import AnomalyFound, DecisionTaken, Event
from misstep.redact import printable
from misstep.sink import Sink
from misstep.taxonomy import AnomalyType, Severity

log = logging.getLogger("misstep")

Listener = Callable[[AnomalyFound], object]


class Publisher:
    """Tells the outside what happened, in the order it happened, outside any lock."""

    def __init__(self, sink: Sink | None) -> None:
        self.sink = sink
        self._listeners: dict[AnomalyType, list[Listener]] = {}
        self._reported = False

    def subscribe(self, type_: AnomalyType, listener: Listener) -> None:
        """Call `listener` with every anomaly of that type."""
        self._listeners.setdefault(type_, []).append(listener)

    def publish(self, news: Iterable[Event]) -> None:
        """Tell of these events."""
        for event in news:
            if self.sink is not None:
                self._store(self.sink, event)
            if isinstance(event, AnomalyFound):
                _log_anomaly(event)
                self._tell(event)
            elif isinstance(event, DecisionTaken):
                verb = "would decide" if event.hypothetical else "decided"
                log.info("run %s: %s %s for %s", event.run, verb, event.decision, printable(event.agent) or "the agent")

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

    def _tell(self, event: AnomalyFound) -> None:
        for listener in self._listeners.get(event.type, ()):
            try:
                listener(event)
            except Exception:
                log.exception("a listener for `%s` raised", event.type)


def _log_anomaly(event: AnomalyFound) -> None:
    level = logging.INFO if event.severity.rank <= Severity.LOW.rank else logging.WARNING
    if log.isEnabledFor(level):
        where = f"run {event.run} step {event.step} {' '.join(printable(event.agent).splitlines())}"
        log.log(level, "%s: %s: %s", where, event.type.value, " ".join(printable(event.message).splitlines()))
