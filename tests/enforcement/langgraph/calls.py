"""Calls of every shape, and calls made by hand: what was judged is what is made, and nothing else."""

from __future__ import annotations

import asyncio
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import MessagesState
from langgraph.prebuilt import ToolNode

from misstep import AnomalyType, Guard, Policy, Rule, Rung
from misstep.decisions import Kind
from misstep.events import ToolFailed, ToolRequested
from misstep.testing import Ask, AskAll, Say, Script
from misstep_langgraph import MisstepMiddleware, guarded
from misstep_langgraph.testing import ScriptedChatModel
from tests.conformance.decisions import bad_call, finds, guarding, withhold_result
from tests.conformance.host import World
from tests.conformance.scenarios import parallel_calls
from tests.enforcement.langgraph.apps import (
    BOTH,
    TASK,
    Verbatim,
    acting,
    asks,
    bad,
    builder,
    by_guarded,
    by_middleware,
    calls,
    good,
    node,
    played,
    receipts,
    refusing,
    repeating,
    texts,
    thread,
)
from tests.enforcement.langgraph.paths import LANGGRAPH


def one_rule(type_: AnomalyType, *rungs: Any) -> Guard:
    """A guard with one of misstep's own rules."""
    return Guard(Policy(rules={type_: Rule(ladder=tuple(map(Rung.model_validate, rungs)))}), strict=True)


@LANGGRAPH.holds("an unknown tool")
def unknown() -> None:
    """A reply that asks for a tool there is not is thrown away before LangGraph answers it."""
    for attach in BOTH:
        world = World()
        script = repeating(Ask("nosuch", {"q": "x"}, id="a"), good(), Say("done"))
        script = Script(Ask("nosuch", {"q": "x"}, id="a"), good(), Say("done"))
        result = attach(script, acting(world), one_rule(AnomalyType.UNKNOWN_TOOL, {"reprompt": 1})).invoke(TASK)
        assert world.done == ["good"], attach
        assert not any("nosuch" in text for text in texts(result)), attach


@LANGGRAPH.holds("arguments that are not an object")
def malformed() -> None:
    """A reply whose call cannot be read is thrown away; without that the run would end with it."""
    broken = {"name": "act", "args": '["bad"', "id": "a", "error": "", "type": "invalid_tool_call"}
    for attach in BOTH:
        world = World()
        said = [AIMessage("", invalid_tool_calls=[broken]), asks(("good", "b")), AIMessage("done")]
        replies = iter(said)

        class Once(Verbatim):
            def _reply(self, messages: Any, replies: Any = replies) -> Any:
                return next(replies)

        attach(Once(said), acting(world), one_rule(AnomalyType.MALFORMED_CALL, {"reprompt": 1})).invoke(TASK)
        assert world.done == ["good"], attach


@LANGGRAPH.holds("one bad call of several at once")
def of_several() -> None:
    """Only the bad one of a reply's calls is not made, whichever it is."""
    for attach in BOTH:
        for place in range(3):
            world = World()
            batch = [good("x"), good("y")]
            batch.insert(place, bad("z"))
            app = attach(repeating(AskAll(tuple(batch)), Say("done")), acting(world), refusing())
            app.invoke(TASK)
            asyncio.run(app.ainvoke(TASK))
            assert world.done == ["good"] * 4, attach
    played(parallel_calls)


@LANGGRAPH.holds("several rules on one call")
def strictest() -> None:
    """Of a rule that would rewrite a call and one that refuses it the stricter wins, in whatever order they stand."""
    for attach in BOTH:
        for order in (1, -1):
            mild, strict = finds(ToolRequested, bad_call, rewrite={"q": "milder"}), finds(ToolRequested, bad_call)
            type(mild).type = AnomalyType.OSCILLATION
            rules = {
                AnomalyType.OSCILLATION: Rule(ladder=(Rung(kind=Kind.REWRITE),)),
                AnomalyType.REPEATED_CALL: Rule(ladder=(Rung(kind=Kind.REFUSE),)),
            }
            policy = Policy(rules=dict(list(rules.items())[::order]))
            world = World()
            attach(calls(), acting(world), Guard(policy, detectors=[mild, strict][::order], strict=True)).invoke(TASK)
            assert world.done == ["good"], (attach, order)


