"""The CrewAI adapter's decisions beyond the conformance suite: both ways of calling tools, crews of every shape."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("crewai")

from crewai import Crew, CrewOutput, Process, Task
from crewai.events import AgentExecutionErrorEvent, LLMCallCompletedEvent, TaskCompletedEvent, crewai_event_bus
from crewai.hooks import HookAborted, InterceptionPoint, ToolCallHookContext
from crewai.hooks.dispatch import scoped_hooks
from crewai.tasks.conditional_task import ConditionalTask
from crewai.tools import tool
from crewai.utilities.agent_utils import format_answer
from pydantic import BaseModel

from misstep import Answer, AttachError, Guard, Policy, Question, Rule, Rung
from misstep.decisions import Kind
from misstep.events import ModelFailed, ModelResponded, ToolFailed, ToolRequested, ToolReturned
from misstep.testing import Ask, AskAll, Say, Script
from misstep_crewai import guarded
from misstep_crewai.messages import reworded
from misstep_crewai.testing import ScriptedLLM
from tests.adapters.test_crewai import (
    WAYS,
    acting,
    agent,
    both,
    crew,
    crew_of,
    delegate,
    helper,
    native_async,
    nothing_is_left,
    pair,
    sync,
    ways,
)
from tests.conformance.decisions import BAD, LOOP, bad_call, finds, guarding

__all__ = ["nothing_is_left"]

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::pydantic.warnings.PydanticDeprecatedSince20"
)

Kickoff = Callable[[Crew], CrewOutput]


def decided(guard: Guard) -> list[tuple[Kind, bool | None]]:
    """What was decided in the one run, and whether it took effect."""
    (run,) = guard.report().runs
    return [(each.kind, each.took_effect) for each in run.decisions]


def bad_words(event: ModelResponded) -> bool:
    """Whether a model says something bad, in whatever form CrewAI wants it."""
    return "bad words" in event.content


def heard(script: Script, call: int) -> str:
    """All a model was shown at one of its calls."""
    return "\n".join(script.seen[call])


def bad(id: str = "b") -> Ask:  # noqa: A002 - as in `Ask`
    """A call that is found fault with."""
    return Ask("act", {"q": BAD}, id=id)


def telling(done: list[str], **fields: Any) -> Any:
    """A tool that tells a secret."""

    @tool("act", **fields)
    def act(q: str) -> str:
        """Act."""
        done.append(q)
        return "found K7310"

    return act


def found(event: ToolReturned) -> bool:
    """Whether the tool told its secret."""
    return "K7310" in event.output


# -- rewrite


@both
def test_a_call_is_made_with_other_arguments(native: bool) -> None:
    """CrewAI's own dict is edited in place, so that both ways of calling tools take the new arguments."""
    done: list[str] = []
    guard = guarding(finds(ToolRequested, bad_call, rewrite={"q": "good"}), "rewrite")
    mine = guarded(crew(Script(bad(), Say("all done")), acting(done), native=native), guard)
    assert mine.kickoff().raw == "all done"
    assert done == ["good"]
    assert decided(guard) == [(Kind.REWRITE, True)]


def test_of_parallel_calls_only_the_bad_one_gets_other_arguments() -> None:
    """The calls of one batch run in threads; each keeps what is its own."""
    done: list[str] = []
    guard = guarding(finds(ToolRequested, bad_call, rewrite={"q": "good"}), "rewrite")
    calls = AskAll((Ask("act", {"q": "one"}, id="1"), bad("2"), Ask("act", {"q": "three"}, id="3")))
    mine = guarded(crew(Script(calls, Say("all done")), acting(done)), guard)
    assert mine.kickoff().raw == "all done"
    assert sorted(done) == ["good", "one", "three"]


@both
@pytest.mark.parametrize("closed", [False, True])
def test_arguments_that_are_no_json_are_not_given(native: bool, closed: bool) -> None:
    """CrewAI would fail the task over them: the call is made as it was, or refused if fail-closed."""
    done: list[str] = []
    guard = guarding(finds(ToolRequested, bad_call, rewrite={"q": object()}), "rewrite")
    rule = guard.policy.rules[LOOP].model_copy(update={"on_guard_failure": "closed" if closed else "open"})
    guard = Guard(
        guard.policy.model_copy(update={"rules": {LOOP: rule}}),
        detectors=[finds(ToolRequested, bad_call, rewrite={"q": object()})],
    )
    script = Script(bad(), Say("all done"))
    assert guarded(crew(script, acting(done), native=native), guard).kickoff().raw == "all done"
    assert done == ([] if closed else [BAD])
    assert ("[misstep: guard_failure]" in heard(script, 1)) is closed


@both
@pytest.mark.parametrize("answer", [False, True], ids=["", "result_as_answer"])
@pytest.mark.parametrize(
    ("rung", "told"), [("rewrite", "masked"), ({"refuse": 1}, "What the tool answered was withheld")]
)
def test_a_result_is_passed_on_in_other_words_or_not_at_all(native: bool, answer: bool, rung: Any, told: str) -> None:
    """Neither the model nor the task's output has the tool's own words, even where the tool's result is the answer."""
    done: list[str] = []
    guard = guarding(finds(ToolReturned, found, rewrite="masked"), rung)
    script = Script(Ask("act", {"q": "x"}), Say("all done"))
    output = guarded(crew(script, telling(done, result_as_answer=answer), native=native), guard).kickoff()
    assert done == ["x"]
    if answer:
        assert told in output.raw
        assert script.calls == 1
    else:
        assert told in heard(script, 1)
        assert output.raw == "all done"
    assert "K7310" not in output.raw + heard(script, -1)
    assert [effect for _, effect in decided(guard)] == [True]


