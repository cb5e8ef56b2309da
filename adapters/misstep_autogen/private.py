"""
What of AutoGen is used that it does not promise, in one place, and all that is relied on.

Tried on autogen-agentchat and autogen-core 0.7.5.

A class of the user's own need not have any of them: what is not there is not guarded.
"""

from __future__ import annotations

import contextvars
import copy
import functools
import inspect
from collections.abc import Collection, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

from autogen_agentchat.agents import (
    AssistantAgent,
    BaseChatAgent,
    MessageFilterAgent,
    SocietyOfMindAgent,
    UserProxyAgent,
)
from autogen_agentchat.base import ChatAgent, Team
from autogen_agentchat.messages import StopMessage
from autogen_agentchat.teams import BaseGroupChat, MagenticOneGroupChat, SelectorGroupChat
from autogen_agentchat.teams._group_chat import _events as group_chat
from autogen_agentchat.teams._group_chat._base_group_chat_manager import BaseGroupChatManager
from autogen_agentchat.teams._group_chat._chat_agent_container import ChatAgentContainer
from autogen_agentchat.teams._group_chat._graph._digraph_group_chat import GraphFlowManager
from autogen_agentchat.teams._group_chat._magentic_one._magentic_one_orchestrator import MagenticOneOrchestrator
from autogen_agentchat.teams._group_chat._round_robin_group_chat import RoundRobinGroupChatManager
from autogen_agentchat.teams._group_chat._selector_group_chat import SelectorGroupChatManager
from autogen_agentchat.tools._task_runner_tool import TaskRunnerTool
from autogen_core import DefaultInterventionHandler, SingleThreadedAgentRuntime
from autogen_core.code_executor import CodeExecutor
from autogen_core.models import ChatCompletionClient
from autogen_core.tools import BaseTool, FunctionTool, StaticStreamWorkbench, StaticWorkbench, Workbench

from misstep.arguments import Check, checked_by
from misstep.frameworks import needs, rely
from misstep.side_effects import Classified, declared_on
from misstep_autogen import VERSIONS

GROUP_CHAT = group_chat
"""The messages a team's manager and participants send each other."""

MODEL_CLIENT = "_model_client"
"""Where an agent, a SocietyOfMindAgent, a selecting or orchestrating team and its manager keep their model."""

MANAGER_FACTORY = "_create_group_chat_manager_factory"
"""What a team makes its manager with, when it is first run."""

MANAGER = BaseGroupChatManager
"""What chooses a team's speakers."""

ENDING = "_apply_termination_condition"
"""Where a manager finds that its team is to end, once after every turn."""

INPUT = "_get_input"
"""Where a UserProxyAgent waits for a person."""

CHOOSING = ("_transition_to_next_speakers", "_orchestrate_step")
"""Where a manager gives the next turn; the second is MagenticOne's."""

_TURN = ("messages", "cancellation_token")
_CALL = ("name", "arguments", "cancellation_token", "call_id")
_CREATE = ("messages", "tools", "json_output", "cancellation_token")

NEEDS = (
    *needs(AssistantAgent, MODEL_CLIENT, "_handoff_tools", "_handoffs", "_system_messages", "_tools", "_workbench"),
    *needs(AssistantAgent, on_messages=_TURN, on_messages_stream=_TURN),
    *needs(BaseChatAgent, "name", run=("task",), run_stream=("task",)),
    *needs(SocietyOfMindAgent, MODEL_CLIENT, "_team"),
    *needs(MessageFilterAgent, "_wrapped_agent"),
    *needs(BaseGroupChat, MANAGER_FACTORY, "_participants", "_runtime", "_team_id", "load_state", "save_state"),
    *needs(BaseGroupChat, "_group_chat_manager_name", "_group_chat_manager_topic_type", "name"),
    *needs(BaseGroupChat, "_embedded_runtime", "_initialized"),
    *needs(BaseGroupChat, run=("task",), run_stream=("task",)),
    *needs(BaseGroupChatManager, "_current_turn", "_message_thread", "_name", "_participant_names"),
    *needs(BaseGroupChatManager, "_signal_termination", "_termination_condition", CHOOSING[0]),
    *needs(BaseGroupChatManager, select_speaker=("thread",), update_message_thread=("messages",)),
    *needs(BaseGroupChatManager, **{ENDING: ("delta", "increment_turn_count")}),
    *needs(UserProxyAgent, **{INPUT: ("prompt", "cancellation_token")}),
    *needs(RoundRobinGroupChatManager, "_next_speaker_index"),
    *needs(SelectorGroupChat, MODEL_CLIENT),
    *needs(SelectorGroupChatManager, MODEL_CLIENT, "_model_context"),
    *needs(MagenticOneGroupChat, MODEL_CLIENT),
    *needs(MagenticOneOrchestrator, MODEL_CLIENT, CHOOSING[1]),
    *needs(GraphFlowManager, "_ready", "_triggered_activation_groups"),
    *needs(ChatAgentContainer, "_agent", "_message_buffer"),
    *needs(SingleThreadedAgentRuntime, "_instantiated_agents"),
    *needs(StaticWorkbench, "_override_name_to_original", "_tools", call_tool=_CALL),
    *needs(StaticStreamWorkbench, call_tool_stream=_CALL),
    *needs(BaseTool, run_json=("args", "cancellation_token", "call_id")),
    *needs(FunctionTool, "_func"),
    *needs(TaskRunnerTool, "_task_runner"),
    *needs(ChatCompletionClient, create=_CREATE, create_stream=_CREATE),
    *needs(GROUP_CHAT, "GroupChatAgentResponse", "GroupChatMessage", "GroupChatRequestPublish", "GroupChatStart"),
    *needs(GROUP_CHAT, "GroupChatTeamResponse", "GroupChatTermination"),
    *needs(DefaultInterventionHandler, on_publish=("message", "message_context")),
    *needs(DefaultInterventionHandler, on_send=("message", "message_context", "recipient")),
)
"""What the adapter relies on of AutoGen's own classes; private or not, without it a run would be guarded half."""


