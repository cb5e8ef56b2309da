"""What every decision does on LangGraph beyond the shared scenarios: questions, other agents, going back."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import pytest

pytest.importorskip("langgraph")

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import InjectedToolCallId, StructuredTool, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import InjectedState
from langgraph.types import Command, Send, interrupt
from pydantic import BaseModel, ConfigDict

from misstep import AnomalyType, Answer, AttachError, Guard, Policy, Rule, Rung
from misstep.decisions import Kind
from misstep.events import CheckpointRestored, Event, ModelResponded, ToolRequested, ToolReturned
from misstep.testing import Ask, AskAll, Say, Script
from misstep_langgraph import MisstepMiddleware, guarded
from misstep_langgraph.handoff import destination, handed_to
from misstep_langgraph.messages import reworded, with_result
from misstep_langgraph.model import GateModelSeat, MiddlewareModelSeat
from misstep_langgraph.testing import ScriptedChatModel
from misstep_langgraph.tool import LangChainToolSeat
from tests.adapters.test_langgraph import builder as by_hand
from tests.conformance.decisions import BAD, bad_call, bad_reply, finds, guarding

TASK: Any = {"messages": [HumanMessage("go")]}

Runs = Callable[..., Any]


def sync(graph: Any, value: Any, config: Any) -> Any:
    """Run it in sync code."""
    return graph.invoke(value, config)


def in_loop(graph: Any, value: Any, config: Any) -> Any:
    """Run it in async code."""
    return asyncio.run(graph.ainvoke(value, config))


def streamed(graph: Any, value: Any, config: Any) -> Any:
    """Run it as a stream, in several modes at once."""
    modes = ["updates", "messages", "custom", "debug", "values"]
    chunks = list(graph.stream(value, config, stream_mode=modes, subgraphs=True))
    asked = [chunk["__interrupt__"] for _, mode, chunk in chunks if mode == "updates" and "__interrupt__" in chunk]
    values = [chunk for path, mode, chunk in chunks if mode == "values" and path == ()][-1]
    return {**values, "__interrupt__": list(asked[-1])} if asked else values


every_way = pytest.mark.parametrize("run", [sync, in_loop, streamed])


def thread(name: str = "t") -> Any:
    """A conversation."""
    return {"configurable": {"thread_id": name}}


def acting(done: list[str], name: str = "act") -> Any:
    """A tool with an effect."""

    @tool(name)
    def act(q: str) -> str:
        """Act."""
        done.append(q)
        return f"did {q}"

    return act


def agent(script: Script, tools: list[Any], saver: Any = None) -> Any:
    """An agent of LangChain's, which runs each call of a batch as a task of its own."""
    return create_agent(ScriptedChatModel(script), tools, checkpointer=saver)


def both(kind: str, script: Script, tools: list[Any], saver: Any) -> Any:
    """A graph of either kind."""
    return by_hand(script, tools).compile(checkpointer=saver) if kind == "graph" else agent(script, tools, saver)


either = pytest.mark.parametrize("kind", ["graph", "agent"])


def texts(result: Any) -> list[Any]:
    """What the messages of a result say."""
    said = (message.content for message in result["messages"])
    return [words.rstrip() if isinstance(words, str) else words for words in said]


def asking(**fields: Any) -> Guard:
    """A guard that asks about bad calls, and knows nobody to ask."""
    return guarding(finds(ToolRequested, bad_call), {"ask": {}}, **fields)


def taken(guard: Guard) -> list[tuple[Kind, bool | None]]:
    """The decisions since the last report, and whether each took effect."""
    return [(each.kind, each.took_effect) for run in guard.report().runs for each in run.decisions]


# -- a person, by LangGraph's own interrupt


@every_way
@either
@pytest.mark.parametrize(
    ("answer", "done", "told"),
    [
        ("approve", [BAD], f"did {BAD}"),
        (True, [BAD], f"did {BAD}"),
        ({"answer": "edit", "edited": {"q": "good"}}, ["good"], "did good"),
        ({"answer": "reject", "comment": "not now"}, [], "They say: not now"),
        ("nonsense", [], "This call was not executed"),
        ({"answer": "edit", "edited": "no arguments"}, [], "This call was not executed"),
    ],
)
def test_a_question_interrupts_the_graph(kind: str, run: Runs, answer: Any, done: list[str], told: str) -> None:
    """Where the guard knows nobody to ask, the graph is interrupted with the call, and goes on as it is answered."""
    made: list[str] = []
    guard = asking()
    script = Script(Ask("act", {"q": BAD}, id="a"), Say("all done"))
    graph = guarded(both(kind, script, [acting(made)], InMemorySaver()), guard)
    (asked,) = run(graph, TASK, thread())["__interrupt__"]
    assert (asked.value["tool"], asked.value["arguments"]) == ("act", {"q": BAD})
    assert made == []
    assert [(each.status, len(each.decisions)) for each in guard.report().runs] == [("interrupted", 1)]
    result = run(graph, Command(resume=answer), thread())
    assert made == done
    assert told in texts(result)[2]
    assert texts(result)[-1] == "all done"
    assert taken(guard) == [(Kind.ASK, True)]


@either
def test_several_questions_at_once(kind: str) -> None:
    """Parallel calls are asked about together, each is answered by its id, and every call is made once at most."""
    done: list[str] = []
    guard = asking()
    three = AskAll(tuple(Ask("act", {"q": q}, id=q) for q in ("good", BAD, f"{BAD}")))
    three = AskAll((three.calls[0], three.calls[1], Ask("other", {"q": BAD}, id="o")))
    graph = guarded(
        both(kind, Script(three, Say("all done")), [acting(done), acting(done, "other")], InMemorySaver()), guard
    )
    asked = {each.value["tool"]: each.id for each in graph.invoke(TASK, thread())["__interrupt__"]}
    assert sorted(asked) == ["act", "other"]
    assert done == ([] if kind == "graph" else ["good"])
    answers = {asked["act"]: "reject", asked["other"]: {"answer": "edit", "edited": {"q": "edited"}}}
    result = graph.invoke(Command(resume=answers), thread())
    assert sorted(done) == ["edited", "good"]
    assert texts(result)[-1] == "all done"
    assert [message.status for message in result["messages"][2:5]] == ["success", "error", "success"]


