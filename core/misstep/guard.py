"""The guard: takes events, asks the detectors, lets the policy decide, and keeps the books."""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import cast

from misstep import feedback
from misstep.anomalies import Anomaly
from misstep.decisions import ALLOW, Decision, Halt, Kind, Refuse
from misstep.detectors import Detector
from misstep.dispatch import Dispatch, Failure, Findings, Rulewatch
from misstep.errors import AttachError
from misstep.events import (
    AnomalyFound,
    DecisionSettled,
    DecisionTaken,
    Event,
    ModelResponded,
    RunEnded,
    RunResumed,
    RunStarted,
    Status,
    ToolCancelled,
    ToolRequested,
)
from misstep.policy import Ladder, Mode, Policy, default_policy, load_policy
from misstep.redact import printable
from misstep.report import Report, RunReport
from misstep.run import Limits, Run
from misstep.seats import Seat, Seats
from misstep.session import PASSED, Session, Verdict, outcome_of
from misstep.sink import Sink
from misstep.support import gaps, reach
from misstep.taxonomy import AnomalyType, Severity, taxonomy

log = logging.getLogger("misstep")

Listener = Callable[[AnomalyFound], object]

_OF_THE_REPLY = frozenset({Kind.RETRY, Kind.REPROMPT, Kind.VOTE, Kind.FALLBACK, Kind.ROLL_BACK, Kind.HALT})
"""Decisions on a proposed call that concern the whole reply; the others are enforced where the call is made."""


