"""What an operator can change while a guard is at work: its policy, its mode, one rule, and who is told."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from misstep import AttachError, Guard, PolicyError, default_policy
from misstep.decisions import Kind
from misstep.detectors import RepeatedCall
from misstep.events import AnomalyFound, DecisionTaken, ToolRequested
from misstep.policy import Policy, Rule
from misstep.seats import Seat, Seats
from misstep.testing import capture_anomalies
from tests.core.scenes import (
    ARGUMENT,
    EMPTY,
    LOOP,
    RUN,
    Records,
    crashes,
    exchange,
    finds,
    policy,
    replied,
    requested,
)

RETRYING = policy({EMPTY: [{"retry": 10**6}]})
REPROMPTING = policy({EMPTY: [{"reprompt": 10**6}]})


def kind(guard: Guard, run: str = RUN) -> Kind:
    """What is decided of an empty reply."""
    return guard.observe(replied("", call=None, run=run)).kind


def call(guard: Guard, number: int) -> Kind:
    """What is decided of the same call, made once more; it comes back with nothing new."""
    events = exchange(f"c{number}", q="x")
    decided = guard.observe(events[0]).kind
    guard.observe(events[1])
    return decided


# -- another policy ---------------------------------------------------------------------------------------------------


def test_a_reloaded_policy_holds_for_what_comes() -> None:
    """From the next event on the new policy decides, in open runs as in new ones."""
    guard = Guard(RETRYING, strict=True)
    assert kind(guard) is Kind.RETRY
    guard.reload(REPROMPTING)
    assert (kind(guard), kind(guard, "new"), guard.policy) == (Kind.REPROMPT, Kind.REPROMPT, REPROMPTING)


def test_a_policy_is_reloaded_from_its_file(tmp_path: Path) -> None:
    """A path is read again; its mode and its rules are those of the file now."""
    file = tmp_path / "misstep.yaml"
    file.write_text("version: 1\nrules:\n  empty_response:\n    ladder: [{retry: 9}]\n", encoding="utf-8")
    guard = Guard.from_file(file)
    file.write_text(
        "version: 1\nmode: shadow\nrules:\n  empty_response:\n    ladder: [{reprompt: 9}]\n", encoding="utf-8"
    )
    for path in (file, str(file)):
        guard.reload(path)
        assert (guard.mode, guard.policy.ladder(EMPTY)[0].kind) == ("shadow", Kind.REPROMPT)


@pytest.mark.parametrize("text", ["version: 1\nrule: {}\n", "", "{", None])
def test_a_broken_file_changes_nothing(tmp_path: Path, text: str | None) -> None:
    """A file with a mistake, or none at all, is a `PolicyError`; what was in force stays in force."""
    file = tmp_path / "misstep.yaml"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    guard = Guard(RETRYING, strict=True)
    guard.disable(EMPTY)
    with pytest.raises(PolicyError, match=r"misstep\.yaml"):
        guard.reload(file)
    assert (guard.policy, guard.mode, guard.report().disabled) == (RETRYING, "enforce", ("empty_response",))
    guard.enable(EMPTY)
    assert kind(guard) is Kind.RETRY


def test_open_runs_keep_their_history() -> None:
    """Calls made before a reload count for the rules after it, also for a rule that was not there before."""
    for before in (policy({LOOP: ["halt"]}), policy()):
        guard = Guard(before, strict=True)
        assert [call(guard, number) for number in range(2)] == [Kind.ALLOW, Kind.ALLOW]
        guard.reload(policy({LOOP: [{"refuse": 9}]}))
        assert call(guard, 2) is Kind.REFUSE


def test_open_runs_keep_their_ladders_counts() -> None:
    """A rung used up before a reload is used up after it."""
    ladders: dict[Any, Any] = {EMPTY: [{"retry": 2}, {"reprompt": 1}]}
    guard = Guard(policy(ladders), strict=True)
    assert kind(guard) is Kind.RETRY
    guard.reload(policy({**ladders, LOOP: ["halt"]}))
    assert [kind(guard) for _ in range(3)] == [Kind.RETRY, Kind.REPROMPT, Kind.ALLOW]


def test_a_rule_that_is_the_same_keeps_its_memory() -> None:
    """What a detector remembers of a run outlives a reload; with other thresholds it begins anew."""
    guard = Guard(policy({LOOP: []}), strict=True)
    run = guard.open(RUN).run
    remembered = run.memory(RepeatedCall(), dict)
    guard.reload(policy({LOOP: ["halt"]}))
    assert run.memory(RepeatedCall(), dict) is remembered
    detector, _ = guard.policy.detectors()[0]
    assert run.memory(detector, dict) is remembered
    guard.reload(policy({LOOP: Rule(thresholds={"limit": 5})}))
    assert run.memory(guard.policy.detectors()[0][0], dict) is not remembered


def test_thresholds_are_reloaded() -> None:
    """A threshold holds from the reload on, for calls made before it too."""
    guard = Guard(policy({LOOP: Rule(thresholds={"limit": 9, "near_limit": 9})}), strict=True)
    assert [call(guard, number) for number in range(3)] == [Kind.ALLOW] * 3
    guard.reload(policy({LOOP: Rule(thresholds={"limit": 4})}))
    assert call(guard, 3) is Kind.REPROMPT


def test_rules_of_ones_own_outlive_a_reload() -> None:
    """Detectors given to the guard stay, with what they have cost and their quarantine, whatever policy comes."""
    guard = Guard(policy(), detectors=[finds(ARGUMENT), crashes(LOOP)])
    for number in range(3):
        guard.observe(requested(f"c{number}"))
    before = guard.report().quarantined
    guard.reload(policy({ARGUMENT: [{"refuse": 1}]}))
    assert guard.report().quarantined == before
    assert before
    assert guard.observe(requested("c9")).kind is Kind.REFUSE


def test_what_becomes_fail_closed_leaves_its_quarantine() -> None:
    """A rule reloaded as fail-closed protects again: such a rule is never quarantined."""
    guard = Guard(policy({LOOP: []}), detectors=[crashes(LOOP)])
    for number in range(3):
        guard.observe(requested(f"c{number}"))
    assert guard.report().quarantined
    guard.reload(policy({LOOP: Rule(on_guard_failure="closed")}))
    assert guard.report().quarantined == ()
    assert guard.observe(requested("c9")).kind is Kind.REFUSE


def test_answers_are_held_as_the_policy_in_force_says() -> None:
    """Whether streams are held follows the policy reloaded, and a rule that is switched off holds nothing."""
    holding = Policy(rules={EMPTY: Rule(output="hold")})
    guard = Guard(RETRYING)
    assert not guard.holds
    guard.reload(holding)
    assert guard.holds
    guard.disable(EMPTY)
    assert not guard.holds
    guard.reload(holding)
    assert not guard.holds
    guard.enable(EMPTY)
    assert guard.holds


REFUSING = Seats("refusing", {Seat.TOOL: {Kind.REFUSE: ""}, Seat.MODEL: {Kind.RETRY: ""}})
ASKING = Seats("asking", {Seat.MODEL: {Kind.REPROMPT: "", Kind.RETRY: ""}})


@pytest.mark.parametrize("seats", [(REFUSING, ASKING), (ASKING, REFUSING)])
def test_a_policy_no_adapter_can_enact_is_not_reloaded(seats: tuple[Seats, ...]) -> None:
    """Every adapter attached so far is asked again; where one cannot, nothing changes."""
    guard = Guard(RETRYING, strict=True)
    for each in seats:
        guard.attach(each)
    with pytest.raises(AttachError, match=r"`empty_response` asks for `reprompt`.*`refusing` cannot") as caught:
        guard.reload(REPROMPTING)
    assert caught.value.adapter == "refusing"
    assert (guard.policy, kind(guard), guard.report().unsupported) == (RETRYING, Kind.RETRY, ())


def test_a_policy_that_degrades_is_reloaded_and_says_so() -> None:
    """Under `unsupported: degrade` the gaps are those of the policy in force: said once, and gone with it."""
    guard = Guard(RETRYING, strict=True)
    guard.attach(REFUSING)
    guard.reload(REPROMPTING.model_copy(update={"unsupported": "degrade"}))
    (gap,) = guard.report().unsupported
    assert "`reprompt`" in gap
    guard.reload(RETRYING)
    assert guard.report().unsupported == ()


def test_an_adapter_that_was_refused_is_not_asked_again() -> None:
    """Only adapters that are attached count for what is reloaded."""
    guard = Guard(REPROMPTING)
    with pytest.raises(AttachError):
        guard.attach(REFUSING)
    guard.reload(policy({EMPTY: [{"reprompt": 2}]}))


def test_policies_are_swapped_under_fire() -> None:
    """While policies are swapped, threads go on: each event is judged by one of them, nothing fails, none is lost."""
    guard = Guard(RETRYING, strict=True)
    done = threading.Event()
    seen: dict[str, list[Kind]] = {f"r{number}": [] for number in range(4)}
    failures: list[BaseException] = []

    def work(run: str) -> None:
        try:
            while not done.is_set():
                seen[run].append(kind(guard, run))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(run,)) for run in seen]
    for thread in threads:
        thread.start()
    for swap in range(40):
        before = {run: len(kinds) for run, kinds in seen.items()}
        guard.reload(REPROMPTING if swap % 2 else RETRYING)
        guard.disable(EMPTY)
        guard.enable(EMPTY)
        while not failures and any(len(seen[run]) == before[run] for run in seen):
            time.sleep(0.001)
    done.set()
    for thread in threads:
        thread.join()
    assert not failures
    for kinds in seen.values():
        assert {Kind.RETRY, Kind.REPROMPT} <= set(kinds) <= {Kind.RETRY, Kind.REPROMPT, Kind.ALLOW}
    assert kind(guard) is Kind.REPROMPT


# -- one rule off -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [EMPTY, "empty_response"])
def test_a_rule_is_switched_off_and_on(name: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A rule that is off finds nothing, and the log and every report say that it is off; twice is as good as once."""
    guard = Guard(policy({EMPTY: [{"retry": 9}], LOOP: ["halt"]}), strict=True)
    with caplog.at_level(logging.WARNING, "misstep"), capture_anomalies(guard) as found:
        for _ in range(2):
            guard.disable(name)
            assert (kind(guard), found, guard.report().disabled) == (Kind.ALLOW, [], ("empty_response",))
        assert str(guard.report()).startswith("! rule switched off: empty_response")
        for _ in range(2):
            guard.enable(name)
            assert (kind(guard), guard.report().disabled) == (Kind.RETRY, ())
    assert "rule `empty_response` is switched off" in caplog.text
    assert "rule `empty_response` is switched on" in caplog.text


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("empty_respons", "this guard has no rule 'empty_respons'; did you mean `empty_response`?"),
        ("tool_timeout", "this guard has no rule 'tool_timeout'; it has: empty_response, repeated_call"),
        ("guard_failure", "this guard has no rule 'guard_failure'; it has"),
        ("", "this guard has no rule ''; it has"),
    ],
)
@pytest.mark.parametrize("switch", [Guard.disable, Guard.enable])
def test_a_rule_that_is_not_there(name: str, said: str, switch: Callable[[Guard, str], None]) -> None:
    """Switching what does not exist is an error that says what does."""
    guard = Guard(policy({EMPTY: [], LOOP: []}))
    with pytest.raises(ValueError, match=said.replace("?", r"\?")):
        switch(guard, name)
    assert guard.report().disabled == ()


