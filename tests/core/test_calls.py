"""The index of calls: which calls are the same, what came back, and whether it was news."""

from __future__ import annotations

from typing import Any

import pytest

from misstep.calls import Call
from misstep.events import CheckpointRestored, Event, RunResumed, ToolCancelled, ToolRequested
from misstep.run import Run
from tests.core.scenes import RUN, exchange, failed, requested, returned, user


def after(*events: Event) -> Run:
    """A run in which these events happened."""
    run = Run(RUN)
    for event in events:
        run.append(event)
    return run


def same(run: Run, event: ToolRequested) -> list[str]:
    """The ids of the earlier calls that are the same as this one, newest first."""
    return [call.call for call in run.calls.same(run.append(event))]


def first(run: Run, call: str = "c1") -> Call:
    """The record of a call."""
    found = run.calls.get(call)
    assert found is not None
    return found


CASES: list[tuple[str, dict[str, Any], dict[str, Any], bool]] = [
    ("equal", {"q": "x"}, {"q": "x"}, True),
    ("order of names", {"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
    ("order of names within", {"a": {"x": 1, "y": [2]}}, {"a": {"y": [2], "x": 1}}, True),
    ("case", {"q": "Paris Hotels"}, {"q": "paris hotels"}, True),
    ("space", {"q": "paris   hotels"}, {"q": "paris hotels"}, True),
    ("why", {"q": "x", "thought": "first"}, {"q": "x", "reasoning": "second"}, True),
    ("when", {"q": "x", "timestamp": 1, "request_id": "a"}, {"q": "x", "timestamp": 2}, True),
    ("directory", {"command": "cd /repo && ls -l"}, {"command": "ls -l"}, True),
    ("value", {"q": "x"}, {"q": "y"}, False),
    ("name", {"q": "x"}, {"query": "x"}, False),
    ("page", {"q": "x", "page": 1}, {"q": "x", "page": 2}, False),
    ("one more", {"q": "x"}, {"q": "x", "limit": 5}, False),
    ("order of items", {"ids": [1, 2]}, {"ids": [2, 1]}, False),
    ("number and text", {"n": 1}, {"n": "1"}, False),
    ("command", {"command": "cd /repo && ls"}, {"command": "cd /repo && rm x"}, False),
    ("nothing", {}, {}, True),
]


@pytest.mark.parametrize(("one", "other", "alike"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_makes_two_calls_the_same(one: dict[str, Any], other: dict[str, Any], alike: bool) -> None:
    """Calls are the same but for case, space, the order of names, a change of directory and what says why or when."""
    assert same(after(*exchange("c1", **one)), requested("c2", arguments=other)) == (["c1"] if alike else [])


def test_another_tool_is_another_call() -> None:
    """The same arguments to another tool are another call."""
    assert same(after(*exchange("c1", tool="read", q="x")), requested("c2", "write", arguments={"q": "x"})) == []


@pytest.mark.parametrize(("one", "other", "alike"), [("{'q': ", "{'Q':  ", True), ("{'q': ", "{'r': ", False)])
def test_calls_that_could_not_be_parsed_are_compared_too(one: str, other: str, alike: bool) -> None:
    """Arguments that are no JSON are compared as they were written."""
    run = after(requested("c1", raw=one), failed("c1"))
    assert same(run, requested("c2", raw=other)) == (["c1"] if alike else [])


class Odd:
    """A value of the host's own that will not be looked at."""

    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


def circle() -> dict[str, Any]:
    """A mapping that holds itself."""
    loop: dict[str, Any] = {}
    loop["again"] = loop
    return loop


def deep() -> dict[str, Any]:
    """A list in a list in a list."""
    value: Any = 1
    for _ in range(5000):
        value = [value]
    return {"value": value}


@pytest.mark.parametrize(
    "arguments",
    [{"x": object()}, {"x": {1: 2, "a": 3}}, {"x": {(1, 2): 3}}, {"x": "\ud800"}, {"x": Odd()}, circle(), deep()],
    ids=["object", "keys that do not sort", "tuple keys", "lone surrogate", "unreadable", "circle", "deep"],
)
def test_any_arguments_are_indexed(arguments: dict[str, Any]) -> None:
    """Whatever a host passes to a tool, the call and what became of it are recorded."""
    run = after(requested("c1", arguments=arguments), returned("c1"))
    assert first(run).state == "returned"


def test_unreadable_arguments_are_never_the_same() -> None:
    """Two calls nobody can compare are not taken for a repetition."""
    run = after(requested("c1", arguments={"x": Odd()}), returned("c1"))
    assert same(run, requested("c2", arguments={"x": Odd()})) == []


def test_same_calls_come_newest_first_and_finished() -> None:
    """Earlier calls count that were executed, successfully or not; open and cancelled ones do not."""
    run = after(
        *exchange("c1"),
        requested("c2"),
        requested("c3"),
        failed("c3"),
        requested("c4"),
        ToolCancelled(run=RUN, call="c4", tool="search"),
    )
    assert same(run, requested("c5")) == ["c3", "c1"]


def test_each_instance_has_its_own_calls() -> None:
    """What another copy of an agent called is no earlier call of this one."""
    run = after(requested("c1", instance="x"), returned("c1", instance="x"))
    assert same(run, requested("c2", instance="y")) == []
    assert [call.call for call in run.calls.recent("x")] == ["c1"]
    assert list(run.calls.recent("z")) == []


def test_calls_of_one_batch_are_not_earlier_than_each_other() -> None:
    """Simultaneous calls do not repeat each other, whatever order they are told in."""
    run = after(requested("c1", batch="m1"), returned("c1"))
    assert same(run, requested("c2", batch="m1")) == []
    run.append(returned("c2"))
    assert same(run, requested("c3", batch="m2")) == ["c2", "c1"]


PROGRESS: list[tuple[str, list[Event], bool]] = [
    ("nothing", [], False),
    ("the same again", exchange("c2", "one"), False),
    ("the same from another call", exchange("c2", "one", tool="read"), False),
    ("the same in other space", exchange("c2", " one\n"), False),
    ("another result", exchange("c2", "two"), True),
    ("another call's news", exchange("c2", "two", tool="read"), True),
    ("an error that is new", [requested("c2"), failed("c2", "broken")], True),
    ("a refusal", [requested("c2"), ToolCancelled(run=RUN, call="c2", tool="search", objection="no")], False),
    ("the user speaks", [user("try again")], True),
    ("the user speaks to another", [user("try again", instance="other")], False),
    ("another instance's news", [requested("c2", instance="x"), returned("c2", "two", instance="x")], False),
    ("a result nobody asked for", [returned("c9", "two")], False),
]


@pytest.mark.parametrize(("then", "news"), [case[1:] for case in PROGRESS], ids=[case[0] for case in PROGRESS])
def test_what_is_progress(then: list[Event], news: bool) -> None:
    """Progress is a result this agent had not had, or a word from its user, after the round asked about."""
    run = after(*exchange("c1", "one"))
    since = first(run)
    for event in then:
        run.append(event)
    assert run.progressed(requested("c3"), since) is news


def test_news_is_what_was_never_had_before() -> None:
    """A result that alternates with another is news once each, then no more."""
    run = after(*exchange("c1", "on"), *exchange("c2", "off"), *exchange("c3", "on"), *exchange("c4", "off"))
    assert run.progressed(requested("c5"), first(run, "c1"))
    assert not run.progressed(requested("c5"), first(run, "c2"))


def test_a_result_told_twice_counts_once() -> None:
    """The first word on a call stands; the second changes nothing and is no news."""
    run = after(*exchange("c1", "one"))
    digest = first(run).result
    run.append(failed("c1", "something else"))
    assert (first(run).state, first(run).result) == ("returned", digest)
    assert not run.progressed(requested("c2"), first(run))


def test_a_call_that_was_given_up_may_be_made_after_all() -> None:
    """A node that runs again makes a call that was cancelled when it was interrupted: then it has its result."""
    run = after(requested("c1"), ToolCancelled(run=RUN, call="c1", tool="search"), returned("c1", "news"))
    assert first(run).state == "returned"
    assert same(run, requested("c2")) == ["c1"]


@pytest.mark.parametrize(
    "event", [CheckpointRestored(run=RUN, checkpoint="k"), RunResumed(run=RUN, continues="earlier")]
)
def test_going_back_and_going_on_are_news(event: Event) -> None:
    """What was called before a roll-back or an interrupt may be called again: that is no loop."""
    run = after(*exchange("c1"), *exchange("c2"))
    asked = run.append(requested("c3"))
    assert not run.progressed(asked, first(run, "c2"))
    run.append(event)
    assert run.progressed(run.append(requested("c4")), first(run, "c2"))


def test_an_open_call_asked_again_is_the_same_call() -> None:
    """A node that is run again from its start asks for the call it had asked for: one record, one round."""
    run = after(requested("c1", batch="m1"))
    record = first(run)
    run.append(requested("c1", batch="m1"))
    assert first(run) is record
    assert len(list(run.calls.recent(""))) == 1


def test_an_id_used_again_later_is_a_new_call() -> None:
    """Models that number the calls of every reply from one make new calls all the same."""
    run = after(requested("c1", batch="m1"), returned("c1"))
    old = first(run)
    assert same(run, requested("c1", batch="m2")) == ["c1"]
    new = first(run)
    assert new is not old
    assert (old.state, new.state) == ("returned", "open")
    run.append(returned("c1", "two"))
    assert new.state == "returned"


def test_an_id_used_again_while_its_old_call_is_open_is_a_new_call() -> None:
    """A call of another batch is another one even if the first never came back."""
    run = after(requested("c1", batch="m1"))
    old = first(run)
    run.append(requested("c1", batch="m2"))
    assert first(run) is not old


def test_a_call_without_an_id_is_known_by_its_event() -> None:
    """A framework without call ids still has its calls recorded."""
    run = Run(RUN)
    event = run.append(ToolRequested(run=RUN, tool="search"))
    assert first(run, event.id).tool == "search"
