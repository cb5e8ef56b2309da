"""
CrewAI: a `CrewOutput`, or one `TaskOutput`, as JSON: each task, the messages of its agent, and what it came to.

An agent that knows no tool calling asks in text (ReAct): `Action:`, `Action Input:`, and the answer as `Observation:`
in the same message.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TypeAlias

from misstep.errors import TraceError
from misstep.importers import fields, openai
from misstep.importers.fields import Message
from misstep.importers.messages import made
from misstep.importers.trace import Importer, Trace
from misstep.importers.turns import Turn, asked, told

NAME = "crewai"

Fields: TypeAlias = Mapping[object, object]

_ACTION = re.compile(r"^[ \t]*Action[ \t]*:[ \t]*([^\n]*)\n[ \t]*Action[ \t]+Input[ \t]*:", re.MULTILINE)
_OBSERVATION = "\nObservation:"
_FAILURE = "I encountered an error while trying to use the tool."
_ANSWER = "Final Answer:"
_QUOTED = "This is the context you're working with:"
"""What comes before the results of earlier tasks in a task's prompt."""


def matches(document: object) -> bool:
    """An object with `tasks_output`, or a task's output: `raw`, `agent` and `description`."""
    return isinstance(document, dict) and ("tasks_output" in document or _is_task(document))


def _is_task(document: Fields) -> bool:
    return "raw" in document and isinstance(document.get("agent"), str) and "description" in document


def read(document: object, label: str = "") -> Trace:
    """
    The trace. Raises `TraceError`.

    Steps count the messages of all tasks in order; what a task came to is a step of its own where its last message
    does not say it.
    """
    turns: list[Turn] = []
    step = 0
    for task in _tasks(document):
        agent = fields.text(task.get("agent")).strip() or "agent"
        prompted = False
        for message in _messages(step, task):
            said = _turns(message, agent, prompted=prompted)
            prompted = prompted or said[0].part == "user"
            turns += said
            step += 1
    spoken, agents = told(turns)
    return made(NAME, label, {}, step, spoken, agents)


def _tasks(document: object) -> list[Fields]:
    tasks = document.get("tasks_output", [document]) if isinstance(document, dict) else document
    if not isinstance(tasks, list):
        raise TraceError("unknown_format", f"`tasks_output` must be a list, found {fields.kind(tasks)}")
    for place, task in enumerate(tasks):
        if not isinstance(task, dict):
            raise TraceError("unknown_format", f"task {place} must be an object, found {fields.kind(task)}")
    return tasks


def _messages(first: int, task: Fields) -> Iterator[Message]:
    """The messages of a task, and one more for what it came to, if the last does not say it."""
    given = task.get("messages")
    last = ""
    steps = first
    for message in fields.messages(given) if isinstance(given, list) else ():
        yield Message(steps, message.role, message.name, message.content, message.given)
        last = message.content if message.role == "assistant" else ""
        steps += 1
    raw = fields.words(task.get("raw"))
    if not last or not _said(last, raw):
        yield Message(steps, "assistant", "", raw, {})


def _said(message: str, raw: str) -> bool:
    return message.rpartition(_ANSWER)[2].strip() == raw.strip() or raw.strip() == message.strip()


def _turns(message: Message, agent: str, *, prompted: bool) -> list[Turn]:
    turn = openai.turn(message)
    if turn.part == "user":
        return [replace(turn, trust="system")] if prompted else _prompt(turn)
    if turn.part != "assistant":
        return [turn]
    asks = _ACTION.search(turn.content) if not turn.calls else None
    if asks is None:
        return [Turn(turn.step, "assistant", agent, turn.content, turn.calls)]
    return _asked(turn, agent, asks)


def _prompt(turn: Turn) -> list[Turn]:
    """A task's prompt is a person's, but for what it quotes of other agents; all later ones CrewAI put together."""
    own, mark, quoted = turn.content.partition(_QUOTED)
    if not mark:
        return [turn]
    return [replace(turn, content=own), replace(turn, content=mark + quoted, trust="agent")]


def _asked(turn: Turn, agent: str, asks: re.Match[str]) -> list[Turn]:
    """A call in text, and its result where it is there."""
    said, seen, result = turn.content.partition(_OBSERVATION)
    tool = asks.group(1).strip()
    call = asked("", tool, said[asks.end() :].strip())
    reply = Turn(turn.step, "assistant", agent, said, (call,))
    if not seen:
        return [reply]
    result = result.strip()
    failed = result.startswith(_FAILURE) or fields.failed(result)
    return [reply, Turn(turn.step, "tool", call.tool, result, tool=call.tool, failed=failed)]


IMPORTER = Importer(NAME, "CrewAI's CrewOutput or TaskOutput as JSON", matches, read)
