"""What misstep can enact on LangGraph and LangChain, by the way it is attached."""

from misstep.decisions import Kind
from misstep.seats import Seat, Seats

GUARDED = Seats(
    "misstep_langgraph.guarded",
    {
        Seat.MODEL: {Kind.RETRY: "", Kind.REPROMPT: "", Kind.HALT: ""},
        Seat.TOOL: {Kind.REFUSE: "", Kind.HALT: ""},
        Seat.RUN: {Kind.HALT: "soft; re-raised to an outer graph"},
    },
)

MIDDLEWARE = Seats(
    "misstep_langgraph.MisstepMiddleware",
    {
        Seat.MODEL: {Kind.RETRY: "", Kind.REPROMPT: "", Kind.HALT: "soft: a last message without calls ends the agent"},
        Seat.TOOL: {Kind.REFUSE: "", Kind.HALT: "refuses this call, and ends the agent at its next model call"},
    },
)

ENFORCING_HANDLER = Seats(
    "misstep_langgraph.MisstepCallbackHandler(enforce=True)",
    {
        Seat.MODEL: {Kind.RETRY: "", Kind.REPROMPT: "", Kind.HALT: "raises `Halted` to the caller"},
        Seat.TOOL: {Kind.REFUSE: "", Kind.HALT: "raises `Halted` to the caller"},
    },
)
