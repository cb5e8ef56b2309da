"""Reach: what of a ladder can be carried out where an event is judged."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from misstep.decisions import Kind
from misstep.policy.model import Rung


@dataclass(frozen=True, slots=True)
class Reach:
    """
    The decisions the seats can enact on an event, the `models` a fallback may name, the `agents` a reroute may name
    (None: whoever is named is taken to be there, and who is not is the host's to find).
    """

    kinds: frozenset[Kind]
    models: Collection[str] | None = None
    agents: Collection[str] | None = None

    def has(self, rung: Rung, agent: str = "") -> bool:
        """Whether a rung can be carried out on what `agent` did."""
        if rung.kind not in self.kinds:
            return False
        return rung.kind not in (Kind.REROUTE, Kind.FALLBACK) or self.target(rung, agent) is not None

    def target(self, rung: Rung, agent: str) -> str | None:
        """The model of a fallback, the agent of a reroute away from `agent`; None where there is none."""
        known = self.models if rung.kind is Kind.FALLBACK else self.agents
        if known is None:
            return rung.to or ""
        names = [name for name in _after(agent, list(known)) if rung.to in (None, name)]
        return next(iter(names), None)


def _after(agent: str, names: list[str]) -> list[str]:
    """The names from behind `agent` on, all the way round, without it."""
    if agent not in names:
        return names
    at = names.index(agent)
    return names[at + 1 :] + names[:at]


EVERYTHING = Reach(frozenset(Kind))
"""Whoever calls `observe` by hand carries out whatever is decided."""
