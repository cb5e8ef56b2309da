"""Effects brought about twice: a second payment, a second e-mail, where one was meant."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from misstep.anomalies import Anomaly
from misstep.calls import written
from misstep.events import MessageSent, ToolRequested, ToolReturned
from misstep.run import Run
from misstep.side_effects import SideEffect
from misstep.taxonomy import AnomalyType

K = TypeVar("K")
V = TypeVar("V")

_KEEP = 1024

_FAILED = re.compile(
    r"^\W*(?:\w+ )?(?:error|exception|fail(?:ed|ure)?|invalid|denied|unable|cannot|could not)\b|"
    r"\"(?:success|ok)\": ?false|\"status\": ?\"(?:error|fail)",
    re.IGNORECASE,
)
"""How a result begins that says the call did nothing."""


When = tuple[int, str | None]
"""The `seq` of a result, and the batch its call was of: what is of one batch came neither before nor after."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A call that changes something: its tool, its arguments as one text, the things it names, its batch."""

    tool: str
    arguments: str
    names: tuple[str, ...]
    batch: str | None
    lasting: bool


@dataclass(slots=True)
class Done:
    """What was asked for, by call; and, since the user last spoke, which effects came about and what they named."""

    asked: OrderedDict[str, Asked] = field(default_factory=OrderedDict)
    effects: OrderedDict[tuple[str, str], When] = field(default_factory=OrderedDict)
    """(tool, arguments) → when it came about."""
    changed: OrderedDict[str, dict[str, When]] = field(default_factory=OrderedDict)
    """What a call named ("": nothing, perhaps everything) → tool → when it changed that, for the last 8 tools."""

    def clear(self) -> None:
        """The user has spoken."""
        self.effects.clear()
        self.changed.clear()


@dataclass(frozen=True)
class DuplicateSideEffect:
    """
    A call whose effect lasts (compensable or irreversible) is made again with the same arguments, by whichever agent,
    although the first succeeded.

    No duplicates are: what the user has spoken in between, who may have asked for it again; other arguments, down to
    a comment; what another call on the same thing came between, which may have undone the first or made way for the
    second; a call that failed, or whose result begins like an error; calls of one batch, which were asked for
    together; calls without arguments, which do not say what they do; and tools of which nothing tells what they do.
    """

    type: ClassVar[AnomalyType] = AnomalyType.DUPLICATE_SIDE_EFFECT

    def __call__(self, event: ToolRequested | ToolReturned | MessageSent, run: Run) -> Anomaly | None:
        """Judge a proposed call; take in what came back and that the user spoke."""
        done = run.memory(self, Done)
        match event:
            case ToolRequested():
                return self._requested(event, run, done)
            case ToolReturned():
                self._returned(event, done)
            case MessageSent(trust="user"):
                done.clear()
        return None

    def _requested(self, event: ToolRequested, run: Run, done: Done) -> Anomaly | None:
        classified = run.side_effect(event.tool)
        if classified.side_effect is SideEffect.READ_ONLY:
            return None
        lasting = bool(event.arguments) and classified.side_effect.lasting and classified.known
        asked = Asked(event.tool, written(event.arguments), tuple(_names(event.arguments)), event.batch, lasting)
        _keep(done.asked, event.call or event.id, asked)
        first = done.effects.get((asked.tool, asked.arguments)) if lasting else None
        if first is None or self._excused(asked, first, done):
            return None
        return Anomaly(
            type=self.type,
            message=f"`{event.tool}` called again with the same arguments after it had succeeded; it is {classified}",
            evidence=(first[0],),
            confidence=0.9 if classified.declared else 0.6,
            facts={"tool": event.tool},
        )

    def _excused(self, asked: Asked, first: When, done: Done) -> bool:
        """Whether the two are of one batch, or another tool has changed since what they are about."""
        if _together(first[1], asked.batch):
            return True
        changes = (change for name in ("", *asked.names) for change in done.changed.get(name, {}).items())
        return any(
            tool != asked.tool and (when[0] > first[0] or _together(when[1], first[1])) for tool, when in changes
        )

    def _returned(self, event: ToolReturned, done: Done) -> None:
        asked = done.asked.pop(event.call or "", None)
        if asked is None or _FAILED.search(event.output[:200]):
            return
        when = (event.seq, asked.batch)
        for name in asked.names or ("",):
            tools = done.changed.get(name, {})
            tools.pop(asked.tool, None)
            _keep(done.changed, name, {**dict(list(tools.items())[-7:]), asked.tool: when})
        if asked.lasting:
            _keep(done.effects, (asked.tool, asked.arguments), when)


def _together(one: str | None, other: str | None) -> bool:
    return one is not None and one == other


def _names(arguments: Mapping[str, Any]) -> Iterator[str]:
    """The things a call names: texts of at least three characters, numbers of at least four digits; 32 at most."""
    for value in list(arguments.values())[:32]:
        for item in value[:32] if isinstance(value, list | tuple) else (value,):
            if isinstance(item, str | int) and len(str(item)) >= (3 if isinstance(item, str) else 4):
                yield str(item)[:80]


def _keep(held: OrderedDict[K, V], key: K, value: V) -> None:
    held[key] = value
    held.move_to_end(key)
    if len(held) > _KEEP:
        held.popitem(last=False)
