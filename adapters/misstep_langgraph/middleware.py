"""`MisstepMiddleware`: model and tool calls of `create_agent`, through LangChain's own seam."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

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
from misstep_langgraph.place import RUN, place
from misstep_langgraph.seats import MIDDLEWARE
from misstep_langgraph.streaming import streams
from misstep_langgraph.tool import LangChainToolSeat, refusal
from misstep_langgraph.watcher import Watcher


class MisstepMiddleware(AgentMiddleware):
    """
    `create_agent(model, tools, middleware=[MisstepMiddleware(guard)])`. Put it first: the first is the outermost.

    A middleware has no run seat: a halt ends the agent by a last message without calls, and an outer agent goes on
    unless it is guarded by the same guard. One instance may serve many agents and runs at once.
    """

    def __init__(self, guard: Guard) -> None:
        super().__init__()
        guard.attach(MIDDLEWARE)
        self.guard = guard
        self.last_run: str | None = None
        """The id of the run seen last."""

    def __deepcopy__(self, memo: dict[int, object]) -> MisstepMiddleware:
        return self

    def wrap_model_call(self, request: ModelRequest, handler: Callable[[ModelRequest], Any]) -> Any:
        """One model call."""
        with in_hand(self.guard, _model_key()):
            return drive(self.guard, self._model_steps(request), handler, Rescue(request))

    async def awrap_model_call(self, request: ModelRequest, handler: Callable[[ModelRequest], Awaitable[Any]]) -> Any:
        """One model call."""
        with in_hand(self.guard, _model_key()):
            return await adrive(self.guard, self._model_steps(request), handler, Rescue(request))

    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Any]) -> Any:
        """One tool call."""
        with in_hand(self.guard, _key(request)):
            return drive(self.guard, self._tool_steps(request), handler, _rescue(request))

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Any]]
    ) -> Any:
        """One tool call."""
        with in_hand(self.guard, _key(request)):
            return await adrive(self.guard, self._tool_steps(request), handler, _rescue(request))

    def _model_steps(self, request: ModelRequest) -> Steps:
        def take() -> MiddlewareModelSeat:
            config = get_config()
            where = place(config.get("metadata"))
            streaming = streams(config.get("callbacks"))
            session = self._session(config)
            return MiddlewareModelSeat(session, where, request, hold=self.guard.holds, streaming=streaming)

        reply = yield from model_call(self.guard, take)
        last = reply.result[-1] if isinstance(reply, ModelResponse) and reply.result else reply
        if not getattr(last, "tool_calls", None):
            self._end()
        return reply

    def _tool_steps(self, request: ToolCallRequest) -> Steps:
        def take() -> LangChainToolSeat:
            call, config = request.tool_call, get_config()
            where = place(config.get("metadata"))
            session = self._session(config)
            return LangChainToolSeat(
                session,
                where,
                call["name"],
                call["args"],
                call["id"],
                _key(request),
                request,
                says=says_of(request.tool),
            )

        return tool_call(self.guard, take)

    def _session(self, config: RunnableConfig) -> Session:
        """The run's session: of the run seat or a handler of this guard, else one of our own for each top-level run."""
        manager: Any = config.get("callbacks")
        for handler in getattr(manager, "handlers", None) or ():
            if isinstance(handler, Watcher) and handler.enforcing and handler.guard is self.guard:
                return handler.session_of(manager.parent_run_id)
        control, runs = get_runtime().control, _runs_of(self.guard)
        known = runs.get(id(control))
        run = known[1] if known is not None else (config.get("metadata") or {}).get(RUN)
        thread = config.get("configurable", {}).get("thread_id")
        session = self.guard.open(
            run, seats=MIDDLEWARE, framework="langchain", thread=str(thread) if thread is not None else None
        )
        if known is None:
            runs[id(control)] = (control, session.run.id)
            if len(runs) > _MOST_RUNS:
                runs.popitem(last=False)
        self.last_run = session.run.id
        return session

    def _end(self) -> None:
        """A top-level agent's reply without calls is its last: the run this middleware opened is over."""
        if not place(get_config().get("metadata")).scope:
            known = _runs_of(self.guard).pop(id(get_runtime().control), None)
            if known is not None:
                self.guard.end(known[1])


_MOST_RUNS = 10_000

_Runs = OrderedDict[int, tuple[object, str]]
_runs: weakref.WeakKeyDictionary[Guard, _Runs] = weakref.WeakKeyDictionary()
"""Per guard: the control object LangGraph makes for each top-level run, and the run we opened for it."""


def _runs_of(guard: Guard) -> _Runs:
    return _runs.setdefault(guard, OrderedDict())


def _key(request: ToolCallRequest) -> str:
    return call_in_hand(place(get_config().get("metadata")).scope, request.tool_call["id"], None)


def _model_key() -> str:
    return model_in_hand(place(get_config().get("metadata")).scope)


def _rescue(request: ToolCallRequest) -> Rescue[Any]:
    call = request.tool_call
    return Rescue(request, lambda objection: refusal(call["name"], call["id"], objection))
