"""Guarded tool calls by way of the journal: what is written when, what is answered, asked, refused, and counted."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from pathlib import Path
from typing import Any

import pytest

from misstep.approval import Answer, Question
from misstep.decisions import Kind, RollBack
from misstep.enact import Rescue, adrive, tool_call
from misstep.errors import JournalError, ToolTimeout
from misstep.events import DecisionTaken, ToolCancelled, ToolRequested, ToolReturned
from misstep.guard import Guard
from misstep.journal import Journal, State
from misstep.policy import Rule
from misstep.report import JournalReport
from misstep.session import Session, Verdict
from misstep.side_effects import Classified, SideEffect
from misstep.taxonomy import AnomalyType
from tests.core.scenes import (
    FAILURE,
    LOOP,
    Driver,
    Handler,
    ModelSeat,
    Records,
    ToolSeat,
    failed,
    finds,
    policy,
    proposed,
    replied,
    requested,
    types,
)

DUPLICATE = AnomalyType.DUPLICATE_SIDE_EFFECT
CLASSES = {"pay": SideEffect.IRREVERSIBLE, "create": SideEffect.COMPENSABLE, "set": SideEffect.REVERSIBLE}


class Process:
    """One process of an app: a guard with the app's journal, and the runs of one conversation."""

    def __init__(self, path: Path, rules: dict[AnomalyType, Any] | None = None, **options: Any) -> None:
        self.journal = Journal(path / "misstep.db")
        self.records = Records()
        chosen = policy({DUPLICATE: [], **(rules or {})}, side_effects=CLASSES)
        options = {"sink": self.records, "strict": True, **options}
        self.guard = Guard(chosen, journal=self.journal, **options)
        self.session = self.guard.open("r1", thread="t")

    def again(self, run: str) -> Session:
        """The next run of the conversation."""
        self.session = self.guard.open(run, thread="t")
        return self.session

    def proposes(self, call: str, tool: str = "pay", batch: str = "m1", **arguments: Any) -> None:
        """A model proposes a call."""
        run = self.session.run.id
        self.guard.observe(replied("", proposed(call, tool, **(arguments or {"to": "bob"})), call=batch, run=run))

    def seat(self, call: str = "c1", tool: str = "pay", **arguments: Any) -> ToolSeat:
        """The call where it is made."""
        asked = requested(call, tool, arguments=arguments or {"to": "bob"}, run=self.session.run.id)
        return ToolSeat(self.session, asked)

    @property
    def counts(self) -> JournalReport:
        """What the report says of the journal."""
        return self.guard.report(self.session.run.id).runs[0].journal


class Watching(Handler):
    """A handler that looks into the journal while it is at work."""

    def __init__(self, journal: Journal) -> None:
        super().__init__("paid")
        self._journal = journal
        self.states: list[str] = []

    def __call__(self, request: Any) -> Any:
        """Answer, with a note of what is on the disk."""
        self.states += [entry.state for entry in Journal(self._journal.path).unsettled()]
        return super().__call__(request)


# -- what is written --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", ["pay", "create"])
def test_a_lasting_call_is_on_the_disk_before_it_is_made(tmp_path: Path, driver: Driver, tool: str) -> None:
    """An irreversible or compensable call is begun on the disk while the tool is at work, and settled after."""
    process = Process(tmp_path)
    handler = Watching(process.journal)
    assert driver.tool(process.guard, process.seat(tool=tool), handler) == "paid"
    assert handler.states == ["begun"]
    assert Journal(process.journal.path).unsettled() == []
    assert process.counts == JournalReport(journaled=1)


@pytest.mark.parametrize("tool", ["set", "get_order", "search"])
def test_other_calls_never_pay_for_it(tmp_path: Path, driver: Driver, tool: str) -> None:
    """Read-only and reversible calls leave the journal alone, even while it is down."""
    process = Process(tmp_path)
    process.journal.begin = process.journal.settle = None  # type: ignore[assignment,method-assign]
    assert driver.tool(process.guard, process.seat(tool=tool), Handler("fine")) == "fine"
    assert process.counts == JournalReport()


