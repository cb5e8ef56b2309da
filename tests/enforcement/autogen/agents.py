"""Every kind of agent, and agents within agents."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from autogen_agentchat.agents import (
    ApprovalResponse,
    CodeExecutorAgent,
    MessageFilterAgent,
    MessageFilterConfig,
    PerSourceFilter,
    SocietyOfMindAgent,
    UserProxyAgent,
)
from autogen_agentchat.tools import AgentTool, TeamTool
from autogen_core import CancellationToken
from autogen_core.code_executor import CodeExecutor, CodeResult
from autogen_core.models import UserMessage
from autogen_core.tools import FunctionTool

from misstep import Guard, Policy, Rule, Rung
from misstep.decisions import Kind
from misstep.events import ModelResponded, ToolRequested, TurnStarted
from misstep.testing import Ask, AskAll, Say, Script
from misstep_autogen import guarded
from misstep_autogen.testing import ScriptedChatClient
from tests.conformance.decisions import BAD, bad_reply, finds, guarding
from tests.conformance.host import World
from tests.enforcement.autogen.listed import AUTOGEN
from tests.enforcement.autogen.parts import (
    COURSE,
    Going,
    Keep,
    Own,
    act,
    acts,
    agent,
    alone,
    client_of,
    halted,
    held,
    read,
    refused,
    talker,
    within,
)


def outer(world: World, *tools: Any, asks: Any = None) -> Any:
    """An agent that calls its helper as a tool, and then acts itself."""
    asked = asks or Ask("helper", {"task": "help"}, id="h")
    return agent("outer", world, asked, *acts("afterwards"), Say("done"), tools=("act", *tools))


@AUTOGEN.holds("an agent called as a tool")
def agent_tool() -> None:
    """An inner agent's call is refused; a halt in it ends the outer agent's run."""

    async def go(world: World, keep: Keep) -> Any:
        await keep(outer(world, AgentTool(agent("helper", world)))).run(task="go")

    held(go)


@AUTOGEN.holds("a team called as a tool")
def team_tool() -> None:
    """An inner team's call is refused; a halt in it ends the outer agent's run."""

    async def go(world: World, keep: Keep) -> Any:
        team = alone(agent("alice", world))
        await keep(alone(outer(world, TeamTool(team, "helper", "helps")))).run(task="go")

    held(go)


@AUTOGEN.holds("what an agent called as a tool streams", "raw words while a rewritten reply streams")
def inner_streaming() -> None:
    """Inner events come out as ever, and nothing of a rewritten reply's raw words is among them."""

    async def go(world: World, keep: Keep) -> list[str]:
        helper = agent("helper", world, act("first"), Say("bad words here"), model_client_stream=True)
        tool = AgentTool(helper, return_value_as_last_message=True)
        items = await read(keep(outer(world, tool)).run_stream(task="go"))
        return [str(getattr(item, "content", "")) for item in items]

    rule = finds(ModelResponded, bad_reply, rewrite="kinder words")
    rungs = (Rung(kind=Kind.REWRITE),)
    guard = Guard(Policy(rules={rule.type: Rule(ladder=rungs, output="hold")}), detectors=[rule], strict=True)
    free = " ".join(within(go(World(), lambda x: x)))
    shown = " ".join(within(go(World(), lambda x: guarded(x, guard))))
    assert "bad words" in free
    assert "act-first" in shown
    assert "kinder words" in shown
    assert "bad" not in shown


@AUTOGEN.holds("an agent called as a tool twice at once")
def twice_at_once() -> None:
    """One helper at work in two calls of one reply."""

    async def go(world: World, keep: Keep) -> Any:
        helper = agent("helper", world, *acts("one", "two", BAD), Say("done"))
        both = AskAll(tuple(Ask("helper", {"task": "help"}, id=id_) for id_ in ("h1", "h2")))
        await keep(outer(world, AgentTool(helper), asks=both)).run(task="go")

    held(go)


