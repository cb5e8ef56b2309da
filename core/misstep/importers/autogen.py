"""
AutoGen: the messages of a `TaskResult`, or the saved state of a team or an agent, as AutoGen writes them as JSON.

A team's state holds the same messages in its manager's `message_thread`; an agent's own state holds what its model
was shown, which names other speakers by `source`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from misstep.errors import TraceError
from misstep.importers import fields
from misstep.importers.messages import made
from misstep.importers.trace import Importer, Trace
from misstep.importers.turns import Asked, Turn, asked, told

NAME = "autogen"

Fields: TypeAlias = Mapping[object, object]

_USER = "user"
_RESULTS = frozenset({"ToolCallExecutionEvent", "FunctionExecutionResultMessage"})
_CODE = "CodeExecutionEvent"
_REPLIES = frozenset({"TextMessage", "MultiModalMessage", "ToolCallRequestEvent", "AssistantMessage", "UserMessage"})
_STRUCTURED = "StructuredMessage"
_KINDS = (
    _RESULTS
    | _REPLIES
    | {
        _CODE,
        "CodeGenerationEvent",
        "HandoffMessage",
        "MemoryQueryEvent",
        "ModelClientStreamingChunkEvent",
        "SelectSpeakerEvent",
        "SelectorEvent",
        "StopMessage",
        "SystemMessage",
        "ThoughtEvent",
        "ToolCallSummaryMessage",
        "UserInputRequestedEvent",
    }
)


def matches(document: object) -> bool:
    """A list of AutoGen's messages, bare or under `messages`, or a saved state with such a list in it."""
    items = _found(document)
    return isinstance(items, list) and bool(items) and is_message(items[0])


def is_message(item: object) -> bool:
    """Whether an object is a message of AutoGen's: its `type` is a class of theirs."""
    return isinstance(item, dict) and "content" in item and _kind(item) in _KINDS | {_STRUCTURED}


def _kind(item: Fields) -> str:
    return fields.text(item.get("type")).partition("[")[0]


def _found(document: object) -> object:
    """The messages of a result or of a state; of several threads in a state, the first."""
    if not isinstance(document, dict):
        return document
    states = document.get("agent_states")
    if isinstance(states, dict):
        threads = (state.get("message_thread") for state in states.values() if isinstance(state, dict))
        return next((thread for thread in threads if isinstance(thread, list)), None)
    if isinstance(document.get("message_thread"), list):
        return document["message_thread"]
    context = document.get("llm_context")
    frame = context if isinstance(context, dict) else document
    return frame.get("messages")


def read(document: object, label: str = "") -> Trace:
    """The trace: an agent is a message's `source`; one message may hold several results. Raises `TraceError`."""
    items = _found(document)
    if not isinstance(items, list):
        raise TraceError("unknown_format", f"its messages must be a list, found {fields.kind(items)}")
    turns = [turn for step, item in enumerate(items) for turn in turns_of(step, item)]
    spoken, agents = told(turns)
    return made(NAME, label, {}, len(items), spoken, agents)


def turns_of(step: int, item: object) -> Iterator[Turn]:
    """What a message says, one turn or, where it holds several results, as many. Raises `TraceError`."""
    if not isinstance(item, dict) or not is_message(item):
        raise TraceError("unknown_format", f"message {step} must be one of AutoGen's, found {fields.kind(item)}")
    kind, speaker = _kind(item), fields.text(item.get("source")).strip() or "assistant"
    if kind in _RESULTS:
        yield from _results(step, speaker, item.get("content"))
    elif kind == _CODE:
        yield _executed(step, speaker, item.get("result"))
    elif kind == "SystemMessage":
        yield Turn(step, "system", "system", _words(item))
    elif speaker == _USER:
        yield Turn(step, "user", speaker, _words(item))
    elif kind == "UserMessage":
        yield Turn(step, "user", speaker, _words(item), trust="agent")
    elif kind in _REPLIES or kind == _STRUCTURED or kind == "CodeGenerationEvent":
        yield _reply(step, speaker, item)
    else:
        trust = "tool" if kind in ("ToolCallSummaryMessage", "MemoryQueryEvent") else None
        target = fields.text(item.get("target")).strip() if kind == "HandoffMessage" else ""
        yield Turn(step, "aside", speaker, _words(item), target=target, trust=trust)  # type: ignore[arg-type]


def _words(item: Fields) -> str:
    content = item.get("content")
    if isinstance(content, list):
        content = [part if isinstance(part, str) or _says(part) else {"type": "image"} for part in content]
    return fields.words(content)


def _says(part: object) -> bool:
    return isinstance(part, dict) and "content" in part


def _reply(step: int, speaker: str, item: Fields) -> Turn:
    content = item.get("content")
    calls = _calls(content)
    return Turn(step, "assistant", speaker, fields.text(item.get("thought")) if calls else _words(item), calls)


def _calls(content: object) -> tuple[Asked, ...]:
    """The calls a content is made of; none where it is words."""
    if not isinstance(content, list):
        return ()
    return tuple(
        asked(call.get("id"), call.get("name"), call.get("arguments"))
        for call in content
        if isinstance(call, dict) and "arguments" in call
    )


def _results(step: int, speaker: str, content: object) -> Iterator[Turn]:
    results = [item for item in content if isinstance(item, dict)] if isinstance(content, list) else []
    for result in results:
        yield Turn(
            step,
            "tool",
            fields.text(result.get("name")).strip() or speaker,
            fields.words(result.get("content")),
            answers=fields.text(result.get("call_id")),
            tool=fields.text(result.get("name")).strip(),
            failed=result.get("is_error") is True,
        )
    if not results:
        yield Turn(step, "aside", speaker, fields.words(content), trust="tool")


def _executed(step: int, speaker: str, result: object) -> Turn:
    """What a machine that ran an agent's code says: it is a tool's words, though no call of a tool asked for them."""
    output = result.get("output") if isinstance(result, dict) else result
    return Turn(step, "aside", speaker, fields.words(output), trust="tool")


IMPORTER = Importer(NAME, "AutoGen's TaskResult, or a team's or agent's saved state", matches, read)
