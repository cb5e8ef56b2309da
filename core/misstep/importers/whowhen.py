"""Who&When (arXiv 2505.00212): `question` and `history` of runs of AG2 group chats or of Magentic-One."""

from __future__ import annotations

import re

from misstep.events import Event, ModelResponded, ProposedCall, ToolFailed, ToolReturned
from misstep.importers import fields
from misstep.importers.fields import Message
from misstep.importers.messages import acting, is_terminal, made, said, speaker
from misstep.importers.trace import RUN, Importer, Trace

NAME = "whowhen"
EXECUTE = "execute_code"
"""The tool an agent calls that writes code for the terminal to run."""

_FENCE = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)(?:^[ \t]*```|\Z)", re.MULTILINE | re.DOTALL)
_EXIT = re.compile(r"\s*exitcode:\s*(-?\d+)")


def matches(document: object) -> bool:
    """An object with a `history`, and no call of a tool in it; one with a `trajectory` too is SWE-agent's."""
    field, items = fields.conversation(document)
    if field != "history" or not isinstance(document, dict) or "trajectory" in document:
        return False
    return not items or (fields.spoken(items) and not fields.calls_tools(items))


def read(document: object, label: str = "") -> Trace:
    """
    The trace. Raises `TraceError`.

    An agent is who `name` says, else the role before " (". In group chats, code in a message is a call of
    `execute_code` if a terminal ran it, or if the run ended before anybody could; other code is only talk.
    """
    messages = fields.messages(document)
    speakers = [message.name or speaker(message)[0] for message in messages]
    return made(NAME, label, document, len(messages), _Chat(messages).events(), acting(speakers))


class _Chat:
    """A conversation with what a terminal ran in it: which message's code each of its answers belongs to."""

    def __init__(self, messages: list[Message]) -> None:
        self._messages = messages
        self._code: dict[int, str] = {}
        self._answers: dict[int, int] = {}
        self._pair()

    def events(self) -> list[Event]:
        """Every message as events, in order."""
        return [event for message in self._messages for event in self._of(message)]

    def _pair(self) -> None:
        """Each terminal message that tells an exit code answers the latest code before it, once."""
        pending: tuple[int, str] | None = None
        for message in self._messages:
            code = _code(message)
            if code is not None:
                pending = message.step, code
            elif pending is not None and is_terminal(message.name) and _EXIT.match(message.content):
                self._answers[message.step] = pending[0]
                self._code[pending[0]] = pending[1]
                pending = None
        if pending is not None and pending[0] == len(self._messages) - 1:
            self._code[pending[0]] = pending[1]

    def _of(self, message: Message) -> list[Event]:
        asked = self._answers.get(message.step)
        if asked is not None:
            return [_result(message, self._messages[asked])]
        code = self._code.get(message.step)
        if code is not None:
            return [_call(message, code)]
        return said(message, message.name) if message.name else said(message, *speaker(message))


def _code(message: Message) -> str | None:
    """The fenced code of an agent of a group chat, all blocks of it; None where there is none."""
    if not message.name or is_terminal(message.name) or "```" not in message.content:
        return None
    blocks = [block for block in _FENCE.findall(message.content) if block.strip()]
    return "\n".join(blocks) or None


def _call(message: Message, code: str) -> ModelResponded:
    proposed = ProposedCall(f"c{message.step}", EXECUTE, {"code": code})
    return ModelResponded(
        run=RUN,
        call=f"m{message.step}",
        agent=message.name,
        instance=message.name,
        step=message.step,
        content=message.content,
        calls=(proposed,),
    )


def _result(message: Message, asker: Message) -> ToolReturned | ToolFailed:
    """What the terminal answers: it belongs to the agent whose code was run."""
    code = _EXIT.match(message.content)
    succeeded = code is not None and int(code.group(1)[:20]) == 0
    if succeeded:
        return ToolReturned(
            run=RUN,
            call=f"c{asker.step}",
            agent=asker.name,
            instance=asker.name,
            step=message.step,
            tool=EXECUTE,
            output=message.content,
        )
    return ToolFailed(
        run=RUN,
        call=f"c{asker.step}",
        agent=asker.name,
        instance=asker.name,
        step=message.step,
        tool=EXECUTE,
        error=message.content,
        error_type="exit code",
    )


IMPORTER = Importer(NAME, "an object with `question` and `history`, as in the Who&When benchmark", matches, read)
