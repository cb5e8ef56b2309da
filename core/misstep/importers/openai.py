"""
Tool calls as OpenAI writes them: a list of messages with `tool_calls` and tool results, bare or in a frame.

Frames are objects with the messages under `traj` (tau-bench) or `messages` (many others); the older `function_call`,
and calls whose arguments are an object already, are read too.
"""

from __future__ import annotations

from collections.abc import Mapping

from misstep.errors import TraceError
from misstep.importers import fields
from misstep.importers.fields import Message
from misstep.importers.messages import made
from misstep.importers.trace import Importer, Trace
from misstep.importers.turns import UNNAMED, Asked, Turn, asked, told

NAME = "openai"


def matches(document: object) -> bool:
    """A frame with a `traj`, or any conversation in which tools are called."""
    field, items = fields.conversation(document)
    return field == "traj" or (fields.calls_tools(items) and fields.spoken(items))


def read(document: object, label: str = "") -> Trace:
    """The trace: an agent is an assistant message's `name`, else its role. Raises `TraceError`."""
    messages = fields.messages(document)
    spoken, agents = told([turn(message) for message in messages], fields.tools(document))
    return made(NAME, label, document, len(messages), spoken, agents)


def turn(message: Message) -> Turn:
    """What a message says. Raises `TraceError` where its calls are none."""
    role = message.role.lower()
    if role in fields.USER:
        return Turn(message.step, "user", message.name or role, message.content)
    if role in fields.SYSTEM:
        return Turn(message.step, "system", role, message.content)
    if role in fields.TOOL:
        return _result(message)
    calls = tuple(_asked(message.step, place, given) for place, given in enumerate(_calls(message)))
    content = message.content
    if not content and not calls:
        content = fields.words(message.given.get("refusal"))
    return Turn(message.step, "assistant", message.name or message.role, content, calls)


def _result(message: Message) -> Turn:
    error = fields.words(message.given.get("error"))
    return Turn(
        message.step,
        "tool",
        message.name or UNNAMED,
        message.content or error,
        answers=fields.text(message.given.get("tool_call_id")),
        tool=message.name,
        failed=bool(error) or fields.failed(message.content),
    )


def _calls(message: Message) -> list[object]:
    """The calls a message proposes, as they are written. Raises `TraceError` where `tool_calls` is no list."""
    calls = message.given.get("tool_calls")
    if calls and not isinstance(calls, list):
        raise TraceError(
            "unknown_format", f"message {message.step}: `tool_calls` must be a list, found {fields.kind(calls)}"
        )
    if isinstance(calls, list) and calls:
        return calls
    call = message.given.get("function_call")
    return [call] if call else []


def _asked(step: int, place: int, given: object) -> Asked:
    if not isinstance(given, dict):
        raise TraceError(
            "unknown_format", f"message {step}: tool call {place} must be an object, found {fields.kind(given)}"
        )
    return call(given)


def call(given: Mapping[object, object]) -> Asked:
    """A call as OpenAI writes it, or flatly: its tool under `function` or `name`, its arguments as text or object."""
    function = given.get("function")
    spec = function if isinstance(function, dict) else given
    name = function if isinstance(function, str) else spec.get("name")
    return asked(given.get("id"), name, next((spec[key] for key in ("arguments", "args") if key in spec), None))


IMPORTER = Importer(
    NAME, "messages with `tool_calls` and tool results, bare or under `messages` or `traj`", matches, read
)
