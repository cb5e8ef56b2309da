"""The LangGraph adapter beyond the shared scenarios: its type, streams, nesting, resume, calls by hand."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

pytest.importorskip("langgraph")

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.caches import InMemoryCache
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Command, Send, interrupt

from misstep import Anomaly, AnomalyType, AttachError, Guard, Policy, Rule, Run, Rung
from misstep.decisions import Kind
from misstep.events import Event, ModelResponded, ToolRequested
from misstep.policy import parse_policy
from misstep.session import Verdict
from misstep.testing import Ask, Say, Script
from misstep_langgraph import Halted, MisstepCallbackHandler, MisstepMiddleware, guarded, unguard
from misstep_langgraph.testing import ScriptedChatModel

TASK: Any = {"messages": [HumanMessage("go")]}


def rule(type_: AnomalyType, *rungs: Any, output: Any = "pass") -> Policy:
    """A policy with one rule."""
    return Policy(rules={type_: Rule(ladder=tuple(map(Rung.model_validate, rungs)), output=output)})


REFUSE = rule(AnomalyType.REPEATED_CALL, {"refuse": 9})
HALT = rule(AnomalyType.REPEATED_CALL, "halt")


def loop(count: int = 3) -> Script:
    """The same call again and again, then an answer."""
    return Script(*(Ask("act", {"q": "x"}, id=f"c{number}") for number in range(count)), Say("done"))


def acting(done: list[str]) -> Any:
    """A tool with an effect."""

    @tool
    def act(q: str) -> str:
        """Act."""
        done.append(q)
        return "nothing"

    return act


def builder(script: Script, tools: list[Any]) -> Any:
    """A hand-made graph of a model node and a ToolNode."""
    model = ScriptedChatModel(script).bind_tools(tools)
    graph = StateGraph(MessagesState)
    graph.add_node("llm", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_node("tools", ToolNode(tools))
    graph.add_edge(START, "llm")
    graph.add_conditional_edges("llm", tools_condition)
    graph.add_edge("tools", "llm")
    return graph


def test_guarded_is_a_copy_of_the_users_own_type() -> None:
    """`guarded` returns a CompiledStateGraph and leaves the original as it was."""
    done: list[str] = []
    original = builder(loop(), [acting(done)]).compile()
    copy = guarded(original, Guard(REFUSE))
    assert isinstance(copy, CompiledStateGraph)
    assert type(copy).__name__ == "CompiledStateGraph"
    assert copy is not original
    original.invoke(TASK)
    assert done == ["x"] * 3, "the original must stay unguarded"


def test_guarding_twice_with_one_guard_is_guarding_once() -> None:
    """`guarded` is idempotent."""
    guard = Guard(REFUSE)
    once = guarded(builder(loop(), [acting([])]).compile(), guard)
    assert guarded(once, guard) is once


def test_with_config_and_copy_keep_the_guard() -> None:
    """A copy LangGraph makes of a guarded graph is guarded."""
    for change in (lambda graph: graph.with_config({"tags": ["x"]}), lambda graph: graph.copy({})):
        done: list[str] = []
        graph = change(guarded(builder(loop(), [acting(done)]).compile(), Guard(REFUSE)))
        graph.invoke(TASK)
        assert done == ["x", "x"]


def test_unguard_takes_the_guard_off() -> None:
    """`unguard` gives the graph back as it was."""
    done: list[str] = []
    graph = unguard(guarded(builder(loop(), [acting(done)]).compile(), Guard(REFUSE)))
    assert type(graph) is CompiledStateGraph
    graph.invoke(TASK)
    assert done == ["x"] * 3


def test_a_builder_takes_compile_arguments() -> None:
    """A builder is compiled with what is passed on; a compiled graph takes no such arguments."""
    graph = guarded(builder(loop(), [acting([])]), Guard(REFUSE), checkpointer=InMemorySaver())
    assert graph.checkpointer is not None
    with pytest.raises(TypeError, match="checkpointer"):
        guarded(graph, Guard(REFUSE), checkpointer=None)


@pytest.mark.parametrize("way", ["batch", "stream_events", "astream_events", "stream_modes"])
def test_every_way_to_run_goes_through_the_run_seat(way: str) -> None:
    """Batch, event streams and stream modes are guarded like `invoke`."""
    done: list[str] = []
    guard = Guard(REFUSE, strict=True)
    graph = guarded(builder(loop(), [acting(done)]).compile(), guard)

    async def events() -> None:
        async for _ in graph.astream_events(TASK, version="v2"):
            pass

    match way:
        case "batch":
            graph.batch([TASK])
        case "stream_events":
            list(graph.stream_events(TASK, version="v3"))
        case "astream_events":
            asyncio.run(events())
        case "stream_modes":
            list(graph.stream(TASK, stream_mode=["values", "updates", "messages", "custom", "debug"]))
    assert done == ["x", "x"]
    assert len(guard.report().runs) == 1


@dataclass(frozen=True)
class NoSecret:
    """A rule against a word, under a type whose remedy is to sample again."""

    type: ClassVar[AnomalyType] = AnomalyType.EMPTY_RESPONSE

    def __call__(self, event: ModelResponded, run: Run) -> Anomaly | None:
        """Judge one reply."""
        return Anomaly(type=self.type, message="a secret") if "SECRET" in event.content else None


@dataclass(frozen=True)
class EveryCall:
    """A rule against every call."""

    type: ClassVar[AnomalyType] = AnomalyType.REPEATED_CALL

    def __call__(self, event: ToolRequested, run: Run) -> Anomaly | None:
        """Judge one call."""
        return Anomaly(type=self.type, message="a call")


@pytest.mark.parametrize("output", ["hold", "pass"])
@pytest.mark.parametrize("attach", ["guarded", "middleware"])
def test_a_held_reply_streams_no_rejected_token(attach: str, output: str) -> None:
    """With `output: hold` a rejected reply's tokens are not streamed; with `pass` they are."""

    def build() -> Any:
        script = Script(Say("my SECRET words"), Say("fine words"))
        policy = rule(AnomalyType.EMPTY_RESPONSE, {"retry": 1}, output=output)
        guard = Guard(policy, detectors=[NoSecret()], strict=True)
        if attach == "middleware":
            return create_agent(ScriptedChatModel(script), [], middleware=[MisstepMiddleware(guard)])
        return guarded(builder(script, [acting([])]).compile(), guard)

    async def of_events() -> list[Any]:
        stream = build().astream_events(TASK, version="v2")
        return [event async for event in stream if event["event"] == "on_chat_model_stream"]

    shown = "".join(str(chunk[0].content) for chunk in build().stream(TASK, stream_mode="messages"))
    events = "".join(str(event["data"]["chunk"].content) for event in asyncio.run(of_events()))
    assert "fine words" in shown
    assert ("SECRET" in shown) == (output == "pass")
    assert ("SECRET" in events) == (output == "pass")


