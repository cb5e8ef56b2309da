"""One call, one verdict: a verdict is on a call's tool and arguments, whatever id the call bears."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from misstep import Anomaly, AnomalyType, Answer, Guard, Policy, Rule, Rung
from misstep.decisions import Kind
from misstep.events import ModelResponded, ProposedCall, ToolRequested
from misstep.run import Run


@dataclass(frozen=True)
class Bad:
    """Finds calls about what is bad."""

    type: ClassVar[AnomalyType] = AnomalyType.UNSAFE_COMMAND

    def __call__(self, event: ToolRequested, run: Run) -> Anomaly | None:
        """Look at the argument."""
        return Anomaly(type=self.type, message="bad") if event.arguments.get("q") == "bad" else None


def guarding() -> Guard:
    """A guard that refuses them."""
    rules = {AnomalyType.UNSAFE_COMMAND: Rule(ladder=(Rung(kind=Kind.REFUSE, limit=9),))}
    return Guard(Policy(rules=rules), detectors=[Bad()], strict=True)


def proposes(guard: Guard, *calls: tuple[str, str]) -> None:
    """A reply with a call for each of these (id, argument)."""
    proposed = tuple(ProposedCall(call, "act", {"q": q}) for call, q in calls)
    guard.judge(ModelResponded(run="r", agent="a", instance="a", call="m1", content="", calls=proposed))


def made(guard: Guard, call: str, q: str, tool: str = "act") -> Any:
    """What is said of a call where it is made."""
    event = ToolRequested(run="r", agent="a", instance="a", call=call, tool=tool, arguments={"q": q})
    return guard.verdict(event).decision.kind


@pytest.mark.parametrize("batch", [("bad", "good"), ("good", "bad")])
def test_two_calls_with_one_id(batch: tuple[str, str]) -> None:
    """Of two calls that bear one id each has its own verdict, in whatever order they are proposed and made."""
    for order in (1, -1):
        guard = guarding()
        proposes(guard, *(("a", q) for q in batch))
        said = {q: made(guard, "a", q) for q in batch[::order]}
        assert said == {"bad": Kind.REFUSE, "good": Kind.ALLOW}


def test_a_call_that_was_changed_since() -> None:
    """Whoever changes a call after its reply was judged has another call judged."""
    guard = guarding()
    proposes(guard, ("a", "good"), ("b", "bad"))
    assert made(guard, "a", "bad") is Kind.REFUSE
    assert made(guard, "b", "good") is Kind.ALLOW


def test_a_call_made_as_it_was_proposed() -> None:
    """A call that is made as it was judged is judged once, however often its node runs."""
    guard = guarding()
    proposes(guard, ("a", "bad"))
    assert [made(guard, "a", "bad") for _ in range(3)] == [Kind.REFUSE] * 3
    assert len(guard.report("r").runs[0].anomalies) == 1


def test_a_call_that_was_changed_while_a_person_is_asked() -> None:
    """What nobody saw is not made on a word given for something else: the person is asked about what it is now."""
    rules = {AnomalyType.UNSAFE_COMMAND: Rule(ladder=(Rung(kind=Kind.ASK, limit=9),))}
    guard = Guard(Policy(rules=rules), detectors=[Bad()], approver=lambda question: Answer("reject"), strict=True)
    proposes(guard, ("a", "bad"))
    assert made(guard, "a", "good") is Kind.ASK