@either
def test_questions_answered_one_by_one(kind: str) -> None:
    """What is answered is not asked again, and what is not answered stays open."""
    done: list[str] = []
    two = AskAll((Ask("act", {"q": BAD}, id="a"), Ask("other", {"q": BAD}, id="o")))
    script = Script(two, Say("all done"))
    graph = guarded(both(kind, script, [acting(done), acting(done, "other")], InMemorySaver()), asking())
    first, second = graph.invoke(TASK, thread())["__interrupt__"]
    (left,) = graph.invoke(Command(resume={first.id: "approve"}), thread())["__interrupt__"]
    assert left.id == second.id
    assert texts(graph.invoke(Command(resume="approve"), thread()))[-1] == "all done"
    assert done == [BAD, BAD]


def test_a_question_in_a_sub_graph() -> None:
    """A question comes up through a sub-graph, and its answer goes down to it."""
    done: list[str] = []
    outer = StateGraph(MessagesState)
    outer.add_node("inner", by_hand(Script(Ask("act", {"q": BAD}, id="a"), Say("in")), [acting(done)]).compile())
    outer.add_edge(START, "inner")
    graph = guarded(outer, asking(), checkpointer=InMemorySaver())
    assert len(graph.invoke(TASK, thread())["__interrupt__"]) == 1
    assert texts(graph.invoke(Command(resume="approve"), thread()))[-1] == "in"
    assert done == [BAD]


@either
def test_an_answer_counts_for_the_arguments_that_were_shown(kind: str) -> None:
    """A call whose arguments are changed while a person thinks is asked about again; what nobody saw is never made."""
    done: list[str] = []
    script = Script(Ask("act", {"q": BAD}, id="a"), Say("all done"))
    graph = guarded(both(kind, script, [acting(done)], InMemorySaver()), asking())
    graph.invoke(TASK, thread())
    reply = graph.get_state(thread()).values["messages"][-1]
    calls = [{**reply.tool_calls[0], "args": {"q": "worse"}}]
    changed = reply.model_copy(update={"tool_calls": calls})
    graph.update_state(thread(), {"messages": [changed]}, as_node="llm" if kind == "graph" else "model")
    result = graph.invoke(Command(resume="approve"), thread())
    assert done == []
    (asked,) = result["__interrupt__"]
    assert asked.value["arguments"] == {"q": "worse"}
    graph.invoke(Command(resume="approve"), thread())
    assert done == ["worse"]


@pytest.mark.parametrize("again", [BAD, "worse"])
def test_a_node_that_calls_model_and_tool_by_itself(again: str) -> None:
    """Such a node asks its model anew when it is resumed: the answer counts only if that proposes the same."""
    done: list[str] = []
    act = acting(done)
    guard = guarding(finds(ToolRequested, lambda event: True), {"ask": {}})
    script = Script(Ask("act", {"q": BAD}, id="a"), Ask("act", {"q": again}, id="b"), Ask("act", {"q": again}, id="c"))
    model = ScriptedChatModel(script).bind_tools([act])

    def work(state: MessagesState) -> Any:
        reply = model.invoke(state["messages"])
        return {"messages": [("ai", str(act.invoke(reply.tool_calls[0]["args"])))]}

    builder = StateGraph(MessagesState)
    builder.add_node("work", work)
    builder.add_edge(START, "work")
    graph = guarded(builder, guard, checkpointer=InMemorySaver())
    graph.invoke(TASK, thread())
    result = graph.invoke(Command(resume="approve"), thread())
    assert done == ([BAD] if again == BAD else [])
    if again != BAD:
        assert result["__interrupt__"][0].value["arguments"] == {"q": "worse"}
        graph.invoke(Command(resume="approve"), thread())
        assert done == ["worse"]


@pytest.mark.parametrize(("answer", "done"), [("approve", [BAD]), ("reject", [])])
@either
def test_a_question_outlives_the_process(kind: str, answer: str, done: list[str]) -> None:
    """A guard that has never heard of the call, and finds nothing wrong with it, keeps to what a person answers."""
    made: list[str] = []
    saver = InMemorySaver()
    script = Script(Ask("act", {"q": BAD}, id="a"), Say("all done"))
    guarded(both(kind, script, [acting(made)], saver), asking()).invoke(TASK, thread())
    quiet = guarding(finds(ToolRequested, lambda event: False), {"ask": {}})
    later = guarded(both(kind, Script(Say("all done")), [acting(made)], saver), quiet)
    assert len(later.invoke(None, thread())["__interrupt__"]) == 1, "an open question stays open"
    assert texts(later.invoke(Command(resume=answer), thread()))[-1] == "all done"
    assert made == done


@pytest.mark.parametrize("attach", ["graph", "agent", "middleware"])
def test_a_person_who_is_named_is_asked(attach: str) -> None:
    """With an approver the graph is not interrupted, and an interrupt of the tool's own has nobody asked again."""
    questions: list[Any] = []

    @tool
    def act(q: str) -> str:
        """Act."""
        return f"{q}: {interrupt('sure?')}"

    def person(question: Any) -> Answer:
        questions.append(question)
        return Answer("edit", {"q": "good"})

    script = Script(Ask("act", {"q": BAD}, id="a"), Say("all done"))
    guard = asking(approver=person)
    if attach == "middleware":
        ours = [MisstepMiddleware(guard)]
        graph = create_agent(ScriptedChatModel(script), [act], middleware=ours, checkpointer=InMemorySaver())
    else:
        graph = guarded(both(attach, script, [act], InMemorySaver()), guard)
    (asked,) = graph.invoke(TASK, thread())["__interrupt__"]
    assert asked.value == "sure?"
    assert texts(graph.invoke(Command(resume="quite"), thread()))[-2:] == ["good: quite", "all done"]
    assert len(questions) == 1
    assert [(run.status, run.cost.model_calls) for run in guard.report().runs] == [("interrupted", 1), ("completed", 2)]


