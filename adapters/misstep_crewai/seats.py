"""
What misstep can enact on CrewAI, within the kickoffs of a guarded crew.

Out of its reach, because CrewAI's own seams are: threads a tool starts without their context; agents of other
frameworks and remote ones (`agent_adapters`, `a2a`); and structured output that CrewAI fetches through `instructor`,
past `llm.call`.

Not declared: a tool's retry and its deadline, since CrewAI itself makes the call, between two synchronous hooks, which
can neither make it again nor cut it off; and anything at messages, which CrewAI's agents send each other as calls and
tasks only.
"""

from __future__ import annotations

import dataclasses

from crewai import Crew, Process

from misstep.decisions import Kind
from misstep.seats import Seat, Seats

_WAITS = "by the guard's approver; its thread waits"

GUARDED = Seats(
    "misstep_crewai.guarded",
    {
        Seat.MODEL: {
            Kind.REWRITE: "in text mode CrewAI reads the same action or final answer as before",
            Kind.RETRY: "",
            Kind.REPROMPT: "",
            Kind.VOTE: "",
            Kind.FALLBACK: "to a CrewAI `BaseLLM` that is asked for tools as the agent's own is",
            Kind.ASK: _WAITS,
            Kind.HALT: "",
        },
        Seat.TOOL: {
            Kind.REWRITE: "in text mode a call without arguments gets none, and CrewAI's events tell the old result",
            Kind.REROUTE: "of a delegation, to another co-worker",
            Kind.ASK: _WAITS,
            Kind.REFUSE: "with `result_as_answer=True` and native tool calling the objection is the task's answer",
            Kind.HALT: "refuses this call, then raises; parallel calls already begun finish",
        },
        Seat.TURN: {Kind.REROUTE: "the other agent works off the task in hand, from its beginning"},
        Seat.RUN: {
            Kind.ROLL_BACK: "to the beginning of the task in hand; what its tools did stays done",
            Kind.HALT: "soft: a `CrewOutput` of the finished tasks; re-raised to an outer crew",
        },
    },
)


def seats_of(crew: Crew) -> Seats:
    """
    What can be enacted on this crew.

    Tasks that run at once (`async_execution`) cannot be begun again, since those in flight cannot be called back; and
    in the hierarchical process every task is the manager's.
    """
    enacts = dict(GUARDED.enacts)
    at_once = any(task.async_execution for task in crew.tasks)
    if at_once or crew.process is Process.hierarchical:
        del enacts[Seat.TURN]
    if at_once:
        enacts[Seat.RUN] = {Kind.HALT: enacts[Seat.RUN][Kind.HALT]}
    return dataclasses.replace(GUARDED, enacts=enacts)


def roles(crew: Crew) -> list[str]:
    """The agents a task can be given to, by the names they have now."""
    return [str(agent.role).strip() for agent in crew.agents]


def known_roles(crew: Crew) -> list[str] | None:
    """The same before a kickoff; None while a role has places for its inputs."""
    found = roles(crew)
    return None if any("{" in role for role in found) else found


WATCHING = Seats("misstep_crewai.callbacks", {Seat.RUN: {}, Seat.TURN: {}, Seat.MODEL: {}, Seat.TOOL: {}})
"""It sees each of them, a task at a time, and only watches: what it would decide is what `guarded` can enact."""
