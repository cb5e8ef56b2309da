"""
Spans: what a tracing tool records of a run, as a tree of timed pieces of work, and the events it becomes.

A span's step is its rank by start time. A model is shown the whole conversation at every call: only what was not
heard before becomes an event.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from misstep.errors import TraceError
from misstep.events import (
    Event,
    ModelFailed,
    ModelRequested,
    RetrievalRequested,
    RetrievalReturned,
    RunEnded,
    RunStarted,
    Tool,
    ToolFailed,
    ToolRequested,
    ToolReturned,
    TurnEnded,
    TurnStarted,
)
from misstep.importers.trace import RUN, Trace
from misstep.importers.turns import Asked, Dialogue, Turn, listeners

AGENT = "agent"
"""Who acts where no span says it."""

Kind = Literal["agent", "model", "tool", "retrieval", "messages", "other"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """
    One piece of work.

    `start` and `end` are in any unit, the same for all; `agent` is who does it, where the span says so itself. A
    model `heard` messages and `said` one; spans of `messages` `said` what passed between agents; a tool got `call`
    (its arguments may not be `recorded`) and told `output`, which may say which call it `answered`; a retriever was
    asked `query` and found `documents`. `error` is None where the work was done.
    """

    id: str
    parent: str = ""
    start: float = 0
    end: float = 0
    kind: Kind = "other"
    name: str = ""
    agent: str = ""
    heard: tuple[Turn, ...] = ()
    said: tuple[Turn, ...] = ()
    tools: tuple[Tool, ...] | None = None
    call: Asked | None = None
    recorded: bool = True
    output: str | None = None
    answered: str = ""
    query: str = ""
    documents: tuple[str, ...] = ()
    error: str | None = None


def made(source: str, label: str, spans: Iterable[Span]) -> Trace:
    """The trace of the spans of one run. Raises `TraceError` where none of them tells of an agent's work."""
    ordered = sorted(spans, key=lambda span: span.start)
    if all(span.kind == "other" for span in ordered):
        raise TraceError("unknown_format", f"none of its {len(ordered)} spans is a call of a model or tool")
    work = _Work(ordered)
    events = work.events()
    root = next((span for span in ordered if span.parent not in work.ranks), ordered[0])
    status: Literal["failed", "completed"] = "completed" if root.error is None else "failed"
    end = RunEnded(run=RUN, status=status, error=root.error, step=len(ordered) - 1)
    start = RunStarted(run=RUN, mode="shadow", step=0)
    return Trace(label, source, (start, *events, end), len(ordered), tuple(work.agents), None)


