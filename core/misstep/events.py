"""
Events: everything a run is made of, as frozen slotted dataclasses with one literal `kind` each.

What was *requested* can still be refused or rewritten; what was *returned* has happened, but what is passed on may
still be rewritten. Kinds and fields are only ever added: stored records hold them.

| kind | class | beside the fields of `Event` |
|---|---|---|
| run.started | RunStarted | task, framework, framework_version, mode, thread |
| run.resumed | RunResumed | continues |
| run.ended | RunEnded | status, outcome, score, error |
| turn.started / turn.ended | TurnStarted / TurnEnded | task / content |
| model.requested | ModelRequested | model, tools, messages, feedback |
| model.responded | ModelResponded | content, calls, usage, finish_reason, logprobs, message |
| model.failed | ModelFailed | error, error_type |
| tool.requested | ToolRequested | tool, arguments, raw, says |
| tool.returned | ToolReturned | tool, output, recorded |
| tool.failed | ToolFailed | tool, error, error_type |
| tool.cancelled | ToolCancelled | tool, reason, objection |
| message.sent | MessageSent | role, content, sender, recipient, trust |
| handoff.requested | HandoffRequested | target, content |
| retrieval.requested / .returned | RetrievalRequested / RetrievalReturned | query / documents |
| memory.read / .written | MemoryRead / MemoryWritten | key, content |
| checkpoint.saved / .restored | CheckpointSaved / CheckpointRestored | checkpoint |
| history.rewritten | HistoryRewritten | kept, dropped |
| anomaly.found | AnomalyFound | type, category, severity, confidence, message, evidence |
| decision.taken | DecisionTaken | decision, anomalies, seat, hypothetical, detail |
| decision.settled | DecisionSettled | decision_id, took_effect, recurred, detail |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypeVar

from misstep.decisions import Kind
from misstep.side_effects import Classified
from misstep.taxonomy import AnomalyType, Category, Severity

Role = Literal["system", "user", "assistant", "tool"]
Trust = Literal["user", "system", "tool", "agent", "model"]
Outcome = Literal["success", "failure"]
Status = Literal["completed", "failed", "halted", "interrupted", "evicted"]


@dataclass(frozen=True, slots=True)
class Tool:
    """
    A tool the application declares to a model: its name and JSON schema of parameters.

    `says` is what its code declares, or its server hints at, of what it does to the world; None where neither does.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    says: Classified | None = None


