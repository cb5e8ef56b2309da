"""
SWE-agent: the trajectories of mini-swe-agent (`messages`), and the classic ones of SWE-agent (`trajectory`).

An agent's command is a call of `bash`. In mini-swe-agent it is among the message's `actions`, or an OpenAI call, or
an item of an OpenAI response; in a classic trajectory each step is thought, action and observation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from misstep.errors import TraceError
from misstep.importers import fields, openai
from misstep.importers.fields import Message
from misstep.importers.messages import made
from misstep.importers.trace import Importer, Trace
from misstep.importers.turns import Asked, Turn, asked, told

NAME = "sweagent"
AGENT = "assistant"
BASH = "bash"

Fields: TypeAlias = Mapping[object, object]


def matches(document: object) -> bool:
    """A document that says it is mini-swe-agent's, or a `trajectory` of actions and observations."""
    if not isinstance(document, dict):
        return False
    if fields.text(document.get("trajectory_format")).startswith("mini-swe-agent"):
        return True
    steps = document.get("trajectory")
    first = steps[0] if isinstance(steps, list) and steps else None
    return isinstance(first, dict) and "action" in first and "observation" in first


def read(document: object, label: str = "") -> Trace:
    """The trace; a step is a message, or in a classic trajectory one round. Raises `TraceError`."""
    classic = document.get("trajectory") if isinstance(document, dict) else None
    if isinstance(classic, list):
        turns = [turn for step, item in enumerate(classic) for turn in _round(step, item)]
        steps, turns = len(classic), _before(document) + turns
    else:
        _, items = fields.conversation(document)
        if not isinstance(items, list):
            raise TraceError("unknown_format", f"its messages must be a list, found {fields.kind(items)}")
        steps, turns = len(items), [turn for step, item in enumerate(items) for turn in _message(step, item)]
    spoken, agents = told(turns)
    return made(NAME, label, {}, steps, spoken, agents)


def _round(step: int, item: object) -> list[Turn]:
    if not isinstance(item, dict):
        raise TraceError("unknown_format", f"step {step} must be an object, found {fields.kind(item)}")
    thought, action = fields.words(item.get("thought") or item.get("response")), fields.text(item.get("action"))
    if not action.strip():
        return [Turn(step, "assistant", AGENT, thought)]
    return [
        Turn(step, "assistant", AGENT, thought, (_command("", action),)),
        _observed(step, fields.words(item.get("observation"))),
    ]


def _before(document: object) -> list[Turn]:
    """What was said before the first step: the system prompt and the task; demonstrations are of another run."""
    given = document.get("history") if isinstance(document, dict) else None
    before: list[Turn] = []
    for item in given if isinstance(given, list) else ():
        if not isinstance(item, dict) or item.get("is_demo"):
            continue
        role = fields.text(item.get("role")).lower()
        if role not in fields.USER | fields.SYSTEM:
            break
        part = "user" if role in fields.USER else "system"
        before.append(Turn(0, part, role, fields.words(item.get("content")), history=True))  # type: ignore[arg-type]
    return before


def _message(step: int, item: object) -> list[Turn]:
    if not isinstance(item, dict):
        raise TraceError("unknown_format", f"message {step} must be an object, found {fields.kind(item)}")
    if isinstance(item.get("output"), list):
        return [_response(step, item["output"])]
    more = item.get("extra")
    extra: Fields = more if isinstance(more, dict) else {}
    if item.get("type") == "function_call_output":
        return [_observed(step, fields.words(item.get("output")), fields.text(item.get("call_id")), extra)]
    message = _plain(step, item)
    role = message.role.lower()
    if role == "exit":
        return [Turn(step, "system", role, message.content)]
    if role in fields.TOOL or (role in fields.USER and "returncode" in extra):
        return [_observed(step, message.content, fields.text(item.get("tool_call_id")), extra)]
    turn = openai.turn(message)
    if turn.part != "assistant" or turn.calls:
        return [turn]
    return [Turn(step, "assistant", turn.speaker, turn.content, _actions(extra))]


def _plain(step: int, item: Fields) -> Message:
    role = item.get("role")
    if not isinstance(role, str) or not role.strip():
        raise TraceError("unknown_format", f"message {step} must say its `role` as text, found {fields.kind(role)}")
    return Message(step, fields.clean(role).strip(), "", fields.words(item.get("content")), item)


def _actions(extra: Fields) -> tuple[Asked, ...]:
    given = extra.get("actions")
    actions = [action for action in given if isinstance(action, dict)] if isinstance(given, list) else []
    return tuple(_command(fields.text(action.get("tool_call_id")), action.get("command")) for action in actions)


def _response(step: int, output: list[object]) -> Turn:
    """A reply as OpenAI's responses have it: messages and calls are items of one list."""
    items = [item for item in output if isinstance(item, dict)]
    words = [fields.words(item.get("content")) for item in items if item.get("type") == "message"]
    calls = [item for item in items if item.get("type") == "function_call"]
    return Turn(
        step,
        "assistant",
        AGENT,
        "\n".join(words),
        tuple(asked(call.get("call_id"), call.get("name"), call.get("arguments")) for call in calls),
    )


def _command(id_: str, command: object) -> Asked:
    return Asked(id_, BASH, {"command": fields.words(command)})


def _observed(step: int, content: str, answers: str = "", extra: Fields | None = None) -> Turn:
    """What a command printed; a code other than 0 is a failure, as a text that begins with an error is."""
    code = (extra or {}).get("returncode", 0)
    failed = code not in (0, "0") or fields.failed(content)
    return Turn(step, "tool", BASH, content, answers=answers, tool=BASH, failed=failed)


IMPORTER = Importer(NAME, "a trajectory of mini-swe-agent or of SWE-agent", matches, read)
