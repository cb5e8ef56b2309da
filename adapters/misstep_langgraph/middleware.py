"""`MisstepMiddleware`: model and tool calls of `create_agent`, through LangChain's own seam."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse, ToolCallRequest
from langchain_core.runnables import RunnableConfig
from langgraph.config import get_config
from langgraph.runtime import get_runtime

from misstep.enact import Rescue, Steps, adrive, drive, model_call, tool_call
from misstep.guard import Guard
from misstep.session import Session
from misstep_langgraph.in_hand import call_in_hand, in_hand, model_in_hand
from misstep_langgraph.messages import says_of
from misstep_langgraph.model import MiddlewareModelSeat
from misstep_langgraph.place import RUN, Place, place
from misstep_langgraph.private import check, held_back, resuming, streams
from misstep_langgraph.seats import MIDDLEWARE
from misstep_langgraph.tool import LangChainToolSeat, MiddlewareToolSeat, refusal
from misstep_langgraph.watcher import Watcher


class MisstepMiddleware(AgentMiddleware):
    """
    `create_agent(model, tools, middleware=[MisstepMiddleware(guard)])`. Put it first: the first is the outermost.

    A middleware has no run seat: a halt ends the agent by a last message without calls, and an outer agent goes on
    unless it is guarded by the same guard. One instance may serve many agents and runs at once.
    """

    def __init__(self, guard: Guard) -> None:
        super().__init__()
        check()
        guard.attach(MIDDLEWARE)
        self.guard = guard
        self._books = _books.setdefault(guard, _Books())
        self.last_run: str | None = None
        """The id of the run seen last."""

    def __deepcopy__(self, memo: dict[int, object]) -> MisstepMiddleware:
        return self

    def wrap_model_call(self, request: ModelRequest, handler: Callable[[ModelRequest], Any]) -> Any:
        """One model call."""
        config, where = _here()
        with in_hand(self.guard, model_in_hand(where.scope)), held_back(config, hold=self.guard.holds):
            return drive(self.guard, self._model_steps(request, config, where), handler, Rescue(request))

    async def awrap_model_call(self, request: ModelRequest, handler: Callable[[ModelRequest], Awaitable[Any]]) -> Any:
        """One model call."""
        config, where = _here()
        with in_hand(self.guard, model_in_hand(where.scope)), held_back(config, hold=self.guard.holds):
            return await adrive(self.guard, self._model_steps(request, config, where), handler, Rescue(request))

    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Any]) -> Any:
        """One tool call."""
        config, where = _here()
        key = call_in_hand(where.scope, request.tool_call["id"], None)
        with in_hand(self.guard, key):
            return drive(self.guard, self._tool_steps(request, config, where, key), handler, _rescue(request))

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Any]]
    ) -> Any:
        """One tool call."""
        config, where = _here()
        key = call_in_hand(where.scope, request.tool_call["id"], None)
        with in_hand(self.guard, key):
            return await adrive(self.guard, self._tool_steps(request, config, where, key), handler, _rescue(request))

    def _model_steps(self, request: ModelRequest, config: RunnableConfig, where: Place) -> Steps:
        def take() -> MiddlewareModelSeat:
            streaming = streams(config.get("callbacks"))
            session = self._session(config)
            return MiddlewareModelSeat(session, where, request, hold=self.guard.holds, streaming=streaming)

        reply = yield from model_call(self.guard, take)
        last = reply.result[-1] if isinstance(reply, ModelResponse) and reply.result else reply
        if not getattr(last, "tool_calls", None):
            self._end(where)
        return reply

    def _tool_steps(self, request: ToolCallRequest, config: RunnableConfig, where: Place, key: str) -> Steps:
        def take() -> LangChainToolSeat:
            call = request.tool_call
            said = request.tool.metadata if request.tool is not None else None
            seat = MiddlewareToolSeat(
                self._session(config),
                where,
                call["name"],
                call["args"],
                call["id"],
                key,
                request,
                metadata=said,
                says=says_of(request.tool),
            )
            watcher = self._watcher(config)
            return seat if watcher is None else watcher.seated(seat, config.get("metadata"))

        return tool_call(self.guard, take)

    def _session(self, config: RunnableConfig) -> Session:
        """The run's session: of the run seat or a handler of this guard, else one of our own for each top-level run."""
        watcher = self._watcher(config)
        if watcher is not None:
            return watcher.session_of(cast("Any", config.get("callbacks")).parent_run_id)
        control = get_runtime().control
        known = self._books.runs.get(id(control))
        session = self.guard.session(known[1]) if known is not None else None
        if session is None:
            with _opening:  # a resumed run may begin with several calls at once
                session = self._open(config, control)
        self.last_run = session.run.id
        return session

    def _open(self, config: RunnableConfig, control: object) -> Session:
        """
        Begin a run, or find it. Nobody says that a run was interrupted: that shows when its conversation goes on, as
        the same run where it is resumed.
        """
        books = self._books
        known = books.runs.get(id(control))
        configurable = config.get("configurable", {})
        thread = configurable.get("thread_id")
        thread = str(thread) if thread is not None else None
        if known is None and thread is not None and thread in books.threads:
            self.guard.end(books.threads[thread], "interrupted")
        session = self.guard.open(
            known[1] if known is not None else (config.get("metadata") or {}).get(RUN),
            seats=MIDDLEWARE,
            framework="langchain",
            thread=thread,
            resumes=resuming(configurable),
        )
        books.add(control, thread, session.run.id)
        return session

    def _watcher(self, config: RunnableConfig) -> Watcher | None:
        """The run seat's watcher, or a handler, of this guard."""
        for handler in getattr(config.get("callbacks"), "handlers", None) or ():
            if isinstance(handler, Watcher) and handler.enforcing and handler.guard is self.guard:
                return handler
        return None

    def _end(self, where: Place) -> None:
        """A top-level agent's reply without calls is its last: the run this middleware opened is over."""
        if not where.scope:
            known = self._books.runs.pop(id(get_runtime().control), None)
            if known is not None:
                self.guard.end(known[1])


@dataclass(slots=True)
class _Books:
    """The runs opened for one guard: by the control object LangGraph makes for each, and the last of each thread."""

    runs: OrderedDict[int, tuple[object, str]] = field(default_factory=OrderedDict)
    threads: OrderedDict[str, str] = field(default_factory=OrderedDict)

    def add(self, control: object, thread: str | None, run: str) -> None:
        """Keep one; beyond 10,000 the oldest go."""
        self.runs[id(control)] = (control, run)
        if thread is not None:
            self.threads[thread] = run
        for kept in (self.runs, self.threads):
            if len(kept) > 10_000:
                kept.popitem(last=False)


_opening = threading.Lock()
_books: weakref.WeakKeyDictionary[Guard, _Books] = weakref.WeakKeyDictionary()


def _here() -> tuple[RunnableConfig, Place]:
    config = get_config()
    return config, place(config.get("metadata"))


def _rescue(request: ToolCallRequest) -> Rescue[Any]:
    call = request.tool_call
    return Rescue(request, lambda objection: refusal(call["name"], call["id"], objection))
