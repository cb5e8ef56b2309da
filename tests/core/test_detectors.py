"""The detectors, as tables: what happened, and what is to be found in it. Half of the rows must stay silent."""

from __future__ import annotations

from typing import Any

import pytest

from misstep.detectors import BUILTIN, UngroundedArgument, known_detectors
from misstep.detectors.repetition import RepeatedCall
from misstep.events import Event, MessageSent, RunStarted, Tool, ToolCancelled
from misstep.guard import Guard
from misstep.localize import localize
from misstep.policy import Rule
from misstep.report import AnomalyReport
from misstep.run import Limits
from misstep.taxonomy import AnomalyType, taxonomy
from tests.core.scenes import (
    ARGUMENT,
    EMPTY,
    LOOP,
    RUN,
    declared,
    exchange,
    failed,
    policy,
    proposed,
    replied,
    requested,
    returned,
    tool,
    user,
    watch,
)


def found(events: list[Event], **thresholds: Any) -> list[AnomalyReport]:
    """What the detectors find when nothing is done about it."""
    loops = Rule.model_validate({"ladder": [], "with": thresholds})
    guard = Guard(policy({LOOP: loops, ARGUMENT: [], EMPTY: []}), strict=True)
    return list(watch(events, guard).anomalies)


def only(type_: AnomalyType, anomalies: list[AnomalyReport]) -> list[str]:
    """The messages of the anomalies of one type."""
    return [anomaly.message for anomaly in anomalies if anomaly.type is type_]


# -- repeated calls ---------------------------------------------------------------------------------------------------


def poll(*outputs: str, tool: str = "status", **arguments: Any) -> list[Event]:
    """One call made again and again, with these answers."""
    made: list[Event] = []
    for number, output in enumerate(outputs):
        made += exchange(f"{tool}{number}", output, tool, **arguments)
    return made


def parallel(batch: str, *calls: str, output: str = "same", **arguments: Any) -> list[Event]:
    """Identical calls of one reply, all asked for before any comes back."""
    return [
        replied("", *(proposed(call, **arguments) for call in calls), call=batch),
        *(returned(call, output) for call in calls),
    ]


LOOPS: list[tuple[str, list[Event], int]] = [
    ("three times the same", poll("none", "none", "none", q="x"), 1),
    ("and on and on", poll(*["none"] * 6, q="x"), 4),
    ("three times the same error", [e for n in range(3) for e in (requested(f"c{n}"), failed(f"c{n}", "down"))], 1),
    ("polling that stands still", poll("pending", "pending", "done", q="x"), 1),
    ("with other calls that say nothing new",
     [*poll("none", q="x"), *exchange("a", "none", "read"), *exchange("s1", "none", "status", q="x"),
      *exchange("b", "none", "read"), *exchange("s2", "none", "status", q="x")], 1),
    ("in batches of two, three rounds",
     [*parallel("m1", "a1", "a2"), *parallel("m2", "b1", "b2"), *parallel("m3", "c1", "c2")], 2),
    ("under one id that is used again",
     [e for n in range(3) for e in (requested("c1", batch=f"m{n}"), returned("c1"))], 1),
    ("with other reasons each time",
     [e for n in range(3) for e in exchange(f"c{n}", q="x", thought=f"try {n}")], 1),
    ("nearly the same, four times",
     [e for n in range(4) for e in exchange(f"c{n}", q="find me the cheapest flight from Rome to Oslo on", day=n)], 1),

    ("twice", poll("none", "none", q="x"), 0),
    ("polling that changes", poll("10 %", "20 %", "30 %", "40 %", q="x"), 0),
    ("paging",
     [e for n in range(8) for e in exchange(f"c{n}", f"page {n}", q="hotels in the old town of Rome", page=n)], 0),
    ("other arguments", [e for n in range(8) for e in exchange(f"c{n}", "none", q=f"word{n}")], 0),
    ("other tools", [e for n in range(8) for e in exchange(f"c{n}", "none", f"tool{n}")], 0),
    ("the user spoke in between",
     [*poll("none", "none", q="x"), user("again, please"), *exchange("z", "none", "status", q="x")], 0),
    ("news from another call",
     [*poll("none", "none", q="x"), *exchange("a", "a hint", "read"), *exchange("z", "none", "status", q="x")], 0),
    ("again after something was changed",
     [requested("c1"), failed("c1", "no table"), *exchange("a", "table made", "create"), requested("c2"),
      failed("c2", "no row"), *exchange("b", "row made", "insert"), *exchange("c3", "one row")], 0),
    ("many at once", parallel("m1", "a", "b", "c", "d", "e"), 0),
    ("two batches of many", [*parallel("m1", "a", "b", "c"), *parallel("m2", "d", "e", "f")], 0),
    ("by several agents",
     [e for n in range(6) for e in (requested(f"c{n}", instance=f"i{n}"), returned(f"c{n}", instance=f"i{n}"))], 0),
    ("answers still out", [requested(f"c{n}") for n in range(6)], 0),
    ("refused each time",
     [e for n in range(6) for e in (requested(f"c{n}"), ToolCancelled(run=RUN, call=f"c{n}", tool="search"))], 0),
    ("nearly the same with other answers",
     [e for n in range(6) for e in exchange(f"c{n}", f"{n} found", q="the cheapest flight from Rome to Oslo", d=n)], 0),
    ("different searches that find nothing",
     [e for n in range(5) for e in exchange("c1", "none", q=f"w{n}a w{n}b w{n}c w{n}d")], 0),
    ("a node that runs again", [requested("c1", batch="m1")] * 1 + [requested("c1", batch="m1") for _ in range(5)], 0),
    ("before the guard came",
     [e for n in range(5) for e in (requested(f"c{n}", history=True), returned(f"c{n}", history=True))], 0),
]  # fmt: skip


