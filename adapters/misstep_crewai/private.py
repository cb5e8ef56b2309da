"""
What of CrewAI is used that its documentation does not promise, in one place; tried on crewai 1.15.30.

- `BaseLLM.__getattribute__` is replaced while a guarded run is going on (see `gate.py`);
- both hooks of one tool call get the same dict as `tool_input` (see `tool.py`);
- `agent.agent_executor.tools` are the tools an agent has in its current task (see `model.py`);
- the texts CrewAI itself puts into a conversation are known by their templates (see `messages.py`);
- the two below.
"""

from __future__ import annotations

from typing import Any

from crewai.events.event_context import _event_id_stack, restore_event_scope
from crewai.llms.base_llm import BaseLLM

__all__ = ["event_scope", "restore_event_scope", "streams"]


def event_scope() -> Any:
    """The stack of events CrewAI is within; an abort leaves it unbalanced, so it is put back afterwards."""
    return _event_id_stack.get()


def streams(llm: BaseLLM) -> bool:
    """Whether a call of that model would stream its tokens."""
    return bool(llm._effective_stream())
