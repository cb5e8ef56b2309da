"""Where in a crew a call happens, by the agent and the task CrewAI names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from crewai import Crew

from misstep.events import Trust


@dataclass(frozen=True, slots=True)
class Place:
    """
    `agent` is a name for people; `instance` the path that tells two copies apart: the task's id and the role.

    `vouched` says who vouches for the first prompt: the user, but for work another agent or CrewAI itself hands on.
    `task` is whether the agent works off a task: then all that follows is CrewAI's or agents', but people's feedback.
    """

    agent: str
    instance: str
    vouched: Trust = "user"
    task: bool = False


def place(agent: Any, task: Any) -> Place:
    """The place of a call made for that agent, in that task (None outside a crew)."""
    role = str(getattr(agent, "role", None) or "agent").strip()
    if task is None:
        return Place(role, role)
    crew = getattr(agent, "crew", None)
    delegated = isinstance(crew, Crew) and not any(own is task for own in crew.tasks)
    return Place(role, f"{task.id}/{role}", "agent" if delegated else "user", task=True)