@pytest.mark.parametrize(("events", "times"), [row[1:] for row in LOOPS], ids=[row[0] for row in LOOPS])
def test_repeated_calls(events: list[Event], times: int) -> None:
    """A call is repeated from its third time on with nothing learned in between; progress of any kind is none."""
    assert len(only(LOOP, found(events))) == times


def test_history_counts_once_the_run_goes_on() -> None:
    """What the agent did before the guard came is not judged, but is known when it does it again."""
    before = [e for n in range(2) for e in (requested(f"c{n}", history=True), returned(f"c{n}", history=True))]
    assert len(only(LOOP, found([*before, requested("c9")]))) == 1


def test_the_evidence_of_a_loop() -> None:
    """The anomaly names the tool and the number of times, and rests on the earlier calls, newest first."""
    (anomaly,) = found(poll("none", "none", "none", q="x"))
    assert "`status` called 3 times" in anomaly.message
    assert [piece.quote for piece in anomaly.evidence] == ["status(q='x')"] * 2


@pytest.mark.parametrize(
    ("limit", "calls", "times"), [(2, 2, 1), (2, 1, 0), (5, 4, 0), (5, 5, 1), (16, 16, 1), (16, 15, 0)]
)
def test_the_limit_of_repetition(limit: int, calls: int, times: int) -> None:
    """`limit` is the number of the call that is one too many."""
    assert len(found(poll(*["none"] * calls, q="x"), limit=limit, near_limit=32)) == times


@pytest.mark.parametrize(("near_limit", "times"), [(2, 4), (3, 3), (5, 1), (6, 0)])
def test_the_limit_of_near_repetition(near_limit: int, times: int) -> None:
    """`near_limit` is the number of the near-duplicate that is one too many."""
    near = [e for n in range(5) for e in exchange(f"c{n}", q="find me the cheapest flight from Rome to Oslo on", day=n)]
    assert len(found(near, near_limit=near_limit)) == times


def test_how_near_is_near() -> None:
    """With `similarity` at 1 only calls with the very same words are near."""
    near = [e for n in range(5) for e in exchange(f"c{n}", q="find me the cheapest flight from Rome to Oslo on", day=n)]
    assert found(near, similarity=1.0) == []


@pytest.mark.parametrize(
    "thresholds",
    [
        {"limit": 1},
        {"limit": 17},
        {"near_limit": 1},
        {"near_limit": 33},
        {"similarity": 1.5},
        {"similarity": float("nan")},
    ],
    ids=str,
)
def test_thresholds_that_could_never_be_met_are_refused(thresholds: dict[str, Any]) -> None:
    """A threshold that would make the rule fire always, never or not at all is an error, not a silent rule."""
    with pytest.raises(ValueError, match="must be"):
        RepeatedCall(**thresholds)


def test_a_tool_that_cannot_be_parsed_is_repeated_too() -> None:
    """Calls with unparsable arguments repeat each other as others do."""
    events = [e for n in range(3) for e in (requested(f"c{n}", raw="{broken"), failed(f"c{n}", "not JSON"))]
    assert len(only(LOOP, found(events))) == 1


# -- arguments from nowhere -------------------------------------------------------------------------------------------


LOOKUP = Tool(
    "lookup",
    "Looks up an order such as W0001.",
    {"properties": {"order_id": {"type": "string", "enum": ["W7777"]}, "email": {}, "q": {}}},
)