@dataclass(frozen=True, slots=True)
class ProposedCall:
    """A call a model proposes. `arguments` is None where `raw` could not be parsed."""

    call: str
    tool: str
    arguments: Mapping[str, Any] | None
    raw: str | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one model call; `estimated` where the framework reports none."""

    input_tokens: int = 0
    output_tokens: int = 0
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Evidence:
    """One event an anomaly rests on: its `seq`, its step and agent, and the words that show it."""

    seq: int
    step: int | None = None
    agent: str = ""
    quote: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """
    What every event says of itself; an adapter fills in what its framework knows, the run fills in the rest.

    `run` is the run's id; `seq` the order in the run, given under its lock; `id` unique in the run; `parent` the id
    of the event it happened within; `call` pairs a Requested with its Returned, Failed or Cancelled; `batch` is the
    `call` of the ModelResponded that proposed it; `attempt` counts tries of one model call from 0; `agent` is a name
    for people, `instance` the path that tells two copies of one agent apart; `step` is the 0-based index of the
    message in the run, `turn` in the instance's own conversation; `time` is wall time in seconds since the epoch,
    `elapsed` monotonic seconds since the run began; `history` marks what was said before the guard came: it is
    indexed, never acted on.
    """

    run: str
    seq: int = -1
    id: str = ""
    parent: str | None = None
    call: str | None = None
    batch: str | None = None
    attempt: int = 0
    agent: str = ""
    instance: str = ""
    step: int | None = None
    turn: int | None = None
    time: float = 0.0
    elapsed: float = 0.0
    history: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    """A run began. `thread` is the conversation it belongs to, if the framework has one."""

    task: str | None = None
    framework: str = ""
    framework_version: str = ""
    mode: str = "enforce"
    thread: str | None = None
    kind: Literal["run.started"] = "run.started"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResumed(Event):
    """A run that `continues` an earlier one, and inherits its budgets."""

    continues: str
    kind: Literal["run.resumed"] = "run.resumed"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded(Event):
    """A run ended; `evicted` means nobody said so and a stated limit was reached."""

    status: Status = "completed"
    outcome: Outcome | None = None
    score: float | None = None
    error: str | None = None
    kind: Literal["run.ended"] = "run.ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnStarted(Event):
    """An agent was given the turn."""

    task: str | None = None
    kind: Literal["turn.started"] = "turn.started"


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnEnded(Event):
    """An agent gave its turn back."""

    content: str | None = None
    kind: Literal["turn.ended"] = "turn.ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequested(Event):
    """
    A model is about to be called. `tools` is None where they are the same as at the instance's last call;
    `messages` counts what it is shown; `feedback` is what the guard appended.
    """

    model: str = ""
    tools: tuple[Tool, ...] | None = None
    messages: int = 0
    feedback: tuple[str, ...] = ()
    kind: Literal["model.requested"] = "model.requested"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelResponded(Event):
    """
    A model answered. `logprobs` are natural-log token probabilities, where the framework reports them; `message` is
    what the reply is called in the conversation, so that it is known again.
    """

    content: str = ""
    calls: tuple[ProposedCall, ...] = ()
    usage: Usage | None = None
    finish_reason: str | None = None
    logprobs: tuple[float, ...] | None = None
    message: str = ""
    kind: Literal["model.responded"] = "model.responded"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFailed(Event):
    """A model call raised."""

    error: str = ""
    error_type: str = ""
    kind: Literal["model.failed"] = "model.failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolRequested(Event):
    """
    A tool is about to be called. `raw` holds the arguments as text where they could not be parsed; `says` as in `Tool`,
    where the seat has the tool itself at hand.
    """

    tool: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    raw: str | None = None
    says: Classified | None = None
    kind: Literal["tool.requested"] = "tool.requested"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolReturned(Event):
    """A tool answered; `output` as the model will read it. `recorded`: the journal answered, nothing was executed."""

    tool: str
    output: str = ""
    recorded: bool = False
    kind: Literal["tool.returned"] = "tool.returned"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolFailed(Event):
    """A tool raised, or reported an error."""

    tool: str
    error: str = ""
    error_type: str = ""
    kind: Literal["tool.failed"] = "tool.failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCancelled(Event):
    """
    A requested call was not executed: refused, or proposed in a reply that was thrown away.

    `objection` is what the agent reads in place of a result; empty where no message was put there.
    """

    tool: str
    reason: str = ""
    objection: str = ""
    kind: Literal["tool.cancelled"] = "tool.cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageSent(Event):
    """
    A message came into a conversation. `trust` says who vouches for it: by role, unless the adapter knows better
    (another agent's words reach a model as a user message).
    """

    role: Role
    content: str
    sender: str = ""
    recipient: str = ""
    trust: Trust = "model"
    kind: Literal["message.sent"] = "message.sent"


@dataclass(frozen=True, slots=True, kw_only=True)
class HandoffRequested(Event):
    """An agent wants to hand the turn to `target`."""

    target: str
    content: str = ""
    kind: Literal["handoff.requested"] = "handoff.requested"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalRequested(Event):
    """A retriever is about to be asked."""

    query: str
    kind: Literal["retrieval.requested"] = "retrieval.requested"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalReturned(Event):
    """A retriever answered with the texts of `documents`."""

    documents: tuple[str, ...] = ()
    kind: Literal["retrieval.returned"] = "retrieval.returned"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryRead(Event):
    """A long-term memory entry was read."""

    key: str
    content: str = ""
    kind: Literal["memory.read"] = "memory.read"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryWritten(Event):
    """A long-term memory entry was written."""

    key: str
    content: str = ""
    kind: Literal["memory.written"] = "memory.written"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSaved(Event):
    """The framework saved its state under `checkpoint`."""

    checkpoint: str
    kind: Literal["checkpoint.saved"] = "checkpoint.saved"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointRestored(Event):
    """The framework went back to `checkpoint`."""

    checkpoint: str
    kind: Literal["checkpoint.restored"] = "checkpoint.restored"


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryRewritten(Event):
    """A conversation's earlier part was trimmed or summarized: `kept` messages stayed, `dropped` are gone."""

    kept: int
    dropped: int
    kind: Literal["history.rewritten"] = "history.rewritten"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnomalyFound(Event):
    """A detector spoke; `parent` is the event it spoke about."""

    type: AnomalyType
    category: Category
    severity: Severity
    confidence: float
    message: str
    evidence: tuple[Evidence, ...] = ()
    kind: Literal["anomaly.found"] = "anomaly.found"


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionTaken(Event):
    """
    The policy decided; `anomalies` are the ids it answers. `hypothetical` where it is not carried out (shadow,
    a seat that only watches); `detail` is what the agent or the caller is told.
    """

    decision: Kind
    anomalies: tuple[str, ...] = ()
    seat: str = ""
    hypothetical: bool = False
    detail: str = ""
    kind: Literal["decision.taken"] = "decision.taken"


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionSettled(Event):
    """The receipt of a decision: did it take effect, and did the anomaly come back (None: cannot be told yet)."""

    decision_id: str
    took_effect: bool
    recurred: bool | None = None
    detail: str = ""
    kind: Literal["decision.settled"] = "decision.settled"


AnyEvent: TypeAlias = (
    RunStarted
    | RunResumed
    | RunEnded
    | TurnStarted
    | TurnEnded
    | ModelRequested
    | ModelResponded
    | ModelFailed
    | ToolRequested
    | ToolReturned
    | ToolFailed
    | ToolCancelled
    | MessageSent
    | HandoffRequested
    | RetrievalRequested
    | RetrievalReturned
    | MemoryRead
    | MemoryWritten
    | CheckpointSaved
    | CheckpointRestored
    | HistoryRewritten
    | AnomalyFound
    | DecisionTaken
    | DecisionSettled
)

E = TypeVar("E", bound=Event)


def cancelled(request: ToolRequested, reason: str, objection: str = "", step: int | None = None) -> ToolCancelled:
    """The record that a requested call is not executed; `step` is that of its message, None where it is to be given."""
    return ToolCancelled(
        run=request.run,
        call=request.call,
        batch=request.batch,
        agent=request.agent,
        instance=request.instance,
        step=step,
        tool=request.tool,
        reason=reason,
        objection=objection,
    )


def text_of(event: Event) -> str:
    """The words of an event, as evidence is quoted and provenance is indexed from; empty where it has none."""
    match event:
        case MessageSent() | ModelResponded():
            return event.content
        case ToolReturned():
            return event.output
        case ToolFailed() | ModelFailed():
            return event.error
        case ToolRequested():
            told = event.raw or ", ".join(f"{name}={_shown(value)}" for name, value in event.arguments.items())
            return f"{event.tool}({told})"
        case RetrievalReturned():
            return "\n".join(event.documents)
        case MemoryRead() | MemoryWritten() | HandoffRequested():
            return event.content
        case RunStarted():
            return event.task or ""
        case _:
            return ""


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # too deep, or a `__repr__` of the host's that raises
        return f"<{type(value).__name__}>"
