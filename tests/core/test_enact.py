"""Enactment: what the loop asks of the host, what it passes on, and that the host never suffers from us."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest

from misstep.anomalies import Anomaly
from misstep.approval import Answer, Question
from misstep.decisions import Kind, RollBack
from misstep.enact import MOST_ATTEMPTS, Rescue, adrive, model_call, tool_call
from misstep.enact.model import elected
from misstep.errors import Signal as MisstepSignal
from misstep.events import (
    DecisionSettled,
    Event,
    MessageSent,
    ModelFailed,
    ModelRequested,
    ModelResponded,
    ToolCancelled,
    ToolFailed,
    ToolRequested,
    ToolReturned,
)
from misstep.guard import Guard
from misstep.policy import Mode, Rule
from tests.core.scenes import (
    ARGUMENT,
    EMPTY,
    LOOP,
    RUN,
    Bug,
    Driver,
    Handler,
    Left,
    ModelSeat,
    Records,
    Stopped,
    ToolSeat,
    detector,
    finds,
    policy,
    proposed,
    replied,
    requested,
    types,
    user,
)

GOOD = replied("all is well", call="m9")


def bad(number: int = 0, *calls: Any) -> ModelResponded:
    """A reply the test's rule finds fault with."""
    return replied(f"bad {number}", *calls, call=f"m{number}")


def set_up(
    ladder: list[Any], *detectors: Any, mode: Mode | None = None, strict: bool = True, watching: bool = False
) -> tuple[Guard, Records]:
    """A guard that answers bad replies, and calls of `forbidden`, by this ladder; and what it records."""
    records = Records()
    rules = detectors or (
        finds(EMPTY, ModelResponded, lambda reply: reply.content.startswith("bad")),
        finds(LOOP, when=lambda call: call.tool == "forbidden"),
    )
    guard = Guard(policy({EMPTY: ladder, LOOP: ladder}), detectors=rules, mode=mode, sink=records, strict=strict)
    guard.open(RUN, watching=watching)
    return guard, records


def model(guard: Guard, broken: str = "", *opening: Event) -> ModelSeat:
    """A model call of the run."""
    session = guard.session(RUN) or guard.open(RUN)
    return ModelSeat(session, opening, broken)


def call(guard: Guard, tool: str = "search", broken: str = "", id_: str = "c1", **arguments: Any) -> ToolSeat:
    """A tool call of the run."""
    session = guard.session(RUN) or guard.open(RUN)
    return ToolSeat(session, requested(id_, tool, arguments=arguments), broken)


# -- model calls ------------------------------------------------------------------------------------------------------


def test_a_good_reply_is_passed_on(driver: Driver) -> None:
    """A reply nobody finds fault with is asked for once and passed on as it is, and both sides are on record."""
    guard, records = set_up(["halt"])
    handler = Handler(GOOD)
    assert driver.model(guard, model(guard, "", user("hello")), handler) is GOOD
    assert handler.asked == [["what was said"]]
    assert [event.kind for event in records.events[1:]] == ["message.sent", "model.requested", "model.responded"]


def test_retry_asks_the_same_again(driver: Driver) -> None:
    """A reply that is thrown away is asked for again with the same input; only the last one is passed on."""
    guard, records = set_up([{"retry": 2}])
    handler = Handler(bad(), bad(), GOOD)
    assert driver.model(guard, model(guard), handler) is GOOD
    assert handler.asked == [["what was said"]] * 3
    assert [reply.attempt for reply in records.of(ModelResponded)] == [0, 1, 2]
    assert len(records.of(ModelRequested)) == 1


def test_reprompt_adds_what_was_wrong(driver: Driver) -> None:
    """Each bad reply adds its feedback to the request for the model alone; the history is not touched."""
    guard, _ = set_up([{"reprompt": 2}])
    seat, handler = model(guard), Handler(bad(), bad(), GOOD)
    assert driver.model(guard, seat, handler) is GOOD
    first, second, third = handler.asked
    assert (first, second[:1], third[:1]) == (["what was said"],) * 3
    assert (len(second), len(third)) == (2, 3)
    assert all(said.startswith("[misstep: empty_response] Your last reply was not used.") for said in third[1:])
    assert seat.history == ["what was said"]


def test_retry_and_then_reprompt(driver: Driver) -> None:
    """The ladder goes on within one model call, and when it is used up the reply is passed on as it is."""
    guard, _ = set_up([{"retry": 1}, {"reprompt": 1}])
    handler = Handler(bad(1), bad(2), bad(3))
    passed = driver.model(guard, model(guard), handler)
    assert (passed.content, [len(asked) for asked in handler.asked]) == ("bad 3", [1, 1, 2])


