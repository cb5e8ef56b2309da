"""What models proposed and nobody called yet: a tool hook does not say which proposal its call is, so it is found."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from misstep.events import ProposedCall

_KEPT = 256


@dataclass(frozen=True, slots=True)
class Proposal:
    """One call of a reply; `loose` if it was read from text, where CrewAI mends tool names and broken arguments."""

    batch: int
    call: ProposedCall
    loose: bool

    def carried_out_by(self, tool: str, arguments: Mapping[str, Any]) -> bool:
        """Whether this is the proposal of that call, mended or not."""
        same = self.call.arguments == arguments
        return self.is_just(tool, arguments) or (self.loose and (same or self.call.arguments is None))

    def is_just(self, tool: str, arguments: Mapping[str, Any]) -> bool:
        """Whether that very call was proposed."""
        return (self.call.tool, self.call.arguments) == (tool, arguments)


class Proposals:
    """
    Open proposals by instance, from any thread; bounded.

    A call is the first proposal of the newest reply with the same tool and the same arguments. One whose arguments a
    user's hook has changed is nobody's proposal.
    """

    def __init__(self) -> None:
        self._open: OrderedDict[str, list[Proposal]] = OrderedDict()
        self._lock = threading.Lock()

    def propose(self, instance: str, batch: int, calls: Sequence[ProposedCall], *, loose: bool) -> None:
        """A model replied; what an earlier try of the same reply proposed is gone."""
        with self._lock:
            earlier = [each for each in self._open.pop(instance, ()) if each.batch != batch]
            self._open[instance] = [*earlier, *(Proposal(batch, call, loose) for call in calls)][-_KEPT:]
            if len(self._open) > _KEPT:
                self._open.popitem(last=False)

    def take(self, instance: str, tool: str, arguments: Mapping[str, Any]) -> Proposal | None:
        """The proposal a call carries out; None where nobody proposed it."""
        with self._lock:
            proposals = self._open.get(instance, [])
            matching = [each for each in proposals if each.carried_out_by(tool, arguments)]
            if not matching:
                return None
            found = max(matching, key=lambda each: each.batch)
            proposals.remove(found)
            return found
