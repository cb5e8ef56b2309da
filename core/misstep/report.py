"""Reports: what was found and decided in a run, and whether it held."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from misstep.decisions import Kind
from misstep.events import AnomalyFound, DecisionSettled, DecisionTaken, Outcome, Status
from misstep.localize import RootCause, localize
from misstep.redact import printable
from misstep.remedies import RemedyReport
from misstep.side_effects import By, SideEffect
from misstep.taxonomy import AnomalyType, Category, Severity


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class EvidenceReport(_Frozen):
    """A step an anomaly rests on, and the words that show it."""

    step: int | None
    quote: str


class AnomalyReport(_Frozen):
    """One anomaly; all its texts are redacted."""

    id: str
    type: AnomalyType
    category: Category
    severity: Severity
    confidence: float
    step: int | None
    agent: str
    message: str
    evidence: tuple[EvidenceReport, ...]


class DecisionReport(_Frozen):
    """
    One decision and its receipt. `took_effect` is None while it is open, or where it is hypothetical;
    `recurred` says whether the anomaly came back after it.
    """

    step: int | None
    agent: str
    kind: Kind
    anomaly: AnomalyType | None
    hypothetical: bool
    took_effect: bool | None = None
    recurred: bool | None = None
    detail: str = ""


class Cost(_Frozen):
    """What the run used; tokens are `estimated` where a framework reported none."""

    model_calls: int = 0
    tool_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    estimated: bool = False


class ToolReport(_Frozen):
    """What a tool that was declared or called does to the world, `by` whom or what that is known, and `why`."""

    tool: str
    side_effect: SideEffect
    by: By
    why: str
    called: bool

    @property
    def lasting(self) -> bool:
        """Whether a second call does more than the first."""
        return self.side_effect.lasting


class JournalReport(_Frozen):
    """
    Calls with a lasting effect: written into the journal, answered from it, and of unknown effect, which a person was
    asked about; `repeated` are those of the latter that were made on a person's word.
    """

    journaled: int = 0
    answered: int = 0
    unknown: int = 0
    repeated: int = 0


class RunReport(_Frozen):
    """Everything the guard has to say of one run."""

    run: str
    framework: str
    status: Status | None
    outcome: Outcome | None
    score: float | None
    steps: int
    agents: tuple[str, ...]
    anomalies: tuple[AnomalyReport, ...]
    decisions: tuple[DecisionReport, ...]
    root_cause: RootCause | None
    cost: Cost
    dropped: int
    """Anomalies and decisions beyond what one run keeps."""
    tools: tuple[ToolReport, ...] = ()
    journal: JournalReport = JournalReport()


class Report(_Frozen):
    """What `guard.report()` returns; `str()` of it is for people."""

    runs: tuple[RunReport, ...]
    quarantined: tuple[str, ...] = ()
    """Rules that no longer protect, and why."""
    disabled: tuple[str, ...] = ()
    """Rules an operator switched off at run time."""
    unsupported: tuple[str, ...] = ()
    """Decisions of the policy no seat could enact, and what is done instead."""
    evicted: int = 0
    """Runs whose end nobody announced."""
    remedies: tuple[RemedyReport, ...] = ()
    """What came of each remedy, over all runs since the guard was made."""

    def __str__(self) -> str:
        lines = [*(f"! rule quarantined: {why}" for why in self.quarantined)]
        lines += [f"! rule switched off: {rule}" for rule in self.disabled]
        lines += [f"! not enforced: {gap}" for gap in self.unsupported]
        lines += [f"{'!' if each.verdict == 'harms' else '='} {each}" for each in self.remedies if each.estimated]
        for run in self.runs:
            lines += _described(run)
        return "\n".join(" ".join(line.splitlines()) for line in lines) or "no run to report"


class Ledger:
    """What a report is made of, gathered as a run goes on; bounded."""

    __slots__ = ("anomalies", "decisions", "dropped", "receipts")

    KEEP = 1000

    def __init__(self) -> None:
        self.anomalies: list[AnomalyFound] = []
        self.decisions: list[DecisionTaken] = []
        self.receipts: dict[str, DecisionSettled] = {}
        self.dropped = 0

    def add(self, event: AnomalyFound | DecisionTaken | DecisionSettled) -> None:
        """Keep one finding, decision or receipt; beyond 1,000 of a kind they are counted."""
        match event:
            case AnomalyFound() if len(self.anomalies) < self.KEEP:
                self.anomalies.append(event)
            case DecisionTaken() if len(self.decisions) < self.KEEP:
                self.decisions.append(event)
            case DecisionSettled() if event.decision_id in self.receipts or len(self.receipts) < self.KEEP:
                self.receipts[event.decision_id] = _merged(self.receipts.get(event.decision_id), event)
            case _:
                self.dropped += 1

    def root_cause(self, outcome: Outcome | None) -> RootCause | None:
        """The localization of what was found so far."""
        found = localize(self.anomalies, outcome)
        if found is None:
            return None
        return found.model_copy(
            update={
                "candidates": tuple(
                    candidate.model_copy(update={"why": printable(candidate.why), "agent": printable(candidate.agent)})
                    for candidate in found.candidates
                )
            }
        )

    def anomaly_reports(self) -> tuple[AnomalyReport, ...]:
        """The anomalies in order, redacted."""
        return tuple(
            AnomalyReport(
                id=found.id,
                type=found.type,
                category=found.category,
                severity=found.severity,
                confidence=round(found.confidence, 3),
                step=found.step,
                agent=printable(found.agent),
                message=printable(found.message),
                evidence=tuple(
                    EvidenceReport(step=piece.step, quote=printable(piece.quote)) for piece in found.evidence
                ),
            )
            for found in self.anomalies
        )

    def decision_reports(self) -> tuple[DecisionReport, ...]:
        """The decisions in order, each with its receipt."""
        types = {found.id: found.type for found in self.anomalies}
        return tuple(self._decision(taken, types) for taken in self.decisions)

    def _decision(self, taken: DecisionTaken, types: dict[str, AnomalyType]) -> DecisionReport:
        receipt = self.receipts.get(taken.id)
        return DecisionReport(
            step=taken.step,
            agent=printable(taken.agent),
            kind=taken.decision,
            anomaly=types.get(taken.anomalies[0]) if taken.anomalies else None,
            hypothetical=taken.hypothetical,
            took_effect=receipt.took_effect if receipt else None,
            recurred=receipt.recurred if receipt else None,
            detail=receipt.detail if receipt else "",
        )


def _merged(earlier: DecisionSettled | None, later: DecisionSettled) -> DecisionSettled:
    """The later receipt; what the earlier one said of it is not lost."""
    if earlier is None or not earlier.detail or later.detail:
        return later
    return dataclasses.replace(later, detail=earlier.detail)


def _described(run: RunReport) -> Sequence[str]:
    spent = f"{run.cost.model_calls} model calls, {run.cost.tool_calls} tool calls"
    lines = [f"run {run.run} ({run.framework or 'unknown'}): {run.status or 'running'}, {run.steps} steps, {spent}"]
    for found in run.anomalies:
        lines.append(f"  {found.severity:<8} step {found.step} {found.agent}: {found.type} - {found.message}")
    for decision in run.decisions:
        lines.append(
            f"  -> step {decision.step} {decision.agent}: {decision.kind} for {decision.anomaly} {_held(decision)}"
        )
    lasting = [f"{tool.tool} {tool.side_effect} ({tool.why})" for tool in run.tools if tool.called and tool.lasting]
    if lasting:
        lines.append(f"  lasting effects: {'; '.join(lasting)}")
    if run.journal != JournalReport():
        counts = ", ".join(f"{count} {name}" for name, count in run.journal)
        lines.append(f"  journal: {counts}")
    if run.root_cause is not None:
        first = run.root_cause.candidates[0]
        sure = "perhaps" if run.root_cause.abstained else "likely"
        lines.append(
            f"  misstep: {sure} step {first.step} by {first.agent or 'unknown'} ({run.root_cause.cause}): {first.why}"
        )
    return lines


def _held(decision: DecisionReport) -> str:
    if decision.hypothetical:
        return "(not carried out: watching only)"
    states: dict[tuple[bool | None, bool | None], str] = {
        (True, False): "- took effect, the anomaly did not come back",
        (True, True): "- took effect, the anomaly came back",
        (True, None): "- took effect",
        (False, None): "- DID NOT TAKE EFFECT",
        (False, True): "- DID NOT TAKE EFFECT, the anomaly came back",
    }
    said = states.get((decision.took_effect, decision.recurred), "- open")
    return f"{said}{f': {decision.detail}' if decision.detail else ''}"


def tools_of(run: Any) -> tuple[ToolReport, ...]:
    """The tools of a `Run` as a report shows them, in order of their names."""
    names = sorted({*run.tools, *run.called})
    found = ((name, run.side_effect(name)) for name in names)
    return tuple(
        ToolReport(
            tool=printable(name),
            side_effect=classified.side_effect,
            by=classified.by,
            why=printable(classified.why),
            called=name in run.called,
        )
        for name, classified in found
    )


def cost_of(spent: Any) -> Cost:
    """A run's `Spent` as a report shows it."""
    return Cost(
        model_calls=spent.model_calls,
        tool_calls=spent.tool_calls,
        input_tokens=spent.input_tokens,
        output_tokens=spent.output_tokens,
        estimated=spent.estimated,
    )
