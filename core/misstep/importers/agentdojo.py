"""
AgentDojo and AgentDyn: runs of a tool agent in a suite, with calls as `{"function": name, "args": {...}}`.

Where nobody speaks for the user, the task's `prompt` is what was said before; it takes no step.
"""

from __future__ import annotations

from misstep.events import Event, MessageSent
from misstep.importers import fields, openai
from misstep.importers.fields import Message
from misstep.importers.messages import made
from misstep.importers.trace import RUN, Importer, Trace
from misstep.importers.turns import Turn, told

NAME = "agentdojo"

_SUITE = ("suite", "suite_name")
_TASK = ("user_task", "user_task_id")


def matches(document: object) -> bool:
    """An object with `messages` that belongs to a task of a suite."""
    return (
        isinstance(document, dict)
        and isinstance(document.get("messages"), list)
        and any(name in document for name in _SUITE)
        and any(name in document for name in _TASK)
    )


def read(document: object, label: str = "") -> Trace:
    """The trace; a result that names no call's id belongs to the oldest open call. Raises `TraceError`."""
    messages = fields.messages(document)
    turns = [_turn(message) for message in messages]
    spoken, agents = told(turns, fields.tools(document))
    asked = [] if any(turn.part == "user" for turn in turns) else _prompt(document, agents)
    return made(NAME, label, document, len(messages), [*asked, *spoken], agents)


def _turn(message: Message) -> Turn:
    """What a message says; a result repeats its call under `tool_call`."""
    turn = openai.turn(message)
    call = message.given.get("tool_call")
    if turn.part != "tool" or not isinstance(call, dict):
        return turn
    answered = openai.call(call)
    return Turn(
        turn.step,
        turn.part,
        turn.speaker,
        turn.content,
        answers=turn.answers or answered.id,
        tool=turn.tool or answered.tool,
        failed=turn.failed,
    )


def _prompt(document: object, agents: list[str]) -> list[Event]:
    prompt = fields.words(document.get("prompt")) if isinstance(document, dict) else ""
    if not prompt:
        return []
    instance = agents[0] if agents else ""
    return [
        MessageSent(
            run=RUN,
            role="user",
            content=prompt,
            sender="user",
            instance=instance,
            trust="user",
            step=0,
            history=True,
        )
    ]


IMPORTER = Importer(NAME, "a run of AgentDojo or AgentDyn: `messages` of a task in a suite", matches, read)
