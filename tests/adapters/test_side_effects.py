"""Side effects in each framework: what its tools say of themselves, and what the journal keeps from happening twice."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

os.environ.update(
    CREWAI_DISABLE_TELEMETRY="true",
    CREWAI_DISABLE_TRACKING="true",
    CREWAI_STORAGE_DIR=tempfile.mkdtemp(),
    CREWAI_TESTING="true",
    CREWAI_TRACING_ENABLED="false",
    OTEL_SDK_DISABLED="true",
)

from misstep import Anomaly, AnomalyType, Guard, Journal, Policy, Rule, Run, Rung, SideEffect, side_effect
from misstep.events import ToolRequested
from misstep.report import JournalReport, ToolReport
from misstep.side_effects import Classified
from misstep.testing import Ask, AskAll, Say, Script

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::pydantic.warnings.PydanticDeprecatedSince20"
)

PAY = SideEffect.IRREVERSIBLE


def guard_in(folder: Path) -> Guard:
    """A guard with a journal."""
    return Guard(journal=Journal(folder / "misstep.db"), strict=True)


def states(guard: Guard) -> list[str]:
    """What the journal knows of each call."""
    assert guard.journal is not None
    with guard.journal._transaction() as database:
        return [state for (state,) in database.execute("SELECT state FROM calls ORDER BY id")]


def the_tool(guard: Guard, name: str) -> ToolReport:
    """What the last run says of a tool."""
    (run,) = guard.report().runs
    return next(tool for tool in run.tools if tool.tool == name)


# -- LangChain and LangGraph ------------------------------------------------------------------------------------------


def test_langchain_tools_keep_what_was_declared() -> None:
    """A declaration survives `@tool`, sync and async, `StructuredTool` and a subclass of `BaseTool`; none is none."""
    pytest.importorskip("langgraph")
    from langchain_core.tools import BaseTool, StructuredTool, tool

    from misstep_langgraph.messages import declared, says_of

    @tool
    @side_effect("irreversible")
    def pay(order: str) -> str:
        """Pay."""
        return order

    @tool
    @side_effect("irreversible")
    async def apay(order: str) -> str:
        """Pay."""
        return order

    def plain(order: str) -> str:
        """Pay."""
        return order

    @side_effect("irreversible")
    class Pay(BaseTool):
        name: str = "pay"
        description: str = "Pay."

        def _run(self, order: str) -> str:
            return order

    class PayToo(BaseTool):
        name: str = "pay"
        description: str = "Pay."

        @side_effect("irreversible")
        def _run(self, order: str) -> str:
            return order

    structured = StructuredTool.from_function(side_effect("irreversible")(plain))
    for each in (pay, apay, structured, Pay(), PayToo()):
        says = says_of(each)
        assert says == declared([each])[0].says
        assert says is not None
        assert (says.side_effect, says.by) == (PAY, "code")

    @tool
    def silent(order: str) -> str:
        """Pay."""
        return order

    assert says_of(silent) is None


def test_hints_of_an_mcp_server_arrive_in_langchain() -> None:
    """What a real MCP server hints at is read where langchain-mcp-adapters puts it, and counts as a hint."""
    adapters = pytest.importorskip("langchain_mcp_adapters.tools")
    from mcp.server.fastmcp import FastMCP
    from mcp.shared.memory import create_connected_server_and_client_session
    from mcp.types import ToolAnnotations

    from misstep_langgraph.messages import says_of

    server = FastMCP("shop")
    hints = {
        "browse": ToolAnnotations(readOnlyHint=True),
        "process": ToolAnnotations(readOnlyHint=False, destructiveHint=False),
        "plain": None,
    }
    for name, given in hints.items():
        server.add_tool(lambda order: order, name=name, description="Does it.", annotations=given)

    async def loaded() -> dict[str, Classified | None]:
        async with create_connected_server_and_client_session(server._mcp_server) as session:
            return {tool.name: says_of(tool) for tool in await adapters.load_mcp_tools(session)}

    said = asyncio.run(loaded())
    assert said["browse"] == Classified(SideEffect.READ_ONLY, "hint", "readOnlyHint: true")
    assert said["process"] is not None
    assert (said["process"].side_effect, said["process"].by) == (SideEffect.COMPENSABLE, "hint")
    assert said["plain"] is None


def graph_of(script: Script, tools: list[Any], **options: Any) -> Any:
    """A hand-made graph whose ToolNode runs all calls of a reply as one task, and so runs them all again."""
    from langgraph.checkpoint.memory import InMemorySaver
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.prebuilt import ToolNode, tools_condition

    from misstep_langgraph.testing import ScriptedChatModel

    model = ScriptedChatModel(script).bind_tools(tools)
    graph: Any = StateGraph(MessagesState)
    graph.add_node("llm", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_node("tools", ToolNode(tools, handle_tool_errors=False), **options)
    graph.add_edge(START, "llm")
    graph.add_conditional_edges("llm", tools_condition)
    graph.add_edge("tools", "llm")
    return graph.compile(checkpointer=InMemorySaver())


BOTH = AskAll((Ask("pay", {"order": "A"}, "c1"), Ask("other", {"order": "A"}, "c2")))
THREAD: Any = {"configurable": {"thread_id": "t"}}


def paying(done: list[str]) -> Any:
    """A LangChain tool with an effect."""
    from langchain_core.tools import tool

    @tool
    @side_effect("irreversible")
    def pay(order: str) -> str:
        """Pay."""
        done.append(order)
        return f"paid {order}"

    return pay


def test_a_resumed_interrupt_pays_once(tmp_path: Path) -> None:
    """A ToolNode that is resumed after an interrupt runs all its calls again; what was paid is answered for."""
    pytest.importorskip("langgraph")
    from langchain_core.tools import tool
    from langgraph.types import Command, interrupt

    from misstep_langgraph import guarded

    done: list[str] = []

    @tool
    def other(order: str) -> str:
        """Ask the user."""
        return str(interrupt("sure?"))

    guard = guard_in(tmp_path)
    graph = guarded(graph_of(Script(BOTH, Say("done")), [paying(done), other]), guard)
    graph.invoke({"messages": [("user", "pay A")]}, THREAD)
    out = graph.invoke(Command(resume="yes"), THREAD)
    assert [message.content for message in out["messages"][-3:]] == ["paid A", "yes", "done"]
    assert done == ["A"]
    assert guard.report(graph.last_run).runs[0].journal.answered == 1


def test_a_node_that_is_tried_again_pays_once(tmp_path: Path) -> None:
    """LangGraph's own retry of a node runs its calls again in the same run; what was paid is answered for."""
    pytest.importorskip("langgraph")
    from langchain_core.tools import tool
    from langgraph.types import RetryPolicy

    from misstep_langgraph import guarded

    done: list[str] = []
    tries: list[str] = []

    @tool
    def other(order: str) -> str:
        """Look it up."""
        tries.append(order)
        if len(tries) < 3:
            raise RuntimeError("not yet")
        return "fine"

    guard = guard_in(tmp_path)
    retries = RetryPolicy(max_attempts=3, initial_interval=0.01, retry_on=RuntimeError)
    compiled = graph_of(Script(BOTH, Say("done")), [paying(done), other], retry_policy=retries)
    out = guarded(compiled, guard).invoke({"messages": [("user", "pay A")]}, THREAD)
    assert out["messages"][-1].content == "done"
    assert (done, len(tries)) == (["A"], 3)


