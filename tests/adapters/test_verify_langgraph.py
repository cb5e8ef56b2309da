"""`verify` on LangGraph: it finds every way a guard is absent, and calls no sound app broken."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ToolCallLimitMiddleware, hook_config
from langchain.agents.structured_output import ToolStrategy
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import BaseTool, InjectedToolCallId, StructuredTool
from langchain_core.tools import tool as as_tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, create_react_agent, tools_condition
from langgraph.types import Command, Send
from pydantic import BaseModel
from typer.testing import CliRunner

from misstep import Guard, VerificationError
from misstep.cli import app as cli
from misstep.events import Event
from misstep.seats import Seat
from misstep.testing import Script
from misstep.verification import Checked, Standing, Verification
from misstep_langgraph import MisstepCallbackHandler, MisstepMiddleware, guarded, unguard
from misstep_langgraph.testing import ScriptedChatModel
from tests.adapters.verifying import REAL, idle, not_protected, nothing_real, real, standing

__all__ = ["nothing_real"]


def model() -> ScriptedChatModel:
    """A model of the application's."""
    return ScriptedChatModel(Script(real))


@as_tool
def pay(amount: int) -> str:
    """Pay an amount."""
    REAL.append("tool")
    return "paid"


@as_tool
def look(q: str) -> str:
    """Look something up."""
    REAL.append("tool")
    return "found"


