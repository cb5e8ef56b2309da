"""LangGraph and LangChain: any graph by `guarded`, and `create_agent` by the middleware."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool as as_tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

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


class GuardedGraph:
    """A hand-made graph of a model node and a ToolNode, guarded whole."""

    name = "LangGraph `guarded`"
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
    ) -> GraphApp:
        """The graph, with a checkpointer; an inner graph is called in a tool."""
        graph = self._graph(script, world, tools, inner)
        if guard is not None:
            graph = guarded(graph, guard)
        return GraphApp(graph, graph, opening)

    def ask_inner(self, task: str, id: str = "d1") -> Ask:  # noqa: A002 - as in `Ask`
        """By its tool."""
        return Ask("helper", {"task": task}, id=id)

    def _graph(self, script: Script, world: World, names: tuple[str, ...], inner: Inner | None) -> Any:
        tools = [as_tool(function) for function in tools_of(world, names)]
        if inner is not None:
            tools.append(helper(self._graph(inner.script, world, inner.tools, None)))
        model = ScriptedChatModel(script).bind_tools(tools)

        def llm(state: MessagesState) -> Any:
            return {"messages": [model.invoke(state["messages"])]}

        builder = StateGraph(MessagesState)
        builder.add_node("llm", llm)
        builder.add_node("tools", ToolNode(tools))
        builder.add_edge(START, "llm")
        builder.add_conditional_edges("llm", tools_condition)
        builder.add_edge("tools", "llm")
        return builder.compile(checkpointer=InMemorySaver())


class AgentWithMiddleware:
    """`create_agent` with the middleware, which has no run seat."""

    name = "LangChain middleware"
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
    ) -> GraphApp:
        """The agent; an inner agent with the same guard is called in a tool."""
        middleware = [MisstepMiddleware(guard)] if guard is not None else []
        agent = self._agent(script, world, tools, inner, middleware, guard)
        return GraphApp(agent, middleware[0] if middleware else None, opening)

    def ask_inner(self, task: str, id: str = "d1") -> Ask:  # noqa: A002 - as in `Ask`
        """By its tool."""
        return Ask("helper", {"task": task}, id=id)

    def _agent(
        self,
        script: Script,
        world: World,
        names: tuple[str, ...],
        inner: Inner | None,
        middleware: Any,
        guard: Guard | None,
    ) -> Any:
        tools = [as_tool(function) for function in tools_of(world, names)]
        if inner is not None:
            own = [MisstepMiddleware(guard)] if guard is not None else []
            tools.append(helper(self._agent(inner.script, world, inner.tools, None, own, guard)))
        return create_agent(ScriptedChatModel(script), tools, middleware=middleware, checkpointer=InMemorySaver())


def helper(agent: Any) -> Any:
    """An agent as a tool."""

    @as_tool("helper")
    def call(task: str) -> str:
        """Have somebody else do a part."""
        return words(agent.invoke({"messages": [HumanMessage(task)]})["messages"][-1].content)

    return call