@either
def test_a_question_before_the_tools_own_interrupt(kind: str) -> None:
    """Our answer is not the tool's, the tool's are not ours, and nobody is asked twice."""
    heard: list[Any] = []

    @tool
    def act(q: str) -> str:
        """Act."""
        heard.append([q, interrupt("first?"), interrupt("second?")])
        return "did"

    script = Script(Ask("act", {"q": BAD}, id="a"), Say("all done"))
    graph = guarded(both(kind, script, [act], InMemorySaver()), asking())
    steps = [TASK, {"answer": "edit", "edited": {"q": "good"}}, "one", "two"]
    shown = []
    for given in steps:
        result = graph.invoke(given if given is TASK else Command(resume=given), thread())
        shown.append([each.value for each in result.get("__interrupt__", ())])
    assert shown[1:] == [["first?"], ["second?"], []]
    assert heard == [["good", "one", "two"]]


def test_a_person_sees_every_argument_that_is_passed_on() -> None:
    """Also those the tool's schema does not name, but none that LangGraph injects."""
    heard: list[Any] = []

    class Anything(BaseModel):
        model_config = ConfigDict(extra="allow")
        q: str
        state: Annotated[Any, InjectedState]

    def act(q: str, state: Any, **more: Any) -> str:
        heard.append((q, more, len(state["messages"])))
        return "did"

    loose = StructuredTool.from_function(act, name="act", description="Act.", args_schema=Anything)
    script = Script(Ask("act", {"q": BAD, "hidden": "all"}, id="a"), Say("done"))
    graph = guarded(by_hand(script, [loose]), asking(), checkpointer=InMemorySaver())
    (asked,) = graph.invoke(TASK, thread())["__interrupt__"]
    assert asked.value["arguments"] == {"q": BAD, "hidden": "all"}
    graph.invoke(Command(resume="approve"), thread())
    assert heard == [(BAD, {"hidden": "all"}, 2)]


def test_the_applications_own_calls_are_asked_about_by_nobody() -> None:
    """A call no model proposed is made, whatever a rule finds wrong with it."""
    done: list[str] = []
    act = acting(done)
    builder = StateGraph(MessagesState)
    builder.add_node("work", lambda state: {"messages": [("ai", act.invoke({"q": BAD}))]})
    builder.add_edge(START, "work")
    assert "__interrupt__" not in guarded(builder, asking(), checkpointer=InMemorySaver()).invoke(TASK, thread())
    assert done == [BAD]


def test_nobody_is_asked_where_nobody_could_answer() -> None:
    """Without a run seat that a resume goes through, a policy that asks needs an approver."""
    with pytest.raises(AttachError, match="approver"):
        MisstepMiddleware(asking())
    with pytest.raises(AttachError, match="approver"):
        guarded(by_hand(Script(Say("x")), [acting([])]), asking())
    outer = StateGraph(MessagesState)
    inner = by_hand(Script(Ask("act", {"q": BAD}, id="a"), Say("went on")), [acting([])])
    outer.add_node("inner", guarded(inner, asking(), checkpointer=InMemorySaver()))
    outer.add_edge(START, "inner")
    assert texts(outer.compile(checkpointer=InMemorySaver()).invoke(TASK, thread()))[-1] == "went on"


# -- a run that was interrupted knows what it knew


@tool
def look(q: str) -> str:
    """Look up an order."""
    return f"found K7310 for {q}"


@tool
def confirm(q: str) -> str:
    """Ask the user."""
    return str(interrupt(q))


def sending(done: list[str]) -> Any:
    """A tool that must know what it sends."""

    @tool
    def send(order_id: str) -> str:
        """Send an order."""
        done.append(order_id)
        return "sent"

    return send


def two_rules(refusals: int = 1) -> Guard:
    """A guard against made-up arguments and loops."""
    rules = {
        AnomalyType.UNGROUNDED_ARGUMENT: Rule(ladder=(Rung(kind=Kind.REFUSE, limit=9),)),
        AnomalyType.REPEATED_CALL: Rule(ladder=(Rung(kind=Kind.REFUSE, limit=refusals), Rung(kind=Kind.HALT))),
    }
    return Guard(Policy(rules=rules), strict=True)


def test_what_was_said_before_an_interrupt_is_known_after_it() -> None:
    """An identifier a tool told before is grounded in the resumed run, and what nobody told is not."""
    done: list[str] = []
    script = Script(
        Ask("look", {"q": "mia"}, id="l"),
        Ask("confirm", {"q": "ok?"}, id="c"),
        Ask("send", {"order_id": "K7310"}, id="a"),
        Ask("send", {"order_id": "Z9001"}, id="b"),
        Say("all done"),
    )
    guard = two_rules()
    graph = guarded(by_hand(script, [look, confirm, sending(done)]), guard, checkpointer=InMemorySaver())
    graph.invoke({"messages": [HumanMessage("send mia's order")]}, thread())
    graph.invoke(Command(resume="yes"), thread())
    assert done == ["K7310"]
    assert taken(guard) == [(Kind.REFUSE, True)]