@both
def test_a_reply_is_passed_on_in_other_words(native: bool) -> None:
    """The task's output has the new words; CrewAI still finds its final answer in them."""
    guard = guarding(finds(ModelResponded, bad_words, rewrite="kinder words"), "rewrite")
    script = Script(Say("bad words"))
    output = guarded(crew(script, acting([]), native=native), guard).kickoff()
    assert output.raw == "kinder words"
    assert script.calls == 1
    assert decided(guard) == [(Kind.REWRITE, True)]


class Form(BaseModel):
    """Structured output."""

    said: str


CALL = 'Thought: I need it\nAction: act\nAction Input: {"q": "x"}'
DONE = "Thought: I know\nFinal Answer: bad words"


@pytest.mark.parametrize(
    ("raw", "content", "in_text", "expected"),
    [
        ("bad words", "kinder words", False, "kinder words"),
        ("bad words", "kinder words", True, "kinder words"),
        ("bad words", "Action: act\nAction Input: {}", True, "Final Answer: Action: act\nAction Input: {}"),
        (DONE, "kinder words", True, "Final Answer: kinder words"),
        (DONE, "Thought: I know\nFinal Answer: ***", True, "Thought: I know\nFinal Answer: ***"),
        (CALL, CALL.replace("need", "want"), True, CALL.replace("need", "want")),
        (CALL, "Thought: kinder", True, 'Thought: kinder\nAction: act\nAction Input: {"q": "x"}'),
        (CALL, "Final Answer: kinder", True, '\nAction: act\nAction Input: {"q": "x"}'),
        (
            CALL,
            "Thought: kinder\nAction: other\nAction Input: {}",
            True,
            'Thought: kinder\nAction: act\nAction Input: {"q": "x"}',
        ),
        (Form(said="bad"), '{"said": "kind"}', False, Form(said="kind")),
        (
            [bad_call_ := {"id": "c", "type": "function", "function": {"name": "act", "arguments": "{}"}}],
            "x",
            False,
            [bad_call_],
        ),
    ],
)
def test_a_reply_in_other_words_does_what_it_did(raw: Any, content: str, in_text: bool, expected: Any) -> None:
    """Calls stay, an action stays the same action, a final answer stays one."""
    told = reworded(raw, content, in_text=in_text)
    assert told == expected
    if in_text:
        before, after = format_answer(raw), format_answer(told)
        assert type(after) is type(before)
        assert getattr(after, "tool_input", None) == getattr(before, "tool_input", None)


def test_structured_output_that_does_not_fit_is_not_passed_on() -> None:
    """Words that are no such output are a failure of the rule's: the reply is passed on as it was."""
    rule = finds(ModelResponded, lambda event: "bad" in event.content, rewrite="no form")
    guard = Guard(guarding(rule, "rewrite").policy, detectors=[rule])
    script = Script(Say("bad"))

    class Structured(ScriptedLLM):
        def call(self, *args: Any, **kwargs: Any) -> Any:
            return Form(said=super().call(*args, **kwargs))

    alice = agent(script, llm=Structured(script))
    task = Task(description="do it", expected_output="o", agent=alice, output_pydantic=Form)
    output = guarded(Crew(agents=[alice], tasks=[task], verbose=False), guard).kickoff()
    assert output.pydantic == Form(said="bad")


# -- asking the model otherwise


class Noting(ScriptedLLM):
    """A model that notes what it is called with beside the messages, and where it is to stop."""

    notes: Any = None

    def call(self, messages: Any, **kwargs: Any) -> Any:
        """Note it."""
        self.notes.append(
            ({name: kwargs.get(name) for name in ("tools", "from_task", "from_agent")}, self.stop_sequences)
        )
        return super().call(messages, **kwargs)


@both
def test_a_fallback_is_asked_the_same(native: bool) -> None:
    """The other model gets the same arguments, stops at the same words, and its tokens are the crew's and the run's."""
    notes: list[Any] = []
    big, small = Script(Say("bad words")), Script(Ask("act", {"q": "x"}), Say("unused"))
    models = {"small": Noting(small, native=native, notes=notes, model="small")}
    guard = guarding(finds(ModelResponded, bad_words), {"fallback": {"to": "small", "limit": 1}}, models=models)
    big = Script(Say("bad words"), Say("all done"))
    done: list[str] = []
    alice = agent(big, acting(done), llm=Noting(big, native=native, notes=notes, model="big"))
    completed: list[str] = []
    with crewai_event_bus.scoped_handlers():
        crewai_event_bus.on(LLMCallCompletedEvent)(lambda source, event: completed.append(event.model))
        output = guarded(crew_of(alice), guard).kickoff()
    assert output.raw == "all done"
    assert (big.calls, small.calls, done) == (2, 1, ["x"])
    assert small.seen[0] == big.seen[0]
    assert notes[0] == notes[1]
    assert notes[1][1] == ["\nObservation:"]
    assert sorted(completed) == ["big", "big", "small"]
    assert output.token_usage.total_tokens == 3 * 15
    (run,) = guard.report().runs
    assert (run.cost.model_calls, run.cost.input_tokens) == (3, 30)
    assert [(each.kind, each.took_effect) for each in run.decisions] == [(Kind.FALLBACK, True)]


