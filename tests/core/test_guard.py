"""The guard: one call one verdict, receipts, what fails, what is bounded, and who is told."""

from __future__ import annotations

import copy
import logging
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from misstep import AttachError, Guard, default_policy
from misstep.decisions import Kind, Refuse
from misstep.dispatch import subscription
from misstep.events import (
    AnomalyFound,
    AnyEvent,
    DecisionSettled,
    DecisionTaken,
    Event,
    MessageSent,
    ModelResponded,
    RunEnded,
    RunResumed,
    RunStarted,
    ToolCancelled,
    ToolRequested,
    ToolReturned,
    TurnStarted,
    Usage,
)
from misstep.policy import Rule
from misstep.report import DecisionReport
from misstep.seats import WATCHING, Seat, Seats, described
from misstep.taxonomy import AnomalyType, Category, Severity
from tests.core.scenes import (
    ARGUMENT,
    EMPTY,
    EVERYTHING,
    FAILURE,
    LOOP,
    RUN,
    Driver,
    Handler,
    ModelSeat,
    Records,
    Stopped,
    ToolSeat,
    crashes,
    detector,
    exchange,
    failed,
    finds,
    policy,
    proposed,
    replied,
    requested,
    returned,
    types,
    user,
)

SYNC = Driver("sync")


def set_up(ladders: dict[AnomalyType, Any], *detectors: Any, **options: Any) -> tuple[Guard, Records]:
    """A strict guard with these ladders and rules, one run open, and what it records."""
    records = Records()
    guard = Guard(policy(ladders), detectors=detectors, sink=records, **{"strict": True, **options})
    guard.open(RUN)
    return guard, records


def decisions(guard: Guard, run: str = RUN) -> tuple[DecisionReport, ...]:
    """What was decided in a run."""
    return guard.report(run).runs[0].decisions


def forbidden(type_: AnomalyType = LOOP) -> Any:
    """A rule against the tool `forbidden`."""
    return finds(type_, when=lambda call: call.tool == "forbidden")


# -- one call, one verdict --------------------------------------------------------------------------------------------


def test_a_call_is_judged_where_it_is_proposed() -> None:
    """The verdict on a proposed call is kept for the seats after: asked again, the rule is not."""
    guard, records = set_up({LOOP: ["refuse"]}, forbidden())
    guard.observe(replied("", proposed("c1", "forbidden"), proposed("c2", "search")))
    assert isinstance(guard.verdict(requested("c1", "forbidden")).decision, Refuse)
    assert isinstance(guard.verdict(requested("c1", "forbidden")).decision, Refuse)
    assert guard.verdict(requested("c2", "search")).decision.kind is Kind.ALLOW
    assert len(records.of(AnomalyFound)) == len(records.of(DecisionTaken)) == 1
    assert len(records.of(ToolRequested)) == 2


def test_a_call_nobody_proposed_is_judged_where_it_is_made() -> None:
    """A call that went past every model seat is judged at the tool."""
    guard, records = set_up({LOOP: ["refuse"]}, forbidden())
    assert isinstance(guard.verdict(requested("c1", "forbidden")).decision, Refuse)
    assert len(records.of(AnomalyFound)) == 1


def test_an_id_used_again_is_judged_again() -> None:
    """A verdict holds until its call is done; the next call of the same id has one of its own."""
    guard, _ = set_up({LOOP: [{"refuse": 1}, "halt"]}, forbidden())
    for kind in (Kind.ALLOW, Kind.REFUSE):
        tool = "search" if kind is Kind.ALLOW else "forbidden"
        guard.observe(replied("", proposed("c1", tool), call=f"m-{tool}"))
        assert guard.verdict(requested("c1", tool)).decision.kind is kind
        guard.observe(returned("c1", tool=tool))


@pytest.mark.parametrize("tool", ["forbidden", "search"])
def test_a_node_that_runs_again_meets_the_same_verdict(tool: str) -> None:
    """A call of a reply that is made again from the start of its node, as after an interrupt, is not judged again."""
    guard, records = set_up({LOOP: [{"refuse": 1}]}, forbidden())
    guard.observe(replied("", proposed("c1", tool)))
    handler = Handler("a result")
    said = [SYNC.tool(guard, ToolSeat(guard.open(RUN), requested("c1", tool)), handler) for _ in range(3)]
    assert len(set(said)) == 1
    assert len(handler.asked) == (0 if tool == "forbidden" else 3)
    assert len(records.of(ToolRequested)) == 1
    assert len(records.of(AnomalyFound)) == len(records.of(DecisionTaken)) == (tool == "forbidden")


def test_parallel_calls_of_a_reply_without_an_id() -> None:
    """The calls of a reply its framework gave no id are simultaneous all the same."""
    guard, records = set_up({LOOP: Rule(ladder=())})
    for batch in range(2):
        guard.observe(replied("", *(proposed(f"{batch}.{number}", q="x") for number in range(5)), call=None))
        for number in range(5):
            guard.observe(returned(f"{batch}.{number}"))
    assert records.of(AnomalyFound) == []
    assert len({event.batch for event in records.of(ToolRequested)}) == 2


def test_calls_fall_with_their_reply() -> None:
    """A reply that is thrown away takes its calls with it: each is on record as never made, and has no verdict left."""
    guard, records = set_up(
        {LOOP: [{"retry": 1}, "refuse"], ARGUMENT: ["refuse"]},
        forbidden(),
        finds(ARGUMENT, when=lambda call: call.tool == "odd"),
    )
    calls = (proposed("c1", "search"), proposed("c2", "forbidden"), proposed("c3", "odd"))
    assert guard.observe(replied("", *calls)).kind is Kind.RETRY
    assert [event.call for event in records.of(ToolCancelled)] == ["c1", "c2", "c3"]
    receipt = next(decision for decision in decisions(guard) if decision.anomaly is ARGUMENT)
    assert (receipt.took_effect, receipt.detail) == (False, "fell with the reply")
    assert guard.observe(replied("", *calls, attempt=1)).kind is Kind.ALLOW
    assert isinstance(guard.verdict(requested("c2", "forbidden")).decision, Refuse)


