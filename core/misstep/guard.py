"""The guard: takes events, has them judged, and keeps account of every run; what users and adapters talk to."""

from __future__ import annotations

import importlib
import logging
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from misstep.anomalies import Anomaly
from misstep.approval import Approver
from misstep.decisions import Ask, Decision, Kind, Refuse, RollBack
from misstep.detectors import Detector
from misstep.errors import JournalError
from misstep.events import Event, ModelResponded, RunEnded, RunResumed, RunStarted, Status, ToolRequested
from misstep.in_force import InForce
from misstep.journal import Journal
from misstep.judge import UNCHECKED, dismiss, failed
from misstep.policy import Mode, Policy, Rung, asking, default_policy, load_policy
from misstep.publish import DecisionListener, Listener, Publisher, Unsubscribe
from misstep.report import Report, RunReport
from misstep.run import Limits, Run
from misstep.seats import Seats
from misstep.session import PASSED, Session, Verdict, outcome_of
from misstep.sessions import Sessions
from misstep.side_effects import SideEffect
from misstep.sink import Sink
from misstep.taxonomy import AnomalyType

if TYPE_CHECKING:
    from misstep.verification.result import Verification

log = logging.getLogger("misstep")


class Guard(InForce):
    """
    Watches runs and decides; adapters enact.

    `policy` defaults to one that enforces what was measured harmless and warns about the rest. `detectors` are your
    own, beside the policy's; one for a type the policy has takes that one's place. `mode` is the policy's, unless it is
    given here; the environment's MISSTEP_MODE wins over both: `enforce`, `shadow` or `off`. `sink` takes every event.
    `limits` bound the memory of one run; at most `runs` runs are open, each for at most `age` seconds without an
    event, then it is evicted and counted. A fail-open rule that is slower than `budget` seconds too often, or crashes
    three times, is quarantined. `models` are those a fallback may name, objects of the framework's own; `approver` is
    who is asked where a person decides; `journal` remembers across a kill which calls with a lasting effect were made,
    so that none is made again unawares. With `strict`, failures of the guard's own code are raised (for tests).

    A guard is shared freely between threads, event loops, graphs, teams and crews.
    """

    def __init__(
        self,
        policy: Policy | None = None,
        *,
        detectors: Iterable[Detector] = (),
        mode: Mode | None = None,
        sink: Sink | None = None,
        models: Mapping[str, Any] | None = None,
        approver: Approver | None = None,
        journal: Journal | None = None,
        limits: Limits | None = None,
        runs: int = 1000,
        age: float = 3600.0,
        budget: float = 0.05,
        strict: bool = False,
    ) -> None:
        self.limits = limits or Limits()
        self.journal = journal
        self._publisher = Publisher(sink)
        super().__init__(
            policy or default_policy(),
            detectors=tuple(detectors),
            mode=mode,
            models=dict(models or {}),
            approver=approver,
            sessions=Sessions(runs, age),
            budget=budget,
            strict=strict,
        )

    @classmethod
    def from_file(cls, path: str | Path, *, mode: Mode | None = None, sink: Sink | None = None) -> Guard:
        """A guard with the policy of a YAML file. Raises `PolicyError`."""
        return cls(load_policy(path), mode=mode, sink=sink)

    def __deepcopy__(self, memo: dict[int, object]) -> Guard:
        return self  # a copied graph, team or crew keeps its guard

    # -- for users ----------------------------------------------------------------------------------------------------

    def on(self, type_: AnomalyType | str, function: Listener) -> Unsubscribe:
        """
        Call `function` with every anomaly of that type, after the decision, outside any lock.

        What it raises is logged and goes no further. Returns a function that ends the subscription.
        """
        return self._publisher.subscribe(AnomalyType(type_), function)

    def on_decision(self, kind: Kind | str | None, function: DecisionListener) -> Unsubscribe:
        """`on` for decisions of that kind, hypothetical ones too; None stands for every kind."""
        return self._publisher.subscribe(None if kind is None else Kind(kind), function)

    def outcome(self, run: str, *, success: bool | None = None, score: float | None = None) -> None:
        """Say how a run turned out, during it or after. Raises KeyError for a run the guard does not know."""
        session = self._sessions.get(run)
        if session is not None:
            session.success = session.success if success is None else success
            session.score = session.score if score is None else score
            return
        known = self._sessions.finished(run)
        if known is None:
            raise KeyError(run)
        outcome = outcome_of(success) or known.outcome
        score = known.score if score is None else score
        cause = None if outcome == "success" else known.root_cause
        amended = known.model_copy(update={"outcome": outcome, "score": score, "root_cause": cause})
        self._sessions.amend(amended)
        self._count(amended, known)
        ended = RunEnded(run=run, status=known.status or "completed", outcome=outcome, score=score)
        self._publisher.publish([ended])

    def report(self, run: str | None = None) -> Report:
        """One run's report, or those of all runs that ended since the last call. Raises KeyError."""
        if run is None:
            runs = self._sessions.unreported()
        else:
            session = self._sessions.get(run)
            known = session.report() if session is not None else self._sessions.finished(run)
            if known is None:
                raise KeyError(run)
            runs = [known]
        return Report(
            runs=tuple(runs),
            quarantined=self._dispatch.quarantined(),
            disabled=self._dispatch.disabled(),
            unsupported=tuple(self._unsupported),
            evicted=self._sessions.evicted,
            remedies=self._remedies.report(),
        )

    def verify(self, app: Any, *, bodies: bool = False, inputs: Any = None, deadline: float = 60.0) -> Verification:
        """Say whether this guard is really in the path of an app, seat by seat: `misstep.verification.verify`."""
        verify = importlib.import_module("misstep.verification").verify  # by its name: it stands on the guard
        found: Verification = verify(app, self, bodies=bodies, inputs=inputs, deadline=deadline)
        return found

    def close(self) -> None:
        """End every open run as evicted, and the sink; close the journal."""
        for run in self._sessions.ids():
            self.end(run, "evicted")
        self._publisher.close()
        if self.journal is not None:
            self.journal.close()

    # -- for a verification -------------------------------------------------------------------------------------------

    @property
    def open_runs(self) -> tuple[str, ...]:
        """The runs that are going on."""
        return tuple(self._sessions.ids())

    @contextmanager
    def rehearsing(self, policy: Policy, detectors: Iterable[Detector]) -> Iterator[None]:
        """
        Another policy enforced by these rules alone, with books of its own, whatever the mode; then all is as before.

        The guard is the same object meanwhile, so whoever holds it is under that policy.
        """
        kept = dict(vars(self))
        other = Guard(policy, detectors=detectors)
        other.mode, other._publisher = "enforce", Publisher(None, quiet=True)
        vars(self).update(vars(other))
        try:
            yield
        finally:
            self.close()
            vars(self).update(kept)

    # -- for adapters -------------------------------------------------------------------------------------------------

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
        agents: Collection[str] | None = None,
    ) -> Session:
        """
        Begin a run, or find it open.

        `thread` names the conversation; with `resumes`, the run continues the thread's last one: all that one knew,
        where it was interrupted in this process, else what it had spent.
        """
        id_ = run or uuid.uuid4().hex[:16]
        with self._sessions.lock:
            known = self._sessions.get(id_)
            if known is not None:
                return known
            paused = self._sessions.paused(thread)
            before = paused if resumes else None
            run_ = Run(id_, self.limits, self._classes) if before is None else before.run.continued(id_)
            session = Session(run_, seats, watching=watching, framework=framework, thread=thread, agents=agents)
            session.heed(self.mode, self.policy.explored(session.drawn))
            self._sessions.add(session)
            earlier = self._sessions.follow(thread, id_)
            due = self._sessions.due()
        for stale in due:
            log.warning("run %s evicted: nobody said that it ended", stale)
            self.end(stale, "evicted")
        self.observe(
            RunStarted(
                run=id_, task=task, framework=framework, framework_version=version, mode=self.mode, thread=thread
            )
        )
        if before is not None:
            session.go_on_from(before)
        elif resumes:
            run_.begin_unheard()
            session.inherit(self._sessions.finished(earlier or ""))
        if resumes and earlier is not None:
            self.observe(RunResumed(run=id_, continues=earlier))
        return session

    def session(self, run: str) -> Session | None:
        """An open run's session."""
        return self._sessions.get(run)

    def end(self, run: str, status: Status = "completed", *, error: str | None = None) -> None:
        """A run is over; a second word about it is ignored."""
        with self._sessions.lock:
            session = self._sessions.get(run)
            if session is None or session.ended:
                return
            session.ended = True
        if session.halted is not None and status == "completed":
            status = "halted"
        with session.run.lock:
            if status != "interrupted":
                session.settle_open()
            news = session.news()
        self._publisher.publish(news)
        if status in ("completed", "halted"):
            self._turn_ended(session)
        self.observe(
            RunEnded(run=run, status=status, outcome=outcome_of(session.success), score=session.score, error=error)
        )
        report = session.report()
        self._sessions.finish(run, report)
        if status == "interrupted":
            self._sessions.pause(session)
        else:
            self._count(report)

    def observe(self, event: Event) -> Decision:
        """Take one event and say what is to be done. Does no I/O but hand the event to the sink; never raises."""
        return self.judge(event).decision

    def verdict(self, event: ToolRequested) -> Verdict:
        """
        What was decided of a call where it was proposed; judged now if it never was (one call, one verdict).

        A call that bears the id of another, or was changed since by somebody else, was never judged (a person who was
        to be asked is asked about what has become of it).
        """
        session = self._sessions.get(event.run)
        known = session.remembered(event.call, event) if session is not None else None
        if session is not None and event.says is not None:
            with session.run.lock:
                session.run.heard_of(event)
        return known if known is not None else self.judge(event)

    def judge(self, event: Event) -> Verdict:
        """`observe`, with the records of what was decided."""
        if self._mode == "off":
            return PASSED
        try:
            session = self._sessions.active(event.run)
            if session is None:
                known = self._sessions.finished(event.run)
                if known is not None and known.status != "evicted":
                    return PASSED  # too late: what a run that ended has left behind does not begin it again
                session = self.open(event.run)
            with session.run.lock:
                verdict = self._judge.judge(session, event)
                news = session.news()
            self._publisher.publish(news)
        except Exception as error:
            if self.strict:
                raise
            return self.failed(type(event).__name__, error, event)
        return verdict

    def take(self, event: Event) -> None:
        """Put an event on a run's record without judging it."""
        session = self._sessions.active(event.run) if self.mode != "off" else None
        if session is not None:
            with session.run.lock:
                session.append(event)
                news = session.news()
            self._publisher.publish(news)

    def dismiss(self, reply: ModelResponded) -> None:
        """A reply whose calls were judged is not passed on: none of them will be made."""
        session = self._sessions.active(reply.run) if reply.calls else None
        if session is not None:
            with session.run.lock:
                dismiss(session, reply)
                news = session.news()
            self._publisher.publish(news)

    def settle(
        self,
        session: Session,
        verdict: Verdict,
        *,
        took_effect: bool,
        recurred: bool | None = None,
        detail: str = "",
    ) -> None:
        """Write the receipt of what was decided."""
        if not verdict.taken:
            return
        with session.run.lock:
            if took_effect and isinstance(verdict.decision, RollBack):
                session.take_back(verdict.decision.step or 0)
            for taken in verdict.taken:
                session.settled(taken, took_effect=took_effect, recurred=recurred, detail=detail)
            news = session.news()
        self._publisher.publish(news)

    def failed(self, where: str, error: Exception, event: Event | None = None) -> Verdict:
        """
        The guard's own code failed: log it, put it on the run's record, and answer for the call at hand.

        The answer is to let it pass, or to refuse it where a rule of the policy is fail-closed.
        """
        log.error("misstep failed in %s: %s: %s", where, type(error).__name__, error, exc_info=error)
        try:
            session = self._sessions.get(event.run) if event is not None else None
            if session is not None and event is not None:
                with session.run.lock:
                    session.found(event, failed(f"{where}: {type(error).__name__}"))
                    news = session.news()
                self._publisher.publish(news)
        except Exception:
            log.exception("misstep could not record its own failure")
        return Verdict(Refuse(UNCHECKED)) if self.fails_closed and isinstance(event, ToolRequested) else PASSED

    # -- the journal --------------------------------------------------------------------------------------------------

    def journal_for(self, session: Session, event: ToolRequested) -> Journal | None:
        """The journal, where a call is to be written into it: its effect lasts, and the guard has a say in it."""
        if self.journal is None or event.history or not session.enforces(AnomalyType.DUPLICATE_SIDE_EFFECT):
            return None
        return self.journal if session.run.side_effect(event.tool).side_effect.lasting else None

    def journal_is_needed(self, session: Session, event: ToolRequested) -> bool:
        """
        Whether a call is refused that the journal cannot write down.

        As `on_guard_failure` of the rule `duplicate_side_effect` says; where that says nothing, what the application
        itself declared irreversible is refused, and the rest is made all the same.
        """
        rule = self.policy.rules.get(AnomalyType.DUPLICATE_SIDE_EFFECT)
        if rule is not None and "on_guard_failure" in rule.model_fields_set:
            return rule.on_guard_failure == "closed"
        classified = session.run.side_effect(event.tool)
        return classified.declared and classified.side_effect is SideEffect.IRREVERSIBLE

    def asks(self, session: Session, event: ToolRequested, anomaly: Anomaly) -> tuple[Verdict, Ask]:
        """Put on record that a person is asked; for how long is as the rule's own `ask` rung says, if it has one."""
        rungs = self.policy.ladder(anomaly.type)
        rung = next((rung for rung in rungs if rung.kind is Kind.ASK), Rung(kind=Kind.ASK))
        ask = asking(rung, anomaly)
        with session.run.lock:
            taken = session.took(event, session.found(event, anomaly), ask)
            news = session.news()
        self._publisher.publish(news)
        return Verdict(ask, (taken,), frozenset({anomaly.type})), ask

    def _turn_ended(self, session: Session) -> None:
        """What is asked for after this turn is asked for anew."""
        if self.journal is None or not session.effects.met:
            return
        try:
            self.journal.end(session.scope)
        except JournalError as error:
            self.failed("the journal", error)

    # -- what remedies are worth --------------------------------------------------------------------------------------

    def _count(self, report: RunReport, earlier: RunReport | None = None) -> None:
        """Count what came of a run, in place of what was counted of it before."""
        if earlier is not None:
            self._remedies.remove(earlier.decisions, earlier.outcome)
        self._remedies.add(report.decisions, report.outcome)
        if self.policy.drop_harmful:
            self._judge.dropped = self._remedies.harmful()