def test_tokens_of_a_fallback_that_is_another_agents_model_are_counted_once() -> None:
    """CrewAI counts the models of a crew's agents by itself."""
    small = ScriptedLLM(Script(Say("fine")))
    rung = {"fallback": {"to": "small", "limit": 1}}
    guard = guarding(finds(ModelResponded, bad_words), rung, models={"small": small})
    bob = agent(Script(Say("unused")), role="bob", llm=small)
    output = guarded(crew_of(agent(Script(Say("bad words"))), bob), guard).kickoff()
    assert output.token_usage.total_tokens == 3 * 15


@both
def test_what_is_no_model_of_crewais_is_no_fallback(native: bool) -> None:
    """A guard may hold models of several frameworks: the wrong one is a failure of ours, and the reply is passed on."""
    rule = finds(ModelResponded, bad_words)
    guard = guarding(rule, {"fallback": 1}, models={"small": "gpt"})
    guard.strict = False
    assert guarded(crew(Script(Say("bad words")), native=native), guard).kickoff().raw == "bad words"


@pytest.mark.parametrize("output", ["hold", "pass"])
def test_a_fallback_streams_as_the_agents_own_model_would(output: Any) -> None:
    """A held answer is streamed once it is accepted; else the other model streams, though it was not told to."""
    small = ScriptedLLM(Script(Say("fine by me")))
    rule = finds(ModelResponded, bad_words)
    policy = guarding(rule, {"fallback": 1}, models={"small": small}).policy
    rules = {LOOP: policy.rules[LOOP].model_copy(update={"output": output})}
    guard = Guard(policy.model_copy(update={"rules": rules}), detectors=[rule], models={"small": small}, strict=True)
    mine = guarded(crew(Script(Say("bad words")), stream=True), guard)
    streaming = mine.kickoff()
    told = [chunk.content for chunk in streaming]
    assert told == (["fine by me"] if output == "hold" else ["bad ", "words ", "fine ", "by ", "me "])
    assert streaming.result.raw == "fine by me"


@both
def test_only_the_winners_calls_are_made(native: bool) -> None:
    """What the other ballots proposed is gone: their calls are nobody's proposals."""
    done: list[str] = []
    guard = guarding(finds(ModelResponded, bad_words), {"vote": {"samples": 3, "limit": 1}})
    ballots = [Ask("act", {"q": q}, id=f"v{number}") for number, q in enumerate(("odd", "even", "even"))]
    mine = guarded(crew(Script(Say("bad words"), *ballots, Say("all done")), acting(done), native=native), guard)
    assert mine.kickoff().raw == "all done"
    assert done == ["even"]
    assert decided(guard) == [(Kind.VOTE, True)]


@both
def test_a_model_that_fails_is_asked_again_and_the_task_is_not_begun_again(native: bool) -> None:
    """CrewAI itself would execute the whole task again, and its calls with it."""
    done: list[str] = []
    errors: list[Any] = []
    guard = guarding(finds(ModelFailed, lambda event: True), {"retry": 1})
    script = Script(Ask("act", {"q": "x"}), ConnectionError("once"), Say("all done"))
    with crewai_event_bus.scoped_handlers():
        crewai_event_bus.on(AgentExecutionErrorEvent)(lambda source, event: errors.append(event))
        output = guarded(crew(script, acting(done), native=native), guard).kickoff()
    assert output.raw == "all done"
    assert (done, errors) == (["x"], [])
    assert decided(guard) == [(Kind.RETRY, True)]


def test_a_users_own_stop_is_no_error_of_the_models() -> None:
    """What a user's hook aborts is not tried again, whatever the policy says of models that fail."""
    guard = guarding(finds(ModelFailed, lambda event: True), {"retry": 5})
    script = Script(HookAborted("enough"), Say("went on"))
    with pytest.raises(HookAborted, match="enough"):  # a context of its own: CrewAI leaves its events open
        contextvars.copy_context().run(guarded(crew(script), guard).kickoff)
    assert script.calls == 1
    assert guard.report().runs[0].anomalies == ()


# -- a person


@both
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_person_is_asked_about_a_call(native: bool, kind: str) -> None:
    """The approver may be sync or async; a rejected call is not made and the agent reads why."""
    done: list[str] = []
    answers = iter([Answer("edit", {"q": "good"}), Answer("reject", comment="not that")])

    def person(question: Question) -> Answer:
        return next(answers)

    async def aperson(question: Question) -> Answer:
        await asyncio.sleep(0)
        return next(answers)

    approver = person if kind == "sync" else aperson
    guard = guarding(finds(ToolRequested, bad_call), "ask", approver=approver)
    script = Script(bad("1"), Ask("act", {"q": "other"}, id="2"), bad("3"), Say("went on"))
    assert guarded(crew(script, acting(done), native=native), guard).kickoff().raw == "went on"
    assert done == ["good", "other"]
    assert "They say: not that" in heard(script, 3)
    assert decided(guard) == [(Kind.ASK, True)] * 2