@LANGGRAPH.holds("a tool added after attaching")
def added_later() -> None:
    """A tool put into a ToolNode once it is guarded, or given to a model by a middleware, is judged too."""
    world = World()
    (act,) = acting(world)
    tools = ToolNode(acting(world, "look"))
    app = guarded(_with(tools, calls()), refusing())
    tools.tools_by_name["act"] = act
    app.invoke(TASK)
    assert world.done == ["good"]

    class Giving(AgentMiddleware):
        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            return handler(request.override(tools=[*request.tools, act]))

        def wrap_tool_call(self, request: Any, handler: Any) -> Any:
            return handler(request.override(tool=act))

    world.done.clear()
    ours = MisstepMiddleware(refusing())
    create_agent(ScriptedChatModel(calls()), acting(world, "look"), middleware=[ours, Giving()]).invoke(TASK)
    assert world.done == ["good"]


def _with(tools: ToolNode, script: Script) -> Any:
    from tests.enforcement.langgraph.apps import joined

    model = ScriptedChatModel(script)
    return joined(lambda state: {"messages": [model.invoke(state["messages"])]}, tools)


@LANGGRAPH.holds("one tool object in two agents")
def shared() -> None:
    """A tool refuses nothing by itself: each app is held to its own guard, and one without a guard to none."""
    world = World()
    tools = acting(world)
    strict = by_guarded(calls(), tools, guarding(finds(ToolRequested, lambda event: True), {"refuse": 9}))
    app, free = by_guarded(calls(), tools, refusing()), builder(calls(), tools).compile()
    other = by_middleware(calls(), tools, refusing())
    for each, done in ((strict, []), (app, ["good"]), (free, ["bad", "good"]), (other, ["good"])):
        world.done.clear()
        each.invoke(TASK)
        assert world.done == done


@LANGGRAPH.holds("a tool that raises")
def raising() -> None:
    """What a tool says when it fails is withheld as a result would be, whoever would have handled the error."""

    @tool
    def act(q: str) -> str:
        """Act."""
        raise ValueError(f"order K7310 of {q}")

    handled = act.model_copy(update={"handle_tool_error": True})
    for attach in BOTH:
        for each in (act, handled):
            guard = guarding(finds(ToolFailed, lambda event: True), {"refuse": 9})
            script = Script(good(), Say("done"))
            attach(script, [each], guard).invoke(TASK)
            assert not any("K7310" in text for text in script.seen[1]), attach
            assert any("was withheld" in text for text in script.seen[1]), attach


@LANGGRAPH.holds("an injected result")
def withheld() -> None:
    """What is refused of a result no model reads."""
    played(withhold_result)


# -- by hand


def by_hand(script: Any, tools: Any, make: Any, guard: Guard) -> Any:
    """A guarded node that asks its model until that has no more calls, and makes each as `make` does."""
    model = script if isinstance(script, ScriptedChatModel) else ScriptedChatModel(script)

    def work(state: MessagesState) -> Any:
        said: list[Any] = [*state["messages"]]
        while (reply := model.invoke(said)).tool_calls:
            answers = [make(tools[0], call) for call in reply.tool_calls]
            said += [reply, *(each if isinstance(each, ToolMessage) else _answer(each, "?") for each in answers)]
        return {"messages": [reply]}

    return guarded(node(work), guard)


def _answer(said: Any, id_: str) -> ToolMessage:
    return ToolMessage(str(said), tool_call_id=id_)


