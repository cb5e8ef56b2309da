"""The scenarios. Each is written once and asserts what a user was promised, on whatever framework it runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from misstep import Anomaly, AnomalyType, Guard, Policy, Rule, Rung, RunReport
from misstep.decisions import Kind
from misstep.events import Event, ModelResponded, ToolRequested
from misstep.run import Run
from misstep.session import Verdict
from misstep.testing import Ask, AskAll, Reply, Say, Script
from tests.conformance.decisions import DECISIONS
from tests.conformance.host import Host, Inner, Mode, Outcome, World

Scenario = Callable[[Host, Mode], None]

OBJECTION = "[misstep: repeated_call] This call was not executed"
FEEDBACK = "[misstep: repeated_call] Your last reply was not used"


def policy(type_: AnomalyType, *ladder: str | dict[str, int], closed: bool = False) -> Policy:
    """A policy with one rule."""
    rungs = tuple(Rung.model_validate(rung) for rung in ladder)
    return Policy(rules={type_: Rule(ladder=rungs, on_guard_failure="closed" if closed else "open")})


def loop(*ladder: str | dict[str, int]) -> Policy:
    """A policy that answers repeated calls with this ladder."""
    return policy(AnomalyType.REPEATED_CALL, *ladder)


def again(count: int, q: str = "x") -> list[Ask]:
    """The same call, `count` times, each with an id of its own."""
    return [Ask("act", {"q": q}, id=f"c{number}") for number in range(count)]


def report(guard: Guard, outcome: Outcome) -> RunReport:
    """The run's report."""
    assert outcome.run is not None, "the caller must learn the run's id"
    return guard.report(outcome.run).runs[0]


def sees(texts: Sequence[str], words: str) -> bool:
    """Whether any of the texts holds the words."""
    return any(words in text for text in texts)


# -- nothing is wrong


def pass_through(host: Host, mode: Mode) -> None:
    """A healthy run under the default guard is the run it would have been, and nothing is found or decided."""
    results = []
    for guard in (None, Guard(strict=True)):
        world, script = World(), Script(*again(1), Ask("act", {"q": "y"}, id="d"), Say("all done"))
        outcome = host.app(script, world, guard).run("do it", mode)
        results.append((world.done, outcome.texts, script.seen))
        if guard is not None:
            found = report(guard, outcome)
            assert (found.anomalies, found.decisions, found.status) == ((), (), "completed")
            assert (found.cost.model_calls, found.cost.tool_calls) == (3, 2)
    assert results[0] == results[1]


# -- five decisions


def refuse(host: Host, mode: Mode) -> None:
    """A refused call has no effect; the agent reads the objection in its place and goes on."""
    guard, world = Guard(loop({"refuse": 5}), strict=True), World()
    script = Script(*again(3), lambda texts: Say("went on") if sees(texts, OBJECTION) else Say("never told"))
    outcome = host.app(script, world, guard).run("do it", mode)

    assert world.done == ["x", "x"]
    assert "went on" in outcome.texts[-1]
    (decision,) = report(guard, outcome).decisions
    assert (decision.kind, decision.took_effect, decision.recurred) == (Kind.REFUSE, True, False)


def retry(host: Host, mode: Mode) -> None:
    """An empty reply is thrown away and sampled again with the same input, and leaves no trace."""
    guard, world = Guard(policy(AnomalyType.EMPTY_RESPONSE, {"retry": 2}), strict=True), World()
    script = Script(Say(""), Say("good"))
    outcome = host.app(script, world, guard).run("do it", mode)

    assert "good" in outcome.texts[-1]
    assert script.calls == 2
    assert script.seen[0] == script.seen[1]
    (decision,) = report(guard, outcome).decisions
    assert (decision.kind, decision.took_effect, decision.recurred) == (Kind.RETRY, True, False)


def reprompt(host: Host, mode: Mode) -> None:
    """A reply is thrown away and the model told why; the conversation afterwards holds neither."""
    guard, world = Guard(loop({"reprompt": 1}), strict=True), World()
    script = Script(*again(3), Ask("act", {"q": "other"}, id="o"), Say("changed"))
    outcome = host.app(script, world, guard).run("do it", mode)

    assert world.done == ["x", "x", "other"]
    assert sees(script.seen[3], FEEDBACK)
    assert not sees(script.seen[4], FEEDBACK)
    assert "changed" in outcome.texts[-1]
    (decision,) = report(guard, outcome).decisions
    assert (decision.kind, decision.took_effect, decision.recurred) == (Kind.REPROMPT, True, False)


def soft_halt(host: Host, mode: Mode) -> None:
    """A halt ends the run as if it had come to its end: the caller gets what was done, and no exception."""
    guard, world = Guard(loop("halt"), strict=True), World()
    script = Script(*again(9), Say("too late"))
    outcome = host.app(script, world, guard, opening="first part").run("do it", mode)

    assert world.done == ["x", "x"]
    assert script.calls == 3
    assert sees(outcome.texts, "first part")
    found = report(guard, outcome)
    assert found.status == "halted"
    assert [(decision.kind, decision.took_effect) for decision in found.decisions] == [(Kind.HALT, True)]


