"""Verification of a crew: what it consists of, and every way of kicking it off."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

from crewai import Agent, Crew, Process

from misstep.guard import Guard
from misstep.seats import Seat, Seats
from misstep.verification import Canary, Part, Way
from misstep_crewai.messages import declared
from misstep_crewai.private import function_of
from misstep_crewai.run import guard_of
from misstep_crewai.seats import seats_of
from misstep_crewai.stubs import stubbed

_INSIDE = "a crew or an agent inside a tool: run the tool's body with `bodies`"

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_\-]*)\}")


def rehearse(app: Any, *, bodies: bool = False, inputs: Any = None) -> CrewRehearsal:
    """What is known of a crew. Raises TypeError for what is none."""
    if not isinstance(app, Crew):
        raise TypeError(f"`{type(app).__name__}` is no crew: verify the crews a flow runs, each by itself")
    return CrewRehearsal(app, bodies, inputs)


class CrewRehearsal:
    """
    A crew, to be run with a canary; each run is of a copy, so that the crew itself stays as it is.

    Its bodies are the crews and agents inside its tools.
    """

    def __init__(self, crew: Crew, bodies: bool, inputs: Any) -> None:
        self._crew, self._bodies = crew, bodies
        self._inputs = inputs if inputs is not None else _inputs(crew)
        self.guard: Guard | None = guard_of(crew)
        self.seats: Seats | None = seats_of(crew) if self.guard is not None else None

    def parts(self) -> Iterator[Part]:
        """The model of each agent that can get to work, the tools it has there, and what is inside those."""
        for agent in self._crew.agents:
            role, works = self._role(agent), [task for task in self._crew.tasks if task.agent is agent]
            if works or self._delegates:
                yield Part(Seat.MODEL, role)
            for task in works:
                yield from (
                    Part(Seat.TOOL, f"{role}/{tool.name}") for tool in declared(task.tools or agent.tools or ())
                )
        if type(self._crew.copy()) is not type(self._crew):
            why = f"a copy of it is a plain `Crew`: what `{type(self._crew).__name__}` itself does is not run"
            yield Part(Seat.RUN, type(self._crew).__name__, why=why)
        if not self._bodies:
            yield from (Part(Seat.MODEL, f"tools/{name}", why=_INSIDE) for name in self._leads())

    def stubbed(self, canary: Canary) -> AbstractContextManager[None]:
        """While every class of models and tools answers with a stub."""
        return stubbed(canary, self._leads() if self._bodies else {})

    @property
    def _delegates(self) -> bool:
        crew = self._crew
        return crew.process is Process.hierarchical or any(agent.allow_delegation for agent in crew.agents)

    def _role(self, agent: Any) -> str:
        return str(agent.role).strip().format_map(_Filled(self._inputs))

    def _leads(self) -> dict[str, str]:
        """The tools that hold a crew or an agent."""
        given = [tool for owner in (*self._crew.agents, *self._crew.tasks) for tool in owner.tools or ()]
        return {declared([tool])[0].name: f"inside {tool.name}" for tool in given if _holds(tool)}

    def ways(self) -> Iterator[Way]:
        """Kicked off sync and async, streamed, for each of several inputs, and halted."""
        given, several = self._inputs, [self._inputs, self._inputs]
        yield Way("kickoff", lambda: self._copy().kickoff(given))
        yield Way("kickoff_async", lambda: asyncio.run(self._copy().kickoff_async(given)))
        yield Way("akickoff", lambda: asyncio.run(self._copy().akickoff(given)))
        yield Way("kickoff_for_each", lambda: self._copy().kickoff_for_each(several))
        yield Way("kickoff_for_each_async", lambda: asyncio.run(self._copy().kickoff_for_each_async(several)))
        yield Way("stream", self._streamed)
        yield Way("copy of a copy", lambda: self._copy().copy().kickoff(given))
        yield Way("halted", lambda: self._copy().kickoff(given), halts=True)

    def _copy(self) -> Any:
        """A copy that asks nobody and remembers nothing."""
        copied: Any = self._crew.copy()
        for task in copied.tasks:
            task.human_input = False
        copied.memory, copied.cache = False, False
        return copied

    def _streamed(self) -> list[Any]:
        crew = self._copy()
        crew.stream = True
        output = crew.kickoff(self._inputs)
        return [*output, output.result]


def _inputs(crew: Crew) -> dict[str, str]:
    """A value for each place a crew's texts have for its inputs."""
    texts = [text for agent in crew.agents for text in (agent.role, agent.goal, agent.backstory)]
    texts += [text for task in crew.tasks for text in (task.description, task.expected_output)]
    return {name: "canary" for text in texts for name in _PLACEHOLDER.findall(str(text))}


def _holds(tool: Any) -> bool:
    """Whether a tool holds a crew or an agent: as an attribute, in a closure or as a global of its code."""
    function = getattr(tool, "func", None) or function_of(tool)
    within = [*vars(tool).values()]
    if inspect.isfunction(function):
        variables = inspect.getclosurevars(function)
        within += [*variables.nonlocals.values(), *variables.globals.values()]
    return any(isinstance(each, Crew | Agent) for each in within)


class _Filled(dict[str, Any]):
    """Inputs by name; what there is no input for stays as it is."""

    def __missing__(self, name: str) -> str:
        return f"{{{name}}}"