def test_a_rule_switched_off_stays_off_after_a_reload() -> None:
    """A reload switches nothing on, not even a rule whose thresholds it changes."""
    guard = Guard(policy({LOOP: []}))
    guard.disable(LOOP)
    guard.reload(policy({LOOP: Rule(thresholds={"limit": 5})}))
    assert guard.report().disabled == ("repeated_call",)


def test_enabling_lifts_a_quarantine() -> None:
    """An operator who has seen to a rule's failures puts it back; if it fails again it is quarantined again."""
    guard = Guard(policy({LOOP: []}), detectors=[crashes(LOOP)])
    for number in range(3):
        guard.observe(requested(f"c{number}"))
    assert guard.report().quarantined
    guard.enable(LOOP)
    assert guard.report().quarantined == ()
    for number in range(3):
        assert guard.report().quarantined == ()
        guard.observe(requested(f"d{number}"))
    assert guard.report().quarantined


def test_a_fail_closed_rule_that_is_off_refuses_nothing() -> None:
    """With its only fail-closed rule switched off a guard that fails lets pass."""
    guard = Guard(policy({LOOP: Rule(on_guard_failure="closed")}))
    assert guard.failed("a seat", ValueError(), requested()).decision.kind is Kind.REFUSE
    guard.disable(LOOP)
    assert guard.failed("a seat", ValueError(), requested()).decision.kind is Kind.ALLOW