# -- the guard itself fails


@dataclass(frozen=True)
class Crashing:
    """A rule that always crashes."""

    type: ClassVar[AnomalyType] = AnomalyType.REPEATED_CALL

    def __call__(self, event: ToolRequested | ModelResponded, run: Run) -> Anomaly | None:
        """Crash."""
        raise RuntimeError("a bug in a rule")


@dataclass(frozen=True)
class Misleading:
    """A rule whose anomaly breaks the policy that answers it."""

    type: ClassVar[AnomalyType] = AnomalyType.REPEATED_CALL

    def __call__(self, event: ToolRequested, run: Run) -> Anomaly | None:
        """Name facts nobody can look up."""
        return Anomaly(type=self.type, message="odd", facts={"tool": ["unhashable"]})  # type: ignore[dict-item]


class Broken(Guard):
    """A guard whose every judgement crashes."""

    def judge(self, event: Event) -> Verdict:
        """Crash."""
        raise RuntimeError("a bug in the guard")


class DeadSink:
    """A sink that cannot be written."""

    def write(self, event: Event) -> None:
        """Fail."""
        raise OSError("disk full")

    def close(self) -> None:
        """Nothing to close."""


def unharmed(host: Host, mode: Mode, guard: Guard) -> Outcome:
    """Run four identical calls under the guard; they all must happen, as they do without it."""
    world, script = World(), Script(*again(4), Say("all done"))
    outcome = host.app(script, world, guard).run("do it", mode)
    assert world.done == ["x"] * 4
    assert "all done" in outcome.texts[-1]
    return outcome


def rule_crash_open(host: Host, mode: Mode) -> None:
    """A crashing fail-open rule lets everything pass, is on the record, and is quarantined."""
    guard = Guard(loop({"refuse": 5}), detectors=[Crashing()])
    found = report(guard, unharmed(host, mode, guard))
    assert {anomaly.type for anomaly in found.anomalies} == {AnomalyType.GUARD_FAILURE}
    assert sees(guard.report().quarantined, "crashed 3 times")


def rule_crash_closed(host: Host, mode: Mode) -> None:
    """A crashing fail-closed rule refuses the call it could not check; the agent is told and the run goes on."""

    @dataclass(frozen=True)
    class CrashingOnCalls(Crashing):
        def __call__(self, event: ToolRequested, run: Run) -> Anomaly | None:
            raise RuntimeError("a bug in a rule")

    guard = Guard(policy(AnomalyType.REPEATED_CALL, {"refuse": 5}, closed=True), detectors=[CrashingOnCalls()])
    world, script = World(), Script(*again(1), Say("all done"))
    outcome = host.app(script, world, guard).run("do it", mode)
    assert world.done == []
    assert sees(script.seen[1], "[misstep: guard_failure]")
    assert "all done" in outcome.texts[-1]


def policy_crash(host: Host, mode: Mode) -> None:
    """A policy that crashes on an anomaly lets the call pass."""
    unharmed(host, mode, Guard(loop({"refuse": 5}), detectors=[Misleading()]))


def seat_crash(host: Host, mode: Mode) -> None:
    """A guard that crashes at every seat is as good as none, never worse."""
    unharmed(host, mode, Broken(loop({"refuse": 5})))


def sink_down(host: Host, mode: Mode) -> None:
    """A sink that fails changes nothing in the run."""
    unharmed(host, mode, Guard(policy(AnomalyType.EMPTY_RESPONSE, {"retry": 1}), sink=DeadSink()))


# -- shapes of runs


def parallel_calls(host: Host, mode: Mode) -> None:
    """Of several calls in one reply only the bad one is refused; the others are executed once each."""
    guard, world = Guard(loop({"refuse": 5}), strict=True), World()
    both = AskAll((Ask("act", {"q": "x"}, id="p1"), Ask("act", {"q": "y"}, id="p2")))
    script = Script(*again(2), both, Say("all done"))
    outcome = host.app(script, world, guard).run("do it", mode)

    assert sorted(world.done) == ["x", "x", "y"]
    assert sees(script.seen[3], OBJECTION)
    assert "all done" in outcome.texts[-1]