def test_a_later_turn_pays_again(tmp_path: Path) -> None:
    """What the user asks for again in a later turn of the conversation is done again, whatever ids the model uses."""
    pytest.importorskip("langgraph")
    from misstep_langgraph import guarded

    done: list[str] = []
    script = Script(Ask("pay", {"order": "A"}, "c1"), Say("done"), Ask("pay", {"order": "A"}, "c1"), Say("done"))
    guard = guard_in(tmp_path)
    graph = guarded(graph_of(script, [paying(done)]), guard)
    for _ in range(2):
        graph.invoke({"messages": [("user", "pay A")]}, THREAD)
    assert done == ["A", "A"]


def test_a_result_that_changes_the_graph_is_not_given_back_as_words(tmp_path: Path) -> None:
    """A tool that answers with a `Command` cannot be answered for: a person is asked, here by an interrupt."""
    pytest.importorskip("langgraph")
    from langchain_core.messages import ToolMessage
    from langchain_core.tools import tool
    from langgraph.types import Command, interrupt

    from misstep_langgraph import guarded

    done: list[str] = []

    @tool
    @side_effect("irreversible")
    def pay(order: str) -> Any:
        """Pay."""
        done.append(order)
        return Command(update={"messages": [ToolMessage("paid", tool_call_id="c1")]})

    @tool
    def other(order: str) -> str:
        """Ask the user."""
        return str(interrupt("sure?"))

    guard = guard_in(tmp_path)
    graph = guarded(graph_of(Script(BOTH, Say("done")), [pay, other]), guard)
    graph.invoke({"messages": [("user", "pay A")]}, THREAD)
    graph.invoke(Command(resume="yes"), THREAD)
    (asked,) = graph.get_state(THREAD).interrupts
    assert "`pay` was made before, and what it answered cannot be given back" in asked.value["misstep"]
    out = graph.invoke(Command(resume="reject"), THREAD)
    assert "A person was asked about this and rejected it." in out["messages"][-3].content
    assert done == ["A"]


class Misled:
    """A rule that finds fault with `other`, and puts it down to the payment before it."""

    type = AnomalyType.REPEATED_CALL

    def __call__(self, event: ToolRequested, run: Run) -> Anomaly | None:
        """Judge one call."""
        first = next((each.seq for each in run.events if isinstance(each, ToolRequested) and each.tool == "pay"), None)
        if event.tool != "other" or first is None:
            return None
        return Anomaly(type=self.type, message="led astray", evidence=(first,))


