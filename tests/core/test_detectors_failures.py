"""Failed calls and what agents make of them, as tables; half of the rows must stay silent."""

from __future__ import annotations

from typing import Any

import pytest

from misstep.detectors import FalseSuccess, IgnoredToolError, ToolError, ToolTimeout
from misstep.events import Event, ToolCancelled
from misstep.taxonomy import Severity
from tests.core.scenes import (
    RUN,
    declared,
    exchange,
    failed,
    judged,
    proposed,
    replied,
    requested,
    returned,
    tool,
    user,
)


def test_an_error_only_informs() -> None:
    """A tool that fails is found, weighs nothing, and says why; a tool that ran out of time is another anomaly."""
    events = [requested(), failed(error="no such row"), requested("c2"), failed("c2", "late", error_type="ToolTimeout")]
    (anomaly,) = judged(ToolError(), events)
    assert (anomaly.message, anomaly.weight) == ("`search` failed: no such row", Severity.INFO)


def test_results_that_speak_of_errors_are_none() -> None:
    """What a tool returned is no failure, whatever it says."""
    assert judged(ToolError(), exchange("c1", "Error: this page explains errors")) == []


# -- time -------------------------------------------------------------------------------------------------------------


def timed(took: float, ended: Any = returned, **fields: Any) -> list[Event]:
    """A call asked for a second after the run began, and what came of it so much later."""
    return [requested(time=1.0, elapsed=1.0), ended(time=2.0, elapsed=1.0 + took, **fields)]


TIMES: list[tuple[str, list[Event], Severity | None]] = [
    ("given up by a deadline", timed(1, failed, error_type="ToolTimeout"), Severity.MEDIUM),
    ("given up, the request unseen", [failed(error_type="ToolTimeout")], Severity.MEDIUM),
    ("too late", timed(61), Severity.LOW),
    ("failed too late", timed(61, failed), Severity.LOW),
    ("just in time", timed(60), None),
    ("at once", timed(0), None),
    ("failed at once", timed(0, failed, error="connection timed out", error_type="TimeoutError"), None),
    ("the request unseen", [returned(time=1.0, elapsed=900.0)], None),
    ("before the guard came", timed(900, history=True), None),
]  # fmt: skip


@pytest.mark.parametrize(("events", "weight"), [row[1:] for row in TIMES], ids=[row[0] for row in TIMES])
def test_time_outs(events: list[Event], weight: Severity | None) -> None:
    """A call the deadline gave up on is found, and one that answered later than that, which weighs less."""
    assert [anomaly.weight for anomaly in judged(ToolTimeout(), events)] == ([weight] if weight else [])


def test_how_long_a_tool_may_take() -> None:
    """`seconds` is the deadline."""
    assert len(judged(ToolTimeout(seconds=5), timed(6))) == 1
    assert judged(ToolTimeout(seconds=7), timed(6)) == []


# -- errors that are passed over --------------------------------------------------------------------------------------

BLIND = "The order has shipped and is on its way to the address that you gave to us."

IGNORED: list[tuple[str, list[Event], int]] = [
    ("goes on as if nothing had been", [requested(), failed(), replied(BLIND)], 1),
    ("every call of a batch failed",
     [replied("", proposed("a"), proposed("b")), failed("a"), failed("b"), replied(BLIND, call="m2")], 1),
    ("only the first reply", [requested(), failed(), replied(BLIND), replied(BLIND, call="m2")], 1),
    ("once for each failure",
     [requested(), failed(), replied(BLIND), requested("c2"), failed("c2"), replied(BLIND, call="m2")], 2),

    ("a call that succeeded", [*exchange("c1"), replied(BLIND)], 0),
    ("no call at all", [replied(BLIND)], 0),
    ("tried again with success", [requested(), failed(), *exchange("c2"), replied(BLIND)], 0),
    ("one of a batch succeeded",
     [replied("", proposed("a"), proposed("b")), failed("a"), returned("b"), replied(BLIND, call="m2")], 0),
    ("the other order",
     [replied("", proposed("a"), proposed("b")), returned("b"), failed("a"), replied(BLIND, call="m2")], 0),
    ("tries again", [requested(), failed(), replied(BLIND, proposed("c2"), call="m2")], 0),
    ("says that it failed", [requested(), failed(), replied(f"{BLIND} But the search failed.")], 0),
    ("says it in other words", [requested(), failed(), replied("I couldn't find the order you have asked for.")], 0),
    ("is sorry", [requested(), failed(), replied("I am sorry, the orders are out of my reach and yours.")], 0),
    ("asks", [requested(), failed(), replied("Could you give me the number of the order, and your name?")], 0),
    ("says next to nothing", [requested(), failed(), replied("OK.")], 0),
    ("in another language",
     [requested(), failed(), replied("Die Bestellung wurde leider nicht gefunden, bitte warten.")], 0),
    ("the user spoke since", [requested(), failed(), user("never mind, go on"), replied(BLIND)], 0),
    ("another agent speaks", [requested(instance="x"), failed(instance="x"), replied(BLIND, instance="y")], 0),
    ("refused", [requested(), ToolCancelled(run=RUN, call="c1", tool="search", objection="no"), replied(BLIND)], 0),
]  # fmt: skip


