"""
Every private attribute of AutoGen that misstep uses, in one place; tried on autogen-agentchat and -core 0.7.5.

A class of the user's own need not have any of them: what is not there is not guarded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from autogen_agentchat.agents import MessageFilterAgent, SocietyOfMindAgent
from autogen_agentchat.base import ChatAgent, Team
from autogen_agentchat.messages import StopMessage
from autogen_agentchat.teams._group_chat import _events as group_chat
from autogen_agentchat.teams._group_chat._chat_agent_container import ChatAgentContainer

from misstep.side_effects import Classified, declared_on

GROUP_CHAT = group_chat
"""The messages a team's manager and participants send each other."""

MODEL_CLIENT = "_model_client"
"""Where an agent, a SocietyOfMindAgent, a selecting or orchestrating team and its manager keep their model."""

MANAGER_FACTORY = "_create_group_chat_manager_factory"
"""What a team makes its manager with, when it is first run."""

CHOOSING = ("_transition_to_next_speakers", "_orchestrate_step")
"""Where a manager gives the next turn; the second is MagenticOne's."""


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
    """The agents and teams behind a workbench's tools: those of an AgentTool, a TeamTool and their like."""
    for tool in getattr(workbench, "_tools", ()):
        runner = getattr(tool, "_task_runner", None)
        if isinstance(runner, ChatAgent | Team):
            yield runner


def says_of(workbench: Any, name: str) -> Classified | None:
    """What the code of a workbench's tool declares of its effect. AutoGen keeps no hints of an MCP server's."""
    original = getattr(workbench, "_override_name_to_original", {}).get(name, name)
    tool = next((each for each in getattr(workbench, "_tools", ()) if each.name == original), None)
    return None if tool is None else declared_on(tool, getattr(tool, "_func", None), type(tool).run)


def instructions(agent: Any) -> Collection[str] | None:
    """An agent's own system messages; None where it is not known which they are."""
    messages = getattr(agent, "_system_messages", None)
    return None if messages is None else [message.content for message in messages]


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


async def stop(manager: Any, reason: str) -> None:
    """Stop a team as AutoGen does where a termination condition is met: the next run begins anew."""
    if manager._termination_condition is not None:
        await manager._termination_condition.reset()
    manager._current_turn = 0
    await manager._signal_termination(StopMessage(content=reason, source=manager._name))


def settle(team: Any, signs: Collection[str], unheard: Mapping[int, Sequence[Any]]) -> None:
    """
    What a team's participants have yet to hear after a halt: not the signs by which halted turns were ended, and
    what was handed to those (by id) who were not given their turn any more.
    """
    for agent in _agents(team).values():
        if isinstance(agent, ChatAgentContainer):
            waiting = [*unheard.get(id(agent._agent), ()), *agent._message_buffer]
            agent._message_buffer[:] = [message for message in waiting if message.id not in signs]


def _agents(team: Any) -> dict[str, Any]:
    """A team's own live agents in its runtime, by agent type."""
    agents = getattr(getattr(team, "_runtime", None), "_instantiated_agents", {})
    key = getattr(team, "_team_id", None)
    return {id_.type: agent for id_, agent in agents.items() if id_.key == key}