def by_hand(tools: list[Any], *, bound: Any = None, checkpointer: Any = None) -> Any:
    """A hand-made graph of a model node and a tool node."""
    asked = (bound or model()).bind_tools(tools)

    def llm(state: MessagesState) -> Any:
        return {"messages": [asked.invoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("llm", llm)
    builder.add_node("tools", ToolNode(tools))
    builder.add_edge(START, "llm")
    builder.add_conditional_edges("llm", tools_condition)
    builder.add_edge("tools", "llm")
    return builder.compile(checkpointer=checkpointer)


def node(body: Callable[[Any], Any]) -> Any:
    """A graph of one node."""
    builder = StateGraph(MessagesState)
    builder.add_node("node", body)
    builder.add_edge(START, "node")
    return builder.compile()


def as_a_tool(agent: Any) -> Any:
    """An agent as a tool."""

    @as_tool("helper")
    def helper(task: str) -> str:
        """Have somebody else do it."""
        return str(agent.invoke({"messages": [HumanMessage(task)]})["messages"][-1].content)

    return helper


# -- broken


class Careless(AgentMiddleware):
    """Runs every tool itself."""

    def wrap_tool_call(self, request: Any, handler: Any) -> Any:
        """Past whoever comes after it."""
        told = request.tool.run(request.tool_call["args"])
        return ToolMessage(str(told), tool_call_id=request.tool_call["id"])

    async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
        """As in sync code."""
        return self.wrap_tool_call(request, handler)


class Answering(AgentMiddleware):
    """Asks the model itself."""

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        """Past whoever comes after it."""
        return request.model.bind_tools(request.tools).invoke(request.messages)

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        """As in sync code."""
        return self.wrap_model_call(request, handler)


class Jumping(AgentMiddleware):
    """Runs tools from where nobody looks, and jumps on."""

    @hook_config(can_jump_to=["model"])
    def after_model(self, state: Any, runtime: Any) -> Any:
        """Answer the calls at once."""
        calls = state["messages"][-1].tool_calls
        if not calls:
            return None
        told = [ToolMessage(str(pay.run(call["args"])), tool_call_id=call["id"]) for call in calls]
        return {"messages": told, "jump_to": "model"}


class Swallowing(BaseTool):
    """A tool that goes past LangChain's own way in."""

    name: str = "swallow"
    description: str = "Swallows."

    def _run(self, q: str = "") -> str:
        REAL.append("tool")
        return "swallowed"

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Past what LangChain does."""
        return ToolMessage(self._run(), tool_call_id=kwargs.get("tool_call_id") or "")

    async def arun(self, *args: Any, **kwargs: Any) -> Any:
        """As in sync code."""
        return self.run(*args, **kwargs)


def streams_by_hand(state: MessagesState) -> Any:
    """A node that streams its model itself."""
    return {"messages": [AIMessage("".join(str(chunk.content) for chunk in model().stream(state["messages"])))]}


def asks_without_callbacks(state: MessagesState) -> Any:
    """A node that gives its model a config without callbacks."""
    return {"messages": [model().invoke(state["messages"], {"callbacks": []})]}


def generates(state: MessagesState) -> Any:
    """A node that has its model generate, for several conversations at once."""
    return {"messages": [model().generate([state["messages"]]).generations[0][0].message]}


def asks_in_a_thread(state: MessagesState) -> Any:
    """A node that asks its model in a thread of its own."""
    said: list[Any] = []
    thread = threading.Thread(target=lambda: said.append(model().invoke([HumanMessage("x")])))
    thread.start()
    thread.join()
    return {"messages": said}


def builds_an_agent(state: MessagesState) -> Any:
    """A node that makes an agent and runs it apart from the run."""
    agent = create_agent(model(), [pay])
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(agent.invoke({"messages": state["messages"]})))
    thread.start()
    thread.join()
    return {"messages": got[0]["messages"][-1:]}


def other_guard(guard: Guard) -> Any:
    """Guarded, by somebody else."""
    return guarded(create_agent(model(), [pay]), Guard())


def without_inner_middleware(guard: Guard) -> Any:
    """An agent with the middleware, and an agent without in one of its tools."""
    return create_agent(model(), [as_a_tool(create_agent(model(), [pay]))], middleware=[MisstepMiddleware(guard)])


def inner_node_without_middleware(guard: Guard) -> Any:
    """Two agents in a graph, of which one has the middleware."""
    builder = StateGraph(MessagesState)
    builder.add_node("first", create_agent(model(), [look], middleware=[MisstepMiddleware(guard)]))
    builder.add_node("second", create_agent(model(), [pay]))
    builder.add_edge(START, "first")
    builder.add_edge("first", "second")
    return builder.compile()


BROKEN: dict[str, tuple[Callable[[Guard], Any], Seat, str, Standing]] = {
    "no guard": (lambda _: create_agent(model(), [pay]), Seat.TOOL, "model/pay", Standing.NOT_IN_PATH),
    "another guard": (other_guard, Seat.TOOL, "model/pay", Standing.NOT_IN_PATH),
    "the guard taken off": (
        lambda guard: unguard(guarded(create_agent(model(), [pay]), guard)),
        Seat.MODEL,
        "model",
        Standing.NOT_IN_PATH,
    ),
    "a handler that only watches": (
        lambda guard: create_agent(model(), [pay]).with_config(callbacks=[MisstepCallbackHandler(guard)]),
        Seat.TOOL,
        "model/pay",
        Standing.SEEN_ONLY,
    ),
    "a middleware that runs tools before the guard's": (
        lambda guard: create_agent(model(), [pay], middleware=[Careless(), MisstepMiddleware(guard)]),
        Seat.TOOL,
        "model/pay",
        Standing.SEEN_ONLY,
    ),
    "a middleware that asks the model before the guard's": (
        lambda guard: create_agent(model(), [pay], middleware=[Answering(), MisstepMiddleware(guard)]),
        Seat.MODEL,
        "model",
        Standing.NOT_IN_PATH,
    ),
    "a middleware that jumps past the guard's": (
        lambda guard: create_agent(model(), [pay], middleware=[MisstepMiddleware(guard), Jumping()]),
        Seat.TOOL,
        "model/pay",
        Standing.SEEN_ONLY,
    ),
    "an agent in a tool without the middleware": (
        without_inner_middleware,
        Seat.TOOL,
        "tools/model/pay",
        Standing.NOT_IN_PATH,
    ),
    "an agent in a node without the middleware": (
        inner_node_without_middleware,
        Seat.TOOL,
        "second/model/pay",
        Standing.NOT_IN_PATH,
    ),
    "a model streamed by hand": (
        lambda guard: guarded(node(streams_by_hand), guard),
        Seat.MODEL,
        "node",
        Standing.SEEN_ONLY,
    ),
    "a model without callbacks": (
        lambda guard: guarded(node(asks_without_callbacks), guard),
        Seat.MODEL,
        "node",
        Standing.NOT_IN_PATH,
    ),
    "a model that generates": (
        lambda guard: guarded(node(generates), guard),
        Seat.MODEL,
        "model",
        Standing.NOT_IN_PATH,
    ),
    "a model in a thread": (
        lambda guard: guarded(node(asks_in_a_thread), guard),
        Seat.MODEL,
        "model",
        Standing.NOT_IN_PATH,
    ),
    "an agent built in a node, in a thread": (
        lambda guard: guarded(node(builds_an_agent), guard),
        Seat.TOOL,
        "model/pay",
        Standing.NOT_IN_PATH,
    ),
    "a tool that goes past LangChain": (
        lambda guard: guarded(create_agent(model(), [Swallowing()]), guard),
        Seat.TOOL,
        "model/swallow",
        Standing.SEEN_ONLY,
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_gets_past_the_guard_is_named(name: str) -> None:
    """A set-up in which something gets past the guard is called broken, with the seat at which it does."""
    build, seat, part, expected = BROKEN[name]
    guard = Guard()
    found = guard.verify(build(guard), bodies=True)
    assert found.broken
    assert not found.protected
    assert expected in standing(found, seat, part), found.verdict


@idle
def test_a_guard_that_would_not_act(guard: Guard, reason: str) -> None:
    """A guard that is in the path and does nothing there protects nothing, whatever its seats can do."""
    not_protected(guard.verify(guarded(create_agent(model(), [pay]), guard)), reason)


def test_somebody_patches_over_the_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was put in the place of the gate since is found out."""
    guard = Guard()
    app = guarded(create_agent(model(), [pay]), guard)
    monkeypatch.setattr(BaseChatModel, "_generate_with_cache", BaseChatModel._generate_with_cache.__wrapped__)
    found = guard.verify(app)
    assert Standing.SEEN_ONLY in standing(found, Seat.MODEL, "model")


# -- sound


class Answer(BaseModel):
    """A structured answer."""

    text: str


class Sum(TypedDict):
    """A state without messages."""

    total: int


def transfer(agent: str) -> Any:
    """A hand-off tool."""

    @as_tool(f"transfer_to_{agent}")
    def call(id_: Annotated[str, InjectedToolCallId]) -> Any:
        """Hand over."""
        told = ToolMessage(f"transferred to {agent}", tool_call_id=id_)
        return Command(goto=agent, graph=Command.PARENT, update={"messages": [told]})

    call.metadata = {"__handoff_destination": agent}
    return call


def swarm(guard: Guard) -> Any:
    """Two agents that hand over to each other."""
    builder = StateGraph(MessagesState)
    builder.add_node("first", create_agent(model(), [look, transfer("second")], name="first"))
    builder.add_node("second", create_agent(model(), [pay], name="second"))
    builder.add_edge(START, "first")
    return guarded(builder, guard, checkpointer=InMemorySaver())


def fan_out(guard: Guard) -> Any:
    """One agent, several times at once."""
    builder = StateGraph(MessagesState)
    builder.add_node("agent", create_agent(model(), [look]))
    builder.add_conditional_edges(
        START, lambda state: [Send("agent", {"messages": state["messages"]}) for _ in range(3)], ["agent"]
    )
    return guarded(builder.compile(), guard)


def added_later(guard: Guard) -> Any:
    """A tool that came after the guard."""
    app = guarded(by_hand([look]), guard)
    app.nodes["tools"].bound.tools_by_name["pay"] = pay
    return app


def inner_with_middleware(guard: Guard) -> Any:
    """An agent in a tool of another, each with a middleware."""
    inner = create_agent(model(), [pay], middleware=[MisstepMiddleware(guard)])
    return create_agent(model(), [as_a_tool(inner)], middleware=[MisstepMiddleware(guard)])


class Polite(AgentMiddleware):
    """A middleware that minds its own business."""

    def before_model(self, state: Any, runtime: Any) -> Any:
        """Look on."""

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        """Pass on."""
        return handler(request)

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        """Pass on."""
        return await handler(request)


async def _later(q: str) -> str:
    REAL.append("tool")
    return q


SOUND: dict[str, Callable[[Guard], Any]] = {
    "create_agent with the middleware": lambda guard: create_agent(
        model(), [pay, look], middleware=[MisstepMiddleware(guard)]
    ),
    "create_agent with the middleware and a checkpointer": lambda guard: create_agent(
        model(), [pay], middleware=[MisstepMiddleware(guard)], checkpointer=InMemorySaver()
    ),
    "create_agent guarded": lambda guard: guarded(create_agent(model(), [pay]), guard),
    "create_agent, guarded and with the middleware": lambda guard: guarded(
        create_agent(model(), [pay], middleware=[MisstepMiddleware(guard)]), guard
    ),
    "other middlewares round it": lambda guard: create_agent(
        model(),
        [pay],
        middleware=[Polite(), MisstepMiddleware(guard), ToolCallLimitMiddleware(run_limit=50)],
    ),
    "an enforcing handler": lambda guard: create_agent(model(), [pay]).with_config(
        callbacks=[MisstepCallbackHandler(guard, enforce=True)]
    ),
    "create_react_agent": lambda guard: guarded(create_react_agent(model(), [pay, look]), guard),
    "a hand-made graph": lambda guard: guarded(by_hand([pay, look]), guard),
    "a hand-made graph that is resumed": lambda guard: guarded(by_hand([pay], checkpointer=InMemorySaver()), guard),
    "with_config": lambda guard: guarded(by_hand([pay]), guard).with_config(tags=["mine"]),
    "a copy": lambda guard: guarded(by_hand([pay]), guard).copy({}),
    "hand-offs": swarm,
    "the same agent several times at once": fan_out,
    "a tool added later": added_later,
    "an agent in a tool, guarded whole": lambda guard: guarded(
        create_agent(model(), [as_a_tool(create_agent(model(), [pay]))]), guard
    ),
    "an agent in a tool, each with a middleware": inner_with_middleware,
    "a structured answer": lambda guard: guarded(
        create_agent(model(), [pay], response_format=ToolStrategy(Answer)), guard
    ),
    "an async tool": lambda guard: guarded(
        create_agent(
            model(), [StructuredTool.from_function(func=pay.func, coroutine=_later, name="later", description="x")]
        ),
        guard,
    ),
    "halts are raised": lambda guard: guarded(create_agent(model(), [pay]), guard, on_halt="raise"),
    "no tools": lambda guard: guarded(create_agent(model(), []), guard),
}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_app_is_protected(name: str) -> None:
    """An app in which nothing gets past the guard is called protected."""
    guard = Guard()
    found = guard.verify(SOUND[name](guard), bodies=True)
    assert not found.broken, found.verdict
    assert found.protected, found.verdict


# -- what is left alone


def test_bodies_are_the_applications_own() -> None:
    """A node's own code is not run unless that is asked for, and nothing is said of what is in it."""
    guard = Guard()
    found = guard.verify(guarded(by_hand([pay]), guard))
    assert not found.protected
    assert not found.broken
    assert standing(found, Seat.MODEL, "llm") == {Standing.NOT_EXERCISED}
    assert "bodies" in found.verdict


def test_an_agent_in_a_tool_is_not_run_unasked() -> None:
    """A tool's body is the application's own code too."""
    guard = Guard()
    app = guarded(create_agent(model(), [as_a_tool(create_agent(model(), [pay]))]), guard)
    found = guard.verify(app)
    assert not found.broken
    assert standing(found, Seat.MODEL, "tools/helper") == {Standing.NOT_EXERCISED}


def test_nothing_is_left_behind() -> None:
    """The guard's books, policy, mode and sink, the classes and the user's conversations are as they were."""
    heard: list[Event] = []

    class Heard:
        def write(self, event: Event) -> None:
            heard.append(event)

        def close(self) -> None:
            raise AssertionError("the user's sink is not closed")

    guard, saver = Guard(sink=Heard(), mode="shadow"), InMemorySaver()
    app = guarded(create_agent(model(), [pay], checkpointer=saver), guard)

    def state() -> tuple[object, ...]:
        return guard.policy, guard.mode, guard.report(), StructuredTool._run, ScriptedChatModel._generate

    before = state()
    guard.verify(app)
    assert state() == before
    assert heard == []
    assert list(saver.list(None)) == []


def test_nothing_is_left_behind_by_a_run_that_hangs() -> None:
    """A way of running that does not end is given up, said to be unknown, and everything is put back."""
    free = threading.Event()

    def hang(state: MessagesState) -> Any:
        free.wait(20)
        return {}

    guard, original = Guard(), StructuredTool._run
    found = guard.verify(guarded(node(hang), guard), bodies=True, deadline=0.2)
    free.set()
    assert not found.protected
    assert StructuredTool._run is original
    assert "did not end" in found.verdict
    time.sleep(0)


def test_a_run_that_raises_is_no_proof() -> None:
    """An app that cannot be run is not called protected, and the exception is named."""

    def fail(state: MessagesState) -> Any:
        raise LookupError("no such thing")

    guard = Guard()
    found = guard.verify(guarded(node(fail), guard), bodies=True)
    assert not found.protected
    assert "LookupError" in found.verdict


def test_a_guard_at_work_is_not_verified() -> None:
    """While a run is open, verifying would take the guard away from it."""
    guard = Guard()
    app = guarded(create_agent(model(), [pay]), guard)
    guard.open("at work")
    with pytest.raises(VerificationError, match="1 open run"):
        guard.verify(app)


def test_in_the_middle_of_async_code() -> None:
    """Whoever has an event loop running can verify too."""
    guard = Guard()
    app = guarded(create_agent(model(), [pay]), guard)

    async def start() -> Verification:
        return guard.verify(app)

    assert asyncio.run(start()).protected


def test_what_is_no_app() -> None:
    """Anything else is refused, with what can be verified."""
    with pytest.raises(TypeError, match="cannot be verified"):
        Guard().verify(object())
    with pytest.raises(TypeError, match="no compiled graph"):
        Guard().verify(RunnableLambda(lambda _: None))


def test_a_graph_without_messages() -> None:
    """An app is run with the least its schema accepts, or with what it is given."""
    seen: list[int] = []
    builder = StateGraph(Sum)
    builder.add_node("add", lambda state: seen.append(state["total"]) or {"total": state["total"] + 1})
    builder.add_edge(START, "add")
    guard = Guard()
    app = guarded(builder, guard)
    guard.verify(app, bodies=True)
    guard.verify(app, bodies=True, inputs={"total": 41})
    assert {1, 41} <= set(seen)


# -- the command line


APP = """
from langchain.agents import create_agent
from misstep import Guard
from misstep.testing import Say, Script
from misstep_langgraph import guarded
from misstep_langgraph.testing import ScriptedChatModel

bare = create_agent(ScriptedChatModel(Script(Say("x"))), [])
graph = guarded(bare, Guard())
nothing = 3

def make():
    return graph

def broken():
    raise OSError("no disk")
"""


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("shop:graph", 0, "protected\n"),
        ("shop:make", 0, "protected\n"),
        ("shop:bare", 1, "not protected"),
        ("shop:nothing", 2, "cannot be verified"),
        ("shop:broken", 2, "no disk"),
        ("shop:missing", 2, "has no `missing`"),
        ("elsewhere:graph", 2, "cannot be imported"),
        ("shop", 2, "MODULE:OBJECT"),
    ],
)
def test_command(name: str, code: int, words: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """`misstep verify` names the app's standing, and its exit code is one a pipeline can use."""
    (tmp_path / "shop.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["."])
    for module in ("shop", "elsewhere"):
        monkeypatch.delitem(__import__("sys").modules, module, raising=False)
    done = CliRunner().invoke(cli, ["verify", name])
    assert (done.exit_code, words in done.output) == (code, True), done.output


def test_result_reads_well() -> None:
    """A seat says in one line which it is, how it stands, in which ways, and why."""
    seat = Checked(seat=Seat.TOOL, part="a/b", standing=Standing.SEEN_ONLY, ways=("batch",), why="so it is")
    assert str(seat) == "tool `a/b` seen only in batch: so it is"