def test_a_passed_reply_streams_as_without_us() -> None:
    """Without `hold` tokens stream as they come, and a receipt says that the verdict came late."""
    for policy, late in ((rule(AnomalyType.EMPTY_RESPONSE), False), (HALT, True)):
        guard = Guard(policy, strict=True)
        graph = guarded(builder(Script(Say("one two three")) if not late else loop(9), [acting([])]).compile(), guard)
        chunks = [chunk[0].content for chunk in graph.stream(TASK, stream_mode="messages")]
        if not late:
            assert [chunk for chunk in chunks if chunk] == ["one ", "two ", "three "]
        else:
            (run,) = guard.report().runs
            assert "already streamed" in run.decisions[0].detail


@pytest.mark.parametrize("outer_guarded", [True, False])
def test_an_inner_graph_raises_its_halt_to_the_outer_one(outer_guarded: bool) -> None:
    """A halt in a guarded sub-graph ends the guarded outer graph softly, and reaches the caller of an unguarded one."""
    guard = Guard(HALT, strict=True)
    after: list[str] = []

    def went_on(state: MessagesState) -> Any:
        after.append("went on")
        return {}

    outer = StateGraph(MessagesState)
    outer.add_node("inner", guarded(builder(loop(9), [acting([])]).compile(), guard))
    outer.add_node("after", went_on)
    outer.add_edge(START, "inner")
    outer.add_edge("inner", "after")
    if outer_guarded:
        guarded(outer.compile(), guard).invoke(TASK)
    else:
        with pytest.raises(Halted):
            outer.compile().invoke(TASK)
    assert after == []


