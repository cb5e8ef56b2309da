"""What goes wrong between agents: work that is passed round, and senders who leave nobody room."""

from __future__ import annotations

import functools
import re
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import ClassVar

from misstep.anomalies import Anomaly
from misstep.calls import canonical
from misstep.events import (
    HandoffRequested,
    MessageSent,
    ModelResponded,
    ToolFailed,
    ToolRequested,
    ToolReturned,
)
from misstep.run import Run
from misstep.taxonomy import AnomalyType

_NAMED = re.compile(
    r"(?:transfer|hand_?off|delegate)_(?:back_)?(?:work_)?to_(\w+)|"
    r"(?:delegate|ask)[ _](?:work|question)[ _]to[ _]co-?worker",
    re.IGNORECASE,
)
_TARGETS = ("coworker", "agent", "agent_name", "target", "to", "recipient", "assignee")


@dataclass(slots=True)
class _Handoff:
    """One hand-off, or those of one batch to one agent, and what was known when it was asked for."""

    seq: int
    batch: str | None
    work: int
    words: int
    back: bool
    """Whether the other agent had handed the task on since the hand-off before."""
    called: bool
    """Whether it was a tool's call, which the framework may still tell of as a hand-off."""
    contents: set[str] = field(default_factory=set)
    """What was handed over, in lower case with single spaces; of a batch at most 64."""


@dataclass(slots=True)
class _Passing:
    """Who handed over to whom; at most 1024 pairs with their last 8 hand-offs."""

    pairs: OrderedDict[tuple[str, str], deque[_Handoff]] = field(default_factory=OrderedDict)
    last: OrderedDict[str, int] = field(default_factory=OrderedDict)
    """Agent → `seq` of the last hand-off by it, of as many agents."""
    work: int = 0
    """How many results of tools, other than those that delegate, brought somebody news."""
    batch: str | None = None
    known: tuple[int, int] = (0, 0)
    """Work and words known when the first call of `batch` was asked for: its calls are simultaneous."""

    def handed(self, agent: str, seq: int, keep: int = 1024) -> None:
        """An agent has handed over."""
        self.last[agent] = seq
        self.last.move_to_end(agent)
        if len(self.last) > keep:
            self.last.popitem(last=False)

    def of(self, pair: tuple[str, str], keep: int = 1024) -> deque[_Handoff]:
        """The last hand-offs of a pair, oldest first."""
        found = self.pairs.setdefault(pair, deque(maxlen=8))
        self.pairs.move_to_end(pair)
        if len(self.pairs) > keep:
            self.pairs.popitem(last=False)
        return found


@dataclass(frozen=True)
class DelegationLoop:
    """
    One agent hands over to the same other one for the *limit*-th time, and nothing was done in between.

    Each time the other one has handed the task on itself, or was given it in the same words: an agent that gives one
    piece of work after another to the same worker is no loop.
    Done is what brought news: a result of any tool that does not itself delegate, or more than `words` words not
    heard in the run before, since the last time. Hand-offs are those the framework tells, and calls of tools that
    delegate by their name (`transfer_to_x`, "Delegate work to coworker"). Those of one batch count once.
    """

    limit: int = 3
    words: int = 40
    type: ClassVar[AnomalyType] = AnomalyType.DELEGATION_LOOP

    def __post_init__(self) -> None:
        if not 2 <= self.limit <= 8:  # no more hand-offs are kept
            raise ValueError(f"`limit` must be 2 to 8, found {self.limit!r}")

    def __call__(self, event: HandoffRequested | ToolRequested | ToolReturned | ToolFailed, run: Run) -> Anomaly | None:
        """Judge one hand-off; count what is done between them."""
        if isinstance(event, ToolReturned | ToolFailed):
            call = run.calls.get(event.call)
            if call is not None and call.news and _delegates(event.tool) is None:
                run.memory(self, _Passing).work += 1
            return None
        passing = run.memory(self, _Passing)
        if event.batch is None or event.batch != passing.batch:
            passing.batch, passing.known = event.batch, (passing.work, run.provenance.grown)
        target = event.target if isinstance(event, HandoffRequested) else _target(event)
        if not target:
            return None
        return self._judge(event, _normal(target), passing)

    def _judge(self, event: HandoffRequested | ToolRequested, target: str, passing: _Passing) -> Anomaly | None:
        agent = _normal(event.agent or event.instance)
        past = passing.of((agent, target))
        if isinstance(event, HandoffRequested) and past and past[-1].called:
            past[-1].called = False
            return None
        if not past or event.batch is None or past[-1].batch != event.batch:
            back = bool(past) and passing.last.get(target, -1) > past[-1].seq
            past.append(_Handoff(event.seq, event.batch, *passing.known, back, isinstance(event, ToolRequested)))
        content = _content(event)
        if len(past[-1].contents) < 64:
            past[-1].contents.add(content)
        passing.handed(agent, event.seq)
        if len(past) < self.limit:
            return None
        streak = [past[-place] for place in range(1, self.limit + 1)]
        if not all(one.back for one in streak[:-1]) and not all(content in one.contents for one in streak):
            return None
        if streak[0].work > streak[-1].work or streak[0].words - streak[1].words > self.words:
            return None
        return Anomaly(
            type=self.type,
            message=f"`{event.agent or 'the agent'}` hands over to `{target}` for the {self.limit}. time, "
            "and nothing was done in between",
            evidence=tuple(handoff.seq for handoff in streak),
            confidence=0.8,
            facts={"agent": target, "times": self.limit},
        )