@functools.cache
def check() -> None:
    """Before anything is attached, once for all. Raises `ChangedFrameworkError`."""
    rely("misstep_autogen", VERSIONS, NEEDS)


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
    return (*getattr(agent, "_workbench", ()), *(getattr(agent, name) for name in _kept(agent, Workbench)))


def executors(agent: Any) -> Sequence[Any]:
    """Where an agent has code run."""
    known = getattr(agent, "_code_executor", None)
    return (*([] if known is None else [known]), *(getattr(agent, name) for name in _kept(agent, CodeExecutor)))


def clients(target: Any) -> Sequence[str]:
    """The attributes in which an agent or a team keeps its model clients."""
    known = [] if getattr(target, MODEL_CLIENT, None) is None else [MODEL_CLIENT]
    return (*known, *(name for name in _kept(target, ChatCompletionClient) if name != MODEL_CLIENT))


def _kept(target: Any, kind: type) -> list[str]:
    """The attributes of an object of the user's own class that are of a kind; AutoGen's own keep them where we know."""
    if type(target).__module__.startswith("autogen_agentchat."):
        return []
    known = ("_workbench", "_code_executor")
    return [name for name, value in vars(target).items() if name not in known and isinstance(value, kind)]


def calls_elsewhere(owner: Any) -> bool:
    """Whether the calls an agent's model proposes may be made past every workbench of AutoGen's."""
    return not isinstance(owner, AssistantAgent)


def handoff_tools(agent: Any) -> Sequence[Any]:
    """An agent's hand-offs, which it calls past its workbenches."""
    return tuple(getattr(agent, "_handoff_tools", ()))


def called(workbench: Any) -> Iterator[Any]:
    """The agents and teams behind a workbench's tools: those of an AgentTool, a TeamTool and their like."""
    for tool in tools(workbench):
        if isinstance(runner(tool), ChatAgent | Team):
            yield runner(tool)


def tools(workbench: Any) -> Sequence[Any]:
    """The tools a workbench of AutoGen's own is made of."""
    return tuple(getattr(workbench, "_tools", ()))


def renamed(workbench: Any) -> Mapping[str, str]:
    """The tools that go by other names in a workbench: name → the tool's own name."""
    names: Mapping[str, str] = getattr(workbench, "_override_name_to_original", {})
    return names


def runner(tool: Any) -> Any:
    """The agent or team an AgentTool, a TeamTool or their like runs."""
    return getattr(tool, "_task_runner", None)


def function(tool: Any) -> Any:
    """What a FunctionTool calls."""
    return getattr(tool, "_func", None)


def runtime(team: Any) -> Any:
    """The runtime a team was given; None where it starts and stops one of its own."""
    return None if getattr(team, "_embedded_runtime", True) else team._runtime


def move(team: Any, runtime: Any) -> None:
    """Put a team on another runtime, where it begins anew."""
    team._runtime, team._initialized = runtime, False


def unseen(agent: Any) -> bool:
    """Whether nothing of an agent is seen but its turns."""
    sees = [*clients(agent), *executors(agent), *parts(agent)]
    return not sees and not isinstance(agent, UserProxyAgent)


def unbind(waiting: Any) -> None:
    """Let a queue, an event or a lock on which nobody waits be used by another event loop."""
    if getattr(waiting, "_loop", None) is not None:
        waiting._loop = None


def checks(agent: Any) -> dict[str, Check]:
    """How AutoGen itself judges the arguments of an agent's tools."""
    tools = [tool for workbench in workbenches(agent) for tool in getattr(workbench, "_tools", ())]
    found = {tool.name: checked_by(tool.args_type()) for tool in tools}
    return {name: check for name, check in found.items() if check is not None}


