"""What misstep can enact on AutoGen."""

from misstep.decisions import Kind
from misstep.seats import Seat, Seats

GUARDED = Seats(
    "misstep_autogen.guarded",
    {
        Seat.MODEL: {Kind.RETRY: "", Kind.REPROMPT: "", Kind.HALT: ""},
        Seat.TOOL: {
            Kind.REFUSE: "a refused hand-off ends the turn: the agent reads the objection at its next one",
            Kind.HALT: "refuses this call, and ends the run at its next model call or turn",
        },
        Seat.RUN: {Kind.HALT: "soft; raised to an outer team that is not guarded"},
    },
)

WATCHING = Seats(
    "misstep_autogen.MisstepInterventionHandler",
    {Seat.RUN: {}, Seat.TURN: {}, Seat.MODEL: {}, Seat.TOOL: {}, Seat.MESSAGE: {}},
)
"""It sees each of them, and only watches: what it would decide is what `guarded` can enact."""
