"""
Tool calls as OpenAI writes them: a list of messages with `tool_calls` and tool results, bare or in a frame.

Frames are objects with the messages under `traj` (tau-bench) or `messages` (AgentDojo and many others); the older
`function_call`, and calls whose arguments are an object already, are read too.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from misstep.errors import TraceError
from misstep.events import Event, ModelRequested, ModelResponded, ProposedCall, ToolFailed, ToolReturned
from misstep.importers import fields
from misstep.importers.fields import Message
from misstep.importers.load import parsed
from misstep.importers.messages import made, sent
from misstep.importers.trace import RUN, Importer, Trace

NAME = "openai"
UNNAMED = "tool"
"""What a tool is called whose name is not told."""


def matches(document: object) -> bool:
    """A frame with a `traj`, or any conversation in which tools are called."""
    field, items = fields.conversation(document)
    return field == "traj" or fields.calls_tools(items)


def read(document: object, label: str = "") -> Trace:
    """The trace: an agent is an assistant message's `name`, else its role. Raises `TraceError`."""
    messages = fields.messages(document)
    reader = _Reader(document, messages)
    spoken = [event for message in messages for event in reader.events(message)]
    return made(NAME, label, document, messages, spoken, reader.agents)


@dataclass(slots=True)
class _Open:
    """A call that waits for its result: the id the source gave it ("" for none), ours, its tool, its agent."""

    given: str
    call: str
    tool: str
    agent: str


class _Reader:
    """Turns messages into events in order, and pairs each result with the call it answers."""

    def __init__(self, document: object, messages: list[Message]) -> None:
        self.agents: dict[str, None] = {}
        self._tools = fields.tools(document)
        self._listening = _listeners(messages)
        self._waiting: deque[_Open] = deque(maxlen=4096)
        self._used: set[str] = set()

    def events(self, message: Message) -> list[Event]:
        """What one message tells."""
        role = message.role.lower()
        if role in fields.USER:
            return [sent(message, "user", "user", message.name or role, self._listening[message.step])]
        if role in fields.SYSTEM:
            return [sent(message, "system", "system", role, self._listening[message.step])]
        if role in fields.TOOL:
            return [self._result(message)]
        return self._reply(message)

    def _reply(self, message: Message) -> list[Event]:
        agent = _agent(message)
        calls = tuple(self._proposed(message, place, given) for place, given in enumerate(_calls(message)))
        content = message.content
        if not content and not calls:
            content = fields.words(message.given.get("refusal"))
        reply = ModelResponded(
            run=RUN,
            call=f"m{message.step}",
            agent=agent,
            instance=agent,
            step=message.step,
            content=content,
            calls=calls,
        )
        asked = self._asked(agent, message.step)
        self.agents.setdefault(agent)
        return [*asked, reply]

    def _asked(self, agent: str, step: int) -> list[Event]:
        """At an agent's first reply: which tools it was offered, where the source declares any."""
        if not self._tools or agent in self.agents:
            return []
        return [ModelRequested(run=RUN, call=f"m{step}", agent=agent, instance=agent, step=step, tools=self._tools)]

    def _proposed(self, message: Message, place: int, given: object) -> ProposedCall:
        if not isinstance(given, dict):
            raise TraceError(
                "unknown_format",
                f"message {message.step}: tool call {place} must be an object, found {fields.kind(given)}",
            )
        function = given.get("function")
        spec = function if isinstance(function, dict) else given
        name = function if isinstance(function, str) else spec.get("name")
        arguments, raw = _arguments(next((spec[key] for key in ("arguments", "args") if key in spec), None))
        id_ = given.get("id")
        waiting = _Open(
            given=fields.clean(id_) if isinstance(id_, str) else "",
            call=self._id(id_, f"m{message.step}.{place}"),
            tool=fields.clean(name) if isinstance(name, str) and name else UNNAMED,
            agent=_agent(message),
        )
        self._waiting.append(waiting)
        return ProposedCall(waiting.call, waiting.tool, arguments, raw)

    def _id(self, given: object, place: str) -> str:
        """The source's own id, told from an earlier call that had the same, or one made of the call's place."""
        id_ = fields.clean(given) if isinstance(given, str) and given else place
        if id_ in self._used:
            id_ = f"{id_}@{place}"
        self._used.add(id_)
        return id_

    def _result(self, message: Message) -> Event:
        asked = self._answered(message)
        if asked is None:
            return sent(message, "tool", "tool", message.name or UNNAMED, self._listening[message.step])
        self._waiting.remove(asked)
        error = fields.words(message.given.get("error"))
        if not error and not fields.failed(message.content):
            return ToolReturned(
                run=RUN,
                call=asked.call,
                agent=asked.agent,
                instance=asked.agent,
                step=message.step,
                tool=asked.tool,
                output=message.content,
            )
        return ToolFailed(
            run=RUN,
            call=asked.call,
            agent=asked.agent,
            instance=asked.agent,
            step=message.step,
            tool=asked.tool,
            error=message.content or error,
        )

    def _answered(self, message: Message) -> _Open | None:
        """The call a result belongs to: by id, else the oldest waiting one that has none, of its name if it has one."""
        given = message.given.get("tool_call_id")
        if isinstance(given, str) and given:
            same = next((waiting for waiting in self._waiting if waiting.given == fields.clean(given)), None)
            if same is not None:
                return same
            open_ = [waiting for waiting in self._waiting if not waiting.given]
        else:
            open_ = list(self._waiting)
        named = [waiting for waiting in open_ if waiting.tool == message.name]
        return next(iter(named or open_), None)


def _agent(message: Message) -> str:
    return message.name or message.role


def _listeners(messages: list[Message]) -> list[str]:
    """For each message the agent that speaks next, or spoke last: whom a user's words are said to."""
    heard: list[str] = []
    after = ""
    for message in reversed(messages):
        if message.role.lower() not in fields.USER | fields.SYSTEM | fields.TOOL:
            after = _agent(message)
        heard.append(after)
    heard.reverse()
    last = next((agent for agent in reversed(heard) if agent), "")
    return [agent or last for agent in heard]


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


def _arguments(given: object) -> tuple[dict[str, object] | None, str | None]:
    """The arguments of a call, from JSON text or as they are; (None, text) where they are no JSON object."""
    if given is None or (isinstance(given, str) and not given.strip()):
        return {}, None
    value = given
    if isinstance(given, str):
        try:
            value = parsed(given)
        except TraceError:
            return None, fields.clean(given)
    arguments = fields.mapping(value)
    return (arguments, None) if arguments is not None else (None, fields.words(given))


IMPORTER = Importer(
    NAME, "messages with `tool_calls` and tool results, bare or under `messages` or `traj`", matches, read
)