def test_another_process_accuses_nobody_of_what_it_never_heard() -> None:
    """A call that is resumed before its conversation is read is not made up; what nobody ever said still is."""
    done: list[str] = []

    @tool
    def cancel(order_id: str) -> str:
        """Cancel an order."""
        return str(interrupt(order_id))

    saver = InMemorySaver()
    script = Script(
        Ask("cancel", {"order_id": "K7310"}, id="c"),
        Ask("send", {"order_id": "K7310"}, id="s"),
        Ask("send", {"order_id": "Z9001"}, id="z"),
        Say("all done"),
    )
    tools = [cancel, sending(done)]
    task: Any = {"messages": [HumanMessage("do something about K7310")]}
    guarded(by_hand(script, tools), two_rules(), checkpointer=saver).invoke(task, thread())
    guard = two_rules()
    result = guarded(by_hand(script, tools), guard, checkpointer=saver).invoke(Command(resume="yes"), thread())
    assert texts(result)[2] == "yes"
    assert done == ["K7310"]
    assert taken(guard) == [(Kind.REFUSE, True)]


def test_a_ladder_is_not_climbed_anew_after_an_interrupt() -> None:
    """What was used up before the interrupt is used up after it."""
    again = [Ask("act", {"q": "go"}, id=f"c{number}") for number in range(9)]
    script = Script(*again[:4], Ask("confirm", {"q": "ok?"}, id="q"), *again[4:])
    guard = guarding(finds(ToolRequested, lambda event: event.tool == "act"), {"refuse": 4}, "halt")
    graph = guarded(by_hand(script, [confirm, acting([])]), guard, checkpointer=InMemorySaver())
    graph.invoke(TASK, thread())
    graph.invoke(Command(resume="yes"), thread())
    first, second = guard.report().runs
    assert [each.kind for each in first.decisions] == [Kind.REFUSE] * 4
    assert (second.status, second.decisions[-1].kind) == ("halted", Kind.HALT)
    assert second.cost.model_calls == 6


def test_a_node_that_runs_again_and_again_is_no_loop() -> None:
    """Each resume runs the whole node again; its calls repeat, and nobody is accused of it."""
    act = acting(done := [])
    script = Script(*(Ask("act", {"q": "go"}, id=f"c{number}") for number in range(9)))
    model = ScriptedChatModel(script).bind_tools([act])

    def work(state: MessagesState) -> Any:
        said = act.invoke(model.invoke(state["messages"]).tool_calls[0]["args"])
        return {"messages": [("ai", " ".join([said, *(interrupt(each) for each in "abcd")]))]}

    builder = StateGraph(MessagesState)
    builder.add_node("work", work)
    builder.add_edge(START, "work")
    guard = two_rules()
    graph = guarded(builder, guard, checkpointer=InMemorySaver())
    for given in (TASK, *(Command(resume=each) for each in "ABCD")):
        result = graph.invoke(given, thread())
    assert texts(result)[-1] == "did go A B C D"
    assert done == ["go"] * 5
    assert all(run.anomalies == () for run in guard.report().runs)


def test_an_interrupt_that_is_never_answered_is_let_go() -> None:
    """A conversation that goes on otherwise forgets it, and of those that never go on only so many are kept."""
    guard = asking()
    script = Script(Ask("act", {"q": BAD}, id="a"))
    graph = guarded(by_hand(script, [acting([])]), guard, checkpointer=InMemorySaver())
    graph.invoke(TASK, thread())
    assert len(guard._sessions._paused) == 1
    graph.invoke(TASK, thread())
    assert len(guard._sessions._paused) == 1
    for number in range(120):
        graph.invoke(TASK, thread(f"t{number}"))
    assert len(guard._sessions._paused) == 100
    assert guard._sessions.ids() == []


# -- going back


class Kept:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def write(self, event: Event) -> None:
        """Keep it."""
        self.events.append(event)

    def close(self) -> None:
        """Nothing to close."""


BACK = (
    Ask("act", {"q": "one"}, id="a"),
    Ask("act", {"q": "two"}, id="b"),
    Ask("act", {"q": BAD}, id="c"),
    Say("learned"),
)


@every_way
@either
def test_a_run_goes_back_to_the_step_that_went_wrong(kind: str, run: Runs) -> None:
    """State and thread are as before the misstep, with the lesson; what came before it stays, what after is gone."""
    done: list[str] = []
    sink = Kept()
    guard = guarding(finds(ToolRequested, bad_call, rests_on="b"), {"roll_back": 1}, sink=sink)
    script = Script(*BACK)
    graph = guarded(both(kind, script, [acting(done)], InMemorySaver()), guard)
    result = run(graph, TASK, thread())
    lesson = "[misstep: repeated_call] What came after this was taken back"
    assert [str(text).partition(", since")[0] for text in texts(result)] == ["go", "", "did one", lesson, "learned"]
    assert result["messages"][3].name == "misstep"
    assert texts(graph.get_state(thread()).values) == texts(result)
    assert graph.get_state(thread()).next == ()
    assert done == ["one", "two"]
    assert len(script.seen[3]) == 4
    assert taken(guard) == [(Kind.ROLL_BACK, True)]
    assert [event.checkpoint for event in sink.events if isinstance(event, CheckpointRestored)] != []


def test_going_back_in_an_event_stream() -> None:
    """`astream_events` goes on over a roll-back to the end."""
    guard = guarding(finds(ToolRequested, bad_call, rests_on="b"), {"roll_back": 1})
    graph = guarded(by_hand(Script(*BACK), [acting([])]), guard, checkpointer=InMemorySaver())

    async def last() -> Any:
        events = [event async for event in graph.astream_events(TASK, thread(), version="v2")]
        return [event["data"]["output"] for event in events if event["event"] == "on_chat_model_end"][-1]

    assert asyncio.run(last()).text.rstrip() == "learned"


