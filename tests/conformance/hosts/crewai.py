"""CrewAI: a sequential crew, guarded whole."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

os.environ.update(CREWAI_DISABLE_TELEMETRY="true", OTEL_SDK_DISABLED="true", CREWAI_TRACING_ENABLED="false")

from crewai import Agent, Crew, Task
from crewai.tools import tool as as_tool

from misstep import Guard
from misstep.testing import Ask, Say, Script
from misstep_crewai import guarded
from misstep_crewai.messages import words
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
        heard = [words(message.get("content")) for each in output.tasks_output for message in each.messages]
        texts = [each.raw for each in output.tasks_output]
        return Outcome([*heard, *texts, output.raw], getattr(self._crew, "last_run", None))


class GuardedCrew:
    """An agent with tools, and co-workers it can delegate to."""

    name = "CrewAI crew"
    declares: dict[str, str] = {  # noqa: RUF012 - as the protocol has it
        "second_turn": "a second kickoff begins a new conversation: nothing of the first one is in it",
        "tool_retry": "CrewAI makes the call between two hooks, which cannot make it again",
        "tool_timeout": "CrewAI makes the call between two synchronous hooks, which cannot cut it off",
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
        others: Mapping[str, Script] | None = None,
    ) -> CrewApp:
        """The crew; what was done before is an earlier task, an inner agent and the others are co-workers."""
        helpers = {name: Inner(played, ()) for name, played in (others or {}).items()}
        if inner is not None:
            helpers["helper"] = inner
        worker = _agent("worker", script, world, tools, allow_delegation=bool(helpers))
        goal = Task(description="do", expected_output="an answer", agent=worker)
        agents, tasks = [worker], [goal]
        agents.extend(_agent(role, each.script, world, each.tools) for role, each in helpers.items())
        if opening is not None:
            opener = _agent("opener", Script(Say(opening)), world, ())
            agents.append(opener)
            tasks.insert(0, Task(description="begin", expected_output="a part", agent=opener))
        crew = Crew(agents=agents, tasks=tasks, verbose=False)
        return CrewApp(crew if guard is None else guarded(crew, guard), goal)

    def model(self, script: Script) -> ScriptedLLM:
        """One that calls tools natively."""
        return ScriptedLLM(script)

    def hand_off(self, agent: str) -> Ask:
        """By delegation."""
        return Ask("delegate_work_to_coworker", {"task": "go on", "context": "none", "coworker": agent}, id="h1")

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
