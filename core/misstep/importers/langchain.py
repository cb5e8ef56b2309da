"""
LangChain's messages, as it writes them itself, bare or in a dumped LangGraph state.

There are three ways: `messages_to_dict` (`{"type": "ai", "data": {...}}`), `langchain_core.load.dumps`
(`{"lc": 1, "id": [..., "AIMessage"], "kwargs": {...}}`) and `model_dump` (`{"type": "ai", "content": ...}`).
"""

from __future__ import annotations

from collections.abc import Mapping

from misstep.errors import TraceError
from misstep.importers import fields
from misstep.importers.messages import made
from misstep.importers.trace import Importer, Trace
from misstep.importers.turns import UNNAMED, Asked, Part, Turn, asked, told

NAME = "langchain"
AGENT = "assistant"
"""What an agent is called whose messages have no name."""

_PARTS: dict[str, Part] = {
    "system": "system",
    "human": "user",
    "ai": "assistant",
    "tool": "tool",
    "function": "tool",
    "chat": "assistant",
    "remove": "system",
}
_THOUGHTS = frozenset({"thinking", "redacted_thinking", "reasoning", "reasoning_content"})
_CALLS = frozenset({"tool_use", "tool_call", "function_call", "input_json_delta", "tool_call_chunk"})


def matches(document: object) -> bool:
    """A list of messages, bare or under `messages`, of which the first is LangChain's."""
    _, items = fields.conversation(document)
    return isinstance(items, list) and bool(items) and is_message(items[0])


def is_message(item: object) -> bool:
    """Whether an object is a message in one of the three ways LangChain writes it."""
    if not isinstance(item, dict):
        return False
    if "lc" in item:
        return _of_class(item.get("id")) and isinstance(item.get("kwargs"), dict)
    if isinstance(item.get("data"), dict):
        return _type(item.get("type")) in _PARTS
    return _type(item.get("type")) in _PARTS and "content" in item and ("role" not in item or item["type"] == "chat")


def _of_class(path: object) -> bool:
    return (
        isinstance(path, list) and bool(path) and isinstance(path[-1], str) and path[-1].endswith(("Message", "Chunk"))
    )


def _type(given: object) -> str:
    """The kind of a message: a piece of a streamed one is of the kind of the whole."""
    return fields.text(given).removesuffix("MessageChunk").lower()


def read(document: object, label: str = "") -> Trace:
    """The trace: an agent is the `name` of its messages, else `assistant`. Raises `TraceError`."""
    field, items = fields.conversation(document)
    if not isinstance(items, list):
        where = f"`{field}`" if field else "the trace"
        raise TraceError("unknown_format", f"{where} must be a list of messages, found {fields.kind(items)}")
    spoken, agents = told([turn(step, item) for step, item in enumerate(items)], fields.tools(document))
    return made(NAME, label, document, len(items), spoken, agents)


def turn(step: int, item: object) -> Turn:
    """What a message says. Raises `TraceError` where it is none of LangChain's."""
    if not isinstance(item, dict) or not is_message(item):
        raise TraceError("unknown_format", f"message {step} must be one of LangChain's, found {fields.kind(item)}")
    inner = item.get("kwargs") if "lc" in item else item.get("data", item)
    message: Mapping[object, object] = inner if isinstance(inner, dict) else item
    part = _PARTS.get(_type(message.get("type", item.get("type"))), "assistant")
    name = fields.text(message.get("name")).strip()
    content = words(message.get("content"))
    match part:
        case "tool":
            return _result(step, name, content, message)
        case "assistant":
            speaker = name or fields.text(message.get("role")).strip() or AGENT
            return Turn(step, part, speaker, content or _refusal(message), _calls(message))
        case "user":
            return Turn(step, part, name or "user", content)
        case _:
            return Turn(step, part, part, content)


def words(content: object) -> str:
    """The words of a content: without what only repeats a call, and without thoughts, which are no answer."""
    if not isinstance(content, list):
        return fields.words(content)
    return fields.words([part for part in content if not (isinstance(part, dict) and _is_silent(part))])


def _is_silent(part: Mapping[object, object]) -> bool:
    return fields.text(part.get("type")) in _THOUGHTS | _CALLS


def _refusal(message: Mapping[object, object]) -> str:
    more = message.get("additional_kwargs")
    return fields.words(more.get("refusal")) if isinstance(more, dict) else ""


def _result(step: int, name: str, content: str, message: Mapping[object, object]) -> Turn:
    failed = message.get("status") == "error" or fields.failed(content)
    answers = fields.text(message.get("tool_call_id"))
    return Turn(step, "tool", name or UNNAMED, content, answers=answers, tool=name, failed=failed)


def _calls(message: Mapping[object, object]) -> tuple[Asked, ...]:
    """The calls of a reply, and after them those whose arguments could not be parsed."""
    return tuple(
        asked(call.get("id"), call.get("name"), call.get("args"))
        for field in ("tool_calls", "invalid_tool_calls")
        for call in _objects(message.get(field))
    )


def _objects(value: object) -> list[Mapping[object, object]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


IMPORTER = Importer(NAME, "messages as LangChain dumps them, bare or in a LangGraph state", matches, read)
