"""A guarded run while it is going on, and for whom it was begun."""

from __future__ import annotations

import asyncio
import copy
import threading
import uuid
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from autogen_agentchat.base import Response
from autogen_agentchat.messages import ModelClientStreamingChunkEvent, StopMessage
from autogen_core import CancellationToken

import misstep
from misstep.approval import Answer
from misstep.decisions import Kind
from misstep.enact import Consult, aasked
from misstep.errors import Signal
from misstep.events import Status
from misstep.guard import Guard
from misstep.session import Session, Verdict
from misstep_autogen.rollback import Lesson, Snapshots
from misstep_autogen.seats import Means

if TYPE_CHECKING:
    from misstep_autogen.patch import Patch

OnHalt = Literal["return", "raise"]

_GLANCE = 0.1
"""Seconds between two looks at whether anybody still waits for a run in which a person is asked."""

_TAKEN_BACK = "misstep takes this run back to an earlier state"


class Root:
    """
    What `guarded` was called with, what was patched for it, and the runs of it that are going on.

    `holds` patches an agent or a team and all it holds, with the path by which a run gets there; it gives the patches
    that are new.
    """

    def __init__(
        self,
        target: Any,
        guard: Guard,
        on_halt: OnHalt,
        means: Means,
        holds: Callable[[Root, Any, str], Iterator[Patch]],
    ) -> None:
        self.target, self.guard, self.on_halt, self.means = target, guard, on_halt, means
        self._holds = holds
        self.thread = f"autogen:{uuid.uuid4().hex[:16]}"
        self.users: set[str] = set()
        """The names of the agents a person speaks through."""
        self.patches: weakref.WeakSet[Patch] = weakref.WeakSet()
        self.live: list[Live] = []
        self._guests: weakref.WeakSet[Patch] = weakref.WeakSet()
        self._lock = threading.Lock()

    def hold(self, target: Any, path: str) -> None:
        """Patch what was not there when `guarded` was called. Raises TypeError where it takes no attributes."""
        with self._lock:
            self.patches.update(self._holds(self, target, path))

    def take_in(self, target: Any, path: str) -> None:
        """Patch what a run has come upon, until no run goes on any more. Raises TypeError as `hold` does."""
        with self._lock:
            self._guests.update(self._holds(self, target, path))

    def release(self) -> None:
        """Let go of everything."""
        with self._lock:
            for patch in [*self.patches, *self._guests]:
                patch.release(self)
            self.patches.clear()
            self._guests.clear()

    def ended(self, live: Live) -> None:
        """A run is over."""
        if live in self.live:
            self.live.remove(live)
        if not self.live:
            with self._lock:
                for patch in list(self._guests):
                    patch.release(self)
                self._guests.clear()

    def __deepcopy__(self, memo: dict[int, Any]) -> Root:
        target = memo.get(id(self.target))
        if target is None:
            return self
        clone = memo[id(self)] = Root(target, self.guard, self.on_halt, self.means, self._holds)
        clone.users = set(self.users)
        clone.patches.update(copy.deepcopy(list(self.patches), memo))
        return clone


