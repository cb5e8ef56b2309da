"""
Every private attribute of AutoGen that misstep uses, in one place; tried on autogen-agentchat and -core 0.7.5.

A class of the user's own need not have any of them: what is not there is not guarded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from autogen_agentchat.agents import MessageFilterAgent, SocietyOfMindAgent
from autogen_agentchat.base import Team
from autogen_agentchat.teams import BaseGroupChat
from autogen_agentchat.tools import AgentTool, TeamTool

MODEL_CLIENT = "_model_client"
"""Where an agent, a SocietyOfMindAgent, a selecting or orchestrating team and its manager keep their model."""


def inner(target: Any) -> Iterator[Any]:
    """The agents and teams an agent or a team hands turns to; those it calls as tools are in `called`."""
    if isinstance(target, Team):
        yield from getattr(target, "_participants", ())
    elif isinstance(target, SocietyOfMindAgent):
        yield target._team
    elif isinstance(target, MessageFilterAgent):
        yield target._wrapped_agent


def workbenches(agent: Any) -> Sequence[Any]:
    """Where an agent's tools are called."""
    return tuple(getattr(agent, "_workbench", ()))


def handoff_tools(agent: Any) -> Sequence[Any]:
    """An agent's hand-offs, which it calls past its workbenches."""
    return tuple(getattr(agent, "_handoff_tools", ()))


def called(workbench: Any) -> Iterator[Any]:
    """The agents and teams behind a workbench's tools."""
    for tool in getattr(workbench, "_tools", ()):
        if isinstance(tool, AgentTool | TeamTool):
            yield tool._task_runner


def manager_name(team: Any) -> str:
    """What a team calls whoever chooses its speakers."""
    return str(getattr(team, "_group_chat_manager_name", "manager"))


def manager(team: Any) -> Any:
    """Whoever chooses a team's speakers; None before the first run, and in a runtime of another process."""
    return _agents(team).get(getattr(team, "_group_chat_manager_topic_type", ""))


def model_name(client: Any) -> str:
    """A model's name for people."""
    arguments = getattr(client, "_create_args", None)
    named = arguments.get("model") if isinstance(arguments, dict) else None
    return str(named or getattr(client, "model", None) or type(client).__name__)


async def tidy(team: Any, unread: Iterable[tuple[Any, Sequence[Any]]]) -> None:
    """
    Make a team usable again after a halt, as AutoGen does after a stop but not after an exception.

    Without it the manager still waits for the speaker that was halted and ends the next run after one turn. Speakers
    at work at the same time are let come to their next seat, where they are halted too; `unread` tells which agents
    were halted at work, and what each had taken from its container by then: it is not delivered again.
    """
    if not isinstance(team, BaseGroupChat):
        return
    runtime: Any = team._runtime
    if team._embedded_runtime:
        if runtime._background_tasks:
            await asyncio.wait(set(runtime._background_tasks))
        runtime._background_exception = None
        runtime._message_queue = type(runtime._message_queue)()
    while not team._output_message_queue.empty():
        team._output_message_queue.get_nowait()
    for agent, taken in unread:
        for container in _agents(team).values():
            if getattr(container, "_agent", None) is agent:
                ids = set(map(id, taken))
                container._message_buffer[:] = [each for each in container._message_buffer if id(each) not in ids]
    chooser = manager(team)
    if chooser is not None:
        if hasattr(chooser, "_ready"):
            chooser._ready.extend(chooser._active_speakers)
        chooser._active_speakers.clear()
        chooser._current_turn = 0
        if chooser._termination_condition is not None:
            await chooser._termination_condition.reset()


def _agents(team: Any) -> dict[str, Any]:
    """A team's own live agents in its runtime, by agent type."""
    agents = getattr(getattr(team, "_runtime", None), "_instantiated_agents", {})
    key = getattr(team, "_team_id", None)
    return {id_.type: agent for id_, agent in agents.items() if id_.key == key}