def test_what_concerns_a_reply_and_what_concerns_a_call() -> None:
    """A refusal of one call leaves the reply and its other calls alone."""
    guard, records = set_up({LOOP: ["refuse"]}, forbidden())
    assert guard.observe(replied("", proposed("c1", "forbidden"), proposed("c2"))).kind is Kind.ALLOW
    assert records.of(ToolCancelled) == []


def test_the_calls_of_a_reply_are_told_once() -> None:
    """A proposed call is on record as requested by its reply, with its arguments or, where they are none, its text."""
    guard, records = set_up({})
    guard.observe(replied("", proposed("c1", "search", q="x"), agent="a", instance="i"))
    (call,) = records.of(ToolRequested)
    (reply,) = records.of(ModelResponded)
    assert (call.batch, call.parent, call.step) == ("m1", reply.id, reply.step)
    assert (call.agent, call.instance, call.arguments) == ("a", "i", {"q": "x"})


# -- several at once --------------------------------------------------------------------------------------------------


def test_the_strongest_wins_and_all_are_on_record() -> None:
    """Of several anomalies on one event the strongest decision is taken; the others are recorded as superseded."""
    guard, records = set_up(
        {LOOP: ["refuse"], ARGUMENT: [{"reprompt": 1}], EMPTY: []}, *map(finds, (LOOP, ARGUMENT, EMPTY))
    )
    assert guard.observe(requested()).kind is Kind.REFUSE
    assert {event.type for event in records.of(AnomalyFound)} == {LOOP, ARGUMENT, EMPTY}
    loser, winner = decisions(guard)
    assert (winner.kind, winner.anomaly, winner.took_effect) == (Kind.REFUSE, LOOP, None)
    assert (loser.kind, loser.took_effect, loser.detail) == (Kind.REPROMPT, False, "superseded by refuse")


def test_records_name_what_they_are_about() -> None:
    """Anomalies, decisions and receipts stand where the event does and point back to what they answer."""
    guard, records = set_up({LOOP: ["refuse"]}, forbidden())
    event = requested("c1", "forbidden", agent="a", instance="i")
    verdict = guard.judge(event)
    session = guard.session(RUN)
    assert session is not None
    guard.settle(session, verdict, took_effect=True)
    (found,), (taken,), (settled,) = (records.of(cls) for cls in (AnomalyFound, DecisionTaken, DecisionSettled))
    for record in (found, taken, settled):
        assert (record.agent, record.instance, record.step) == ("a", "i", event.step)
    assert (found.parent, found.call, found.category, found.severity) == (
        event.id,
        "c1",
        Category.ACTION,
        Severity.MEDIUM,
    )
    assert (taken.parent, taken.anomalies, taken.decision) == (event.id, (found.id,), Kind.REFUSE)
    assert settled.decision_id == taken.id
    assert verdict.types == {LOOP}


# -- receipts ---------------------------------------------------------------------------------------------------------


def play(guard: Guard, call: str) -> str:
    """The forbidden tool, called through its seat."""
    session = guard.open(RUN)
    return str(SYNC.tool(guard, ToolSeat(session, requested(call, "forbidden")), Handler("a result")))


def test_took_effect_and_did_not_come_back() -> None:
    """A refusal that was carried out, after which the anomaly did not come back, has worked."""
    guard, _ = set_up({LOOP: ["refuse"]}, forbidden())
    play(guard, "c1")
    assert [(one.took_effect, one.recurred) for one in decisions(guard)] == [(True, None)]
    guard.end(RUN)
    assert [(one.took_effect, one.recurred) for one in decisions(guard)] == [(True, False)]


def test_took_effect_and_came_back() -> None:
    """A refusal after which the same agent does the same again has not worked."""
    guard, _ = set_up({LOOP: ["refuse"]}, forbidden())
    play(guard, "c1")
    play(guard, "c2")
    guard.end(RUN)
    assert [(one.took_effect, one.recurred) for one in decisions(guard)] == [(True, True), (True, False)]


def test_another_agents_anomaly_is_no_recurrence() -> None:
    """What another copy of the agent does says nothing about whether a remedy worked on this one."""
    guard, _ = set_up({LOOP: ["refuse"]}, forbidden())
    play(guard, "c1")
    guard.observe(requested("c2", "forbidden", instance="other"))
    assert decisions(guard)[0].recurred is None


def test_what_no_seat_met_had_no_effect() -> None:
    """A refusal of a call that was never made has had no effect when the run ends."""
    guard, _ = set_up({LOOP: ["refuse"]}, forbidden())
    guard.observe(replied("", proposed("c1", "forbidden")))
    guard.end(RUN)
    (decision,) = decisions(guard)
    assert (decision.took_effect, decision.detail) == (False, "no seat met the call again")


def test_simultaneous_anomalies_are_no_recurrence() -> None:
    """A second anomaly in the same reply does not mean that the remedy for the first has failed."""
    guard, _ = set_up({LOOP: ["refuse"]}, forbidden())
    guard.observe(replied("", proposed("c1", "forbidden"), proposed("c2", "forbidden")))
    assert [decision.recurred for decision in decisions(guard)] == [None, None]


def test_a_reprompt_that_helped() -> None:
    """A reply that was asked for again and came back sound: the reprompt took effect and the anomaly is gone."""
    guard, _ = set_up({EMPTY: [{"reprompt": 1}]})
    seat = ModelSeat(guard.open(RUN))
    SYNC.model(guard, seat, Handler(replied(""), replied("fine")))
    assert [(one.took_effect, one.recurred) for one in decisions(guard)] == [(True, False)]


def test_a_reprompt_that_did_not_help() -> None:
    """A reply that was asked for again and came back as bad: the reprompt took effect and the anomaly is back."""
    guard, _ = set_up({EMPTY: [{"reprompt": 1}]})
    seat = ModelSeat(guard.open(RUN))
    SYNC.model(guard, seat, Handler(replied("")))
    assert [(one.took_effect, one.recurred) for one in decisions(guard)] == [(True, True)]


def test_another_anomaly_is_not_the_same_one_come_back() -> None:
    """If the next attempt goes wrong in another way, the first remedy did help against what it was for."""
    rules = (
        finds(EMPTY, ModelResponded, lambda reply: reply.content == "a"),
        finds(LOOP, ModelResponded, lambda reply: reply.content == "b"),
    )
    guard, _ = set_up({EMPTY: [{"retry": 1}], LOOP: [{"reprompt": 1}]}, *rules)
    SYNC.model(guard, ModelSeat(guard.open(RUN)), Handler(replied("a"), replied("b"), replied("c")))
    assert [(one.kind, one.took_effect, one.recurred) for one in decisions(guard)] == [
        (Kind.RETRY, True, False),
        (Kind.REPROMPT, True, False),
    ]


