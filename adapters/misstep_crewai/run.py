"""The run seat: `guarded(crew, guard)`, the user's own crew, which knows when a run begins, halts and ends."""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from importlib.metadata import version
from types import SimpleNamespace, TracebackType
from typing import Any, Literal

from crewai import Crew, CrewOutput
from crewai.hooks import InterceptionPoint

from misstep.events import Status
from misstep.guard import Guard
from misstep.judge import UNOPENED
from misstep_crewai import course, gate
from misstep_crewai.halted import Halted
from misstep_crewai.live import Live, live_of
from misstep_crewai.private import check, event_scope, put_course, restore_event_scope
from misstep_crewai.seats import known_roles, seats_of
from misstep_crewai.tool import ToolHooks

OnHalt = Literal["return", "raise"]

_VERSION = version("crewai")


def guarded(crew: Crew, guard: Guard, *, on_halt: OnHalt = "return") -> Crew:
    """
    The same crew, guarded; `unguard` takes it back, and `copy` of a guarded crew is guarded.

    Model and tool calls are intercepted wherever CrewAI makes them within a kickoff: by every agent, by a manager or
    planner made on the way, by co-workers and by crews run in tools. Agents, models and tools are not touched, and
    other crews may share them. A halt ends the run softly and returns a `CrewOutput` of the tasks that were finished,
    its `raw` the last one's or the reason; with `on_halt="raise"`, and always inside another crew under this guard,
    `Halted` is raised. `crew.last_run` is the id of the run begun last; each item of `kickoff_for_each` is a run.
    Raises `AttachError`, `ChangedFrameworkError`, and TypeError for what is no crew.
    """
    if not isinstance(crew, Crew):
        raise TypeError(
            f"`misstep_crewai.guarded` takes a `Crew`, found `{type(crew).__name__}`: guard the crews a flow runs, "
            "and put a lone agent into a crew"
        )
    attached = _attached(crew)
    if attached is not None and attached.guard is guard:
        object.__setattr__(crew, "misstep", Attached(guard, on_halt, attached.origin))
        return crew
    check()
    guard.attach(seats_of(crew), known_roles(crew))
    cls: Any = type(unguard(crew))
    object.__setattr__(crew, "__class__", _guarded_class(cls))
    object.__setattr__(crew, "misstep", Attached(guard, on_halt))
    object.__setattr__(crew, "last_run", None)
    return crew


def unguard(crew: Crew) -> Crew:
    """The same crew, as it was before; one that is not guarded is left as it is."""
    if _attached(crew) is not None:
        object.__setattr__(crew, "__class__", type(crew).__base__)
        for name in ("misstep", "last_run"):
            object.__delattr__(crew, name)
    return crew


class Attached:
    """What a guarded crew carries; `origin` is the crew whose `kickoff_for_each` made this copy."""

    def __init__(self, guard: Guard, on_halt: OnHalt, origin: Crew | None = None) -> None:
        self.guard, self.on_halt, self.origin = guard, on_halt, origin

    def began(self, crew: Crew, run: str) -> None:
        """Tell the caller which run it is."""
        for each in (crew, self.origin):
            if each is not None and _attached(each) is not None:
                object.__setattr__(each, "last_run", run)


def guard_of(crew: Crew) -> Guard | None:
    """The guard a crew is under."""
    attached = _attached(crew)
    return None if attached is None else attached.guard


def _attached(crew: Crew) -> Attached | None:
    return crew.__dict__.get("misstep")


_copied: contextvars.ContextVar[Crew | None] = contextvars.ContextVar("misstep_crewai_copied", default=None)


@contextmanager
def _copied_to_run(crew: Crew) -> Iterator[None]:
    """While other objects are made of the crew, to be run in its place."""
    token = _copied.set(crew)
    try:
        yield
    finally:
        _copied.reset(token)


@functools.cache
def _guarded_class(cls: Any) -> Any:
    """The user's class with the run seat round whatever runs tasks; all other ways to run a crew lead there."""

    class Guarded(cls):  # a single base and no fields of its own: only then may a live crew take the class
        @functools.wraps(cls.kickoff)
        def kickoff(self, *args: Any, **kwargs: Any) -> Any:
            return _run(self, super().kickoff, args, kwargs)

        @functools.wraps(cls.akickoff)
        async def akickoff(self, *args: Any, **kwargs: Any) -> Any:
            return await _arun(self, super().akickoff, args, kwargs)

        @functools.wraps(cls.replay)
        def replay(self, *args: Any, **kwargs: Any) -> Any:
            return _run(self, super().replay, args, kwargs)

        @functools.wraps(cls.kickoff_for_each)
        def kickoff_for_each(self, *args: Any, **kwargs: Any) -> Any:
            with _copied_to_run(self):
                return super().kickoff_for_each(*args, **kwargs)

        @functools.wraps(cls.kickoff_for_each_async)
        async def kickoff_for_each_async(self, *args: Any, **kwargs: Any) -> Any:
            with _copied_to_run(self):
                return await super().kickoff_for_each_async(*args, **kwargs)

        @functools.wraps(cls.akickoff_for_each)
        async def akickoff_for_each(self, *args: Any, **kwargs: Any) -> Any:
            with _copied_to_run(self):
                return await super().akickoff_for_each(*args, **kwargs)

        @functools.wraps(cls.copy)
        def copy(self) -> Any:
            clone = _guarded_as(self, super().copy())
            clone.misstep.origin = self if _copied.get() is self else None
            return clone

        @staticmethod
        def from_checkpoint(config: Any) -> Any:
            restored, mine = cls.from_checkpoint(config), _copied.get()
            if mine is not None:
                _guarded_as(mine, restored).misstep.origin = mine
            return restored

    put_course(Guarded, _executed, _aexecuted)
    Guarded.__name__, Guarded.__qualname__, Guarded.__module__ = cls.__name__, cls.__qualname__, cls.__module__
    return Guarded


