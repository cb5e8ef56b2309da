"""A call whose effect lasts, by way of the journal: written down before it is made, and what became of it after."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from misstep.anomalies import Anomaly
from misstep.approval import Answer, answer_to, question_of
from misstep.decisions import Refuse
from misstep.enact.effects import Consult, Steps, Store, rejection
from misstep.enact.seats import ToolSeat
from misstep.errors import JournalError
from misstep.events import ModelResponded, ToolCancelled, ToolFailed, ToolRequested, ToolReturned
from misstep.guard import Guard
from misstep.journal import Entry, Journal, State
from misstep.judge import UNCHECKED
from misstep.session import Session, Verdict
from misstep.taxonomy import AnomalyType

_UNKNOWN = "begun before, and whether it took effect is unknown"
_LOST = "made before, and what it answered cannot be given back"
_OBJECTION = (
    "[misstep: duplicate_side_effect] This call was not executed now: it was {}. "
    "Do not repeat it; find out by other means what became of it, or say that it is open."
)


def proposed(guard: Guard, session: Session, reply: ModelResponded | None) -> Steps:
    """Write down what a reply proposes whose effect would last, before the framework can remember the reply."""
    journal = guard.journal
    if journal is None or reply is None or not reply.calls:
        return
    run = session.run
    with run.lock:
        known = [run.calls.get(call.call) for call in reply.calls]
        asked = [run.find(call.seq) for call in known if call is not None]
        lasting = [
            session.proposal(event)
            for event in asked
            if isinstance(event, ToolRequested) and guard.journal_for(session, event) is not None
        ]
    if lasting:
        try:
            yield Store(lambda: journal.propose(lasting, session.gone))
        except JournalError as error:
            guard.failed("the journal", error, reply)


class Journaled:
    """
    One call's entry in the guard's journal; none where there is no journal, or nothing that lasts to be written down.

    `recorded` is the tool's earlier answer, where the call was made before; `arguments` are a person's own, where one
    edited the call.
    """

    __slots__ = ("_entry", "_guard", "_journal", "_requested", "_seat", "arguments", "recorded")

    def __init__(self, guard: Guard, seat: ToolSeat[Any, Any], requested: ToolRequested) -> None:
        self._guard, self._seat, self._requested = guard, seat, requested
        self._journal: Journal | None = guard.journal_for(seat.session, requested)
        self._entry: Entry | None = None
        self.recorded: str | None = None
        self.arguments: Mapping[str, Any] | None = None

    def answered(self) -> Steps:
        """What the tool answered when the call was made before; None where it was not, and nothing is written down."""
        if self._journal is not None:
            journal, session = self._journal, self._seat.session
            proposal = session.proposal(self._requested)
            entry = yield from self._stored(lambda: journal.answer(proposal, session.gone))
            if entry is not None and entry.result is not None:
                session.effects.answered += 1
                self.recorded = entry.result
        return self.recorded

    def begin(self) -> Steps:
        """Write the call down; the refusal where it must not be made, else None."""
        if self._journal is None:
            return None
        journal, session = self._journal, self._seat.session
        proposal = session.proposal(self._requested)
        entry = yield from self._stored(lambda: journal.begin(proposal, session.gone))
        if entry is None:
            return Refuse(UNCHECKED) if self._guard.journal_is_needed(session, self._requested) else None
        session.effects.journaled += entry.state is State.BEGUN
        if entry.state is State.BEGUN:
            self._entry = entry
        elif entry.state is State.DONE and entry.result is not None:
            session.effects.answered += 1
            self.recorded = entry.result
        else:
            return (yield from self._ask(journal, entry))
        return None

    def returned(self, outcome: ToolReturned | ToolFailed, *, whole: bool) -> Steps:
        """Write down what came back; its words only if they are the `whole` of it, and can be passed on again."""
        if isinstance(outcome, ToolReturned):
            yield from self._settle(State.DONE, outcome.output if whole else None)
        else:
            said = f"{outcome.error_type} {outcome.error[:500]}".lower()
            yield from self._settle(State.UNKNOWN if any(word in said for word in _CUT_OFF) else State.FAILED)

    def raised(self, error: BaseException, outcome: ToolFailed | ToolCancelled) -> Steps:
        """
        Write down what was raised instead: a failure; that nobody knows, where the call was cut off; or nothing,
        where the framework pauses and will call the tool again from its start.
        """
        if isinstance(error, GeneratorExit):
            self._abandon()
        elif _cut_off(error):
            yield from self._settle(State.UNKNOWN)
        elif isinstance(outcome, ToolCancelled):
            yield from self._finish(lambda journal, entry: journal.drop(entry))
        else:
            yield from self._settle(State.FAILED)

    def _abandon(self) -> None:
        """Nobody is left to carry an effect out: what can be written down is written here and now."""
        if self._journal is not None and self._entry is not None:
            try:
                self._journal.settle(self._entry, State.UNKNOWN)
            except JournalError as error:
                self._guard.failed("the journal", error, self._requested)

    def _ask(self, journal: Journal, entry: Entry) -> Steps:
        """A person says whether a call is made that may have been made before."""
        guard, seat, requested = self._guard, self._seat, self._requested
        what = _UNKNOWN if entry.state is State.UNKNOWN else _LOST
        seat.session.effects.unknown += 1
        anomaly = Anomaly(
            type=AnomalyType.DUPLICATE_SIDE_EFFECT,
            message=f"`{requested.tool}` was {what}: make the call?",
        )
        verdict, ask = guard.asks(seat.session, requested, anomaly)
        question = question_of(ask, requested)
        answer: Answer = (
            (yield Consult(question)) if seat.pause is None else answer_to(question, seat.pause(question.payload()))
        )
        guard.settle(seat.session, verdict, took_effect=True, detail=answer.verdict)
        if answer.verdict == "reject":
            return self._rejected(what, answer)
        again = yield from self._stored(lambda: journal.again(entry))
        if again is None and guard.journal_is_needed(seat.session, requested):
            return Refuse(UNCHECKED)
        self._entry = again
        self.arguments = answer.edited if answer.verdict == "edit" else None
        seat.session.effects.repeated += 1
        return None

    def _rejected(self, what: str, answer: Answer) -> Refuse:
        refusal = Refuse(rejection(_OBJECTION.format(what), answer))
        session = self._seat.session
        if self._seat.pause is None:  # a node that runs again asks nobody twice
            with session.run.lock:
                session.remember(self._requested.call or "", Verdict(refusal), self._requested)
        return refusal

    def _settle(self, state: State, result: str | None = None) -> Steps:
        yield from self._finish(lambda journal, entry: journal.settle(entry, state, result))

    def _finish(self, work: Callable[[Journal, Entry], None]) -> Steps:
        journal, entry = self._journal, self._entry
        if journal is not None and entry is not None:
            yield from self._stored(lambda: work(journal, entry))

    def _stored(self, work: Callable[[], Any]) -> Steps:
        """What the journal says; None, and the failure on record, where it cannot be reached."""
        try:
            return (yield Store(work))
        except JournalError as error:
            self._guard.failed("the journal", error, self._requested)
            return None


_CUT_OFF = ("timeout", "timed out", "connection", "disconnected")
"""What an error says or is called after which nobody knows whether the call arrived."""


def _cut_off(error: BaseException) -> bool:
    """Whether nobody knows what became of a call that ended so: cancelled, timed out, or the connection was lost."""
    if not isinstance(error, Exception) or isinstance(error, TimeoutError | ConnectionError):
        return True
    names = " ".join(cls.__name__.lower() for cls in type(error).__mro__)
    return any(word in names for word in (*_CUT_OFF, "protocolerror", "readerror", "writeerror"))
