"""LangChain's messages and tools in misstep's terms."""

from __future__ import annotations

import dataclasses
import json
import weakref
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from langchain_core.messages import AIMessage, BaseMessage, SystemMessage, ToolMessage
from langchain_core.tools import BaseTool, StructuredTool
from langchain_core.tools import Tool as LangChainTool
from langgraph.types import Command

from misstep.arguments import Check, checked_by
from misstep.conversation import Said, digest
from misstep.events import ProposedCall, Role, Tool, Usage
from misstep.side_effects import Classified, declared_on, hinted
from misstep_langgraph.private import function_of

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


M = TypeVar("M", bound=BaseMessage)


def reworded(message: M, text: str) -> M:
    """The message with other words; what of it is no text stays, and so do its id, its calls and its usage."""
    content: Any = text
    if not isinstance(message.content, str):
        content = [{"type": "text", "text": text}, *(part for part in message.content if not _is_text(part))]
    return message.model_copy(update={"content": content})


def _is_text(part: Any) -> bool:
    return isinstance(part, str) or part.get("type") == "text"


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


_KEPT: OrderedDict[int, tuple[weakref.ref[BaseTool], Tool, Check | None]] = OrderedDict()
"""What was last read of a tool: its schema is dear to write down, and every run asks for it anew."""


def declared(tools: Sequence[Any]) -> tuple[Tool, ...]:
    """The tools a model was given: LangChain tools, or a provider's own JSON."""
    return tuple(_kept(tool)[0] if isinstance(tool, BaseTool) else _declared(tool) for tool in tools)


def checks(tools: Sequence[Any]) -> dict[str, Check]:
    """How LangChain itself judges the arguments a model chooses for its tools."""
    kept = {tool.name: _kept(tool)[1] for tool in tools if isinstance(tool, BaseTool)}
    return {name: check for name, check in kept.items() if check is not None}


def _kept(tool: BaseTool) -> tuple[Tool, Check | None]:
    owner, known, check = _KEPT.get(id(tool), (None, None, None))
    alive = owner is not None and owner() is tool
    if known is not None and alive and (known.name, known.description) == (tool.name, tool.description):
        return known, check
    read = Tool(tool.name, tool.description, {"properties": dict(tool.args)}, says_of(tool))
    check = checked_by(tool.tool_call_schema)
    _KEPT[id(tool)] = weakref.ref(tool), read, check
    if len(_KEPT) > 1000:
        _KEPT.popitem(last=False)
    return read, check


def _declared(tool: Any) -> Tool:
    if isinstance(tool, Mapping):
        spec = tool.get("function", tool)
        parameters = spec.get("parameters") or spec.get("input_schema") or {}
        return Tool(str(spec.get("name", "")), str(spec.get("description", "")), parameters)
    return Tool(str(getattr(tool, "__name__", tool)))


def says_of(tool: Any) -> Classified | None:
    """What a tool's code declares of its effect, else what an MCP server hints at (langchain-mcp-adapters 0.3)."""
    if not isinstance(tool, BaseTool):
        return None
    functions = (
        (tool.func, tool.coroutine) if isinstance(tool, StructuredTool | LangChainTool) else (function_of(tool),)
    )
    return declared_on(tool, *functions) or hinted(tool.metadata)


def result_text(output: Any) -> tuple[str, bool]:
    """What a tool's output tells the model, and whether it is an error."""
    if isinstance(output, ToolMessage):
        return words(output.content), output.status == "error"
    if isinstance(output, Command):
        update = output.update if isinstance(output.update, dict) else {}
        told = [words(message.content) for message in _told(update) if isinstance(message, ToolMessage)]
        return "\n".join(told), False
    return output if isinstance(output, str) else json.dumps(output, default=str, ensure_ascii=False), False


def is_text(content: Any) -> bool:
    """Whether a result says all it holds in words."""
    parts = content if isinstance(content, list) else ()
    return all(isinstance(part, str) or (isinstance(part, dict) and part.get("type") == "text") for part in parts)


def with_result(output: Any, text: str) -> Any:
    """A tool's output in other words; an artifact says it all over again, and is dropped."""
    match output:
        case ToolMessage():
            return output.model_copy(update={"content": text, "artifact": None})
        case Command(update=dict() as update):
            said = [with_result(each, text) if isinstance(each, ToolMessage) else each for each in _told(update)]
            return dataclasses.replace(output, update={**update, "messages": said} if "messages" in update else update)
        case [*parts] if any(isinstance(part, ToolMessage | Command) for part in parts):
            return [with_result(part, text) for part in parts]
        case _:
            return text


def _told(update: Mapping[str, Any]) -> Sequence[Any]:
    messages = update.get("messages", ())
    return messages if isinstance(messages, Sequence) else (messages,)


def is_system(message: BaseMessage) -> bool:
    """Whether it is a system prompt."""
    return isinstance(message, SystemMessage)