def test_a_typed_halt_on_request() -> None:
    """With `on_halt="raise"` the caller gets `Halted` with the reason."""
    graph = guarded(builder(loop(9), [acting([])]).compile(), Guard(HALT), on_halt="raise")
    with pytest.raises(Halted, match="repeated_call") as caught:
        graph.invoke(TASK)
    assert "repeated_call" in caught.value.reason


def test_a_halted_thread_goes_on_later() -> None:
    """After a soft halt the user's checkpointer holds the work, and the thread can be used again."""
    graph = guarded(builder(loop(9), [acting([])]), Guard(HALT), checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "t"}}
    result = graph.invoke(TASK, config)
    assert len(result["messages"]) == 5
    assert graph.get_state(config).next == ("llm",)


def test_an_interrupt_and_its_resume_are_one_story() -> None:
    """An interrupted run says so; the resumed one continues it and inherits what it spent."""

    @tool
    def ask(q: str) -> str:
        """Ask a person."""
        return str(interrupt(q))

    guard = Guard(strict=True)
    graph = guarded(
        builder(Script(Ask("ask", {"q": "ok?"}), Say("thanks")), [ask]), guard, checkpointer=InMemorySaver()
    )
    config: Any = {"configurable": {"thread_id": "t"}}
    assert "__interrupt__" in graph.invoke(TASK, config)
    (first,) = guard.report().runs
    assert first.status == "interrupted"
    result = graph.invoke(Command(resume="yes"), config)
    assert [message.content for message in result["messages"]][-2:] == ["yes", "thanks"]
    (second,) = guard.report().runs
    assert (second.status, second.cost.model_calls) == ("completed", 2)


def test_the_applications_own_calls_of_tools_are_left_alone() -> None:
    """A tool a node calls for itself, again and again and in parallel, gives what it gives: no agent chose them."""

    @tool
    def rates(base: str) -> dict[str, float]:
        """Exchange rates."""
        return {"USD": 1.1}

    def work(state: MessagesState) -> Any:
        return {"messages": [("ai", str(sum(rates.invoke({"base": "EUR"})["USD"] for _ in range(6))))]}

    graph = StateGraph(MessagesState)
    graph.add_node("start", lambda state: {})
    graph.add_node("work", work)
    graph.add_edge(START, "start")
    graph.add_conditional_edges("start", lambda state: [Send("work", state) for _ in range(4)], ["work"])
    guard = Guard(HALT, strict=True)
    result = guarded(graph.compile(), guard).invoke(TASK)
    assert [message.content for message in result["messages"][1:]] == ["6.6"] * 4
    (run,) = guard.report().runs
    assert (run.anomalies, run.status) == ((), "completed")


def test_own_calls_at_the_same_time_are_not_taken_for_each_others_proposals() -> None:
    """A call of the application's own that is not finished yet is not what a model proposed."""
    meeting = threading.Barrier(4, timeout=20)

    @tool
    def rates(base: str) -> str:
        """Exchange rates."""
        meeting.wait()
        return "1.1"

    graph = StateGraph(MessagesState)
    graph.add_node("start", lambda state: {})
    graph.add_node("work", lambda state: {"messages": [("ai", rates.invoke({"base": "EUR"}))]})
    graph.add_edge(START, "start")
    graph.add_conditional_edges("start", lambda state: [Send("work", state) for _ in range(4)], ["work"])
    guard = Guard(rule(AnomalyType.REPEATED_CALL, "halt"), detectors=[EveryCall()], strict=True)
    result = guarded(graph.compile(), guard).invoke(TASK)
    assert [message.content for message in result["messages"][1:]] == ["1.1"] * 4
    (run,) = guard.report().runs
    assert run.anomalies == ()