# -- the mode ---------------------------------------------------------------------------------------------------------


def test_a_mode_is_switched_for_open_runs_too() -> None:
    """A switch holds at once: decisions become hypothetical, stop, and are carried out again."""
    records = Records()
    guard = Guard(RETRYING, strict=True, sink=records)
    guard.open(RUN)
    decided = []
    for mode in ("enforce", "shadow", "off", "enforce"):
        guard.mode = mode  # type: ignore[assignment]
        decided.append(kind(guard))
    assert decided == [Kind.RETRY, Kind.ALLOW, Kind.ALLOW, Kind.RETRY]
    assert [taken.hypothetical for taken in records.of(DecisionTaken)] == [False, True, False]


def test_what_only_watches_goes_on_watching() -> None:
    """No switch makes a seat that only watches carry anything out."""
    guard = Guard(RETRYING, mode="shadow", strict=True)
    guard.open(RUN, watching=True)
    guard.mode = "enforce"
    assert (kind(guard), kind(guard, "other")) == (Kind.ALLOW, Kind.RETRY)


def test_an_unknown_mode_changes_nothing() -> None:
    """A misspelt mode is an error, not a guard that is silently something else."""
    guard = Guard(RETRYING, strict=True)
    with pytest.raises(ValueError, match="found 'enforced'"):
        guard.mode = "enforced"  # type: ignore[assignment]
    assert (guard.mode, kind(guard)) == ("enforce", Kind.RETRY)


