"""What a model was shown and what it said, in any of the ways in which tracing tools write it down."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from misstep.errors import TraceError
from misstep.events import Tool
from misstep.importers import fields, langchain, openai
from misstep.importers.fields import Message
from misstep.importers.load import parsed
from misstep.importers.turns import UNNAMED, Part, Turn, asked

Fields: TypeAlias = Mapping[object, object]

_FRAMES = ("messages", "input", "output")
_NO_WORDS = frozenset({"tool_call", "tool_call_response", "reasoning", "compaction"})


def shown(value: object) -> tuple[Turn, ...]:
    """The messages a model was shown, whatever frame they are in; bare words are a user's."""
    return tuple(turn for item in _items(value) for turn in _turns(item, "user"))


def replied(value: object) -> tuple[Turn, ...]:
    """What a model said: the first of its answers, as one turn; none where nothing was recorded."""
    for item in _items(_answer(value)):
        replies = [turn for turn in _turns(item, "assistant") if turn.part == "assistant"]
        if replies:
            return (replies[0],)
    return ()


def offered(value: object) -> tuple[Tool, ...]:
    """The tools a model was offered: Langfuse's handler appends them to the messages, with their schema as content."""
    return fields.tools({"tools": [item["content"] for item in _items(value) if _is_offer(item)]})  # type: ignore[index]


def parsed_or_text(value: object) -> object:
    """The document a text holds, or the text where it is no JSON object or list."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("{", "["):
        return value
    try:
        return parsed(value)
    except TraceError:
        return value


def _items(value: object) -> list[object]:
    """The messages of a value: it is a list of them, one of them, or a frame round them."""
    for _ in range(4):
        if isinstance(value, list) and value and isinstance(value[0], list):
            value = value[0]
        elif isinstance(value, dict) and not _is_message(value):
            inner = next((value[name] for name in _FRAMES if name in value), None)
            if inner is None:
                break
            value = inner
        else:
            break
    if value is None:
        return []
    return [item for item in value if not isinstance(item, list)] if isinstance(value, list) else [value]


def _is_message(item: Fields) -> bool:
    return "role" in item or "parts" in item or langchain.is_message(item)


def _answer(value: object) -> object:
    """The message among a model's outputs, as LangChain (`generations`) and OpenAI (`choices`) have it."""
    for name in ("generations", "choices"):
        if isinstance(value, dict) and isinstance(value.get(name), list):
            choices: object = value[name]
            while isinstance(choices, list):
                choices = choices[0] if choices else None
            if isinstance(choices, dict):
                return choices.get("message") or choices.get("text")
            return choices
    return value


def _is_offer(item: object) -> bool:
    return (
        isinstance(item, dict)
        and item.get("role") == "tool"
        and isinstance(item.get("content"), dict)
        and "function" in item["content"]
    )


def _turns(item: object, part: Part) -> Iterator[Turn]:
    """What one message says; what is no message is words of `part`."""
    if not isinstance(item, dict):
        yield Turn(0, part, part, fields.words(item))
    elif isinstance(item.get("parts"), list):
        yield from _of_parts(item, item["parts"], part)
    elif langchain.is_message(item):
        yield langchain.turn(0, item)
    elif _is_offer(item):
        return
    elif isinstance(item.get("role"), str) and item["role"].strip():
        yield _plain(item)
    else:
        yield Turn(0, part, part, fields.words(item))


def _plain(item: Fields) -> Turn:
    calls = item.get("tool_calls")
    kept = [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else None
    name, content = fields.text(item.get("name")), langchain.words(item.get("content"))
    role = _role(fields.text(item.get("role")).strip())
    return openai.turn(Message(0, role, name, content, {**item, "tool_calls": kept}))


def _role(role: str) -> str:
    return {"ai": "assistant", "model": "assistant"}.get(role.lower(), role)


def _of_parts(item: Fields, parts: list[object], part: Part) -> Iterator[Turn]:
    """A message of OpenTelemetry's: text, calls and results of calls are its parts."""
    role = fields.text(item.get("role")).lower()
    given = [each for each in parts if isinstance(each, dict)]
    for each in given:
        if each.get("type") == "tool_call_response":
            content = fields.words(each.get("response", each.get("result")))
            yield Turn(0, "tool", UNNAMED, content, answers=fields.text(each.get("id")), failed=fields.failed(content))
    calls = tuple(
        asked(each.get("id"), each.get("name"), each.get("arguments"))
        for each in given
        if each.get("type") == "tool_call"
    )
    words = [each for each in given if fields.text(each.get("type")) not in _NO_WORDS]
    if role in fields.USER | fields.SYSTEM:
        speaker: Part = "user" if role in fields.USER else "system"
        yield Turn(0, speaker, speaker, fields.words(words))
    elif role not in fields.TOOL or words:
        yield Turn(0, "tool" if role in fields.TOOL else "assistant", role or part, fields.words(words), calls)