@both
@pytest.mark.parametrize(
    ("answer", "told", "kept"),
    [
        (Answer("approve"), "K7310", True),
        (Answer("edit", "masked"), "masked", False),
        (Answer("reject"), "What the tool answered was withheld", False),
    ],
    ids=lambda value: getattr(value, "verdict", ""),
)
def test_a_person_is_asked_about_a_result(native: bool, answer: Answer, told: str, kept: bool) -> None:
    """The hook after the call waits for the person, who sees the result."""
    questions: list[Question] = []

    def person(question: Question) -> Answer:
        questions.append(question)
        return answer

    guard = guarding(finds(ToolReturned, found), "ask", approver=person)
    script = Script(Ask("act", {"q": "x"}), Say("all done"))
    assert guarded(crew(script, telling([]), native=native), guard).kickoff().raw == "all done"
    assert told in heard(script, 1)
    assert ("K7310" in heard(script, 1)) is kept
    assert "K7310" in (questions[0].content or "")


@both
def test_a_person_is_asked_about_a_reply(native: bool) -> None:
    """A rejected reply is asked for anew; an edited one still is a final answer to CrewAI."""
    answers = iter([Answer("reject", comment="ruder"), Answer("edit", "kinder words")])
    guard = guarding(finds(ModelResponded, bad_words), "ask", approver=lambda question: next(answers))
    script = Script(Say("bad words"))
    assert guarded(crew(script, native=native), guard).kickoff().raw == "kinder words"
    assert "They say: ruder" in heard(script, 1)


def test_only_the_call_that_is_asked_about_waits() -> None:
    """Of parallel calls the others are made while a person thinks."""
    done: list[str] = []
    others = threading.Event()

    @tool("act")
    def act(q: str) -> str:
        """Act."""
        done.append(q)
        if q == "other":
            others.set()
        return "nothing"

    def person(question: Question) -> bool:
        return others.wait(10)

    guard = guarding(finds(ToolRequested, bad_call), "ask", approver=person)
    calls = AskAll((bad("1"), Ask("act", {"q": "other"}, id="2")))
    assert guarded(crew(Script(calls, Say("all done")), act), guard).kickoff().raw == "all done"
    assert done == ["other", BAD]


# -- another co-worker


def trio(outer: Script, bob: Script, carol: Script, *, native: bool = True, **fields: Any) -> Crew:
    """Alice, who may delegate to Bob and Carol; the task is Alice's."""
    alice = agent(outer, native=native, allow_delegation=True)
    others = [agent(bob, role="bob", native=native), agent(carol, role="Carol the Cook", native=native)]
    task = Task(description="do it", expected_output="o", agent=alice)
    return Crew(agents=[alice, *others], tasks=[task], verbose=False, **fields)


def ask_carol(name: str = "delegate_work_to_coworker", id: str = "h") -> Ask:  # noqa: A002 - as in `Ask`
    """A hand-off to Carol; CrewAI takes any case for her name."""
    what = "task" if name.startswith("delegate") else "question"
    return Ask(name, {what: "go on", "context": "none", "coworker": "carol the cook"}, id=id)


def for_carol(event: ToolRequested) -> bool:
    """Whether a call is for Carol."""
    return event.arguments.get("coworker") == "carol the cook"


@both
@pytest.mark.parametrize("name", ["delegate_work_to_coworker", "ask_question_to_coworker"])
def test_a_hand_off_goes_to_another_co_worker(native: bool, name: str) -> None:
    """The co-worker's name is changed in CrewAI's own dict, for both of its delegating tools."""
    bob, carol = Script(Say("by bob")), Script(Say("by carol"))
    script = Script(ask_carol(name), Say("handed off"))
    guard = guarding(finds(ToolRequested, for_carol), {"reroute": {"to": "bob", "limit": 1}})
    assert guarded(trio(script, bob, carol, native=native), guard).kickoff().raw == "handed off"
    assert (bob.calls, carol.calls) == (1, 0)
    assert "by bob" in heard(script, 1)
    assert decided(guard) == [(Kind.REROUTE, True)]


def test_a_managers_hand_off_goes_to_another_co_worker() -> None:
    """In the hierarchical process work is given out by delegation."""
    bob, carol, manager = Script(Say("by bob")), Script(Say("by carol")), Script(ask_carol(), Say("managed"))
    mine = Crew(
        agents=[agent(bob, role="bob"), agent(carol, role="Carol the Cook")],
        tasks=[Task(description="do it", expected_output="o")],
        process=Process.hierarchical,
        manager_llm=ScriptedLLM(manager),
        verbose=False,
    )
    guard = guarding(finds(ToolRequested, for_carol), {"reroute": {"to": "bob", "limit": 1}})
    assert guarded(mine, guard).kickoff().raw == "managed"
    assert (bob.calls, carol.calls) == (1, 0)
    assert decided(guard) == [(Kind.REROUTE, True)]


