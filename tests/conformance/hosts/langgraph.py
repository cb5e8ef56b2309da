"""LangGraph and LangChain: any graph by `guarded`, and `create_agent` by the middleware."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from typing import Annotated, Any

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import InjectedToolCallId, StructuredTool
from langchain_core.tools import tool as as_tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Command

from misstep import Guard
from misstep.testing import Ask, Script
from misstep_langgraph import MisstepMiddleware, guarded
from misstep_langgraph.messages import words
from misstep_langgraph.testing import ScriptedChatModel
from tests.conformance.host import Inner, Mode, Outcome, World, tools_of

_threads = itertools.count()


class GraphApp:
    """A graph with a conversation of its own."""

    def __init__(self, graph: Any, runs: Any, opening: str | None = None) -> None:
        self._graph, self._runs, self._opening = graph, runs, opening
        self._config = {"configurable": {"thread_id": f"t{next(_threads)}"}}

    def run(self, task: str, mode: Mode) -> Outcome:
        """Run one turn."""
        before = [AIMessage(self._opening)] if self._opening else []
        value = {"messages": [*before, HumanMessage(task)]}
        result = asyncio.run(self._arun(value)) if mode == "async" else self._run(value, mode)
        return Outcome([words(message.content) for message in result["messages"]], self._last())

    def _run(self, value: Any, mode: Mode) -> Any:
        if mode == "sync":
            return self._graph.invoke(value, self._config)
        chunks = list(self._graph.stream(value, self._config, stream_mode=["values", "messages"]))
        return [chunk for kind, chunk in chunks if kind == "values"][-1]

    async def _arun(self, value: Any) -> Any:
        return await self._graph.ainvoke(value, self._config)

    def _last(self) -> str | None:
        return getattr(self._runs, "last_run", None)


_NO_DEADLINE = "nothing can stop a tool that a thread runs"


class LangChainHost:
    """What both ways of attaching have in common."""

    def ask_inner(self, task: str, id: str = "d1") -> Ask:  # noqa: A002 - as in `Ask`
        """By its tool."""
        return Ask("helper", {"task": task}, id=id)

    def model(self, script: Script) -> Any:
        """A chat model."""
        return ScriptedChatModel(script)

    def hand_off(self, agent: str) -> Ask:
        """By a tool that commands the outer graph."""
        return Ask(f"transfer_to_{agent}", {}, id="h1")


class GuardedGraph(LangChainHost):
    """A hand-made graph of a model node and a ToolNode, guarded whole; with others it is a node of a bigger one."""

    name = "LangGraph `guarded`"
    declares: Mapping[str, str] = {"tool_timeout sync": _NO_DEADLINE, "tool_timeout stream": _NO_DEADLINE}

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
    ) -> GraphApp:
        """The graph, with a checkpointer; an inner graph is called in a tool."""
        builder = self._builder(script, world, tools, inner, others or {})
        if others:
            builder = team(builder.compile(), others)
        graph = builder.compile(checkpointer=InMemorySaver())
        if guard is not None:
            graph = guarded(graph, guard)
        return GraphApp(graph, graph, opening)

    def _builder(
        self,
        script: Script,
        world: World,
        names: tuple[str, ...],
        inner: Inner | None,
        others: Mapping[str, Script],
    ) -> Any:
        tools = [*langchain_tools(world, names), *map(transfer, others)]
        if inner is not None:
            within = self._builder(inner.script, world, inner.tools, None, {})
            tools.append(helper(within.compile(checkpointer=InMemorySaver())))
        model = ScriptedChatModel(script).bind_tools(tools)

        def llm(state: MessagesState) -> Any:
            return {"messages": [model.invoke(state["messages"])]}

        builder = StateGraph(MessagesState)
        builder.add_node("llm", llm)
        builder.add_node("tools", ToolNode(tools))
        builder.add_edge(START, "llm")
        builder.add_conditional_edges("llm", tools_condition)
        builder.add_edge("tools", "llm")
        return builder


class AgentWithMiddleware(LangChainHost):
    """`create_agent` with the middleware, which has no run seat; with others it is a node of a bigger graph."""

    name = "LangChain middleware"
    declares: Mapping[str, str] = {
        "tool_timeout sync": _NO_DEADLINE,
        "tool_timeout stream": _NO_DEADLINE,
        "reroute_turn": "only a run seat can give the turn to another node: use `guarded`",
        "roll_back": "only a run seat can go back to a checkpoint: use `guarded`",
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
    ) -> GraphApp:
        """The agent; an inner agent with the same guard is called in a tool."""
        middleware = [MisstepMiddleware(guard)] if guard is not None else []
        agent = self._agent(script, world, tools, inner, middleware, guard, others or {})
        if others:
            agent = team(agent, others).compile(checkpointer=InMemorySaver())
        return GraphApp(agent, middleware[0] if middleware else None, opening)

    def _agent(
        self,
        script: Script,
        world: World,
        names: tuple[str, ...],
        inner: Inner | None,
        middleware: Any,
        guard: Guard | None,
        others: Mapping[str, Script],
    ) -> Any:
        tools = [*langchain_tools(world, names), *map(transfer, others)]
        if inner is not None:
            own = [MisstepMiddleware(guard)] if guard is not None else []
            tools.append(helper(self._agent(inner.script, world, inner.tools, None, own, guard, {})))
        saver = None if others else InMemorySaver()
        return create_agent(ScriptedChatModel(script), tools, middleware=middleware, checkpointer=saver)


def team(first: Any, others: Mapping[str, Script]) -> Any:
    """A builder of a graph of agents: the first one, and others that only speak."""
    builder = StateGraph(MessagesState)
    builder.add_node("first", first)
    builder.add_edge(START, "first")
    for name, script in others.items():
        builder.add_node(name, speaker(script))
    return builder


def speaker(script: Script) -> Any:
    """A node that says what its script says."""
    model = ScriptedChatModel(script)

    def speak(state: MessagesState) -> Any:
        return {"messages": [model.invoke(state["messages"])]}

    return speak


def transfer(agent: str) -> Any:
    """A hand-off tool as one writes it for LangGraph."""

    @as_tool(f"transfer_to_{agent}")
    def call(id_: Annotated[str, InjectedToolCallId]) -> Any:
        """Hand over."""
        told = ToolMessage(f"Successfully transferred to {agent}", tool_call_id=id_)
        return Command(goto=agent, graph=Command.PARENT, update={"messages": [told]})

    call.metadata = {"__handoff_destination": agent}
    return call


def langchain_tools(world: World, names: tuple[str, ...]) -> list[Any]:
    """The world's tools; the one that hangs has an async form too, since a thread cannot be given up."""

    async def hang(q: str) -> str:
        await asyncio.sleep(20)
        return "late"

    return [
        StructuredTool.from_function(function, coroutine=hang if name == "hang" else None)
        for name, function in zip(names, tools_of(world, names), strict=True)
    ]


def helper(agent: Any) -> Any:
    """An agent as a tool."""

    @as_tool("helper")
    def call(task: str) -> str:
        """Have somebody else do a part."""
        return words(agent.invoke({"messages": [HumanMessage(task)]})["messages"][-1].content)

    return call
