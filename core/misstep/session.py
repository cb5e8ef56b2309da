"""A session: one run under one guard, with what was decided in it so far."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from misstep.decisions import ALLOW, Decision, Kind
from misstep.events import DecisionTaken, Outcome
from misstep.report import Ledger, RunReport, cost_of
from misstep.run import Run
from misstep.seats import Seats
from misstep.taxonomy import AnomalyType


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the guard says of one event: the decision in force, the record of it, every type of anomaly found."""

    decision: Decision = ALLOW
    taken: tuple[DecisionTaken, ...] = ()
    types: frozenset[AnomalyType] = field(default_factory=frozenset)


PASSED = Verdict()

_REPEATING = frozenset({Kind.RETRY, Kind.REPROMPT})


class Session:
    """
    What a guard holds of a run beside the run's own indexes.

    `seats` is what the attached adapter can enact (None: whoever calls `observe` enacts all of it); a `watching`
    session records decisions as hypothetical. `halted` is the reason once a halt was decided: it is sticky, so that
    a framework that swallows the signal meets it again at the next seat.
    """

    def __init__(self, run: Run, seats: Seats | None, *, watching: bool, framework: str) -> None:
        self.run = run
        self.seats = seats
        self.watching = watching
        self.ledger = Ledger()
        self.ledger.framework = framework
        self.halted: str | None = None
        self.ended = False
        self.success: bool | None = None
        self.score: float | None = None
        self.open: dict[tuple[str, AnomalyType], DecisionTaken] = {}
        """The last enforced decision per instance and type, until it is known whether the anomaly came back."""
        self._verdicts: OrderedDict[str, Verdict] = OrderedDict()

    def remember(self, call: str, verdict: Verdict) -> None:
        """Keep a call's verdict for the seats after this one."""
        self._verdicts[call] = verdict
        self._verdicts.move_to_end(call)
        if len(self._verdicts) > self.run.limits.calls:
            self._verdicts.popitem(last=False)

    def remembered(self, call: str | None) -> Verdict | None:
        """The verdict of a call that is still open; None where it was never judged or is done."""
        known = self.run.calls.get(call)
        return self._verdicts.get(call or "") if known is not None and known.state == "open" else None

    def forget(self, call: str) -> None:
        """Drop a call's verdict: its reply was thrown away."""
        self._verdicts.pop(call, None)

    def inherit(self, earlier: RunReport | None) -> None:
        """Take over what the run this one continues had spent."""
        if earlier is not None:
            spent, cost = self.run.spent, earlier.cost
            spent.model_calls, spent.tool_calls = cost.model_calls, cost.tool_calls
            spent.input_tokens, spent.output_tokens, spent.estimated = (
                cost.input_tokens,
                cost.output_tokens,
                cost.estimated,
            )

    def took_effect(self, taken: DecisionTaken) -> bool:
        """Whether a decision is known to have taken effect: by its receipt, or because the model was asked again."""
        receipt = self.ledger.receipts.get(taken.id)
        return receipt.took_effect if receipt is not None else taken.decision in _REPEATING

    def close(self, taken: DecisionTaken, types: Iterable[AnomalyType]) -> None:
        """Nothing more is to be learned of this decision."""
        for type_ in types:
            if self.open.get((taken.instance, type_)) is taken:
                del self.open[taken.instance, type_]

    def report(self) -> RunReport:
        """Everything known of the run now."""
        run, ended = self.run, self.run.ended
        with run.lock:
            outcome = outcome_of(self.success) or (ended.outcome if ended else None)
            return RunReport(
                run=run.id,
                framework=self.ledger.framework,
                status=ended.status if ended else None,
                outcome=outcome,
                score=self.score if self.score is not None else (ended.score if ended else None),
                steps=run.steps,
                agents=tuple(run.agents),
                anomalies=self.ledger.anomaly_reports(),
                decisions=self.ledger.decision_reports(),
                root_cause=self.ledger.root_cause(outcome),
                cost=cost_of(run.spent),
                dropped=self.ledger.dropped,
            )


def outcome_of(success: bool | None) -> Outcome | None:
    """How a run turned out, in the words of an event."""
    return None if success is None else ("success" if success else "failure")