@LANGGRAPH.holds("a proposed call made by hand", "a proposed call made by hand as a dict")
def made_by_hand() -> None:
    """A node that makes the calls of its model itself does not make the bad one."""
    for make in (
        lambda tool, call: tool.invoke(call),
        lambda tool, call: tool.invoke(call["args"]),
        lambda tool, call: tool.run(call["args"]),
        lambda tool, call: asyncio.run(tool.ainvoke(call)),
        lambda tool, call: asyncio.run(tool.ainvoke(call["args"])),
    ):
        world = World()
        by_hand(calls(), acting(world), make, refusing()).invoke(TASK)
        assert world.done == ["good"], make


@LANGGRAPH.declares(
    "a tool's function called by itself",
    why="a plain call of Python's reaches no framework; the receipt says that no seat met the call it refused",
)
def plain_function() -> None:
    """A node that calls the function of a tool acts unseen, and the refusal's receipt says that it had no effect."""
    world, guard = World(), refusing()
    by_hand(calls(), acting(world), lambda tool, call: tool.func(**call["args"]), guard).invoke(TASK)
    assert world.done == ["bad", "good"]
    assert receipts(guard) == [(Kind.REFUSE, False, "no seat met the call again")]


@LANGGRAPH.holds("two calls with one id", "a call whose id is used again", "a call without an id")
def odd_ids() -> None:
    """A verdict counts for the call it was given on, whatever id another call has."""
    said: list[list[AIMessage]] = [
        [asks(("bad", "a"), ("good", "a")), AIMessage("done")],
        [asks(("good", "a"), ("bad", "a")), AIMessage("done")],
        [asks(("good", "a")), asks(("bad", "a")), AIMessage("done")],
        [asks(("bad", "")), asks(("good", "")), AIMessage("done")],
    ]
    for attach in BOTH:
        for replies in said:
            world = World()
            app = attach(Verbatim(replies), acting(world), refusing())
            app.invoke(TASK)
            assert world.done == ["good"], (attach, replies)


@LANGGRAPH.holds("a call written into the state")
def written() -> None:
    """A call that `update_state` puts there is judged, though no model proposed it."""
    for attach, name in zip(BOTH, ("llm", "model"), strict=True):
        world, config = World(), thread()
        app = attach(Script(Say("done")), acting(world), refusing(), checkpointer=InMemorySaver())
        app.invoke(TASK, config)
        app.update_state(config, {"messages": [asks(("bad", "a"), ("good", "b"))]}, as_node=name)
        app.invoke(None, config)
        assert world.done == ["good"], attach


@LANGGRAPH.holds("a call edited after it was judged", "a call added after the reply was judged")
def edited() -> None:
    """What another middleware makes of a reply's calls is judged as it is made."""

    class Editing(AgentMiddleware):
        def __init__(self, *made: tuple[str, str]) -> None:
            super().__init__()
            self.made = made

        def after_model(self, state: Any, runtime: Any) -> Any:
            last = state["messages"][-1]
            if last.tool_calls:
                return {"messages": [asks(*self.made, id=last.id)]}
            return None

    for made in ([("bad", "b")], [("good", "b"), ("bad", "c")], [("bad", "c"), ("good", "b")]):
        for attach in (_ours_first, _ours_last, _ours_outside):
            world = World()
            script = repeating(good("b"), Say("done"))
            attach(ScriptedChatModel(script), acting(world), Editing(*made)).invoke(TASK)
            assert "bad" not in world.done, (attach, made)
            assert len(world.done) == len(made) - 1, (attach, made)


def _ours_first(model: Any, tools: Any, other: Any) -> Any:
    return create_agent(model, tools, middleware=[MisstepMiddleware(refusing()), other])


def _ours_last(model: Any, tools: Any, other: Any) -> Any:
    return create_agent(model, tools, middleware=[other, MisstepMiddleware(refusing())])


def _ours_outside(model: Any, tools: Any, other: Any) -> Any:
    return guarded(create_agent(model, tools, middleware=[other]), refusing())
