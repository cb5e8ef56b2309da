"""Side effects: how a tool's class is known, and when an effect counts as brought about twice."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from misstep import side_effect
from misstep.errors import PolicyError
from misstep.events import Event, Tool, ToolRequested
from misstep.guard import Guard
from misstep.policy import default_policy, parse_policy
from misstep.side_effects import Classes, Classified, SideEffect, declared_on, hinted, inferred
from misstep.taxonomy import AnomalyType
from tests.core.scenes import (
    declared,
    exchange,
    failed,
    policy,
    proposed,
    replied,
    requested,
    returned,
    types,
    user,
    watch,
)

DUPLICATE = AnomalyType.DUPLICATE_SIDE_EFFECT
READ, UPDATE, CREATE, PAY = SideEffect


# -- how a class is known ---------------------------------------------------------------------------------------------

NAMES = [
    ("get_order", READ), ("searchFlights", READ), ("list_sent_emails", READ), ("mcp__mail__read_inbox", READ),
    ("order_status", READ), ("email_search", READ), ("think", READ),
    ("update_address", UPDATE), ("set-priority", UPDATE), ("writeFile", UPDATE),
    ("create_issue", CREATE), ("cart_add_product", CREATE), ("uploadFile", CREATE),
    ("pay", PAY), ("send_money", PAY), ("gmailSend", PAY), ("delete_file", PAY), ("book_hotel", PAY),
    ("refund_order", PAY), ("order_pizza", PAY), ("check_and_pay", PAY), ("find_or_create_user", CREATE),
]  # fmt: skip


@pytest.mark.parametrize(("name", "expected"), NAMES)
def test_a_name_tells_by_its_first_verb(name: str, expected: SideEffect) -> None:
    """The first verb of a name says what the tool does, however it is written; of joined verbs the gravest does."""
    found = inferred(name)
    assert (found.side_effect, found.by, found.declared) == (expected, "name", False)


def test_a_description_tells_where_the_name_does_not() -> None:
    """A description counts by the verb it begins with, and only where the name says nothing."""
    assert inferred("wikipedia", "Searches Wikipedia").side_effect is READ
    assert inferred("stripe", "Charge a card. Returns the receipt.").side_effect is PAY
    assert inferred("get_thing", "Deletes everything").side_effect is READ


def test_a_hand_off_can_be_handed_back() -> None:
    """A tool that gives the turn to another agent has no lasting effect, however it is named."""
    said = ["Ask agent 'bob' for help", "Handoff to bob.", "Transfer the user to a human agent."]
    assert {inferred("transfer_to_bob", each).side_effect for each in said} == {UPDATE}
    assert inferred("transfer_to_savings", "Transfer money").side_effect is PAY


@pytest.mark.parametrize("name", ["frobnicate", "run_shell", "", "客服", "x" * 10_000])
def test_what_nothing_is_known_of_is_irreversible(name: str) -> None:
    """A tool of which nothing tells what it does is taken for the worst, and that is said."""
    found = inferred(name)
    assert (found.side_effect, found.known) == (PAY, False)
    assert str(found) == "irreversible (inferred: nothing says what it does)"


def test_a_function_keeps_what_was_declared_on_it() -> None:
    """The mark is found through `functools.wraps`, partials, bound methods and on classes; others have none."""

    @side_effect("compensable")
    def create(name: str) -> str:
        return name

    @functools.wraps(create)
    def wrapped(*args: Any, **kwargs: Any) -> str:
        return create(*args, **kwargs)

    @side_effect(SideEffect.IRREVERSIBLE)
    class Pay:
        @side_effect("reversible")
        def method(self) -> None: ...

    marked = [create, wrapped, functools.partial(wrapped, "x"), Pay, Pay(), Pay().method]
    found = [declared_on(each) for each in marked]
    assert [each.side_effect for each in found if each] == [CREATE, CREATE, CREATE, PAY, PAY, UPDATE]
    assert declared_on(len, None, object()) is None
    assert declared_on(len, create) == declared_on(create)
    assert create("x") == "x"


def test_a_class_that_does_not_exist_cannot_be_declared() -> None:
    """A slip of the pen in a declaration is an error where it is made."""
    with pytest.raises(ValueError, match="irreversable"):
        side_effect("irreversable")


@pytest.mark.parametrize(
    ("hints", "expected"),
    [
        ({"readOnlyHint": True}, READ),
        ({"readOnlyHint": False}, PAY),
        ({"readOnlyHint": False, "destructiveHint": False}, CREATE),
        ({"destructiveHint": False, "idempotentHint": True}, UPDATE),
        ({"destructiveHint": True, "idempotentHint": True}, PAY),
        ({"readOnlyHint": None, "destructiveHint": None}, None),
        ({"title": "Pay", "readOnlyHint": "yes"}, None),
        ({}, None),
        (None, None),
    ],
)
def test_hints_are_read_as_the_standard_has_them(hints: dict[str, Any] | None, expected: SideEffect | None) -> None:
    """MCP's hints become a class, with the standard's defaults for those left out; none is no word at all."""
    found = hinted(hints)
    assert (found and found.side_effect) == expected
    assert found is None or not found.declared


def test_who_is_believed() -> None:
    """The policy comes before the code, the code before a hint, a hint before a guess, but not before the name."""
    classes = Classes({"pay_test": READ, "pay_*": UPDATE, "*_now": CREATE})
    code, hint = Classified(PAY), Classified(READ, "hint", "readOnlyHint: true")
    assert classes.of("pay_test", "", code) == Classified(READ, "policy", "`pay_test` in the policy")
    assert classes.of("pay_now", "", code).side_effect is UPDATE
    assert classes.of("get_it", "", code) is code
    assert classes.of("frobnicate", "Deletes it", hint) is hint
    assert classes.of("send_it", "", hint).by == "name"
    assert classes.of("get_it", "", Classified(PAY, "hint")).side_effect is PAY


def test_the_policy_file_says_it() -> None:
    """A policy classes tools by name or glob; a class that does not exist is found with its line and a remedy."""
    read = parse_policy("version: 1\nside_effects:\n  pay: irreversible\n  'search_*': read_only\n")
    assert read.side_effects == {"pay": PAY, "search_*": READ}
    with pytest.raises(PolicyError) as raised:
        parse_policy("version: 1\nside_effects:\n  pay: irreversible\n  'search_*': readonly\n")
    (mistake,) = raised.value.mistakes
    assert (mistake.line, mistake.where) == (4, "side_effects.search_*")
    assert mistake.problem == "unknown class 'readonly'"
    assert mistake.remedy == "Did you mean `read_only`?"


def test_a_run_knows_its_tools() -> None:
    """A declared tool's own word and a called tool's own word count in the run, and later calls need not repeat it."""
    guard = Guard(policy(side_effects={"zap": READ}))
    guard.observe(declared(Tool("lookup", says=Classified(PAY)), Tool("other", "Fetches")))
    guard.observe(requested("c1", "mystery", says=Classified(UPDATE)))
    guard.observe(requested("c2", "mystery"))
    session = guard.session("r")
    assert session is not None
    kinds = {name: session.run.side_effect(name).side_effect for name in ("lookup", "other", "mystery", "zap", "what")}
    assert kinds == {"lookup": PAY, "other": READ, "mystery": UPDATE, "zap": READ, "what": PAY}


def test_a_reloaded_policy_classes_anew() -> None:
    """What a reloaded policy says of tools holds at once, in open runs too."""
    guard = Guard(policy(side_effects={"zap": READ}))
    run = guard.open("r").run
    assert run.side_effect("zap").side_effect is READ
    guard.reload(policy(side_effects={"zap": PAY}))
    assert run.side_effect("zap").side_effect is PAY


# -- the same effect twice --------------------------------------------------------------------------------------------


def pay(call: str, output: str = "paid", tool: str = "pay", **arguments: Any) -> list[Event]:
    """A payment that came back."""
    return exchange(call, output, tool, **(arguments or {"order": "W7", "amount": 5}))


TWICE: list[tuple[str, list[Event], int]] = [
    ("paid twice", [*pay("a"), *pay("b")], 1),
    ("three times", [*pay("a"), *pay("b"), *pay("c")], 2),
    ("with reading in between", [*pay("a"), *exchange("s", "W7: paid", "get_order", order="W7"), *pay("b")], 1),
    ("with another payment in between", [*pay("a"), *pay("o", order="W8", amount=5), *pay("b")], 1),
    ("with something unrelated in between", [*pay("a"), *exchange("s", "ok", "delete_file", path="/tmp/x"), *pay("b")],
     1),
    ("by another agent", [*pay("a"), requested("b", "pay", arguments={"amount": 5, "order": "W7"}, instance="other")],
     1),
    ("created twice", [*pay("a", "made", "create_issue", title="bug"), *pay("b", "made", "create_issue", title="bug")],
     1),
    ("in another batch", [replied("", proposed("a", "pay", to="bob"), call="m1"), returned("a", "ok", "pay"),
                          replied("", proposed("b", "pay", to="bob"), call="m2")], 1),
    ("the first try failed", [requested("a", "pay", arguments={"to": "bob"}), failed("a", "down", "pay"),
                              *pay("b", to="bob")], 0),
    ("the first try came back with an error", [*pay("a", "Error: card declined"), *pay("b")], 0),
    ("the first try came back with an error as JSON", [*pay("a", '{"id": 1, "success": false}'), *pay("b")], 0),
    ("the first try never came back", [requested("a", "pay", arguments={"to": "bob"}), *pay("b", to="bob")], 0),
    ("the user asked for it again", [*pay("a"), user("once more please"), *pay("b")], 0),
    ("two different orders", [*pay("a"), *pay("b", order="W8", amount=5)], 0),
    ("only a comment differs", [*pay("a", "ok", "post_comment", issue="W7", comment="first"),
                                *pay("b", "ok", "post_comment", issue="W7", comment="second")], 0),
    ("a tool that reads", [*pay("a", "x", "get_order"), *pay("b", "x", "get_order")], 0),
    ("a tool that sets", [*pay("a", "x", "update_order"), *pay("b", "x", "update_order")], 0),
    ("a tool nothing is known of", [*pay("a", "x", "frobnicate"), *pay("b", "x", "frobnicate")], 0),
    ("calls that do not say what they do", [*exchange("a", "ok", "submit"), *exchange("b", "ok", "submit")], 0),
    ("undone in between", [*pay("a", "ok", "cart_add_product", product="P20"),
                           *exchange("r", "ok", "cart_remove_product", product="P20"),
                           *pay("b", "ok", "cart_add_product", product="P20")], 0),
    ("all of it undone in between", [*pay("a", "ok", "cart_add_product", product="P20"),
                                     *exchange("r", "ok", "clear_cart"),
                                     *pay("b", "ok", "cart_add_product", product="P20")], 0),
    ("both asked for together", [replied("", proposed("a", "pay", to="bob"), proposed("b", "pay", to="bob"), call="m1"),
                                 returned("a", "ok", "pay"), returned("b", "ok", "pay")], 0),
]  # fmt: skip


@pytest.mark.parametrize(("events", "expected"), [row[1:] for row in TWICE], ids=[row[0] for row in TWICE])
def test_an_effect_brought_about_twice(events: list[Event], expected: int) -> None:
    """A call whose effect lasts is a duplicate where it succeeded before and nothing speaks for a second one."""
    report = watch(events, Guard(policy({DUPLICATE: []}), strict=True))
    assert types(report) == [DUPLICATE] * expected


def test_a_duplicate_says_what_it_rests_on() -> None:
    """The anomaly names the tool, its class and how that is known, and points at the result of the first call."""
    (found,) = watch([*pay("a"), *pay("b")], Guard(policy({DUPLICATE: []}), strict=True)).anomalies
    assert "`pay` called again" in found.message
    assert "irreversible (inferred: `pay` in its name)" in found.message
    assert [piece.quote for piece in found.evidence] == ["paid"]


def test_by_default_a_duplicate_is_only_recorded() -> None:
    """The default policy looks for duplicates and does nothing about them."""
    assert default_policy().ladder(DUPLICATE) == ()
    guard = Guard(strict=True)
    report = watch([*pay("a", order="W7"), *pay("b", order="W7")], guard)
    assert DUPLICATE in types(report)
    assert not report.decisions


def test_what_a_duplicate_costs_does_not_grow() -> None:
    """What the detector remembers of a run is bounded, however many effects there were."""
    from misstep.detectors.side_effects import DuplicateSideEffect

    guard = Guard(policy({DUPLICATE: []}), strict=True)
    for number in range(3000):
        for event in pay(f"c{number}", order=f"W{number}"):
            guard.observe(event)
    guard.observe(ToolRequested(run="r", call="again", tool="pay", arguments={"order": "W2999"}))
    session = guard.session("r")
    assert session is not None
    done = session.run.memory(DuplicateSideEffect(), list)
    assert max(len(done.effects), len(done.asked), len(done.changed)) <= 1024  # type: ignore[attr-defined]
    assert types(guard.report("r").runs[0]) == [DUPLICATE]
