"""Runs that stop too early, go on without getting anywhere, or use up what they were given."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from misstep.anomalies import Anomaly
from misstep.detectors.prices import GENAI_PRICES, Limits, genai_limits, known_model
from misstep.events import HistoryRewritten, ModelFailed, ModelRequested, ModelResponded, ToolRequested
from misstep.run import Instance, Run, Spent
from misstep.taxonomy import AnomalyType, Severity

_PROMISE = re.compile(
    r"\b(?:I(?:[’']ll| will| am going to|[’']m going to|[’']m about to)|let me)\s+(?:now |first |next |go ahead and |"
    r"then |also |proceed (?:to |with )?)*"
    r"(?:search|look|check|find|fetch|retrieve|run|execute|call|use|query|book|cancel|send|create|update|process|get|"
    r"open|read|write|gather|verify|start|begin|try|proceed|calculate|compute|submit|transfer|issue|pull|place|make)\w*",
    re.IGNORECASE,
)
_WAITS = re.compile(
    r"\?|\b(?:if you|once you|when you|after you|please|let me know|would you|could you|confirm\w*|shall I|should I|"
    r"as soon as|feel free|in the future|next time|whenever|until you)\b",
    re.IGNORECASE,
)
_DONE = re.compile(r"^\s*[-*+] \[[xX]\]", re.MULTILINE)
_OPEN = re.compile(r"^\s*[-*+] \[ \]", re.MULTILINE)
_CUT = frozenset({"length", "max_tokens", "MAX_TOKENS"})
_SENTENCE = re.compile(r"[.!\n]\s+(?=\S)")
_OVERFLOW = re.compile(
    r"context[_ ]length[_ ]exceeded|context (?:length|window)|maximum context|(?:prompt|input) is too long|"
    r"too many (?:input )?tokens",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class NoProgress:
    """
    An agent makes calls for *rounds* rounds, and nothing is learned or changed by any of them.

    A result is news where it was not had before; a short one ("ok") of a call not made before may confirm a change.
    Neither holds of errors had before, of results that say there is nothing, and of long ones read before. What a
    user says is news. Calls without a result do not count.
    """

    rounds: int = 8
    type: ClassVar[AnomalyType] = AnomalyType.NO_PROGRESS

    def __post_init__(self) -> None:
        if not 2 <= self.rounds <= 32:  # no more calls are indexed
            raise ValueError(f"`rounds` must be 2 to 32, found {self.rounds!r}")

    def __call__(self, event: ToolRequested, run: Run) -> Anomaly | None:
        """Judge one proposed call by the rounds before it."""
        barren = run.calls.barren(event)
        if len(barren) < self.rounds:
            return None
        return Anomaly(
            type=self.type,
            message=f"`{event.agent or 'the agent'}` has learned and changed nothing in {len(barren)} rounds of calls",
            evidence=tuple(call.seq for call in barren),
            confidence=0.8,
            facts={"agent": event.agent, "times": len(barren)},
        )


@dataclass(frozen=True)
class PrematureStop:
    """
    A reply that ends the agent's work although by its own words it is not done.

    It was cut off at the limit of its length; or it ends in a promise to do at once what takes a call ("Let me check
    the order.") and calls nothing; or in a to-do list of which some, but not all, is ticked off. The latter two are
    judged only of an agent that has called a tool before, and never where it asks or waits for somebody.
    """

    longest: int = 600
    """Characters; a longer reply is an answer, whatever it ends in."""
    type: ClassVar[AnomalyType] = AnomalyType.PREMATURE_STOP

    def __call__(self, event: ModelResponded, run: Run) -> Anomaly | None:
        """Judge one reply without calls."""
        text = event.content.strip()
        if event.calls or not text:
            return None
        if event.finish_reason in _CUT:
            return self._found(event, "the reply was cut off at the limit of its length", Severity.MEDIUM, 0.9)
        if next(run.calls.recent(event.instance), None) is None or _WAITS.search(text[-2000:]):
            return None
        if _OPEN.search(text) and _DONE.search(text):
            return self._found(event, "items of its own to-do list are open", Severity.LOW, 0.6)
        if len(text) <= self.longest and _PROMISE.search(_SENTENCE.split(text)[-1]):
            return self._found(event, "it promises to go on, and calls nothing", Severity.LOW, 0.6)
        return None

    def _found(self, event: ModelResponded, why: str, severity: Severity, confidence: float) -> Anomaly:
        return Anomaly(
            type=self.type,
            message=f"`{event.agent or 'the agent'}` stops although its work is not done: {why}",
            evidence=(event.seq,),
            severity=severity,
            confidence=confidence,
            facts={"agent": event.agent},
        )


@dataclass(frozen=True)
class StepLimit:
    """The run has taken the `steps` (messages) it may, or an agent its `turns`; there is no limit unless one is set."""

    steps: float = math.inf
    turns: float = math.inf
    type: ClassVar[AnomalyType] = AnomalyType.STEP_LIMIT

    def __call__(self, event: ModelResponded, run: Run) -> Anomaly | None:
        """Judge one reply: the step it took, or its agent's turn, may be the last one."""
        turns = (event.turn or 0) + 1
        if run.steps < self.steps and turns < self.turns:
            return None
        whole = run.steps >= self.steps
        what = f"the run has taken {run.steps} of {self.steps:g} steps"
        if not whole:
            what = f"`{event.agent or 'the agent'}` has taken {turns} of {self.turns:g} turns"
        return Anomaly(type=self.type, message=what, evidence=(event.seq,), facts={"agent": event.agent})


@dataclass(slots=True)
class _Money:
    """What a run and each of its agents has spent, in the currency of the prices, and the models without a price."""

    run: float = 0.0
    agents: dict[str, float] = field(default_factory=dict)
    unpriced: set[str] = field(default_factory=set)
    batch: str | None = None
    over: tuple[str, str] | None = None
    """What was over when the first call of `batch` was proposed: its calls are simultaneous."""


@dataclass(frozen=True)
class BudgetExceeded:
    """
    The run, or one agent, has spent what it was allowed: said before each further model call and each further batch.

    There is no budget unless one is set. Tokens are those of input and output together; calls those of tools; seconds
    run from the start of this run, so that a resumed one has them anew. Money is counted by `prices`: a model's name,
    or what it begins with, to the price of a million input and a million output tokens; with `price_source:
    genai-prices`, models not among them are looked up in that library (the extra `prices`). A model without any price
    is named once, since its money is not counted.
    """

    tokens: float = math.inf
    money: float = math.inf
    seconds: float = math.inf
    calls: float = math.inf
    agent_tokens: float = math.inf
    agent_money: float = math.inf
    agent_calls: float = math.inf
    prices: Mapping[str, tuple[float, float]] = field(default_factory=dict, hash=False)
    price_source: str = ""
    type: ClassVar[AnomalyType] = AnomalyType.BUDGET_EXCEEDED

    def __post_init__(self) -> None:
        _check_source("price_source", self.price_source)

    def __call__(self, event: ModelRequested | ModelResponded | ToolRequested, run: Run) -> Anomaly | None:
        """Count a reply's money; judge what is about to be spent."""
        money = run.memory(self, _Money)
        if isinstance(event, ModelResponded):
            return self._count(event, run, money)
        if isinstance(event, ToolRequested) and event.batch is not None:
            if event.batch != money.batch:
                money.batch, money.over = event.batch, self._over(event, run, money)
            over = money.over
        else:
            over = self._over(event, run, money)
        if over is None:
            return None
        who, what = over
        return Anomaly(
            type=self.type,
            message=f"{who} has spent {what}",
            evidence=(event.seq,),
            facts={"agent": event.agent},
        )

    def _over(self, event: ModelRequested | ToolRequested, run: Run, money: _Money) -> tuple[str, str] | None:
        instance = run.instances[event.instance]
        spent: list[tuple[str, str, float, float]] = [
            ("the run", "tokens", _tokens(run.spent), self.tokens),
            ("the run", "of money", money.run, self.money),
            ("the run", "seconds", event.elapsed, self.seconds),
            ("the run", "tool calls", run.spent.tool_calls, self.calls),
        ]
        if min(self.agent_tokens, self.agent_money, self.agent_calls) < math.inf:
            who = f"`{event.agent or event.instance or 'the agent'}`"
            spent += [
                (who, "tokens", _tokens(instance.spent), self.agent_tokens),
                (who, "of money", money.agents.get(event.instance, 0.0), self.agent_money),
                (who, "tool calls", instance.spent.tool_calls, self.agent_calls),
            ]
        for who, unit, used, allowed in spent:
            if used >= allowed:
                return who, f"{used:.6g} of {allowed:.6g} {unit}"
        return None

    def _count(self, event: ModelResponded, run: Run, money: _Money) -> Anomaly | None:
        if min(self.money, self.agent_money) == math.inf or event.usage is None:
            return None
        model = run.instances[event.instance].model
        price = known_model(model, self.prices) or self._source(model).price
        if price is None:
            return self._unpriced(event, model, money)
        cost = (event.usage.input_tokens * price[0] + event.usage.output_tokens * price[1]) / 1e6
        money.run += cost
        if event.instance in money.agents or len(money.agents) < run.limits.agents:
            money.agents[event.instance] = money.agents.get(event.instance, 0.0) + cost
        return None

    def _source(self, model: str) -> Limits:
        return genai_limits(model) if self.price_source else Limits()

    def _unpriced(self, event: ModelResponded, model: str, money: _Money) -> Anomaly | None:
        if model in money.unpriced or len(money.unpriced) >= 64:
            return None
        money.unpriced.add(model)
        return Anomaly(
            type=self.type,
            message=f"the budget of money does not count {model!r}: there is no price for it",
            evidence=(event.seq,),
            severity=Severity.LOW,
        )


@dataclass(frozen=True)
class ContextOverflow:
    """
    The conversation no longer fits the model's context window, or hardly does.

    Found where a model call failed for that reason; where the earlier part of a conversation was cut or summarized
    away (which only informs: somebody may have meant it); and where a reply's input tokens are `share` of the model's
    window or more. Windows are a table, in tokens, by a model's name or what it begins with; with `window_source:
    genai-prices` others are looked up in that library (the extra `prices`); there are none otherwise.
    """

    share: float = 0.95
    windows: Mapping[str, int] = field(default_factory=dict, hash=False)
    window_source: str = ""
    type: ClassVar[AnomalyType] = AnomalyType.CONTEXT_OVERFLOW

    def __post_init__(self) -> None:
        _check_source("window_source", self.window_source)
        if not 0 < self.share <= 1:
            raise ValueError(f"`share` must be above 0 and at most 1, found {self.share!r}")

    def __call__(self, event: ModelFailed | ModelResponded | HistoryRewritten, run: Run) -> Anomaly | None:
        """Judge how a model call went, or what was left of a conversation."""
        match event:
            case ModelFailed() if _OVERFLOW.search(f"{event.error_type} {event.error[:2000]}"):
                return self._found(event.seq, "a request was turned down: it does not fit the context window", None)
            case HistoryRewritten() if event.dropped:
                said = f"{event.dropped} earlier messages were dropped from the conversation"
                return self._found(event.seq, said, Severity.INFO)
            case ModelResponded() if event.usage is not None:
                return self._filled(event, run.instances[event.instance], event.usage.input_tokens)
        return None

    def _filled(self, event: ModelResponded, instance: Instance, tokens: int) -> Anomaly | None:
        window = known_model(instance.model, self.windows)
        if window is None and self.window_source:
            window = genai_limits(instance.model).window
        if not window or tokens < self.share * window:
            return None
        return self._found(event.seq, f"{tokens} of the {window} tokens of {instance.model!r} are used", Severity.LOW)

    def _found(self, seq: int, message: str, severity: Severity | None) -> Anomaly:
        return Anomaly(type=self.type, message=message, evidence=(seq,), severity=severity)


def _tokens(spent: Spent) -> int:
    return spent.input_tokens + spent.output_tokens


def _check_source(name: str, source: str) -> None:
    """Raises ValueError for a source there is none of; loads the one there is, so that no event has to."""
    if source and source != GENAI_PRICES:
        raise ValueError(f"`{name}` must be {GENAI_PRICES!r} or left out, found {source!r}")
    if source:
        genai_limits("")