def two_at_once(host: Host, mode: Mode) -> None:
    """Two runs at once under one guard are two runs: what one does never counts against the other."""
    guard = Guard(loop({"refuse": 5}), strict=True)
    meeting = threading.Barrier(2, timeout=20)
    outcomes: list[tuple[World, Outcome]] = []

    def one() -> None:
        def meet(texts: Sequence[str]) -> Reply:
            meeting.wait()
            return again(1)[0]

        world, script = World(), Script(meet, meet, Say("all done"))
        outcomes.append((world, host.app(script, world, guard).run("do it", mode)))

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert [world.done for world, _ in outcomes] == [["x", "x"], ["x", "x"]]
    runs = [report(guard, outcome) for _, outcome in outcomes]
    assert len({run.run for run in runs}) == 2
    assert all(run.anomalies == () and run.cost.tool_calls == 2 for run in runs)


def nested_refuse(host: Host, mode: Mode) -> None:
    """An agent called by an agent is guarded too, and its calls are its own."""
    guard, world = Guard(loop({"refuse": 5}), strict=True), World()
    inner = Script(*again(3), lambda texts: Say("inner went on" if sees(texts, OBJECTION) else "inner never told"))
    outer = Script(*again(2), host.ask_inner("do your part"), Say("outer done"))
    outcome = host.app(outer, world, guard, inner=Inner(inner)).run("do it", mode)

    assert world.done == ["x"] * 4
    assert inner.calls == 4
    assert sees(outer.seen[3], "inner went on")
    assert "outer done" in outcome.texts[-1]
    found = report(guard, outcome)
    assert [decision.kind for decision in found.decisions] == [Kind.REFUSE]


def nested_halt(host: Host, mode: Mode) -> None:
    """A halt inside an inner agent ends the whole run: the outer agent does not go on as if nothing were."""
    guard, world = Guard(loop("halt"), strict=True), World()
    inner, outer = Script(*again(9)), Script(host.ask_inner("do your part"), Say("outer went on"))
    outcome = host.app(outer, world, guard, inner=Inner(inner)).run("do it", mode)

    assert world.done == ["x", "x"]
    assert outer.calls == 1
    assert not sees(outcome.texts, "outer went on")
    assert report(guard, outcome).status == "halted"


def second_turn(host: Host, mode: Mode) -> None:
    """A second turn knows what was said in the first, counts anew, and is a run of its own."""
    guard = Guard(
        Policy(
            rules={
                AnomalyType.UNGROUNDED_ARGUMENT: Rule(ladder=(Rung(kind=Kind.REFUSE, limit=3),)),
                AnomalyType.REPEATED_CALL: Rule(ladder=(Rung(kind=Kind.REFUSE, limit=3),)),
            }
        ),
        strict=True,
    )
    world = World()
    look = [Ask("look", {"q": "mia"}, id=f"l{number}") for number in range(3)]
    script = Script(
        look[0], look[1], Say("it is there"), Ask("send", {"order_id": "K7310"}, id="s"), look[2], Say("sent")
    )
    app = host.app(script, world, guard, tools=("look", "send"))
    first = app.run("find mia's order", mode)
    second = app.run("now send it", mode)

    assert world.done == ["look mia", "look mia", "send K7310", "look mia"]
    assert first.run != second.run
    assert report(guard, second).anomalies == ()
    assert "sent" in second.texts[-1]


def ungrounded(host: Host, mode: Mode) -> None:
    """An identifier nobody gave the agent is refused; one a tool told it is not."""
    guard = Guard(policy(AnomalyType.UNGROUNDED_ARGUMENT, {"refuse": 3}), strict=True)
    world = World()
    script = Script(
        Ask("send", {"order_id": "Z9001"}, id="a"),
        Ask("look", {"q": "mia"}, id="b"),
        Ask("send", {"order_id": "K7310"}, id="c"),
        Say("sent"),
    )
    outcome = host.app(script, world, guard, tools=("look", "send")).run("send mia's order", mode)
    assert world.done == ["look mia", "send K7310"]
    assert sees(script.seen[1], "[misstep: ungrounded_argument] This call was not executed")
    assert "sent" in outcome.texts[-1]


def shadow(host: Host, mode: Mode) -> None:
    """In shadow mode everything happens as without the guard, and what would have been decided is on the record."""
    guard = Guard(loop({"refuse": 5}), mode="shadow", strict=True)
    found = report(guard, unharmed(host, mode, guard))
    assert [(each.kind, each.hypothetical, each.took_effect) for each in found.decisions] == [
        (Kind.REFUSE, True, None)
    ] * 2


def off(host: Host, mode: Mode) -> None:
    """Switched off, the guard does nothing at all."""
    guard = Guard(loop("halt"), mode="off", strict=True)
    unharmed(host, mode, guard)
    assert all(run.anomalies == () for run in guard.report().runs)


SCENARIOS: tuple[Scenario, ...] = (
    pass_through,
    refuse,
    retry,
    reprompt,
    soft_halt,
    rule_crash_open,
    rule_crash_closed,
    policy_crash,
    seat_crash,
    sink_down,
    parallel_calls,
    two_at_once,
    nested_refuse,
    nested_halt,
    second_turn,
    ungrounded,
    shadow,
    off,
    *DECISIONS,
)
