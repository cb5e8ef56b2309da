"""Enactment: what the loop asks of the host, what it passes on, and that the host never suffers from us."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from misstep.decisions import Kind
from misstep.enact import MOST_ATTEMPTS, Rescue, adrive, model_call
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
    ModelSeat,
    Records,
    Stopped,
    ToolSeat,
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
    """A refusal decided when the call was made already has no effect, and the receipt says so."""
    guard, _ = set_up(["refuse"], finds(EMPTY, ToolReturned))
    assert driver.tool(guard, call(guard), Handler("a result")) == "a result"
    (decision,) = guard.report(RUN).runs[0].decisions
    assert (decision.took_effect, decision.detail) == (False, "the call was already made")


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
