"""The index of tool calls: by id, by signature, by agent; what came back, and whether it was news."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from misstep.events import ToolCancelled, ToolFailed, ToolRequested, ToolReturned

CallState = Literal["open", "returned", "failed", "cancelled"]
Settled: TypeAlias = ToolReturned | ToolFailed | ToolCancelled

BOOKKEEPING = frozenset(
    {
        "thought",
        "thoughts",
        "reasoning",
        "explanation",
        "justification",
        "comment",
        "request_id",
        "call_id",
        "timestamp",
    }
)
"""Arguments that say why or when, not what: they do not make a call a different one."""

_NOTHING = frozenset({"", "[]", "{}", "()", "null", "none", "nothing", "no results", "not found", "0"})
_TELLING = 80  # characters; a longer result that was read before says nothing new, a shorter one may confirm a change


@dataclass(slots=True)
class Call:
    """One call, from request to result. `round` is the round of its instance it was asked in; see `CallIndex`."""

    call: str
    tool: str
    signature: str
    instance: str
    seq: int
    step: int | None
    batch: str | None
    round: int
    text: str
    """Its arguments in canonical form, at most 1,000 characters of them."""
    elapsed: float = 0.0
    """When it was asked, in seconds since the run began."""
    state: CallState = "open"
    result: str | None = None
    """A digest of what came back."""
    news: bool = False
    """Whether its instance had not had that result before."""


@dataclass(slots=True)
class Latest:
    """The last round of an instance in which something was so, and the one before that."""

    round: int = -1
    earlier: int = -1

    def mark(self, round_: int) -> None:
        """It was so in this round."""
        if round_ > self.round:
            self.round, self.earlier = round_, self.round
        elif self.earlier < round_ < self.round:
            self.earlier = round_

    def before(self, round_: int) -> int:
        """The last such round before this one, -1 where there was none."""
        return self.earlier if self.round >= round_ else self.round


@dataclass(slots=True)
class _Agent:
    """What one instance has done: its round, the rounds it last learned or changed something in, its last calls."""

    round: int = 0
    news: Latest = field(default_factory=Latest)
    moved: Latest = field(default_factory=Latest)
    """Rounds with news, or with a call that may have changed something."""
    batch: str | None = None
    recent: deque[Call] = field(default_factory=lambda: deque(maxlen=32))
    results: OrderedDict[str, int] = field(default_factory=OrderedDict)

    def learned(self, round_: int) -> None:
        """There was news in a round."""
        self.news.mark(round_)
        self.moved.mark(round_)


class CallIndex:
    """
    The calls of one run, bounded, at the same cost however long the run is.

    Time is counted in *rounds* of an instance: a batch of simultaneous calls is one round, and what a user says
    begins another. Calls of one round never count as earlier than each other, so their interleaving changes nothing.
    """

    __slots__ = ("_agents", "_by_call", "_by_signature", "_limit", "returned")

    def __init__(self, limit: int = 4096) -> None:
        self._limit = limit
        self._by_call: OrderedDict[str, Call] = OrderedDict()
        self._by_signature: OrderedDict[tuple[str, str], deque[Call]] = OrderedDict()
        self._agents: OrderedDict[str, _Agent] = OrderedDict()
        self.returned: dict[str, None] = {}
        """Tools that ever returned, to whatever instance, the first of them up to the limit."""

    def requested(self, event: ToolRequested) -> Call:
        """Record a request; the same open call asked again (a resumed node) is the same record."""
        agent = self._agent(event.instance)
        key = event.call or event.id
        known = self._by_call.get(key)
        text = canonical(event.arguments, event.raw)
        asked = event.tool, text[:1000], event.batch  # two calls may bear one id
        if known is not None and known.state == "open" and (known.tool, known.text, known.batch) == asked:
            return known
        if event.batch is None or event.batch != agent.batch:
            agent.batch = event.batch
            agent.round += 1
        call = Call(
            call=key,
            tool=event.tool,
            signature=_digest(f"{event.tool} {text}"),
            text=text[:1000],
            instance=event.instance,
            seq=event.seq,
            step=event.step,
            batch=event.batch,
            round=agent.round,
            elapsed=event.elapsed,
        )
        self._by_call[key] = call
        agent.recent.append(call)
        same = self._by_signature.setdefault((event.instance, call.signature), deque(maxlen=16))
        same.append(call)
        self._bound()
        return call

    def settled(self, event: Settled) -> Call | None:
        """
        Record what became of a call; a result told twice counts once.

        A call that was given up may be made after all, by a node that runs again.
        """
        call = self._by_call.get(event.call or "")
        if call is None or call.state in ("returned", "failed"):
            return None
        match event:
            case ToolReturned():
                call.state = "returned"
                self._learn(call, f"returned {event.output}")
                if self._may_have_changed(call, event.output):
                    self._agent(call.instance).moved.mark(call.round)
                if len(self.returned) < self._limit:
                    self.returned.setdefault(call.tool)
            case ToolFailed():
                call.state = "failed"
                self._learn(call, f"failed {event.error}")
            case ToolCancelled():
                call.state = "cancelled"
        return call

    def told(self, instance: str) -> None:
        """A user spoke to the instance: that is news, and begins a round."""
        agent = self._agent(instance)
        agent.round += 1
        agent.learned(agent.round)
        agent.batch = None

    def restored(self) -> None:
        """The run went back to an earlier state: what was called before may be called again, by whomever."""
        for instance in list(self._agents):
            self.told(instance)

    def get(self, call: str | None) -> Call | None:
        """The record of a call id, the newest where an id was used again."""
        return self._by_call.get(call or "")

    def proposed(self, tool: str, arguments: Mapping[str, Any]) -> Call | None:
        """The newest of the last 64 calls of replies that is open and asks for just this: one without an id is that."""
        asked = _digest(f"{tool} {canonical(arguments)}")
        latest = itertools.islice(reversed(self._by_call.values()), 64)
        open_ = (call for call in latest if call.state == "open" and call.batch is not None)
        return next((call for call in open_ if call.signature == asked), None)

    def same(self, event: ToolRequested) -> list[Call]:
        """Earlier finished calls of the instance with this signature, newest first, at most 15."""
        record = self._by_call.get(event.call or event.id)
        if record is None:
            return []
        calls = self._by_signature.get((event.instance, record.signature), ())
        return [call for call in reversed(calls) if call.round < record.round and call.state in ("returned", "failed")]

    def since(self, step: int) -> list[str]:
        """The ids of the calls of that step and after it."""
        return [call.call for call in self._by_call.values() if call.step is not None and call.step >= step]

    def recent(self, instance: str) -> Iterator[Call]:
        """The last 32 calls of an instance, newest first."""
        agent = self._agents.get(instance)
        return reversed(agent.recent) if agent else iter(())

    def progressed(self, event: ToolRequested, since: Call) -> bool:
        """Whether the instance learned anything new between the round of `since` and that of this call."""
        agent = self._agents.get(event.instance)
        if agent is None:
            return False
        asked = self._by_call.get(event.call or event.id)
        return (agent.news.round if asked is None else agent.news.before(asked.round)) > since.round

    def barren(self, event: ToolRequested) -> list[Call]:
        """
        One call of each finished round before this one since anything was learned or may have changed, newest first.

        A result is news where it was not had before; a short result of a call not made before may confirm a change,
        unless it says that there is nothing. At most the last 32 calls are looked at; open calls end the count.
        """
        agent, asked = self._agents.get(event.instance), self._by_call.get(event.call or event.id)
        found: list[Call] = []
        if agent is None or asked is None:
            return found
        since = agent.moved.before(asked.round)
        for call in reversed(agent.recent):
            if call.round >= asked.round:
                continue
            if call.round <= since or call.state == "open":
                break
            if call.state != "cancelled" and (not found or found[-1].round != call.round):
                found.append(call)
        return found

    def latest(self, instance: str) -> list[Call]:
        """The calls of the instance's present round; none where a user has spoken since."""
        agent = self._agents.get(instance)
        if agent is None:
            return []
        return list(itertools.takewhile(lambda call: call.round == agent.round, reversed(agent.recent)))

    def _may_have_changed(self, call: Call, output: str) -> bool:
        """Whether a call that returned may have changed something, though its result be one had before."""
        same = self._by_signature.get((call.instance, call.signature))
        again = same is not None and same[0].round < call.round
        return not again and len(output) <= _TELLING and output.strip().lower() not in _NOTHING

    def _learn(self, call: Call, result: str) -> None:
        call.result = _digest(" ".join(result.split()))
        agent = self._agent(call.instance)
        first = agent.results.setdefault(call.result, call.round)
        agent.results.move_to_end(call.result)
        if first == call.round:
            agent.learned(call.round)
            call.news = True
        if len(agent.results) > self._limit:
            agent.results.popitem(last=False)

    def _agent(self, instance: str) -> _Agent:
        agent = self._agents.get(instance)
        if agent is None:
            agent = self._agents[instance] = _Agent()
            if len(self._agents) > self._limit:
                self._agents.popitem(last=False)
        else:
            self._agents.move_to_end(instance)
        return agent

    def _bound(self) -> None:
        if len(self._by_call) > self._limit:
            self._by_call.popitem(last=False)
        if len(self._by_signature) > self._limit:
            self._by_signature.popitem(last=False)


def canonical(arguments: Mapping[str, Any], raw: str | None = None) -> str:
    """The arguments as text that is equal where two calls are the same: but for case, space, `cd x &&`, bookkeeping."""
    if raw is None:
        if not BOOKKEEPING.isdisjoint(arguments):
            told = {name: value for name, value in arguments.items() if name not in BOOKKEEPING}
            arguments = told or arguments  # of a call that only thinks, the thought is what it says
        raw = written(arguments)
    if "cd " in raw and "&&" in raw:
        raw = _without_directory(raw)
    return " ".join(raw.lower().split())


def written(arguments: Mapping[str, Any]) -> str:
    """Arguments as one text, the same for the same ones; nothing a host puts in them makes this raise."""
    for write in (_as_json, repr):
        try:
            return write(arguments)
        except Exception:  # keys that do not sort, a circle, too deep, a `__str__` of the host's that raises
            continue
    return f"unreadable {id(arguments)}"


_as_json = json.JSONEncoder(sort_keys=True, default=str, ensure_ascii=False).encode


def _without_directory(raw: str) -> str:
    head, _, tail = raw.partition("&&")
    before, found, _ = head.rpartition("cd ")
    return before + tail.lstrip() if found else raw


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
