"""
The named fields an importer may read, and how each is understood.

Of a document: the task, the conversation, system prompts, declared tools, and what says how it turned out. Nothing
else of it is ever read: labels and known answers must not be able to reach a detector.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from misstep.errors import TraceError
from misstep.events import Event, MessageSent, Outcome, RunEnded, RunStarted, Tool
from misstep.importers.trace import RUN

TASK = ("question", "prompt")
CONVERSATION = ("traj", "messages", "history")
PROMPTS = ("system_prompt", "system_prompts")
OUTCOME = ("reward", "utility", "is_correct", "is_corrected")

USER = frozenset({"user", "human"})
SYSTEM = frozenset({"system", "developer"})
TOOL = frozenset({"tool", "function"})

_SCHEMAS = ("parameters", "input_schema", "args_schema")
_DEEPEST = 50
_LONGEST_INT = 4000
_ERROR = re.compile(r"\s*(?:error:|ERROR\b|Error(?![\w-]))")


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation: its step, who said it, its words, and the fields it came with."""

    step: int
    role: str
    name: str
    content: str
    given: Mapping[object, object]


def conversation(document: object) -> tuple[str, object]:
    """The name of the field that holds a document's messages and its value; ("", the document) for a bare list."""
    if isinstance(document, dict):
        for name in CONVERSATION:
            if isinstance(document.get(name), list):
                return name, document[name]
        for name in CONVERSATION:
            if name in document:
                return name, document[name]
    return "", document


def spoken(items: object) -> bool:
    """Whether this looks like a list of messages: some of it has a role."""
    return isinstance(items, list) and any(isinstance(item, dict) and "role" in item for item in items)


def calls_tools(items: object) -> bool:
    """Whether a list of messages is one in which a model calls tools."""
    return isinstance(items, list) and any(
        isinstance(item, dict)
        and (bool(item.get("tool_calls")) or bool(item.get("function_call")) or is_tool(item.get("role")))
        for item in items
    )


def is_tool(role: object) -> bool:
    """Whether a role is the one of tool results."""
    return isinstance(role, str) and role in TOOL


def messages(document: object) -> list[Message]:
    """The messages of a document, one a step. Raises `TraceError` naming the first that is none."""
    field, items = conversation(document)
    if not isinstance(items, list):
        where = f"`{field}`" if field else "the trace"
        raise TraceError("unknown_format", f"{where} must be a list of messages, found {kind(items)}")
    return [_message(step, item) for step, item in enumerate(items)]


def _message(step: int, item: object) -> Message:
    if not isinstance(item, dict):
        raise TraceError("unknown_format", f"message {step} must be an object, found {kind(item)}")
    role = item.get("role")
    if not isinstance(role, str) or not role.strip():
        raise TraceError("unknown_format", f"message {step} must say its `role` as text, found {kind(role)}")
    return Message(step, clean(role).strip(), _name(item.get("name")), words(item.get("content")), item)


def _name(value: object) -> str:
    return text(value).strip()


def text(value: object) -> str:
    """A text that can be written in any encoding; "" where there is none."""
    return clean(value) if isinstance(value, str) else ""


def opening(document: object) -> list[Event]:
    """What comes before the first message: the task, and system prompts, which take no step of their own."""
    frame = document if isinstance(document, dict) else {}
    task = next((words(frame[name]) for name in TASK if isinstance(frame.get(name), str)), None)
    events: list[Event] = [RunStarted(run=RUN, task=task, mode="shadow", step=0)]
    for agent, prompt in _prompts(frame):
        events.append(
            MessageSent(
                run=RUN,
                role="system",
                content=prompt,
                recipient=agent,
                instance=agent,
                trust="system",
                step=0,
                history=True,
            )
        )
    return events


def _prompts(frame: Mapping[object, object]) -> list[tuple[str, str]]:
    """(agent, prompt); the agent is "" where the prompt is everybody's."""
    found: list[tuple[str, str]] = []
    for name in PROMPTS:
        value = frame.get(name)
        if isinstance(value, dict):
            found += [(_name(agent), words(prompt)) for agent, prompt in value.items()]
        elif isinstance(value, list):
            found += [("", words(prompt)) for prompt in value]
        elif value is not None:
            found.append(("", words(value)))
    return [(agent, prompt) for agent, prompt in found if prompt.strip()]


def ending(document: object, steps: int) -> RunEnded:
    """The end of the run, with its outcome where the document says it."""
    result, score = _outcome(document if isinstance(document, dict) else {})
    return RunEnded(run=RUN, outcome=result, score=score, step=max(steps - 1, 0))


def _outcome(frame: Mapping[object, object]) -> tuple[Outcome | None, float | None]:
    """The first field of `OUTCOME` that can be understood; of a number, 1 or more is success."""
    for name in OUTCOME:
        value = frame.get(name)
        if isinstance(value, str):
            value = {"true": True, "false": False}.get(value.strip().lower())
        if isinstance(value, bool):
            return ("success" if value else "failure"), None
        if isinstance(value, int | float) and abs(value) < 1e300 and math.isfinite(value):
            return ("success" if value >= 1 else "failure"), float(value)
    return None, None


def tools(document: object) -> tuple[Tool, ...]:
    """The tools a document declares, as OpenAI writes them or plainly; what has no name is left out."""
    given = document.get("tools") if isinstance(document, dict) else None
    found: list[Tool] = []
    for item in given if isinstance(given, list) else ():
        spec = item.get("function", item) if isinstance(item, dict) else None
        name = _name(spec.get("name")) if isinstance(spec, dict) else ""
        if isinstance(spec, dict) and name:
            parameters = next((spec[name] for name in _SCHEMAS if name in spec), None)
            found.append(Tool(name, words(spec.get("description")), mapping(parameters) or {}))
    return tuple(found)


def failed(content: str) -> bool:
    """Whether a tool's words say that it failed: they begin with "Error" or "error:"."""
    return _ERROR.match(content) is not None


def words(content: object) -> str:
    """
    The words of a message's content: text, a list of parts, or whatever else is there as JSON.

    A part that is no text (an image, a file) stands as its type in brackets, so that it does not look empty.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return clean(content)
    if isinstance(content, list):
        return "\n".join(part for part in map(_part, content) if part)
    return _json(content)


def _part(part: object) -> str:
    if not isinstance(part, dict):
        return words(part) if isinstance(part, str) else _json(part)
    for name in ("text", "content", "refusal"):
        if name in part:
            value = part[name]
            return "" if value is None else clean(value) if isinstance(value, str) else _json(value)
    type_ = part.get("type")
    return f"[{clean(type_)}]" if isinstance(type_, str) else _json(part)


def mapping(value: object) -> dict[str, object] | None:
    """An object as arguments are kept: keys are text, and nothing in it can trip what reads it; None if it is none."""
    plain = _plain(value)
    return plain if isinstance(plain, dict) else None


def _plain(value: object, depth: int = 0) -> object:
    if depth > _DEEPEST:
        return "[nested too deeply]"
    if isinstance(value, dict):
        return {clean(str(key)): _plain(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, depth + 1) for inner in value]
    if isinstance(value, int) and value.bit_length() > _LONGEST_INT:
        return hex(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    return clean(str(value))


def _json(value: object) -> str:
    return "" if value is None else json.dumps(_plain(value), ensure_ascii=False)


def clean(text: str) -> str:
    """The text with lone surrogates, which no encoding can write, replaced by `?`."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def kind(value: object) -> str:
    """What a JSON value is, in words for an error message."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "a truth value"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case list():
            return "a list"
        case dict():
            return "an object"
        case _:
            return type(value).__name__