@pytest.mark.parametrize("ids", [True, False])
def test_a_proposed_call_made_by_hand_is_guarded(ids: bool) -> None:
    """A call a model proposed and a node makes itself, without an id, is judged once, and refused like any other."""
    done: list[str] = []
    act = acting(done)
    asked = [Ask("act", {"q": "x"}, id=f"c{number}" if ids else "") for number in range(4)]
    model = ScriptedChatModel(Script(*asked)).bind_tools([act])

    def work(state: MessagesState) -> Any:
        said = []
        for _ in range(4):
            reply = model.invoke(state["messages"])
            said.append(("ai", str(act.invoke(reply.tool_calls[0]["args"]))))
        return {"messages": said}

    graph = StateGraph(MessagesState)
    graph.add_node("work", work)
    graph.add_edge(START, "work")
    guard = Guard(REFUSE, strict=True)
    result = guarded(graph.compile(), guard).invoke(TASK)
    assert done == ["x", "x"]
    assert "[misstep: repeated_call]" in str(result["messages"][-1].content)
    (run,) = guard.report().runs
    assert [(each.kind, each.took_effect) for each in run.decisions] == [(Kind.REFUSE, True)] * 2


@pytest.mark.parametrize("attach", ["guarded", "middleware"])
def test_a_retry_is_not_answered_from_a_cache(attach: str) -> None:
    """With a model cache, a reply that was thrown away does not come back from it."""
    script = Script(Say(""), Say("good"))
    guard = Guard(rule(AnomalyType.EMPTY_RESPONSE, {"retry": 2}), strict=True)
    model = ScriptedChatModel(script, cache=InMemoryCache())
    if attach == "middleware":
        agent = create_agent(model, [], middleware=[MisstepMiddleware(guard)])
    else:
        agent = guarded(create_agent(model, []), guard)
    assert agent.invoke(TASK)["messages"][-1].content == "good"
    assert script.calls == 2


@pytest.mark.parametrize("mode", ["shadow", "off"])
def test_a_guard_that_does_not_enforce_refuses_nothing(mode: Any) -> None:
    """Even a fail-closed rule, and a crash at the seat, block nothing in shadow and off."""
    done: list[str] = []
    policy = Policy(rules={AnomalyType.REPEATED_CALL: Rule(on_guard_failure="closed")})
    guard = BrokenAt(policy, mode=mode)
    guard.method = "judge"
    guarded(builder(loop(4), [acting(done)]).compile(), guard).invoke(TASK)
    assert done == ["x"] * 4


def test_a_graph_run_inside_a_model_call_is_guarded() -> None:
    """While the middleware has a model call in hand, a guarded graph run inside it is judged all the same."""
    guard = Guard(rule(AnomalyType.EMPTY_RESPONSE, {"retry": 1}), strict=True)
    inner = guarded(create_agent(ScriptedChatModel(Script(Say(""), Say("inner"))), []), guard)

    class Consulting(AgentMiddleware):
        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            heard.append(inner.invoke(TASK)["messages"][-1].content)
            return handler(request)

    heard: list[Any] = []
    outer = create_agent(
        ScriptedChatModel(Script(Say("outer"))), [], middleware=[MisstepMiddleware(guard), Consulting()]
    )
    assert outer.invoke(TASK)["messages"][-1].content == "outer"
    assert heard == ["inner"]


def test_a_model_streamed_by_hand_is_seen_and_the_record_says_that_nothing_could_be_done() -> None:
    """`model.stream` in a node goes past the gate: it is watched, and its receipts say `took_effect=False`."""
    model = ScriptedChatModel(Script(Say("")))
    graph = StateGraph(MessagesState)

    def work(state: MessagesState) -> Any:
        list(model.stream(state["messages"]))
        return {}

    graph.add_node("work", work)
    graph.add_edge(START, "work")
    guard = Guard(rule(AnomalyType.EMPTY_RESPONSE, {"retry": 2}), strict=True)
    guarded(graph.compile(), guard).invoke(TASK)
    (run,) = guard.report().runs
    assert [(each.kind, each.took_effect) for each in run.decisions] == [(Kind.RETRY, False)]
    assert "seen only" in run.decisions[0].detail