def test_a_manager_keeps_its_turn() -> None:
    """CrewAI gives every task of a hierarchical crew to its manager: the call is not made, and the receipt says why."""
    manager = Script(bad(), Say("managed"))
    done: list[str] = []
    boss = agent(manager, role="boss", allow_delegation=True)
    bob = agent(Script(Say("by bob")), role="bob")
    task = Task(description="do it", expected_output="o", tools=[acting(done)])
    mine = Crew(agents=[bob], tasks=[task], process=Process.hierarchical, manager_agent=boss, verbose=False)
    guard = guarding(finds(ToolRequested, bad_call), {"reroute": 1})
    assert guarded(mine, guard).kickoff().raw == "managed"
    assert done == []
    assert "[misstep] This was not passed on." in heard(manager, 1)
    (run,) = guard.report().runs
    assert [(each.kind, each.took_effect, each.detail) for each in run.decisions] == [
        (Kind.REROUTE, False, "no turn came after it")
    ]


# -- another agent


@both
@ways
def test_another_agent_takes_the_task_over(kickoff: Kickoff, native: bool) -> None:
    """The other one begins it again: what the first did is in no output, and a callback is called once."""
    done: list[str] = []
    outputs: list[Any] = []
    first, second = Script(bad(), Say("stepped back")), Script(Say("last"))
    bob = agent(Script(Say("by bob")), role="bob", native=native)
    alice, carol = agent(first, acting(done), native=native), agent(second, role="carol", native=native)
    tasks = [Task(description="do it", expected_output="o", agent=each) for each in (alice, carol)]
    mine = Crew(agents=[alice, bob, carol], tasks=tasks, verbose=False, task_callback=outputs.append)
    guard = guarding(finds(ToolRequested, bad_call), {"reroute": {"to": "bob", "limit": 1}})
    output = kickoff(guarded(mine, guard))
    assert output.raw == "last"
    assert (done, first.calls) == ([], 1)
    assert [(each.agent, each.raw) for each in output.tasks_output] == [("bob", "by bob"), ("carol", "last")]
    assert [(each.agent, each.raw) for each in outputs] == [("bob", "by bob"), ("carol", "last")]
    assert "by bob" in heard(second, 0)
    assert mine.tasks[0].agent is alice
    assert decided(guard) == [(Kind.REROUTE, True)]


def test_the_next_kickoff_begins_with_the_tasks_own_agent() -> None:
    """A reroute is for one run; the crew is as it was afterwards."""
    first, second = Script(bad(), Say("by alice")), Script(Say("by bob"))
    alice, bob = agent(first, acting([])), agent(second, role="bob")
    mine = Crew(agents=[alice, bob], tasks=[Task(description="do it", expected_output="o", agent=alice)], verbose=False)
    guarded(mine, guarding(finds(ToolRequested, bad_call), {"reroute": 1}))
    assert mine.kickoff().raw == "by bob"
    assert mine.kickoff().raw == "by alice"


@both
def test_an_agent_loses_its_turn_by_what_it_says(native: bool) -> None:
    """A bad reply is no output of the task; nor is anything the agent does after it."""
    first, second = Script(Say("bad words")), Script(Say("by bob"))
    alice, bob = agent(first, native=native), agent(second, role="bob", native=native)
    task = Task(description="do it", expected_output="o", agent=alice)
    guard = guarding(finds(ModelResponded, bad_words), {"reroute": 1})
    mine = guarded(Crew(agents=[alice, bob], tasks=[task], verbose=False), guard)
    output = mine.kickoff()
    assert [each.raw for each in output.tasks_output] == ["by bob"]
    assert output.token_usage.total_tokens == 2 * 15
    assert decided(guard) == [(Kind.REROUTE, True)]


def test_work_that_was_delegated_goes_with_its_task() -> None:
    """What a co-worker did wrong in a task takes the whole task to the agent the policy names."""
    done: list[str] = []
    outer, inner = Script(delegate(), Say("outer went on")), Script(bad(), Say("inner went on"))
    mine = pair(outer, inner, done)
    mine.agents.append(agent(Script(Say("by carol")), role="carol"))
    guard = guarding(finds(ToolRequested, bad_call), {"reroute": {"to": "carol", "limit": 1}})
    output = guarded(mine, guard).kickoff()
    assert (output.raw, outer.calls, inner.calls, done) == ("by carol", 1, 1, [])
    assert decided(guard) == [(Kind.REROUTE, True)]


def test_agents_are_known_by_the_roles_a_kickoff_gives_them() -> None:
    """A role may hold places for inputs; it is known once they are filled in."""
    alice = agent(Script(bad(), Say("by alice")), acting([]), role="{topic} writer")
    bob = agent(Script(Say("by bob")), role="{topic} editor")
    task = Task(description="do it", expected_output="o", agent=alice)
    guard = guarding(finds(ToolRequested, bad_call), {"reroute": {"to": "art editor", "limit": 1}})
    mine = guarded(Crew(agents=[alice, bob], tasks=[task], verbose=False), guard)
    assert mine.kickoff(inputs={"topic": "art"}).raw == "by bob"


