"""
What of LangGraph and LangChain is used that they do not promise, in one place.

Tried on langchain-core 1.7.2 and 1.8.3, langgraph 1.2.22, langchain 1.4.7.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping
from typing import Any

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.tools import BaseTool
from langchain_core.tracers._streaming import _StreamingCallbackHandler, _V2StreamingCallbackHandler
from langgraph._internal._constants import CONFIG_KEY_CHECKPOINT_MAP, CONFIG_KEY_RESUMING, CONFIG_KEY_TASK_ID, PUSH

HANDOFF_DESTINATION = "__handoff_destination"
"""The key in a tool's metadata under which langgraph-supervisor and langgraph-swarm name the agent."""

_STREAMING = (_StreamingCallbackHandler, _V2StreamingCallbackHandler)
"""Handlers for whose sake a model is streamed."""

_installing = threading.Lock()

Gate = Callable[[Callable[..., Any]], Any]
"""Makes of a method of LangChain's the one that stands in for it."""


def put_gates(generate: Gate, agenerate: Gate, run: Gate, arun: Gate) -> None:
    """Put each round the method it is for, on the class, once and for all; doing so again changes nothing."""
    with _installing:
        if hasattr(BaseTool.run, "__misstep__"):
            return
        for cls, name, gate in (
            (BaseChatModel, "_generate_with_cache", generate),
            (BaseChatModel, "_agenerate_with_cache", agenerate),
            (BaseTool, "run", run),
            (BaseTool, "arun", arun),
        ):
            gated = gate(getattr(cls, name))
            gated.__misstep__ = True
            setattr(cls, name, gated)


def chosen(tool: BaseTool, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the model chose of a tool's input: injected state and runtime are not arguments."""
    return tool._filter_injected_args(dict(given))


def function_of(tool: BaseTool) -> Any:
    """The method in which a tool of a class of its own does its work."""
    return tool._run


def streams(manager: Any) -> bool:
    """Whether anybody among the callbacks listens to tokens."""
    return any(isinstance(handler, _STREAMING) for handler in getattr(manager, "handlers", None) or ())


def unstreamed(manager: Any) -> Any:
    """The same run manager, but for those who listen to tokens."""
    quiet = copy.copy(manager)
    quiet.handlers = [handler for handler in manager.handlers if not isinstance(handler, _STREAMING)]
    return quiet


def nested(configurable: Mapping[str, Any]) -> bool:
    """Whether a graph is run inside a task of another one."""
    return CONFIG_KEY_TASK_ID in configurable


def resuming(configurable: Mapping[str, Any]) -> bool:
    """Whether a graph goes on where it was interrupted."""
    return bool(configurable.get(CONFIG_KEY_RESUMING))


def sent(metadata: Mapping[str, Any]) -> bool:
    """Whether a task was made by a `Send`: then it is alone in its node."""
    path = metadata.get("langgraph_path") or ("",)
    return bool(path[0] == PUSH)


def outermost_checkpoint() -> str | None:
    """The checkpoint of the outermost graph that the task at work goes out from; None without a checkpointer."""
    config = var_child_runnable_config.get() or {}
    checkpoints = config.get("configurable", {}).get(CONFIG_KEY_CHECKPOINT_MAP) or {}
    return checkpoints.get("")