def test_a_late_decision_says_so() -> None:
    """A decision on a reply whose tokens somebody has already seen is carried out, and called late."""
    guard, _ = set_up({EMPTY: [{"retry": 1}]}, finds(EMPTY, ModelResponded, lambda reply: reply.content == "a"))
    SYNC.model(guard, ModelSeat(guard.open(RUN), streaming=True), Handler(replied("a"), replied("b")))
    (decision,) = decisions(guard)
    assert decision.took_effect
    assert "late" in decision.detail


@pytest.mark.parametrize(
    ("took_effect", "recurred", "said"),
    [
        (None, None, "- open"),
        (True, None, "- took effect"),
        (True, False, "- took effect, the anomaly did not come back"),
        (True, True, "- took effect, the anomaly came back"),
        (False, None, "- DID NOT TAKE EFFECT"),
        (False, True, "- DID NOT TAKE EFFECT, the anomaly came back"),
    ],
)
def test_a_receipt_in_words(took_effect: bool | None, recurred: bool | None, said: str) -> None:
    """A report says of each decision whether it held, loudest where it was not carried out."""
    guard, _ = set_up({LOOP: ["refuse"]}, forbidden())
    verdict = guard.judge(requested("c1", "forbidden"))
    if took_effect is not None:
        guard.settle(guard.open(RUN), verdict, took_effect=took_effect, recurred=recurred)
    assert any(line.endswith(f"refuse for repeated_call {said}") for line in str(guard.report(RUN)).splitlines())


# -- halts and modes --------------------------------------------------------------------------------------------------


def test_a_run_that_was_halted_ends_so() -> None:
    """A run in which a halt was decided is reported as halted, even if its framework says it completed."""
    guard, _ = set_up({LOOP: ["halt"]}, forbidden())
    with pytest.raises(Stopped):
        play(guard, "c1")
    guard.end(RUN)
    assert guard.report(RUN).runs[0].status == "halted"


def test_a_halt_of_one_run_is_not_another_runs() -> None:
    """A halt holds in the run it was decided in and nowhere else."""
    guard, _ = set_up({LOOP: ["halt"]}, forbidden())
    guard.observe(requested("c1", "forbidden"))
    other = guard.open("other")
    reply = replied("fine", run="other")
    assert SYNC.model(guard, ModelSeat(other), Handler(reply)) is reply


