"""Remedies: what is counted of them, what a random share of enforced runs can tell, and what is dropped for it."""

from __future__ import annotations

from typing import Any

import pytest

from misstep.decisions import Kind
from misstep.errors import AttachError, PolicyError
from misstep.guard import Guard
from misstep.policy import Policy, Rule, parse_policy
from misstep.remedies import LEAST, Arm, RemedyReport
from misstep.seats import WATCHING
from misstep.session import Session
from tests.core.scenes import EMPTY, LOOP, Driver, Handler, Stopped, ToolSeat, finds, policy, requested

BAD = finds(LOOP, when=lambda call: call.tool == "bad")


def guard_with(rules: dict[Any, Any] | None = None, **fields: Any) -> Guard:
    """A guard that finds fault with every call of `bad`."""
    return Guard(policy(rules or {LOOP: ["refuse"]}, **fields), detectors=[BAD], strict=True, runs=5000)


def play(guard: Guard, run: str, *tools: str, success: bool | None = None, thread: str | None = None) -> Session:
    """A run that makes these calls through a seat, and how it turned out."""
    session = guard.open(run, thread=thread)
    for number, tool in enumerate(tools):
        call = requested(f"c{number}", tool, run=run, batch=f"m{number}")
        Driver("sync").tool(guard, ToolSeat(session, call), Handler("fine"))
    if success is not None:
        guard.outcome(run, success=success)
    guard.end(run)
    return session


def remedy(guard: Guard) -> RemedyReport:
    """What the guard says of its one remedy."""
    (found,) = guard.report().remedies
    return found


def report(succeeded: int, failed: int, without: tuple[int, int]) -> RemedyReport:
    """A remedy with so many runs of either end, with it and without."""
    return RemedyReport(
        anomaly=LOOP,
        kind=Kind.REFUSE,
        enforced=Arm(succeeded=succeeded, failed=failed),
        watched=Arm(succeeded=without[0], failed=without[1]),
    )


# -- what is counted --------------------------------------------------------------------------------------------------


def test_receipts_are_counted_over_runs() -> None:
    """Each remedy is counted with its receipts, over all runs that ended."""
    guard = guard_with()
    play(guard, "r1", "bad", "good")
    play(guard, "r2", "bad", "bad")
    found = remedy(guard)
    assert (found.anomaly, found.kind, found.taken, found.took_effect) == (LOOP, Kind.REFUSE, 3, 3)
    assert (found.recurred, found.held) == (1, 2)


def test_outcomes_are_counted_once() -> None:
    """A run counts by its last known outcome, told during it or after, and not at all while that is not known."""
    guard = guard_with()
    play(guard, "r1", "bad", success=True)
    play(guard, "r2", "bad")
    play(guard, "r3", "good", success=False)
    assert remedy(guard).enforced == Arm(succeeded=1)
    guard.outcome("r2", success=False)
    guard.outcome("r1", success=False)
    guard.outcome("r1", success=False)
    assert remedy(guard).enforced == Arm(failed=2)
    assert remedy(guard).watched == Arm()


def test_only_the_first_decision_is_compared() -> None:
    """What comes after a run's first decision is counted as a receipt, never as a run of its own."""
    guard = guard_with({LOOP: [{"refuse": 1}, "halt"]})
    with pytest.raises(Stopped):
        play(guard, "r1", "bad", "bad")
    guard.end("r1")
    guard.outcome("r1", success=True)
    arms = {each.kind: each.enforced.runs for each in guard.report().remedies}
    assert arms == {Kind.REFUSE: 1, Kind.HALT: 0}


def test_in_shadow_only_what_shadow_knows() -> None:
    """In shadow, a remedy is never taken: the runs that called for it are watched, and nothing is compared."""
    guard = guard_with(mode="shadow")
    for number in range(3 * LEAST):
        play(guard, f"r{number}", "bad", success=False)
    found = remedy(guard)
    assert (found.taken, found.took_effect, found.enforced) == (0, 0, Arm())
    assert found.watched == Arm(failed=3 * LEAST)
    assert (found.estimated, found.verdict) == (False, "unclear")


# -- a random share ---------------------------------------------------------------------------------------------------


def enforced(guard: Guard, run: str, **fields: Any) -> bool:
    """Whether a bad call is refused in that run."""
    return play(guard, run, "bad", **fields).ledger.decisions[0].hypothetical is False


def test_a_share_of_the_runs_is_enforced() -> None:
    """In shadow, `explore` enforces on about that share of runs, always on the same ones."""
    runs = [f"run-{number}" for number in range(1000)]
    drawn = [enforced(guard_with(mode="shadow", explore=0.1), run) for run in runs[:200]]
    assert drawn == [enforced(guard_with(mode="shadow", explore=0.1), run) for run in runs[:200]]
    guard = guard_with(mode="shadow", explore=0.1)
    assert 60 <= sum(enforced(guard, run) for run in runs) <= 140
    assert all(enforced(guard_with(mode="shadow", explore=1.0), run) for run in runs[:20])
    assert not any(enforced(guard_with(mode="shadow"), run) for run in runs[:20])


def test_a_conversation_is_drawn_as_one() -> None:
    """All runs of a conversation are treated alike, so that a resumed run goes on as it began."""
    guard = guard_with(mode="shadow", explore=0.5)
    for thread in ("a", "b", "c", "d"):
        assert len({enforced(guard, f"{thread}{number}", thread=thread) for number in range(8)}) == 1


