"""`MisstepCallbackHandler`: watches any LangChain or LangGraph app it is handed to."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any
from uuid import UUID

from misstep.guard import Guard
from misstep.session import Session
from misstep_langgraph import gate
from misstep_langgraph.place import RUN
from misstep_langgraph.private import check
from misstep_langgraph.seats import ENFORCING_HANDLER
from misstep_langgraph.watcher import Watcher, shielded


class MisstepCallbackHandler(Watcher):
    """
    Give it to `invoke(x, config={"callbacks": [handler]})`: every run it sees is watched, and what would have been
    decided is recorded as hypothetical.

    With `enforce=True` model and tool calls are intercepted too. There is no run seat: a halt raises `Halted` to the
    caller. One handler may serve many runs at once.
    """

    def __init__(self, guard: Guard, *, enforce: bool = False) -> None:
        check()
        super().__init__(guard, enforcing=enforce)
        if enforce:
            guard.attach(ENFORCING_HANDLER)
            gate.install()
        self._sessions: OrderedDict[UUID, Session] = OrderedDict()
        self.last_run: str | None = None
        """The id of the run begun last."""

    def __deepcopy__(self, memo: dict[int, object]) -> MisstepCallbackHandler:
        return self

    def session_of(self, run_id: UUID | None) -> Session:
        """The session of a run or of any part of it; a part of a run not seen before begins one."""
        session = self._sessions.get(run_id) if run_id is not None else None
        return session if session is not None else self._open(run_id, {})

    @shielded
    def on_chain_start(
        self,
        serialized: Any,
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """A run, or a part of one, begins."""
        parent = self._sessions.get(parent_run_id) if parent_run_id is not None else None
        if parent is None:
            self._open(run_id, metadata or {})
        else:
            self._remember(run_id, parent)

    @shielded
    def on_chain_end(self, outputs: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any) -> None:
        """A run, or a part of one, is over."""
        session = self._sessions.pop(run_id, None)
        if session is not None and (parent_run_id is None or parent_run_id not in self._sessions):
            self.guard.end(session.run.id, "interrupted" if self.interrupted else "completed")

    @shielded
    def on_chain_error(
        self, error: BaseException, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """A run, or a part of one, raised."""
        session = self._sessions.pop(run_id, None)
        if session is not None and (parent_run_id is None or parent_run_id not in self._sessions):
            self.guard.end(session.run.id, "halted" if session.halted else "failed", error=str(error))

    def _open(self, run_id: UUID | None, metadata: dict[str, Any]) -> Session:
        thread = metadata.get("thread_id")
        session = self.guard.open(
            metadata.get(RUN) or (run_id.hex if run_id is not None else None),
            seats=ENFORCING_HANDLER,
            framework="langgraph",
            thread=str(thread) if thread is not None else None,
            watching=not self.enforcing,
        )
        self.last_run = session.run.id
        if run_id is not None:
            self._remember(run_id, session)
        return session

    def _remember(self, run_id: UUID, session: Session) -> None:
        self._sessions[run_id] = session
        if len(self._sessions) > 10_000:
            self._sessions.popitem(last=False)
