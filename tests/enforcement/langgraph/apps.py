"""What the proofs are built of: apps around a script, guarded in both ways, and a call that must not happen."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.tools import BaseTool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from misstep import Guard
from misstep.decisions import Kind
from misstep.events import ModelResponded, ToolRequested
from misstep.testing import Ask, Reply, Say, Script
from misstep_langgraph import MisstepMiddleware, guarded
from misstep_langgraph.messages import words
from misstep_langgraph.testing import ScriptedChatModel
from tests.conformance.decisions import BAD, bad_call, bad_reply, finds, guarding
from tests.conformance.host import MODES, Mode, World
from tests.conformance.hosts.langgraph import AgentWithMiddleware, GuardedGraph, langchain_tools
from tests.conformance.scenarios import Scenario

HOSTS = (GuardedGraph(), AgentWithMiddleware())

TASK: Any = {"messages": [HumanMessage("go")]}

Attach = Callable[..., Any]
"""Takes a script, tools and a guard, and what else to compile with; gives an app."""

Tools = Sequence[BaseTool]


def refusing(**fields: Any) -> Guard:
    """A guard that refuses every call about something bad."""
    return guarding(finds(ToolRequested, bad_call), {"refuse": 99}, **fields)


def resampling() -> Guard:
    """A guard that has a bad reply sampled again, and holds replies back from streams until then."""
    return ruled(guarding(finds(ModelResponded, bad_reply), {"retry": 9}), output="hold")


def failing_closed(rule: Any, *ladder: Any, **fields: Any) -> Guard:
    """A guard with that one rule and this ladder, which refuses what it cannot check."""
    guard = ruled(guarding(rule, *ladder, **fields), on_guard_failure="closed")
    guard.strict = False
    return guard


def ruled(guard: Guard, **fields: Any) -> Guard:
    """The guard, its rules with these fields."""
    rules = {type_: rule.model_copy(update=fields) for type_, rule in guard.policy.rules.items()}
    guard.reload(guard.policy.model_copy(update={"rules": rules}))
    return guard


def bad(id: str = "a") -> Ask:  # noqa: A002 - as in `Ask`
    """A call that must not happen."""
    return Ask("act", {"q": BAD}, id=id)


def good(id: str = "b") -> Ask:  # noqa: A002 - as in `Ask`
    """A call that must."""
    return Ask("act", {"q": "good"}, id=id)


def calls() -> Script:
    """In every run the bad call, then the good one, then an answer."""
    return repeating(bad(), good(), Say("all done"))


def repeating(*replies: Reply) -> Script:
    """The replies one after another, in every run of `TASK` from the first."""

    def reply(told: Sequence[str]) -> Reply:
        since = len(told) - 1 - max(place for place, text in enumerate(told) if text == "go")
        return replies[min(since // 2, len(replies) - 1)]

    return Script(reply)


class Verbatim(ScriptedChatModel):
    """Says these messages, one after another in each conversation; what a script has no words for can be said so."""

    def _reply(self, messages: list[BaseMessage]) -> AIMessage:
        said = sum(isinstance(message, AIMessage) for message in messages)
        return self.script[min(said, len(self.script) - 1)].model_copy()  # type: ignore[no-any-return]


def asks(*proposed: tuple[str, str | None], **fields: Any) -> AIMessage:
    """A reply that asks for `act` about these, each under its id."""
    calls = [{"name": "act", "args": {"q": q}, "id": id_, "type": "tool_call"} for q, id_ in proposed]
    return AIMessage("", tool_calls=calls, **fields)


def acting(world: World, *names: str) -> list[Any]:
    """The world's tools; `act` where none is named."""
    return langchain_tools(world, names or ("act",))


def builder(script: Script | ScriptedChatModel, tools: Tools, **node: Any) -> Any:
    """A hand-made graph of a model node and a ToolNode, which takes the arguments that are left."""
    model = model_of(script).bind_tools(tools)
    return joined(lambda state: {"messages": [model.invoke(state["messages"])]}, ToolNode(tools, **node))


def model_of(script: Script | ScriptedChatModel) -> ScriptedChatModel:
    """A model that plays the script."""
    return script if isinstance(script, ScriptedChatModel) else ScriptedChatModel(script)


def joined(llm: Any, tools: Any, **options: Any) -> Any:
    """A builder of a graph with these two nodes; `options` are those of `add_node`."""
    graph = StateGraph(MessagesState)
    graph.add_node("llm", llm, **options)
    graph.add_node("tools", tools, **options)
    graph.add_edge(START, "llm")
    graph.add_conditional_edges("llm", tools_condition)
    graph.add_edge("tools", "llm")
    return graph


def node(work: Any, **options: Any) -> Any:
    """A builder of a graph of one node."""
    graph = StateGraph(MessagesState)
    graph.add_node("work", work, **options)
    graph.add_edge(START, "work")
    return graph


def by_guarded(script: Script | ScriptedChatModel, tools: Tools, guard: Guard, **compiled: Any) -> Any:
    """A hand-made graph, guarded."""
    return guarded(builder(script, tools), guard, **compiled)


def by_middleware(script: Script | ScriptedChatModel, tools: Tools, guard: Guard, **compiled: Any) -> Any:
    """`create_agent` with the middleware."""
    return create_agent(model_of(script), list(tools), middleware=[MisstepMiddleware(guard)], **compiled)


BOTH: tuple[Attach, ...] = (by_guarded, by_middleware)


def only_good(run: Callable[[Any], object], attaches: Sequence[Attach] = BOTH, **compiled: Any) -> None:
    """Run down one way, the good call happens and the bad one does not."""
    for attach in attaches:
        world = World()
        run(attach(calls(), acting(world), refusing(), **compiled))
        assert world.done == ["good"], attach


def played(*scenarios: Scenario, modes: Sequence[Mode] = MODES) -> None:
    """Shared scenarios hold with both ways of attaching."""
    for host, mode, scenario in itertools.product(HOSTS, modes, scenarios):
        scenario(host, mode)


_threads = itertools.count()


def thread() -> Any:
    """A conversation of its own."""
    return {"configurable": {"thread_id": f"e{next(_threads)}"}}


def texts(result: Any) -> list[str]:
    """What the messages of a result say."""
    return [words(message.content).strip() for message in result["messages"]]


def receipts(guard: Guard) -> list[tuple[Kind, bool | None, str]]:
    """The decisions of the runs that ended, whether each took effect, and what its receipt says."""
    return [(each.kind, each.took_effect, each.detail) for run in guard.report().runs for each in run.decisions]


@contextmanager
def logged() -> Iterator[list[str]]:
    """What misstep logs while the context is open."""
    said: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    handler = Kept()
    logging.getLogger("misstep").addHandler(handler)
    try:
        yield said
    finally:
        logging.getLogger("misstep").removeHandler(handler)