def test_no_journal_no_change(driver: Driver) -> None:
    """A guard without a journal makes the call as often as it is asked for."""
    guard = Guard(policy(side_effects=CLASSES), strict=True)
    handler = Handler("paid")
    for run in ("r1", "r2"):
        seat = ToolSeat(guard.open(run, thread="t"), requested(tool="pay", run=run))
        assert driver.tool(guard, seat, handler) == "paid"
    assert len(handler.asked) == 2


@pytest.mark.parametrize("options", [{"mode": "shadow"}, {"mode": "off"}])
def test_a_guard_that_does_not_enforce_writes_nothing(tmp_path: Path, driver: Driver, options: Any) -> None:
    """In shadow and off, calls are neither written down nor answered."""
    process = Process(tmp_path, **options)
    handler = Watching(process.journal)
    for _ in range(2):
        assert driver.tool(process.guard, process.seat(), handler) == "paid"
    assert handler.states == []


def test_what_a_tool_says_of_itself_counts(tmp_path: Path, driver: Driver) -> None:
    """A seat that has the tool at hand brings its own word, also where the call was judged before that was known."""
    process = Process(tmp_path)
    process.proposes("c1", "look")
    says = Classified(SideEffect.IRREVERSIBLE)
    call = dataclasses.replace(requested("c1", "look", arguments={"to": "bob"}, run="r1"), says=says)
    handler = Watching(process.journal)
    driver.tool(process.guard, ToolSeat(process.session, call), handler)
    assert handler.states == ["begun"]
    (tool,) = process.guard.report("r1").runs[0].tools
    assert (tool.tool, tool.side_effect, tool.by, tool.called) == ("look", SideEffect.IRREVERSIBLE, "code", True)
    assert "lasting effects: look irreversible" in str(process.guard.report("r1"))


# -- what is answered -------------------------------------------------------------------------------------------------


def paid(tmp_path: Path, driver: Driver, result: Any = "paid") -> None:
    """An earlier process made the call `c1` as run `r1`, and was killed."""
    process = Process(tmp_path)
    process.proposes("c1")
    assert driver.tool(process.guard, process.seat(), Handler(result)) == result


def test_a_resumed_run_is_answered(tmp_path: Path, driver: Driver) -> None:
    """In a new process, the call of the checkpoint is not made again; its result is passed on, and marked as such."""
    paid(tmp_path, driver, "paid: receipt 7")
    process = Process(tmp_path)
    process.again("r2")
    handler = Handler("paid again")
    assert driver.tool(process.guard, process.seat(), handler) == "paid: receipt 7"
    assert handler.asked == []
    (outcome,) = process.records.of(ToolReturned)
    assert (outcome.output, outcome.recorded) == ("paid: receipt 7", True)
    assert process.counts == JournalReport(answered=1)
    assert process.guard.report("r2").runs[0].cost.tool_calls == 0
    assert "journal: 0 journaled, 1 answered" in str(process.guard.report("r2"))


def asks_model(process: Process, driver: Driver, call: str, batch: str, tool: str = "pay") -> None:
    """A model call through its seat, whose reply proposes the payment."""
    run = process.session.run.id
    reply = replied("", proposed(call, tool, to="bob"), call=batch, run=run)
    driver.model(process.guard, ModelSeat(process.session), Handler(reply))


def test_a_proposal_is_known_before_it_is_begun(tmp_path: Path, driver: Driver) -> None:
    """
    The call was made; its reply was lost; a second reply proposed it anew, and was kept, but not carried out: a run
    that meets that one in its checkpoint is answered.
    """
    first, second = Process(tmp_path), Process(tmp_path)
    asks_model(first, driver, "c1", "m1")
    assert driver.tool(first.guard, first.seat("c1"), Handler("paid")) == "paid"
    second.again("r2")
    asks_model(second, driver, "c2", "m2")
    third = Process(tmp_path)
    third.again("r3")
    assert driver.tool(third.guard, third.seat("c2"), Handler("paid again")) == "paid"