def test_however_long_the_ladder_attempts_end(driver: Driver) -> None:
    """No model call is tried more often than the core allows, whatever a policy says."""
    guard, records = set_up([{"retry": 1000}])
    handler = Handler(bad())
    assert driver.model(guard, model(guard), handler).content == "bad 0"
    assert len(handler.asked) == MOST_ATTEMPTS
    last = records.of(DecisionSettled)[-1]
    assert (last.took_effect, last.detail) == (False, f"gave up after {MOST_ATTEMPTS} attempts")


def test_halt_ends_here(driver: Driver) -> None:
    """A halt is carried out by the seat, in the framework's own way, with the reason."""
    guard, _ = set_up(["halt"])
    handler = Handler(bad())
    with pytest.raises(Stopped, match="misstep ended this run: empty_response"):
        driver.model(guard, model(guard), handler)
    assert len(handler.asked) == 1


def test_halt_holds(driver: Driver) -> None:
    """After a halt no model and no tool is called any more, however often the framework tries."""
    guard, records = set_up(["halt"])
    with pytest.raises(Stopped):
        driver.model(guard, model(guard), Handler(bad()))
    handler = Handler(GOOD)
    for _ in range(2):
        with pytest.raises(Stopped):
            driver.model(guard, model(guard), handler)
        with pytest.raises(Stopped):
            driver.tool(guard, call(guard), handler)
    assert handler.asked == []
    assert len(records.of(ToolCancelled)) == 2


def test_a_halt_decided_before_the_model_is_asked(driver: Driver) -> None:
    """What ends the run before a model call ends it without one, and the receipt says that it did."""
    rule = finds(EMPTY, MessageSent)
    guard, records = set_up(["halt"], rule)
    handler = Handler(GOOD)
    with pytest.raises(Stopped):
        driver.model(guard, model(guard, "", user("a"), user("b")), handler)
    assert handler.asked == []
    assert records.of(DecisionSettled)[-1].took_effect


def test_what_cannot_be_done_before_the_model_is_asked_is_said(driver: Driver) -> None:
    """A remedy for a reply, decided before there is one, is not carried out, and its receipt says so."""
    guard, _ = set_up([{"retry": 1}], finds(EMPTY, MessageSent))
    handler = Handler(GOOD)
    assert driver.model(guard, model(guard, "", user("a")), handler) is GOOD
    guard.end(RUN)
    (decision,) = guard.report(RUN).runs[0].decisions
    assert (decision.kind, decision.took_effect, len(handler.asked)) == (Kind.RETRY, False, 1)


def test_calls_that_are_refused_do_not_hold_up_the_reply(driver: Driver) -> None:
    """A reply with a refused call is passed on at once: the call is refused where it is made."""
    guard, _ = set_up(["refuse"])
    reply = replied("", proposed("c1", "forbidden"), proposed("c2", "search"))
    handler = Handler(reply)
    assert driver.model(guard, model(guard), handler) is reply
    assert len(handler.asked) == 1


# -- tool calls -------------------------------------------------------------------------------------------------------


def test_a_good_call_is_made_once(driver: Driver) -> None:
    """A call nobody finds fault with is made once, with its arguments, and its result passed on as it is."""
    guard, records = set_up(["halt"])
    handler = Handler("a result")
    assert driver.tool(guard, call(guard, q="x"), handler) == "a result"
    assert handler.asked == [{"q": "x"}]
    assert [event.kind for event in records.events[1:]] == ["tool.requested", "tool.returned"]


def test_a_refused_call_is_not_made(driver: Driver) -> None:
    """A refused call is not made; the agent reads the objection in place of a result, and that is on record."""
    guard, records = set_up(["refuse"])
    handler = Handler("a result")
    said = driver.tool(guard, call(guard, "forbidden"), handler)
    assert said.startswith("[misstep: repeated_call] This call was not executed.")
    assert handler.asked == []
    (cancelled,) = records.of(ToolCancelled)
    assert (cancelled.call, cancelled.objection) == ("c1", said)
    assert records.of(DecisionSettled)[-1].took_effect


def test_one_call_one_verdict(driver: Driver) -> None:
    """A call judged where it was proposed is only enforced where it is made: one finding, one decision."""
    guard, _ = set_up(["refuse"])
    driver.model(guard, model(guard), Handler(replied("", proposed("c1", "forbidden"))))
    handler = Handler("a result")
    assert "not executed" in driver.tool(guard, call(guard, "forbidden"), handler)
    report = guard.report(RUN).runs[0]
    assert (types(report), [decision.kind for decision in report.decisions]) == ([LOOP], [Kind.REFUSE])
    assert handler.asked == []


def test_a_halt_at_a_call(driver: Driver) -> None:
    """A call that ends the run is not made."""
    guard, records = set_up(["halt"])
    handler = Handler("a result")
    with pytest.raises(Stopped):
        driver.tool(guard, call(guard, "forbidden"), handler)
    assert handler.asked == []
    assert len(records.of(ToolCancelled)) == 1


