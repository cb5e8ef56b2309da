"""What other guards let through on LangGraph, or held, done to misstep."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, hook_config
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph.state import CompiledStateGraph

from misstep import Anomaly, AnomalyType, Guard, Policy, PolicyError, Rule, Run, Rung
from misstep.approval import Answer
from misstep.events import ModelResponded, ToolRequested
from misstep.testing import Ask, Say, Script
from misstep_langgraph import MisstepMiddleware, guarded, unguard
from misstep_langgraph.testing import ScriptedChatModel
from tests.conformance.decisions import bad_call, bad_reply, finds, guarding
from tests.conformance.host import World
from tests.conformance.scenarios import rule_crash_closed
from tests.enforcement.langgraph.apps import (
    BOTH,
    TASK,
    acting,
    builder,
    by_guarded,
    by_middleware,
    calls,
    good,
    only_good,
    played,
    refusing,
    ruled,
    texts,
)
from tests.enforcement.langgraph.paths import LANGGRAPH

CARD = "4539 1488 0343 6467"


def against_cards(place: str, *rungs: Any) -> Guard:
    """A guard that answers cards in that place with these rungs."""
    ladder = tuple(map(Rung.model_validate, rungs))
    rule = Rule.model_validate({"with": {"places": [place]}, "ladder": ladder})
    return Guard(Policy(rules={AnomalyType.PII_LEAK: rule}), strict=True)


@LANGGRAPH.holds("a card number in a call's arguments")
def card_in_arguments() -> None:
    """A call with a card in its arguments is not made; one without is."""
    for attach in BOTH:
        world = World()
        script = Script(Ask("act", {"q": f"pay with {CARD}"}, id="a"), good(), Say("done"))
        attach(script, acting(world), against_cards("arguments", {"refuse": 9})).invoke(TASK)
        assert world.done == ["good"], attach


@LANGGRAPH.holds("a card number in an older message")
def card_in_history() -> None:
    """No model is shown a conversation with a card in it."""
    told = [HumanMessage(f"my card is {CARD}"), AIMessage("thank you"), HumanMessage("what is the time?")]
    for attach in BOTH:
        script = Script(Say("noon"))
        app = attach(script, [], against_cards("history", "halt"))
        app.invoke({"messages": told})
        assert script.calls == 0, attach
        asyncio.run(app.ainvoke({"messages": told}))
        assert script.calls == 0, attach
        app.invoke({"messages": told[1:]})
        assert script.calls == 1, attach


@LANGGRAPH.holds("raw words while a rewritten reply streams")
def raw_words() -> None:
    """What a stream shows of a reply that is rewritten are the new words alone."""
    for attach in BOTH:
        guard = ruled(guarding(finds(ModelResponded, bad_reply, rewrite="kind words"), "rewrite"), output="hold")
        app = attach(Script(Say("bad SECRET words")), [], guard)
        shown = str(list(app.stream(TASK, stream_mode=["messages", "values", "updates", "debug"])))
        assert "SECRET" not in shown, attach
        assert "kind words" in shown, attach


class Jumping(AgentMiddleware):
    """Has the calls of every reply made, whatever else was said of them."""

    @hook_config(can_jump_to=["tools"])
    def after_model(self, state: Any, runtime: Any) -> Any:
        """Jump."""
        return {"jump_to": "tools"} if getattr(state["messages"][-1], "tool_calls", None) else None


@LANGGRAPH.holds("a rejected call and a hook that runs it", "a hook that runs a call before it is asked about")
def jump_to_tools() -> None:
    """A call a person rejects is not made, in whatever order the hook stands in that jumps to the tools."""
    for ours_first in (True, False):
        asked: list[Any] = []
        guard = guarding(finds(ToolRequested, bad_call), {"ask": {"timeout": 5}}, approver=_rejecting(asked))
        world, middleware = World(), [MisstepMiddleware(guard), Jumping()]
        tools = acting(world)
        order = middleware if ours_first else middleware[::-1]
        create_agent(ScriptedChatModel(calls()), tools, middleware=order).invoke(TASK)
        assert (world.done, len(asked)) == (["good"], 1), ours_first

        guard = guarding(finds(ToolRequested, bad_call), {"ask": {"timeout": 5}}, approver=_rejecting(asked))
        agent = create_agent(ScriptedChatModel(calls()), acting(world), middleware=[Jumping()])
        guarded(agent, guard).invoke(TASK)
        assert (world.done, len(asked)) == (["good"] * 2, 2), ours_first


def _rejecting(asked: list[Any]) -> Any:
    def person(question: Any) -> Answer:
        asked.append(question)
        return Answer("reject")

    return person


WRITTEN = """
version: 1
rules:
  unsafe_command:
    ladder: [{refuse: 9}]
