"""What misstep can enact on AutoGen."""

from __future__ import annotations

from typing import Any, TypeAlias

from misstep.decisions import Kind
from misstep.seats import Seat, Seats
from misstep_autogen import private

GUARDED = Seats(
    "misstep_autogen.guarded",
    {
        Seat.MODEL: {
            Kind.REWRITE: "",
            Kind.RETRY: "",
            Kind.REPROMPT: "",
            Kind.FALLBACK: "to a `ChatCompletionClient`",
            Kind.VOTE: "",
            Kind.ASK: "by the guard's approver",
            Kind.HALT: "",
        },
        Seat.TOOL: {
            Kind.REWRITE: "",
            Kind.REFUSE: "a refused hand-off ends the turn: the agent reads the objection at its next one",
            Kind.RETRY: "",
            Kind.ASK: "by the guard's approver",
            Kind.REROUTE: "hand-offs in a Swarm",
            Kind.HALT: "refuses this call, and ends the run at its next model call or turn",
        },
        Seat.TURN: {Kind.REROUTE: "at the team's next choice of a speaker; not in a MagenticOneGroupChat"},
        Seat.MESSAGE: {Kind.REWRITE: "texts; a StructuredMessage and a MultiModalMessage stay as they are"},
        Seat.RUN: {
            Kind.HALT: "soft; raised to an outer team that is not guarded",
            Kind.ROLL_BACK: "to before a turn of the team, or of a single agent; what was streamed is out",
        },
    },
)

WATCHING = Seats(
    "misstep_autogen.MisstepInterventionHandler",
    {Seat.RUN: {}, Seat.TURN: {}, Seat.MODEL: {}, Seat.TOOL: {}, Seat.MESSAGE: {}},
)
"""It sees each of them, and only watches: what it would decide is what `guarded` can enact."""

Means: TypeAlias = tuple[Seats, tuple[str, ...] | None]
"""What can be enacted, and the agents a reroute can give the turn to."""


def means_of(target: Any) -> Means:
    """The means there are with an agent or a team."""
    names = tuple(dict.fromkeys(private.speakers(target)))
    return (GUARDED, names) if len(names) > 1 else (GUARDED.without(Kind.REROUTE), None)