def test_a_second_proposal_is_known_before_it_is_begun(tmp_path: Path, driver: Driver) -> None:
    """A second payment that was proposed as such is made by a run that knows nothing of the first."""
    first = Process(tmp_path)
    asks_model(first, driver, "c1", "m1")
    driver.tool(first.guard, first.seat("c1"), Handler("paid"))
    asks_model(first, driver, "c2", "m2")
    second = Process(tmp_path)
    second.again("r2")
    assert driver.tool(second.guard, second.seat("c2"), Handler("paid again")) == "paid again"


def test_a_proposal_that_cannot_be_written_down_is_passed_on(tmp_path: Path, driver: Driver) -> None:
    """A journal that is down when a reply comes changes nothing of the reply, and is on record."""
    process = Process(tmp_path, strict=False)
    down(process, "propose")
    asks_model(process, driver, "c1", "m1")
    assert types(process.guard.report("r1").runs[0]) == [FAILURE]
    assert driver.tool(process.guard, process.seat("c1"), Handler("paid")) == "paid"


def test_replies_without_lasting_calls_pay_nothing(tmp_path: Path, driver: Driver) -> None:
    """A reply that proposes only what changes nothing, or nothing at all, is not written down."""
    process = Process(tmp_path)
    process.journal.propose = None  # type: ignore[assignment,method-assign]
    asks_model(process, driver, "c1", "m1", "get_order")
    asks_model(process, driver, "c2", "m2", "set")


def test_a_result_that_is_more_than_words_is_asked_about(tmp_path: Path, driver: Driver) -> None:
    """A result that cannot be given back from its words is none; the call is not made again unasked either."""
    paid(tmp_path, driver, "a picture")
    process = Process(tmp_path)
    process.again("r2")
    objection = driver.tool(process.guard, process.seat(), Handler("another picture"))
    assert "made before, and what it answered cannot be given back" in objection
    assert process.counts == JournalReport(unknown=1)


def test_a_reply_that_was_lost_is_answered(tmp_path: Path, driver: Driver) -> None:
    """Where the model is asked again and proposes the same under a new id, the first result stands, once."""
    paid(tmp_path, driver)
    process = Process(tmp_path)
    process.again("r2")
    handler = Handler("paid again")
    for number, expected in enumerate(["paid", "paid again"]):
        process.proposes(f"n{number}", batch=f"m{number}")
        assert driver.tool(process.guard, process.seat(f"n{number}"), handler) == expected


def test_a_second_payment_is_made(tmp_path: Path, driver: Driver) -> None:
    """Where the conversation knows of the first, the same call under a new id is meant, and is made."""
    paid(tmp_path, driver)
    process = Process(tmp_path)
    run = process.again("r2").run.id
    history = replied("", proposed("c1", "pay", to="bob"), call="h1", run=run, history=True)
    for event in (history, requested("c1", "pay", arguments={"to": "bob"}, run=run, batch="h1", history=True)):
        process.guard.observe(event)
    process.proposes("c2", batch="m2")
    assert driver.tool(process.guard, process.seat("c2"), Handler("paid again")) == "paid again"
    assert driver.tool(process.guard, process.seat("c1"), Handler("not this one")) == "paid"


def test_the_next_turn_asks_anew(tmp_path: Path, driver: Driver) -> None:
    """A turn that came to its end is over: the same call in the next one is made, even if nobody knows of the first."""
    process = Process(tmp_path)
    process.proposes("c1")
    driver.tool(process.guard, process.seat(), Handler("paid"))
    process.guard.end("r1")
    process.again("r2")
    process.proposes("c2")
    assert driver.tool(process.guard, process.seat("c2"), Handler("paid again")) == "paid again"


@pytest.mark.parametrize("status", ["failed", "interrupted", "evicted"])
def test_a_turn_that_broke_off_may_be_resumed(tmp_path: Path, driver: Driver, status: Any) -> None:
    """A run that failed or paused has not ended its turn."""
    process = Process(tmp_path)
    driver.tool(process.guard, process.seat(), Handler("paid"))
    process.guard.end("r1", status)
    process.again("r2")
    process.proposes("c2")
    assert driver.tool(process.guard, process.seat("c2"), Handler("paid again")) == "paid"


