"""The run seat: `guarded(graph, guard)`, a copy of the user's graph that knows when a run begins, halts and ends."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Iterator, Mapping
from types import TracebackType
from typing import Any, Literal, cast
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config, merge_configs
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command

from misstep.decisions import Kind
from misstep.events import Status
from misstep.guard import Guard
from misstep.seats import Seats
from misstep.session import Session
from misstep_langgraph import gate, private
from misstep_langgraph.halted import Halted
from misstep_langgraph.onward import Step, Steps, Way, addressed, aperform, perform, rerouted, rolled_back, without_us
from misstep_langgraph.place import RUN
from misstep_langgraph.questions import ours, questions_of, recall, split
from misstep_langgraph.seats import GUARDED, IN_MEMORY
from misstep_langgraph.signals import Diverted
from misstep_langgraph.tool import LangChainToolSeat
from misstep_langgraph.watcher import Watcher

OnHalt = Literal["return", "raise"]


def guarded(
    graph: StateGraph[Any, Any, Any, Any] | CompiledStateGraph[Any, Any, Any, Any],
    guard: Guard,
    *,
    on_halt: OnHalt = "return",
    **compile_arguments: Any,
) -> CompiledStateGraph[Any, Any, Any, Any]:
    """
    A guarded copy of a compiled graph, or of what a builder compiles to; the original stays as it was.

    It is the user's own type, and `with_config` and `copy` keep it guarded. Model and tool calls are intercepted
    wherever the run's callbacks reach: in nodes, sub-graphs, closures and agents called as tools. A halt ends the run
    softly and returns what was done; with `on_halt="raise"`, and always inside another graph, `Halted` is raised.
    With a checkpointer of its own the graph can also give the turn to another of its nodes, go back to a checkpoint,
    and, where the guard has no approver, be interrupted with a question that `Command(resume=...)` answers.
    `graph.last_run` is the id of the run begun last. Raises `AttachError`, `ChangedFrameworkError`.
    """
    if isinstance(graph, StateGraph):
        graph = graph.compile(**compile_arguments)
    elif compile_arguments:
        raise TypeError(f"compile arguments {sorted(compile_arguments)} go with a builder, not with a compiled graph")
    if getattr(graph, "misstep_guard", None) is guard:
        return graph
    private.check()
    guard.attach(seats_of(graph), _agents(graph))
    gate.install()
    copy: Any = graph.copy({})
    copy.__class__ = _guarded_class(cast("Any", type(graph)))
    copy.misstep_guard, copy.misstep_on_halt, copy.last_run = guard, on_halt, None
    return copy


def unguard(graph: CompiledStateGraph[Any, Any, Any, Any]) -> CompiledStateGraph[Any, Any, Any, Any]:
    """The graph without the guard; one that is not guarded is returned as it is."""
    if not hasattr(graph, "misstep_guard"):
        return graph
    bare: Any = graph.copy({})
    bare.__class__ = type(graph).__base__
    for name in _OURS:
        del bare.__dict__[name]
    return bare


_OURS = ("misstep_guard", "misstep_on_halt", "last_run")


@functools.cache
def _guarded_class(cls: Any) -> Any:
    """The user's class with the run seat in `stream` and `astream`, on which all else is built."""

    class Guarded(cls):  # a single base: only then may a live graph take the class
        misstep_guard: Guard
        misstep_on_halt: OnHalt
        last_run: str | None

        def stream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:  # noqa: A002 - LangGraph's name
            with RunSeat(self, input, config) as seat:
                steps = seat.start()
                while True:
                    way = perform(self, steps)
                    try:
                        yield from super().stream(*way, **kwargs)
                        return
                    except Diverted as signal:
                        steps = seat.onward(signal)

        async def astream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AsyncIterator[Any]:  # noqa: A002 - LangGraph's name
            with RunSeat(self, input, config) as seat:
                steps = seat.start()
                while True:
                    way = await aperform(self, steps)
                    try:
                        async for chunk in super().astream(*way, **kwargs):
                            yield chunk
                        return
                    except Diverted as signal:
                        steps = seat.onward(signal)

        def copy(self, update: dict[str, Any] | None = None) -> Any:
            """A copy under the same guard (`with_config` makes one)."""
            theirs = {name: value for name, value in self.__dict__.items() if name not in (*_OURS, "__orig_class__")}
            clone = type(self)(**{**theirs, **(update or {})})
            clone.misstep_guard, clone.misstep_on_halt, clone.last_run = self.misstep_guard, self.misstep_on_halt, None
            return clone

    Guarded.__name__, Guarded.__qualname__, Guarded.__module__ = cls.__name__, cls.__qualname__, cls.__module__
    return Guarded


class RunWatcher(Watcher):
    """The watcher of one guarded run: every callback in it belongs to one session."""

    def __init__(self, guard: Guard, session: Session) -> None:
        super().__init__(guard, enforcing=True)
        self.session = session

    def session_of(self, run_id: UUID | None) -> Session:
        """The run's session."""
        return self.session

    def seated(self, seat: LangChainToolSeat, metadata: Mapping[str, Any] | None) -> LangChainToolSeat:
        """Where nobody else was named who is asked, a question interrupts the graph."""
        seats = self.session.seats
        if self.guard.approver is None and seats is not None and seats.pauses:
            seat.may_pause(alone=private.sent(metadata or {}))
        return seat