def says_of(workbench: Any, name: str) -> Classified | None:
    """What the code of a workbench's tool declares of its effect. AutoGen keeps no hints of an MCP server's."""
    original = renamed(workbench).get(name, name)
    tool = next((each for each in getattr(workbench, "_tools", ()) if each.name == original), None)
    return None if tool is None else declared_on(tool, getattr(tool, "_func", None), type(tool).run)


def in_context(tool: Any, context: contextvars.Context) -> Any:
    """A function's tool whose thread, if it is run in one, has that context; AutoGen gives it none."""
    if inspect.iscoroutinefunction(tool._func):
        return tool
    inside = copy.copy(tool)
    inside._func = functools.partial(context.run, tool._func)
    return inside


def parts(target: Any) -> Iterator[Any]:
    """All the agents and teams an agent or a team holds itself."""
    yield from inner(target)
    for workbench in workbenches(target):
        yield from called(workbench)


def within(target: Any, seen: set[int] | None = None) -> Iterator[Any]:
    """An agent or a team, and all it holds."""
    seen = set() if seen is None else seen
    if id(target) not in seen:
        seen.add(id(target))
        yield target
        for part in parts(target):
            yield from within(part, seen)


def participants(team: Any) -> Collection[str]:
    """The names of those a team gives turns to."""
    return [each.name for each in inner(team)]


def speakers(target: Any) -> Iterator[str]:
    """The names of those a team in an agent or a team can be made to give a turn to."""
    for team in within(target):
        if isinstance(team, Team) and not isinstance(team, MagenticOneGroupChat):
            yield from participants(team)


def target_of(agent: Any, tool: str) -> str | None:
    """Whom an agent's hand-off tool hands off to."""
    handoff = getattr(agent, "_handoffs", {}).get(tool)
    return None if handoff is None else handoff.target


def instructions(agent: Any) -> Collection[str] | None:
    """An agent's own system messages; None where it is not known which they are."""
    messages = getattr(agent, "_system_messages", None)
    return None if messages is None else [message.content for message in messages]


def speaker_names(manager: Any) -> Collection[str]:
    """The names of those a manager gives turns to."""
    names: Collection[str] = manager._participant_names
    return names


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


def circle_on(manager: Any, name: str) -> None:
    """A team that goes round goes on from the one who was given the turn."""
    if isinstance(manager, RoundRobinGroupChatManager):
        manager._next_speaker_index = (manager._participant_names.index(name) + 1) % len(manager._participant_names)


def comes_next(manager: Any, name: str) -> bool:
    """Whether an agent's turn in a flow has come anyway."""
    return isinstance(manager, GraphFlowManager) and name in manager._ready


async def heard_aside(manager: Any, messages: Sequence[Any]) -> bool:
    """Put into a thread what was said in a turn outside a flow, which goes on as before; False where there is none."""
    if not isinstance(manager, GraphFlowManager):
        return False
    await BaseGroupChatManager.update_message_thread(manager, messages)
    return True


def settle(team: Any, signs: Collection[str], unheard: MutableMapping[int, Sequence[Any]]) -> None:
    """
    What a team's participants have yet to hear: not the signs by which halted turns were ended, and what was handed
    to those (by id) who lost their turn before they heard it.
    """
    for agent in _agents(team).values():
        if isinstance(agent, ChatAgentContainer):
            waiting = [*unheard.pop(id(agent._agent), ()), *agent._message_buffer]
            agent._message_buffer[:] = [message for message in waiting if message.id not in signs]


def thread(team: Any) -> Sequence[Any]:
    """All that was said in a team; nothing of what has no manager."""
    return getattr(manager(team), "_message_thread", ())


async def recount(team: Any, said: Sequence[Any]) -> None:
    """A team's termination condition counts on from what stands; AutoGen's states leave it out."""
    condition = getattr(manager(team), "_termination_condition", None)
    if condition is not None:
        await condition.reset()
        if said and await condition(said) is not None:
            await condition.reset()


async def clear_contexts(target: Any) -> None:
    """Empty what selecting managers show their models: loading a state adds to it."""
    for team in within(target):
        context = getattr(manager(team), "_model_context", None)
        if context is not None:
            await context.clear()


def groups(team: Any) -> Mapping[str, set[str]] | None:
    """The activation groups that made a flow's agents ready; AutoGen's states leave them out."""
    return copy.deepcopy(getattr(manager(team), "_triggered_activation_groups", None))


def set_groups(team: Any, groups: Mapping[str, set[str]] | None) -> None:
    """Put them back."""
    if groups is not None:
        manager(team)._triggered_activation_groups = copy.deepcopy(groups)


def _agents(team: Any) -> dict[str, Any]:
    """A team's own live agents in its runtime, by agent type."""
    agents = getattr(getattr(team, "_runtime", None), "_instantiated_agents", {})
    key = getattr(team, "_team_id", None)
    return {id_.type: agent for id_, agent in agents.items() if id_.key == key}