class Guard:
    """
    Watches runs and decides; adapters enact.

    `policy` defaults to one that enforces what was measured harmless and warns about the rest. `detectors` are your
    own, beside the policy's; one for a type the policy has takes that one's place. `mode` (or the
    environment's MISSTEP_MODE, which wins) switches the whole guard: `enforce`, `shadow` or `off`. `sink` takes every
    event. `limits` bound the memory of one run; at most `runs` runs are open, each for at most `age` seconds without
    an event, then it is evicted and counted. With `strict`, failures of the guard's own code are raised (for tests).

    A guard is shared freely between threads, event loops, graphs, teams and crews.
    """

    def __init__(
        self,
        policy: Policy | None = None,
        *,
        detectors: Iterable[Detector] = (),
        mode: Mode | None = None,
        sink: Sink | None = None,
        limits: Limits | None = None,
        runs: int = 1000,
        age: float = 3600.0,
        strict: bool = False,
    ) -> None:
        self.policy = policy or default_policy()
        self.mode: Mode = _mode(mode or self.policy.mode)
        self.sink = sink
        self.limits = limits or Limits()
        self.strict = strict
        self._most, self._age = runs, age
        self._ladder = Ladder(self.policy)
        self._dispatch = Dispatch(_rules(self.policy, detectors), strict=strict)
        self._closed = any(rule.closed for rule in self._dispatch.rules)
        self._listeners: dict[AnomalyType, list[Listener]] = {}
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._finished: OrderedDict[str, RunReport] = OrderedDict()
        self._threads: OrderedDict[str, str] = OrderedDict()
        self._unreported: list[str] = []
        self._unsupported: dict[str, None] = {}
        self._evicted = 0
        self._sink_failed = False
        self._lock = threading.RLock()

    @classmethod
    def from_file(cls, path: str | Path, *, mode: Mode | None = None, sink: Sink | None = None) -> Guard:
        """A guard with the policy of a YAML file. Raises `PolicyError`."""
        return cls(load_policy(path), mode=mode, sink=sink)

    def __deepcopy__(self, memo: dict[int, object]) -> Guard:
        return self  # a copied graph, team or crew keeps its guard

    # -- for users ----------------------------------------------------------------------------------------------------

    def on(self, type_: AnomalyType | str, function: Listener) -> None:
        """Call `function` with every anomaly of that type, after the decision, outside any lock."""
        self._listeners.setdefault(AnomalyType(type_), []).append(function)

    def outcome(self, run: str, *, success: bool | None = None, score: float | None = None) -> None:
        """Say how a run turned out, during it or after. Raises KeyError for a run the guard does not know."""
        with self._lock:
            session = self._sessions.get(run)
            if session is not None:
                session.success, session.score = success, score
                return
            known = self._finished[run]
            outcome = outcome_of(success) or known.outcome
            self._finished[run] = known.model_copy(update={"outcome": outcome, "score": score})
        self._store(RunEnded(run=run, status=known.status or "completed", outcome=outcome, score=score))

    def report(self, run: str | None = None) -> Report:
        """One run's report, or those of all runs that ended since the last call. Raises KeyError."""
        with self._lock:
            if run is not None:
                session = self._sessions.get(run)
                runs = [session.report() if session is not None else self._finished[run]]
            else:
                runs = [self._finished[id_] for id_ in self._unreported if id_ in self._finished]
                self._unreported.clear()
            quarantined = tuple(
                f"{rule.detector.type}: {rule.quarantined}" for rule in self._dispatch.rules if rule.quarantined
            )
            return Report(
                runs=tuple(runs), quarantined=quarantined, unsupported=tuple(self._unsupported), evicted=self._evicted
            )

    def close(self) -> None:
        """End every open run as evicted, and the sink."""
        for id_ in list(self._sessions):
            self.end(id_, "evicted")
        if self.sink is not None:
            self.sink.close()

    # -- for adapters -------------------------------------------------------------------------------------------------

    def attach(self, seats: Seats) -> None:
        """
        Hold the policy against what an adapter can enact.

        Raises `AttachError` where it asks for more, unless the policy says `unsupported: degrade`: then the next rung
        that can be enacted stands in, the gap is logged once, and every report repeats it.
        """
        if self.mode != "enforce":
            return
        missing = gaps(self.policy, seats)
        if missing and self.policy.unsupported == "error":
            raise AttachError(seats.adapter, missing)
        for gap in missing:
            if gap not in self._unsupported:
                self._unsupported[gap] = None
                log.warning("%s: %s", seats.adapter, gap)

    def open(
        self,
        run: str | None = None,
        *,
        seats: Seats | None = None,
        framework: str = "",
        version: str = "",
        task: str | None = None,
        thread: str | None = None,
        resumes: bool = False,
        watching: bool = False,
    ) -> Session:
        """
        Begin a run, or find it open.

        `thread` names the conversation; with `resumes`, the run continues the thread's last one and inherits what
        that had spent.
        """
        id_ = run or uuid.uuid4().hex[:16]
        with self._lock:
            session = self._sessions.get(id_)
            if session is not None:
                return session
            session = Session(
                Run(id_, self.limits), seats, watching=watching or self.mode == "shadow", framework=framework
            )
            self._sessions[id_] = session
            continues = self._threads.get(thread or "") if resumes else None
            if thread is not None:
                self._threads[thread] = id_
                self._threads.move_to_end(thread)
                if len(self._threads) > self._most:
                    self._threads.popitem(last=False)
            self._evict()
        self.observe(
            RunStarted(
                run=id_, task=task, framework=framework, framework_version=version, mode=self.mode, thread=thread
            )
        )
        if continues is not None:
            session.inherit(self._finished.get(continues))
            self.observe(RunResumed(run=id_, continues=continues))
        return session

    def session(self, run: str) -> Session | None:
        """An open run's session."""
        return self._sessions.get(run)

    def end(self, run: str, status: Status = "completed", *, error: str | None = None) -> None:
        """A run is over; a second word about it is ignored."""
        with self._lock:
            session = self._sessions.get(run)
            if session is None or session.ended:
                return
            session.ended = True
        self._settle_open(session)
        if session.halted is not None and status == "completed":
            status = "halted"
        outcome = outcome_of(session.success)
        self.observe(RunEnded(run=run, status=status, outcome=outcome, score=session.score, error=error))
        with self._lock:
            self._sessions.pop(run, None)
            self._finished[run] = session.report()
            self._unreported.append(run)
            while len(self._finished) > self._most:
                self._finished.popitem(last=False)
            del self._unreported[: -self._most]

    def observe(self, event: Event) -> Decision:
        """Take one event and say what is to be done. Does no I/O but hand the event to the sink; never raises."""
        return self.judge(event).decision

    def verdict(self, event: ToolRequested) -> Verdict:
        """What was decided of a call where it was proposed; judged now if it never was (one call, one verdict)."""
        session = self._sessions.get(event.run)
        known = session.remembered(event.call) if session is not None else None
        return known if known is not None else self.judge(event)

    def judge(self, event: Event) -> Verdict:
        """`observe`, with the records of what was decided."""
        if self.mode == "off":
            return PASSED
        try:
            session = self._sessions.get(event.run) or self.open(event.run)
            news: list[Event] = []
            with session.run.lock:
                verdict = self._judge(session, event, news)
            self._publish(news)
        except Exception as error:
            if self.strict:
                raise
            return self.failed(type(event).__name__, error, event)
        return verdict

    def settle(
        self, session: Session, verdict: Verdict, *, took_effect: bool, recurred: bool | None = None, detail: str = ""
    ) -> None:
        """Write the receipt of what was decided."""
        news: list[Event] = []
        with session.run.lock:
            for taken in verdict.taken:
                self._settle(session, taken, news, took_effect=took_effect, recurred=recurred, detail=detail)
                if recurred is not None or not took_effect:
                    session.close(taken, verdict.types)
        self._publish(news)

    def failed(self, where: str, error: Exception, event: Event | None = None) -> Verdict:
        """
        The guard's own code failed: log it, put it on the run's record, and answer for the call at hand.

        The answer is to let it pass, or to refuse it where a rule of the policy is fail-closed.
        """
        log.error("misstep failed in %s: %s: %s", where, type(error).__name__, error, exc_info=error)
        try:
            session = self._sessions.get(event.run) if event is not None else None
            if session is not None and event is not None:
                news: list[Event] = []
                with session.run.lock:
                    failure = _failure_anomaly(f"{where}: {type(error).__name__}")
                    self._record(session, event, failure, news)
                self._publish(news)
        except Exception:
            log.exception("misstep could not record its own failure")
        return Verdict(Refuse(UNCHECKED)) if self._closed and isinstance(event, ToolRequested) else PASSED

    @property
    def fails_closed(self) -> bool:
        """Whether any rule of the policy refuses what it cannot check."""
        return self._closed

    # -- inside -------------------------------------------------------------------------------------------------------

    def _judge(self, session: Session, event: Event, news: list[Event]) -> Verdict:
        session.run.append(event)
        news.append(event)
        if event.history:
            return PASSED
        findings = self._dispatch.detect(event, session.run)
        verdict = PASSED
        if findings is not None:
            verdict = self._decide(session, event, findings, reach(type(event), session.seats), news)
        if isinstance(event, ModelResponded) and event.calls:
            return self._judge_calls(session, event, verdict, news)
        if isinstance(event, ToolRequested) and event.call is not None:
            session.remember(event.call, verdict)
        return verdict

    def _judge_calls(self, session: Session, reply: ModelResponded, own: Verdict, news: list[Event]) -> Verdict:
        """Judge every call a reply proposes; what concerns the whole reply is returned, the rest remembered."""
        kinds = reach(ToolRequested, session.seats, Seat.MODEL)
        requests = [
            ToolRequested(
                run=reply.run,
                call=proposed.call,
                batch=reply.call,
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
        verdicts: list[Verdict] = []
        for request in requests:
            news.append(session.run.append(request))
            findings = self._dispatch.detect(request, session.run)
            found = PASSED if findings is None else self._decide(session, request, findings, kinds, news)
            session.remember(request.call or "", found)
            verdicts.append(found)

        types = own.types.union(*(verdict.types for verdict in verdicts))
        of_reply = [verdict for verdict in (own, *verdicts) if verdict.decision.kind in _OF_THE_REPLY]
        if not of_reply:
            return Verdict(own.decision, own.taken, types)
        strongest = max(of_reply, key=lambda verdict: verdict.decision.kind.strength)
        for verdict in (own, *verdicts):
            if verdict is not strongest:
                for taken in verdict.taken:
                    self._settle(session, taken, news, took_effect=False, detail="fell with the reply")
        for request in requests:
            session.forget(request.call or "")
            news.append(
                session.run.append(
                    ToolCancelled(
                        run=request.run,
                        call=request.call,
                        batch=request.batch,
                        agent=request.agent,
                        instance=request.instance,
                        step=request.step,
                        tool=request.tool,
                        reason="the reply that proposed it was thrown away",
                    )
                )
            )
        return Verdict(strongest.decision, strongest.taken, types)

    def _decide(
        self, session: Session, event: Event, findings: Findings, kinds: frozenset[Kind], news: list[Event]
    ) -> Verdict:
        """Record what was found, climb each ladder, and let the strongest answer win."""
        answers: list[tuple[Anomaly, AnomalyFound, Decision]] = []
        for anomaly in findings.anomalies:
            found = self._record(session, event, anomaly, news)
            answers.append((anomaly, found, self._ladder.answer(anomaly, event.instance, session.run, kinds)))
        for failure in findings.failures:
            anomaly = _failure_anomaly(failure.reason)
            found = self._record(session, event, anomaly, news)
            answers.append((anomaly, found, self._answer_failure(failure, anomaly, event, session, kinds)))

        types = frozenset(anomaly.type for anomaly, _, _ in answers)
        answers.sort(key=lambda answer: self._ladder.precedence(answer[0], answer[2]))
        anomaly, found, decision = answers[-1]
        records = [
            self._take(session, event, found, decision, news)
            for _, found, decision in answers
            if decision.kind is not Kind.ALLOW
        ]
        if session.watching or decision.kind is Kind.ALLOW:
            return Verdict(ALLOW, (), types)
        for superseded in records[:-1]:
            self._settle(session, superseded, news, took_effect=False, detail=f"superseded by {decision.kind}")
        session.open[event.instance, anomaly.type] = records[-1]
        if isinstance(decision, Halt):
            session.halted = decision.reason
        return Verdict(decision, (records[-1],), types)

    def _answer_failure(
        self, failure: Failure, anomaly: Anomaly, event: Event, session: Session, kinds: frozenset[Kind]
    ) -> Decision:
        if failure.closed:
            return (
                Refuse(UNCHECKED) if isinstance(event, ToolRequested) else Halt(feedback.halted(anomaly, session.run))
            )
        return self._ladder.answer(anomaly, event.instance, session.run, kinds)

    def _record(self, session: Session, event: Event, anomaly: Anomaly, news: list[Event]) -> AnomalyFound:
        run = session.run
        found = AnomalyFound(
            run=run.id,
            parent=event.id,
            call=event.call,
            agent=event.agent,
            instance=event.instance,
            step=event.step,
            turn=event.turn,
            type=anomaly.type,
            category=taxonomy()[anomaly.type].category,
            severity=anomaly.weight,
            confidence=anomaly.confidence,
            message=anomaly.message,
            evidence=run.evidence(anomaly.evidence),
        )
        news.append(run.append(found))
        session.ledger.add(found)
        earlier = session.open.pop((event.instance, anomaly.type), None)
        if earlier is not None:
            self._settle(session, earlier, news, took_effect=session.took_effect(earlier), recurred=True)
        return found

    def _take(
        self, session: Session, event: Event, found: AnomalyFound, decision: Decision, news: list[Event]
    ) -> DecisionTaken:
        taken = DecisionTaken(
            run=event.run,
            parent=event.id,
            call=event.call,
            agent=event.agent,
            instance=event.instance,
            step=event.step,
            turn=event.turn,
            decision=decision.kind,
            anomalies=(found.id,),
            hypothetical=session.watching,
            detail=_said(decision),
        )
        news.append(session.run.append(taken))
        session.ledger.add(taken)
        return taken

    def _settle(
        self,
        session: Session,
        taken: DecisionTaken,
        news: list[Event],
        *,
        took_effect: bool,
        recurred: bool | None = None,
        detail: str = "",
    ) -> None:
        settled = DecisionSettled(
            run=taken.run,
            parent=taken.id,
            agent=taken.agent,
            instance=taken.instance,
            step=taken.step,
            turn=taken.turn,
            decision_id=taken.id,
            took_effect=took_effect,
            recurred=recurred,
            detail=detail,
        )
        news.append(session.run.append(settled))
        session.ledger.add(settled)

    def _settle_open(self, session: Session) -> None:
        """The run is over: what has not come back did not recur, and what no seat ever met had no effect."""
        news: list[Event] = []
        with session.run.lock:
            for taken in session.open.values():
                effect = session.took_effect(taken)
                self._settle(
                    session,
                    taken,
                    news,
                    took_effect=effect,
                    recurred=False if effect else None,
                    detail="" if effect else "no seat met the call again",
                )
            session.open.clear()
        self._publish(news)

    def _publish(self, news: list[Event]) -> None:
        """Tell the sink, the log and whoever asked to be told; none of them can hold up or break the run."""
        for event in news:
            if self.sink is not None:
                self._store(event)
            if isinstance(event, AnomalyFound):
                _log_anomaly(event)
                for listener in self._listeners.get(event.type, ()):
                    try:
                        listener(event)
                    except Exception:
                        log.exception("a listener for `%s` raised", event.type)
            elif isinstance(event, DecisionTaken):
                verb = "would decide" if event.hypothetical else "decided"
                log.info("run %s: %s %s for %s", event.run, verb, event.decision, printable(event.agent) or "the agent")

    def _store(self, event: Event) -> None:
        try:
            if self.sink is not None:
                self.sink.write(event)
        except Exception:
            if not self._sink_failed:
                self._sink_failed = True
                log.exception("the sink failed; events are being lost")

    def _evict(self) -> None:
        """End runs nobody ended: the oldest beyond the limit, and any silent for too long."""
        now = time.monotonic()
        for id_, session in list(self._sessions.items())[:4]:
            if len(self._sessions) > self._most or now - session.run.touched > self._age:
                self._evicted += 1
                log.warning("run %s evicted: nobody said that it ended", id_)
                self.end(id_, "evicted")


UNCHECKED = (
    "[misstep: guard_failure] This call was not executed: it could not be checked. "
    "Do not repeat it now; go on without it, or say that you could not do it."
)


def _rules(policy: Policy, own: Iterable[Detector]) -> list[Rulewatch]:
    asked: dict[AnomalyType, Detector] = {detector.type: detector for detector, _ in policy.detectors()}
    asked.update({detector.type: detector for detector in own})
    closed = {type_ for type_, rule in policy.rules.items() if rule.on_guard_failure == "closed"}
    return [Rulewatch(detector, type_ in closed) for type_, detector in asked.items()]


def _mode(mode: str) -> Mode:
    chosen = os.environ.get("MISSTEP_MODE") or mode
    if chosen not in ("enforce", "shadow", "off"):
        raise ValueError(f"MISSTEP_MODE must be `enforce`, `shadow` or `off`, found {chosen!r}")
    return cast("Mode", chosen)


def _failure_anomaly(reason: str) -> Anomaly:
    return Anomaly(type=AnomalyType.GUARD_FAILURE, message=reason)


def _said(decision: Decision) -> str:
    for name in ("objection", "feedback", "reason", "lesson", "question"):
        if hasattr(decision, name):
            return str(getattr(decision, name))
    return ""


def _log_anomaly(event: AnomalyFound) -> None:
    level = logging.INFO if event.severity.rank <= Severity.LOW.rank else logging.WARNING
    if log.isEnabledFor(level):
        log.log(
            level,
            "run %s step %s %s: %s: %s",
            event.run,
            event.step,
            printable(event.agent),
            event.type.value,
            printable(event.message),
        )