def test_a_crew_of_one_has_nobody_to_give_a_turn_to() -> None:
    """An agent that is not there is refused on attaching; where there is no other, the next rung stands."""
    with pytest.raises(AttachError, match="there is no such agent; there is: `alice`"):
        guarded(
            crew(Script(Say("x"))), guarding(finds(ToolRequested, bad_call), {"reroute": {"to": "bob", "limit": 1}})
        )
    guard = guarding(finds(ToolRequested, bad_call), {"reroute": 1}, {"refuse": 1})
    guarded(crew(Script(bad(), Say("went on")), acting([])), guard).kickoff()
    assert decided(guard) == [(Kind.REFUSE, True)]


def at_once(done: list[str]) -> Crew:
    """A crew whose task runs beside others."""
    alice, bob = agent(Script(bad(), Say("x")), acting(done)), agent(Script(Say("y")), role="bob")
    task = Task(description="do it", expected_output="o", agent=alice, async_execution=True)
    return Crew(agents=[alice, bob], tasks=[task], verbose=False)


def test_tasks_that_run_at_once_are_not_taken_back() -> None:
    """One in flight cannot be called back: the policy is refused, or with `degrade` the next rung stands."""
    done: list[str] = []
    rule = finds(ToolRequested, bad_call)
    guard = guarding(rule, {"roll_back": 1}, {"refuse": 1})
    with pytest.raises(AttachError, match=r"`roll_back`, which .* cannot enact"):
        guarded(at_once(done), guard)
    degraded = Guard(guard.policy.model_copy(update={"unsupported": "degrade"}), detectors=[rule], strict=True)
    assert guarded(at_once(done), degraded).kickoff().raw == "x"
    assert done == []
    assert decided(degraded) == [(Kind.REFUSE, True)]


def test_tasks_that_run_at_once_are_not_given_to_another_agent() -> None:
    """The call is not made, and the receipt says that nothing else came of it; a hand-off would be rerouted."""
    done: list[str] = []
    guard = guarding(finds(ToolRequested, bad_call), {"reroute": 1})
    assert guarded(at_once(done), guard).kickoff().raw == "x"
    assert done == []
    assert decided(guard) == [(Kind.REROUTE, False)]


# -- back to the task's beginning


SHOWN: list[tuple[Any, Kickoff]] = [(ToolReturned, kickoff) for kickoff in WAYS]
SHOWN += [(at, kickoff) for at in (ModelResponded, ToolRequested, ToolFailed) for kickoff in (sync, native_async)]


@both
@pytest.mark.parametrize(("at", "kickoff"), SHOWN, ids=lambda value: value.__name__)
def test_a_task_is_taken_back(kickoff: Kickoff, native: bool, at: Any) -> None:
    """It is begun again with the lesson, whatever showed that it went wrong; earlier tasks keep their outputs."""
    done: list[str] = []
    outputs: list[Any] = []

    @tool("act")
    def act(q: str) -> str:
        """Act."""
        done.append(q)
        if at is ToolFailed:
            raise ValueError("K7310")
        return "found K7310"

    faults = {
        ModelResponded: lambda event: event.agent == "alice" and len(done) == 1,
        ToolRequested: bad_call,
        ToolReturned: found,
        ToolFailed: lambda event: True,
    }
    first = Script(Say("first part"))
    steps = [bad()] if at is ToolRequested else [Ask("act", {"q": "x"}, id="a")]
    steps += [Say("bad words")] if at is ModelResponded else []
    second = Script(*steps, lambda texts: Say("learned" if "was taken back" in "".join(texts) else "never told"))
    opener, alice = agent(first, role="opener", native=native), agent(second, act, native=native)
    mine = crew_of(opener, alice, task_callback=outputs.append)
    guard = guarding(finds(at, faults[at]), {"roll_back": 1})
    output = kickoff(guarded(mine, guard))
    assert [each.raw for each in output.tasks_output] == ["first part", "learned"]
    assert [each.raw for each in outputs] == ["first part", "learned"]
    assert first.calls == 1
    assert set(done) == (set() if at is ToolRequested else {"x"})  # in text CrewAI itself tries a failing tool again
    assert "first part" in heard(second, -1)
    assert "K7310" not in heard(second, -1)
    assert decided(guard) == [(Kind.ROLL_BACK, True)]


def test_a_task_is_taken_back_as_often_as_the_policy_says() -> None:
    """Then the next rung stands; the guard cannot loop."""
    script = Script(bad())
    guard = guarding(finds(ToolRequested, bad_call), {"roll_back": 2}, "halt")
    output = guarded(crew(script, acting([])), guard).kickoff()
    assert "misstep ended this run" in output.raw
    assert script.calls == 3
    assert decided(guard) == [(Kind.ROLL_BACK, True), (Kind.ROLL_BACK, True), (Kind.HALT, True)]


def test_the_lesson_is_for_the_task_that_was_taken_back() -> None:
    """The tasks after it are told nothing of it."""
    script, last = Script(bad(), Say("learned")), Script(Say("last"))
    guard = guarding(finds(ToolRequested, bad_call), {"roll_back": 1})
    guarded(crew_of(agent(script, acting([])), agent(last, role="last")), guard).kickoff()
    assert "was taken back" in heard(script, 1)
    assert "was taken back" not in heard(last, 0)


