"""
What of CrewAI is used that its documentation does not promise, in one place; tried on crewai 1.15.30.

- `BaseLLM.__getattribute__` is replaced while a guarded run is going on (see `gate.py`), and so is
  `crewai.hooks.dispatch._resolve_hooks`, by which CrewAI finds the hooks of a context (see `hooks.py`);
- both hooks of one tool call get the same dict as `tool_input` (see `tool.py`);
- `agent.agent_executor.tools` are the tools an agent has in its current task (see `model.py`);
- `Crew._execute_tasks` and `_aexecute_tasks` work off the tasks from any one on, as `Crew.replay` has them do (see
  `course.py`);
- the texts CrewAI itself puts into a conversation are known by their templates (see `messages.py`);
- what is below.
"""

from __future__ import annotations

import importlib
from typing import Any

from crewai.events.event_context import _event_id_stack, restore_event_scope
from crewai.hooks import ToolCallHookContext
from crewai.llms.base_llm import BaseLLM
from crewai.tools.agent_tools.base_agent_tools import BaseAgentTool

__all__ = ["amend", "co_workers", "count", "dispatching", "event_scope", "restore_event_scope", "stops_of", "streams"]

dispatching: Any = importlib.import_module("crewai.hooks.dispatch")
"""The module; the package has a function of that name."""


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


def co_workers(tool: Any) -> list[str]:
    """The agents a delegating tool can reach; none for any other tool."""
    own = getattr(tool, "_original_tool", None)
    return [str(agent.role).strip() for agent in own.agents] if isinstance(own, BaseAgentTool) else []


def amend(context: ToolCallHookContext, answer: str) -> None:
    """Put other words also where CrewAI looks for the answer of a tool called in text, if it is the task's answer."""
    for kept in getattr(context.agent, "tools_results", None) or ():
        if kept.get("result_as_answer") and kept["result"] == context.tool_result:
            kept["result"] = answer