@pytest.mark.parametrize("rests_on", ["a", "b"])
def test_going_back_from_inside_a_sub_graph(rests_on: str) -> None:
    """The signal comes up through nested guarded graphs; the step taken back is one of the outermost."""
    done: list[str] = []
    guard = guarding(finds(ToolRequested, bad_call, rests_on=rests_on), {"roll_back": 1})
    script = Script(*BACK)
    outer = StateGraph(MessagesState)
    outer.add_node("before", lambda state: {"messages": [("ai", "before")]})
    inner = by_hand(script, [acting(done)])
    outer.add_node("inner", guarded(inner, guard, checkpointer=InMemorySaver()))
    outer.add_edge(START, "before")
    outer.add_edge("before", "inner")
    result = guarded(outer, guard, checkpointer=InMemorySaver()).invoke(TASK, thread())
    assert [texts(result)[place] for place in (0, 1, -1)] == ["go", "before", "learned"]
    assert done == ["one", "two"]
    assert taken(guard) == [(Kind.ROLL_BACK, True)]


def test_going_back_after_a_result() -> None:
    """What a tool told is taken back together with the reply that asked for it."""
    guard = guarding(finds(ToolReturned, lambda event: "two" in event.output), {"roll_back": 1})
    script = Script(*BACK[:2], Say("learned"))
    result = guarded(by_hand(script, [acting([])]), guard, checkpointer=InMemorySaver()).invoke(TASK, thread())
    assert texts(result)[2] == "did one"
    assert "did two" not in texts(result)
    assert texts(result)[-1] == "learned"


def test_going_back_twice_and_no_more() -> None:
    """A rung's limit holds over roll-backs, and a call that is asked for again after one is no loop."""
    guard = guarding(finds(ToolRequested, bad_call, rests_on="a"), {"roll_back": 2}, {"refuse": 1})
    once = (Ask("act", {"q": "one"}, id="a"), Ask("act", {"q": BAD}, id="b"))
    script = Script(*once, *once, *once, Say("gave up"))
    done: list[str] = []
    result = guarded(by_hand(script, [acting(done)]), guard, checkpointer=InMemorySaver()).invoke(TASK, thread())
    assert texts(result)[-1] == "gave up"
    assert done == ["one"] * 3
    assert taken(guard) == [(Kind.ROLL_BACK, True)] * 2 + [(Kind.REFUSE, True)]


class Log(TypedDict):
    """A state without messages."""

    log: Annotated[list[str], operator.add]


def test_a_lesson_where_the_state_has_no_messages() -> None:
    """The lesson is then a notice to the next model call, and the state holds nothing of it."""
    script = Script(Say("fine"), Say(f"{BAD} words"), Say("learned"))
    model = ScriptedChatModel(script)
    builder = StateGraph(Log)
    for name in ("first", "second"):
        builder.add_node(name, lambda state: {"log": [model.invoke([("user", "go")]).content]})
    builder.add_edge(START, "first")
    builder.add_edge("first", "second")
    guard = guarding(finds(ModelResponded, bad_reply), {"roll_back": 1})
    result = guarded(builder, guard, checkpointer=InMemorySaver()).invoke({"log": []}, thread())
    assert result["log"] == ["fine", "learned"]
    assert any("was taken back" in text for text in script.seen[2])
    assert taken(guard) == [(Kind.ROLL_BACK, True)]


@every_way
def test_where_no_checkpoint_is_kept_nothing_is_taken_back(run: Runs) -> None:
    """The receipt says so, and the run goes on from its newest state: the model is asked again, with the lesson."""
    guard = guarding(finds(ToolRequested, bad_call, rests_on="a"), {"roll_back": 1})
    script = Script(Ask("act", {"q": "one"}, id="a"), Ask("act", {"q": BAD}, id="b"), Say("learned"))
    graph = guarded(by_hand(script, [acting([])]), guard, checkpointer=InMemorySaver())
    wiped = graph.checkpointer

    class Forgetful(type(wiped)):  # type: ignore[misc]
        """A saver that keeps the newest checkpoint of a thread only."""

        def put(self, config: Any, checkpoint: Any, *args: Any) -> Any:
            for kept in self.storage.values():
                for checkpoints in kept.values():
                    checkpoints.clear()
            return super().put(config, checkpoint, *args)

    graph.checkpointer.__class__ = Forgetful
    result = run(graph, TASK, thread())
    assert texts(result)[-2:] == ["did one", "learned"]
    assert any("was taken back" in text for text in script.seen[2])
    (decision,) = guard.report().runs[0].decisions
    assert (decision.took_effect, "no checkpoint before it" in decision.detail) == (False, True)


@pytest.mark.parametrize("way", [sync, in_loop])
def test_going_back_where_checkpoints_are_only_kept_at_the_end(way: Runs) -> None:
    """With `durability="exit"` there is nothing to go back to, and the run still comes to its end."""
    guard = guarding(finds(ToolRequested, bad_call, rests_on="b"), {"roll_back": 1})
    graph = guarded(by_hand(Script(*BACK), [acting([])]), guard, checkpointer=InMemorySaver())
    if way is sync:
        result = graph.invoke(TASK, thread(), durability="exit")
    else:
        result = asyncio.run(graph.ainvoke(TASK, thread(), durability="exit"))
    assert texts(result)[-2:] == ["did two", "learned"]
    assert taken(guard) == [(Kind.ROLL_BACK, False)]


def test_the_middleware_inside_a_guarded_graph_goes_back_too() -> None:
    """What the middleware's seat decides is carried out by the run seat of the same guard."""
    policy = Policy(rules={AnomalyType.REPEATED_CALL: Rule(ladder=(Rung(kind=Kind.ROLL_BACK, limit=1),))})
    degrading = policy.model_copy(update={"unsupported": "degrade"})
    guard = Guard(degrading, detectors=[finds(ToolRequested, bad_call, rests_on="b")], strict=True)
    ours = [MisstepMiddleware(guard)]
    graph = create_agent(ScriptedChatModel(Script(*BACK)), [acting([])], middleware=ours, checkpointer=InMemorySaver())
    assert texts(guarded(graph, guard).invoke(TASK, thread()))[-1] == "learned"
    assert taken(guard) == [(Kind.ROLL_BACK, True)]


# -- to another agent


