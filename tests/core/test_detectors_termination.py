"""Runs that go round, stop too early or use up what they were given, as tables; half of the rows must stay silent."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from misstep.detectors import BudgetExceeded, ContextOverflow, NoProgress, Oscillation, PrematureStop, StepLimit
from misstep.events import Event, HistoryRewritten, ModelFailed, ModelRequested, Usage
from misstep.taxonomy import Severity
from tests.core.scenes import RUN, exchange, failed, judged, proposed, replied, requested, returned, user

# -- back and forth ---------------------------------------------------------------------------------------------------


def turns(*calls: str, **outputs: str) -> list[Event]:
    """Calls of tools in this order, each with the same answer every time but for those told."""
    return [
        event
        for number, name in enumerate(calls)
        for event in exchange(f"c{number}", outputs.get(f"{name}{number}", f"the {name}"), name)
    ]


def batches(*rounds: str) -> list[Event]:
    """Rounds of simultaneous calls, one letter a call."""
    events: list[Event] = []
    for number, names in enumerate(rounds):
        events.append(replied("", *(proposed(f"{number}{name}", name) for name in names), call=f"m{number}"))
        events += [returned(f"{number}{name}", f"the {name}", name) for name in names]
    return events


CYCLES: list[tuple[str, list[Event], int]] = [
    ("back and forth", turns(*"ababa"), 1),
    ("and on", turns(*"abababa"), 3),
    ("in threes", turns(*"abcabca"), 1),
    ("in fours", turns(*"abcdabcda"), 1),
    ("after other work", turns(*"xyzababa"), 1),
    ("in batches", batches("ab", "c", "ab", "c", "ab"), 2),
    ("in batches the other way round", batches("ab", "c", "ba", "c", "b"), 1),
    ("failing alike", [e for n, t in enumerate("ababa") for e in (requested(f"c{n}", t), failed(f"c{n}", "no", t))], 1),

    ("once each", turns(*"abc"), 0),
    ("back once", turns(*"aba"), 0),
    ("twice, whatever comes of the last", turns(*"abab"), 0),
    ("edit and test, with other results", turns(*"ababa", b3="1 failed"), 0),
    ("polling two things", turns(*"ababa", a2="20 %", b3="30 %"), 0),
    ("the same call over and over", turns(*"aaaa"), 0),
    ("in fives", turns(*"abcdeabcdea"), 0),
    ("not the same cycle", turns(*"abcba"), 0),
    ("the user spoke in between", [*turns(*"ab"), user("again"), *turns(*"aba")], 0),
    ("news from another call", turns(*"abxaba"), 0),
    ("answers still out", [requested(f"c{n}", t) for n, t in enumerate("ababa")], 0),
    ("in one batch", batches("ababa"), 0),
    ("by two agents",
     [e for n, t in enumerate("ababa") for e in
      (requested(f"c{n}", t, instance=str(n % 2)), returned(f"c{n}", "x", t, instance=str(n % 2)))], 0),
]  # fmt: skip


@pytest.mark.parametrize(("events", "times"), [row[1:] for row in CYCLES], ids=[row[0] for row in CYCLES])
def test_oscillation(events: list[Event], times: int) -> None:
    """Rounds that alternate are found from the third cycle on, if nothing was learned since the first."""
    assert len(judged(Oscillation(), events)) == times


def test_how_often_and_how_long_a_cycle() -> None:
    """`cycles` is how often it must come round, `longest` how many rounds make one at most."""
    assert len(judged(Oscillation(cycles=3), turns(*"abababa"))) == 1
    assert judged(Oscillation(cycles=3), turns(*"ababab")) == []
    assert judged(Oscillation(longest=2), turns(*"abcabca")) == []
    with pytest.raises(ValueError, match="at most 32"):
        Oscillation(cycles=8, longest=8)


# -- going nowhere ----------------------------------------------------------------------------------------------------


def searches(count: int, output: str = "[]", **outputs: str) -> list[Event]:
    """Different searches with the same answer, but for those told by number."""
    return [e for n in range(count) for e in exchange(f"c{n}", outputs.get(f"at{n}", output), q=f"w{n}")]


LONG = "a page that was read before " * 10

BARREN: list[tuple[str, list[Event], int]] = [
    ("nothing is ever found", searches(10), 1),
    ("the same page each time", searches(10, LONG), 1),
    ("the same error each time",
     [e for n in range(10) for e in (requested(f"c{n}", arguments={"q": n}), failed(f"c{n}", "down"))], 1),
    ("the same call each time", [e for n in range(10) for e in exchange(f"c{n}", "some")], 1),
    ("in batches", [e for n in range(10) for e in
                    (replied("", proposed(f"{n}a", q=f"a{n}"), proposed(f"{n}b", q=f"b{n}"), call=f"m{n}"),
                     returned(f"{n}a", "[]"), returned(f"{n}b", "[]"))], 2),

    ("not yet", searches(9), 0),
    ("something in between", searches(12, at5="a hint"), 0),
    ("steps that are confirmed", searches(20, "ok"), 0),
    ("paging", [e for n in range(20) for e in exchange(f"c{n}", f"page {n}", page=n)], 0),
    ("the user spoke in between", [*searches(6), user("go on"), *searches(6)], 0),
    ("answers still out", [requested(f"c{n}", arguments={"q": n}) for n in range(20)], 0),
    ("by many agents", [e for n in range(20) for e in (requested(f"c{n}", instance=str(n)),
                                                       returned(f"c{n}", "[]", instance=str(n)))], 0),
    ("before the guard came", [e for n in range(20) for e in (requested(f"c{n}", history=True),
                                                              returned(f"c{n}", "[]", history=True))], 0),
]  # fmt: skip


@pytest.mark.parametrize(("events", "times"), [row[1:] for row in BARREN], ids=[row[0] for row in BARREN])
def test_no_progress(events: list[Event], times: int) -> None:
    """An agent gets nowhere once eight rounds of calls brought no news and confirmed no change."""
    assert len(judged(NoProgress(), events)) == times


@pytest.mark.parametrize(("rounds", "times"), [(2, 3), (4, 1), (5, 0)])
def test_how_many_rounds_may_be_barren(rounds: int, times: int) -> None:
    """`rounds` is the number of barren rounds after which one more is too many; the first answer is always news."""
    assert len(judged(NoProgress(rounds=rounds), searches(6))) == times


# -- stopping too early -----------------------------------------------------------------------------------------------

WORKED = exchange("c0")

STOPS: list[tuple[str, list[Event], int]] = [
    ("cut off", [replied("The answer is that", finish_reason="length")], 1),
    ("promises a look-up", [*WORKED, replied("Your order is there. Let me check its status.")], 1),
    ("promises to begin", [*WORKED, replied("Understood. I will now search for other flights.")], 1),
    ("an open to-do list", [*WORKED, replied("Plan:\n- [x] find it\n- [ ] book it\n- [ ] tell Ann")], 1),

    ("an answer", [*WORKED, replied("Your order has shipped.")], 0),
    ("a finished answer", [*WORKED, replied("It has shipped.", finish_reason="stop")], 0),
    ("calls what it promises", [*WORKED, replied("Let me check its status.", proposed("c1"))], 0),
    ("asks", [*WORKED, replied("I will cancel it. Is that right?")], 0),
    ("waits for a word", [*WORKED, replied("Once you confirm, I will cancel it.")], 0),
    ("waits politely", [*WORKED, replied("Please send me the number, and I will check it.")], 0),
    ("an offer", [*WORKED, replied("It has shipped. Let me know, and I will look again.")], 0),
    ("a promise early on", [*WORKED, replied("Let me check that. Here it is: the order has shipped.")], 0),
    ("an agent without tools", [replied("I will now search for other flights.")], 0),
    ("a finished to-do list", [*WORKED, replied("Plan:\n- [x] find it\n- [x] book it")], 0),
    ("a plan not begun", [*WORKED, replied("Plan:\n- [ ] find it\n- [ ] book it")], 0),
    ("a long answer", [*WORKED, replied("It is so. " * 100 + "I will now search for more.")], 0),
    ("empty", [*WORKED, replied("", finish_reason="length")], 0),
    ("another agent's work", [*WORKED, replied("I will now search for it.", instance="y")], 0),
]  # fmt: skip


@pytest.mark.parametrize(("events", "times"), [row[1:] for row in STOPS], ids=[row[0] for row in STOPS])
def test_premature_stops(events: list[Event], times: int) -> None:
    """A reply stops too early where it is cut off, promises what takes a call, or leaves its own list open."""
    assert len(judged(PrematureStop(), events)) == times


# -- limits -----------------------------------------------------------------------------------------------------------


def test_the_limit_of_steps() -> None:
    """From the reply on that takes the last step allowed, each is found."""
    talk: list[Event] = [e for n in range(4) for e in (user(f"u{n}"), replied(f"r{n}", call=f"m{n}"))]
    assert judged(StepLimit(), talk) == []
    assert len(judged(StepLimit(steps=6), talk)) == 2
    assert len(judged(StepLimit(steps=100, turns=8), talk)) == 1


def spent(*, tokens: int = 0, agent: str = "", model: str = "", call: str = "m1") -> list[Event]:
    """A model call that cost so much."""
    usage = Usage(tokens // 2, tokens - tokens // 2)
    return [
        ModelRequested(run=RUN, agent=agent, instance=agent, model=model),
        replied("ok", call=call, usage=usage, agent=agent, instance=agent),
    ]


BUDGETS: list[tuple[str, dict[str, Any], list[Event], int]] = [
    ("tokens", {"tokens": 100}, [*spent(tokens=100), ModelRequested(run=RUN)], 1),
    ("tokens of one agent", {"agent_tokens": 100},
     [*spent(tokens=100, agent="a"), ModelRequested(run=RUN, instance="a"), ModelRequested(run=RUN, instance="b")], 1),
    ("calls", {"calls": 2}, [*exchange("a"), *exchange("b"), requested("c")], 1),
    ("a whole batch is over", {"calls": 1}, [*exchange("a"), replied("", proposed("b"), proposed("c"))], 2),
    ("calls of one agent", {"agent_calls": 1},
     [requested("a", instance="x"), returned("a", instance="x"), requested("b", instance="y"),
      requested("c", instance="x")], 1),
    ("seconds", {"seconds": 10}, [requested("a", time=1.0, elapsed=11.0)], 1),
    ("money", {"money": 0.001, "prices": {"m": [10, 30]}}, [*spent(tokens=60, model="m"), ModelRequested(run=RUN)], 1),
    ("money, by the beginning of a name", {"money": 0.001, "prices": {"m-": [10, 30], "m": [0, 0]}},
     [*spent(tokens=60, model="acme/m-2031"), ModelRequested(run=RUN)], 1),
    ("money of one agent", {"agent_money": 0.001, "prices": {"m": [10, 30]}},
     [*spent(tokens=60, model="m", agent="a"), ModelRequested(run=RUN, instance="a"), ModelRequested(run=RUN)], 1),
    ("a model without a price, once", {"money": 1, "prices": {"m": [1, 1]}},
     [*spent(tokens=60, model="other"), *spent(tokens=60, model="other", call="m2")], 1),

    ("no budget", {}, [*spent(tokens=10**9), ModelRequested(run=RUN), requested("a", time=1.0, elapsed=1e9)], 0),
    ("enough left", {"tokens": 101, "calls": 3, "seconds": 10},
     [*spent(tokens=100), *exchange("a"), *exchange("b"), requested("c")], 0),
    ("free of charge", {"money": 1, "prices": {"m": [0, 0]}}, [*spent(tokens=10**9, model="m"),
                                                              ModelRequested(run=RUN)], 0),
    ("paid before the guard came", {"tokens": 10},
     [replied("ok", usage=Usage(50, 50), history=True), ModelRequested(run=RUN)], 0),
    ("a batch within the budget", {"calls": 1}, [replied("", proposed("a"), proposed("b")), returned("a")], 0),
]  # fmt: skip


@pytest.mark.parametrize(
    ("thresholds", "events", "times"), [row[1:] for row in BUDGETS], ids=[row[0] for row in BUDGETS]
)
def test_budgets(thresholds: dict[str, Any], events: list[Event], times: int) -> None:
    """What is spent is held against the budget before the next model call, and before the next batch of calls."""
    assert len(judged(BudgetExceeded(**thresholds), events)) == times


def test_prices_from_the_library() -> None:
    """With `genai-prices` as the source, a model that is not in the user's table costs what the library says."""
    pytest.importorskip("genai_prices")
    rule = BudgetExceeded(money=1e-9, price_source="genai-prices")
    assert len(judged(rule, [*spent(tokens=1000, model="gpt-4o"), ModelRequested(run=RUN)])) == 1
    (anomaly,) = judged(rule, [*spent(tokens=1000, model="no-such-model"), ModelRequested(run=RUN)])
    assert "no price" in anomaly.message