def test_what_was_rolled_back_is_not_done_again(tmp_path: Path, driver: Driver) -> None:
    """After a roll-back the model proposes the same again; the effect it had stays, and is answered for."""
    process = Process(tmp_path)
    process.proposes("c1")
    assert driver.tool(process.guard, process.seat(), Handler("paid")) == "paid"
    taken = DecisionTaken(run="r1", decision=Kind.ROLL_BACK, id="d1")
    process.guard.settle(process.session, Verdict(RollBack(0, "lesson"), (taken,)), took_effect=True)
    handler = Handler("paid again")
    for number, expected in enumerate(["paid", "paid again"]):
        process.proposes(f"n{number}", batch=f"m{number + 5}")
        assert driver.tool(process.guard, process.seat(f"n{number}"), handler) == expected


@pytest.mark.parametrize("rung", ["refuse", {"ask": 2}])
def test_what_was_done_is_not_refused_after(tmp_path: Path, driver: Driver, rung: Any) -> None:
    """A rule that would refuse the call, or ask about it, comes too late where it was made: the result is passed on."""
    paid(tmp_path, driver)
    rule = finds(LOOP, when=lambda call: call.tool == "pay")
    process = Process(tmp_path, {LOOP: [rung]}, detectors=[rule])
    process.again("r2")
    assert driver.tool(process.guard, process.seat(), Handler("paid again")) == "paid"
    (decision,) = process.guard.report("r2").runs[0].decisions
    assert (decision.took_effect, decision.detail) == (False, "the call had been made before")
    assert "paid" not in driver.tool(process.guard, process.seat("c2"), Handler("paid again"))


# -- what is unknown --------------------------------------------------------------------------------------------------


def cut_off(tmp_path: Path) -> None:
    """An earlier process was killed while the tool was at work."""
    process = Process(tmp_path)
    process.journal.begin(process.session.proposal(process.seat().requested()), lambda entry: False)


class Person:
    """Somebody who is asked."""

    def __init__(self, answer: Any) -> None:
        self.asked: list[Question] = []
        self._answer = answer

    def __call__(self, question: Question) -> Any:
        """The answer, or what is raised instead."""
        self.asked.append(question)
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def test_nobody_there_means_refused(tmp_path: Path, driver: Driver) -> None:
    """An unknown call is refused where nobody can be asked; the agent reads why, and the report counts it."""
    cut_off(tmp_path)
    process = Process(tmp_path)
    process.again("r2")
    handler = Handler("paid again")
    objection = driver.tool(process.guard, process.seat(), handler)
    assert handler.asked == []
    assert "[misstep: duplicate_side_effect]" in objection
    assert "begun before, and whether it took effect is unknown" in objection
    report = process.guard.report("r2").runs[0]
    assert report.journal == JournalReport(unknown=1)
    assert types(report) == [DUPLICATE]
    assert [(taken.kind, taken.took_effect, taken.detail) for taken in report.decisions] == [(Kind.ASK, True, "reject")]
    assert [event.objection for event in process.records.of(ToolCancelled)] == [objection]


def test_a_person_decides(tmp_path: Path, driver: Driver) -> None:
    """A person is asked once, and sees the call; approved, it is made, and then it is known."""
    cut_off(tmp_path)
    person = Person("approve")
    process = Process(tmp_path, approver=person)
    process.again("r2")
    assert driver.tool(process.guard, process.seat(), Handler("paid again")) == "paid again"
    (question,) = person.asked
    assert (question.tool, question.arguments, question.default) == ("pay", {"to": "bob"}, "reject")
    assert "`pay` was begun before, and whether it took effect is unknown" in question.text
    assert process.counts == JournalReport(unknown=1, repeated=1)
    assert driver.tool(process.guard, process.seat(), Handler("a third time")) == "paid again"
    assert len(person.asked) == 1


