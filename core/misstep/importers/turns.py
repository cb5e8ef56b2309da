"""
Turns: what one message says, whatever format it came in, and the events it becomes.

A format that is a conversation only says what its turns are; which call a result answers is found out here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from misstep.errors import TraceError
from misstep.events import (
    Event,
    HandoffRequested,
    MessageSent,
    ModelRequested,
    ModelResponded,
    ProposedCall,
    Role,
    Tool,
    ToolFailed,
    ToolReturned,
    Trust,
)
from misstep.importers import fields
from misstep.importers.load import parsed
from misstep.importers.trace import RUN

UNNAMED = "tool"
"""What a tool is called whose name is not told."""

Part = Literal["user", "system", "assistant", "tool", "aside"]
"""Who speaks; an `aside` is an agent's words that are no model's reply."""

_ROLE: dict[Part, Role] = {"aside": "assistant"}
_TRUST: dict[Part, Trust] = {"user": "user", "system": "system", "tool": "tool"}


@dataclass(frozen=True, slots=True)
class Asked:
    """A call as its source writes it: its id ("" for none), its tool, its arguments, or the text that holds none."""

    id: str
    tool: str
    arguments: dict[str, object] | None
    raw: str | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """
    What a message says: at which step, who, in which part.

    A reply may propose `calls` or hand over to `target`. A tool's turn `answers` a call by its id, else by `tool`,
    else in order; `failed` says whether it is an error. `trust` overrides that of the part; what is `history` was
    said before.
    """

    step: int
    part: Part
    speaker: str
    content: str = ""
    calls: tuple[Asked, ...] = ()
    answers: str = ""
    tool: str = ""
    failed: bool = False
    target: str = ""
    trust: Trust | None = None
    history: bool = False


def asked(id_: object, name: object, given: object) -> Asked:
    """A call from its fields: `given` are its arguments, as an object or as JSON text."""
    arguments, raw = _arguments(given)
    return Asked(fields.text(id_), fields.text(name).strip() or UNNAMED, arguments, raw)


def _arguments(given: object) -> tuple[dict[str, object] | None, str | None]:
    """The arguments of a call; (None, text) where they are no JSON object."""
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


@dataclass(frozen=True, slots=True)
class _Open:
    """A call that waits for its result: the id its source gave it ("" for none), ours, its tool, its agent."""

    given: str
    call: str
    tool: str
    agent: str


class Dialogue:
    """Turns in order, as events: it knows which calls are open, and which agents have spoken."""

    def __init__(self, tools: tuple[Tool, ...] = ()) -> None:
        self.agents: dict[str, None] = {}
        self._tools = tools
        self._waiting: deque[_Open] = deque(maxlen=4096)
        self._used: set[str] = set()

    def events(self, turn: Turn, listener: str = "") -> list[Event]:
        """What a turn tells; `listener` is the agent it is said to, where a person, the system or a tool speaks."""
        match turn.part:
            case "assistant":
                return self._reply(turn)
            case "tool":
                return [self._result(turn, listener)]
            case "aside":
                return self._aside(turn)
            case _:
                return [_sent(turn, listener)]

    def waits(self, answers: str, tool: str) -> bool:
        """Whether a call is open that a result answers: by the call's id, or by its tool where there is no id."""
        return any(call.given == answers if answers else call.tool == tool for call in self._waiting)

    def _reply(self, turn: Turn) -> list[Event]:
        offered = self._offered(turn)
        self.agents.setdefault(turn.speaker)
        reply = ModelResponded(
            run=RUN,
            call=f"m{turn.step}",
            agent=turn.speaker,
            instance=turn.speaker,
            step=turn.step,
            content=turn.content,
            calls=tuple(self._proposed(turn, place, call) for place, call in enumerate(turn.calls)),
        )
        return [*offered, reply, *_handoff(turn)]

    def _offered(self, turn: Turn) -> list[Event]:
        """At an agent's first reply: which tools it was offered, where the source declares any."""
        if not self._tools or turn.speaker in self.agents:
            return []
        agent = turn.speaker
        call = f"m{turn.step}"
        return [ModelRequested(run=RUN, call=call, agent=agent, instance=agent, step=turn.step, tools=self._tools)]

    def _proposed(self, turn: Turn, place: int, call: Asked) -> ProposedCall:
        id_ = self._id(call.id, f"m{turn.step}.{place}")
        self._waiting.append(_Open(call.id, id_, call.tool, turn.speaker))
        return ProposedCall(id_, call.tool, call.arguments, call.raw)

    def _id(self, given: str, place: str) -> str:
        """The source's own id, told from an earlier call that had the same, or one made of the call's place."""
        id_ = given or place
        if id_ in self._used:
            id_ = f"{id_}@{place}"
        self._used.add(id_)
        return id_

    def _result(self, turn: Turn, listener: str) -> Event:
        call = self._answered(turn)
        if call is None:
            return _sent(turn, listener)
        self._waiting.remove(call)
        if not turn.failed:
            return ToolReturned(
                run=RUN,
                call=call.call,
                agent=call.agent,
                instance=call.agent,
                step=turn.step,
                tool=call.tool,
                output=turn.content,
                history=turn.history,
            )
        return ToolFailed(
            run=RUN,
            call=call.call,
            agent=call.agent,
            instance=call.agent,
            step=turn.step,
            tool=call.tool,
            error=turn.content,
            history=turn.history,
        )

    def _answered(self, turn: Turn) -> _Open | None:
        """The call a result belongs to: by id, else the oldest waiting one that has none, of its tool if it has one."""
        open_ = list(self._waiting)
        if turn.answers:
            same = next((waiting for waiting in open_ if waiting.given == turn.answers), None)
            if same is not None:
                return same
            open_ = [waiting for waiting in open_ if not waiting.given]
        named = [waiting for waiting in open_ if waiting.tool == turn.tool]
        return next(iter(named or open_), None)

    def _aside(self, turn: Turn) -> list[Event]:
        self.agents.setdefault(turn.speaker)
        return [_sent(turn, turn.speaker), *_handoff(turn)]


def told(turns: Sequence[Turn], tools: tuple[Tool, ...] = ()) -> tuple[list[Event], list[str]]:
    """A whole conversation as events, and the agents in it."""
    dialogue = Dialogue(tools)
    heard = zip(turns, listeners(turns), strict=True)
    return [event for turn, listener in heard for event in dialogue.events(turn, listener)], list(dialogue.agents)


def listeners(turns: Iterable[Turn]) -> list[str]:
    """For each turn the agent that speaks next, or spoke last: whom a user's words are said to."""
    heard: list[str] = []
    after = ""
    for turn in reversed(list(turns)):
        if turn.part == "assistant":
            after = turn.speaker
        heard.append(after)
    heard.reverse()
    last = next((agent for agent in reversed(heard) if agent), "")
    return [agent or last for agent in heard]


def _sent(turn: Turn, instance: str) -> MessageSent:
    return MessageSent(
        run=RUN,
        role=_ROLE.get(turn.part, turn.part),  # type: ignore[arg-type]
        trust=turn.trust or _TRUST.get(turn.part, "model"),
        content=turn.content,
        sender=turn.speaker,
        instance=instance,
        step=turn.step,
        history=turn.history,
    )


def _handoff(turn: Turn) -> list[Event]:
    if not turn.target:
        return []
    agent = turn.speaker
    return [
        HandoffRequested(run=RUN, agent=agent, instance=agent, step=turn.step, target=turn.target, content=turn.content)
    ]