def test_enforcing_is_held_against_the_adapters() -> None:
    """What was attached while the guard only watched is checked when it is to enforce, and the switch refused."""
    guard = Guard(REPROMPTING, mode="shadow")
    guard.attach(REFUSING)
    with pytest.raises(AttachError):
        guard.mode = "enforce"
    assert guard.mode == "shadow"
    guard.reload(RETRYING)
    guard.mode = "enforce"
    assert guard.mode == "enforce"


def test_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """MISSTEP_MODE wins over the constructor and any policy, also a reloaded one; an assignment is the last word."""
    monkeypatch.setenv("MISSTEP_MODE", "shadow")
    guard = Guard(RETRYING, mode="enforce")
    assert guard.mode == "shadow"
    guard.reload(REPROMPTING)
    assert guard.mode == "shadow"
    guard.mode = "off"
    guard.reload(RETRYING)
    assert guard.mode == "off"


@pytest.mark.parametrize(("made", "reloaded", "mode"), [(None, "shadow", "shadow"), ("enforce", "shadow", "enforce")])
def test_the_mode_of_a_reloaded_policy(made: Any, reloaded: Any, mode: str) -> None:
    """A policy's mode holds unless the guard was made with one."""
    guard = Guard(RETRYING, mode=made)
    guard.reload(RETRYING.model_copy(update={"mode": reloaded}))
    assert guard.mode == mode


