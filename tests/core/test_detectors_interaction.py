"""Work that is passed round and senders who leave nobody room, as tables; half of the rows must stay silent."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from misstep.detectors import DelegationLoop, MessageFlood
from misstep.events import Event, HandoffRequested, MessageSent
from tests.core.scenes import RUN, exchange, judged, proposed, replied, requested, returned, user


def copies(events: list[Event]) -> list[Event]:
    """The events anew: one is given its place in a run only once."""
    return [dataclasses.replace(event) for event in events]


# -- work that is passed round ----------------------------------------------------------------------------------------


def handed(source: str, target: str, content: str = "", **fields: Any) -> HandoffRequested:
    """One agent hands over to another."""
    return HandoffRequested(run=RUN, agent=source, instance=source, target=target, content=content, **fields)


def transferred(source: str, target: str, call: str) -> list[Event]:
    """The same by a tool, as frameworks make one for each target."""
    made = {"agent": source, "instance": source}
    return [requested(call, f"transfer_to_{target}", **made), returned(call, "done", f"transfer_to_{target}", **made)]


def delegated(source: str, target: str, call: str, task: str = "write it") -> list[Event]:
    """The same by a tool that is told whom."""
    made = {"agent": source, "instance": source}
    arguments = {"coworker": target, "task": task}
    name = "Delegate work to coworker"
    return [requested(call, name, arguments=arguments, **made), returned(call, f"answer {call}", name, **made)]


def batch(number: int) -> list[Event]:
    """One reply that delegates the same twice."""
    calls = [proposed(f"{number}{name}", "transfer_to_b") for name in "xy"]
    return [replied("", *calls, call=f"m{number}", agent="a", instance="a")]


PING_PONG: list[Event] = [handed("a", "b"), handed("b", "a")]
NEWS = [f"w{number}" for number in range(60)]

HANDOFFS: list[tuple[str, list[Event], int]] = [
    ("back and forth", [*PING_PONG * 2, handed("a", "b")], 1),
    ("and on", PING_PONG * 4, 4),
    ("in a ring", [handed("a", "b"), handed("b", "c"), handed("c", "a")] * 2 + [handed("a", "b")], 1),
    ("by tools", [e for n in range(3) for e in (*transferred("a", "b", f"x{n}"), *transferred("b", "a", f"y{n}"))], 2),
    ("the same words to the same agent", [handed("a", "b", "write it")] * 3, 1),
    ("the same words by a tool", [e for n in range(3) for e in delegated("a", "b", f"c{n}")], 1),
    ("with talk that says nothing", [*PING_PONG, replied("please do it"), *PING_PONG, handed("a", "b")], 1),
    ("told twice, as a call and as a hand-off",
     [e for n in range(3) for e in (*transferred("a", "b", f"x{n}"), handed("a", "b"))], 1),

    ("there and back", [*PING_PONG, handed("a", "b")], 0),
    ("one piece of work after another", [handed("a", "b", f"write part {n}") for n in range(6)], 0),
    ("one after another by a tool", [e for n in range(6) for e in delegated("a", "b", f"c{n}", f"part {n}")], 0),
    ("work in between", [e for n in range(4) for e in (*PING_PONG, *exchange(f"c{n}", f"found {n}"))], 0),
    ("much said in between",
     [e for n in range(4) for e in (*PING_PONG, replied(" ".join(f"{word}.{n}" for word in NEWS)))], 0),
    ("to many", [handed("a", name, "go") for name in "bcdefg"], 0),
    ("many at once", [*batch(1), *batch(2)], 0),
    ("a tool that delegates nothing",
     [e for n in range(6) for e in exchange(f"c{n}", "none", "transfer_money", to="b")], 0),
]  # fmt: skip


@pytest.mark.parametrize(("events", "times"), [row[1:] for row in HANDOFFS], ids=[row[0] for row in HANDOFFS])
def test_delegation_loops(events: list[Event], times: int) -> None:
    """A task that comes back and is handed to the same agent a third time, with nothing done in between, goes round."""
    assert len(judged(DelegationLoop(), copies(events))) == times


def test_the_limit_of_delegation() -> None:
    """`limit` is the number of the hand-off that is one too many, `words` how many new words are work."""
    assert len(judged(DelegationLoop(limit=2), copies([*PING_PONG, handed("a", "b")]))) == 1
    assert judged(DelegationLoop(limit=4), copies([*PING_PONG * 2, handed("a", "b")])) == []
    chatty = [e for n in range(3) for e in (*PING_PONG, replied(f"x{n} y{n} z{n}"))]
    assert judged(DelegationLoop(words=2), copies(chatty)) == []
    assert judged(DelegationLoop(words=3), copies(chatty)) != []


# -- floods -----------------------------------------------------------------------------------------------------------


def sent(sender: str, content: str = "hello", to: str = "b", **fields: Any) -> MessageSent:
    """An agent's message to another."""
    return MessageSent(run=RUN, role="user", trust="agent", sender=sender, content=content, instance=to, **fields)


FLOODS: list[tuple[str, list[Event], int]] = [
    ("thirty in a row", [sent("a")] * 30, 1),
    ("and on", [sent("a")] * 33, 1),
    ("twice as many", [sent("a")] * 119, 2),
    ("from the user", [user("hello")] * 30, 1),
    ("a huge one", [sent("a", "x" * 500_001)], 1),

    ("not yet", [sent("a")] * 29, 0),
    ("a big one", [sent("a", "x" * 100_000)], 0),
    ("somebody else in between", [*[sent("a")] * 29, sent("c"), *[sent("a")] * 29], 0),
    ("an answer in between", [*[sent("a")] * 29, replied("ok", instance="b"), *[sent("a")] * 29], 0),
    ("to different agents", [sent("a", to=f"b{n}") for n in range(60)], 0),
    ("a long conversation", [e for n in range(60) for e in (user(f"u{n}"), replied(f"r{n}", call=f"m{n}"))], 0),
    ("said to all, answered by one",
     [e for n in range(60) for e in (user(f"u{n}"), replied(f"r{n}", call=f"m{n}", instance="b"))], 0),
    ("tool results", [MessageSent(run=RUN, role="tool", trust="tool", content="x")] * 60, 0),
    ("system prompts", [MessageSent(run=RUN, role="system", trust="system", content="x")] * 60, 0),
    ("before the guard came", [sent("a", history=True)] * 60, 0),
]  # fmt: skip


@pytest.mark.parametrize(("events", "times"), [row[1:] for row in FLOODS], ids=[row[0] for row in FLOODS])
def test_floods(events: list[Event], times: int) -> None:
    """One sender's messages are a flood where nobody else gets a word in, or where one is too large to work with."""
    assert len(judged(MessageFlood(), copies(events))) == times
