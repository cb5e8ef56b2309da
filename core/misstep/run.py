"""A run: its events in order, and indexes that answer a detector's questions at constant cost."""

from __future__ import annotations

import copy
import json
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

from misstep.arguments import Check
from misstep.calls import CallIndex
from misstep.events import (
    CheckpointRestored,
    E,
    Event,
    Evidence,
    MemoryRead,
    MessageSent,
    ModelFailed,
    ModelRequested,
    ModelResponded,
    RetrievalReturned,
    RunEnded,
    RunResumed,
    RunStarted,
    Tool,
    ToolCancelled,
    ToolFailed,
    ToolRequested,
    ToolReturned,
    Usage,
    text_of,
)
from misstep.provenance import SOURCE, Provenance, Source
from misstep.redact import redacted
from misstep.side_effects import Classes, Classified

M = TypeVar("M")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """
    What one run may keep in memory: its last `events`, `calls` by id, distinct `tokens` per generation, `agents`
    (instances), and `quote` characters of each piece of evidence.
    """

    events: int = 2000
    calls: int = 4096
    tokens: int = 50_000
    agents: int = 1024
    quote: int = 300


@dataclass(slots=True)
class Spent:
    """What a run or an agent has used so far."""

    model_calls: int = 0
    tool_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    estimated: bool = False
    """True once a count is an estimate because the framework reported none."""

    def add(self, usage: Usage) -> None:
        """Count one model call's tokens."""
        self.input_tokens += usage.input_tokens
        self.output_tokens += usage.output_tokens
        self.estimated = self.estimated or usage.estimated


@dataclass(slots=True)
class Instance:
    """One copy of one agent: its name, its own turn counter, what it spent, its errors that nobody dealt with yet."""

    agent: str = ""
    turn: int = -1
    step: int = 0
    """The step of its model's last reply: what another try of that reply shares."""
    spent: Spent = field(default_factory=Spent)
    open_errors: deque[int] = field(default_factory=lambda: deque(maxlen=32))
    """`seq` of failed calls since the instance last got a result."""
    model: str = ""
    """The model it was last asked with."""
    tools: Mapping[str, Tool] = field(default_factory=dict)
    """The tools its model was last given, by name; none where nobody said."""


@dataclass(slots=True)
class Cursor(Generic[T]):
    """How far into a conversation an adapter has read; `Run.unread` moves it."""

    count: int = 0
    last: str | None = None
    seen: deque[str] = field(default_factory=lambda: deque(maxlen=512))


