"""A session: one run under one guard, and the books that are kept of it."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from misstep.anomalies import Anomaly
from misstep.calls import written
from misstep.decisions import ALLOW, Ask, Decision, Kind
from misstep.events import AnomalyFound, DecisionSettled, DecisionTaken, E, Event, Outcome, ToolRequested
from misstep.journal import Entry, Name, Proposal
from misstep.redact import printable
from misstep.report import JournalReport, Ledger, RunReport, cost_of, tools_of
from misstep.run import Run
from misstep.seats import Seats
from misstep.taxonomy import AnomalyType, taxonomy


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the guard says of one event: the decision in force, the record of it, every type of anomaly found."""

    decision: Decision = ALLOW
    taken: tuple[DecisionTaken, ...] = ()
    types: frozenset[AnomalyType] = field(default_factory=frozenset)


PASSED = Verdict()


def _same(judged: ToolRequested, asked: ToolRequested) -> bool:
    """Whether a call is the one that was judged; one that could not be read when it was proposed is by its id."""
    return judged.raw is not None or (judged.tool, judged.arguments) == (asked.tool, asked.arguments)


@dataclass(slots=True)
class Effects:
    """What the journal had to do with a run: calls written down, answered from it, unknown, made once more."""

    journaled: int = 0
    answered: int = 0
    unknown: int = 0
    repeated: int = 0
    """Calls of which nobody knows whether they took effect before, made on a person's word."""

    @property
    def met(self) -> bool:
        """Whether there was anything."""
        return bool(self.journaled or self.answered or self.unknown)


_REPEATING = frozenset({Kind.RETRY, Kind.REPROMPT, Kind.VOTE, Kind.FALLBACK})

_ENDED_FIRST = {
    Kind.REPROMPT: "no model call came after it",
    Kind.REROUTE: "no turn came after it",
    Kind.ROLL_BACK: "the run could not be taken back",
}
"""Why what was put off was never carried out."""