def team(guard: Guard, first: Any, *others: tuple[str, Script], beside: bool = False) -> Any:
    """A guarded graph of agents; with `beside`, one is at work at the same time as the first."""
    builder = StateGraph(MessagesState)
    builder.add_node("first", first)
    builder.add_edge(START, "first")
    for name, script in others:
        builder.add_node(name, by_hand(script, [acting([])]).compile())
    if beside:
        builder.add_node("beside", lambda state: {"messages": [("ai", "beside")]})
        builder.add_node("after", lambda state: {"messages": [("ai", "after")]})
        builder.add_edge(START, "beside")
        builder.add_edge("beside", "after")
    return guarded(builder, guard, checkpointer=InMemorySaver())


@every_way
@either
def test_the_turn_goes_to_another_agent(kind: str, run: Runs) -> None:
    """Only that agent's node runs next: what was at work beside, and what would have followed, does not."""
    done: list[str] = []
    guard = guarding(finds(ToolRequested, bad_call), {"reroute": {"to": "bob", "limit": 1}})
    script = Script(Ask("act", {"q": BAD}, id="a"), Say("never"))
    first = both(kind, script, [acting(done)], None)
    graph = team(guard, first, ("bob", Script(Say("bob took over"))), beside=True)
    result = run(graph, TASK, thread())
    assert texts(result) == ["go", "beside", "bob took over"]
    assert done == []
    assert graph.get_state(thread()).next == ()
    assert taken(guard) == [(Kind.REROUTE, True)]


@either
def test_calls_left_open_are_answered(kind: str) -> None:
    """Where reply and calls are in the outer state, every call has an answer before the other agent reads them."""
    done: list[str] = []
    guard = guarding(finds(ToolRequested, bad_call), {"reroute": {"to": "bob", "limit": 1}})
    two = AskAll((Ask("act", {"q": "good"}, id="g"), Ask("act", {"q": BAD}, id="b")))
    bob = ScriptedChatModel(Script(Say("bob took over")))
    if kind == "graph":
        builder = by_hand(Script(two, Say("never")), [acting(done)])
    else:
        builder = agent(Script(two, Say("never")), [acting(done)]).builder
    builder.add_node("bob", lambda state: {"messages": [bob.invoke(state["messages"])]})
    graph = guarded(builder.compile(checkpointer=InMemorySaver()), guard)
    result = graph.invoke(TASK, thread())
    assert texts(result)[-1] == "bob took over"
    answers = [message for message in result["messages"] if isinstance(message, ToolMessage)]
    assert sorted(answer.tool_call_id for answer in answers) == ["b", "g"]
    assert "The turn went to another agent" in str(answers[-1].content)
    assert graph.get_state(thread()).next == ()


@every_way
def test_of_several_reroutes_at_once_one_is_carried_out(run: Runs) -> None:
    """Two bad calls of one reply cost the turn once, and neither is made."""
    done: list[str] = []
    guard = guarding(finds(ToolRequested, bad_call), {"reroute": {"to": "bob", "limit": 1}})
    two = AskAll((Ask("act", {"q": BAD}, id="a"), Ask("act", {"q": BAD}, id="b")))
    graph = team(guard, agent(Script(two, Say("never")), [acting(done)]), ("bob", Script(Say("bob took over"))))
    assert texts(run(graph, TASK, thread())) == ["go", "bob took over"]
    assert done == []
    assert sorted(effect for _, effect in taken(guard)) == [False, True]


def test_a_bad_reply_costs_the_turn_too() -> None:
    """A reply is judged before it is in the state: the other agent never sees it."""
    guard = guarding(finds(ModelResponded, bad_reply), {"reroute": 1})
    bob = Script(Say("bob took over"))
    graph = team(guard, by_hand(Script(Say(f"{BAD} words")), [acting([])]).compile(), ("bob", bob))
    assert texts(graph.invoke(TASK, thread())) == ["go", "bob took over"]
    assert bob.seen == [["go"]]


def test_an_agent_that_is_not_there_is_refused_at_attach_time() -> None:
    """A reroute names a node of the graph; a node that executes calls is none."""
    for name in ("bob", "tools"):
        guard = guarding(finds(ToolRequested, bad_call), {"reroute": {"to": name, "limit": 1}})
        with pytest.raises(AttachError, match="no such agent"):
            guarded(by_hand(Script(Say("x")), [acting([])]), guard, checkpointer=InMemorySaver())


@pytest.mark.parametrize("rung", [{"reroute": {"to": "llm", "limit": 1}}, {"roll_back": 1}])
def test_without_a_checkpointer_no_run_goes_elsewhere(rung: Any) -> None:
    """A policy that asks for it is refused at attach time, and passed over inside a graph that is not guarded."""
    guard = guarding(finds(ToolRequested, bad_call), rung)
    builder = by_hand(Script(Say("x")), [acting([])])
    with pytest.raises(AttachError, match=next(iter(rung))):
        guarded(builder, guard)
    outer = StateGraph(MessagesState)
    inner = by_hand(Script(Ask("act", {"q": BAD}, id="a"), Say("went on")), [acting(done := [])])
    outer.add_node("inner", guarded(inner, guard, checkpointer=InMemorySaver()))
    outer.add_edge(START, "inner")
    assert texts(outer.compile().invoke(TASK))[-1] == "went on"
    assert done == [BAD]


# -- hand-offs


def transfer(to: str, **update: Any) -> Any:
    """A hand-off tool as langgraph-swarm makes them."""

    @tool(f"transfer_to_{to}")
    def call(state: Annotated[Any, InjectedState], id_: Annotated[str, InjectedToolCallId]) -> Any:
        """Hand over."""
        told = ToolMessage(f"Successfully transferred to {to}", tool_call_id=id_)
        messages = [*state["messages"], told]
        return Command(goto=to, graph=Command.PARENT, update={"messages": messages, **update})

    return call