def test_a_rule_has_its_own_share() -> None:
    """A rule's own share counts in its place; other rules of the run are only watched."""
    rules = {LOOP: Rule.model_validate({"ladder": ["refuse"], "explore": 1}), EMPTY: ["halt"]}
    guard = guard_with(rules, mode="shadow")
    session = play(guard, "r1", "bad")
    assert session.ledger.decisions[0].hypothetical is False
    assert session.enforces(LOOP)
    assert not session.enforces(EMPTY)


def test_a_mode_switched_at_run_time_draws_too() -> None:
    """A run that is open when the guard goes into shadow is drawn then; back in enforce, every rule acts."""
    guard = guard_with(explore=0.5)
    runs = {run: guard.open(run) for run in (f"run-{number}" for number in range(40))}
    guard.mode = "shadow"
    acting = {run for run, session in runs.items() if session.enforces(LOOP)}
    assert 5 < len(acting) < 35
    assert acting == {run for run in runs if enforced(guard_with(mode="shadow", explore=0.5), run)}
    guard.mode = "enforce"
    assert all(session.enforces(LOOP) for session in runs.values())


def test_what_enforces_is_held_against_the_seats() -> None:
    """A policy that explores asks an adapter for what it would enforce; one that only watches asks for nothing."""
    with pytest.raises(AttachError):
        guard_with(mode="shadow", explore=0.1).attach(WATCHING)
    guard_with(mode="shadow").attach(WATCHING)


@pytest.mark.parametrize("written", ["explore: 1.5", "explore: often", "rules: {repeated_call: {explore: -1}}"])
def test_a_share_is_between_0_and_1(written: str) -> None:
    """A share that is none is a mistake of the policy, with its line."""
    with pytest.raises(PolicyError) as raised:
        parse_policy(f"version: 1\n{written}\n")
    assert [mistake.line for mistake in raised.value.mistakes] == [2]


# -- what it can tell -------------------------------------------------------------------------------------------------


def test_the_arms_are_compared() -> None:
    """With runs of both arms, the share saved has an interval, and where that leaves no doubt a verdict."""
    helps, harms, unclear = report(45, 5, (20, 30)), report(20, 30, (45, 5)), report(26, 24, (25, 25))
    assert [each.verdict for each in (helps, harms, unclear)] == ["helps", "harms", "unclear"]
    assert helps.saved == pytest.approx(0.5)
    assert harms.interval == pytest.approx((-helps.interval[1], -helps.interval[0]))


def test_the_interval_is_the_published_one() -> None:
    """56 of 70 against 48 of 80 differ by 0.0524 to 0.3339 (Newcombe 1998, table II, method 10)."""
    found = report(32, 48, (14, 56))
    assert found.saved == pytest.approx(0.2)
    assert [round(bound, 4) for bound in found.interval] == [0.0524, 0.3339]


def test_what_it_saves_is_recovery_less_disruption() -> None:
    """For any r and d, p · r - (1 - p) · d is the share saved, and both are within their bounds (arXiv 2602.03338)."""
    p, r, d, runs = 0.4, 0.75, 0.1, 100_000
    failing = p * (1 - r) + (1 - p) * d
    found = report(round(runs * (1 - failing)), round(runs * failing), (round(runs * (1 - p)), round(runs * p)))
    assert found.saved == pytest.approx(p * r - (1 - p) * d)
    assert found.recovery[0] <= r <= found.recovery[1]
    assert found.disruption[0] <= d <= found.disruption[1]
    assert (found.verdict == "helps") == (p > d / (r + d))


@pytest.mark.parametrize(("succeeded", "failed"), [(0, 0), (0, 30), (30, 0)])
def test_no_count_divides_by_nothing(succeeded: int, failed: int) -> None:
    """Where no run or every run failed, everything that is said is still a number between the right bounds."""
    for found in (report(succeeded, failed, (0, 0)), report(succeeded, failed, (failed, succeeded))):
        low, high = found.interval
        assert -1 <= low <= found.saved <= high <= 1
        assert all(0 <= bound <= 1 for bound in (*found.recovery, *found.disruption))
        assert str(found)


def test_few_runs_say_nothing() -> None:
    """Below ten runs in either arm there is no verdict, however clear they look."""
    assert report(LEAST - 1, 0, (0, 100)).verdict == "unclear"
    assert report(LEAST, 0, (0, 100)).verdict == "helps"


# -- what is dropped --------------------------------------------------------------------------------------------------


def explore(chosen: Policy) -> Guard:
    """Two hundred runs of which those that are refused a call fail, and the others do not."""
    guard = Guard(chosen, detectors=[BAD], strict=True)
    for number in range(200):
        run = f"run-{number}"
        session = play(guard, run, "bad")
        guard.outcome(run, success=session.ledger.decisions[0].hypothetical)
    return guard


def test_a_remedy_that_costs_runs_is_reported() -> None:
    """A remedy that makes runs fail is named in the report, with counts and interval, and stays as it is."""
    guard = explore(policy({LOOP: ["refuse"]}, mode="shadow", explore=0.3))
    found = remedy(guard)
    assert found.verdict == "harms"
    assert "! refuse for repeated_call harms" in str(guard.report())
    assert found.enforced.runs > 40


def test_a_remedy_that_costs_runs_can_be_dropped() -> None:
    """With `drop_harmful` it is carried out no longer once that is clear, and only called for."""
    guard = explore(policy({LOOP: ["refuse"]}, mode="shadow", explore=0.3, drop_harmful=True))
    found = remedy(guard)
    assert found.verdict == "harms"
    assert found.enforced.runs < 20
    assert not any(enforced(guard, f"later-{number}") for number in range(20))
