"""CrewAI: a sequential crew, guarded whole."""

from __future__ import annotations

import asyncio
import os
from typing import Any

os.environ.update(CREWAI_DISABLE_TELEMETRY="true", OTEL_SDK_DISABLED="true", CREWAI_TRACING_ENABLED="false")

from crewai import Agent, Crew, Task
from crewai.tools import tool as as_tool

from misstep import Guard
from misstep.testing import Ask, Say, Script
from misstep_crewai import guarded
from misstep_crewai.testing import ScriptedLLM
from tests.conformance.host import Inner, Mode, Outcome, World, tools_of


class CrewApp:
    """A crew; each kickoff is a conversation of its own."""

    def __init__(self, crew: Any, goal: Task) -> None:
        self._crew, self._goal = crew, goal

    def run(self, task: str, mode: Mode) -> Outcome:
        """One kickoff."""
        self._goal.description = task
        self._crew.stream = mode == "stream"
        output = asyncio.run(self._crew.akickoff()) if mode == "async" else self._crew.kickoff()
        if mode == "stream":
            for _ in output:
                pass
            output = output.result
        texts = [each.raw for each in output.tasks_output]
        return Outcome([*texts, output.raw], getattr(self._crew, "last_run", None))


class GuardedCrew:
    """An agent with tools, and a co-worker it can delegate to."""

    name = "CrewAI crew"
    declares: dict[str, str] = {  # noqa: RUF012 - as the protocol has it
        "second_turn": "a second kickoff begins a new conversation: nothing of the first one is in it",
    }

    def app(
        self,
        script: Script,
        world: World,
        guard: Guard | None,
        *,
        tools: tuple[str, ...] = ("act",),
        inner: Inner | None = None,
        opening: str | None = None,
    ) -> CrewApp:
        """The crew; what was done before is an earlier task, an inner agent is a co-worker."""
        worker = _agent("worker", script, world, tools, allow_delegation=inner is not None)
        goal = Task(description="do", expected_output="an answer", agent=worker)
        agents, tasks = [worker], [goal]
        if inner is not None:
            agents.append(_agent("helper", inner.script, world, inner.tools))
        if opening is not None:
            opener = _agent("opener", Script(Say(opening)), world, ())
            agents.append(opener)
            tasks.insert(0, Task(description="begin", expected_output="a part", agent=opener))
        crew = Crew(agents=agents, tasks=tasks, verbose=False)
        return CrewApp(crew if guard is None else guarded(crew, guard), goal)

    def ask_inner(self, task: str, id: str = "d1") -> Ask:  # noqa: A002 - as in `Ask`
        """By delegation."""
        return Ask("delegate_work_to_coworker", {"task": task, "context": "none", "coworker": "helper"}, id=id)


def _agent(role: str, script: Script, world: World, names: tuple[str, ...], *, allow_delegation: bool = False) -> Agent:
    tools = [as_tool(function.__name__)(function) for function in tools_of(world, names)]
    return Agent(
        role=role,
        goal="help",
        backstory="a shop",
        llm=ScriptedLLM(script),
        tools=tools,
        allow_delegation=allow_delegation,
        verbose=False,
    )