def test_a_halt_decided_on_a_result(driver: Driver) -> None:
    """What a result gives reason to end ends at the next seat, and only then does the receipt say so."""
    guard, _ = set_up(["halt"], finds(EMPTY, ToolReturned))
    assert driver.tool(guard, call(guard), Handler("a result")) == "a result"
    (before,) = guard.report(RUN).runs[0].decisions
    with pytest.raises(Stopped):
        driver.model(guard, model(guard), Handler(GOOD))
    (after,) = guard.report(RUN).runs[0].decisions
    assert (before.took_effect, after.took_effect) == (None, True)


def test_what_cannot_be_done_about_a_result_is_said(driver: Driver) -> None:
    """A vote on a result has no effect, and the receipt says so."""
    guard, _ = set_up([{"vote": 1}], finds(EMPTY, ToolReturned))
    assert driver.tool(guard, call(guard), Handler("a result")) == "a result"
    (decision,) = guard.report(RUN).runs[0].decisions
    assert (decision.took_effect, decision.detail) == (False, "the call was already made")


# -- what is passed on instead ----------------------------------------------------------------------------------------


def decided(guard: Guard) -> list[tuple[Kind, bool | None, str]]:
    """What was decided in the run, whether it took effect, and the last word on it."""
    with_receipts = guard.session(RUN)
    assert with_receipts is not None
    ledger = with_receipts.ledger
    return [
        (taken.decision, receipt.took_effect if receipt else None, receipt.detail if receipt else "")
        for taken in ledger.decisions
        for receipt in [ledger.receipts.get(taken.id)]
    ]


def test_a_call_with_other_arguments(driver: Driver) -> None:
    """A call is made with the arguments a rule puts in the place of its own."""
    guard, _ = set_up(["rewrite"], finds(LOOP, rewrite={"q": "mended"}))
    handler = Handler("a result")
    assert driver.tool(guard, call(guard, q="broken"), handler) == "a result"
    assert handler.asked == [{"q": "mended"}]
    assert decided(guard) == [(Kind.REWRITE, True, "")]


def test_a_result_in_other_words(driver: Driver) -> None:
    """What a tool answered reaches the agent in the words a rule puts in their place."""
    guard, _ = set_up(["rewrite"], finds(EMPTY, ToolReturned, rewrite="masked"))
    assert driver.tool(guard, call(guard), Handler("a secret")) == "masked"
    assert decided(guard) == [(Kind.REWRITE, True, "")]


def test_a_reply_in_other_words(driver: Driver) -> None:
    """What a model said is passed on in the words a rule puts in their place, and it is not asked again."""
    guard, _ = set_up(["rewrite"], finds(EMPTY, ModelResponded, rewrite="masked"))
    handler = Handler(GOOD)
    assert driver.model(guard, model(guard), handler).content == "masked"
    assert len(handler.asked) == 1


def test_nothing_to_pass_on_instead(driver: Driver) -> None:
    """A rewrite is passed over where the rule does not know what to pass on, or knows the wrong kind of thing."""
    guard, _ = set_up(["rewrite", {"refuse": 1}], finds(LOOP, rewrite="no arguments"))
    assert driver.tool(guard, call(guard), Handler("a result")).startswith("[misstep: repeated_call] This call was not")


def test_a_result_is_withheld(driver: Driver) -> None:
    """A result that is refused was come by, but the agent reads the objection in its place."""
    guard, _ = set_up([{"refuse": 1}], finds(EMPTY, ToolReturned))
    handler = Handler("a secret")
    told = driver.tool(guard, call(guard), handler)
    assert len(handler.asked) == 1
    assert told.startswith("[misstep: empty_response] What the tool answered was withheld.")
    assert decided(guard) == [(Kind.REFUSE, True, "")]


def test_an_error_the_agent_can_act_on(driver: Driver) -> None:
    """What a tool raises becomes an objection where the policy refuses it; elsewhere it passes through."""
    guard, _ = set_up([{"refuse": 1}], finds(EMPTY, ToolFailed))
    handler = Handler(LookupError("gone"))
    assert "withheld" in driver.tool(guard, call(guard, id_="a"), handler)
    with pytest.raises(LookupError):
        driver.tool(guard, call(guard, id_="b"), handler)


# -- asking the model otherwise ---------------------------------------------------------------------------------------


def test_a_fallback_asks_another_model(driver: Driver) -> None:
    """The model the policy names is asked in the place of the first, for this call and what may follow in it."""
    guard, _ = set_up([{"fallback": {"to": "small", "limit": 1}}, {"retry": 1}])
    guard.models["small"] = "the small one"
    handler = Handler(bad(), bad(), GOOD)
    assert driver.model(guard, model(guard), handler) is GOOD
    assert [asked[0] for asked in handler.asked] == ["what was said", "to the small one", "to the small one"]