def test_a_person_rejects(tmp_path: Path, driver: Driver) -> None:
    """What a person rejects is refused with their word for it, also when the node runs again, without asking twice."""
    cut_off(tmp_path)
    person = Person(Answer("reject", comment="it is on the statement"))
    process = Process(tmp_path, approver=person)
    process.again("r2")
    process.proposes("c1")
    for _ in range(2):
        assert "it is on the statement" in driver.tool(process.guard, process.seat(), Handler("paid again"))
    assert len(person.asked) == 1


def test_a_person_edits(tmp_path: Path, driver: Driver) -> None:
    """An edited call is made with the person's arguments."""
    cut_off(tmp_path)
    process = Process(tmp_path, approver=Person(Answer("edit", {"to": "bob", "amount": 1})))
    process.again("r2")
    handler = Handler("paid")
    assert driver.tool(process.guard, process.seat(), handler) == "paid"
    assert handler.asked == [{"to": "bob", "amount": 1}]


def test_the_rule_says_for_how_long(tmp_path: Path, driver: Driver) -> None:
    """Time-out and default of the rule's own `ask` rung hold for unknown calls too."""
    cut_off(tmp_path)
    rule = Rule.model_validate({"ladder": [{"ask": {"limit": 1, "timeout": 7, "default": "approve"}}]})
    person = Person(LookupError("nobody at the desk"))
    process = Process(tmp_path, {DUPLICATE: rule}, approver=person)
    process.again("r2")
    assert driver.tool(process.guard, process.seat(), Handler("paid again")) == "paid again"
    assert person.asked[0].timeout == 7