"""


def commanding(*commands: str) -> Script:
    """Commands one after another, then an answer."""
    return Script(*(Ask("shell", {"command": each}, id=each) for each in commands), Say("done"))


def shell(done: list[str]) -> Any:
    """A tool that runs commands."""
    from langchain_core.tools import tool

    @tool("shell")
    def run(command: str) -> str:
        """Run a command."""
        done.append(command)
        return f"ran {command}"

    return run


@LANGGRAPH.holds("a policy from a file")
def from_a_file() -> None:
    """What a file says is enforced."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "policy.yaml")
        path.write_text(WRITTEN)
        for attach in BOTH:
            done: list[str] = []
            attach(commanding("rm -rf /", "ls"), [shell(done)], Guard.from_file(path)).invoke(TASK)
            assert done == ["ls"], attach


@LANGGRAPH.holds("a policy's text in the place of its path")
def text_for_a_path() -> None:
    """It is an error, not a guard without rules; and the guard that was to be reloaded goes on as it was."""
    guard = refusing()
    for wrong in (lambda: Guard.from_file(WRITTEN), lambda: guard.reload(WRITTEN)):
        try:
            wrong()
        except (PolicyError, OSError):
            continue
        raise AssertionError("a text was taken for a path, and nothing was said")
    only_good(lambda app: app.invoke(TASK), [lambda script, tools, _: by_guarded(script, tools, guard)])


@LANGGRAPH.holds("a tool that is not allowed", "allowed and denied tools in one app", "a plain deny rule")
def allow_list() -> None:
    """Of the tools a real ToolNode has only the allowed one runs, in one run and one reply."""
    for attach in BOTH:
        world = World()
        guard = guarding(finds(ToolRequested, lambda event: event.tool != "look"), {"refuse": 9})
        script = Script(good(), Ask("look", {"q": "mia"}, id="c"), Say("done"))
        attach(script, acting(world, "act", "look"), guard).invoke(TASK)
        assert world.done == ["look mia"], attach


@LANGGRAPH.holds("no tool calls at all")
def none_at_all() -> None:
    """Where no call is allowed none is made, sync and async."""
    for attach in BOTH:
        world = World()
        guard = guarding(finds(ToolRequested, lambda event: True), {"refuse": 9})
        app = attach(Script(good("a"), good("b"), Say("done")), acting(world), guard)
        app.invoke(TASK)
        asyncio.run(app.ainvoke(TASK))
        assert world.done == [], attach


@LANGGRAPH.holds("a forbidden pattern that is only mentioned")
def only_mentioned() -> None:
    """Who speaks of a forbidden command may go on; who runs it may not."""
    task = {"messages": [HumanMessage("never run rm -rf / here")]}
    for attach in BOTH:
        done: list[str] = []
        rules = {AnomalyType.UNSAFE_COMMAND: Rule(ladder=(Rung.model_validate({"refuse": 9}),))}
        app = attach(commanding("ls", "rm -rf /"), [shell(done)], Guard(Policy(rules=rules), strict=True))
        assert texts(app.invoke(task))[-1] == "done", attach
        assert done == ["ls"], attach


