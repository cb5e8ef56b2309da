"""The scenarios of single decisions: each is carried out, takes effect, and its receipt says so."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from misstep import Anomaly, AnomalyType, Guard, Policy, Rule, Rung
from misstep.approval import Answer, Question
from misstep.decisions import Kind
from misstep.events import Event, ModelFailed, ModelResponded, ToolFailed, ToolRequested, ToolReturned
from misstep.run import Run
from misstep.side_effects import SideEffect
from misstep.testing import Ask, Say, Script
from tests.conformance.host import Host, Mode, Outcome, World

LOOP = AnomalyType.REPEATED_CALL

BAD = "bad"
"""What the rules of these scenarios find fault with: calls about it, results and replies that begin with it."""


def finds(heard: type[Event], when: Callable[[Any], bool], rewrite: Any = None, rests_on: str = "") -> Any:
    """A rule for events of one class; `rests_on` is the call the anomaly rests on beside its own event."""

    class Finds:
        type = LOOP

        def __call__(self, event: Any, run: Run) -> Anomaly | None:
            """Find fault."""
            if not when(event):
                return None
            earlier = run.calls.get(rests_on)
            evidence = (event.seq,) if earlier is None else (event.seq, earlier.seq)
            return Anomaly(type=LOOP, message="bad", evidence=evidence, rewrite=rewrite)

    Finds.__call__.__annotations__["event"] = heard
    return Finds()


def bad_call(event: ToolRequested) -> bool:
    """Whether a call is about something bad."""
    return BAD in map(str, event.arguments.values())


def bad_result(event: ToolReturned) -> bool:
    """Whether a tool told of something bad."""
    return event.output.startswith("found")


def bad_reply(event: ModelResponded) -> bool:
    """Whether a model says something bad."""
    return event.content.startswith(BAD)


def guarding(rule: Any, *ladder: Any, **fields: Any) -> Guard:
    """A guard with that one rule and this ladder."""
    rungs = tuple(Rung.model_validate(rung) for rung in ladder)
    return Guard(Policy(rules={LOOP: Rule(ladder=rungs)}), detectors=[rule], strict=True, **fields)


def decided(guard: Guard, outcome: Outcome) -> list[tuple[Kind, bool | None]]:
    """The decisions of the run, and whether each took effect."""
    assert outcome.run is not None
    return [(each.kind, each.took_effect) for each in guard.report(outcome.run).runs[0].decisions]


def seen(texts: list[str], words: str) -> bool:
    """Whether any text holds the words."""
    return any(words in text for text in texts)


# -- rewrite and withhold


def rewrite_arguments(host: Host, mode: Mode) -> None:
    """A call is made with the arguments a rule puts in the place of its own."""
    guard = guarding(finds(ToolRequested, bad_call, rewrite={"q": "good"}), "rewrite")
    world, script = World(), Script(Ask("act", {"q": BAD}, id="a"), Say("all done"))
    outcome = host.app(script, world, guard).run("do it", mode)
    assert world.done == ["good"]
    assert "all done" in outcome.texts[-1]
    assert decided(guard, outcome) == [(Kind.REWRITE, True)]


def rewrite_result(host: Host, mode: Mode) -> None:
    """What a tool told reaches the model in the words a rule puts in their place, and nobody hears the others."""
    guard = guarding(finds(ToolReturned, bad_result, rewrite="masked"), "rewrite")
    world, script = World(), Script(Ask("look", {"q": "mia"}, id="a"), Say("all done"))
    outcome = host.app(script, world, guard, tools=("look",)).run("do it", mode)
    assert world.done == ["look mia"]
    assert seen(script.seen[1], "masked")
    assert not seen(script.seen[1], "K7310")
    assert not seen(outcome.texts, "K7310")
    assert decided(guard, outcome) == [(Kind.REWRITE, True)]


def rewrite_reply(host: Host, mode: Mode) -> None:
    """What a model said is passed on in the words a rule puts in their place."""
    guard = guarding(finds(ModelResponded, bad_reply, rewrite="kinder words"), "rewrite")
    outcome = host.app(Script(Say("bad words")), World(), guard).run("do it", mode)
    assert "kinder words" in outcome.texts[-1]
    assert not seen(outcome.texts, "bad words")
    assert decided(guard, outcome) == [(Kind.REWRITE, True)]


def withhold_result(host: Host, mode: Mode) -> None:
    """A refused result does not reach the model; it reads why and goes on."""
    guard = guarding(finds(ToolReturned, bad_result), {"refuse": 3})
    world, script = World(), Script(Ask("look", {"q": "mia"}, id="a"), Say("went on"))
    outcome = host.app(script, world, guard, tools=("look",)).run("do it", mode)
    assert world.done == ["look mia"]
    assert seen(script.seen[1], "[misstep: repeated_call] What the tool answered was withheld.")
    assert not seen(script.seen[1], "K7310")
    assert "went on" in outcome.texts[-1]
    assert decided(guard, outcome) == [(Kind.REFUSE, True)]


# -- asking the model otherwise


def fallback(host: Host, mode: Mode) -> None:
    """Another model answers in the place of one whose reply was bad."""
    small = Script(Say("the small one knows"))
    guard = guarding(
        finds(ModelResponded, bad_reply),
        {"fallback": {"to": "small", "limit": 1}},
        models={"small": host.model(small)},
    )
    script = Script(Say("bad words"))
    outcome = host.app(script, World(), guard).run("do it", mode)
    assert (script.calls, small.calls) == (1, 1)
    assert small.seen == script.seen
    assert "the small one knows" in outcome.texts[-1]
    assert decided(guard, outcome) == [(Kind.FALLBACK, True)]


def vote(host: Host, mode: Mode) -> None:
    """Of three new replies the one most agree on is passed on, and only its call is made."""
    guard = guarding(finds(ModelResponded, bad_reply), {"vote": {"samples": 3, "limit": 1}})
    world = World()
    ballots = [Ask("act", {"q": q}, id=f"v{number}") for number, q in enumerate(("odd", "even", "even"))]
    script = Script(Say("bad words"), *ballots, Say("all done"))
    outcome = host.app(script, world, guard).run("do it", mode)
    assert script.calls == 5
    assert world.done == ["even"]
    assert "all done" in outcome.texts[-1]
    assert decided(guard, outcome) == [(Kind.VOTE, True)]


def model_error(host: Host, mode: Mode) -> None:
    """A model that raises is asked again where the policy says so, and the run goes on."""
    guard = guarding(finds(ModelFailed, lambda event: True), {"retry": 1})
    script = Script(ConnectionError("once"), Say("all done"))
    outcome = host.app(script, World(), guard).run("do it", mode)
    assert script.calls == 2
    assert "all done" in outcome.texts[-1]
    assert decided(guard, outcome) == [(Kind.RETRY, True)]


def notice(host: Host, mode: Mode) -> None:
    """A word about what a tool told reaches the model at its next call, and only there."""
    guard = guarding(finds(ToolReturned, bad_result), {"reprompt": 1})
    script = Script(Ask("look", {"q": "mia"}, id="a"), Ask("look", {"q": "bob"}, id="b"), Say("all done"))
    outcome = host.app(script, World(), guard, tools=("look",)).run("do it", mode)
    assert seen(script.seen[1], "[misstep: repeated_call]")
    assert seen(script.seen[1], "K7310")
    assert not seen(script.seen[2], "[misstep: repeated_call]")
    assert decided(guard, outcome) == [(Kind.REPROMPT, True)]


# -- a person


def asking(answer: Any, **rung: Any) -> tuple[Guard, list[Question]]:
    """A guard that asks about bad calls, and the questions as they come."""
    questions: list[Question] = []

    def person(question: Question) -> Any:
        questions.append(question)
        return answer(question) if callable(answer) else answer

    return guarding(finds(ToolRequested, bad_call), {"ask": {"timeout": 10, **rung}}, approver=person), questions


def ask_approve(host: Host, mode: Mode) -> None:
    """A call a person approves is made; the person sees the call."""
    guard, questions = asking(Answer("approve"))
    world, script = World(), Script(Ask("act", {"q": BAD}, id="a"), Say("all done"))
    outcome = host.app(script, world, guard).run("do it", mode)
    assert world.done == [BAD]
    assert [(question.tool, question.arguments) for question in questions] == [("act", {"q": BAD})]
    assert decided(guard, outcome) == [(Kind.ASK, True)]


def ask_edit(host: Host, mode: Mode) -> None:
    """A call a person edits is made as edited."""
    guard, _ = asking(Answer("edit", {"q": "good"}))
    world, script = World(), Script(Ask("act", {"q": BAD}, id="a"), Say("all done"))
    outcome = host.app(script, world, guard).run("do it", mode)
    assert world.done == ["good"]
    assert "all done" in outcome.texts[-1]


def ask_reject(host: Host, mode: Mode) -> None:
    """A call a person rejects is not made; the agent reads why and goes on."""
    guard, _ = asking(Answer("reject", comment="not on a Friday"))
    world, script = World(), Script(Ask("act", {"q": BAD}, id="a"), Say("went on"))
    outcome = host.app(script, world, guard).run("do it", mode)
    assert world.done == []
    assert seen(script.seen[1], "A person was asked about this and rejected it. They say: not on a Friday")
    assert "went on" in outcome.texts[-1]


def ask_nobody_answers(host: Host, mode: Mode) -> None:
    """Nobody is waited for longer than the rung says; then its default stands."""
    silent = threading.Event()
    for default, done in (("approve", [BAD]), ("reject", [])):
        guard, _ = asking(lambda question: silent.wait(20), timeout=0.1, default=default)
        world, script = World(), Script(Ask("act", {"q": BAD}, id="a"), Say("all done"))
        outcome = host.app(script, world, guard).run("do it", mode)
        assert world.done == done
        assert "all done" in outcome.texts[-1]
    silent.set()


# -- elsewhere


def reroute_hand_off(host: Host, mode: Mode) -> None:
    """A hand-off goes to the agent the policy names instead of the one the model chose."""
    bob, carol = Script(Say("bob took over")), Script(Say("carol took over"))
    rule = finds(ToolRequested, lambda event: "carol" in f"{event.tool} {event.arguments}")
    guard = guarding(rule, {"reroute": {"to": "bob", "limit": 1}})
    script = Script(host.hand_off("carol"), Say("handed off"))
    outcome = host.app(script, World(), guard, others={"bob": bob, "carol": carol}).run("do it", mode)
    assert (bob.calls, carol.calls) == (1, 0)
    assert seen(outcome.texts, "bob took over")
    assert decided(guard, outcome) == [(Kind.REROUTE, True)]


def reroute_turn(host: Host, mode: Mode) -> None:
    """An agent that goes wrong loses the turn to another: its call is not made, and the other one goes on."""
    bob = Script(Say("bob took over"))
    guard = guarding(finds(ToolRequested, bad_call), {"reroute": {"to": "bob", "limit": 1}})
    world, script = World(), Script(Ask("act", {"q": BAD}, id="a"), Say("stepped back"))
    outcome = host.app(script, world, guard, others={"bob": bob}).run("do it", mode)
    assert world.done == []
    assert bob.calls == 1
    assert seen(outcome.texts, "bob took over")
    assert decided(guard, outcome) == [(Kind.REROUTE, True)]


def roll_back(host: Host, mode: Mode) -> None:
    """The run goes back to before the misstep and goes on from there with the lesson; what came after is gone."""
    guard = guarding(finds(ToolRequested, bad_call, rests_on="a"), {"roll_back": 1})
    world = World()
    script = Script(
        Ask("act", {"q": "first"}, id="a"),
        Ask("act", {"q": BAD}, id="b"),
        lambda texts: Say("learned" if seen(list(texts), "was taken back") else "never told"),
    )
    outcome = host.app(script, world, guard).run("do it", mode)
    assert world.done == ["first"]
    assert "nothing" not in script.seen[2]
    assert "learned" in outcome.texts[-1]
    assert "nothing" not in outcome.texts
    assert decided(guard, outcome) == [(Kind.ROLL_BACK, True)]


def tool_timeout(host: Host, mode: Mode) -> None:
    """A tool that does not answer in time is not waited for; the agent reads that and goes on."""
    rule = Rule(thresholds={"seconds": 0.2}, ladder=(Rung(kind=Kind.REFUSE),))
    guard = Guard(Policy(rules={AnomalyType.TOOL_TIMEOUT: rule}), strict=True)
    world, script = World(), Script(Ask("hang", {"q": "x"}, id="a"), Say("went on"))
    outcome = host.app(script, world, guard, tools=("hang",)).run("do it", mode)
    assert not world.late.is_set()
    assert seen(script.seen[1], "[misstep: tool_timeout]")
    assert "went on" in outcome.texts[-1]
    assert decided(guard, outcome) == [(Kind.REFUSE, True)]


def tool_retry(host: Host, mode: Mode) -> None:
    """A tool that is declared to change nothing is called again when it fails; another one never is."""
    for declared, done in (("read_only", ["x", "x"]), ("irreversible", ["x"])):
        rungs = (Rung(kind=Kind.RETRY, limit=1), Rung(kind=Kind.REFUSE))
        guard = Guard(
            Policy(rules={LOOP: Rule(ladder=rungs)}, side_effects={"flaky": SideEffect(declared)}),
            detectors=[finds(ToolFailed, lambda event: True)],
            strict=True,
        )
        world, script = World(), Script(Ask("flaky", {"q": "x"}, id="a"), Say("went on"))
        outcome = host.app(script, world, guard, tools=("flaky",)).run("do it", mode)
        assert world.done == done
        assert "went on" in outcome.texts[-1]


# -- a detector that knows the framework


def arguments_as_the_framework_takes_them(host: Host, mode: Mode) -> None:
    """Arguments the framework converts by itself are no anomaly; what it would turn down is refused beforehand."""
    rule = Rule(ladder=(Rung(kind=Kind.REFUSE),))
    guard = Guard(Policy(rules={AnomalyType.INVALID_ARGUMENTS: rule}), strict=True)
    world = World()
    script = Script(Ask("count", {"n": "3"}, id="a"), Ask("count", {"n": "three"}, id="b"), Say("went on"))
    outcome = host.app(script, world, guard, tools=("count",)).run("do it", mode)
    assert world.done == ["count 3"]
    assert seen(script.seen[2], "[misstep: invalid_arguments] This call was not executed")
    assert "went on" in outcome.texts[-1]


DECISIONS = (
    rewrite_arguments,
    rewrite_result,
    rewrite_reply,
    withhold_result,
    fallback,
    vote,
    model_error,
    notice,
    ask_approve,
    ask_edit,
    ask_reject,
    ask_nobody_answers,
    reroute_hand_off,
    reroute_turn,
    roll_back,
    tool_timeout,
    tool_retry,
    arguments_as_the_framework_takes_them,
)
