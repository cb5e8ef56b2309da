"""
What of CrewAI is used that it does not promise, in one place, and all that is relied on; tried on crewai 1.15.30.

- `crewai.hooks.dispatch._resolve_hooks`, by which CrewAI finds the hooks of a context, is replaced while a guarded run
  is going on (see `hooks.py`);
- both hooks of one tool call get the same dict as `tool_input` (see `tool.py`);
- `agent.agent_executor.tools` are the tools an agent has in its current task (see `model.py`);
- the texts CrewAI itself puts into a conversation are known by their templates (see `messages.py`);
- what is below.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from crewai import Crew, Task
from crewai.events.event_context import _event_id_stack, restore_event_scope
from crewai.events.types.llm_events import LLMCallCompletedEvent
from crewai.hooks import InterceptionPoint, ToolCallHookContext
from crewai.hooks.contexts import StepContext
from crewai.llms.base_llm import BaseLLM
from crewai.tasks.task_output import TaskOutput
from crewai.tools.agent_tools.base_agent_tools import BaseAgentTool
from crewai.tools.base_tool import BaseTool
from crewai.tools.structured_tool import CrewStructuredTool
from crewai.utilities.task_output_storage_handler import TaskOutputStorageHandler

from misstep.frameworks import needs, rely
from misstep_crewai import VERSIONS

__all__ = [
    "NEEDS",
    "STORED",
    "TOOL",
    "amend",
    "check",
    "co_workers",
    "count",
    "event_scope",
    "function_of",
    "put_course",
    "put_gate",
    "resolving",
    "restore_event_scope",
    "stops_of",
    "streams",
    "take_gate",
]


_dispatching: Any = importlib.import_module("crewai.hooks.dispatch")
"""The module; the package has a function of that name."""

_CALL = ("messages", "tools", "callbacks", "available_functions", "from_task", "from_agent", "response_model")
_TASKS = ("tasks", "start_index", "was_replayed")

NEEDS = (
    *needs(BaseLLM, "_effective_stream", "_track_token_usage_internal", "model", "stop", "stop_sequences"),
    *needs(BaseLLM, call=_CALL, acall=_CALL),
    *needs(Crew, "agents", "calculate_usage_metrics", "copy", "process", "stream", "tasks"),
    *needs(Crew, "akickoff", "kickoff", "replay", _execute_tasks=_TASKS, _aexecute_tasks=_TASKS),
    *needs(Crew, "akickoff_for_each", "kickoff_for_each", "kickoff_for_each_async"),
    *needs(Crew, "after_kickoff_callbacks", "before_kickoff_callbacks", "step_callback", "task_callback"),
    *needs(Task, "agent", "async_execution", "id", "output"),
    *needs(TaskOutput, "agent", "messages", "raw"),
    *needs(CrewStructuredTool, "_original_tool", "args_schema", "func", "name"),
    *needs(BaseTool, "_run"),
    *needs(BaseAgentTool, "agents"),
    *needs(ToolCallHookContext, "agent", "raw_tool_result", "task", "tool", "tool_input", "tool_name", "tool_result"),
    *needs(StepContext, "agent", "payload", "task"),
    *needs(InterceptionPoint, "POST_TOOL_CALL", "PRE_STEP", "PRE_TOOL_CALL"),
    *needs(_dispatching, _resolve_hooks=("point",)),
    *needs(LLMCallCompletedEvent, "finish_reason", "usage"),
)
"""What the adapter relies on; private or not, without it a run would be guarded half."""


@functools.cache
def check() -> None:
    """Before anything is attached, once for all. Raises `ChangedFrameworkError`."""
    rely("misstep_crewai", VERSIONS, NEEDS)


def put_gate(gate: Callable[[Callable[..., Any]], Any]) -> Any:
    """Have every model ask the gate for its attributes; gives what `take_gate` is to put back."""
    bare = BaseLLM.__dict__.get("__getattribute__")
    BaseLLM.__getattribute__ = gate(BaseLLM.__getattribute__)
    return bare


def take_gate(bare: Any) -> None:
    """The class is as it was."""
    if bare is None:
        del BaseLLM.__getattribute__
    else:
        BaseLLM.__getattribute__ = bare


def put_course(cls: Any, executed: Callable[..., Any], aexecuted: Callable[..., Any]) -> None:
    """
    Have a class of crews work off its tasks by `executed` and `aexecuted`, which are given the crew, CrewAI's own
    method, the tasks and the index of the first: CrewAI's own goes on from any task, as `Crew.replay` has it do.
    """
    execute, aexecute = cls._execute_tasks, cls._aexecute_tasks

    @functools.wraps(execute)
    def _execute_tasks(self: Any, tasks: Any, start_index: int | None = 0, was_replayed: bool = False) -> Any:
        return executed(self, functools.partial(execute, self), tasks, start_index, was_replayed)

    @functools.wraps(aexecute)
    async def _aexecute_tasks(self: Any, tasks: Any, start_index: int | None = 0, was_replayed: bool = False) -> Any:
        return await aexecuted(self, functools.partial(aexecute, self), tasks, start_index, was_replayed)

    cls._execute_tasks, cls._aexecute_tasks = _execute_tasks, _aexecute_tasks


@contextmanager
def resolving(put_round: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """While CrewAI looks hooks up by another function, put round its own."""
    bare = _dispatching._resolve_hooks
    _dispatching._resolve_hooks = put_round(bare)
    try:
        yield
    finally:
        _dispatching._resolve_hooks = bare


TOOL = ("_run", "_arun")
"""The methods in which a tool of any class does its work, with its async twin."""

STORED: type = TaskOutputStorageHandler
"""Where CrewAI keeps the outputs of the last kickoff's tasks, in a file."""


def event_scope() -> Any:
    """The stack of events CrewAI is within; an abort leaves it unbalanced, so it is put back afterwards."""
    return _event_id_stack.get()


def streams(llm: BaseLLM) -> bool:
    """Whether a call of that model would stream its tokens."""
    return bool(llm._effective_stream())


def stops_of(other: BaseLLM, llm: BaseLLM) -> list[str]:
    """Where another model is to stop: at its own words, and those CrewAI gives a model for this call."""
    return [*other.stop, *(word for word in llm.stop_sequences if word not in (*llm.stop, *other.stop))]


def count(llm: BaseLLM, usage: dict[str, Any]) -> None:
    """Add to the tokens of a model what another one used in its place: a crew's usage is its own models'."""
    llm._track_token_usage_internal(usage)


def function_of(tool: Any) -> Any:
    """The method in which a tool of a class of its own does its work."""
    return getattr(type(tool), "_run", None)


def co_workers(tool: Any) -> list[str]:
    """The agents a delegating tool can reach; none for any other tool."""
    own = getattr(tool, "_original_tool", None)
    return [str(agent.role).strip() for agent in own.agents] if isinstance(own, BaseAgentTool) else []


def amend(context: ToolCallHookContext, answer: str) -> None:
    """Put other words also where CrewAI looks for the answer of a tool called in text, if it is the task's answer."""
    for kept in getattr(context.agent, "tools_results", None) or ():
        if kept.get("result_as_answer") and kept["result"] == context.tool_result:
            kept["result"] = answer