def test_a_handler_and_a_middleware_see_one_call_once() -> None:
    """Where both are attached, each call is counted and judged once, by the middleware."""
    guard = Guard(REFUSE, strict=True)
    done: list[str] = []
    agent = create_agent(ScriptedChatModel(loop()), [acting(done)], middleware=[MisstepMiddleware(guard)])
    for enforce in (False, True):
        handler = MisstepCallbackHandler(guard, enforce=enforce)
        agent = create_agent(ScriptedChatModel(loop()), [acting(done)], middleware=[MisstepMiddleware(guard)])
        done.clear()
        agent.invoke(TASK, {"callbacks": [handler]})
        assert done == ["x", "x"]
        calls = [run.cost.tool_calls for run in guard.report().runs]
        assert sum(calls) == 2


def test_a_guarded_agent_with_the_middleware_is_judged_once() -> None:
    """`guarded` and the middleware under one guard are one run, in which each call is judged once."""
    guard, done = Guard(REFUSE, strict=True), list[str]()
    agent = create_agent(ScriptedChatModel(loop()), [acting(done)], middleware=[MisstepMiddleware(guard)])
    guarded(agent, guard).invoke(TASK)
    (run,) = guard.report().runs
    assert done == ["x", "x"]
    assert (run.cost.model_calls, run.cost.tool_calls, len(run.decisions)) == (4, 2, 1)


def test_two_guards_both_have_their_say() -> None:
    """An agent with one guard inside a graph with another is under both."""
    done: list[str] = []
    inner, outer = Guard(REFUSE, strict=True), Guard(rule(AnomalyType.EMPTY_RESPONSE, {"retry": 2}), strict=True)
    script = Script(Say(""), *loop()._steps)
    agent = create_agent(ScriptedChatModel(script), [acting(done)], middleware=[MisstepMiddleware(inner)])
    result = guarded(agent, outer).invoke(TASK)
    assert done == ["x", "x"]
    assert result["messages"][-1].content == "done"
    assert [each.kind for each in outer.report().runs[0].decisions] == [Kind.RETRY]


def test_a_watching_handler_changes_nothing() -> None:
    """A handler without `enforce` records what would have been decided, whatever the policy says."""
    done: list[str] = []
    guard = Guard(HALT)
    handler = MisstepCallbackHandler(guard)
    result = builder(loop(5), [acting(done)]).compile().invoke(TASK, {"callbacks": [handler]})
    assert result["messages"][-1].content == "done"
    assert done == ["x"] * 5
    (run,) = guard.report().runs
    assert run.run == handler.last_run
    assert all(each.hypothetical for each in run.decisions)
    assert run.cost.model_calls == 6


def test_an_enforcing_handler_halts_hard() -> None:
    """Without a run seat a halt reaches the caller, in sync and async."""
    for run in (
        lambda graph, config: graph.invoke(TASK, config),
        lambda graph, config: asyncio.run(graph.ainvoke(TASK, config)),
    ):
        graph = builder(loop(9), [acting([])]).compile()
        with pytest.raises(Halted):
            run(graph, {"callbacks": [MisstepCallbackHandler(Guard(HALT), enforce=True)]})


class BrokenAt(Guard):
    """A guard one method of which crashes."""

    method = ""

    def open(self, *args: Any, **kwargs: Any) -> Any:
        """Crash if that is the method."""
        return self._maybe("open", super().open, *args, **kwargs)

    def judge(self, event: Event) -> Verdict:
        """Crash if that is the method."""
        return self._maybe("judge", super().judge, event)  # type: ignore[no-any-return]

    def end(self, *args: Any, **kwargs: Any) -> None:
        """Crash if that is the method."""
        self._maybe("end", super().end, *args, **kwargs)

    def _maybe(self, method: str, call: Any, *args: Any, **kwargs: Any) -> Any:
        if self.method == method:
            raise RuntimeError(f"a bug in {method}")
        return call(*args, **kwargs)