@pytest.mark.parametrize("mode", ["shadow", "off", "enforce"])
def test_the_environment_switches_the_guard(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """MISSTEP_MODE wins over what the code and the policy say."""
    monkeypatch.setenv("MISSTEP_MODE", mode)
    assert Guard(policy(mode="shadow"), mode="enforce").mode == mode


def test_the_code_wins_over_the_policy() -> None:
    """A mode given to the guard wins over that of its policy."""
    assert Guard(policy(mode="shadow")).mode == "shadow"
    assert Guard(policy(mode="shadow"), mode="enforce").mode == "enforce"


def test_a_mode_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A MISSTEP_MODE nobody knows is an error that says what there is, not a guard that is silently something else."""
    monkeypatch.setenv("MISSTEP_MODE", "on")
    with pytest.raises(ValueError, match=r"MISSTEP_MODE must be `enforce`, `shadow` or `off`, found 'on'"):
        Guard()


def test_off_sees_nothing() -> None:
    """A guard that is off decides nothing, records nothing, and its API can still be called."""
    guard, records = set_up({LOOP: ["halt"]}, finds(LOOP), mode="off")
    assert guard.observe(requested()).kind is Kind.ALLOW
    assert guard.verdict(requested()).decision.kind is Kind.ALLOW
    guard.end(RUN)
    assert records.events == []
    assert guard.report(RUN).runs[0].anomalies == ()


def test_shadow_decides_and_lets_pass() -> None:
    """In shadow every decision is on record as hypothetical, has no receipt, and nothing is enforced."""
    guard, records = set_up({LOOP: ["halt"]}, finds(LOOP), mode="shadow")
    assert guard.observe(requested()).kind is Kind.ALLOW
    guard.end(RUN)
    (decision,) = decisions(guard)
    assert (decision.kind, decision.hypothetical, decision.took_effect) == (Kind.HALT, True, None)
    assert records.of(DecisionSettled) == []
    assert guard.report(RUN).runs[0].status == "completed"
    assert "(not carried out: watching only)" in str(guard.report(RUN))


def test_history_is_known_and_never_acted_on() -> None:
    """What was said before the guard came is indexed and judged by nobody."""
    guard, records = set_up({LOOP: ["halt"]}, finds(LOOP))
    assert guard.observe(requested("c1", history=True)).kind is Kind.ALLOW
    assert records.of(AnomalyFound) == []
    assert len(records.of(ToolRequested)) == 1


def test_a_copy_of_a_graph_keeps_its_guard() -> None:
    """Copying what a guard is attached to, however deeply, keeps the same guard."""
    guard = Guard()
    assert copy.deepcopy({"guard": guard})["guard"] is guard


# -- attaching --------------------------------------------------------------------------------------------------------

FEW = Seats("few", {Seat.TOOL: {Kind.REFUSE: ""}, Seat.MODEL: {Kind.RETRY: "", Kind.REPROMPT: ""}})
"""An adapter that can refuse calls and ask again, and cannot end a run."""


@pytest.mark.parametrize("kind", ["reroute", "vote"])
def test_a_policy_that_asks_too_much_is_refused(kind: str) -> None:
    """A user's policy that asks for what no seat can enact is an error when the guard is attached, with the way out."""
    guard = Guard(policy({LOOP: [{"reprompt": 1}, {kind: 1}]}))
    with pytest.raises(AttachError) as caught:
        guard.attach(FEW)
    (gap,) = caught.value.gaps
    assert caught.value.adapter == "few"
    assert gap == (
        f"`repeated_call` asks for `{kind}`, which `model` and `tool` of `few` cannot enact; "
        "it can: `refuse`, `reprompt`, `retry`"
    )
    assert gap in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_every_gap_is_named() -> None:
    """All that is asked for in vain is told at once."""
    guard = Guard(policy({LOOP: [{"vote": 1}, "halt"], EMPTY: [{"fallback": 1}]}))
    with pytest.raises(AttachError) as caught:
        guard.attach(FEW)
    assert [gap.split("`")[3] for gap in caught.value.gaps] == ["vote", "halt", "fallback"]


def test_a_seat_is_asked_for_what_can_still_be_done_there() -> None:
    """A remedy counts as possible only where the event it answers can still be acted on."""
    refuses_only_at_turns = Seats("turns", {Seat.TURN: {Kind.REFUSE: ""}, Seat.MODEL: {Kind.RETRY: ""}})
    with pytest.raises(AttachError, match="asks for `refuse`"):
        Guard(policy({LOOP: ["refuse"]})).attach(refuses_only_at_turns)


def test_a_remedy_for_the_guards_own_failure_must_be_possible_too() -> None:
    """A ladder for failures of the guard is held against the seats like any other."""
    with pytest.raises(AttachError, match="`guard_failure` asks for `reroute`"):
        Guard(policy({FAILURE: [{"reroute": 1}]})).attach(FEW)
    Guard(policy({FAILURE: ["refuse"]})).attach(FEW)


def test_an_adapter_that_only_watches() -> None:
    """Where no seat can do anything, the error says that it can only watch."""
    with pytest.raises(AttachError, match="nothing: it can only watch"):
        Guard(policy({LOOP: ["refuse"]})).attach(WATCHING)


def test_a_policy_that_asks_for_what_there_is() -> None:
    """A policy whose every rung some seat can enact is attached without a word."""
    guard = Guard(policy({LOOP: [{"retry": 1}, {"reprompt": 1}, "refuse"], EMPTY: [{"retry": 1}]}))
    guard.attach(FEW)
    assert guard.report().unsupported == ()


@pytest.mark.parametrize("mode", ["shadow", "off"])
def test_what_is_not_enforced_need_not_be_possible(mode: Any) -> None:
    """A guard that only watches, or is off, may be attached anywhere."""
    Guard(policy({LOOP: [{"vote": 1}]}), mode=mode).attach(WATCHING)


def test_the_built_in_policy_degrades(caplog: pytest.LogCaptureFixture) -> None:
    """The built-in policy takes the next rung there is; what it had to leave out is logged once and in every report."""
    guard = Guard()
    for _ in range(3):
        guard.attach(FEW)
    gap = (
        "`repeated_call` asks for `halt`, which `model` and `tool` of `few` cannot enact; "
        "it can: `refuse`, `reprompt`, `retry`"
    )
    assert caplog.text.count(gap) == 1
    for _ in range(2):
        assert guard.report().unsupported == (gap,)
        assert str(guard.report()).splitlines()[0] == f"! not enforced: {gap}"


def test_a_user_may_ask_for_the_same() -> None:
    """`unsupported: degrade` lets a user's policy be attached where it asks for too much, and reports it."""
    guard = Guard(policy({LOOP: [{"vote": 1}, "refuse"]}, unsupported="degrade"), strict=True, detectors=[finds(LOOP)])
    guard.attach(FEW)
    guard.open(RUN, seats=FEW)
    assert guard.observe(requested()).kind is Kind.REFUSE
    assert len(guard.report().unsupported) == 1


def test_seats_in_words() -> None:
    """What an adapter can do is one line for a person."""
    assert described(FEW) == "tool: refuse; model: reprompt, retry"
    assert described(Seats("x", {Seat.RUN: {}})) == "run: watches"
    assert described(WATCHING) == "watches only"


# -- rules that fail --------------------------------------------------------------------------------------------------


def test_a_rule_that_crashes_lets_pass_and_is_on_record() -> None:
    """A fail-open rule that raises lets the call pass, and the failure is an anomaly of the guard's own."""
    guard, records = set_up({LOOP: ["halt"]}, crashes(), strict=False)
    assert guard.observe(requested()).kind is Kind.ALLOW
    (found,) = records.of(AnomalyFound)
    assert (found.type, found.category) == (FAILURE, Category.GUARD)
    assert found.message == "rule `repeated_call` crashed: LookupError"


def test_a_rule_that_crashes_keeps_no_other_from_speaking() -> None:
    """The rules after one that raises are asked all the same."""
    guard, _ = set_up({LOOP: [], ARGUMENT: ["refuse"]}, crashes(LOOP), finds(ARGUMENT), strict=False)
    assert guard.observe(requested()).kind is Kind.REFUSE


def test_a_failure_of_the_guard_has_a_ladder() -> None:
    """What is to happen when the guard fails is for the policy to say."""
    guard, _ = set_up({LOOP: [], FAILURE: [{"refuse": 1}, "halt"]}, crashes(), strict=False)
    assert [guard.observe(requested(f"c{number}")).kind for number in range(2)] == [Kind.REFUSE, Kind.HALT]


def test_a_rule_that_keeps_crashing_is_quarantined() -> None:
    """A rule that raised three times is asked no more, and every report says so, loudly and first."""
    asked: list[Event] = []
    rule = detector(LOOP, ToolRequested, lambda event, run: asked.append(event) or 1 / 0)
    guard, records = set_up({LOOP: ["halt"]}, rule, strict=False)
    for number in range(5):
        guard.observe(requested(f"c{number}"))
    assert len(asked) == len(records.of(AnomalyFound)) == 3
    assert guard.report().quarantined == ("repeated_call: crashed 3 times, last: ZeroDivisionError",)
    assert str(guard.report()).startswith("! rule quarantined: repeated_call: crashed 3 times")


def test_a_fail_closed_rule_that_crashes_refuses() -> None:
    """A fail-closed rule that raises refuses this very call, says what to do, and is never quarantined."""
    guard, _ = set_up({LOOP: Rule(on_guard_failure="closed")}, crashes(), strict=False)
    for number in range(6):
        decision = guard.observe(requested(f"c{number}"))
        assert isinstance(decision, Refuse)
        assert decision.objection.startswith("[misstep: guard_failure] This call was not executed")
    assert guard.report().quarantined == ()
    assert guard.fails_closed


def test_a_fail_closed_rule_that_crashes_on_a_reply_ends_the_run() -> None:
    """Where there is no call to refuse, a fail-closed rule that raises ends the run."""
    guard, _ = set_up({LOOP: Rule(on_guard_failure="closed")}, crashes(LOOP, ModelResponded), strict=False)
    assert guard.observe(replied("hello")).kind is Kind.HALT


def test_a_strict_guard_raises_what_its_rules_raise() -> None:
    """In tests, a rule's mistake is an exception."""
    guard, _ = set_up({LOOP: []}, crashes())
    with pytest.raises(LookupError):
        guard.observe(requested())


def slow(when: Any = lambda event: True) -> Any:
    """A rule that dawdles at the events `when` says."""
    return detector(LOOP, ToolRequested, lambda event, run: time.sleep(0.06) if when(event) else None)


def test_a_slow_rule_is_quarantined() -> None:
    """A rule that is too slow three times running is asked no more."""
    guard, _ = set_up({LOOP: ["halt"]}, slow())
    for number in range(5):
        guard.observe(requested(f"c{number}"))
    (said,) = guard.report().quarantined
    assert said.startswith("repeated_call: slower than 0.05 s 3 times")


def test_a_rule_that_had_to_wait_now_and_then_is_not_quarantined() -> None:
    """A rule that is quick nearly always goes on: on a busy machine any rule has to wait for its turn at times."""
    guard, _ = set_up({LOOP: ["halt"]}, slow(lambda event: event.tool == "slow"))
    for number in range(400):
        guard.observe(requested(f"c{number}", "slow" if number in (100, 200, 300, 399) else "quick"))
    assert guard.report().quarantined == ()


def test_a_fail_closed_rule_that_is_slow_goes_on() -> None:
    """Nobody is left unprotected without knowing: a fail-closed rule is not quarantined for being slow either."""
    guard, _ = set_up({LOOP: Rule(on_guard_failure="closed")}, slow())
    for number in range(4):
        guard.observe(requested(f"c{number}"))
    assert guard.report().quarantined == ()


def test_the_guards_own_code_fails_without_a_word_to_the_host() -> None:
    """Where the guard itself raises, the call passes, and the failure is on record."""
    rule = detector(LOOP, ToolRequested, lambda event, run: 3)
    guard, records = set_up({LOOP: ["halt"]}, rule, strict=False)
    assert guard.observe(requested()).kind is Kind.ALLOW
    (found,) = records.of(AnomalyFound)
    assert found.type is FAILURE
    assert found.message.startswith("ToolRequested: ")


def test_the_guards_own_code_fails_closed_where_a_rule_does() -> None:
    """Under a fail-closed rule a call the guard failed on is refused, and nothing else is."""
    rule = detector(LOOP, ToolRequested | MessageSent, lambda event, run: 3)
    guard, _ = set_up({LOOP: Rule(on_guard_failure="closed")}, rule, strict=False)
    assert guard.observe(requested()).kind is Kind.REFUSE
    assert guard.observe(user("hello")).kind is Kind.ALLOW


# -- what rules hear --------------------------------------------------------------------------------------------------


ALL = {"run.started", "message.sent", "turn.started", "model.responded", "tool.requested", "tool.returned", "run.ended"}


@pytest.mark.parametrize(
    ("heard", "kinds"),
    [
        (ToolRequested, {"tool.requested"}),
        (ToolRequested | ToolReturned, {"tool.requested", "tool.returned"}),
        (TurnStarted, {"turn.started"}),
        (Event, ALL),
        (AnyEvent, ALL),
    ],
    ids=["one", "two", "another", "all by the base", "all by the union"],
)
def test_the_annotation_is_the_subscription(heard: Any, kinds: set[str]) -> None:
    """A rule hears the events its annotation names, and all of them where it names what all of them are."""
    told: list[Event] = []
    guard, _ = set_up({LOOP: []}, detector(LOOP, heard, lambda event, run: told.append(event)))
    for event in (user("a"), TurnStarted(run=RUN), replied("", proposed()), returned()):
        guard.observe(event)
    guard.end(RUN)
    assert {event.kind for event in told} == kinds  # type: ignore[attr-defined]


@pytest.mark.parametrize("heard", [int, str | None, "ToolRequested | None"], ids=str)
def test_a_rule_that_does_not_say_what_it_hears(heard: Any) -> None:
    """A rule whose annotation names no event is an error when the guard is made, not a rule that is never asked."""
    with pytest.raises((TypeError, NameError)):
        Guard(detectors=[detector(LOOP, heard, lambda event, run: None)])


def test_a_rule_without_an_annotation() -> None:
    """A rule that names no parameter `event` is an error too."""

    class Deaf:
        type = LOOP

        def __call__(self, what: Any, run: Any) -> None:
            """Hear nothing."""

    with pytest.raises(TypeError, match="must annotate its parameter `event`"):
        subscription(Deaf())


def test_your_own_rule_takes_the_place_of_ours() -> None:
    """A detector given to the guard is asked instead of the built-in one of its type, with that one's ladder."""
    guard = Guard(policy({LOOP: ["refuse"]}), detectors=[finds(LOOP)], strict=True)
    assert guard.observe(requested()).kind is Kind.REFUSE


def test_your_own_rule_for_another_type_is_asked_beside_ours() -> None:
    """A detector for a type the policy has no rule for is asked, and what it finds is recorded."""
    guard = Guard(default_policy(), detectors=[finds(AnomalyType.OFF_TASK_ACTION)], strict=True)
    guard.observe(requested())
    assert types(guard.report(RUN).runs[0]) == [AnomalyType.OFF_TASK_ACTION]


def test_an_installed_package_brings_rules(tmp_path: Path) -> None:
    """A package that announces a detector by entry point makes its type one that a policy may have a rule for."""
    (tmp_path / "their_rules.py").write_text(
        textwrap.dedent(
            """
            from dataclasses import dataclass
            from typing import ClassVar
            from misstep.anomalies import Anomaly
            from misstep.events import ToolRequested
            from misstep.taxonomy import AnomalyType

            @dataclass(frozen=True)
            class NoShell:
                word: str = "rm"
                type: ClassVar = AnomalyType.UNSAFE_COMMAND

                def __call__(self, event: ToolRequested, run):
                    if self.word in str(event.arguments):
                        return Anomaly(type=self.type, message="no shell")
            """
        ),
        encoding="utf-8",
    )
    info = tmp_path / "their_rules-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-rules\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[misstep.detectors]\nx = their_rules:NoShell\n", encoding="utf-8")
    script = textwrap.dedent(
        """
        from misstep import Guard
        from misstep.events import ToolRequested
        from misstep.policy import parse_policy

        policy = parse_policy("version: 1\\nrules: {unsafe_command: {with: {word: dd}, ladder: [refuse]}}")
        guard = Guard(policy, strict=True)
        for command in ("ls", "dd if=/dev/zero"):
            print(guard.observe(ToolRequested(run="r", call=command, tool="sh", arguments={"c": command})).kind.value)
        """
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split() == ["allow", "refuse"]


# -- who is told ------------------------------------------------------------------------------------------------------


def test_listeners_are_told_of_their_type() -> None:
    """A listener hears every anomaly of its type, by name or by member, and no other, once all is decided."""
    guard, _ = set_up({LOOP: ["refuse"], EMPTY: []}, forbidden(), finds(EMPTY, when=lambda call: call.tool == "x"))
    heard: list[AnomalyFound] = []
    told: list[int] = []
    guard.on("repeated_call", heard.append)
    guard.on(LOOP, lambda found: told.append(len(decisions(guard))))
    guard.observe(requested("c1", "forbidden"))
    guard.observe(requested("c2", "x"))
    assert [found.type for found in heard] == [LOOP]
    assert told == [1]


def test_a_listener_for_nothing() -> None:
    """Asking to be told of a type there is not is an error."""
    with pytest.raises(ValueError, match="repeated_cal"):
        Guard().on("repeated_cal", print)


def test_a_listener_that_raises_is_nobodys_problem(caplog: pytest.LogCaptureFixture) -> None:
    """A listener's exception is logged; the decision stands, and the other listeners are told."""
    guard, _ = set_up({LOOP: ["refuse"]}, forbidden(), strict=False)
    heard: list[AnomalyFound] = []

    def raises(found: AnomalyFound) -> None:
        raise LookupError("the listener's own")

    guard.on(LOOP, raises)
    guard.on(LOOP, heard.append)
    assert guard.observe(requested("c1", "forbidden")).kind is Kind.REFUSE
    assert len(heard) == 1
    assert "a listener for `repeated_call` raised" in caplog.text


def test_a_listener_may_use_the_guard() -> None:
    """No lock is held while a listener is told: it may ask, from another thread even, for what it likes."""
    guard, _ = set_up({LOOP: ["refuse"]}, forbidden(), finds(EMPTY, RunEnded), runs=1)
    asked: list[str] = []

    def elsewhere(found: AnomalyFound) -> None:
        def ask() -> None:
            guard.observe(user("from a listener", run=found.run))
            asked.append(str(guard.report(found.run).runs[0].run))

        thread = threading.Thread(target=ask)
        thread.start()
        thread.join(timeout=10)

    guard.on(LOOP, elsewhere)
    guard.on(EMPTY, elsewhere)
    guard.observe(requested("c1", "forbidden"))
    guard.open("next")  # which evicts the first, and ends it
    assert asked == [RUN, RUN]


def test_a_sink_that_raises_is_nobodys_problem(caplog: pytest.LogCaptureFixture) -> None:
    """A sink's exception is logged once; decisions stand."""

    class Broken(Records):
        def write(self, event: Event) -> None:
            """Fail."""
            raise OSError("disk full")

    guard = Guard(policy({LOOP: ["refuse"]}), detectors=[forbidden()], sink=Broken(), strict=True)
    assert guard.observe(requested("c1", "forbidden")).kind is Kind.REFUSE
    assert guard.observe(user("hello")).kind is Kind.ALLOW
    assert caplog.text.count("the sink failed; events are being lost") == 1


def test_a_sink_is_told_everything_in_order() -> None:
    """A sink gets every event of a run as it was numbered, from its start to its end."""
    guard, records = set_up({LOOP: ["refuse"]}, forbidden())
    guard.observe(replied("", proposed("c1", "forbidden")))
    play(guard, "c1")
    guard.end(RUN)
    assert [event.seq for event in records.events] == list(range(len(records.events)))
    assert isinstance(records.events[0], RunStarted)
    assert isinstance(records.events[-1], RunEnded)


def test_anomalies_are_lines_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Every anomaly is a record of the standard log, at a level as grave as it is, in one line without escapes."""
    nasty = "x\x1b[31m\nERROR forged line\u202e"
    guard, _ = set_up({LOOP: [], EMPTY: []})
    with caplog.at_level(logging.INFO, "misstep"):
        for number in range(3):
            for event in exchange(f"c{number}", tool=nasty):
                guard.observe(event)
    (record,) = [record for record in caplog.records if "repeated_call" in record.getMessage()]
    assert record.levelno == logging.WARNING
    assert record.getMessage().isprintable()


# -- how runs end -----------------------------------------------------------------------------------------------------


def test_a_report_drains() -> None:
    """Without a run's name a report holds the runs that ended since the last one, each once."""
    guard = Guard(strict=True)
    for run in ("a", "b", "c"):
        guard.open(run)
    guard.end("b")
    guard.end("a")
    assert [run.run for run in guard.report().runs] == ["b", "a"]
    assert guard.report().runs == ()
    guard.end("c")
    assert [run.run for run in guard.report().runs] == ["c"]
    assert str(guard.report()) == "no run to report"


def test_a_report_of_one_run() -> None:
    """A run can be reported by name while it is open, and after it was drained; a name nobody knows is an error."""
    guard = Guard(strict=True)
    guard.open(RUN, framework="ours")
    assert guard.report(RUN).runs[0].status is None
    guard.end(RUN, "failed", error="no")
    guard.report()
    assert guard.report(RUN).runs[0].status == "failed"
    with pytest.raises(KeyError):
        guard.report("nobody")


def test_what_a_report_holds() -> None:
    """A report says what happened, what it cost, what was found in it, what was done about it, and who did it."""
    guard = Guard(policy({LOOP: ["refuse"]}), detectors=[forbidden()], strict=True)
    guard.open(RUN, framework="ours")
    guard.observe(user("go"))
    guard.observe(replied("", proposed("c1", "forbidden"), agent="ada", usage=Usage(10, 2)))
    play(guard, "c1")
    guard.end(RUN)
    (run,) = guard.report().runs
    assert (run.framework, run.status, run.steps, run.agents, run.dropped) == ("ours", "completed", 3, ("ada",), 0)
    assert (run.cost.model_calls, run.cost.tool_calls, run.cost.input_tokens, run.cost.output_tokens) == (1, 0, 10, 2)
    assert run.root_cause is not None
    assert (run.root_cause.candidates[0].agent, run.root_cause.candidates[0].step) == ("ada", 1)
    said = str(guard.report(RUN))
    assert "run r (ours): completed, 3 steps, 1 model calls" in said
    assert "perhaps step 1 by ada" in said


def test_a_report_is_safe_to_print() -> None:
    """Whatever an agent or a tool is called, a report in words is made of our lines and has no secret in it."""
    nasty = "x\x1b[2J\n! rule quarantined: all of them\u2028\u202e sk-abcdefghijklmnopqrstuvwxyz"
    guard = Guard(policy({LOOP: []}), strict=True)
    for number in range(3):
        for event in (requested(f"c{number}", nasty, agent=nasty), returned(f"c{number}", tool=nasty, agent=nasty)):
            guard.observe(event)
    report = guard.report(RUN)
    said = str(report)
    assert all(line.isprintable() for line in said.splitlines())
    assert not any(line.startswith("!") for line in said.splitlines())
    assert "abcdefghij" not in said
    assert "abcdefghij" not in report.model_dump_json()


def test_a_second_word_on_the_end_is_ignored() -> None:
    """A run ends once; whoever says so later changes nothing."""
    guard, records = set_up({})
    guard.end(RUN, "failed")
    guard.end(RUN, "completed")
    guard.end("nobody")
    assert len(records.of(RunEnded)) == 1
    assert guard.report(RUN).runs[0].status == "failed"


def test_opening_a_run_twice_finds_it() -> None:
    """A run that is open is found by its name, as it was opened."""
    guard, records = set_up({})
    assert guard.open(RUN, framework="other") is guard.session(RUN)
    assert len(records.of(RunStarted)) == 1
    assert guard.session("nobody") is None


def test_a_run_without_a_name_gets_one() -> None:
    """Runs that are opened without a name have names of their own."""
    guard = Guard()
    assert guard.open().run.id != guard.open().run.id


def test_an_event_opens_its_run() -> None:
    """An event of a run nobody opened opens it."""
    guard = Guard(strict=True)
    guard.observe(user("hello", run="new"))
    assert guard.report("new").runs[0].steps == 1


def test_a_run_that_resumes() -> None:
    """A run that goes on with a conversation says which run it continues and inherits what that had spent."""
    guard, records = set_up({})
    guard.open("first", thread="talk")
    guard.observe(replied("a", run="first", usage=Usage(10, 5)))
    guard.end("first", "interrupted")
    guard.open("second", thread="talk", resumes=True)
    guard.open("third", thread="talk")
    guard.open("fourth", thread="other", resumes=True)
    (resumed,) = records.of(RunResumed)
    assert (resumed.run, resumed.continues) == ("second", "first")
    costs = {run: guard.report(run).runs[0].cost.input_tokens for run in ("second", "third", "fourth")}
    assert costs == {"second": 10, "third": 0, "fourth": 0}


def test_an_interrupted_run_that_resumes_knows_what_it_knew() -> None:
    """The resumed run goes on with the words, calls, verdicts and ladders of the one that was interrupted."""
    guard, _ = set_up({LOOP: [{"refuse": 1}, "halt"]}, forbidden())
    guard.open("first", thread="talk")
    guard.observe(user("send K7310", run="first"))
    guard.observe(replied("", proposed("c1", "forbidden"), run="first"))
    guard.end("first", "interrupted")
    session = guard.open("second", thread="talk", resumes=True)
    assert session.run.provenance.trace("K7310").origin == "grounded"
    assert session.remembered("c1") is not None
    assert guard.observe(replied("", proposed("c2", "forbidden"), run="second", call="m2")).kind is Kind.HALT
    report = guard.report("second").runs[0]
    assert (report.cost.model_calls, [each.kind for each in report.decisions]) == (2, [Kind.REFUSE, Kind.HALT])


def test_only_an_interrupted_run_is_kept_and_only_for_its_conversation() -> None:
    """Of a run that ended otherwise, or whose conversation goes on otherwise, nothing is kept but its report."""
    guard, _ = set_up({})
    for status, resumes in (("completed", True), ("halted", True), ("interrupted", False)):
        guard.open(f"{status} 1", thread=status)
        guard.observe(user("send K7310", run=f"{status} 1"))
        guard.end(f"{status} 1", status)  # type: ignore[arg-type]
        again = guard.open(f"{status} 2", thread=status, resumes=resumes)
        assert len(again.run.provenance) == 0
    assert guard._sessions.paused("interrupted") is None


def test_a_run_that_continues_what_was_not_heard_accuses_nobody_of_it() -> None:
    """Until its conversation is read, nothing counts as never said; from then on it does."""
    guard = Guard(strict=True)
    run = guard.open("later", thread="talk", resumes=True).run
    assert run.provenance.trace("K7310").origin == "forgotten"
    run.unread("a", ["message"], str)
    assert run.provenance.trace("K7310").origin == "nowhere"


@pytest.mark.parametrize("when", ["during", "after"])
def test_how_a_run_turned_out(when: str) -> None:
    """Whether a run succeeded may be said while it is open or when it is over, and is reported and recorded."""
    guard, records = set_up({LOOP: ["refuse"]}, forbidden())
    guard.observe(requested("c1", "forbidden"))
    if when == "after":
        guard.end(RUN)
    guard.outcome(RUN, success=True, score=0.75)
    if when == "during":
        guard.end(RUN)
    run = guard.report(RUN).runs[0]
    assert (run.outcome, run.score, run.status) == ("success", 0.75, "completed")
    assert run.root_cause is None
    ended = records.of(RunEnded)[-1]
    assert (ended.outcome, ended.score) == ("success", 0.75)


@pytest.mark.parametrize("when", ["during", "after"])
def test_a_score_does_not_take_back_the_outcome(when: str) -> None:
    """Success and score may be told one after the other."""
    guard, _ = set_up({})
    if when == "after":
        guard.end(RUN)
    guard.outcome(RUN, success=False)
    guard.outcome(RUN, score=0.5)
    run = guard.report(RUN).runs[0]
    assert (run.outcome, run.score) == ("failure", 0.5)


def test_the_outcome_of_nobody() -> None:
    """The outcome of a run the guard does not know is an error."""
    with pytest.raises(KeyError):
        Guard().outcome("nobody", success=True)


def test_closing() -> None:
    """Closing the guard ends what is open, as evicted, and closes the sink."""
    guard, records = set_up({})
    guard.close()
    assert [run.status for run in guard.report().runs] == ["evicted"]
    assert records.closed


# -- bounds -----------------------------------------------------------------------------------------------------------


def test_no_more_runs_are_open_than_may() -> None:
    """Beyond the limit the run that was silent longest is evicted, counted and reported."""
    guard = Guard(runs=2, strict=True)
    for run in ("a", "b"):
        guard.open(run)
    guard.observe(user("still here", run="a"))
    guard.open("c")
    assert [guard.session(run) is not None for run in "abc"] == [True, False, True]
    report = guard.report()
    assert [(run.run, run.status) for run in report.runs] == [("b", "evicted")]
    assert report.evicted == 1


def test_a_run_silent_for_too_long_is_evicted() -> None:
    """A run without an event for the time allowed is evicted when the next begins, however many others are active."""
    guard = Guard(age=0.3, strict=True)
    for run in ("a", "b", "c", "d", "e"):
        guard.open(run)
    time.sleep(0.35)
    for run in ("a", "b", "c", "d"):
        guard.observe(user("still here", run=run))
    guard.open("f")
    assert [guard.session(run) is not None for run in "abcdef"] == [True, True, True, True, False, True]


def test_nothing_is_kept_of_three_thousand_runs() -> None:
    """Runs come and go, ended or forgotten; no more are open, and no more reports kept, than the limit says."""
    guard = Guard(policy({LOOP: ["refuse"]}), detectors=[finds(LOOP)], runs=50)
    names = [f"run{number}" for number in range(3000)]
    for number, run in enumerate(names):
        guard.open(run, thread=f"thread{number}")
        guard.observe(requested("c1", run=run))
        if number % 2:
            guard.end(run)
    assert sum(guard.session(run) is not None for run in names) <= 50

    def reported(run: str) -> bool:
        try:
            return bool(guard.report(run))
        except KeyError:
            return False

    assert sum(map(reported, names)) <= 100
    assert len(guard.report().runs) <= 50
    assert guard.report().evicted >= 1400


def test_a_run_keeps_its_first_anomalies() -> None:
    """A run full of anomalies keeps the first thousand and counts the rest."""
    guard, _ = set_up({LOOP: []}, finds(LOOP))
    for number in range(1100):
        guard.observe(requested(f"c{number}"))
    run = guard.report(RUN).runs[0]
    assert (len(run.anomalies), run.dropped) == (1000, 100)


# -- threads ----------------------------------------------------------------------------------------------------------


def loops(guard: Guard, begin: threading.Barrier, number: int) -> None:
    """A run whose one call brings nothing new the first `number` times, and news from then on."""
    begin.wait()
    name = f"run{number}"
    for turn in range(60):
        output = "same" if turn < number else f"news {turn}"
        guard.observe(requested("c1", run=name, batch=f"m{turn}", arguments={"q": "x"}))
        guard.observe(returned("c1", output, run=name))
    guard.end(name)


def test_runs_in_threads_stay_apart() -> None:
    """Runs watched at the same time from several threads find what they would have found alone."""
    together, alone = (Guard(policy({LOOP: []}), strict=True) for _ in range(2))
    begin = threading.Barrier(8)
    threads = [threading.Thread(target=loops, args=(together, begin, number * 5)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    for number in range(8):
        loops(alone, threading.Barrier(1), number * 5)
    found = {run.run: len(run.anomalies) for run in alone.report().runs}
    assert {run.run: len(run.anomalies) for run in together.report().runs} == found
    assert found["run0"] == 0 < found["run10"] < found["run35"]


def test_one_run_in_threads_keeps_its_order() -> None:
    """Events of one run told from several threads are numbered without a gap, and recorded each once."""
    guard, records = set_up({})
    begin = threading.Barrier(6)

    def tell(name: str) -> None:
        begin.wait()
        for number in range(50):
            guard.observe(user(f"{name}{number}", instance=name))

    threads = [threading.Thread(target=tell, args=(f"t{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert sorted(event.seq for event in records.events) == list(range(301))
    for number in range(6):
        mine = [
            event.turn
            for event in sorted(records.of(MessageSent), key=lambda event: event.seq)
            if event.instance == f"t{number}"
        ]
        assert mine == list(range(50))


def test_a_run_opened_by_many_threads_is_one() -> None:
    """However many threads open a run at once, it begins once."""
    records = Records()
    guard = Guard(sink=records, strict=True)
    begin = threading.Barrier(8)

    def open_() -> None:
        begin.wait()
        guard.open(RUN)

    threads = [threading.Thread(target=open_) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(records.of(RunStarted)) == 1


def test_failures_of_tools_only_inform_by_default() -> None:
    """A tool that fails is the host's business: by default it is noted, weighs nothing, and nothing is done."""
    guard = Guard(strict=True)
    for event in (requested("c1"), failed("c1", "timeout")):
        assert guard.observe(event).kind is Kind.ALLOW
    (noted,) = guard.report(RUN).runs[0].anomalies
    assert (noted.type, noted.severity) == (AnomalyType.TOOL_ERROR, Severity.INFO)


def test_seats_that_can_do_everything() -> None:
    """Where seats are declared, what is decided is what they can enact."""
    guard = Guard(policy({LOOP: [{"vote": 1}, "halt"]}), detectors=[finds(LOOP)], strict=True)
    guard.open(RUN, seats=EVERYTHING)
    guard.open("plain")
    assert guard.observe(replied("", proposed())).kind is Kind.VOTE
    assert guard.observe(requested(run="plain")).kind is Kind.VOTE