@pytest.mark.parametrize(("events", "times"), [row[1:] for row in IGNORED], ids=[row[0] for row in IGNORED])
def test_ignored_errors(events: list[Event], times: int) -> None:
    """An error is ignored where every last call failed and the reply owns up to nothing in any way."""
    assert len(judged(IgnoredToolError(), events)) == times


# -- successes that were none -----------------------------------------------------------------------------------------

DONE = "I have cancelled your order."
CANCEL = declared(tool("cancel_order"), tool("get_order"))

CLAIMS: list[tuple[str, list[Event], int]] = [
    ("its call failed", [requested("c1", "cancel_order"), failed("c1", tool="cancel_order"), replied(DONE)], 1),
    ("in the passive", [requested("c1", "cancel_order"), failed("c1", tool="cancel_order"),
                        replied("Your order has been successfully cancelled.")], 1),
    ("an irregular verb", [requested("c1", "sendEmail"), failed("c1", tool="sendEmail"),
                           replied("The mail was sent to Ann.")], 1),
    ("failed twice", [e for n in "ab" for e in (requested(n, "cancel_order"), failed(n, tool="cancel_order"))]
     + [replied(DONE)], 1),
    ("never called", [CANCEL, *exchange("c1", "open", "get_order"), replied(DONE)], 1),

    ("its call succeeded", [*exchange("c1", "ok", "cancel_order"), replied(DONE)], 0),
    ("succeeded at the second try", [requested("c1", "cancel_order"), failed("c1", tool="cancel_order"),
                                     *exchange("c2", "ok", "cancel_order"), replied(DONE)], 0),
    ("one succeeded, a later one failed", [*exchange("c1", "ok", "cancel_order"), requested("c2", "cancel_order"),
                                           failed("c2", tool="cancel_order"), replied(DONE)], 0),
    ("no such tool", [declared(tool("get_order")), *exchange("c1", "open", "get_order"), replied(DONE)], 0),
    ("two such tools", [declared(tool("cancel_order"), tool("cancel_trip")), replied(DONE)], 0),
    ("never called, in the passive", [CANCEL, replied("The order was cancelled by the shop on Monday.")], 0),
    ("done by another agent", [CANCEL, *exchange("c1", "ok", "cancel_order"),
                               declared(tool("cancel_order"), instance="y"), replied(DONE, instance="y")], 0),
    ("done before the guard came", [CANCEL, requested("c1", "cancel_order", history=True),
                                    returned("c1", "ok", "cancel_order", history=True), replied(DONE)], 0),
    ("an intention", [requested("c1", "cancel_order"), failed("c1", tool="cancel_order"),
                      replied("I will cancel your order.")], 0),
    ("a question", [requested("c1", "cancel_order"), failed("c1", tool="cancel_order"),
                    replied("You say it was cancelled. When?")], 0),
    ("a failure owned up to", [requested("c1", "cancel_order"), failed("c1", tool="cancel_order"),
                               replied("I could not cancel it.")], 0),
    ("another verb", [requested("c1", "cancel_order"), failed("c1", tool="cancel_order"),
                      replied("I have noted your wish.")], 0),
    ("still out", [requested("c1", "cancel_order"), replied(DONE)], 0),
    ("with another call", [requested("c1", "cancel_order"), failed("c1", tool="cancel_order"),
                           replied(DONE, proposed("c2", "get_order"), call="m2")], 0),
]  # fmt: skip


@pytest.mark.parametrize(("events", "times"), [row[1:] for row in CLAIMS], ids=[row[0] for row in CLAIMS])
def test_false_successes(events: list[Event], times: int) -> None:
    """A success is false where the calls of that verb failed, or where the agent never made the one it says it made."""
    assert len(judged(FalseSuccess(), events)) == times


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_a_batch_that_failed_one_tool_is_named(order: tuple[int, int]) -> None:
    """Whatever order the calls of a batch failed in, the same tool is named."""
    calls = [proposed("a", "send_mail"), proposed("b", "send_note")]
    failures = [failed("a", tool="send_mail"), failed("b", tool="send_note")]
    events = [replied("", *calls), *(failures[place] for place in order), replied("It was sent.", call="m2")]
    (anomaly,) = judged(FalseSuccess(), events)
    assert anomaly.facts["tool"] == "send_mail"
