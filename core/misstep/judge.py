"""The judgement of one event: what the detectors see in it, what the policy answers, which answer wins."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from misstep import feedback
from misstep.anomalies import Anomaly
from misstep.decisions import ALLOW, Decision, Halt, Kind, Refuse
from misstep.dispatch import Dispatch, Failure, Findings
from misstep.events import Event, ModelResponded, ToolFailed, ToolRequested, ToolReturned, cancelled
from misstep.policy import Ladder, Reach
from misstep.run import Run
from misstep.session import PASSED, Session, Verdict
from misstep.support import Means, reach
from misstep.taxonomy import AnomalyType

UNCHECKED = (
    "[misstep: guard_failure] This call was not executed: it could not be checked. "
    "Do not repeat it now; go on without it, or say that you could not do it."
)

UNOPENED = "[misstep: guard_failure] The run was not begun: it could not be guarded, and a rule fails closed."

_UNCHECKED_RESULT = "[misstep: guard_failure] What the tool answered was withheld: it could not be checked."

_THROWN_AWAY = "the reply that proposed it was thrown away"

_OF_THE_REPLY = frozenset({Kind.RETRY, Kind.REPROMPT, Kind.VOTE, Kind.FALLBACK, Kind.ROLL_BACK, Kind.HALT})
"""Decisions on a proposed call that concern the whole reply; the others are enforced where the call is made."""


class Judge:
    """
    Judges events of any session; the caller holds the session's lock.

    `repeatable` tells whether a tool's call may be made twice; `dropped` are the remedies that are decided on but no
    longer carried out.
    """

    def __init__(
        self, ladder: Ladder, dispatch: Dispatch, means: Means, repeatable: Callable[[str, Run], bool]
    ) -> None:
        self._ladder, self._dispatch, self._means, self._repeatable = ladder, dispatch, means, repeatable
        self.dropped: frozenset[tuple[AnomalyType, Kind]] = frozenset()

    def judge(self, session: Session, event: Event) -> Verdict:
        """Take an event into the run and decide on it. History is taken in and never acted on."""
        session.append(event)
        if event.history:
            return PASSED
        own = self._verdict(session, event)
        if isinstance(event, ModelResponded) and event.calls:
            return self._judge_calls(session, event, own)
        if isinstance(event, ToolRequested) and event.call is not None:
            session.remember(event.call, own, event)
        return own

    def _judge_calls(self, session: Session, reply: ModelResponded, own: Verdict) -> Verdict:
        """Judge every call a reply proposes; what concerns the whole reply is returned, the rest is remembered."""
        requests = _proposed(reply)
        verdicts = [own]
        for request in requests:
            session.append(request)
            verdict = self._verdict(session, request, proposed=True)
            session.remember(request.call or "", verdict, request)
            verdicts.append(verdict)

        types = frozenset[AnomalyType]().union(*(verdict.types for verdict in verdicts))
        of_reply = [verdict for verdict in verdicts if verdict.decision.kind in _OF_THE_REPLY]
        if not of_reply:
            return Verdict(own.decision, own.taken, types)
        strongest = max(of_reply, key=lambda verdict: verdict.decision.kind.strength)
        for verdict in verdicts:
            if verdict is not strongest:
                _superseded(session, verdict, "fell with the reply")
        for request in requests:
            session.forget(request.call or "")
            session.append(cancelled(request, _THROWN_AWAY, step=request.step))
        return Verdict(strongest.decision, strongest.taken, types)

    def _verdict(self, session: Session, event: Event, *, proposed: bool = False) -> Verdict:
        findings = self._dispatch.detect(event, session.run)
        if findings is None:
            return PASSED
        within = reach(type(event), session.seats, self._means, session.agents, proposed=proposed)
        if isinstance(event, ToolReturned | ToolFailed) and not self._repeatable(event.tool, session.run):
            within = dataclasses.replace(within, kinds=within.kinds - {Kind.RETRY})
        return self._decide(session, event, findings, within)

    def _decide(self, session: Session, event: Event, findings: Findings, within: Reach) -> Verdict:
        """Write down what was found, climb each ladder, and let the strongest answer win."""
        answers = [
            (anomaly, session.found(event, anomaly), self._ladder.answer(anomaly, event, session.run, within))
            for anomaly in findings.anomalies
        ]
        for failure in findings.failures:
            anomaly = failed(failure.reason)
            answer = self._answer(failure, anomaly, event, session, within)
            answers.append((anomaly, session.found(event, anomaly), answer))
        answers.sort(key=lambda answer: self._ladder.precedence(answer[0], answer[2]))

        types = frozenset(anomaly.type for anomaly, _, _ in answers)
        taken = [
            (session.took(event, found, answer, hypothetical=(found.type, answer.kind) in self.dropped), answer)
            for _, found, answer in answers
            if answer.kind is not Kind.ALLOW
        ]
        carried_out = [each for each in taken if not each[0].hypothetical]
        if not carried_out:
            return Verdict(ALLOW, (), types)
        record, decision = carried_out[-1]
        for loser, _ in carried_out[:-1]:
            session.settled(loser, took_effect=False, detail=f"superseded by {decision.kind}")
        verdict = Verdict(decision, (record,), types)
        if isinstance(decision, Halt):
            session.stop(decision.reason, verdict)
        return verdict

    def _answer(self, failure: Failure, anomaly: Anomaly, event: Event, session: Session, within: Reach) -> Decision:
        """A fail-closed rule that failed refuses the call or its result; where there is neither it ends the run."""
        if not failure.closed:
            return self._ladder.answer(anomaly, event, session.run, within)
        if isinstance(event, ToolRequested):
            return Refuse(UNCHECKED)
        if isinstance(event, ToolReturned | ToolFailed) and Kind.REFUSE in within.kinds:
            return Refuse(_UNCHECKED_RESULT)
        return Halt(feedback.halted(anomaly, session.run))


def dismiss(session: Session, reply: ModelResponded) -> None:
    """A reply that was passed is thrown away after all: what it proposes is given up."""
    for request in _proposed(reply):
        session.forget(request.call or "")
        session.append(cancelled(request, _THROWN_AWAY, step=reply.step))


def failed(reason: str) -> Anomaly:
    """The anomaly of a guard that failed."""
    return Anomaly(type=AnomalyType.GUARD_FAILURE, message=reason)


def _proposed(reply: ModelResponded) -> list[ToolRequested]:
    return [
        ToolRequested(
            run=reply.run,
            call=proposed.call,
            batch=reply.call or reply.id,
            parent=reply.id,
            attempt=reply.attempt,
            agent=reply.agent,
            instance=reply.instance,
            tool=proposed.tool,
            arguments=proposed.arguments or {},
            raw=proposed.raw if proposed.arguments is None else None,
        )
        for proposed in reply.calls
    ]


def _superseded(session: Session, verdict: Verdict, detail: str) -> None:
    for taken in verdict.taken:
        session.settled(taken, took_effect=False, detail=detail)