def test_an_answer_that_was_taken_back_is_no_answer() -> None:
    """In text mode CrewAI keeps the result of a tool that is the answer, and would make it the next attempt's too."""
    script = Script(Ask("act", {"q": "x"}), Say("learned"))
    guard = guarding(finds(ToolReturned, found), {"roll_back": 1})
    mine = guarded(crew(script, telling([], result_as_answer=True), native=False), guard)
    assert mine.kickoff().raw == "learned"


def test_what_was_skipped_stays_skipped() -> None:
    """A conditional task before the one that is taken back has no output of an earlier kickoff's."""
    script = Script(Say("first"), Say("never"), Say("last"), Say("first"), bad(), Say("learned"))
    alice = agent(script, acting([]))
    ran = iter([True, False])
    tasks: list[Any] = [
        Task(description="one", expected_output="o", agent=alice),
        ConditionalTask(description="two", expected_output="o", agent=alice, condition=lambda output: next(ran)),
        Task(description="three", expected_output="o", agent=alice),
    ]
    guard = guarding(finds(ToolRequested, bad_call), {"roll_back": 1})
    mine = guarded(Crew(agents=[alice], tasks=tasks, verbose=False), guard)
    mine.kickoff()
    assert [each.raw for each in mine.kickoff().tasks_output] == ["first", "", "learned"]
    assert "never" not in heard(script, 5)


def test_a_replay_is_taken_back_to_a_task_of_its_own() -> None:
    """What was replayed from keeps its output."""
    first, second = Script(Say("first")), Script(Say("second"), bad(), Say("learned"))
    mine = crew_of(agent(first), agent(second, acting([]), role="bob"))
    mine.tasks[1].description = "do the rest"
    guarded(mine, guarding(finds(ToolRequested, bad_call), {"roll_back": 1})).kickoff()
    output = mine.replay(str(mine.tasks[1].id))
    assert [each.raw for each in output.tasks_output] == ["first", "learned"]
    assert first.calls == 1


def test_a_managers_task_is_taken_back() -> None:
    """The manager of a hierarchical crew begins its task again."""
    manager = Script(bad(), lambda texts: Say("learned" if "was taken back" in "".join(texts) else "never told"))
    boss = agent(manager, role="boss", allow_delegation=True)
    task = Task(description="do it", expected_output="o", tools=[acting([])])
    bob = agent(Script(Say("x")), role="bob")
    mine = Crew(agents=[bob], tasks=[task], process=Process.hierarchical, manager_agent=boss, verbose=False)
    guard = guarding(finds(ToolRequested, bad_call), {"roll_back": 1})
    assert guarded(mine, guard).kickoff().raw == "learned"
    assert decided(guard) == [(Kind.ROLL_BACK, True)]


@both
@ways
def test_a_co_workers_misstep_takes_the_whole_task_back(kickoff: Kickoff, native: bool) -> None:
    """CrewAI turns the signal into text inside the delegating call; it is raised again after that."""
    done: list[str] = []
    outer = Script(delegate(), lambda texts: Say("learned" if "was taken back" in "".join(texts) else "never told"))
    inner = Script(bad(), Say("inner went on"))
    guard = guarding(finds(ToolRequested, bad_call), {"roll_back": 1})
    output = kickoff(guarded(pair(outer, inner, done, native), guard))
    assert (output.raw, outer.calls, inner.calls, done) == ("learned", 2, 1, [])
    assert decided(guard) == [(Kind.ROLL_BACK, True)]


@pytest.mark.parametrize("inside", ["bare", "guarded"])
def test_a_crew_in_a_tool_is_taken_back_by_the_innermost_guarded_crew(inside: str) -> None:
    """One that is guarded begins its own task again; for a bare one the task does whose tool it runs in."""
    inner = Script(bad(), Say("inner learned"))
    outer = Script(Ask("helper"), Ask("helper", id="again"), Say("outer done"))
    guard = guarding(finds(ToolRequested, bad_call), {"roll_back": 1})
    part = crew(inner, acting([]))
    if inside == "guarded":
        guarded(part, guard)
        outer = Script(Ask("helper"), Say("outer done"))
    assert guarded(crew(outer, helper(part)), guard).kickoff().raw == "outer done"
    assert ("was taken back" in heard(inner, 1)) is (inside == "guarded")
    assert ("was taken back" in heard(outer, -1)) is (inside == "bare")
    assert decided(guard) == [(Kind.ROLL_BACK, True)]


def test_parallel_calls_are_taken_back_together() -> None:
    """One bad result of a batch takes the task back; the others are in no conversation any more."""
    done: list[str] = []
    guard = guarding(finds(ToolReturned, found), {"roll_back": 1})
    calls = AskAll(tuple(Ask("act", {"q": str(number)}, id=f"c{number}") for number in range(3)))
    script = Script(calls, Say("learned"))
    assert guarded(crew(script, telling(done)), guard).kickoff().raw == "learned"
    assert len(done) <= 3
    assert "K7310" not in heard(script, 1)
    assert (Kind.ROLL_BACK, True) in decided(guard)