def in_tool(run: Callable[[Any], Any], **options: Any) -> Going:
    """An agent that an async function tool runs, and nobody holds."""

    async def go(world: World, keep: Keep) -> Any:
        async def helper(task: str) -> str:
            """Have it done."""
            await run(agent("inner", world))
            return "done"

        await keep(outer(world, FunctionTool(helper, description="help"))).run(task="go")

    return go


@AUTOGEN.holds("an agent run inside a function tool")
def inside_a_tool() -> None:
    """Whichever way the tool runs it, alone or in a team, what it does belongs to the run; afterwards it is let go."""
    held(in_tool(lambda inner: inner.run(task="go")))
    held(in_tool(lambda inner: read(inner.run_stream(task="go"))))
    held(in_tool(lambda inner: inner.on_messages([], CancellationToken())))
    held(in_tool(lambda inner: read(inner.on_messages_stream([], CancellationToken()))))
    held(in_tool(lambda inner: alone(inner).run(task="go")))
    held(in_tool(lambda inner: read(alone(inner).run_stream(task="go"))))


@AUTOGEN.holds("an agent run in a sync tool's thread")
def in_a_thread() -> None:
    """A sync tool that runs an agent in a loop of its own."""

    async def go(world: World, keep: Keep) -> Any:
        def helper(task: str) -> str:
            """Have it done."""
            asyncio.run(agent("inner", world).run(task="go"))
            return "done"

        await keep(outer(world, FunctionTool(helper, description="help"))).run(task="go")

    held(go)


@AUTOGEN.holds("a society of mind")
def society() -> None:
    """An agent that is a team inside, alone and in a team; its own summing-up comes after."""

    async def go(world: World, keep: Keep) -> Any:
        mind = SocietyOfMindAgent("mind", alone(agent("alice", world)), client_of(Say("in sum")))
        await keep(alone(mind, agent("bob", world, *acts("by bob"), Say("end")))).run(task="go")

    async def lone(world: World, keep: Keep) -> Any:
        await keep(SocietyOfMindAgent("mind", alone(agent("alice", world)), client_of(Say("in sum")))).run(task="go")

    held(go)
    held(lone)


@AUTOGEN.holds("a message filter agent")
def filtering() -> None:
    """An agent round an agent, alone and in a team."""

    def filtered(world: World) -> MessageFilterAgent:
        only = MessageFilterConfig(per_source=[PerSourceFilter(source="user", position="last", count=1)])
        return MessageFilterAgent("filtering", agent("alice", world), only)

    async def go(world: World, keep: Keep) -> Any:
        await keep(alone(filtered(world))).run(task="go")

    async def lone(world: World, keep: Keep) -> Any:
        await keep(filtered(world)).run(task="go")

    held(go)
    held(lone)


@AUTOGEN.holds("a user proxy")
def user_proxy() -> None:
    """Once the run is halted no person is asked for input; where a call was only refused, they are."""

    async def go(world: World, keep: Keep) -> Any:
        person = UserProxyAgent("person", input_func=lambda prompt: world.act("asked"))
        await keep(alone(agent("alice", world), person)).run(task="go")

    held(go)


class Running(CodeExecutor):
    """An executor that has its effect in a world."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def execute_code_blocks(self, code_blocks: Any, cancellation_token: CancellationToken) -> CodeResult:
        """Run each."""
        for block in code_blocks:
            self.world.act(block.code.strip())
        return CodeResult(exit_code=0, output="ran")

    async def start(self) -> None:
        """Nothing to start."""

    async def stop(self) -> None:
        """Nothing to stop."""

    async def restart(self) -> None:
        """Nothing to restart."""


def code(what: str) -> Say:
    """A reply with code in it."""
    return Say(f"look:\n```sh\n{what}\n```")


BAD_CODE = finds(ToolRequested, lambda event: BAD in str(event.arguments))
"""Finds fault with code that does something bad."""


def approving(world: World) -> Callable[[Any], ApprovalResponse]:
    """AutoGen's own gate, which lets all through but what is forbidden there."""
    return lambda request: ApprovalResponse(approved="forbidden" not in request.code, reason="")


def refused_and_halted(go: Going) -> None:
    """As `held`, for code."""
    refused(go, guarding(BAD_CODE, {"refuse": 9}))
    halted(go, guarding(BAD_CODE, "halt"))