def _guarded_as(crew: Any, other: Crew) -> Any:
    return guarded(other, crew.misstep.guard, on_halt=crew.misstep.on_halt)


def _executed(crew: Any, execute: Callable[..., Any], *tasks: Any) -> Any:
    with _seat(crew) as seat:
        seat.result = course.executed(crew, execute, *tasks)
    return seat.result


async def _aexecuted(crew: Any, execute: Callable[..., Awaitable[Any]], *tasks: Any) -> Any:
    with _seat(crew) as seat:
        seat.result = await course.aexecuted(crew, execute, *tasks)
    return seat.result


def _run(crew: Crew, kickoff: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if _runs_elsewhere(crew, args, kwargs):
        with _copied_to_run(crew):
            return kickoff(*args, **kwargs)
    with RunSeat(crew) as seat:
        seat.result = kickoff(*args, **kwargs)
    return seat.result


async def _arun(
    crew: Crew, kickoff: Callable[..., Awaitable[Any]], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    if _runs_elsewhere(crew, args, kwargs):
        with _copied_to_run(crew):
            return await kickoff(*args, **kwargs)
    with RunSeat(crew) as seat:
        seat.result = await kickoff(*args, **kwargs)
    return seat.result


def _seat(crew: Any) -> Any:
    """Where tasks are worked off: a run of its own where none is going on, so the kickoff came before the guard."""
    return nullcontext(SimpleNamespace()) if live_of(crew.misstep.guard) is not None else RunSeat(crew, begun=1)


def _runs_elsewhere(crew: Crew, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether CrewAI makes another kickoff of this one: later, in a stream; or of the crew a checkpoint holds."""
    checkpoint = args[2] if len(args) > 2 else kwargs.get("from_checkpoint")
    return crew.stream or (checkpoint is not None and checkpoint.restore_from is not None)


class RunSeat:
    """
    One run of a guarded crew, as a context: opens it, ends it, and catches a halt where it may end softly.

    `begun` is how many events of its kickoff CrewAI is within by now: a halt ends those too.
    """

    def __init__(self, crew: Any, begun: int = 0) -> None:
        self.result: Any = None
        self._begun = begun
        self._crew = crew
        self._attached: Attached = crew.misstep
        self._guard = self._attached.guard
        self._stack = ExitStack()
        self._live: Live | None = None
        self._nested = False

    def __enter__(self) -> RunSeat:
        try:
            self._enter()
        except Exception as error:
            self._stack.close()
            if self._guard.strict:
                raise
            self._guard.failed("the run seat", error)
            if live_of(self._guard) is None and self._guard.fails_closed:
                raise Halted(UNOPENED) from None  # no seat is there that might refuse anything
        return self

    def _enter(self) -> None:
        outer = live_of(self._guard)
        self._nested = outer is not None
        if outer is not None:
            self._live = outer
            self._stack.enter_context(outer.entered())
            return
        scope = event_scope()
        self._scope = scope[: len(scope) - self._begun]
        self._before = [(task, task.output) for task in self._crew.tasks]
        session = self._guard.open(
            seats=seats_of(self._crew), framework="crewai", version=_VERSION, agents=known_roles(self._crew)
        )
        self._attached.began(self._crew, session.run.id)
        self._live = live = Live(self._guard, session)
        tools = ToolHooks(live)
        self._stack.callback(tools.close)
        live.hooks = {**tools.points, InterceptionPoint.PRE_STEP: functools.partial(course.begins, live)}
        self._stack.enter_context(gate.standing())
        self._stack.enter_context(live.entered())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if self._live is None:
            return False
        reason = self._live.halted_by(error)
        if self._end(self._live, error, reason):
            return True
        if reason is None or isinstance(error, Halted):
            return False
        if error is None and not self._nested and self._attached.on_halt == "return":
            return False
        raise Halted(reason) from error

    def _end(self, live: Live, error: BaseException | None, reason: str | None) -> bool:
        """Out of the run, which is over unless an outer crew began it; whether a halt was turned into a result."""
        try:
            self._stack.close()
            if self._nested:
                return False
            self._guard.end(live.session.run.id, _status(error, reason), error=str(error) if error else None)
            if self._guard.strict and live.crash is not None:
                raise live.crash
            if live.session.halted is not None:
                restore_event_scope(self._scope)
            if reason is not None and error is not None and self._attached.on_halt == "return":
                self.result = self._finished(reason)
                return True
        except Exception as ours:
            if self._guard.strict:
                raise
            self._guard.failed("the run seat", ours)
        return False

    def _finished(self, reason: str) -> CrewOutput:
        """What CrewAI itself would make of the tasks that this run finished."""
        outputs = [task.output for task, earlier in self._before if task.output is not earlier]
        outputs = [output for output in outputs if output is not None]
        last = next((output for output in reversed(outputs) if output.raw), None)
        usage = self._crew.calculate_usage_metrics()
        if last is None:
            return CrewOutput(raw=reason, tasks_output=outputs, token_usage=usage)
        return CrewOutput(
            raw=last.raw, pydantic=last.pydantic, json_dict=last.json_dict, tasks_output=outputs, token_usage=usage
        )


def _status(error: BaseException | None, reason: str | None) -> Status:
    if reason is not None:
        return "halted"
    if error is None:
        return "completed"
    return "interrupted" if isinstance(error, GeneratorExit | asyncio.CancelledError | KeyboardInterrupt) else "failed"
