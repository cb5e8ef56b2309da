"""AutoGen: a round-robin group chat, or a swarm where there are others to hand the turn to, guarded whole."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.base import TaskResult
from autogen_agentchat.teams import RoundRobinGroupChat, Swarm
from autogen_agentchat.tools import AgentTool
from autogen_core.tools import FunctionTool

from misstep import Guard
from misstep.testing import Ask, Say, Script
from misstep_autogen import guarded
from misstep_autogen.testing import ScriptedChatClient
from tests.conformance.host import Inner, Mode, Outcome, World, tools_of


class TeamApp:
    """A team, and the event loop it lives in."""

    def __init__(self, team: Any) -> None:
        self._team = team
        self._loop = asyncio.new_event_loop()

    def run(self, task: str, mode: Mode) -> Outcome:
        """Run one task; AutoGen has no sync form, so `sync` is a loop of one's own."""
        work = self._streamed(task) if mode == "stream" else self._team.run(task=task)
        result = self._loop.run_until_complete(asyncio.wait_for(work, 20))
        texts = [text for message in result.messages for text in _texts(message)]
        return Outcome(texts, getattr(self._team, "last_run", None))

    async def _streamed(self, task: str) -> TaskResult:
        result = None
        async for item in self._team.run_stream(task=task):
            result = item
        assert isinstance(result, TaskResult)
        return result


class GuardedTeam:
    """An agent with tools in a round-robin team."""

    name = "AutoGen team"
    declares: dict[str, str] = {}  # noqa: RUF012 - as the protocol has it

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
    ) -> TeamApp:
        """The team; what was done before is another agent's turn, an inner agent is a tool, others are in a swarm."""
        callable_: list[Any] = _tools(world, tools)
        if inner is not None:
            helper = _agent("helper", inner.script, _tools(world, inner.tools))
            callable_.append(AgentTool(helper))
        members = [_agent("agent", script, callable_, handoffs=list(others or ()))]
        if opening is not None:
            members.insert(0, _agent("opener", Script(Say(opening)), []))
        members += [_agent(name, other, []) for name, other in (others or {}).items()]
        team: Any = RoundRobinGroupChat(members, max_turns=len(members))
        if others is not None:
            team = Swarm(members, max_turns=2)
        return TeamApp(team if guard is None else guarded(team, guard))

    def model(self, script: Script) -> ScriptedChatClient:
        """A client that plays the script."""
        return ScriptedChatClient(script)

    def hand_off(self, agent: str) -> Ask:
        """By AutoGen's tool for it."""
        return Ask(f"transfer_to_{agent}", id="h1")

    def ask_inner(self, task: str, id: str = "d1") -> Ask:  # noqa: A002 - as in `Ask`
        """By its tool."""
        return Ask("helper", {"task": task}, id=id)


def _agent(name: str, script: Script, tools: list[Any], **options: Any) -> AssistantAgent:
    client = ScriptedChatClient(script)
    return AssistantAgent(name, client, tools=tools or None, max_tool_iterations=20, description=name, **options)


def _tools(world: World, names: tuple[str, ...]) -> list[Any]:
    return [FunctionTool(function, description=function.__doc__) for function in tools_of(world, names)]


def _texts(message: Any) -> list[str]:
    content = message.content
    return [content] if isinstance(content, str) else [str(getattr(part, "content", part)) for part in content]