@AUTOGEN.holds("a code executor with a model")
def coder() -> None:
    """Code of its own model's replies is not run; the agent reads the objection as what the code printed."""

    async def go(world: World, keep: Keep) -> Any:
        replies = [each for what in ("first", BAD, "after") for each in (code(what), Say("and on"))]
        client = client_of(*replies)
        alice = keep(CodeExecutorAgent("coder", Running(world), model_client=client, approval_func=approving(world)))
        for _ in range(3):
            await alice.run(task="go")

    refused(go, guarding(BAD_CODE, {"refuse": 9}))


@AUTOGEN.holds("a code executor without a model")
def terminal() -> None:
    """Code in a message is not run; a halt there gives nobody the turn any more."""

    async def go(world: World, keep: Keep) -> Any:
        alice = talker("alice", *(code(what).text for what in ("first", BAD, "after")))
        terminal = CodeExecutorAgent("terminal", Running(world), approval_func=approving(world))
        await keep(alone(alice, terminal, turns=6)).run(task="go")

    refused_and_halted(go)


@AUTOGEN.holds("a code executor's approval function")
def approval() -> None:
    """What AutoGen's own gate forbids stays forbidden, and what it approves is judged all the same."""

    async def go(world: World, keep: Keep) -> Any:
        alice = talker("alice", *(code(what).text for what in ("first", "forbidden", BAD, "after")))
        terminal = CodeExecutorAgent("terminal", Running(world), approval_func=approving(world))
        await keep(alone(alice, terminal, turns=8)).run(task="go")
        assert "forbidden" not in world.done

    refused_and_halted(go)


@AUTOGEN.holds("an agent of one's own")
def own() -> None:
    """Its turn is all that is seen: a halt before it, or found as it begins, keeps it from acting."""

    async def go(world: World, keep: Keep) -> Any:
        await keep(alone(agent("alice", world), Own("own", lambda: world.act("own")))).run(task="go")

    held(go)
    world = World()
    guard = guarding(finds(TurnStarted, lambda event: event.agent == "own"), "halt")
    within(guarded(alone(talker("alice"), Own("own", lambda: world.act("own"))), guard).run(task="go"))
    assert world.done == []


class Caller(Own):
    """An agent of one's own that calls its tools itself, with a client it keeps by any name."""

    def __init__(self, world: World, client: ScriptedChatClient, *, under: str = "_model_client") -> None:
        super().__init__("caller", self.work)
        self._tool, self._under = FunctionTool(world.act, description="act"), under
        setattr(self, under, client)

    async def work(self) -> str:
        """Ask the model, call what it asks for, and so on."""
        said: list[Any] = [UserMessage(content="go", source="user")]
        token = CancellationToken()
        for _ in range(5):
            reply = await getattr(self, self._under).create(said, tools=[self._tool], cancellation_token=token)
            if isinstance(reply.content, str):
                said.append(UserMessage(content=reply.content, source="caller"))
                if reply.content == "all done":
                    return reply.content
                continue
            for call in reply.content:
                await self._tool.run_json(json.loads(call.arguments), token)
        return "enough"


def calls_itself(**options: Any) -> Going:
    """Such an agent, alone and in a team."""

    async def go(world: World, keep: Keep) -> Any:
        await keep(alone(Caller(world, client_of(*COURSE), **options))).run(task="go")

    return go


@AUTOGEN.holds("an agent of one's own that calls its tools itself")
def own_caller() -> None:
    """What no tool seat could refuse is taken out of the reply: of several calls only the bad one."""
    held(calls_itself())

    async def several(world: World, keep: Keep) -> Any:
        three = AskAll(tuple(acts("first", BAD, "after")))
        await keep(Caller(world, ScriptedChatClient(Script(three, Say("all done"))))).run(task="go")

    refused(several)


@AUTOGEN.holds("an agent of one's own with its client elsewhere")
def own_client() -> None:
    """A client is found by what it is, not by what it is called."""
    held(calls_itself(under="llm"))