@LANGGRAPH.holds("a denied tool at the framework's own hook")
def own_hook() -> None:
    """The middleware, which is LangChain's own hook, lets only the good call through."""
    only_good(lambda app: app.invoke(TASK), [by_middleware])
    only_good(lambda app: asyncio.run(app.ainvoke(TASK)), [by_middleware])


@LANGGRAPH.holds("a rule that raises and is fail-closed", "a check that crashes")
def closed() -> None:
    """What a fail-closed rule could not check is not done."""
    played(rule_crash_closed)


@LANGGRAPH.holds("nothing left behind once unguarded")
def unguarded() -> None:
    """An app that is unguarded, the one it was made of, and any other are as if there had never been a guard."""
    for bare in (_freed, _original, _another):
        world = World()
        bare(calls(), acting(world)).invoke(TASK)
        assert world.done == ["bad", "good"], bare


def _freed(script: Script, tools: Any) -> Any:
    freed = unguard(guarded(builder(script, tools).compile(), refusing()))
    assert type(freed) is CompiledStateGraph
    return freed


def _original(script: Script, tools: Any) -> Any:
    original = builder(script, tools).compile()
    guarded(original, refusing())
    return original


def _another(script: Script, tools: Any) -> Any:
    only_good(lambda app: app.invoke(TASK))
    return create_agent(ScriptedChatModel(script), tools)


@LANGGRAPH.holds("sync without an event loop, and async")
def both_worlds() -> None:
    """One app is guarded in a thread without a loop, in a loop, and in sync code that a loop runs."""

    async def sync_in_a_loop(app: Any) -> None:
        app.invoke(TASK)

    for run in (
        lambda app: app.invoke(TASK),
        lambda app: asyncio.run(app.ainvoke(TASK)),
        lambda app: asyncio.run(sync_in_a_loop(app)),
    ):
        only_good(run)


@LANGGRAPH.holds("a wrapper round every tool call")
def wrapped() -> None:
    """A ToolNode with a wrapper of the application's own makes no bad call, and its wrapper is called as ever."""
    for asynchronous in (False, True):
        world, seen = World(), list[str]()

        def wrap(request: Any, execute: Any, seen: list[str] = seen) -> Any:
            seen.append(request.tool_call["args"]["q"])
            return execute(request)

        async def awrap(request: Any, execute: Any, seen: list[str] = seen) -> Any:
            seen.append(request.tool_call["args"]["q"])
            return await execute(request)

        app = guarded(builder(calls(), acting(world), wrap_tool_call=wrap, awrap_tool_call=awrap), refusing())
        asyncio.run(app.ainvoke(TASK)) if asynchronous else app.invoke(TASK)
        assert world.done == ["good"]
        assert seen == ["bad", "good"]


class Flow:
    """A rule over two calls: nothing is sent once something was looked up."""

    type = AnomalyType.REPEATED_CALL

    def __call__(self, event: ToolRequested, run: Run) -> Anomaly | None:
        """Judge one call."""
        if event.tool == "send" and "look" in run.calls.returned:
            return Anomaly(type=self.type, message="sent after looking")
        return None


@LANGGRAPH.holds("a rule over two calls in a long run")
def long_run() -> None:
    """The second of two calls is refused however many calls lie between them."""
    for attach in BOTH:
        world = World()
        between = [Ask("act", {"q": f"{number}"}, id=f"n{number}") for number in range(40)]
        script = Script(
            Ask("look", {"q": "mia"}, id="l"), *between, Ask("send", {"order_id": "1"}, id="s"), Say("done")
        )
        guard = guarding(Flow(), {"refuse": 9})
        attach(script, acting(world, "act", "look", "send"), guard).invoke(TASK, {"recursion_limit": 200})
        assert world.done == ["look mia", *map(str, range(40))], attach