@dataclass(slots=True)
class _Streaks:
    """For each listener who spoke last and how often in a row; at most 1024 listeners."""

    by: OrderedDict[str, tuple[str, int]] = field(default_factory=OrderedDict)

    def heard(self, listener: str, sender: str, keep: int = 1024) -> int:
        """How many messages in a row the listener has now heard from this sender."""
        last, times = self.by.get(listener, ("", 0))
        times = times + 1 if last == sender else 1
        self.by[listener] = (sender, times)
        self.by.move_to_end(listener)
        if len(self.by) > keep:
            self.by.popitem(last=False)
        return times


@dataclass(frozen=True)
class MessageFlood:
    """
    One sender's messages in a row to one listener, with nobody else coming to speak in between, or one huge message.

    The listener's own replies count as somebody else; system prompts and tool results are nobody's messages. A streak
    is told of when it reaches `messages`, and again each time it has doubled.
    """

    messages: int = 30
    characters: int = 500_000
    type: ClassVar[AnomalyType] = AnomalyType.MESSAGE_FLOOD

    def __call__(self, event: MessageSent | ModelResponded, run: Run) -> Anomaly | None:
        """Judge one message by those before it."""
        streaks = run.memory(self, _Streaks)
        if isinstance(event, ModelResponded):
            for listener in (event.instance, ""):  # what is said to nobody in particular anybody may answer
                streaks.heard(listener, "")
            return None
        if event.role in ("system", "tool"):
            return None
        sender = event.sender or event.role
        times = streaks.heard(event.instance, sender)
        times_over, rest = divmod(times, self.messages)
        flooded = rest == 0 and times_over & (times_over - 1) == 0 and times_over > 0
        if not flooded and len(event.content) <= self.characters:
            return None
        much = f"{times} messages in a row" if flooded else f"{len(event.content)} characters at once"
        return Anomaly(
            type=self.type,
            message=f"`{sender}` sends `{event.recipient or event.instance or 'the others'}` {much}",
            evidence=(event.seq,),
            facts={"agent": sender, "times": times},
        )


def _target(event: ToolRequested) -> str:
    """Whom a call delegates to; empty where it delegates to nobody, or does not say."""
    named = _delegates(event.tool)
    if named is None:
        return ""
    given = (event.arguments.get(name) for name in _TARGETS)
    return named or next((value for value in given if isinstance(value, str)), "")


@functools.lru_cache(maxsize=4096)
def _delegates(tool: str) -> str | None:
    """Whom a tool of that name delegates to, "" where its arguments say so; None where it does not delegate."""
    found = _NAMED.fullmatch(tool.strip())
    return None if found is None else found[1] or ""


def _content(event: HandoffRequested | ToolRequested) -> str:
    if isinstance(event, HandoffRequested):
        return _normal(event.content)
    return _normal(canonical(event.arguments, event.raw))


def _normal(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").split())
