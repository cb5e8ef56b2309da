"""
What was said before: seats hand over the whole message list at every call, and only what is new becomes an event.

At the first call of an instance everything before the last word of the user is history: indexed, with trust by role,
and never acted on. Later only what was added is read; a shortened or changed list is said to be one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from misstep.events import (
    Event,
    HistoryRewritten,
    MessageSent,
    ModelResponded,
    ProposedCall,
    Role,
    ToolFailed,
    ToolRequested,
    ToolReturned,
    Trust,
)
from misstep.run import Run

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Said:
    """
    One message as an adapter reads it.

    `sender` is empty for the agent itself; `answers` is the call a tool message answers; `trust` overrides the role's.
    """

    role: Role
    content: str
    sender: str = ""
    calls: tuple[ProposedCall, ...] = ()
    answers: str | None = None
    tool: str = ""
    failed: bool = False
    trust: Trust | None = None


@dataclass(frozen=True, slots=True)
class Listener:
    """Whose conversation it is."""

    agent: str
    instance: str


def unheard(
    run: Run,
    listener: Listener,
    messages: Sequence[T],
    key: Callable[[T], str],
    read: Callable[[T], Said | Sequence[Said]],
) -> list[Event]:
    """
    The events behind the messages the instance has not heard before; `key` tells messages apart.

    `read` gives several where the framework keeps several in one message (the results of a batch of calls).
    """
    with run.lock:
        first = not run.has_read(listener.instance)
        new, dropped = run.unread(listener.instance, messages, key)
    events: list[Event] = []
    if dropped is not None:
        events.append(
            HistoryRewritten(
                run=run.id,
                agent=listener.agent,
                instance=listener.instance,
                kept=len(messages) - len(new),
                dropped=dropped,
            )
        )
    said = [(key(message), each) for message in new for each in _each(read(message))]
    past = _last_of_user(said) if first else 0
    for index, (name, message) in enumerate(said):
        events.extend(_events(run, listener, name, message, history=index < past))
    return events


def _each(said: Said | Sequence[Said]) -> Sequence[Said]:
    return (said,) if isinstance(said, Said) else said


def digest(*parts: object) -> str:
    """A key for a message that has no id: of what it says."""
    return hashlib.blake2b("\x1f".join(map(str, parts)).encode("utf-8", "replace"), digest_size=12).hexdigest()


def _last_of_user(said: Sequence[tuple[str, Said]]) -> int:
    """Where the present begins: at the last word of the user, or at once if nobody else has spoken yet."""
    if not any(message.role in ("assistant", "tool") for _, message in said):
        return 0
    users = [index for index, (_, message) in enumerate(said) if message.role == "user"]
    return users[-1] if users else len(said)


def _events(run: Run, listener: Listener, key: str, said: Said, *, history: bool) -> list[Event]:
    match said.role:
        case "assistant":
            return _of_assistant(run, listener, key, said)
        case "tool":
            return _of_tool(run, listener, said)
        case _:
            return [
                _message(run, listener, said, said.trust or ("system" if said.role == "system" else "user"), history)
            ]


def _of_assistant(run: Run, listener: Listener, key: str, said: Said) -> list[Event]:
    speaker = run.speaker(key)
    if speaker == listener.instance:
        return []
    if speaker is not None or (said.sender and said.sender != listener.agent):
        return [_message(run, listener, said, said.trust or "agent", history=False)]
    batch = f"history:{key}"
    reply = ModelResponded(
        run=run.id,
        agent=listener.agent,
        instance=listener.instance,
        call=batch,
        history=True,
        content=said.content,
        calls=said.calls,
    )
    return [reply] + [
        ToolRequested(
            run=run.id,
            agent=listener.agent,
            instance=listener.instance,
            call=call.call,
            batch=batch,
            tool=call.tool,
            arguments=call.arguments or {},
            raw=call.raw,
            history=True,
        )
        for call in said.calls
    ]


def _of_tool(run: Run, listener: Listener, said: Said) -> list[Event]:
    known = run.calls.get(said.answers)
    if known is not None and known.state != "open":
        return []
    if said.failed:
        return [
            ToolFailed(
                run=run.id,
                agent=listener.agent,
                instance=listener.instance,
                call=said.answers,
                tool=said.tool,
                error=said.content,
                history=True,
            )
        ]
    return [
        ToolReturned(
            run=run.id,
            agent=listener.agent,
            instance=listener.instance,
            call=said.answers,
            tool=said.tool,
            output=said.content,
            history=True,
        )
    ]


def _message(run: Run, listener: Listener, said: Said, trust: Trust, history: bool) -> MessageSent:
    return MessageSent(
        run=run.id,
        agent=listener.agent,
        instance=listener.instance,
        role=said.role,
        content=said.content,
        sender=said.sender or said.role,
        recipient=listener.agent,
        trust=trust,
        history=history,
    )