@every_way
def test_a_hand_off_goes_to_whom_the_policy_names(run: Runs) -> None:
    """A hand-off tool known by its name alone is redirected, and what it wrote fits where it went."""
    guard = guarding(finds(ToolRequested, lambda event: "carol" in event.tool), {"reroute": {"to": "bob", "limit": 1}})
    bob, carol = Script(Say("bob took over")), Script(Say("carol took over"))
    first = agent(Script(Ask("transfer_to_carol", {}, id="h"), Say("never")), [transfer("carol")])
    result = run(team(guard, first, ("bob", bob), ("carol", carol)), TASK, thread())
    assert texts(result)[-2:] == ["Transferred to bob.", "bob took over"]
    assert (bob.calls, carol.calls) == (1, 0)
    assert taken(guard) == [(Kind.REROUTE, True)]


def test_what_a_hand_off_is() -> None:
    """A tool hands over if its metadata says so, or if its name does and there is such an agent."""
    said = {"__handoff_destination": "carol"}
    assert destination("anything", said, None) == "carol"
    assert destination("anything", said, ["bob"]) is None
    assert destination("transfer_to_carol", None, ["carol"]) == "carol"
    assert destination("handoff_to_the_researcher", None, ["The Researcher"]) == "The Researcher"
    assert destination("transfer_to_savings", None, ["carol"]) is None
    assert destination("transfer_to_carol", None, None) is None


@pytest.mark.parametrize("goto", ["carol", ["carol"], Send("carol", {"active_agent": "carol", "n": 1}), "sends"])
def test_a_redirected_command(goto: Any) -> None:
    """Whatever way a command goes, it goes to the new agent, and whoever was named in its update is renamed."""
    answer = ToolMessage("Successfully transferred to carol", tool_call_id="h")
    goes = [Send("carol", {"active_agent": "carol", "n": 1})] if goto == "sends" else goto
    command = Command(goto=goes, update={"messages": [AIMessage("carol"), answer], "active_agent": "carol", "n": 1})
    changed = handed_to(command, "bob", "h")
    first = changed.goto[0] if isinstance(changed.goto, list) else changed.goto
    assert (first.node if isinstance(first, Send) else first) == "bob"
    if isinstance(first, Send):
        assert first.arg == {"active_agent": "bob", "n": 1}
    assert [message.content for message in changed.update["messages"]] == ["carol", "Transferred to bob."]
    assert (changed.update["active_agent"], changed.update["n"]) == ("bob", 1)
    assert handed_to("no command", "bob", "h") == "no command"


# -- other words


def test_rewritten_arguments_leave_what_is_injected() -> None:
    """State that LangGraph injects reaches the tool although the model's arguments are replaced as a whole."""
    heard: list[Any] = []

    @tool
    def act(q: str, state: Annotated[Any, InjectedState], id_: Annotated[str, InjectedToolCallId]) -> str:
        """Act."""
        heard.append((q, len(state["messages"]), id_))
        return "did"

    for kind in ("graph", "agent", "middleware"):
        guard = guarding(finds(ToolRequested, bad_call, rewrite={"q": "good"}), "rewrite")
        script = Script(Ask("act", {"q": BAD}, id="a"), Say("done"))
        if kind == "middleware":
            graph = create_agent(ScriptedChatModel(script), [act], middleware=[MisstepMiddleware(guard)])
        else:
            graph = guarded(both(kind, script, [act], None), guard)
        assert texts(graph.invoke(TASK))[-2:] == ["did", "done"]
    assert heard == [("good", 2, "a")] * 3


@either
def test_of_parallel_calls_one_is_rewritten(kind: str) -> None:
    """The others are made as they were asked for."""
    done: list[str] = []
    guard = guarding(finds(ToolRequested, bad_call, rewrite={"q": "better"}), "rewrite")
    two = AskAll((Ask("act", {"q": "good"}, id="a"), Ask("act", {"q": BAD}, id="b")))
    result = guarded(both(kind, Script(two, Say("done")), [acting(done)], None), guard).invoke(TASK)
    assert sorted(done) == ["better", "good"]
    assert texts(result)[2:4] == ["did good", "did better"]


def test_a_result_in_other_words() -> None:
    """Text is replaced in a message, a command and a list of them; an artifact, which would tell it all, is dropped."""
    message = ToolMessage("secret", tool_call_id="a", artifact={"all": "secret"}, name="act")
    changed = with_result(message, "masked")
    assert (changed.content, changed.artifact, changed.tool_call_id, changed.name) == ("masked", None, "a", "act")
    command = Command(update={"messages": [message, HumanMessage("hi")], "n": 1}, goto="x")
    changed = with_result(command, "masked")
    assert [each.content for each in changed.update["messages"]] == ["masked", "hi"]
    assert (changed.update["n"], changed.goto) == (1, "x")
    assert [each.content for each in with_result([message], "masked")] == ["masked"]
    assert with_result({"a": "dict"}, "masked") == "masked"
    assert message.content == "secret"


def test_a_reply_in_other_words() -> None:
    """Only the text of a message of several parts is replaced; id, calls and usage stay."""
    usage: Any = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    calls: Any = [{"name": "act", "args": {}, "id": "a", "type": "tool_call"}]
    parts: Any = [{"type": "text", "text": "bad"}, {"type": "image", "url": "u"}, "words"]
    for content in (parts, "bad words"):
        message = AIMessage(content, id="m", tool_calls=calls, usage_metadata=usage)
        changed = reworded(message, "kind")
        assert (changed.id, changed.tool_calls, changed.usage_metadata) == ("m", message.tool_calls, usage)
        assert changed.text == "kind"
    assert reworded(AIMessage(parts), "kind").content[1] == {"type": "image", "url": "u"}


# -- other models


class Verdict(BaseModel):
    """A structured answer."""

    q: str