def test_nothing_is_begun_in_a_task_that_is_being_left() -> None:
    """A call of the same batch that comes later is blocked."""
    done: list[str] = []
    guard = guarding(finds(ToolReturned, found), {"roll_back": 1})
    decided_on = threading.Event()
    guard.on(LOOP, lambda anomaly: decided_on.set())

    def wait(context: ToolCallHookContext) -> None:
        if context.tool_input["q"] == "late":
            decided_on.wait(10)
            time.sleep(0.1)

    calls = AskAll((Ask("act", {"q": "soon"}, id="1"), Ask("act", {"q": "late"}, id="2")))
    mine = guarded(crew(Script(calls, Say("learned")), telling(done)), guard)
    with scoped_hooks({InterceptionPoint.PRE_TOOL_CALL: [wait]}):
        assert mine.kickoff().raw == "learned"
    assert done == ["soon"]


def test_tasks_are_told_complete_once() -> None:
    """On CrewAI's own bus a task that was begun again is completed once, by the agent that completed it."""
    completed: list[str] = []
    guard = guarding(finds(ToolRequested, bad_call), {"roll_back": 1})
    mine = guarded(crew(Script(bad(), Say("learned")), acting([])), guard)
    with crewai_event_bus.scoped_handlers():
        crewai_event_bus.on(TaskCompletedEvent)(lambda source, event: completed.append(event.output.raw))
        mine.kickoff()
    assert completed == ["learned"]


# -- the guard itself fails


CRASHES: list[tuple[str, Any, Any]] = [
    ("misstep_crewai.tool.CrewToolSeat.request", ToolRequested, "rewrite"),
    ("misstep.enact.drivers.consult", ToolRequested, "ask"),
    ("misstep.enact.drivers.consult", ToolReturned, "ask"),
    ("misstep_crewai.tool.CrewToolSeat.rewrite", ToolReturned, "rewrite"),
    ("misstep_crewai.tool.amend", ToolReturned, "rewrite"),
    ("misstep_crewai.tool.CrewToolSeat.object", ToolReturned, {"refuse": 1}),
    ("misstep_crewai.tool.co_workers", ToolRequested, {"reroute": 1}),
    ("misstep_crewai.tool.CrewToolSeat.leave", ToolRequested, {"reroute": 1}),
    ("misstep_crewai.tool.divert", ToolRequested, {"reroute": 1}),
    ("misstep_crewai.tool.leaving", ToolRequested, "rewrite"),
    ("misstep_crewai.gate.leaving", ToolRequested, "rewrite"),
    ("misstep_crewai.model.reworded", ModelResponded, "rewrite"),
    ("misstep_crewai.model.divert", ModelResponded, {"roll_back": 1}),
    ("misstep_crewai.model.stops_of", ModelResponded, {"fallback": 1}),
    ("misstep_crewai.model.count", ModelResponded, {"fallback": 1}),
    ("misstep_crewai.course.roles", ToolRequested, {"roll_back": 1}),
    ("misstep_crewai.course.event_scope", ToolRequested, {"roll_back": 1}),
    ("misstep_crewai.course.Course.begins", ToolRequested, {"roll_back": 1}),
    ("misstep_crewai.course.Course.can", ToolRequested, {"roll_back": 1}),
    ("misstep_crewai.course.Course._drop", ToolRequested, {"roll_back": 1}),
    ("misstep_crewai.course.Course._carry_out", ToolRequested, {"reroute": 1}),
    ("misstep_crewai.course.Course._carry_out", ToolReturned, {"roll_back": 1}),
    ("misstep_crewai.course.Course.over", ToolRequested, {"reroute": 1}),
    ("misstep_crewai.course.live_of", ToolRequested, {"reroute": 1}),
]


@both
@pytest.mark.parametrize("closed", [False, True], ids=["open", "closed"])
@pytest.mark.parametrize(("name", "at", "rung"), CRASHES, ids=lambda value: getattr(value, "__name__", str(value)))
def test_an_adapter_that_crashes_at_a_decision_never_breaks_the_crew(
    name: str, at: Any, rung: Any, closed: bool, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever of ours fails while a decision is carried out, the crew comes to its end as it would have."""
    crashes: list[str] = []

    def crash(*args: Any, **kwargs: Any) -> Any:
        crashes.append(name)
        raise RuntimeError("a bug in the adapter")

    faults = {ToolRequested: bad_call, ToolReturned: found, ModelResponded: bad_words}
    rule = finds(at, faults[at], rewrite={"q": "good"} if at is ToolRequested else "other words")
    rungs = (Rung.model_validate(rung),)
    policy = Policy(rules={LOOP: Rule(ladder=rungs, on_guard_failure="closed" if closed else "open")})
    small = ScriptedLLM(Script(Say("done")), native=native)
    guard = Guard(policy, detectors=[rule], models={"small": small}, approver=lambda question: True)
    done: list[str] = []
    said = Say("bad words") if at is ModelResponded else Say("done")
    script = Script(Ask("act", {"q": BAD}, id="a"), said, Say("done"))
    alice, bob = agent(script, telling(done), native=native), agent(Script(Say("done")), role="bob", native=native)
    task = Task(description="do it", expected_output="o", agent=alice)
    mine = guarded(Crew(agents=[alice, bob], tasks=[task], verbose=False), guard)
    with monkeypatch.context() as patch:
        patch.setattr(name, crash)
        output = mine.kickoff()
    assert crashes
    assert output.raw in ("done", "bad words")
    assert guard.report().runs[0].status == "completed"
    if closed and at is ToolRequested and name.startswith("misstep_crewai.tool.C"):
        assert done == []
