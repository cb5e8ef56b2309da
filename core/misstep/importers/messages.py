"""Plain conversations: a list of `{role, content}`, bare or under `messages`, in which no tool is called."""

from __future__ import annotations

from collections.abc import Iterable

from misstep.errors import TraceError
from misstep.events import Event, HandoffRequested, MessageSent, ModelResponded
from misstep.importers import fields
from misstep.importers.fields import Message
from misstep.importers.trace import RUN, Importer, Trace

NAME = "messages"

_HANDOFF = "->"
_LOG = "termination condition"


def matches(document: object) -> bool:
    """A list of messages, bare or under `messages`, without any call or result of a tool."""
    field, items = fields.conversation(document)
    if not field:
        return fields.spoken(document) and not fields.calls_tools(document)
    return field == "messages" and not fields.calls_tools(items)


def read(document: object, label: str = "") -> Trace:
    """
    The trace: an agent is who its role names, as Magentic-One writes it (`Orchestrator (-> WebSurfer)`).

    Raises `TraceError`.
    """
    if fields.calls_tools(fields.conversation(document)[1]):
        raise TraceError("unknown_format", "tools are called in it: it is no plain conversation, read it as `openai`")
    messages = fields.messages(document)
    speakers = [speaker(message) for message in messages]
    spoken = [event for message, who in zip(messages, speakers, strict=True) for event in said(message, *who)]
    return made(NAME, label, document, len(messages), spoken, acting(name for name, _ in speakers))


def speaker(message: Message) -> tuple[str, str]:
    """Who speaks, and the aside after the name: `WebSurfer`, ``; `Orchestrator`, `-> WebSurfer`."""
    name, _, aside = message.role.partition(" (")
    name = message.name if message.name and name == "assistant" else name.strip()
    return name, aside.rstrip(") ")


def is_terminal(name: str) -> bool:
    """Whether a participant is a machine that runs code, not a model."""
    return name.lower().replace("_", "").replace(" ", "") == "computerterminal"


def said(message: Message, name: str, aside: str = "") -> list[Event]:
    """The events of one message that calls nothing: what a person, the system, a terminal or an agent says."""
    role = name.lower()
    if role in fields.USER:
        return [sent(message, "user", "user", name)]
    if role in fields.SYSTEM:
        return [sent(message, "system", "system", name)]
    if role in fields.TOOL or is_terminal(name):
        return [sent(message, "tool", "tool", name)]
    if aside == _LOG:
        return [sent(message, "assistant", "model", name)]
    reply = ModelResponded(
        run=RUN, call=f"m{message.step}", agent=name, instance=name, step=message.step, content=message.content
    )
    if not aside.startswith(_HANDOFF):
        return [reply]
    target = aside.removeprefix(_HANDOFF).strip()
    handoff = HandoffRequested(
        run=RUN, agent=name, instance=name, step=message.step, target=target, content=message.content
    )
    return [reply, handoff]


def sent(message: Message, role: str, trust: str, sender: str, instance: str = "") -> MessageSent:
    """A message of somebody who is no model; `instance` is the agent it is said to, where it is known."""
    return MessageSent(
        run=RUN,
        role=role,  # type: ignore[arg-type]
        trust=trust,  # type: ignore[arg-type]
        content=message.content,
        sender=sender,
        instance=instance,
        step=message.step,
    )


def made(
    source: str, label: str, document: object, steps: int, spoken: Iterable[Event], agents: Iterable[str]
) -> Trace:
    """A trace from its parts: opening, what was said in `steps` steps, ending."""
    end = fields.ending(document, steps)
    events = (*fields.opening(document), *spoken, end)
    return Trace(label, source, events, steps, tuple(dict.fromkeys(agents)), end.outcome)


def acting(names: Iterable[str]) -> list[str]:
    """Those of the speakers who act: not the user, the system, or an unnamed tool."""
    return [name for name in names if name.lower() not in fields.USER | fields.SYSTEM | fields.TOOL]


IMPORTER = Importer(NAME, "a list of messages, each with `role` and `content`", matches, read)
