"""
The gate: every `llm.call` and `llm.acall` of a guarded run, wherever it is made.

While a guarded run is going on, `BaseLLM.__getattribute__` hands out those two methods with the model seat round
them, in the contexts of that run only; afterwards the class is as it was. Looking at the attribute rather than at a
list of models covers models shared with other crews, made during the kickoff (a manager's, a planner's), patched on
the instance, and of classes imported later; a class's own `super().call` is not looked up on the model, and passes.
The hooks of a run stand as long as its gate (see `hooks.py`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from crewai.llms.base_llm import BaseLLM

from misstep.enact import Rescue, adrive, drive, model_call
from misstep.errors import Signal
from misstep.guard import Guard
from misstep_crewai.course import leaving
from misstep_crewai.halted import Diverted, Halted
from misstep_crewai.hooks import looked_up
from misstep_crewai.in_hand import has_in_hand, in_hand
from misstep_crewai.live import Live, lives
from misstep_crewai.model import Asked, CrewModelSeat, Request
from misstep_crewai.private import put_gate, take_gate

_changing = threading.Lock()
_runs = 0
_open = ExitStack()


@contextmanager
def standing() -> Iterator[None]:
    """While any guarded run is going on in this process."""
    global _runs
    with _changing:
        if _runs == 0:
            _open.enter_context(_in_place())
        _runs += 1
    try:
        yield
    finally:
        with _changing:
            _runs -= 1
            if _runs == 0:
                _open.close()


@contextmanager
def _in_place() -> Iterator[None]:
    bare = put_gate(_gated)
    try:
        with looked_up():
            yield
    finally:
        take_gate(bare)


def _gated(original: Callable[..., Any]) -> Any:
    def getattribute(self: BaseLLM, name: str) -> Any:
        found = original(self, name)
        if name == "call" and (runs := lives()):
            return _judged(self, found, runs)
        if name == "acall" and (runs := lives()):
            return _ajudged(self, found, runs)
        return found

    return getattribute


def _judged(llm: BaseLLM, original: Callable[..., Any], runs: tuple[Live, ...]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        live = _next(runs)
        if live is None:
            return original(*args, **kwargs)
        guard, asked = live.guard, Asked(llm, args, kwargs)

        def handler(request: Request) -> Any:
            own, named = asked.arguments(request.messages)
            with asked.heard(request):
                return (call if request.model is None else request.model.call)(*own, **named)

        with in_hand(guard):
            steps = model_call(guard, lambda: CrewModelSeat(live, asked))
            return _released(guard, asked, drive(guard, steps, handler, Rescue(Request(asked.messages))))

    return call


def _ajudged(llm: BaseLLM, original: Callable[..., Any], runs: tuple[Live, ...]) -> Callable[..., Any]:
    async def acall(*args: Any, **kwargs: Any) -> Any:
        live = _next(runs)
        if live is None:
            return await original(*args, **kwargs)
        guard, asked = live.guard, Asked(llm, args, kwargs)

        async def handler(request: Request) -> Any:
            own, named = asked.arguments(request.messages)
            with asked.heard(request):
                return await (acall if request.model is None else request.model.acall)(*own, **named)

        with in_hand(guard):
            steps = model_call(guard, lambda: CrewModelSeat(live, asked))
            return _released(guard, asked, await adrive(guard, steps, handler, Rescue(Request(asked.messages))))

    return acall


def _next(runs: tuple[Live, ...]) -> Live | None:
    """The run whose seat takes the call; where ours fails it is nobody's."""
    try:
        return _innermost(runs)
    except Exception as error:
        if isinstance(error, Signal) or runs[-1].guard.strict:
            raise
        runs[-1].guard.failed("the gate", error)
        return None


def _innermost(runs: tuple[Live, ...]) -> Live | None:
    """The innermost run whose seat has not this call in hand; one that was halted or left lets nothing straggle on."""
    for live in reversed(runs):
        if live.guard.mode == "off":
            continue
        if live.session.ended and live.session.halted is not None:
            raise Halted(live.session.halted)
        if not live.session.ended and not has_in_hand(live.guard):
            if leaving(live):
                raise Diverted
            return live
    return None


def _released(guard: Guard, asked: Asked, raw: Any) -> Any:
    try:
        asked.release(raw)
    except Exception as error:
        if guard.strict:
            raise
        guard.failed("the gate", error)
    return raw
