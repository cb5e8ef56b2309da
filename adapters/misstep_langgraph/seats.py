"""What misstep can enact on LangGraph and LangChain, by the way it is attached."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from misstep.decisions import Kind
from misstep.seats import Seat, Seats

_MODEL: Mapping[Kind, str] = {
    Kind.REWRITE: "",
    Kind.REPROMPT: "",
    Kind.RETRY: "",
    Kind.VOTE: "",
    Kind.FALLBACK: "a chat model of LangChain's; under the gate it is given the tools as they were bound",
    Kind.ASK: "the guard's approver: an interrupt would have the model asked again",
}

_TOOL: Mapping[Kind, str] = {
    Kind.REWRITE: "of a result the artifact is dropped",
    Kind.REFUSE: "",
    Kind.RETRY: "",
    Kind.ASK: "",
}

GUARDED = Seats(
    "misstep_langgraph.guarded",
    {
        Seat.MODEL: {**_MODEL, Kind.HALT: ""},
        Seat.TOOL: {
            **_TOOL,
            Kind.ASK: "the guard's approver, if it has one; else an interrupt, of a call that was not made yet",
            Kind.REROUTE: "of calls that hand over",
            Kind.HALT: "",
        },
        Seat.TURN: {Kind.REROUTE: "to a node of the guarded graph; with a checkpointer"},
        Seat.RUN: {
            Kind.HALT: "soft; re-raised to an outer graph",
            Kind.ROLL_BACK: "to a step of the guarded graph; with a checkpointer",
        },
    },
    pauses=True,
)

IN_MEMORY = dataclasses.replace(
    GUARDED.without(Kind.REROUTE, Kind.ROLL_BACK),
    adapter="misstep_langgraph.guarded without a checkpointer",
    pauses=False,
)
"""Of a guarded graph without a checkpointer, or inside one that is not guarded."""

MIDDLEWARE = Seats(
    "misstep_langgraph.MisstepMiddleware",
    {
        Seat.MODEL: {**_MODEL, Kind.HALT: "soft: a last message without calls ends the agent"},
        Seat.TOOL: {
            **_TOOL,
            Kind.REROUTE: "of calls that hand over, by tools that say so; any other is refused",
            Kind.HALT: "refuses this call, and ends the agent at its next model call",
        },
    },
)

ENFORCING_HANDLER = Seats(
    "misstep_langgraph.MisstepCallbackHandler(enforce=True)",
    {
        Seat.MODEL: {**_MODEL, Kind.HALT: "raises `Halted` to the caller"},
        Seat.TOOL: {**_TOOL, Kind.HALT: "raises `Halted` to the caller"},
    },
)
