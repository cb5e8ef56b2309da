"""One tool call: judge it, execute it or not, and judge what is passed on of its result."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, assert_never

from misstep.approval import Answer, Question, answer_to, question_of
from misstep.decisions import (
    ALLOW,
    Allow,
    Ask,
    Decision,
    Fallback,
    Halt,
    Refuse,
    Reprompt,
    Reroute,
    Retry,
    Rewrite,
    RollBack,
    Vote,
)
from misstep.enact.effects import NOT_EXECUTED, Call, Consult, Steps, rejection
from misstep.enact.ending import leave, past, stopped
from misstep.enact.journaled import Journaled
from misstep.enact.seats import ToolSeat
from misstep.errors import Signal, ToolTimeout
from misstep.events import ToolFailed, ToolRequested, ToolReturned, cancelled, text_of
from misstep.guard import Guard
from misstep.session import Verdict

_WITHHELD = "[misstep] What the tool answered was withheld."


def tool_call(guard: Guard, take: Callable[[], ToolSeat[Any, Any]]) -> Steps:
    """
    One tool call; returns the result to pass on.

    It is executed once, or not at all, unless its tool is declared to change nothing; one whose effect lasts is
    written into the guard's journal, if there is one, and what was done before is not done again. `take` takes the
    seat, inside the boundary a driver puts round these steps.
    """
    seat = take()
    if guard.mode == "off":
        return (yield Call(seat.request()))
    return (yield from _ToolCall(guard, seat).steps())


class _ToolCall:
    """One call: what was asked for, and the arguments and the agent that took the place of its own, if any."""

    __slots__ = ("_arguments", "_guard", "_redirected", "_requested", "_rewritten", "_seat", "_session")

    def __init__(self, guard: Guard, seat: ToolSeat[Any, Any]) -> None:
        self._guard, self._seat, self._session = guard, seat, seat.session
        self._requested: ToolRequested = seat.requested()
        self._arguments: Mapping[str, Any] | None = None
        self._rewritten: Verdict | None = None
        self._redirected = False

    def steps(self) -> Steps:
        """The loop: what was decided of the call, then of its result."""
        guard, seat, session = self._guard, self._seat, self._session
        verdict = guard.verdict(self._requested)
        if session.halted is not None:
            self._cancel("the run was ended")
            return stopped(guard, seat, session.halted, verdict, session.halt)
        journaled = Journaled(guard, seat, self._requested)
        if not isinstance(verdict.decision, Allow):
            recorded = yield from journaled.answered()
            if recorded is not None:
                guard.settle(session, verdict, took_effect=False, detail="the call had been made before")
                return (yield from self._recorded(recorded))
        match verdict.decision:
            case Allow():
                pass
            case Rewrite(arguments):
                self._arguments, self._rewritten = arguments, verdict
            case Ask():
                objection = yield from self._approved(verdict.decision, verdict)
                if objection is not None:
                    return self._refused(objection)
            case Refuse(objection):
                return self._refused(objection, verdict)
            case Reroute(agent) if seat.redirect(agent):
                self._redirected = True
                guard.settle(session, verdict, took_effect=True)
            case Reroute() | RollBack():
                self._cancel(f"the run goes on elsewhere: {verdict.decision.kind}")
                return leave(seat, verdict)
            case Halt(reason):
                self._cancel("the run was ended")
                return stopped(guard, seat, reason, verdict)
            case Retry() | Reprompt() | Fallback() | Vote():
                past(guard, session, verdict, "its reply was passed on", self._requested.instance)
            case _:
                assert_never(verdict.decision)
        return (yield from self._executed(journaled))

    def _executed(self, journaled: Journaled) -> Steps:
        """Execute the call, again as long as it may be, and return what is passed on."""
        guard, seat = self._guard, self._seat
        refusal = yield from journaled.begin()
        if refusal is not None:
            return self._refused(refusal.objection)
        if journaled.recorded is not None:
            return (yield from self._recorded(journaled.recorded))
        if journaled.arguments is not None:
            self._arguments = journaled.arguments
        while True:
            try:
                raw = yield Call(self._request(), guard.deadline)
            except BaseException as error:
                failure = seat.failure(error)
                yield from journaled.raised(error, failure)
                verdict = guard.judge(failure)
                if isinstance(verdict.decision, Retry) and isinstance(error, Exception):
                    self._reopen(verdict)
                    continue
                return self._instead(error, verdict)
            outcome = seat.result(raw)
            yield from journaled.returned(outcome, whole=seat.whole(raw))
            verdict = guard.judge(outcome)
            if isinstance(verdict.decision, Retry):
                self._reopen(verdict)
                continue
            passed = seat.redirected(raw) if self._redirected else raw
            return (yield from self._passed(passed, outcome, verdict))

    def _request(self) -> Any:
        """The call as it is made; that it can be made with other arguments is known only now."""
        request = self._seat.request(self._arguments)
        if self._rewritten is not None:
            self._guard.settle(self._session, self._rewritten, took_effect=True)
            self._rewritten = None
        return request

    def _recorded(self, output: str) -> Steps:
        """The call was made before: its result is passed on as the journal recorded it."""
        asked = self._requested
        outcome = ToolReturned(
            run=asked.run,
            call=asked.call,
            batch=asked.batch,
            agent=asked.agent,
            instance=asked.instance,
            tool=asked.tool,
            output=output,
            recorded=True,
        )
        return (yield from self._passed(self._seat.recorded(output), outcome, self._guard.judge(outcome)))

    def _passed(self, raw: Any, outcome: ToolReturned | ToolFailed, verdict: Verdict) -> Steps:
        """What is passed on of a result."""
        guard, seat, session = self._guard, self._seat, self._session
        match verdict.decision:
            case Allow():
                return raw
            case Rewrite(content):
                rewritten = seat.rewrite(raw, content)
                guard.settle(session, verdict, took_effect=True)
                return rewritten
            case Refuse(objection):
                guard.settle(session, verdict, took_effect=True)
                return seat.object(objection)
            case Ask() as asked:
                answer = yield Consult(question_of(asked, self._requested, text_of(outcome)))
                guard.settle(session, verdict, took_effect=True, detail=answer.verdict)
                if answer.verdict == "edit":
                    return seat.rewrite(raw, answer.edited)
                return raw if answer.verdict == "approve" else seat.object(rejection(_WITHHELD, answer))
            case RollBack():
                return leave(seat, verdict)
            case _:
                past(guard, session, verdict, "the call was already made", self._requested.instance)
                return raw

    def _instead(self, error: BaseException, verdict: Verdict) -> Any:
        """What the agent reads in place of what the tool raised, where the policy or a deadline says so."""
        decision: Decision = verdict.decision
        if isinstance(decision, RollBack) and isinstance(error, Exception):
            return leave(self._seat, verdict)
        if isinstance(decision, Refuse) and isinstance(error, Exception):
            self._guard.settle(self._session, verdict, took_effect=True)
            return self._seat.object(decision.objection)
        past(self._guard, self._session, verdict, "the call was already made", self._requested.instance)
        if isinstance(error, ToolTimeout):
            return self._seat.object(f"[misstep: tool_timeout] The tool gave {error}. It may or may not have acted.")
        raise error

    def _approved(self, asked: Ask, verdict: Verdict) -> Steps:
        """None where the call may be made, with its own or edited arguments; else the objection."""
        question = question_of(asked, self._requested)
        pause = self._seat.pause
        answer = (yield Consult(question)) if pause is None else self._paused(pause, question, verdict)
        self._guard.settle(self._session, verdict, took_effect=True, detail=answer.verdict)
        if answer.verdict == "edit":
            self._arguments = answer.edited
        objection = rejection(NOT_EXECUTED, answer) if answer.verdict == "reject" else None
        if pause is None:  # a framework that pauses plays its answers again by itself
            self._remember(answer, objection)
        return objection

    def _paused(self, pause: Callable[[Mapping[str, Any]], Any], question: Question, verdict: Verdict) -> Answer:
        """What is answered where the framework does the waiting."""
        try:
            return answer_to(question, pause(question.payload()))
        except Signal:
            self._guard.settle(self._session, verdict, took_effect=True, detail="waiting for an answer")
            raise

    def _remember(self, answer: Answer, objection: str | None) -> None:
        """A node that runs again meets what was answered, and asks nobody twice."""
        decided: Decision = Rewrite(answer.edited) if answer.verdict == "edit" else ALLOW
        with self._session.run.lock:
            verdict = Verdict(decided if objection is None else Refuse(objection))
            self._session.remember(self._requested.call or "", verdict, self._requested)

    def _refused(self, objection: str, verdict: Verdict | None = None) -> Any:
        answer = self._seat.object(objection)
        self._cancel("refused", objection)
        if verdict is not None:
            self._guard.settle(self._session, verdict, took_effect=True)
        return answer

    def _reopen(self, verdict: Verdict) -> None:
        """The call is made again: for the record it is asked for anew."""
        self._guard.settle(self._session, verdict, took_effect=True)
        asked = self._requested
        self._requested = dataclasses.replace(asked, seq=-1, id="", time=0.0, attempt=asked.attempt + 1)
        self._guard.take(self._requested)

    def _cancel(self, reason: str, objection: str = "") -> None:
        self._guard.observe(cancelled(self._requested, reason, objection))