@pytest.mark.parametrize("method", ["open", "judge", "end"])
@pytest.mark.parametrize("attach", ["guarded", "middleware", "handler", "enforcing"])
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_our_own_crash_in_any_hook_never_reaches_the_host(attach: str, method: str, mode: str) -> None:
    """Whichever method of the guard crashes, at whichever seat, the run is the run it would have been."""
    done: list[str] = []
    guard = BrokenAt(HALT)
    graph: Any = builder(loop(4), [acting(done)]).compile()
    config: Any = {}
    if attach == "guarded":
        graph = guarded(graph, guard)
    elif attach == "middleware":
        graph = create_agent(ScriptedChatModel(loop(4)), [acting(done)], middleware=[MisstepMiddleware(guard)])
    else:
        config = {"callbacks": [MisstepCallbackHandler(guard, enforce=attach == "enforcing")]}
    guard.method = method
    if method == "end":
        guard.mode = "shadow"  # so that the run gets to its end
    result = graph.invoke(TASK, config) if mode == "sync" else asyncio.run(graph.ainvoke(TASK, config))
    assert result["messages"][-1].content == "done"
    assert done == ["x"] * 4


def test_the_hosts_own_exceptions_pass_through() -> None:
    """What a model or a tool raises reaches the user as the same object."""
    error = ValueError("the model is down")
    with pytest.raises(ValueError, match="the model is down") as caught:
        guarded(builder(Script(error), [acting([])]).compile(), Guard(strict=True)).invoke(TASK)
    assert caught.value is error


def test_a_policy_that_asks_for_too_much_is_refused_at_attach_time() -> None:
    """The error names the seat, the decision and what there is instead."""
    policy = parse_policy("{version: 1, rules: {repeated_call: {ladder: [{reroute: 1}, halt]}}}")
    seats = r"`misstep_langgraph\.guarded without a checkpointer`"
    with pytest.raises(AttachError, match=rf"`reroute`.*{seats}.*it can: `ask`, `fallback`, `halt`, `refuse`"):
        guarded(builder(loop(), [acting([])]).compile(), Guard(policy))


def test_a_degrading_policy_takes_the_next_rung_and_says_so() -> None:
    """With `unsupported: degrade` the next rung stands in, and the report repeats the gap."""
    text = "{version: 1, unsupported: degrade, rules: {repeated_call: {ladder: [{reroute: 1}, {refuse: 9}]}}}"
    guard, done = Guard(parse_policy(text), strict=True), list[str]()
    guarded(builder(loop(), [acting(done)]).compile(), guard).invoke(TASK)
    assert done == ["x", "x"]
    (gap,) = guard.report().unsupported
    assert "`reroute`" in gap


def test_other_middleware_keeps_working_beside_ours() -> None:
    """A user's own middleware sees the calls it saw before."""
    seen: list[str] = []

    class Counting(AgentMiddleware):
        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            seen.append("model")
            return handler(request)

        def wrap_tool_call(self, request: Any, handler: Any) -> Any:
            seen.append("tool")
            return handler(request)

    guard = Guard(strict=True)
    agent = create_agent(ScriptedChatModel(loop(1)), [acting([])], middleware=[MisstepMiddleware(guard), Counting()])
    agent.invoke(TASK)
    assert seen == ["model", "tool", "model"]


def test_no_run_is_left_open() -> None:
    """After their runs neither the guard nor the gate holds anything of them."""
    guard = Guard(strict=True)
    graph = guarded(builder(loop(2), [acting([])]).compile(), guard)
    for _ in range(50):
        graph.invoke(TASK)
    assert len(guard.report().runs) == 50
    guard.close()
    assert guard.report().runs == ()