@pytest.mark.parametrize("attach", ["guarded", "middleware"])
def test_a_fallback_is_given_the_tools(attach: str) -> None:
    """The other model may call the tools the first one had."""
    done: list[str] = []
    small = Script(Ask("act", {"q": "good"}, id="s"))
    guard = guarding(finds(ModelResponded, bad_reply), {"fallback": 1}, models={"small": ScriptedChatModel(small)})
    script = Script(Say(f"{BAD} words"), Say("all done"))
    if attach == "middleware":
        graph = create_agent(ScriptedChatModel(script), [acting(done)], middleware=[MisstepMiddleware(guard)])
    else:
        graph = guarded(by_hand(script, [acting(done)]).compile(), guard)
    assert texts(graph.invoke(TASK))[-1] == "all done"
    assert (done, small.calls) == (["good"], 1)


@every_way
def test_a_fallback_with_structured_output(run: Runs) -> None:
    """Behind `with_structured_output` the other model's answer is parsed like the first one's."""
    small = ScriptedChatModel(Script(Ask("Verdict", {"q": "good"}, id="s")))
    guard = guarding(finds(ModelResponded, bad_reply), {"fallback": 1}, models={"small": small})
    model = ScriptedChatModel(Script(Say(f"{BAD} words"))).with_structured_output(Verdict)
    builder = StateGraph(Log)
    builder.add_node("work", lambda state: {"log": [model.invoke("go").q]})
    builder.add_edge(START, "work")
    assert run(guarded(builder.compile(), guard), {"log": []}, {})["log"] == ["good"]


# -- our own failures


class Bug(RuntimeError):
    """What a test puts into our own code."""


def broken(*args: Any, **kwargs: Any) -> Any:
    """Crash."""
    raise Bug


CRASHES: dict[str, Any] = {
    "model.rewrite": (finds(ModelResponded, bad_reply, rewrite="kind"), "rewrite"),
    "model.leave": (finds(ModelResponded, bad_reply), {"roll_back": 1}),
    "model.failure": (finds(ModelResponded, bad_reply), {"retry": 1}),
    "tool.rewrite": (finds(ToolReturned, lambda event: True, rewrite="masked"), "rewrite"),
    "tool.request": (finds(ToolRequested, bad_call, rewrite={"q": "good"}), "rewrite"),
    "tool.leave": (finds(ToolRequested, bad_call), {"reroute": {"to": "bob", "limit": 1}}),
    "tool.redirect": (finds(ToolRequested, bad_call), {"reroute": {"to": "bob", "limit": 1}}),
    "tool.may_pause": (finds(ToolRequested, bad_call), {"ask": {}}),
    "tool._pause": (finds(ToolRequested, bad_call), {"ask": {}}),
    "run.rerouted": (finds(ToolRequested, bad_call), {"reroute": {"to": "bob", "limit": 1}}),
    "run.rolled_back": (finds(ToolRequested, bad_call), {"roll_back": 1}),
    "run.split": (finds(ToolRequested, bad_call), {"ask": {}}),
}


@every_way
@pytest.mark.parametrize("where", CRASHES)
def test_a_crash_in_a_seat_is_as_if_we_were_not_there(where: str, run: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever part of a seat crashes, the run comes to the end it would have come to."""
    rule, rung = CRASHES[where]
    guard = guarding(rule, rung)
    guard.strict = False
    part, _, name = where.partition(".")
    target: Any = {"model": GateModelSeat, "tool": LangChainToolSeat, "run": "misstep_langgraph.run"}[part]
    if part == "run":
        monkeypatch.setattr(f"{target}.{name}", broken)
    else:
        monkeypatch.setattr(target, name, broken)
    done: list[str] = []
    script = Script(Ask("act", {"q": BAD}, id="a"), Say(f"{BAD} words"))
    builder = by_hand(script, [acting(done)])
    builder.add_node("bob", lambda state: {"messages": [("ai", "bob")]})
    graph = guarded(builder, guard, checkpointer=InMemorySaver())
    result = run(graph, TASK, thread())
    if where == "run.split":  # an open question stays open, whatever is answered
        result = run(graph, Command(resume="approve"), thread())
        assert (len(result["__interrupt__"]), done) == (1, [])
        return
    assert texts(result)[-1] == f"{BAD} words"
    assert done == ([] if where == "run.rolled_back" else [BAD])  # its reply was thrown away before


@pytest.mark.parametrize("name", ["rewrite", "reply"])
def test_a_crash_in_the_middlewares_model_seat(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reply is passed on as it came."""
    guard = guarding(finds(ModelResponded, bad_reply, rewrite="kind"), "rewrite")
    guard.strict = False
    monkeypatch.setattr(MiddlewareModelSeat, name, broken)
    graph = create_agent(ScriptedChatModel(Script(Say(f"{BAD} words"))), [], middleware=[MisstepMiddleware(guard)])
    assert texts(graph.invoke(TASK))[-1] == f"{BAD} words"


@pytest.mark.parametrize("name", ["may_pause", "redirect", "leave"])
def test_a_fail_closed_policy_refuses_what_a_crashed_seat_could_not_check(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under a fail-closed rule the call is not made, and the run goes on."""
    rule = Rule(ladder=(Rung.model_validate({"reroute": {"to": "bob", "limit": 1}}),), on_guard_failure="closed")
    guard = Guard(
        Policy(rules={AnomalyType.REPEATED_CALL: rule}), detectors=[finds(ToolRequested, bad_call)], strict=False
    )
    monkeypatch.setattr(LangChainToolSeat, name, broken)
    done: list[str] = []
    builder = by_hand(Script(Ask("act", {"q": BAD}, id="a"), Say("went on")), [acting(done)])
    builder.add_node("bob", lambda state: {"messages": [("ai", "bob")]})
    result = guarded(builder, guard, checkpointer=InMemorySaver()).invoke(TASK, thread())
    assert (done, texts(result)[-1]) == ([], "went on")
