"""
What of LangGraph and LangChain is used that they do not promise, in one place, and all that is relied on.

Tried on langchain-core 1.7.2 and 1.8.3, langgraph 1.2.22, langchain 1.4.7.
"""

from __future__ import annotations

import copy
import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from langchain.agents.middleware import AgentMiddleware, ModelRequest, ToolCallRequest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.callbacks.manager import BaseRunManager
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.tools import BaseTool
from langchain_core.tracers._streaming import _StreamingCallbackHandler, _V2StreamingCallbackHandler
from langgraph._internal._constants import CONFIG_KEY_CHECKPOINT_MAP, CONFIG_KEY_RESUMING, CONFIG_KEY_TASK_ID, PUSH
from langgraph.callbacks import GraphCallbackHandler
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from langgraph.types import Interrupt

from misstep.frameworks import needs, rely
from misstep_langgraph import VERSIONS

_GENERATE = ("messages", "stop", "run_manager")
_RUN = ("tool_input", "callbacks", "run_id", "config", "tool_call_id")
_WRAP = ("request", "handler")
_STARTED = ("serialized", "run_id", "parent_run_id", "metadata")

NEEDS = (
    *needs(BaseChatModel, _generate_with_cache=_GENERATE, _agenerate_with_cache=_GENERATE),
    *needs(BaseTool, "_run", run=_RUN, arun=_RUN, _filter_injected_args=("tool_input",)),
    *needs(BaseRunManager, "handlers", "metadata", "parent_run_id", "run_id"),
    *needs(BaseCallbackHandler, on_chat_model_start=("messages", *_STARTED), on_tool_start=("input_str", *_STARTED)),
    *needs(BaseCallbackHandler, on_llm_end=("response", "run_id"), on_tool_end=("output", "run_id")),
    *needs(BaseCallbackHandler, on_chain_start=_STARTED, on_chain_end=("outputs", "run_id", "parent_run_id")),
    *needs(GraphCallbackHandler, on_interrupt=("event",)),
    *needs(AgentMiddleware, wrap_model_call=_WRAP, awrap_model_call=_WRAP),
    *needs(AgentMiddleware, wrap_tool_call=_WRAP, awrap_tool_call=_WRAP),
    *needs(ModelRequest, "messages", "model", "override", "system_message", "tools"),
    *needs(ToolCallRequest, "override", "tool", "tool_call"),
    *needs(CompiledStateGraph, "channels", "checkpointer", "config", "nodes", copy=("update",)),
    *needs(CompiledStateGraph, stream=("input", "config"), astream=("input", "config")),
    *needs(CompiledStateGraph, get_state=("config",), aget_state=("config",)),
    *needs(CompiledStateGraph, update_state=("config", "values", "as_node")),
    *needs(CompiledStateGraph, aupdate_state=("config", "values", "as_node")),
    *needs(Interrupt, "id", "value", "from_ns"),
    *needs(Runtime, "control"),
)
"""What the adapter relies on; private or not, without it a run would be guarded half."""


@functools.cache
def check() -> None:
    """Before anything is attached, once for all. Raises `ChangedFrameworkError`."""
    rely("misstep_langgraph", VERSIONS, NEEDS)


HANDOFF_DESTINATION = "__handoff_destination"
"""The key in a tool's metadata under which langgraph-supervisor and langgraph-swarm name the agent."""

CHAT = ("_generate", "_agenerate", "_stream", "_astream")
COMPLETION = ("_generate", "_agenerate")
TOOL = ("_run", "_arun")
RETRIEVER = ("_get_relevant_documents", "_aget_relevant_documents")
"""The methods in which models, tools and retrievers of any class do their work, each with its async twin."""

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
    """The same callbacks, but for those who listen to tokens."""
    quiet = copy.copy(manager)
    for name in ("handlers", "inheritable_handlers"):
        setattr(quiet, name, [each for each in getattr(manager, name, ()) if not isinstance(each, _STREAMING)])
    return quiet


@contextmanager
def held_back(config: RunnableConfig, *, hold: bool) -> Iterator[None]:
    """While a reply is held back, what is called without a config of its own is heard by nobody who streams."""
    if not hold or not streams(config.get("callbacks")):
        yield
        return
    token = var_child_runnable_config.set({**config, "callbacks": unstreamed(config["callbacks"])})
    try:
        yield
    finally:
        var_child_runnable_config.reset(token)


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