class Unopened(Watcher):
    """The watcher of a run that could not be opened: every seat under it fails, and so refuses what it cannot check."""

    def __init__(self, guard: Guard) -> None:
        super().__init__(guard, enforcing=True)

    def session_of(self, run_id: UUID | None) -> Session:
        """There is none."""
        raise RuntimeError("the run was never opened")


class RunSeat:
    """
    One run of a guarded graph, as a context: opens it, ends it, catches a halt where it may end softly, and sees to it
    that the run goes on where a seat left for another agent or an earlier state.
    """

    def __init__(self, graph: Any, input: Any, config: RunnableConfig | None) -> None:  # noqa: A002 - LangGraph's name
        self._graph, self._input, self._config = graph, input, config
        self._guard = graph.misstep_guard
        self._watcher: RunWatcher | None = None
        self._nested = False

    def __enter__(self) -> RunSeat:
        try:
            self._enter()
        except Exception as error:
            self._failed(error)
            if self._guard.fails_closed:
                self._config = merge_configs(self._config, {"callbacks": [Unopened(self._guard)]})
        return self

    def _enter(self) -> None:
        ambient = ensure_config(merge_configs(self._graph.config, self._config))
        configurable = ambient.get("configurable", {})
        self._nested = private.nested(configurable)
        handlers = getattr(ambient.get("callbacks"), "handlers", ambient.get("callbacks")) or ()
        if any(isinstance(each, Watcher) and each.enforcing and each.guard is self._guard for each in handlers):
            return
        thread = configurable.get("thread_id")
        session = self._guard.open(
            (ambient.get("metadata") or {}).get(RUN),
            seats=IN_MEMORY if self._nested else seats_of(self._graph),
            framework="langgraph",
            thread=str(thread) if thread is not None else None,
            resumes=self._resumes,
            agents=_agents(self._graph),
        )
        self._watcher = RunWatcher(self._guard, session)
        self._graph.last_run = session.run.id
        self._config = merge_configs(self._config, {"callbacks": [self._watcher], "metadata": {RUN: session.run.id}})

    def start(self) -> Steps:
        """What the graph begins with; the answers a resume brings to questions of ours are taken out of it."""
        given = Way(self._input, self._config)
        if self._watcher is None or not self._resumes or not self._can_pause:
            return given
        session = self._watcher.session
        try:
            pending = (yield Step("get_state", (self._config,))).interrupts
            answers, left = split(self._input or Command(), pending)
            for asked in ours(pending):
                recall(session, asked.value)
            questions_of(session).take(answers)
        except Exception as error:
            self._failed(error)
            return given
        return Way(left if answers else self._input, self._config)

    def onward(self, signal: Diverted) -> Steps:
        """Where the run goes on; what comes up through a graph inside the guarded one is raised on."""
        if self._watcher is None:
            raise signal
        session, decision = self._watcher.session, signal.decision
        with session.run.lock:
            verdict = session.due(decision.kind)
        if verdict is None:  # of several in one step the last was kept
            return Way(None, addressed(self._config))
        carried_out = rerouted if decision.kind is Kind.REROUTE else rolled_back
        try:
            return (yield from carried_out(self._guard, session, self._config, verdict, self._graph))
        except Exception as error:
            self._failed(error)
            return without_us(self._guard, session, self._config, verdict)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        halted = isinstance(error, Halted)
        if self._watcher is not None:
            try:
                self._guard.end(self._watcher.session.run.id, self._status(error), error=str(error) if error else None)
            except Exception as failure:
                self._guard.failed("the run seat", failure)
        return halted and not self._nested and self._graph.misstep_on_halt == "return"

    @property
    def _resumes(self) -> bool:
        return self._input is None or isinstance(self._input, Command)

    @property
    def _can_pause(self) -> bool:
        assert self._watcher is not None
        seats = self._watcher.session.seats
        return seats is not None and seats.pauses

    def _failed(self, error: Exception) -> None:
        if self._guard.strict:
            raise error
        self._guard.failed("the run seat", error)

    def _status(self, error: BaseException | None) -> Status:
        if error is None:
            return "interrupted" if self._watcher is not None and self._watcher.interrupted else "completed"
        if isinstance(error, Halted):
            return "halted"
        return "interrupted" if isinstance(error, GeneratorExit | asyncio.CancelledError) else "failed"


def seats_of(graph: Any) -> Seats:
    """What can be enacted on a guarded graph."""
    return GUARDED if isinstance(graph.checkpointer, BaseCheckpointSaver) else IN_MEMORY


def _agents(graph: Any) -> tuple[str, ...]:
    """The nodes the turn can be given to: all but those that execute calls."""
    return tuple(name for name, node in graph.nodes.items() if name != START and not isinstance(node.bound, ToolNode))