def test_the_users_prices_come_first() -> None:
    """A price in the user's table stands, whatever the library says."""
    pytest.importorskip("genai_prices")
    rule = BudgetExceeded(money=1e-9, prices={"gpt-4o": (0, 0)}, price_source="genai-prices")
    assert judged(rule, [*spent(tokens=1000, model="gpt-4o"), ModelRequested(run=RUN)]) == []


def test_a_source_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that is not installed is said when the policy is read, not when an event comes."""
    from misstep.detectors.prices import genai_limits

    genai_limits.cache_clear()
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    with pytest.raises(ValueError, match=r"pip install 'misstep\[prices\]'"):
        BudgetExceeded(price_source="genai-prices")
    with pytest.raises(ValueError, match="must be 'genai-prices'"):
        ContextOverflow(window_source="elsewhere")
    genai_limits.cache_clear()


# -- context ----------------------------------------------------------------------------------------------------------

WINDOWS: list[tuple[str, list[Event], Severity | None]] = [
    ("turned down",
     [ModelFailed(run=RUN, error="This model's maximum context length is 8192 tokens")], Severity.MEDIUM),
    ("turned down by code", [ModelFailed(run=RUN, error="400: context_length_exceeded")], Severity.MEDIUM),
    ("cut", [HistoryRewritten(run=RUN, kept=3, dropped=9)], Severity.INFO),
    ("nearly full", spent(tokens=1960, model="m-small"), Severity.LOW),

    ("turned down for another reason", [ModelFailed(run=RUN, error="429: too many requests")], None),
    ("changed, nothing dropped", [HistoryRewritten(run=RUN, kept=3, dropped=0)], None),
    ("room left", spent(tokens=1000, model="m-small"), None),
    ("no window known", spent(tokens=10**9, model="other"), None),
    ("no usage", [ModelRequested(run=RUN, model="m-small"), replied("ok")], None),
]  # fmt: skip


@pytest.mark.parametrize(("events", "weight"), [row[1:] for row in WINDOWS], ids=[row[0] for row in WINDOWS])
def test_context(events: list[Event], weight: Severity | None) -> None:
    """A context overflows where a model says so, where something was dropped, or where its stated window is full."""
    found = judged(ContextOverflow(windows={"m-": 1000}), events)
    assert [anomaly.weight for anomaly in found] == ([weight] if weight else [])


def test_windows_from_the_library() -> None:
    """With `genai-prices` as the source, a window that is in no table is what the library says."""
    pytest.importorskip("genai_prices")
    rule = ContextOverflow(window_source="genai-prices")
    assert len(judged(rule, spent(tokens=400_000, model="gpt-4o"))) == 1
    assert judged(rule, spent(tokens=1000, model="gpt-4o")) == []