class Run:
    """
    One run under watch.

    `append` stamps and indexes an event in time that does not depend on the run's length. Whoever appends or reads
    holds `lock`; it is held for nothing else.
    """

    def __init__(
        self,
        id: str,  # noqa: A002 - the field's own name
        limits: Limits | None = None,
        classes: Classes | None = None,
    ) -> None:
        self.id = id
        self.limits = limits or Limits()
        self.classes = classes or Classes()
        self.lock = threading.RLock()
        self.started = time.time()
        self.touched = time.monotonic()
        self.events: deque[Event] = deque(maxlen=self.limits.events)
        self.calls = CallIndex(self.limits.calls)
        self.provenance = Provenance(self.limits.tokens)
        self.instances: OrderedDict[str, Instance] = OrderedDict()
        self.interactions: dict[tuple[str, str], int] = {}
        """(sender, recipient) → messages: who talked to whom."""
        self.tools: dict[str, Tool] = {}
        """Every tool the application declared to a model."""
        self.checks: dict[str, Check] = {}
        """How its framework judges a tool's arguments, where a seat had the tool itself at hand."""
        self.says: dict[str, Classified] = {}
        """What tools say of themselves, where a seat had the tool itself at hand."""
        self.called: dict[str, None] = {}
        """The names of the tools that were asked for."""
        self.agents: dict[str, None] = {}
        """Agent names in order of appearance."""
        self.spent = Spent()
        self.task: str | None = None
        self.ended: RunEnded | None = None
        self.steps = 0
        """The number of messages so far."""
        self._first = time.monotonic()
        self._unheard = False
        self._count = 0
        self._memories: dict[object, Any] = {}
        self._cursors: OrderedDict[str, Cursor[Any]] = OrderedDict()
        self._speakers: OrderedDict[str, str] = OrderedDict()
        self._step_of_batch: OrderedDict[str, int] = OrderedDict()

    def continued(self, id: str) -> Run:  # noqa: A002 - as above
        """The run that goes on where this one was interrupted: of another id, with all that this one knows."""
        run = copy.copy(self)
        run.id, run.ended, run.touched = id, None, time.monotonic()
        return run

    def begin_unheard(self) -> None:
        """What the run continues was not heard here: until a conversation is read, nobody knows what was never said."""
        self._unheard, self.provenance.complete = True, False

    # -- what happened ------------------------------------------------------------------------------------------------

    def append(self, event: E) -> E:
        """Give an event its place in the run and index it."""
        self._stamp(event)
        self.events.append(event)
        index = _INDEX.get(type(event))
        if index is not None:
            index(self, event)
        return event

    def find(self, seq: int) -> Event | None:
        """The event with that `seq`, or None once it is too long ago; O(1)."""
        if not self.events:
            return None
        position = seq - self.events[0].seq
        return self.events[position] if 0 <= position < len(self.events) else None

    def evidence(self, seqs: Sequence[int]) -> tuple[Evidence, ...]:
        """The events behind those numbers, with the words that show it as far as they are still kept."""
        return tuple(self._evidence(seq) for seq in seqs)

    def progressed(self, event: ToolRequested, since: Any) -> bool:
        """Whether the event's instance learned anything new in a round after the call `since`."""
        return self.calls.progressed(event, since)

    def side_effect(self, tool: str) -> Classified:
        """What a call of that tool does to the world, and how that is known."""
        declared = self.tools.get(tool)
        says = self.says.get(tool) or (declared.says if declared else None)
        return self.classes.of(tool, declared.description if declared else "", says)

    def check_by(self, checks: Mapping[str, Check]) -> None:
        """Have the arguments of these tools judged as their framework does; at most as many as `limits.agents`."""
        self.checks.update(checks)
        while len(self.checks) > self.limits.agents:
            self.checks.pop(next(iter(self.checks)))

    def heard_of(self, event: ToolRequested) -> None:
        """Keep what the called tool says of itself; at most as many tools as `limits.agents`."""
        self.called[event.tool] = None
        if isinstance(event.says, Classified):
            self.says[event.tool] = event.says
        for held in cast("list[dict[str, Any]]", [self.called, self.says]):
            if len(held) > self.limits.agents:
                held.pop(next(iter(held)))

    # -- what others remember -----------------------------------------------------------------------------------------

    def memory(self, owner: Hashable, factory: Callable[[], M]) -> M:
        """A detector's own state in this run: made by `factory` at first use, a slotted object that serialises."""
        found = self._memories.get(owner)
        if found is None:
            found = self._memories[owner] = factory()
        return found

    def unread(self, instance: str, messages: Sequence[T], key: Callable[[T], str]) -> tuple[Sequence[T], int | None]:
        """
        The messages of an instance's conversation not read before, and how many of the earlier ones were dropped.

        Where the conversation only grew, `key` is called on the new messages and one old one; where its earlier part
        was changed (None becomes a number), on all.
        """
        if self._unheard:
            self._unheard, self.provenance.complete = False, True
        cursor = self._cursors.setdefault(instance, Cursor())
        self._cursors.move_to_end(instance)
        if len(self._cursors) > self.limits.agents:
            self._cursors.popitem(last=False)
        dropped = None
        grown = cursor.count <= len(messages) and (cursor.count == 0 or key(messages[cursor.count - 1]) == cursor.last)
        if grown:
            new: Sequence[T] = messages[cursor.count :]
        else:
            known = set(cursor.seen)
            new = [message for message in messages if key(message) not in known]
            dropped = max(0, cursor.count - (len(messages) - len(new)))
        keys = [key(message) for message in new]
        cursor.seen.extend(keys)
        cursor.count = len(messages)
        cursor.last = (keys[-1] if grown and keys else key(messages[-1])) if messages else None
        return new, dropped

    def has_read(self, instance: str) -> bool:
        """Whether anything of the instance's conversation was read."""
        return instance in self._cursors

    def speaker(self, message: str) -> str | None:
        """The instance whose model said a message in this run, by the message's id."""
        return self._speakers.get(message)

    def spoke(self, instance: str, message: str) -> None:
        """A message is what the instance's model said; passed on in other words, it may have another id."""
        self._speakers[message] = instance
        if len(self._speakers) > self.limits.calls:
            self._speakers.popitem(last=False)

    # -- inside -------------------------------------------------------------------------------------------------------

    def instance(self, path: str, agent: str = "") -> Instance:
        """The record of an instance, made at first sight."""
        found = self.instances.get(path)
        if found is None:
            found = self.instances[path] = Instance(agent)
            if len(self.instances) > self.limits.agents:
                self.instances.popitem(last=False)
        else:
            self.instances.move_to_end(path)
        if agent:
            found.agent = agent
            if len(self.agents) < self.limits.agents:
                self.agents.setdefault(agent)
        return found

    def _stamp(self, event: Event) -> None:
        now = time.monotonic()
        self.touched = now
        instance = self.instance(event.instance, event.agent)
        set_ = object.__setattr__
        set_(event, "seq", self._count)
        if not event.id:
            set_(event, "id", f"e{self._count}")
        self._count += 1
        if not event.time:
            elapsed = now - self._first
            set_(event, "time", self.started + elapsed)
            set_(event, "elapsed", elapsed)
        if event.step is None:
            set_(event, "step", self._step(event, instance))
        elif event.step >= self.steps:
            self.steps = event.step + 1
        if isinstance(event, ModelResponded):
            instance.step = event.step or 0
        if event.turn is None:
            if _is_message(event):
                instance.turn += 1
            set_(event, "turn", max(instance.turn, 0))

    def _step(self, event: Event, instance: Instance) -> int:
        """A message takes the next step; what belongs to a message shares its step; anything else is at the last."""
        if isinstance(event, ToolRequested):
            known = self._step_of_batch.get(event.batch or "")
            if known is not None:
                return known
        elif isinstance(event, ModelResponded) and event.attempt:
            return instance.step
        elif _is_message(event):
            self.steps += 1
        elif isinstance(event, ModelRequested) and not event.attempt:
            return self.steps
        return max(self.steps - 1, 0)

    def _evidence(self, seq: int) -> Evidence:
        event = self.find(seq)
        if event is None:
            return Evidence(seq)
        return Evidence(seq, event.step, event.agent, shortened(redacted(text_of(event)), self.limits.quote))

    def _learn(self, event: Event, text: str, source: Source) -> None:
        if text:
            self.provenance.add(text, event.seq, source)

    def _on_started(self, event: RunStarted) -> None:
        self.task = event.task or self.task
        self._learn(event, event.task or "", Source.USER)

    def _on_model_requested(self, event: ModelRequested) -> None:
        instance = self.instances[event.instance]
        instance.model = event.model or instance.model
        if event.tools is not None:
            instance.tools = {tool.name: tool for tool in event.tools}
        for tool in event.tools or ():
            if self.tools.get(tool.name) != tool:
                self.tools[tool.name] = tool
                self._learn(event, f"{tool.description} {json.dumps(tool.parameters, default=str)}", Source.SYSTEM)
        while len(self.tools) > self.limits.calls:
            self.tools.pop(next(iter(self.tools)))

    def _on_model_responded(self, event: ModelResponded) -> None:
        instance = self.instances[event.instance]
        for spent in () if event.history else (self.spent, instance.spent):
            spent.model_calls += 1
            if event.usage is not None:
                spent.add(event.usage)
        if event.step is not None:
            self._step_of_batch[event.call or event.id] = event.step
            if len(self._step_of_batch) > self.limits.agents:
                self._step_of_batch.popitem(last=False)
        if event.message:
            self.spoke(event.instance, event.message)
        self._learn(event, event.content, Source.MODEL)

    def _on_model_failed(self, event: ModelFailed) -> None:
        self.instances[event.instance].open_errors.append(event.seq)

    def _on_tool_requested(self, event: ToolRequested) -> None:
        self.calls.requested(event)
        self.heard_of(event)

    def _executed(self, event: ToolReturned | ToolFailed) -> None:
        known = self.calls.get(event.call)
        told_before = known is not None and known.state in ("returned", "failed")
        self.calls.settled(event)
        recorded = isinstance(event, ToolReturned) and event.recorded
        if not event.history and not told_before and not recorded:
            self.spent.tool_calls += 1
            self.instances[event.instance].spent.tool_calls += 1

    def _on_tool_returned(self, event: ToolReturned) -> None:
        self._executed(event)
        self.instances[event.instance].open_errors.clear()
        self._learn(event, event.output, Source.TOOL)

    def _on_tool_failed(self, event: ToolFailed) -> None:
        self._executed(event)
        self.instances[event.instance].open_errors.append(event.seq)
        self._learn(event, event.error, Source.TOOL)

    def _on_tool_cancelled(self, event: ToolCancelled) -> None:
        self.calls.settled(event)

    def _on_message(self, event: MessageSent) -> None:
        if event.trust == "user":
            self.calls.told(event.instance)
            if self.task is None:
                self.task = event.content
        if event.sender and event.recipient:
            pair = (event.sender, event.recipient)
            if pair in self.interactions or len(self.interactions) < self.limits.calls:
                self.interactions[pair] = self.interactions.get(pair, 0) + 1
        self._learn(event, event.content, SOURCE[event.trust])

    def _on_retrieval(self, event: RetrievalReturned) -> None:
        self._learn(event, "\n".join(event.documents), Source.TOOL)

    def _on_memory(self, event: MemoryRead) -> None:
        self._learn(event, event.content, Source.TOOL)

    def _on_restored(self, event: CheckpointRestored | RunResumed) -> None:
        self.calls.restored()

    def _on_ended(self, event: RunEnded) -> None:
        self.ended = event


def _is_message(event: Event) -> bool:
    """Whether an event adds a message to a conversation; another try of a reply does not."""
    if isinstance(event, ToolCancelled):
        return bool(event.objection)
    return isinstance(event, MessageSent | ModelResponded | ToolReturned | ToolFailed) and not event.attempt


_INDEX: dict[type[Event], Callable[[Run, Any], None]] = {
    RunStarted: Run._on_started,
    RunEnded: Run._on_ended,
    RunResumed: Run._on_restored,
    CheckpointRestored: Run._on_restored,
    ModelRequested: Run._on_model_requested,
    ModelResponded: Run._on_model_responded,
    ModelFailed: Run._on_model_failed,
    ToolRequested: Run._on_tool_requested,
    ToolReturned: Run._on_tool_returned,
    ToolFailed: Run._on_tool_failed,
    ToolCancelled: Run._on_tool_cancelled,
    MessageSent: Run._on_message,
    RetrievalReturned: Run._on_retrieval,
    MemoryRead: Run._on_memory,
}


def shortened(text: str, limit: int) -> str:
    """The text, or its head and tail with the number of characters left out between them."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]} … {len(text) - 2 * half} characters … {text[-half:]}"
