"""A guarded run while it is going on, and for whom it was begun."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from autogen_agentchat.base import Response
from autogen_agentchat.messages import ModelClientStreamingChunkEvent, StopMessage

import misstep
from misstep.events import Status
from misstep.guard import Guard
from misstep.session import Session

if TYPE_CHECKING:
    from misstep_autogen.patch import Patch

OnHalt = Literal["return", "raise"]


class Root:
    """What `guarded` was called with, what was patched for it, and the runs of it that are going on."""

    def __init__(self, target: Any, guard: Guard, on_halt: OnHalt) -> None:
        self.target, self.guard, self.on_halt = target, guard, on_halt
        self.thread = f"autogen:{uuid.uuid4().hex[:16]}"
        self.users: set[str] = set()
        """The names of the agents a person speaks through."""
        self.patches: list[Patch] = []
        self.live: list[Live] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> Root:
        target = memo.get(id(self.target))
        if target is None:
            return self
        clone = memo[id(self)] = Root(target, self.guard, self.on_halt)
        clone.users = set(self.users)
        clone.patches = copy.deepcopy(self.patches, memo)
        return clone


class Live:
    """
    One run. `target` is the agent or team it was begun at, `work` what that has given so far.

    After a halt, `signs` are the messages by which turns in a team were ended, by the id of their agents, and
    `unheard` what was handed to agents and teams that were not given their turn any more.
    """

    def __init__(self, root: Root, session: Session, target: Any) -> None:
        self.guard, self.users = root.guard, root.users
        self.session, self.target = session, target
        self.work: list[Any] = []
        self.signs: dict[int, str] = {}
        self.unheard: dict[int, Sequence[Any]] = {}
        self.over = False

    @property
    def halted(self) -> str | None:
        """Why the run is to end, once that was decided."""
        return self.session.halted

    def halted_by(self, error: BaseException) -> bool:
        """Whether an exception is our halt, or what AutoGen made of it: its words in an exception of another type."""
        if self.halted is None or not isinstance(error, Exception):
            return False
        return isinstance(error, misstep.Halted) or self.halted in str(error)

    def sign(self, agent: Any) -> StopMessage | None:
        """
        What an agent says to end its halted turn; no other agent ever hears it.

        None the second time: whoever chooses the speakers does not know it for the end.
        """
        if id(agent) in self.signs:
            return None
        message = StopMessage(content=str(self.halted), source=agent.name)
        self.signs[id(agent)] = message.id
        return message

    def keep(self, item: Any) -> None:
        """Keep what was said, for a caller who is given it all at once; pieces of it are not kept."""
        if isinstance(item, Response):
            self.work.append(item.chat_message)
        elif not isinstance(item, ModelClientStreamingChunkEvent):
            self.work.append(item)

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


@contextmanager
def shielded(guard: Guard, where: str) -> Iterator[None]:
    """The boundary round a hook that no driver of the core runs: our failures are reported and go no further."""
    try:
        yield
    except Exception as error:
        if isinstance(error, misstep.Halted) or guard.strict:
            raise
        guard.failed(where, error)