@pytest.mark.parametrize(
    ("end", "state"),
    [
        (ValueError("no such account"), State.FAILED),
        (TimeoutError("no answer"), State.UNKNOWN),
        (ConnectionResetError("gone"), State.UNKNOWN),
        (type("ReadTimeout", (Exception,), {})("slow"), State.UNKNOWN),
        (ToolTimeout(3), State.UNKNOWN),
        (KeyboardInterrupt(), State.UNKNOWN),
        (asyncio.CancelledError(), State.UNKNOWN),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_how_a_call_may_end(tmp_path: Path, end: BaseException, state: State) -> None:
    """What raises failed, and may be made again; what was cut off in the middle is unknown, and must be asked about."""
    driver = Driver("sync")
    process = Process(tmp_path)
    process.proposes("c1")
    if isinstance(end, ToolTimeout):
        driver.tool(process.guard, process.seat(), Handler(end))
    else:
        with pytest.raises(type(end)):
            driver.tool(process.guard, process.seat(), Handler(end))
    process.again("r2")
    answer = driver.tool(process.guard, process.seat(), Handler("paid"))
    assert (answer == "paid") == (state is State.FAILED)
    assert process.counts.unknown == (state is State.UNKNOWN)


def test_an_error_that_is_answered_counts_too(tmp_path: Path, driver: Driver) -> None:
    """Where a framework makes an answer of what a tool raised, the same distinction is made by its words."""
    for number, (error, unknown) in enumerate([("no such account", 0), ("TimeoutError: no answer", 1)]):
        (folder := tmp_path / str(number)).mkdir()
        process = Process(folder)
        seat = process.seat()
        seat.result = lambda raw: failed("c1", raw, "pay", run="r1")  # type: ignore[assignment,method-assign]
        driver.tool(process.guard, seat, Handler(error))
        process.again("r2")
        driver.tool(process.guard, process.seat(), Handler("paid"))
        assert process.counts.unknown == unknown


def test_a_call_that_pauses_is_begun_anew(tmp_path: Path, driver: Driver) -> None:
    """A framework that pauses in the middle of a tool calls it again from its start: that is no repetition."""
    process = Process(tmp_path)
    seat = process.seat()
    paused = ToolCancelled(run="r1", call="c1", tool="pay", reason="GraphInterrupt")
    seat.failure = lambda error: paused  # type: ignore[assignment,method-assign]
    with pytest.raises(RuntimeError):
        driver.tool(process.guard, seat, Handler(RuntimeError("the framework's own signal")))
    process.again("r2")
    assert driver.tool(process.guard, process.seat(), Handler("paid")) == "paid"
    assert process.counts == JournalReport(journaled=1)


def test_a_loop_that_is_dropped_leaves_it_unknown(tmp_path: Path) -> None:
    """A framework that never comes back to a call (its generator is closed) leaves the call unknown."""
    process = Process(tmp_path)
    steps = tool_call(process.guard, process.seat)
    step = next(steps)
    while hasattr(step, "work"):
        step = steps.send(step.work())
    steps.close()
    assert [entry.state for entry in process.journal.unsettled()] == [State.UNKNOWN]


# -- when the journal is down -----------------------------------------------------------------------------------------


def down(process: Process, *methods: str) -> None:
    """The journal cannot be reached."""

    def fail(*_: Any, **__: Any) -> Any:
        raise JournalError("misstep.db", "disk I/O error")

    for method in methods:
        setattr(process.journal, method, fail)


@pytest.mark.parametrize(
    ("rule", "tool", "made"),
    [
        (Rule(ladder=()), "pay", False),
        (Rule(ladder=()), "create", True),
        (Rule(ladder=()), "send_mail", True),
        (Rule(ladder=(), on_guard_failure="closed"), "create", False),
        (Rule(ladder=(), on_guard_failure="closed"), "send_mail", False),
        (Rule(ladder=(), on_guard_failure="open"), "pay", True),
    ],
)
def test_a_journal_that_is_down(tmp_path: Path, driver: Driver, rule: Rule, tool: str, made: bool) -> None:
    """
    What is declared irreversible is refused while it cannot be written down, the rest is made; unless the rule says
    otherwise for all. Either way the failure is on record.
    """
    process = Process(tmp_path, {DUPLICATE: rule}, strict=False)
    down(process, "begin")
    handler = Handler("done")
    answer = driver.tool(process.guard, process.seat(tool=tool), handler)
    assert (answer == "done", len(handler.asked)) == (made, made)
    assert types(process.guard.report("r1").runs[0]) == [FAILURE]


def test_a_journal_that_goes_down_in_between(tmp_path: Path, driver: Driver) -> None:
    """A call that was made is passed on although its end cannot be written down; in the next run it is unknown."""
    process = Process(tmp_path, strict=False)
    down(process, "settle")
    assert driver.tool(process.guard, process.seat(), Handler("paid")) == "paid"
    assert types(process.guard.report("r1").runs[0]) == [FAILURE]
    other = Process(tmp_path)
    other.again("r2")
    driver.tool(other.guard, other.seat(), Handler("paid again"))
    assert other.counts == JournalReport(unknown=1)


def test_an_event_loop_is_not_held_up(tmp_path: Path) -> None:
    """Async code has the journal write on a thread: the loop runs on while the disk is slow."""
    process = Process(tmp_path)
    begin = process.journal.begin
    ticks = 0

    def slow(*given: Any) -> Any:
        time.sleep(0.2)
        return begin(*given)

    process.journal.begin = slow  # type: ignore[method-assign]

    async def play() -> Any:
        nonlocal ticks

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        async def handler(request: Any) -> str:
            return "paid"

        ticking = asyncio.create_task(tick())
        answer = await adrive(process.guard, tool_call(process.guard, process.seat), handler, Rescue(None))
        ticking.cancel()
        return answer

    assert asyncio.run(play()) == "paid"
    assert ticks > 5


def test_repeatable_is_only_what_is_declared() -> None:
    """A call may be made again by the guard itself only if its tool is declared read-only, not merely named so."""
    guard = Guard(policy(side_effects={"look": SideEffect.READ_ONLY}), strict=True)
    run = guard.open("r1").run
    guard.observe(ToolRequested(run="r1", call="c1", tool="peek", says=Classified(SideEffect.READ_ONLY)))
    guard.observe(ToolRequested(run="r1", call="c2", tool="hint", says=Classified(SideEffect.READ_ONLY, "hint")))
    repeatable = {name: guard.repeatable(name, run) for name in ("look", "peek", "hint", "get_order", "pay")}
    assert repeatable == {"look": True, "peek": True, "hint": False, "get_order": False, "pay": False}
