"""
What misstep can enact on CrewAI, within the kickoffs of a guarded crew.

Out of its reach, because CrewAI's own seams are: threads a tool starts without their context; agents of other
frameworks and remote ones (`agent_adapters`, `a2a`); structured output that CrewAI fetches through `instructor`, past
`llm.call`; and the tool calls of a bare crew run in a tool within `scoped_hooks` of its own, which are only judged.
"""

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
