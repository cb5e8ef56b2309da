"""The course of a crew's tasks, and how it is changed: the task in hand is begun again, or given to another agent."""

from __future__ import annotations

import contextvars
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from crewai import Crew, CrewOutput, Process, Task
from crewai.hooks.contexts import StepContext
from crewai.tasks.conditional_task import ConditionalTask

from misstep.decisions import Reroute, RollBack
from misstep.guard import Guard
from misstep.session import Session
from misstep_crewai.halted import Diverted
from misstep_crewai.live import Live, live_of
from misstep_crewai.private import event_scope, restore_event_scope
from misstep_crewai.seats import roles

_courses: contextvars.ContextVar[tuple[Course, ...]] = contextvars.ContextVar("misstep_crewai_courses", default=())


class Course:
    """
    A guarded crew working off its tasks, one after another.

    CrewAI itself does so from any task on, with the outputs of those before it (`Crew.replay`): that is how a run is
    taken back, and how an agent loses its turn.
    """

    def __init__(self, live: Live, crew: Crew, start: int) -> None:
        self.live = live
        self.leaving: Reroute | RollBack | None = None
        """What the task in hand is being left for; the seats raise `Diverted` until it is."""
        self._crew, self._start = crew, start
        self._task: Task | None = None
        self._results = 0
        self._lesson = ""
        self._own: dict[int, tuple[Task, Any]] = {}
        self._outputs = [task.output for task in crew.tasks]
        self._scope = event_scope()
        if not _of(live):
            live.session.agents = roles(crew)  # a kickoff's inputs may stand in them by now

    def begins(self, context: StepContext) -> str | None:
        """A task begins; it is told the lesson, if it was taken back."""
        task = context.task
        if not any(task is own for own in self._crew.tasks):
            return None
        if task is not self._task:
            self._task, self._lesson = task, ""
        self._results = len(_tools_results(context.agent))
        told = [str(context.payload), self._lesson] if context.payload else [self._lesson]
        return "\n\n".join(told) if self._lesson else None

    def can(self, decision: Reroute | RollBack) -> bool:
        """Whether this crew can carry it out: one task at a time, and by an agent of its own."""
        crew = self._crew
        if self._task is None or any(task.async_execution for task in crew.tasks):
            return False
        if isinstance(decision, RollBack):
            return True
        return crew.process is Process.sequential and _agent(crew, decision.agent) is not None

    def changed(self) -> int:
        """Change the course; the index of the task to go on with."""
        decision, self.leaving = self.leaving, None
        index = next(at for at, task in enumerate(self._crew.tasks) if task is self._task)
        try:
            restore_event_scope(self._scope)
            self._drop(index)
            self._carry_out(decision, self._crew.tasks[index])
        except Exception as error:
            self.live.failed(error)
        return index

    def over(self) -> None:
        """Every task is its own agent's again."""
        for task, agent in self._own.values():
            task.agent = agent

    def _drop(self, index: int) -> None:
        """What the task in hand has left behind; what was skipped before it stays skipped."""
        task = self._crew.tasks[index]
        del _tools_results(task.agent)[self._results :]
        for earlier, output in list(zip(self._crew.tasks, self._outputs, strict=False))[self._start : index]:
            if isinstance(earlier, ConditionalTask) and earlier.output is output:
                earlier.output = earlier.get_skipped_task_output()

    def _carry_out(self, decision: Reroute | RollBack | None, task: Task) -> None:
        session: Session = self.live.session
        if decision is None:
            return
        if isinstance(decision, Reroute):
            self._own.setdefault(id(task), (task, task.agent))
            task.agent = _agent(self._crew, decision.agent)
        else:
            self._lesson = decision.lesson
        with session.run.lock:
            verdict = session.due(decision.kind)
        if verdict is not None:
            self.live.guard.settle(session, verdict, took_effect=True)


def _agent(crew: Crew, role: str) -> Any:
    return next((agent for agent in crew.agents if str(agent.role).strip() == role), None)


def _tools_results(agent: Any) -> list[Any]:
    """Where CrewAI keeps what an agent's tools answered in text mode, and looks for a task's answer at its end."""
    results = getattr(agent, "tools_results", None)
    return results if isinstance(results, list) else []


def begins(live: Live, context: StepContext) -> str | None:
    """The hook before a task: what its agent is to be told beside the results of earlier tasks."""
    try:
        for course in _of(live):
            told = course.begins(context)
            if told is not None:
                return told
    except Exception as error:
        live.failed(error)
    return None


def divert(live: Live, decision: Reroute | RollBack) -> bool:
    """Have the innermost crew that can carry it out do so; False where none can."""
    course = next((course for course in reversed(_of(live)) if course.can(decision)), None)
    if course is None:
        return False
    if course.leaving is None or course.leaving.kind.strength < decision.kind.strength:
        course.leaving = decision
    return True


def leaving(live: Live) -> bool:
    """Whether the task in hand is being left: whatever is still done in it goes no further."""
    return any(course.leaving is not None for course in _of(live))


def _of(live: Live) -> tuple[Course, ...]:
    return tuple(course for course in _courses.get() if course.live is live)


Execute = Callable[..., CrewOutput]
Aexecute = Callable[..., Awaitable[CrewOutput]]


def executed(crew: Any, execute: Execute, tasks: list[Task], start: int | None, replayed: bool) -> Any:
    """Work off the tasks from `start` on, and again from where the course was changed."""
    with _begun(crew, start) as course:
        while True:
            try:
                return execute(tasks, start, replayed)
            except Diverted:
                if course is None or course.leaving is None:
                    raise
                start = course.changed()


async def aexecuted(crew: Any, execute: Aexecute, tasks: list[Task], start: int | None, replayed: bool) -> Any:
    """`executed` for async code."""
    with _begun(crew, start) as course:
        while True:
            try:
                return await execute(tasks, start, replayed)
            except Diverted:
                if course is None or course.leaving is None:
                    raise
                start = course.changed()


@contextmanager
def _begun(crew: Any, start: int | None) -> Iterator[Course | None]:
    """The course of a crew that runs under its guard; None where it runs without, or ours has failed."""
    guard: Guard = crew.misstep.guard
    course = None
    with _boundary(guard):
        live = live_of(guard)
        course = None if live is None else Course(live, crew, start or 0)
    if course is None:
        yield None
        return
    token = _courses.set((*_courses.get(), course))
    try:
        yield course
    finally:
        _courses.reset(token)
        with _boundary(guard):
            course.over()


@contextmanager
def _boundary(guard: Guard) -> Iterator[None]:
    """What of ours fails in here is reported, and the crew goes on."""
    try:
        yield
    except Exception as error:
        if guard.strict:
            raise
        guard.failed("the run seat", error)
