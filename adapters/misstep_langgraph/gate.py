"""
The gate: model and tool calls anywhere in a guarded run, without touching the user's graph, models or tools.

Installed once, on the classes: `BaseChatModel._generate_with_cache` and `_agenerate_with_cache`, `BaseTool.run` and
`arun` (see `private.py`). It acts only where an enforcing misstep handler is among the callbacks of the call, so an
app that is not guarded runs the original code. Because callbacks are inherited, it reaches models and tools in
closures, sub-graphs and agents called as tools.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable
from typing import Any

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.runnables.config import ensure_config
from langchain_core.tools import BaseTool

from misstep.enact import Rescue, adrive, drive, model_call, tool_call
from misstep_langgraph import private
from misstep_langgraph.halted import Halted
from misstep_langgraph.in_hand import call_in_hand, has_in_hand, in_hand, model_in_hand
from misstep_langgraph.messages import says_of
from misstep_langgraph.model import GateModelSeat, model_name
from misstep_langgraph.place import place
from misstep_langgraph.tool import LangChainToolSeat, refusal
from misstep_langgraph.watcher import Watcher


def install() -> None:
    """Put the gate in place; doing so again changes nothing."""
    private.put_gates(_gated_generate, _gated_agenerate, _gated_run, _gated_arun)


def _gated_generate(original: Callable[..., Any]) -> Any:
    @functools.wraps(original)
    def generate(self: BaseChatModel, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
        key = model_in_hand(place(getattr(run_manager, "metadata", None)).scope)
        watcher = _watcher(run_manager, key)
        if watcher is None:
            return original(self, messages, stop=stop, run_manager=run_manager, **kwargs)
        guard = watcher.guard
        with in_hand(guard, key):
            return drive(
                guard,
                model_call(guard, lambda: _model_seat(watcher, self, messages, run_manager, kwargs)),
                lambda request: generate(request[0], request[1], stop=stop, run_manager=request[2], **kwargs),
                Rescue((self, messages, run_manager)),
            )

    return generate


def _gated_agenerate(original: Callable[..., Any]) -> Any:
    @functools.wraps(original)
    async def agenerate(
        self: BaseChatModel, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Any:
        key = model_in_hand(place(getattr(run_manager, "metadata", None)).scope)
        watcher = _watcher(run_manager, key)
        if watcher is None:
            return await original(self, messages, stop=stop, run_manager=run_manager, **kwargs)
        guard = watcher.guard
        with in_hand(guard, key):
            return await adrive(
                guard,
                model_call(guard, lambda: _model_seat(watcher, self, messages, run_manager, kwargs)),
                lambda request: agenerate(request[0], request[1], stop=stop, run_manager=request[2], **kwargs),
                Rescue((self, messages, run_manager)),
            )

    return agenerate


def _gated_run(original: Callable[..., Any]) -> Any:
    @functools.wraps(original)
    def run(self: BaseTool, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        call = _ToolCall(self, tool_input, kwargs)
        if call.watcher is None:
            return original(self, tool_input, *args, **kwargs)
        guard = call.watcher.guard
        with in_hand(guard, call.key):
            return drive(
                guard,
                tool_call(guard, call.seat),
                lambda request: run(self, request, *args, **kwargs),
                Rescue(tool_input, call.refused),
            )

    return run


def _gated_arun(original: Callable[..., Any]) -> Any:
    @functools.wraps(original)
    async def arun(self: BaseTool, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        call = _ToolCall(self, tool_input, kwargs)
        if call.watcher is None:
            return await original(self, tool_input, *args, **kwargs)
        guard = call.watcher.guard
        with in_hand(guard, call.key):
            return await adrive(
                guard,
                tool_call(guard, call.seat),
                lambda request: arun(self, request, *args, **kwargs),
                Rescue(tool_input, call.refused),
            )

    return arun


class _ToolCall:
    """A call as `BaseTool.run` gets it, and the watcher that has a say in it, if any."""

    __slots__ = ("_input", "_kwargs", "_metadata", "_place", "_tool", "key", "watcher")

    def __init__(self, tool: BaseTool, tool_input: Any, kwargs: dict[str, Any]) -> None:
        config = kwargs.get("config") or {}
        callbacks = kwargs.get("callbacks") or config.get("callbacks") or ensure_config().get("callbacks")
        self.key = ""
        self.watcher = None
        watchers = _watchers(callbacks)
        if watchers:
            self._tool, self._input, self._kwargs = tool, tool_input, kwargs
            self._metadata = config.get("metadata") or getattr(callbacks, "metadata", None)
            self._place = place(self._metadata)
            if not kwargs.get("tool_call_id") and not kwargs.get("run_id"):
                kwargs["run_id"] = uuid.uuid4()
            self.key = call_in_hand(self._place.scope, kwargs.get("tool_call_id"), kwargs.get("run_id"))
            self.watcher = next((each for each in watchers if not has_in_hand(each.guard, self.key)), None)
            if callbacks is not None and kwargs.get("callbacks") is None:
                kwargs["callbacks"] = callbacks

    def seat(self) -> LangChainToolSeat:
        """The call in the core's terms."""
        assert self.watcher is not None
        manager = self._kwargs["callbacks"]
        session = self.watcher.session_of(getattr(manager, "parent_run_id", None))
        call_id = self._kwargs.get("tool_call_id")
        seat = LangChainToolSeat(
            session,
            self._place,
            self._tool.name,
            self._arguments(),
            call_id,
            self.key,
            self._input,
            halt=_halt,
            metadata=self._tool.metadata,
            says=says_of(self._tool),
        )
        return self.watcher.seated(seat, self._metadata)

    def refused(self, objection: str) -> Any:
        """The objection as the tool's answer."""
        return refusal(self._tool.name, self._kwargs.get("tool_call_id"), objection)

    def _arguments(self) -> dict[str, Any]:
        """What the model chose: injected state and runtime are not arguments."""
        if not isinstance(self._input, dict):
            return {"input": self._input}
        return private.chosen(self._tool, self._input)


def _halt(reason: str) -> Any:
    raise Halted(reason)


def _model_seat(watcher: Watcher, model: BaseChatModel, messages: Any, manager: Any, kwargs: Any) -> GateModelSeat:
    """The call in the core's terms; nobody who streams hears of one that is held back."""
    watcher.claim(manager.run_id)
    hold, streaming = watcher.guard.holds, private.streams(manager)
    return GateModelSeat(
        watcher.session_of(manager.parent_run_id or manager.run_id),
        place(manager.metadata),
        model_name(model),
        messages,
        kwargs.get("tools") or (),
        private.unstreamed(manager) if hold and streaming else manager,
        model,
        hold=hold,
        streaming=streaming,
    )


def _watcher(manager: Any, what: str) -> Watcher | None:
    return next((each for each in _watchers(manager) if not has_in_hand(each.guard, what)), None)


def _watchers(callbacks: Any) -> list[Watcher]:
    handlers = getattr(callbacks, "handlers", callbacks) or ()
    return [handler for handler in handlers if isinstance(handler, Watcher) and handler.enforcing]
