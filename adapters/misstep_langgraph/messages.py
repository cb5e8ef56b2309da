"""LangChain's messages and tools in misstep's terms."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, SystemMessage, ToolMessage
from langchain_core.tools import BaseTool, StructuredTool
from langchain_core.tools import Tool as LangChainTool
from langgraph.types import Command

from misstep.conversation import Said, digest
from misstep.events import ProposedCall, Role, Tool, Usage
from misstep.side_effects import Classified, declared_on, hinted

_ROLES: dict[str, Role] = {"system": "system", "human": "user", "ai": "assistant", "tool": "tool", "function": "tool"}


def key_of(message: BaseMessage) -> str:
    """What tells a message from others: its id, else what it says."""
    return message.id or digest(message.type, message.content, getattr(message, "tool_call_id", ""))


def words(content: str | Sequence[Any]) -> str:
    """The text of a message's content; a part that is no text stands as `[its type]`."""
    if isinstance(content, str):
        return content
    return "\n".join(
        part if isinstance(part, str) else str(part.get("text") or f"[{part.get('type', 'content')}]")
        for part in content
        if isinstance(part, str | dict)
    )


def said(message: BaseMessage, scope: str) -> Said:
    """A message of a conversation; `scope` keeps call ids of nested agents apart."""
    role = _ROLES.get(message.type, "user")
    if isinstance(message, AIMessage):
        return Said(role, words(message.content), sender=message.name or "", calls=proposed(message, scope))
    if isinstance(message, ToolMessage):
        return Said(
            role,
            words(message.content),
            tool=message.name or "",
            failed=message.status == "error",
            answers=call_key(scope, message.tool_call_id),
        )
    named = role == "user" and message.name
    return Said(role, words(message.content), sender=message.name or "", trust="agent" if named else None)


def proposed(message: AIMessage, scope: str) -> tuple[ProposedCall, ...]:
    """The calls a reply proposes, those whose arguments could not be parsed included."""

    def key(call: Any, mark: str) -> str:
        return call_key(scope, call["id"] or f"{message.id}:{mark}")

    valid = [ProposedCall(key(call, f"{n}"), call["name"], call["args"]) for n, call in enumerate(message.tool_calls)]
    broken = [
        ProposedCall(key(call, f"!{n}"), call["name"] or "", None, call["args"] or "")
        for n, call in enumerate(message.invalid_tool_calls)
    ]
    return (*valid, *broken)


def call_key(scope: str, call: str) -> str:
    """A call's id, unique in the run: nested agents may use the same ids."""
    return f"{scope}:{call}" if scope else call


def usage_of(message: AIMessage) -> Usage:
    """Tokens as the model reported them, else an estimate of four characters a token."""
    used = message.usage_metadata
    if used is None:
        return Usage(0, len(words(message.content)) // 4, estimated=True)
    return Usage(used["input_tokens"], used["output_tokens"])


def finish_reason(message: AIMessage) -> str | None:
    """Why the model stopped, where the provider says."""
    reason = message.response_metadata.get("finish_reason") or message.response_metadata.get("stop_reason")
    return str(reason) if reason else None


def declared(tools: Sequence[Any]) -> tuple[Tool, ...]:
    """The tools a model was given: LangChain tools, or a provider's own JSON."""
    return tuple(_declared(tool) for tool in tools)


def _declared(tool: Any) -> Tool:
    if isinstance(tool, BaseTool):
        return Tool(tool.name, tool.description, {"properties": dict(tool.args)}, says_of(tool))
    if isinstance(tool, Mapping):
        spec = tool.get("function", tool)
        parameters = spec.get("parameters") or spec.get("input_schema") or {}
        return Tool(str(spec.get("name", "")), str(spec.get("description", "")), parameters)
    return Tool(str(getattr(tool, "__name__", tool)))


def says_of(tool: Any) -> Classified | None:
    """What a tool's code declares of its effect, else what an MCP server hints at (langchain-mcp-adapters 0.3)."""
    if not isinstance(tool, BaseTool):
        return None
    functions = (tool.func, tool.coroutine) if isinstance(tool, StructuredTool | LangChainTool) else (tool._run,)
    return declared_on(tool, *functions) or hinted(tool.metadata)


def result_text(output: Any) -> tuple[str, bool]:
    """What a tool's output tells the model, and whether it is an error."""
    if isinstance(output, ToolMessage):
        return words(output.content), output.status == "error"
    if isinstance(output, Command):
        update = output.update if isinstance(output.update, dict) else {}
        told = [words(message.content) for message in update.get("messages", ()) if isinstance(message, ToolMessage)]
        return "\n".join(told), False
    return output if isinstance(output, str) else json.dumps(output, default=str, ensure_ascii=False), False


def is_text(content: Any) -> bool:
    """Whether a result says all it holds in words."""
    parts = content if isinstance(content, list) else ()
    return all(isinstance(part, str) or (isinstance(part, dict) and part.get("type") == "text") for part in parts)


def is_system(message: BaseMessage) -> bool:
    """Whether it is a system prompt."""
    return isinstance(message, SystemMessage)
