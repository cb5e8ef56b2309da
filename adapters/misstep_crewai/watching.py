"""
`callbacks(guard)`: watches a crew through CrewAI's own callbacks, and intercepts nothing.

Whatever a callback raises makes CrewAI run the task again or fail the crew: nothing of ours gets out of one, not even
from a strict guard.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any, TypeVar

from crewai.context import get_current_task_id
from crewai.events import CrewKickoffFailedEvent, crewai_event_bus
from crewai.execution import get_execution_uuid
from crewai.tasks.task_output import TaskOutput

from misstep.conversation import digest
from misstep.events import Event, MessageSent, ModelResponded, Status, ToolFailed, ToolReturned, TurnEnded, TurnStarted
from misstep.guard import Guard
from misstep.session import Session
from misstep_crewai.messages import Piece, key_of, pieces, said
from misstep_crewai.place import Place
from misstep_crewai.private import check
from misstep_crewai.seats import GUARDED

T = TypeVar("T")

_VERSION = version("crewai")
_RUNS = 1000


def callbacks(guard: Guard) -> dict[str, Any]:
    """
    What to make a crew with: `Crew(agents=[...], tasks=[...], **callbacks(guard))`.

    Each kickoff is a run that is watched; decisions are hypothetical: what `guarded` would have decided. What an agent
    was told, said and called in a task is read when the task is done, since CrewAI shows its step callback neither the
    agent nor native tool calls; the step callback only tells that a task has begun.

    A run ends when its kickoff does, completed or failed. For that the crew needs `before_kickoff_callbacks` and
    `after_kickoff_callbacks` beside the other two; with those alone it ends by the guard's own limits.
    """
    check()
    watch = CrewWatch(guard)
    _watches.add(watch)
    crewai_event_bus.register_handler(CrewKickoffFailedEvent, _failed)
    return {
        "step_callback": watch.step,
        "task_callback": watch.task,
        "before_kickoff_callbacks": [watch.before],
        "after_kickoff_callbacks": [watch.after],
    }


class CrewWatch:
    """The callbacks of any number of crews, and the runs of theirs that are going on."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self._kickoffs: OrderedDict[str, Kickoff] = OrderedDict()
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> CrewWatch:
        return self  # a copied crew is watched too

    def before(self, inputs: T) -> T:
        """A kickoff begins."""
        self._shielded(lambda: self._of_kickoff(self._enter))
        return inputs

    def after(self, result: T) -> T:
        """A kickoff is done."""
        self._shielded(lambda: self._left("completed", None))
        return result

    def step(self, step: object) -> None:
        """An agent has taken a step."""
        self._shielded(lambda: self._of_kickoff(lambda kickoff: kickoff.began(_task())))

    def task(self, output: TaskOutput) -> None:
        """A task is done."""
        self._shielded(lambda: self._of_kickoff(lambda kickoff: kickoff.done(_task(output), output)))

    def failed(self, crew: Any, error: str) -> None:
        """A kickoff raised; that of another crew is none of ours."""
        self._shielded(lambda: self._left("failed", error) if self.before in crew.before_kickoff_callbacks else None)

    def _shielded(self, callback: Callable[[], None]) -> None:
        """The boundary round every callback: our failures are reported, and go no further."""
        try:
            callback()
        except Exception as error:
            self.guard.failed("a callback", error)

    def _enter(self, kickoff: Kickoff) -> None:
        with self._lock:
            kickoff.depth += 1

    def _left(self, status: Status, error: str | None) -> None:
        key = get_execution_uuid() or ""
        with self._lock:
            kickoff = self._kickoffs.get(key)
            if kickoff is None:
                return
            kickoff.depth -= 1
            if kickoff.depth > 0:
                return
            del self._kickoffs[key]
        self.guard.end(kickoff.session.run.id, status, error=error)

    def _of_kickoff(self, do: Callable[[Kickoff], None]) -> None:
        """The kickoff a callback belongs to: CrewAI's own id is the same in a crew run in another one's tool."""
        key = get_execution_uuid() or ""
        with self._lock:
            kickoff = self._kickoffs.get(key)
            if kickoff is None and self.guard.mode != "off":
                kickoff = self._kickoffs[key] = self._opened()
            forgotten = self._kickoffs.popitem(last=False)[1] if len(self._kickoffs) > _RUNS else None
        if forgotten is not None:
            self.guard.end(forgotten.session.run.id, "interrupted")
        if kickoff is not None:
            do(kickoff)

    def _opened(self) -> Kickoff:
        return Kickoff(self.guard, self.guard.open(seats=GUARDED, framework="crewai", version=_VERSION, watching=True))


class Kickoff:
    """One run: the tasks that have begun in it; `depth` counts the crews going on, one in the tool of another."""

    def __init__(self, guard: Guard, session: Session) -> None:
        self.session = session
        self.depth = 0
        self._guard = guard
        self._begun: set[str] = set()
        self._batches = itertools.count()

    def began(self, task: str, agent: str = "") -> None:
        """A task is being worked on; told once."""
        if task not in self._begun:
            self._begun.add(task)
            self._guard.observe(TurnStarted(run=self.session.run.id, agent=agent, instance=task))

    def done(self, task: str, output: TaskOutput) -> None:
        """A task is done: what was said and called in it, in order, and its result."""
        place = Place(output.agent.strip(), task, task=True)
        self.began(task, place.agent)
        self._begun.discard(task)
        conversation = pieces([*map(_as_mapping, output.messages)], place, first=True)
        for piece in conversation:
            self._guard.observe(self._event(piece, place))
        if not conversation or conversation[-1].role not in ("assistant", "tool"):
            self._guard.observe(self._event(Piece("assistant", output.raw), place))
        self._guard.observe(TurnEnded(**self._at(place), content=output.raw))

    def _event(self, piece: Piece, place: Place) -> Event:
        told, at = said(piece, place, first=True), self._at(place)
        if told.role == "assistant":
            call = f"m{next(self._batches)}"
            return ModelResponded(**at, call=call, content=told.content, calls=told.calls, message=key_of(piece))
        if told.role == "tool":
            known = self.session.run.calls.get(told.answers)
            tool = told.tool or (known.tool if known is not None else "")
            if told.failed:
                return ToolFailed(**at, call=told.answers, tool=tool, error=told.content)
            return ToolReturned(**at, call=told.answers, tool=tool, output=told.content)
        trust = told.trust or ("system" if told.role == "system" else "user")
        return MessageSent(
            **at, role=told.role, content=told.content, sender=told.role, recipient=place.agent, trust=trust
        )

    def _at(self, place: Place) -> dict[str, Any]:
        return {"run": self.session.run.id, "agent": place.agent, "instance": place.instance}


def _task(output: TaskOutput | None = None) -> str:
    """A task's id, as CrewAI tells it to whatever runs in it; else by what it is."""
    return get_current_task_id() or (digest(output.agent, output.description) if output is not None else "")


def _as_mapping(message: Any) -> Mapping[str, Any]:
    return message if isinstance(message, Mapping) else message.model_dump()


_watches: weakref.WeakSet[CrewWatch] = weakref.WeakSet()


def _failed(source: Any, event: CrewKickoffFailedEvent) -> None:
    """No callback is called for a kickoff that raises; CrewAI's events tell of it, in the context of that kickoff."""
    for watch in list(_watches):
        watch.failed(source, event.error)
