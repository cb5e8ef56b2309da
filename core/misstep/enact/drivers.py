"""The two drivers of the core's loops, the only sync and async twins, and the boundary round every hook."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic

from misstep.approval import Answer, Question, aconsult, consult
from misstep.enact.effects import Call, Consult, Effect, Steps, Store
from misstep.enact.seats import Raw
from misstep.errors import Signal, ToolTimeout
from misstep.guard import Guard
from misstep.judge import UNCHECKED


def drive(guard: Guard, steps: Steps, handler: Callable[[Any], Raw], rescue: Rescue[Raw]) -> Raw:
    """Run the loop in sync code; see `Loop` for what becomes of exceptions. A deadline cannot be kept here."""
    loop = Loop(guard, steps, rescue)
    while (call := until_call(guard, loop)) is not None:
        try:
            loop.returned(handler(call.request))
        except BaseException as error:
            loop.error = error
    return loop.value  # type: ignore[no-any-return]


async def adrive(
    guard: Guard,
    steps: Steps,
    handler: Callable[[Any], Awaitable[Raw]],
    rescue: Rescue[Raw],
    ask: Callable[[Guard, Consult | Store], Awaitable[Any]] | None = None,
) -> Raw:
    """`drive` for async code; `ask` stands in for `aasked` where waiting for a person has to be given up at times."""
    loop = Loop(guard, steps, rescue)
    while (effect := loop.advance()) is not None:
        try:
            if isinstance(effect, Call):
                work = handler(effect.request)
                loop.returned(await (work if effect.deadline is None else within(effect.deadline, work)))
            else:
                loop.answer = await (ask or aasked)(guard, effect)
        except BaseException as error:
            loop.error = error
    return loop.value  # type: ignore[no-any-return]


def until_call(guard: Guard, loop: Loop) -> Call[Any] | None:
    """
    The next call to make, or None at the end, once all that is asked for before it was carried out.

    It is all of `drive` that a framework has need of which makes its calls between two hooks.
    """
    while (effect := loop.advance()) is not None and not isinstance(effect, Call):
        try:
            loop.answer = asked(guard, effect)
        except BaseException as error:
            loop.error = error
    return effect


def asked(guard: Guard, effect: Consult | Store) -> Any:
    """What a person answers, the default where nobody can be asked; or what a store says."""
    if isinstance(effect, Store):
        return effect.work()
    if guard.approver is None:
        return _nobody(effect.question)
    try:
        return consult(guard.approver, effect.question)
    except Exception as error:
        return _unasked(guard, effect.question, error)


async def aasked(guard: Guard, effect: Consult | Store) -> Any:
    """`asked` for async code."""
    if isinstance(effect, Store):
        return await asyncio.to_thread(effect.work)
    if guard.approver is None:
        return _nobody(effect.question)
    try:
        return await aconsult(guard.approver, effect.question)
    except Exception as error:
        return _unasked(guard, effect.question, error)


def _unasked(guard: Guard, question: Question, error: Exception) -> Answer:
    """Our own code failed: that is nothing the host did, and nobody was asked."""
    if guard.strict:
        raise error
    guard.failed("asking a person", error)
    return _nobody(question)


async def within(seconds: float, work: Awaitable[Raw]) -> Raw:
    """What a tool answers within that time; it is cancelled after. Raises `ToolTimeout`."""
    try:
        async with asyncio.timeout(seconds) as scope:
            return await work
    except TimeoutError:
        if scope.expired():
            raise ToolTimeout(seconds) from None
        raise


def _nobody(question: Question) -> Answer:
    return Answer(question.default, given=False)


@dataclass(frozen=True, slots=True)
class Rescue(Generic[Raw]):
    """What a hook does without us: the request as it came, and how to refuse it under a fail-closed policy."""

    request: Any
    refuse: Callable[[str], Raw] | None = None


class Loop:
    """
    A driver but for the one line that calls the handler, and the one boundary round every hook.

    What the handler raises passes through unchanged, and so do our own signals. If our code fails, the failure is
    reported and the host goes on as without us: with the last answer, else with one plain call of the handler; or,
    under a fail-closed policy, with a refusal in place of a call that was not made yet.
    """

    __slots__ = ("_bare", "_called", "_guard", "_last", "_rescue", "_steps", "answer", "error", "value")

    def __init__(self, guard: Guard, steps: Steps, rescue: Rescue[Any]) -> None:
        self._guard, self._steps, self._rescue = guard, steps, rescue
        self._bare = self._called = False
        self._last: Any = None
        self.answer: Any = None
        self.error: BaseException | None = None
        self.value: Any = None

    def returned(self, raw: Any) -> None:
        """The handler answered."""
        self.answer = self._last = raw
        self._called = True

    def advance(self) -> Effect | None:
        """The next effect to carry out, or None once `value` is what to pass on."""
        error, self.error = self.error, None
        if self._bare:
            if error is not None:
                raise error
            self.value = self._last
            return None
        try:
            return self._steps.throw(error) if error is not None else self._steps.send(self.answer)
        except StopIteration as end:
            self.value = end.value
            return None
        except Exception as failure:
            if failure is error or isinstance(failure, Signal) or self._guard.strict:
                raise
            self._guard.failed("a seat", failure)
        if error is not None:
            raise error
        return self._without_us()

    def _without_us(self) -> Effect | None:
        if self._called:
            self.value = self._last
            return None
        if self._guard.fails_closed and self._rescue.refuse is not None:
            self.value = self._rescue.refuse(UNCHECKED)
            return None
        self._bare = True
        return Call(self._rescue.request)
