"""What misstep can enact on CrewAI."""

from misstep.decisions import Kind
from misstep.seats import Seat, Seats

GUARDED = Seats(
    "misstep_crewai.guarded",
    {
        Seat.MODEL: {Kind.RETRY: "", Kind.REPROMPT: "", Kind.HALT: ""},
        Seat.TOOL: {
            Kind.REFUSE: "with `result_as_answer=True` and native tool calling the objection is the task's answer",
            Kind.HALT: "refuses this call, then raises; parallel calls already begun finish",
        },
        Seat.RUN: {Kind.HALT: "soft: a `CrewOutput` of the finished tasks; re-raised to an outer crew"},
    },
)
