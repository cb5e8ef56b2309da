"""Rolling back: the states a run can be taken back to, how AutoGen is brought to one of them, and what was learned."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autogen_core.models import FunctionExecutionResultMessage, LLMMessage, UserMessage

from misstep.run import Run
from misstep_autogen import private


@dataclass(slots=True)
class Lesson:
    """What an agent's model reads from then on, as the message at `at` (None: it has not been asked again yet)."""

    text: str
    at: int | None = None


def taught(messages: Sequence[LLMMessage], lessons: Sequence[Lesson]) -> list[LLMMessage]:
    """A conversation with lessons where it stood when they were learned; never between a call and its result."""
    told = list(messages)
    for lesson in lessons:
        lesson.at = len(messages) if lesson.at is None else lesson.at
    for lesson in sorted(lessons, key=lambda lesson: lesson.at or 0, reverse=True):
        at = lesson.at or 0
        while at < len(messages) and isinstance(messages[at], FunctionExecutionResultMessage):
            at += 1
        told.insert(at, UserMessage(content=lesson.text, source="misstep"))
    return told


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A state that was saved when the run had come to `step`, with `heard` messages in the team's thread."""

    step: int
    state: Mapping[str, Any]
    groups: Mapping[str, set[str]] | None
    heard: int
    first: bool = False


class Snapshots:
    """
    The states of one run: that before it began, and those before the last eight choices of a speaker.

    At the first choice the participants have not heard the task yet, so no state is saved there.
    """

    def __init__(self) -> None:
        self._first: Snapshot | None = None
        self._later: deque[Snapshot] = deque(maxlen=8)
        self._fresh = True

    async def begin(self, target: Any, run: Run) -> None:
        """Save the state before the run."""
        self._first = await _saved(target, run, first=True)

    async def before_choice(self, team: Any, run: Run) -> None:
        """Save the state before a speaker is chosen."""
        fresh, self._fresh = self._fresh, False
        if not fresh:
            self._later.append(await _saved(team, run))

    async def restore(self, target: Any, step: int | None) -> Snapshot | None:
        """Bring an agent or a team that does not run back to before `step`; None where no state was saved."""
        self._fresh = True
        while self._later and step is not None and self._later[-1].step > step:
            self._later.pop()
        snapshot = self._later[-1] if self._later else self._first
        if snapshot is not None:
            await private.clear_contexts(target)
            await target.load_state(snapshot.state)
            private.set_groups(target, snapshot.groups)
            await private.recount(target, self.standing(target))
        return snapshot

    def standing(self, target: Any) -> Sequence[Any]:
        """What the run has said, of what a team's thread holds."""
        return private.thread(target)[self._first.heard if self._first is not None else 0 :]


async def _saved(target: Any, run: Run, *, first: bool = False) -> Snapshot:
    step = run.steps
    return Snapshot(step, await target.save_state(), private.groups(target), len(private.thread(target)), first)