class _Work:
    """The spans of one run, told in the order of time."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self.ranks = {span.id: rank for rank, span in enumerate(spans)}
        self.agents: dict[str, None] = {}
        self._spans = spans
        self._agents = self._owners()
        self._dialogue = Dialogue()
        self._passed = self._between()
        self._heard: Counter[tuple[str, bytes]] = Counter()
        self._told = {call.id for span in spans for turn in span.said for call in turn.calls if span.kind == "messages"}
        self._busy = self._with_models()

    def events(self) -> list[Event]:
        """Every span's beginning and end, in the order of time."""
        moments = []
        for rank, span in enumerate(self._spans):
            moments.append((span.start, 1, rank, 0))
            ends = max(span.end, span.start)
            moments.append((ends, 0, -rank, 1) if ends > span.start else (ends, 1, rank, 1))
        return [
            event
            for _, _, rank, last in sorted(moments)
            for event in (self._ends(abs(rank)) if last else self._begins(rank))
        ]

    def _owners(self) -> list[str]:
        """For each span the agent that does it: its own, else that of the nearest span above that has one."""
        owners: dict[str, str] = {}
        by_id = {span.id: span for span in self._spans}
        for span in self._spans:
            path: list[str] = []
            at: Span | None = span
            while at is not None and at.id not in owners and not at.agent:
                owners[at.id] = ""
                path.append(at.id)
                at = by_id.get(at.parent)
            found = "" if at is None else at.agent or owners[at.id]
            for id_ in path:
                owners[id_] = found
        return [span.agent or owners.get(span.id, "") or AGENT for span in self._spans]

    def _between(self) -> dict[int, list[tuple[Turn, str]]]:
        """The messages that passed between agents, by the rank of their span, each with the agent it is said to."""
        passed = [
            replace(turn, step=rank)
            for rank, span in enumerate(self._spans)
            if span.kind == "messages"
            for turn in span.said
        ]
        found: dict[int, list[tuple[Turn, str]]] = defaultdict(list)
        for turn, listener in zip(passed, listeners(passed), strict=True):
            found[turn.step].append((turn, listener))
        return found

    def _with_models(self) -> set[str]:
        """The spans that have a model's call below them."""
        by_id = {span.id: span for span in self._spans}
        found: set[str] = set()
        for span in self._spans:
            at = by_id.get(span.parent) if span.kind == "model" else None
            while at is not None and at.id not in found:
                found.add(at.id)
                at = by_id.get(at.parent)
        return found

    def _is_model(self, span: Span) -> bool:
        """Whether a span is a model's call, or stands for one: an agent's whose models are not recorded."""
        return span.kind == "model" or (span.kind == "agent" and bool(span.said) and span.id not in self._busy)

    def _begins(self, rank: int) -> list[Event]:
        span, agent = self._spans[rank], self._agents[rank]
        events: list[Event] = []
        if span.kind == "agent":
            self.agents.setdefault(agent)
            events.append(TurnStarted(run=RUN, call=f"t{rank}", agent=agent, instance=agent, step=rank))
        if self._is_model(span):
            events += self._asks(rank, span, agent)
        elif span.kind == "messages":
            events += [event for turn, to in self._passed[rank] for event in self._dialogue.events(turn, to)]
            self.agents |= self._dialogue.agents
        elif span.kind == "tool":
            events += self._calls(rank, span, agent)
        elif span.kind == "retrieval":
            events.append(
                RetrievalRequested(run=RUN, call=f"r{rank}", agent=agent, instance=agent, step=rank, query=span.query)
            )
        return events

    def _ends(self, rank: int) -> list[Event]:
        span, agent = self._spans[rank], self._agents[rank]
        events: list[Event] = []
        if self._is_model(span):
            events += self._replies(rank, span, agent)
        elif span.kind == "tool":
            events += self._returns(rank, span, agent)
        elif span.kind == "retrieval":
            events.append(
                RetrievalReturned(
                    run=RUN, call=f"r{rank}", agent=agent, instance=agent, step=rank, documents=span.documents
                )
            )
        if span.kind == "agent":
            events.append(TurnEnded(run=RUN, call=f"t{rank}", agent=agent, instance=agent, step=rank))
        return events

    def _asks(self, rank: int, span: Span, agent: str) -> list[Event]:
        """What a model is shown and had not heard, and that it is called."""
        events = [event for turn in self._unheard(span.heard, agent) for event in self._hears(rank, turn, agent)]
        events.append(
            ModelRequested(
                run=RUN,
                call=f"m{rank}",
                agent=agent,
                instance=agent,
                step=rank,
                model=span.name if span.kind == "model" else "",
                tools=span.tools,
                messages=len(span.heard),
            )
        )
        return events

    def _unheard(self, turns: tuple[Turn, ...], agent: str) -> list[Turn]:
        """Those of the turns that neither this agent was shown before nor anybody in this run said."""
        seen: Counter[tuple[str, bytes]] = Counter()
        new = []
        for turn in turns:
            key = _key(turn, agent)
            seen[key] += 1
            if seen[key] > self._heard[key]:
                self._heard[key] = seen[key]
                new.append(turn)
        return new

    def _hears(self, rank: int, turn: Turn, agent: str) -> list[Event]:
        if turn.part == "assistant":
            said_before = Turn(rank, "aside", turn.speaker or agent, turn.content, history=True)
            return self._dialogue.events(said_before, agent)
        if turn.part == "tool" and turn.answers and not self._dialogue.waits(turn.answers, turn.tool):
            return []
        return self._dialogue.events(replace(turn, step=rank), agent)

    def _replies(self, rank: int, span: Span, agent: str) -> list[Event]:
        self.agents.setdefault(agent)
        if not span.said:
            if span.error is None:
                return []
            return [ModelFailed(run=RUN, call=f"m{rank}", agent=agent, instance=agent, step=rank, error=span.error)]
        events: list[Event] = []
        for turn in span.said:
            reply = replace(turn, step=rank, part="assistant", speaker=agent)
            self._heard[_key(reply, agent)] += 1
            events += self._dialogue.events(reply)
        return events

    def _calls(self, rank: int, span: Span, agent: str) -> list[Event]:
        """A tool's call that no model proposed, as far as is recorded."""
        call = span.call
        if call is None or not span.recorded or self._is_told(span, call) or self._proposed(span, call):
            return []
        return [
            ToolRequested(
                run=RUN,
                call=f"s{rank}",
                agent=agent,
                instance=agent,
                step=rank,
                tool=call.tool,
                arguments=call.arguments or {},
                raw=call.raw,
            )
        ]

    def _returns(self, rank: int, span: Span, agent: str) -> list[Event]:
        """A tool's result: of the call a model proposed, by id or by name, else of the span's own."""
        call = span.call
        if call is None or self._is_told(span, call) or (span.output is None and span.error is None):
            return []
        content = span.output if span.error is None or span.output else span.error
        turn = Turn(
            rank,
            "tool",
            call.tool,
            content or "",
            answers=span.answered or call.id,
            tool=call.tool,
            failed=span.error is not None,
        )
        self._heard[_key(turn, agent)] += 1
        if self._proposed(span, call):
            return self._dialogue.events(turn, agent)
        return [self._own(rank, turn, agent)]

    def _is_told(self, span: Span, call: Asked) -> bool:
        """Whether messages between agents tell of a tool's call and its result."""
        return (span.answered or call.id) in self._told

    def _proposed(self, span: Span, call: Asked) -> bool:
        """Whether a model proposed a tool's call, and it is still open."""
        return self._dialogue.waits(span.answered or call.id, call.tool)

    def _own(self, rank: int, turn: Turn, agent: str) -> Event:
        if turn.failed:
            return ToolFailed(
                run=RUN,
                call=f"s{rank}",
                agent=agent,
                instance=agent,
                step=rank,
                tool=turn.tool,
                error=turn.content,
            )
        return ToolReturned(
            run=RUN, call=f"s{rank}", agent=agent, instance=agent, step=rank, tool=turn.tool, output=turn.content
        )


def _key(turn: Turn, agent: str) -> tuple[str, bytes]:
    """What a turn is known again by: what people and the system say is said to one agent, all else to everybody."""
    digest = hashlib.blake2b(digest_size=12)
    digest.update(f"{turn.part}\x1f{turn.answers}\x1f{turn.content}".encode("utf-8", "replace"))
    for call in turn.calls:
        digest.update(f"\x1f{call.id}\x1f{call.tool}\x1f{call.arguments}".encode("utf-8", "replace"))
    return (agent if turn.part in ("user", "system") else "", digest.digest())