GROUNDS: list[tuple[str, list[Event]]] = [
    ("the user", [user("My order is #W1234, mail ann.lee@shop.example.")]),
    ("the task", [RunStarted(run=RUN, task="Cancel W1234 for ann.lee@shop.example")]),
    ("a system prompt",
     [MessageSent(run=RUN, role="system", trust="system", content="Order W1234 belongs to ann.lee@shop.example")]),
    ("a tool", exchange("c0", '{"orders": ["W1234"], "mail": "ann.lee@shop.example"}', "orders")),
    ("a tool's error",
     [requested("c0", "orders"), failed("c0", "did you mean W1234 (ann.lee@shop.example)?", "orders")]),
    ("another agent",
     [MessageSent(run=RUN, role="user", trust="agent", content="take W1234 of ann.lee@shop.example")]),
    ("earlier talk", [user("W1234, ann.lee@shop.example", history=True)]),
]  # fmt: skip


@pytest.mark.parametrize("before", [row[1] for row in GROUNDS], ids=[row[0] for row in GROUNDS])
@pytest.mark.parametrize(
    "arguments", [{"order_id": "W1234"}, {"order_id": "#w1234"}, {"email": "ann.lee@shop.example"}]
)
def test_grounded_arguments(before: list[Event], arguments: dict[str, Any]) -> None:
    """An identifier is grounded by whoever but a model said it, in whatever case and wrapping."""
    assert only(ARGUMENT, found([*before, requested("c1", "lookup", arguments=arguments)])) == []


ARGUMENTS: list[tuple[str, dict[str, Any], str | None]] = [
    ("made-up id", {"order_id": "W9999"}, "order_id"),
    ("made-up number as id", {"order_id": 99999}, "order_id"),
    ("made-up id in camel case", {"orderId": "W9999"}, "orderId"),
    ("made-up id in capitals", {"orderID": "W9999"}, "orderID"),
    ("made-up id all in capitals", {"UUID": "9f-1"}, "UUID"),
    ("made-up id deep inside", {"filter": {"user": {"id": "u9"}}}, "filter.user.id"),
    ("made-up id in a list", {"order_ids": ["W1234", "W9999"]}, "order_ids"),
    ("made-up address", {"email": "ann@shop.example"}, "email"),
    ("address put together", {"email": "ann.shop@lee.example"}, "email"),
    ("made-up password", {"password": "hunter2"}, "password"),
    ("placeholder", {"q": "your_account_number"}, "q"),
    ("placeholder in brackets", {"note": "<account-number>"}, "note"),
    ("placeholder in square brackets", {"note": "[ACCOUNT]"}, "note"),
    ("placeholder for here", {"note": "number_here"}, "note"),
    ("placeholder of crosses", {"note": "W-XXXX"}, "note"),
    ("sample address", {"contact": "john.doe@example.com"}, "contact"),
    ("very deep", {"a": [[[[{"user_id": "u9"}]]]]}, "a.user_id"),

    ("known id", {"order_id": "W1234"}, None),
    ("known id in other case", {"order_id": "w1234"}, None),
    ("known id within a sign", {"order_id": "#W1234"}, None),
    ("joined of known parts", {"record_id": "order_1234"}, None),
    ("joined of known parts with a dash", {"record_id": "Rome-1234"}, None),
    ("an example of the schema", {"order_id": "W0001"}, None),
    ("a choice of the schema", {"order_id": "W7777"}, None),
    ("free text", {"q": "cheap hotels W9999 near the station"}, None),
    ("one word", {"q": "W9999"}, None),
    ("a number", {"amount": 9999.5, "count": 42}, None),
    ("a path", {"path": "/tmp/W9999.txt"}, None),
    ("a date", {"date": "2031-01-01"}, None),
    ("a truth value", {"valid_id": True}, None),
    ("nothing", {"order_id": None}, None),
    ("an empty text", {"order_id": ""}, None),
    ("a word", {"user_id": "me"}, None),
    ("a long text", {"code": "x" * 50 + "1" * 50}, None),
    ("text with spaces", {"code": "print (1)"}, None),
    ("names that only sound like one", {"valid": "v9", "idea": "i9", "identity_card": "c9", "video": "v9"}, None),
    ("no arguments", {}, None),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "named"), [row[1:] for row in ARGUMENTS], ids=[row[0] for row in ARGUMENTS])
def test_ungrounded_arguments(arguments: dict[str, Any], named: str | None) -> None:
    """An identifier nobody gave the agent, or a placeholder, is found by name; whatever it may write is not judged."""
    before = [
        user("Hello, order W1234 please, from Rome; order 1234; I am ann.lee@shop.example"),
        declared(LOOKUP),
    ]
    messages = only(ARGUMENT, found([*before, requested("c1", "lookup", arguments=arguments)]))
    assert len(messages) == (named is not None)
    assert all(f"`{named}`" in message for message in messages)