class Live:
    """
    One run. `target` is the agent or team it was begun at, `work` what that has given so far, `snapshots` the states
    it can be taken back to (None where no rule takes any run back).

    Once the run is to be stopped, `signs` are the messages by which turns in a team were ended, by the id of their
    agents. `unheard` is what was handed to agents and teams that lost their turn before they heard it. `lessons` are
    what agents, by their paths, were taught when the run was taken back.
    """

    def __init__(self, root: Root, session: Session, target: Any) -> None:
        self.root, self.guard, self.users = root, root.guard, root.users
        self.session, self.target = session, target
        self.work: list[Any] = []
        self.signs: dict[int, str] = {}
        self.unheard: dict[int, Sequence[Any]] = {}
        self.lessons: dict[str, list[Lesson]] = {}
        self.over = False
        self.snapshots = Snapshots() if _rolls_back(root.guard) else None
        self._taken_back = False
        self._task = asyncio.current_task()
        self._left = False

    @property
    def halted(self) -> str | None:
        """Why the run is to end, once that was decided."""
        return self.session.halted

    @property
    def goes_back(self) -> bool:
        """Whether the run is stopped only to be taken back."""
        return self._taken_back and self.halted is None

    @property
    def stopping(self) -> str | None:
        """Why the run is to be stopped, for good or to be taken back."""
        return self.halted or (_TAKEN_BACK if self._taken_back else None)

    def go_back(self) -> str:
        """Stop the run everywhere, so that its seat can take it back; the reason."""
        self._taken_back = True
        return _TAKEN_BACK

    def go_on(self) -> None:
        """The run was taken back, and begins again."""
        self._taken_back = False
        self.signs.clear()

    async def ask(self, token: CancellationToken | None, guard: Guard, effect: Any) -> Any:
        """
        What a person answers; nobody waits for one once the run is cancelled or its reader has left, and what was
        asked about is rejected.

        AutoGen waits for all that is under way, and tells its agents nothing of a task that is cancelled: that is
        looked for from time to time.
        """
        if not isinstance(effect, Consult):
            return await aasked(guard, effect)
        asking = asyncio.ensure_future(aasked(guard, effect))
        if token is not None:
            token.link_future(asking)
        try:
            while not asking.done():
                if self._abandoned():
                    return Answer("reject", given=False)
                await asyncio.wait({asking}, timeout=_GLANCE)
        finally:
            asking.cancel()
        return asking.result()

    def leave(self) -> None:
        """Nobody reads the run's stream any more."""
        self._left = True

    def _abandoned(self) -> bool:
        return self.over or self._left or (self._task is not None and self._task.cancelling() > 0)

    def due(self, kind: Kind) -> Verdict | None:
        """What was put off for this seat."""
        with self.session.run.lock:
            return self.session.due(kind)

    def stopped_by(self, error: BaseException) -> bool:
        """Whether an exception is our signal, or what AutoGen made of it: its words in an exception of another type."""
        if self.stopping is None or not isinstance(error, Exception):
            return False
        return isinstance(error, misstep.Halted) or self.stopping in str(error)

    def sign(self, agent: Any) -> StopMessage | None:
        """
        What an agent says to end the turn it is stopped in; no other agent ever hears it.

        None the second time: whoever chooses the speakers does not know it for the end.
        """
        if id(agent) in self.signs:
            return None
        message = StopMessage(content=str(self.stopping), source=agent.name)
        self.signs[id(agent)] = message.id
        return message

    def keep(self, item: Any) -> None:
        """Keep what was said, for a caller who is given it all at once; pieces of it are not kept."""
        if isinstance(item, Response):
            self.work.append(item.chat_message)
        elif not isinstance(item, ModelClientStreamingChunkEvent):
            self.work.append(item)

    def forget(self, standing: Sequence[Any]) -> None:
        """Keep nothing of what was said after the last of those messages: it was taken back."""
        ids = {message.id for message in standing}
        last = max((place for place, item in enumerate(self.work) if item.id in ids), default=-1)
        del self.work[last + 1 :]

    def enacted(self) -> None:
        """The halt takes effect where no model or tool seat has met it."""
        with shielded(self.guard, "a receipt"):
            receipts, halt = self.session.ledger.receipts, self.session.halt
            if not any(taken.id in receipts for taken in halt.taken):
                self.guard.settle(self.session, halt, took_effect=True)

    def end(self, status: Status, error: str | None = None) -> None:
        """The run is over; a second word about it is ignored."""
        if not self.over:
            self.over = True
            with shielded(self.guard, "the end of a run"):
                self.guard.end(self.session.run.id, status, error=error)


def _rolls_back(guard: Guard) -> bool:
    """Whether any rule takes runs back: only then is it worth what saving states costs."""
    rungs = (rung for type_ in guard.policy.rules for rung in guard.policy.ladder(type_))
    return guard.mode == "enforce" and any(rung.kind is Kind.ROLL_BACK for rung in rungs)


@contextmanager
def shielded(guard: Guard, where: str) -> Iterator[None]:
    """The boundary round a hook that no driver of the core runs: our failures are reported and go no further."""
    try:
        yield
    except Exception as error:
        if isinstance(error, Signal) or guard.strict:
            raise
        guard.failed(where, error)