class Session:
    """
    What a guard holds of a run beside the run's own indexes.

    `seats` is what the attached adapter can enact (None: whoever calls `observe` enacts all of it); a `watching`
    session records decisions as hypothetical. `thread` is the conversation, if there is one; `agents` are those a
    reroute may name (None: not known). `halted` is the reason once a halt was decided: it is sticky, so that a
    framework that swallows the signal meets it again at the next seat. Whoever writes into the books holds `run.lock`.
    """

    def __init__(
        self,
        run: Run,
        seats: Seats | None,
        *,
        watching: bool,
        framework: str,
        thread: str | None = None,
        agents: Collection[str] | None = None,
    ) -> None:
        self.run = run
        self.explored: frozenset[AnomalyType] | None = None
        """The types on which decisions are carried out; None: all of them."""
        self.drawn = _drawn(thread or run.id)
        """A number of at least 0 and below 1, the same for all runs of a conversation, and in every replay."""
        self.seats, self.agents = seats, agents
        self.watching = watching
        self._only_watches = watching
        self.framework = framework
        self.thread = thread
        self.scope = f"run:{run.id}" if thread is None else f"thread:{thread}"
        """What the journal knows this run's calls by."""
        self.effects = Effects()
        self.taken_back: set[str] = set()
        """The calls that were made in what was rolled back since."""
        self.halted: str | None = None
        self.halt = PASSED
        """The verdict that decided the halt."""
        self.ended = False
        self.success: bool | None = None
        self.score: float | None = None
        self.ledger = Ledger()
        self._news: list[Event] = []
        self._open: OrderedDict[str, tuple[AnomalyType, DecisionTaken]] = OrderedDict()
        self._verdicts: OrderedDict[str, tuple[Verdict, ToolRequested | None]] = OrderedDict()
        self.asked: dict[str, Ask] = {}
        """The judged calls a person is to be asked about."""
        self._notices: OrderedDict[str, list[Verdict]] = OrderedDict()
        self._due: dict[Kind, Verdict] = {}

    def heed(self, mode: str, explored: frozenset[AnomalyType]) -> None:
        """
        The guard's mode is this from now on; where the adapter can only watch, it goes on watching.

        In `shadow`, only decisions on the `explored` types are carried out.
        """
        self.watching = self._only_watches or (mode == "shadow" and not explored)
        self.explored = explored if mode == "shadow" else None

    # -- the books ----------------------------------------------------------------------------------------------------

    def append(self, event: E) -> E:
        """Give an event its place in the run, and in the news."""
        self.run.append(event)
        self._news.append(event)
        return event

    def news(self) -> list[Event]:
        """The events since the last call, to be told to the outside once the lock is released."""
        news, self._news = self._news, []
        return news

    def found(self, event: Event, anomaly: Anomaly) -> AnomalyFound:
        """Write down an anomaly; what was decided before against its kind did not keep it from coming back."""
        found = self.append(
            AnomalyFound(
                **_of(event),
                parent=event.id,
                call=event.call,
                type=anomaly.type,
                category=taxonomy()[anomaly.type].category,
                severity=anomaly.weight,
                confidence=anomaly.confidence,
                message=anomaly.message,
                evidence=self.run.evidence(anomaly.evidence),
            )
        )
        self.ledger.add(found)
        for type_, earlier in list(self._open.values()):
            if type_ is anomaly.type and earlier.instance == event.instance and not _together(earlier, event):
                self.settled(earlier, took_effect=self._took_effect(earlier), recurred=True)
        return found

    def enforces(self, type_: AnomalyType) -> bool:
        """Whether decisions on that type are carried out."""
        return not self.watching and (self.explored is None or type_ in self.explored)

    def took(
        self, event: Event, found: AnomalyFound, decision: Decision, *, hypothetical: bool = False
    ) -> DecisionTaken:
        """Write down a decision; it stays open until it is known whether it helped, if it is carried out."""
        taken = self.append(
            DecisionTaken(
                **_of(event),
                parent=event.id,
                call=event.call,
                decision=decision.kind,
                anomalies=(found.id,),
                hypothetical=hypothetical or not self.enforces(found.type),
                detail=_said(decision),
            )
        )
        self.ledger.add(taken)
        if not taken.hypothetical:
            self._open[taken.id] = (found.type, taken)
            if len(self._open) > self.run.limits.agents:
                self._open.popitem(last=False)
        return taken

    def settled(
        self, taken: DecisionTaken, *, took_effect: bool, recurred: bool | None = None, detail: str = ""
    ) -> None:
        """Write the receipt of a decision; one that had no effect, or is known to have helped, is closed."""
        receipt = DecisionSettled(
            **_of(taken),
            parent=taken.id,
            decision_id=taken.id,
            took_effect=took_effect,
            recurred=recurred,
            detail=detail,
        )
        self.ledger.add(self.append(receipt))
        if recurred is not None or not took_effect:
            self._open.pop(taken.id, None)

    def settle_open(self) -> None:
        """The run is over: what has not come back did not recur, and what no seat ever met had no effect."""
        waiting = self._put_off()
        self._due.clear()
        self._notices.clear()
        for verdict in waiting:
            self._dropped(verdict)
        for _, taken in list(self._open.values()):
            if self._took_effect(taken):
                self.settled(taken, took_effect=True, recurred=False)
            else:
                self.settled(taken, took_effect=False, detail="no seat met the call again")

    def _took_effect(self, taken: DecisionTaken) -> bool:
        """By its receipt, or because the model was asked again."""
        receipt = self.ledger.receipts.get(taken.id)
        if receipt is not None:
            return receipt.took_effect
        return taken.decision in _REPEATING and not any(taken in verdict.taken for verdict in self._put_off())

    def stop(self, reason: str, verdict: Verdict) -> None:
        """The run is to end: every seat meets this from now on."""
        self.halted, self.halt = reason, verdict

    # -- what is carried out later ------------------------------------------------------------------------------------

    def notify(self, instance: str, verdict: Verdict) -> None:
        """Keep a reprompt for the instance's next model call; of an instance's notices the last eight are kept."""
        notices = self._notices.setdefault(instance, [])
        notices.append(verdict)
        for dropped in notices[:-8]:
            self._dropped(dropped)
        del notices[:-8]
        if len(self._notices) > self.run.limits.agents:
            for dropped in self._notices.popitem(last=False)[1]:
                self._dropped(dropped)

    def notices(self, instance: str) -> list[Verdict]:
        """The reprompts the instance's model has not been told yet; they are told now."""
        return self._notices.pop(instance, [])

    def put_off(self, verdict: Verdict) -> None:
        """Keep a reroute or a roll-back for the seat that carries it out; a newer one takes its place."""
        earlier = self._due.pop(verdict.decision.kind, None)
        if earlier is not None:
            self._dropped(earlier)
        self._due[verdict.decision.kind] = verdict

    def due(self, kind: Kind) -> Verdict | None:
        """The verdict of that kind that was put off; whoever asks carries it out, and writes its receipt."""
        return self._due.pop(kind, None)

    def _put_off(self) -> list[Verdict]:
        return [*self._due.values(), *itertools.chain.from_iterable(self._notices.values())]

    def _dropped(self, verdict: Verdict) -> None:
        for taken in verdict.taken:
            self.settled(taken, took_effect=False, detail=_ENDED_FIRST[taken.decision])

    # -- one call, one verdict ----------------------------------------------------------------------------------------

    def remember(self, call: str, verdict: Verdict, asked: ToolRequested | None = None) -> None:
        """Keep a call's verdict for the seats after this one; `asked` is what it is a verdict on."""
        self._verdicts[call] = verdict, asked
        self._verdicts.move_to_end(call)
        if isinstance(verdict.decision, Ask):
            self.asked[call] = verdict.decision
        elif self.asked:
            self.asked.pop(call, None)
        if len(self._verdicts) > self.run.limits.calls:
            self.forget(next(iter(self._verdicts)))

    def remembered(self, call: str | None, asked: ToolRequested | None = None) -> Verdict | None:
        """
        The verdict of a call; None where it was never judged, or was judged with another tool or other arguments:
        but one that a person is to be asked about is asked about, whatever has become of it since.

        It holds as long as no other reply proposes a call of that id: a node that runs again meets the same verdict.
        Where no reply was seen it holds while the call is open, since its id may then be used again unseen.
        """
        known = self.run.calls.get(call)
        if known is None or (known.state != "open" and known.batch is None):
            return None
        verdict, judged = self._verdicts.get(call or "", (None, None))
        if asked is None or judged is None or verdict is None or isinstance(verdict.decision, Ask):
            return verdict
        return verdict if _same(judged, asked) else None

    def forget(self, call: str) -> None:
        """Drop a call's verdict: its reply was thrown away."""
        self._verdicts.pop(call, None)
        self.asked.pop(call, None)

    # -- the journal --------------------------------------------------------------------------------------------------

    def proposal(self, event: ToolRequested) -> Proposal:
        """A call as the journal knows it: of which reply, if that was heard in this run or in one it goes on from."""
        call = event.call or event.id
        known = self.run.calls.get(call)
        asked = self.run.find(known.seq) if known is not None else None
        heard = isinstance(asked, ToolRequested) and (asked.call or asked.id) == call and not asked.history
        name = Name(asked.run, asked.batch, call) if asked is not None and heard else Name(self.run.id, None, call)
        return Proposal(
            scope=self.scope,
            name=name,
            tool=event.tool,
            arguments=" ".join((event.raw or written(event.arguments)).split()),
            side_effect=self.run.side_effect(event.tool).side_effect,
        )

    def gone(self, entry: Entry) -> bool:
        """Whether the conversation knows nothing of a call in the journal: its reply was lost, or taken back."""
        return all(
            name.call in self.taken_back or (name.run != self.run.id and self.run.calls.get(name.call) is None)
            for name in entry.names
        )

    def take_back(self, step: int) -> None:
        """The run goes on from before that step."""
        self.taken_back.update(self.run.calls.since(step))

    # -- the whole ----------------------------------------------------------------------------------------------------

    def go_on_from(self, earlier: Session) -> None:
        """Take over what was decided in the interrupted run this one continues, and has not come to its end."""
        self._verdicts, self.asked = earlier._verdicts, earlier.asked
        self._notices, self._due, self._open = earlier._notices, earlier._due, earlier._open
        self.taken_back = earlier.taken_back
        for _, taken in self._open.values():
            for found in earlier.ledger.anomalies:
                if found.id in taken.anomalies:
                    self.ledger.add(found)
            self.ledger.add(taken)

    def inherit(self, earlier: RunReport | None) -> None:
        """Take over what the run this one continues had spent."""
        if earlier is not None:
            spent, cost = self.run.spent, earlier.cost
            spent.model_calls, spent.tool_calls = cost.model_calls, cost.tool_calls
            spent.input_tokens, spent.output_tokens = cost.input_tokens, cost.output_tokens
            spent.estimated = cost.estimated

    @property
    def outcome(self) -> Outcome | None:
        """How the run turned out, as far as anybody said."""
        return outcome_of(self.success) or (self.run.ended.outcome if self.run.ended else None)

    def report(self) -> RunReport:
        """Everything known of the run now."""
        run, ended = self.run, self.run.ended
        with run.lock:
            return RunReport(
                run=run.id,
                framework=self.framework,
                status=ended.status if ended else None,
                outcome=self.outcome,
                score=self.score if self.score is not None else (ended.score if ended else None),
                steps=run.steps,
                agents=tuple(map(printable, run.agents)),
                anomalies=self.ledger.anomaly_reports(),
                decisions=self.ledger.decision_reports(),
                root_cause=self.ledger.root_cause(self.outcome),
                cost=cost_of(run.spent),
                dropped=self.ledger.dropped,
                tools=tools_of(run),
                journal=JournalReport(**dataclasses.asdict(self.effects)),
            )


def outcome_of(success: bool | None) -> Outcome | None:
    """How a run turned out, in the words of an event."""
    return None if success is None else ("success" if success else "failure")


def _of(event: Event) -> dict[str, Any]:
    """What a record takes over from the event it is about."""
    return {
        "run": event.run,
        "agent": event.agent,
        "instance": event.instance,
        "batch": event.batch,
        "attempt": event.attempt,
        "step": event.step,
        "turn": event.turn,
    }


def _drawn(id_: str) -> float:
    digest = hashlib.blake2b(id_.encode("utf-8", "surrogatepass"), digest_size=6).digest()
    return int.from_bytes(digest) / 256**6


def _together(one: Event, other: Event) -> bool:
    """Whether two events are of one batch, and so none came after the other."""
    return one.batch is not None and (one.batch, one.attempt) == (other.batch, other.attempt)


def _said(decision: Decision) -> str:
    """What the agent or the caller is told."""
    for name in ("objection", "feedback", "reason", "lesson", "question"):
        if hasattr(decision, name):
            return str(getattr(decision, name))
    return ""