def test_what_the_model_itself_said_grounds_nothing() -> None:
    """A model cannot vouch for its own invention by saying it first."""
    (message,) = only(
        ARGUMENT, found([replied("I take order W9999"), requested("c1", arguments={"order_id": "W9999"})])
    )
    assert "only a model said it" in message


def test_the_evidence_of_an_invention() -> None:
    """The anomaly rests on the call, and on the words in which the model made the value up."""
    (anomaly,) = found([user("hello"), replied("I take order W9999"), requested("c1", arguments={"order_id": "W9999"})])
    assert [piece.quote for piece in anomaly.evidence] == [
        "search(order_id='W9999')",
        "I take order W9999",
    ]


def test_one_call_is_found_once() -> None:
    """A call with several made-up values is one anomaly."""
    assert len(found([requested("c1", arguments={"order_id": "W9", "user_id": "u9", "email": "a@b.c"})])) == 1


def test_what_may_have_been_forgotten_is_not_held_against_the_agent() -> None:
    """In a run too long to be remembered whole, a value the guard cannot place is not called an invention."""
    guard = Guard(policy({ARGUMENT: []}), strict=True, limits=Limits(tokens=50))
    words = [user(" ".join(f"w{number + offset}" for offset in range(20))) for number in range(0, 400, 20)]
    assert watch([user("order W1234"), *words, requested("c1", arguments={"order_id": "W1234"})], guard).anomalies == ()


def test_how_long_an_identifier_may_be() -> None:
    """`longest` is the length beyond which a value is text."""
    rule = Rule.model_validate({"ladder": [], "with": {"longest": 5}})
    call = requested("c1", arguments={"a_id": "abc123", "b_id": "ab123"})
    (anomaly,) = watch([call], Guard(policy({ARGUMENT: rule}), strict=True)).anomalies
    assert "`b_id`" in anomaly.message


def test_arguments_too_deep_to_follow_by_recursion_are_judged() -> None:
    """A model cannot put the rule out of action by nesting its arguments a thousand times."""
    value: Any = {"user_id": "u9"}
    for _ in range(5000):
        value = [value]
    guard = Guard(policy({ARGUMENT: []}))
    report = watch([requested("c1", arguments={"a": value})], guard)
    assert [anomaly.type for anomaly in report.anomalies] == [ARGUMENT]
    assert guard.report(RUN).quarantined == ()


# -- empty replies ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "times"),
    [
        (replied(""), 1),
        (replied(" \n\t"), 1),
        (replied("", finish_reason="length"), 1),
        (replied("", attempt=1), 1),
        (replied("ok"), 0),
        (replied("", proposed()), 0),
        (replied("", history=True), 0),
    ],
    ids=["empty", "blank", "cut off", "another attempt", "words", "a call", "history"],
)
def test_empty_replies(event: Event, times: int) -> None:
    """A reply with neither words nor calls is empty."""
    assert len(only(EMPTY, found([event]))) == times


def test_why_a_reply_is_empty() -> None:
    """The anomaly names the agent, and the framework's reason where there is one."""
    (anomaly,) = found([replied("", agent="writer", finish_reason="content_filter")])
    assert anomaly.message == "`writer` answered with no words and no call (finish reason: content_filter)"


# -- all of them ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", BUILTIN, ids=lambda cls: cls.__name__)
def test_a_detector_is_data(cls: type) -> None:
    """A detector needs no thresholds, is equal to another of its kind, cannot be changed, and says what it is."""
    assert cls() == cls()
    assert hash(cls()) == hash(cls())
    with pytest.raises(AttributeError):
        cls().type = None
    assert cls.type in taxonomy()
    assert cls.__doc__


def test_every_built_in_is_known() -> None:
    """The detectors misstep ships are there without anything else being installed."""
    assert {cls.type for cls in BUILTIN} <= set(known_detectors())
    assert known_detectors()[ARGUMENT] is UngroundedArgument


def test_a_healthy_run_is_silent() -> None:
    """A run in which all goes well has no anomaly, no decision and no misstep."""
    report = watch(
        [
            RunStarted(run=RUN, task="Cancel my order W1234"),
            declared(tool("lookup", "order_id"), tool("cancel", "order_id")),
            replied("", proposed("c1", "lookup", order_id="W1234"), call="m1"),
            returned("c1", "open, paid", "lookup"),
            replied("It is open. Shall I?", call="m2"),
            user("Yes."),
            replied("", proposed("c2", "cancel", order_id="W1234"), call="m3"),
            returned("c2", "cancelled", "cancel"),
            replied("Done.", call="m4"),
        ]
    )
    assert (report.anomalies, report.decisions, report.root_cause) == ((), (), None)


def test_nothing_is_made_of_nothing() -> None:
    """Without anomalies there is no root cause."""
    assert localize([]) is None
