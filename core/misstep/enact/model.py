"""One model call: ask, judge, and do what the policy says until a reply may be passed on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, assert_never

from misstep.approval import question_of
from misstep.calls import canonical
from misstep.decisions import Allow, Ask, Fallback, Halt, Refuse, Reprompt, Reroute, Retry, Rewrite, RollBack, Vote
from misstep.enact.effects import Call, Consult, Steps, rejection
from misstep.enact.ending import leave, past, stopped
from misstep.enact.journaled import proposed
from misstep.enact.seats import ModelSeat
from misstep.events import ModelResponded
from misstep.guard import Guard
from misstep.session import PASSED, Verdict

MOST_ATTEMPTS = 100
"""No model call is tried more often than this. A ladder ends by itself, since every rung that repeats has a limit."""

_NOBODY = "misstep ended this run: a reply needed a person's consent, and nobody gave it"


def model_call(guard: Guard, take: Callable[[], ModelSeat[Any, Any]]) -> Steps:
    """
    One model call; returns the reply to pass on.

    `take` takes the seat, inside the boundary a driver puts round these steps.
    """
    seat = take()
    if guard.mode == "off":
        return (yield Call(seat.request(())))
    call = _ModelCall(guard, seat)
    raw = yield from call.steps()
    yield from proposed(guard, seat.session, call.reply)
    return raw


class _ModelCall:
    """What one call has come to so far: its feedback, its model, how often it was tried, what was decided last."""

    __slots__ = ("_attempt", "_feedback", "_guard", "_last", "_model", "_samples", "_seat", "_session", "reply")

    def __init__(self, guard: Guard, seat: ModelSeat[Any, Any]) -> None:
        self._guard, self._seat, self._session = guard, seat, seat.session
        self._feedback: list[str] = []
        self._model: Any = None
        self._samples = 1
        self._attempt = 0
        self._last = PASSED
        self.reply: ModelResponded | None = None
        """The reply that was judged last."""

    def steps(self) -> Steps:
        """The loop."""
        guard, seat, session = self._guard, self._seat, self._session
        self._open()
        if session.halted is not None:
            return stopped(guard, seat, session.halted, session.halt)
        while True:
            raw, reply, verdict = yield from self._reply()
            self.reply = reply
            if self._last.taken and not self._last.types & verdict.types:
                guard.settle(session, self._last, took_effect=True, recurred=False)
            if seat.streaming and verdict.taken:
                guard.settle(session, verdict, took_effect=True, detail="late: its tokens were already streamed")
            match verdict.decision:
                case Allow() | Refuse():  # what is refused is a call, and it is refused where it is made
                    return raw
                case Rewrite(content):
                    rewritten = seat.rewrite(raw, content)
                    guard.settle(session, verdict, took_effect=True)
                    return rewritten
                case Retry() | Reprompt() | Fallback() | Vote() if self._attempt < MOST_ATTEMPTS:
                    self._prepare(verdict)
                case Retry() | Reprompt() | Fallback() | Vote():
                    guard.settle(session, verdict, took_effect=False, detail=f"gave up after {MOST_ATTEMPTS} attempts")
                    return raw
                case Ask():
                    answer = yield Consult(question_of(verdict.decision, reply, reply.content))
                    guard.settle(session, verdict, took_effect=True, detail=answer.verdict)
                    if answer.verdict == "approve":
                        return raw
                    if answer.verdict == "edit":
                        return seat.rewrite(raw, answer.edited)
                    guard.dismiss(reply)
                    if not answer.given or self._attempt >= MOST_ATTEMPTS:
                        return self._unapproved(verdict)
                    self._feedback.append(rejection("[misstep] Your last reply was not used.", answer))
                case Reroute():
                    guard.dismiss(reply)
                    return leave(seat, verdict)
                case RollBack():
                    return leave(seat, verdict)
                case Halt(reason):
                    return stopped(guard, seat, reason, verdict)
                case _:
                    assert_never(verdict.decision)

    def _open(self) -> None:
        """Tell what is new, and give the model the notices that wait for it."""
        guard, session = self._guard, self._session
        instance = ""
        for event in self._seat.opening():
            instance = event.instance
            self._before(guard.judge(event))
        with session.run.lock:
            notices = session.notices(instance)
        for verdict in notices:
            self._prepare(verdict)
            guard.settle(session, verdict, took_effect=True)

    def _before(self, verdict: Verdict) -> None:
        """What was decided before the model is asked: another model, a word beforehand; a halt is met at once."""
        if isinstance(verdict.decision, Fallback | Reprompt):
            self._prepare(verdict)
            self._guard.settle(self._session, verdict, took_effect=True)
        else:
            past(self._guard, self._session, verdict, "nothing was asked of the model yet")

    def _prepare(self, verdict: Verdict) -> None:
        """How the model is to be asked next."""
        match verdict.decision:
            case Reprompt(text):
                self._feedback.append(text)
            case Fallback(model):
                self._model = self._guard.models[model]
            case Vote(samples):
                self._samples = samples
            case _:
                pass
        self._last = verdict

    def _reply(self) -> Steps:
        """A reply that is judged: the one that came, or that most of several samples agree on."""
        samples, self._samples = self._samples, 1
        ballots: list[tuple[Any, ModelResponded]] = []
        while len(ballots) < samples:
            raw = yield from self._call()
            ballots.append((raw, self._seat.reply(raw, self._attempt)))
            self._attempt += 1
        raw, reply = elected(ballots)
        if samples > 1:
            for _, other in ballots:
                if other is not reply:
                    self._guard.take(other)
            self._seat.reply(raw, reply.attempt)  # what a seat remembers of its last reply is of this one
        return raw, reply, self._guard.judge(reply)

    def _call(self) -> Steps:
        """What the handler answers; where it raises, the policy may have it asked again."""
        guard, seat = self._guard, self._seat
        while True:
            try:
                return (yield Call(seat.request(self._feedback, self._model)))
            except BaseException as error:
                verdict = guard.judge(seat.failure(error, self._attempt))
                self._attempt += 1
                again = isinstance(verdict.decision, Retry | Fallback) and isinstance(error, Exception)
                if not again or self._attempt >= MOST_ATTEMPTS:
                    past(guard, self._session, verdict, "the model's own error was passed on")
                    raise
                self._prepare(verdict)

    def _unapproved(self, verdict: Verdict) -> Any:
        """A reply that needs a person's consent and gets none ends the run: asking again would never end."""
        with self._session.run.lock:
            self._session.stop(_NOBODY, verdict)
        return stopped(self._guard, self._seat, _NOBODY)


def elected(ballots: Sequence[tuple[Any, ModelResponded]]) -> tuple[Any, ModelResponded]:
    """
    The reply most agree on, the earliest of several: by its calls, else by its words but for case and space.

    A reply that says nothing is elected only if all do. (Self-consistency, arXiv 2203.11171.)
    """
    if len(ballots) == 1:
        return ballots[0]
    votes = [_vote(reply) for _, reply in ballots]
    count = Counter(vote for vote in votes if vote)
    if not count:
        return ballots[0]
    winner = count.most_common(1)[0][0]
    return ballots[votes.index(winner)]


def _vote(reply: ModelResponded) -> str:
    calls = sorted(f"{call.tool} {canonical(call.arguments or {}, call.raw)}" for call in reply.calls)
    return "\n".join(calls) if calls else " ".join(reply.content.lower().split())