def test_a_model_that_raises_is_asked_again(driver: Driver) -> None:
    """A model whose error the policy retries is asked again; when that is used up the error passes through."""
    guard, _ = set_up([{"retry": 1}], finds(EMPTY, ModelFailed))
    handler = Handler(ConnectionError("once"), GOOD)
    assert driver.model(guard, model(guard), handler) is GOOD
    with pytest.raises(ConnectionError, match="for good"):
        driver.model(guard, model(guard), Handler(ConnectionError("for good")))


def test_what_ends_a_host_is_never_retried(driver: Driver) -> None:
    """A cancellation or an interrupt passes through at once, whatever the policy says."""
    guard, _ = set_up([{"retry": 5}], finds(EMPTY, ModelFailed))
    handler = Handler(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        driver.model(guard, model(guard), handler)
    assert len(handler.asked) == 1


def test_a_vote_passes_what_most_agree_on(driver: Driver) -> None:
    """Of several new replies the one most agree on is judged and passed on; all are counted, one is proposed."""
    guard, records = set_up([{"vote": {"samples": 3, "limit": 1}}])
    paid, other = (replied("", proposed("c1", "pay", amount=amount), call="m2") for amount in (5, 7))
    handler = Handler(bad(), other, paid, paid)
    assert driver.model(guard, model(guard), handler) is paid
    assert len(records.of(ModelResponded)) == 4
    assert [call.arguments for call in records.of(ToolRequested)] == [{"amount": 5}]
    assert guard.report(RUN).runs[0].cost.model_calls == 4
    assert decided(guard) == [(Kind.VOTE, True, "")]


def test_silence_has_no_vote(driver: Driver) -> None:
    """A reply that says nothing is elected only if all do; of several with as many votes the earliest is."""
    guard, _ = set_up([{"vote": {"samples": 4, "limit": 1}}])
    nothing, first, second = replied(""), replied("Yes ", call="m1"), replied("no", call="m2")
    assert driver.model(guard, model(guard), Handler(bad(), nothing, nothing, first, second)) is first
    assert elected([(1, nothing), (2, nothing)]) == (1, nothing)


def test_a_notice_waits_for_the_next_reply(driver: Driver) -> None:
    """A reprompt for what a tool answered reaches the model at its next call, once, and its receipt says when."""
    guard, _ = set_up([{"reprompt": 1}], finds(EMPTY, ToolReturned))
    assert driver.tool(guard, call(guard), Handler("a result")) == "a result"
    assert decided(guard) == [(Kind.REPROMPT, None, "")]
    handler = Handler(GOOD)
    driver.model(guard, model(guard), handler)
    driver.model(guard, model(guard), handler)
    first, second = handler.asked
    assert first[1].startswith("[misstep: empty_response] Your reply was empty")
    assert second == ["what was said"]
    assert decided(guard) == [(Kind.REPROMPT, True, "")]


def test_a_notice_nobody_came_for(driver: Driver) -> None:
    """A notice that no model call came after had no effect, and the receipt says so at the end of the run."""
    guard, records = set_up([{"reprompt": 1}], finds(EMPTY, ToolReturned))
    driver.tool(guard, call(guard), Handler("a result"))
    guard.end(RUN)
    (receipt,) = records.of(DecisionSettled)
    assert (receipt.took_effect, receipt.detail) == (False, "no model call came after it")


# -- a person ---------------------------------------------------------------------------------------------------------


def asking(answer: Any, *detectors: Any, **rung: Any) -> tuple[Guard, list[Question]]:
    """A guard that asks about calls of `forbidden` and bad replies, and what was asked."""
    guard, _ = set_up([{"ask": rung or {"timeout": 5}}], *detectors)
    questions: list[Question] = []

    def person(question: Question) -> Any:
        questions.append(question)
        return answer(question) if callable(answer) else answer

    guard.approver = person
    return guard, questions


def test_a_person_approves(driver: Driver) -> None:
    """An approved call is made as it is; the person is told what was found and what is to be done."""
    guard, questions = asking(Answer("approve"))
    handler = Handler("a result")
    assert driver.tool(guard, call(guard, "forbidden", q="x"), handler) == "a result"
    assert handler.asked == [{"q": "x"}]
    (question,) = questions
    assert (question.tool, question.arguments, question.text) == ("forbidden", {"q": "x"}, "repeated_call: seen")
    assert decided(guard) == [(Kind.ASK, True, "approve")]


def test_a_person_edits(driver: Driver) -> None:
    """An edited call is made with the person's arguments."""
    guard, _ = asking({"answer": "edit", "edited": {"q": "y"}})
    handler = Handler("a result")
    assert driver.tool(guard, call(guard, "forbidden", q="x"), handler) == "a result"
    assert handler.asked == [{"q": "y"}]


@pytest.mark.parametrize("answer", [False, Answer("reject", comment="not today"), "whatever", {"answer": "edit"}])
def test_a_person_rejects(driver: Driver, answer: Any) -> None:
    """A rejected call is not made, and the agent reads why; an answer that cannot be read rejects."""
    guard, _ = asking(answer)
    handler = Handler("a result")
    told = driver.tool(guard, call(guard, "forbidden"), handler)
    assert handler.asked == []
    assert told.startswith("[misstep] This call was not executed. A person was asked about this and rejected it.")
    assert ("not today" in told) is isinstance(answer, Answer)


@pytest.mark.parametrize("default", ["approve", "reject"])
@pytest.mark.parametrize("silent", [lambda question: time.sleep(1), lambda question: 1 / 0], ids=["late", "crashes"])
def test_a_person_who_does_not_answer(driver: Driver, default: str, silent: Any) -> None:
    """Who answers too late, or an approver that raises, is not waited for: the rung's default stands."""
    guard, _ = asking(silent, timeout=0.05, default=default)
    handler = Handler("a result")
    driver.tool(guard, call(guard, "forbidden"), handler)
    assert len(handler.asked) == (default == "approve")


def test_an_async_approver(driver: Driver) -> None:
    """An approver may be a coroutine function, in sync code too."""
    guard, _ = asking(None)

    async def person(question: Question) -> Answer:
        await asyncio.sleep(0)
        return Answer("approve")

    guard.approver = person
    assert driver.tool(guard, call(guard, "forbidden"), Handler("a result")) == "a result"


def test_a_person_is_asked_once(driver: Driver) -> None:
    """A node that runs again meets the answer that was given for the call."""
    guard, questions = asking(Answer("reject"))
    guard.observe(replied("", proposed("c1", "forbidden")))
    told = {driver.tool(guard, call(guard, "forbidden"), Handler("a result")) for _ in range(2)}
    assert (len(told), len(questions)) == (1, 1)


def test_a_framework_that_pauses(driver: Driver) -> None:
    """Where the framework waits by itself, what it raises passes through, and its answer counts at the second try."""

    class Paused(MisstepSignal):
        pass

    guard, questions = asking(Answer("reject"))
    seat, answers = call(guard, "forbidden"), [True]
    shown: list[Any] = []

    def pause(payload: Any) -> Any:
        shown.append(payload)
        if len(shown) == 1:
            raise Paused
        return answers.pop()

    seat.pause = pause
    handler = Handler("a result")
    with pytest.raises(Paused):
        driver.tool(guard, seat, handler)
    assert driver.tool(guard, seat, handler) == "a result"
    assert (len(handler.asked), questions) == (1, [])
    assert (shown[0]["tool"], shown[0]["misstep"]) == ("forbidden", "repeated_call: seen")


def test_a_person_about_a_reply(driver: Driver) -> None:
    """A rejected reply is asked for again with what the person says; an edited one is passed on as edited."""
    answers = [Answer("reject", comment="be kind"), Answer("edit", "kinder")]
    guard, questions = asking(lambda question: answers.pop(0))
    handler = Handler(bad())
    assert driver.model(guard, model(guard), handler).content == "kinder"
    assert "be kind" in handler.asked[1][1]
    assert [question.content for question in questions] == ["bad 0"] * 2


def test_a_rejected_reply_takes_its_calls_with_it(driver: Driver) -> None:
    """What a rejected reply proposed is given up: another reply may use its ids for other calls, judged anew."""
    answers = [Answer("reject"), Answer("approve")]
    guard, _ = asking(lambda question: answers.pop(0))
    guard.open(RUN)
    first, second = (replied(f"bad {q}", proposed("c1", "forbidden", q=q), call="m1") for q in "xy")
    driver.model(guard, model(guard), Handler(first, second))
    session = guard.session(RUN)
    assert session is not None
    known = session.run.calls.get("c1")
    assert known is not None
    assert (known.state, "y" in known.text) == ("open", True)


def test_nobody_consents_to_a_reply(driver: Driver) -> None:
    """A reply that needs consent is not asked for again and again where nobody is there: the run ends."""
    guard, _ = asking(lambda question: time.sleep(1), timeout=0.05)
    handler = Handler(bad())
    with pytest.raises(Stopped, match="nobody gave it"):
        driver.model(guard, model(guard), handler)
    assert len(handler.asked) == 1
    with pytest.raises(Stopped):
        driver.tool(guard, call(guard), handler)


def test_whoever_always_rejects_comes_to_an_end(driver: Driver) -> None:
    """An approver that rejects whatever comes does not keep a model call going for ever."""
    guard, questions = asking(Answer("reject"))
    with pytest.raises(Stopped):
        driver.model(guard, model(guard), Handler(bad()))
    assert len(questions) == MOST_ATTEMPTS


def test_a_person_about_a_result(driver: Driver) -> None:
    """A result may be approved, edited or withheld by a person before it is passed on."""
    answers = [Answer("approve"), Answer("edit", "less"), Answer("reject")]
    guard, questions = asking(lambda question: answers.pop(0), finds(EMPTY, ToolReturned))
    told = [driver.tool(guard, call(guard, id_=str(n), q=str(n)), Handler("a secret")) for n in range(3)]
    assert told[:2] == ["a secret", "less"]
    assert told[2].startswith("[misstep] What the tool answered was withheld.")
    assert [question.content for question in questions] == ["a secret"] * 3


# -- elsewhere --------------------------------------------------------------------------------------------------------


def test_a_hand_off_goes_to_another_agent(driver: Driver) -> None:
    """A call that is a hand-off is made, and goes where the policy says."""
    guard, _ = set_up([{"reroute": {"to": "bob", "limit": 1}}], finds(LOOP))
    handler = Handler("to alice")
    assert driver.tool(guard, call(guard, "hand_off"), handler) == "to bob"
    assert len(handler.asked) == 1
    assert decided(guard) == [(Kind.REROUTE, True, "")]


@pytest.mark.parametrize("kind", [Kind.REROUTE, Kind.ROLL_BACK])
def test_the_run_goes_on_elsewhere(driver: Driver, kind: Kind) -> None:
    """Any other call, and a reply, is left to the seat that takes the run elsewhere, which finds the verdict due."""
    ladder = [{"reroute": {"to": "bob", "limit": 2}}] if kind is Kind.REROUTE else [{"roll_back": 2}]
    guard, records = set_up(ladder)
    for play in (
        lambda: driver.tool(guard, call(guard, "forbidden"), Handler("a result")),
        lambda: driver.model(guard, model(guard), Handler(bad())),
    ):
        with pytest.raises(Left):
            play()
        session = guard.session(RUN)
        assert session is not None
        due = session.due(kind)
        assert due is not None
        guard.settle(session, due, took_effect=True)
    assert len(records.of(ToolCancelled)) == 1
    assert [(found, took) for found, took, _ in decided(guard)] == [(kind, True)] * 2


def test_what_no_seat_came_for(driver: Driver) -> None:
    """A way elsewhere that nobody took by the end of the run had no effect, and the receipt says why."""
    guard, records = set_up([{"roll_back": 1}])
    with pytest.raises(Left):
        driver.model(guard, model(guard), Handler(bad()))
    guard.end(RUN)
    (receipt,) = records.of(DecisionSettled)
    assert (receipt.took_effect, receipt.detail) == (False, "the run could not be taken back")


def test_a_roll_back_goes_to_before_the_misstep() -> None:
    """The step to go back to is the earliest the anomaly rests on that the same agent took."""
    rests = detector(
        LOOP,
        ToolRequested,
        lambda event, run: Anomaly(type=LOOP, message="", evidence=(1, 2)) if event.call == "bad" else None,
    )
    guard, _ = set_up([{"roll_back": 1}], rests)
    for instance, step in (("me", 3), ("other", 1)):
        guard.observe(user("hello", instance=instance, step=step))
    decision = guard.observe(requested("bad", instance="me", step=9))
    assert isinstance(decision, RollBack)
    assert decision.step == 3
    assert "taken back" in decision.lesson


# -- deadlines --------------------------------------------------------------------------------------------------------


def test_a_tool_that_does_not_answer() -> None:
    """Async, a tool is cancelled at the deadline; the agent reads that it may or may not have acted."""
    guard, records = set_up([{"refuse": 1}])
    guard._deadline = 0.05

    async def hang(request: Any) -> str:
        await asyncio.sleep(30)
        return "late"

    steps = tool_call(guard, lambda: call(guard))
    told = asyncio.run(adrive(guard, steps, hang, Rescue("as it came")))
    assert told == "[misstep: tool_timeout] The tool gave no answer within 0.05 s. It may or may not have acted."
    assert len(records.of(ToolFailed)) == 1


def test_a_tools_own_time_out_passes_through() -> None:
    """A TimeoutError of the tool's own is not taken for the deadline's."""
    guard, _ = set_up([{"refuse": 1}])
    guard._deadline = 5

    async def raises(request: Any) -> str:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        asyncio.run(adrive(guard, tool_call(guard, lambda: call(guard)), raises, Rescue("as it came")))


# -- modes ------------------------------------------------------------------------------------------------------------


def test_a_guard_that_is_off_only_passes_through(driver: Driver) -> None:
    """Switched off, the guard asks the handler as if it were not there and records nothing."""
    guard, records = set_up(["halt"], mode="off")
    reply = bad()
    assert driver.model(guard, model(guard), Handler(reply)) is reply
    assert driver.tool(guard, call(guard, "forbidden"), Handler("a result")) == "a result"
    assert records.events == []


@pytest.mark.parametrize("watching", [{"mode": "shadow"}, {"watching": True}], ids=["shadow", "a session that watches"])
def test_a_guard_that_watches_changes_nothing(driver: Driver, watching: dict[str, Any]) -> None:
    """In shadow, everything is decided and nothing done: what would have been is on record as hypothetical."""
    guard, _ = set_up(["halt"], **watching)
    reply = bad()
    assert driver.model(guard, model(guard), Handler(reply)) is reply
    assert driver.tool(guard, call(guard, "forbidden"), Handler("a result")) == "a result"
    decisions = guard.report(RUN).runs[0].decisions
    assert [(decision.kind, decision.hypothetical) for decision in decisions] == [(Kind.HALT, True)] * 2


# -- what the host raises ---------------------------------------------------------------------------------------------


class Signal(BaseException):
    """A framework's signal that is no error."""


RAISED = [
    ValueError("the host's"),
    Signal(),
    KeyboardInterrupt(),
    SystemExit(3),
    asyncio.CancelledError(),
    GeneratorExit(),
]


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("strict", [True, False], ids=["strict", "lenient"])
def test_what_the_host_raises_passes_through(driver: Driver, error: BaseException, strict: bool) -> None:
    """What a model or a tool raises reaches the host as the very same object, and is on record as a failure."""
    guard, records = set_up(["halt"], strict=strict)
    handler = Handler(error)
    for play, seat in ((driver.model, model(guard)), (driver.tool, call(guard))):
        with pytest.raises(type(error)) as caught:
            play(guard, seat, handler)  # type: ignore[operator]
        assert caught.value is error
    assert [event.error_type for event in records.of(ModelFailed)] == [type(error).__name__]
    assert len(records.of(ToolFailed)) == 1
    assert len(handler.asked) == 2
    assert types(guard.report(RUN).runs[0]) == []


def test_a_tool_may_raise_stop_iteration() -> None:
    """Even the one exception generators cannot pass on reaches the host as it was raised."""
    guard, _ = set_up(["halt"], strict=False)
    error = StopIteration("the host's")
    with pytest.raises(StopIteration) as caught:
        Driver("sync").tool(guard, call(guard), Handler(error))
    assert caught.value is error


def test_what_is_raised_at_a_later_attempt(driver: Driver) -> None:
    """An exception at the second attempt passes through like one at the first."""
    guard, records = set_up([{"retry": 3}])
    error = ValueError("the host's")
    with pytest.raises(ValueError, match="the host's") as caught:
        driver.model(guard, model(guard), Handler(bad(), error))
    assert caught.value is error
    assert [event.attempt for event in records.of(ModelFailed)] == [1]


def test_a_task_that_is_cancelled_is_cancelled() -> None:
    """Cancelling the host's task while it waits for the model cancels it, at once and for good."""
    guard, records = set_up([{"retry": 3}])

    async def play() -> bool:
        waiting = asyncio.Event()

        async def never(request: Any) -> Any:
            waiting.set()
            await asyncio.Event().wait()

        seat = model(guard)
        task = asyncio.create_task(adrive(guard, model_call(guard, lambda: seat), never, Rescue(None)))
        await waiting.wait()
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    assert asyncio.run(play())
    assert [event.error_type for event in records.of(ModelFailed)] == ["CancelledError"]


# -- what we get wrong ------------------------------------------------------------------------------------------------


MODEL_METHODS = ["opening", "request", "reply", "failure", "stop"]
TOOL_METHODS = ["requested", "request", "result", "failure", "object", "stop"]


@pytest.mark.parametrize("broken", MODEL_METHODS)
def test_our_mistake_at_a_model_call(driver: Driver, broken: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever part of our model seat fails, the model is called just once and the host gets what it answered."""
    guard, _ = set_up(["halt"], strict=False)
    answer = {"failure": ValueError("the host's"), "stop": bad()}.get(broken, GOOD)
    handler = Handler(answer)
    if isinstance(answer, Exception):
        with pytest.raises(ValueError, match="the host's") as caught:
            driver.model(guard, model(guard, broken), handler)
        assert caught.value is answer
    else:
        assert driver.model(guard, model(guard, broken), handler) is answer
    assert handler.asked == ["as it came" if broken in ("opening", "request") else ["what was said"]]
    assert "misstep failed in a seat: Bug" in caplog.text


@pytest.mark.parametrize("broken", TOOL_METHODS)
def test_our_mistake_at_a_tool_call(driver: Driver, broken: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever part of our tool seat fails, the tool is called just once and the host gets what it answered."""
    guard, _ = set_up(["halt" if broken == "stop" else "refuse"], strict=False)
    tool = "forbidden" if broken in ("object", "stop") else "search"
    handler = Handler(ValueError("the host's") if broken == "failure" else "a result")
    if broken == "failure":
        with pytest.raises(ValueError, match="the host's"):
            driver.tool(guard, call(guard, tool, broken), handler)
    else:
        assert driver.tool(guard, call(guard, tool, broken), handler) == "a result"
    assert len(handler.asked) == 1
    assert "misstep failed in a seat: Bug" in caplog.text


def test_a_seat_that_cannot_even_be_taken(driver: Driver) -> None:
    """An adapter that fails before there is a seat does no more harm than one that fails later."""
    guard, _ = set_up(["halt"], strict=False)

    def take() -> Any:
        raise Bug("no seat")

    handler = Handler(GOOD)
    assert driver.play(guard, model_call(guard, take), handler, Rescue("as it came")) is GOOD
    assert handler.asked == ["as it came"]


def test_our_mistake_does_not_hide_what_the_host_raises(driver: Driver) -> None:
    """Where we failed first and the host then raises, the host's own error is what it gets."""
    guard, _ = set_up(["halt"], strict=False)
    error = ValueError("the host's")
    with pytest.raises(ValueError, match="the host's") as caught:
        driver.model(guard, model(guard, "opening"), Handler(error))
    assert caught.value is error


def test_our_mistake_at_a_later_attempt(driver: Driver) -> None:
    """Where we fail between two attempts, the host gets the answer there is and is not asked again."""
    guard, _ = set_up([{"retry": 3}], strict=False)

    class Tired(ModelSeat):
        def request(self, feedback: Any) -> list[str]:
            """Fail the second time."""
            self._broken = "request" if self.history == ["seen"] else ""
            self.history = ["seen"]
            return super().request(feedback)

    handler = Handler(bad(1), GOOD)
    session = guard.session(RUN)
    assert session is not None
    assert driver.model(guard, Tired(session), handler).content == "bad 1"
    assert len(handler.asked) == 1


@pytest.mark.parametrize("broken", ["object", "stop"])
def test_a_receipt_is_written_when_the_thing_is_done(driver: Driver, broken: str) -> None:
    """Where the seat failed to refuse or to end, the report does not say that it did."""
    guard, _ = set_up(["halt" if broken == "stop" else "refuse"], strict=False)
    driver.tool(guard, call(guard, "forbidden", broken), Handler("a result"))
    guard.end(RUN)
    (decision,) = guard.report(RUN).runs[0].decisions
    assert decision.took_effect is False


def closed() -> Guard:
    """A guard one of whose rules refuses what it could not check."""
    rules = {LOOP: Rule(on_guard_failure="closed"), ARGUMENT: Rule(ladder=())}
    guard = Guard(policy(rules))
    guard.open(RUN)
    return guard


@pytest.mark.parametrize(("broken", "made"), [("requested", 0), ("request", 0), ("result", 1)])
def test_fail_closed_refuses_what_was_not_checked(driver: Driver, broken: str, made: int) -> None:
    """Under a fail-closed rule a call we failed to check is not made; one that was made gives what it gave."""
    guard, handler = closed(), Handler("a result")
    got = driver.tool(guard, call(guard, broken=broken), handler, refuse=lambda text: f"refused: {text}")
    assert len(handler.asked) == made
    assert got == "a result" if made else got.startswith("refused: [misstep: guard_failure] This call was not executed")


def test_fail_closed_where_nothing_can_be_refused(driver: Driver) -> None:
    """A seat that has no way to refuse, as a model's, goes on as without us."""
    guard, handler = closed(), Handler(GOOD)
    assert driver.model(guard, model(guard, "opening"), handler) is GOOD


def test_strict_shows_our_mistakes(driver: Driver) -> None:
    """A strict guard, as tests use, raises what we got wrong."""
    guard, _ = set_up(["halt"], strict=True)
    with pytest.raises(Bug):
        driver.model(guard, model(guard, "reply"), Handler(GOOD))


def test_a_refusal_is_told_to_no_one_else(driver: Driver, caplog: pytest.LogCaptureFixture) -> None:
    """A decision is a line in the log, with the run and what was decided, and no text of the run."""
    guard, _ = set_up(["refuse"])
    with caplog.at_level(logging.INFO, "misstep"):
        driver.tool(guard, call(guard, "forbidden", q="the secret of the run"), Handler("a result"))
    assert "run r: decided refuse" in caplog.text
    assert "the secret of the run" not in caplog.text


def test_both_ways_tell_the_same() -> None:
    """Sync and async, the same things are recorded in the same order."""
    told: list[list[tuple[str, Any]]] = []
    for name in ("sync", "async"):
        guard, records = set_up([{"retry": 1}, {"reprompt": 1}, "refuse"])
        driver = Driver(name)
        driver.model(
            guard, model(guard, "", user("go")), Handler(bad(1), bad(2), replied("", proposed("c1", "forbidden")))
        )
        for id_ in ("c1", "c2", "c3"):
            driver.tool(guard, call(guard, "forbidden", id_=id_), Handler("a result"))
        guard.end(RUN)
        told.append([(event.kind, getattr(event, "decision", None)) for event in records.events])  # type: ignore[attr-defined]
    assert told[0] == told[1]


def test_the_call_is_the_one_that_was_judged(driver: Driver) -> None:
    """What is put on record as requested is what the seat says was asked for."""
    guard, records = set_up(["refuse"])
    driver.tool(guard, call(guard, q="x"), Handler("a result"))
    (event,) = records.of(ToolRequested)
    assert (event.tool, event.arguments, event.call) == ("search", {"q": "x"}, "c1")