# -- who is told ------------------------------------------------------------------------------------------------------


def test_decisions_are_told_by_kind() -> None:
    """Whoever asked is told of decisions of a kind, or of all; each once, after it was taken, hypothetical ones too."""
    guard = Guard(policy({EMPTY: [{"retry": 1}, {"reprompt": 1}]}), mode="shadow", strict=True)
    retries: list[DecisionTaken] = []
    everything: list[DecisionTaken] = []
    guard.on_decision("retry", retries.append)
    guard.on_decision(None, everything.append)
    for _ in range(3):
        kind(guard)
    assert [taken.decision for taken in retries] == [Kind.RETRY]
    assert [taken.decision for taken in everything] == [Kind.RETRY, Kind.REPROMPT]
    assert all(taken.hypothetical for taken in everything)


def test_an_unknown_kind_of_decision() -> None:
    """Asking to be told of what is never decided is an error."""
    with pytest.raises(ValueError, match="shout"):
        Guard().on_decision("shout", print)


@pytest.mark.parametrize("subscribe", ["on", "on_decision"])
def test_a_subscription_ends(subscribe: str) -> None:
    """What subscribing returns ends that subscription and no other, however often it is called."""
    guard = Guard(RETRYING, strict=True)
    first: list[Any] = []
    topic = "empty_response" if subscribe == "on" else "retry"
    ends = [getattr(guard, subscribe)(topic, first.append) for _ in range(2)]
    kind(guard)
    assert len(first) == 2
    for _ in range(2):
        ends[0]()
    kind(guard)
    assert len(first) == 3
    ends[1]()
    kind(guard)
    assert len(first) == 3


def test_a_listener_may_end_its_own_subscription() -> None:
    """Being told once and no more is a matter of ending it from within; others are told all the same."""
    guard = Guard(RETRYING, strict=True)
    once: list[AnomalyFound] = []
    always: list[AnomalyFound] = []

    def take(found: AnomalyFound) -> None:
        once.append(found)
        end()

    end = guard.on(EMPTY, take)
    guard.on(EMPTY, always.append)
    for _ in range(3):
        kind(guard)
    assert (len(once), len(always)) == (1, 3)


def test_a_listener_of_decisions_that_raises_is_nobodys_problem(caplog: pytest.LogCaptureFixture) -> None:
    """What a listener raises is logged; the decision stands, others are told, and the host hears nothing of it."""
    guard = Guard(RETRYING, strict=True)
    told: list[DecisionTaken] = []

    def raises(taken: DecisionTaken) -> None:
        raise KeyError("a mistake of the application's")

    guard.on_decision(None, raises)
    guard.on_decision(None, told.append)
    assert kind(guard) is Kind.RETRY
    assert len(told) == 1
    assert "a listener for `decisions` raised" in caplog.text


def test_captured_anomalies_leave_nothing_behind() -> None:
    """Capturing anomalies again and again makes telling no slower: every subscription is ended."""
    guard = Guard(policy({LOOP: []}), detectors=[finds(LOOP, ToolRequested)], strict=True)
    for _ in range(3):
        with capture_anomalies(guard) as found:
            guard.observe(requested())
        assert len(found) == 1
    guard.observe(requested())
    assert len(found) == 1
    assert not any(guard._publisher._listeners.values())


def test_the_default_policy_can_be_reloaded() -> None:
    """Back to what runs without any policy."""
    guard = Guard(RETRYING)
    guard.reload(default_policy())
    assert guard.policy == default_policy()


def test_apps_that_come_and_go_are_forgotten() -> None:
    """However many apps are attached, those held a reloaded policy against are bounded; the latest are among them."""
    guard = Guard(RETRYING)
    for number in range(2000):
        guard.attach(REFUSING, agents=[f"agent{number}"])
        guard.attach(ASKING)
    assert len(guard._attached) <= 256
    with pytest.raises(AttachError, match="refusing"):
        guard.reload(REPROMPTING)
