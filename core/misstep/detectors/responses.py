"""Replies that say nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from misstep.anomalies import Anomaly
from misstep.events import ModelResponded
from misstep.run import Run
from misstep.taxonomy import AnomalyType


@dataclass(frozen=True)
class EmptyResponse:
    """A model answered with no words and no call: there is nothing to go on with."""

    type: ClassVar[AnomalyType] = AnomalyType.EMPTY_RESPONSE

    def __call__(self, event: ModelResponded, run: Run) -> Anomaly | None:
        """Judge one reply."""
        if event.calls or event.content.strip():
            return None
        why = f" (finish reason: {event.finish_reason})" if event.finish_reason else ""
        return Anomaly(
            type=self.type,
            message=f"`{event.agent or 'the model'}` answered with no words and no call{why}",
            evidence=(event.seq,),
            facts={"agent": event.agent},
        )
