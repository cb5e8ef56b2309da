"""Functions a model is given to run by itself: CrewAI fires no hook for them, so the guard's are put round each."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from crewai.hooks import InterceptionPoint, ToolCallHookContext

from misstep_crewai.in_hand import let_go
from misstep_crewai.live import Live


def judged(live: Live, functions: Mapping[str, Any], agent: Any, task: Any) -> dict[str, Any]:
    """The same functions, each a tool call of the run; CrewAI's own, by which it takes a plan, are none."""
    return {
        name: function if str(function.__module__).startswith("crewai.") else _judged(live, name, function, agent, task)
        for name, function in functions.items()
    }


def _judged(live: Live, name: str, function: Callable[..., Any], agent: Any, task: Any) -> Callable[..., Any]:
    before = live.hooks[InterceptionPoint.PRE_TOOL_CALL]
    after = live.hooks[InterceptionPoint.POST_TOOL_CALL]

    @functools.wraps(function)
    def call(**arguments: Any) -> Any:
        context = ToolCallHookContext(name, arguments, function, agent, task, getattr(agent, "crew", None))
        if before(context) is False:
            context.tool_result = f"Tool execution blocked by hook. Tool: {name}"
            return after(context) or context.tool_result
        try:
            with let_go(live.guard):
                answer = function(**context.tool_input)
        except Exception as error:
            context.tool_result = f"Error executing tool: {error}"
            after(context)
            raise
        context.tool_result, context.raw_tool_result = str(answer), answer
        told = after(context)
        return answer if told is None else told

    return call