def test_what_was_rolled_back_is_paid_once(tmp_path: Path) -> None:
    """A roll-back to before the payment has the model propose it again; it is answered for, and not made again."""
    pytest.importorskip("langgraph")
    from langchain_core.tools import tool

    from misstep_langgraph import guarded

    done: list[str] = []

    @tool
    def other(order: str) -> str:
        """Look it up."""
        return "fine"

    asks = [Ask("pay", {"order": "A"}, "c1"), Ask("other", {"order": "A"}, "c2"), Ask("pay", {"order": "A"}, "c3")]
    rule = Rule(ladder=(Rung.model_validate({"roll_back": 1}),))
    guard = Guard(
        Policy(rules={Misled.type: rule}),
        detectors=[Misled()],
        journal=Journal(tmp_path / "misstep.db"),
        strict=True,
    )
    graph = guarded(graph_of(Script(*asks, Say("done")), [paying(done), other]), guard)
    out = graph.invoke({"messages": [("user", "pay A")]}, THREAD)
    assert [message.content for message in out["messages"]][-2:] == ["paid A", "done"]
    assert done == ["A"]
    assert guard.report(graph.last_run).runs[0].journal == JournalReport(journaled=1, answered=1)


def test_the_middleware_writes_down_too(tmp_path: Path) -> None:
    """`MisstepMiddleware` finds the declaration on the tool, and its calls are in the journal."""
    pytest.importorskip("langgraph")
    from langchain.agents import create_agent

    from misstep_langgraph import MisstepMiddleware
    from misstep_langgraph.testing import ScriptedChatModel

    done: list[str] = []
    guard = guard_in(tmp_path)
    model = ScriptedChatModel(Script(Ask("pay", {"order": "A"}, "c1"), Say("done")))
    agent = create_agent(model, [paying(done)], middleware=[MisstepMiddleware(guard)])
    agent.invoke({"messages": [("user", "pay A")]})
    assert (done, states(guard)) == (["A"], ["done"])
    assert the_tool(guard, "pay").by == "code"


# -- AutoGen ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streaming", [False, True])
def test_autogen_tools_keep_what_was_declared(tmp_path: Path, streaming: bool) -> None:
    """A declaration is found through `FunctionTool`, and a guarded agent's call is in the journal, once."""
    pytest.importorskip("autogen_agentchat")
    from autogen_agentchat.agents import AssistantAgent
    from autogen_core.tools import FunctionTool

    from misstep_autogen import guarded
    from misstep_autogen.testing import ScriptedChatClient

    done: list[str] = []

    @side_effect("irreversible")
    async def act(order: str) -> str:
        """Act on an order."""
        done.append(order)
        return f"acted on {order}"

    guard = guard_in(tmp_path)
    client = ScriptedChatClient(Script(Ask("act", {"order": "A"}, "c1"), Say("done")))
    tools: Any = [act] if streaming else [FunctionTool(act, description="Act on an order")]
    agent = guarded(AssistantAgent("clerk", client, tools=tools, reflect_on_tool_use=True), guard)
    asyncio.run(agent.run(task="act on A"))
    assert (done, states(guard)) == (["A"], ["done"])
    said = the_tool(guard, "act")
    assert (said.by, said.side_effect) == ("code", PAY)


# -- CrewAI -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["function", "class", "method"])
def test_crewai_tools_keep_what_was_declared(tmp_path: Path, kind: str) -> None:
    """A declaration is found through CrewAI's `@tool` and on a `BaseTool`; a guarded crew's call is in the journal."""
    pytest.importorskip("crewai")
    from crewai import Agent, Crew, Task
    from crewai.tools import BaseTool, tool

    from misstep_crewai import guarded
    from misstep_crewai.testing import ScriptedLLM

    done: list[str] = []

    @tool("act")
    @side_effect("irreversible")
    def function(order: str) -> str:
        """Act on an order."""
        done.append(order)
        return f"acted on {order}"

    @side_effect("irreversible")
    class Act(BaseTool):
        name: str = "act"
        description: str = "Act on an order."

        def _run(self, order: str) -> str:
            done.append(order)
            return f"acted on {order}"

    class ActToo(BaseTool):
        name: str = "act"
        description: str = "Act on an order."

        @side_effect("irreversible")
        def _run(self, order: str) -> str:
            done.append(order)
            return f"acted on {order}"

    made: Any = {"function": function, "class": Act(), "method": ActToo()}[kind]
    guard = guard_in(tmp_path)
    llm = ScriptedLLM(Script(Ask("act", {"order": "A"}, "c1"), Say("done")))
    clerk = Agent(role="clerk", goal="act", backstory="acts", llm=llm, tools=[made])
    task = Task(description="act on A", expected_output="done", agent=clerk)
    guarded(Crew(agents=[clerk], tasks=[task]), guard).kickoff()
    assert (done, states(guard)) == (["A"], ["done"])
    said = the_tool(guard, "act")
    assert (said.by, said.side_effect) == ("code", PAY)
