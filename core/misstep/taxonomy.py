"""What can go wrong: the field's categories and anomaly types, read from `taxonomy.yaml`."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from typing import Any, Literal

import yaml

Scope = Literal["intra", "inter"]
Phase = Literal["pre_execution", "execution", "post_execution"]
CauseClass = Literal["system", "model", "orchestration"]


class Severity(StrEnum):
    """How much is at stake, weakest first; compare with `rank`."""

    INFO = "info"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 (info) to 4 (critical)."""
        return _SEVERITIES.index(self)


_SEVERITIES = list(Severity)


class Category(StrEnum):
    """The survey's eight categories (arXiv 2606.01581), and `guard` for failures of the guard itself."""

    REASONING = "reasoning"
    ACTION = "action"
    MEMORY = "memory"
    SECURITY = "security"
    TASK_SPECIFICATION = "task_specification"
    ORCHESTRATION = "orchestration"
    COMMUNICATION = "communication"
    TERMINATION = "termination"
    GUARD = "guard"


class AnomalyType(StrEnum):
    """Every type a detector may name. Types are added, never renamed: stored records and policies hold them."""

    UNSUPPORTED_CLAIM = "unsupported_claim"
    CONTRADICTION = "contradiction"
    UNGROUNDED_ANSWER = "ungrounded_answer"
    LOW_CONFIDENCE = "low_confidence"
    FALSE_SUCCESS = "false_success"

    UNKNOWN_TOOL = "unknown_tool"
    INVALID_ARGUMENTS = "invalid_arguments"
    UNGROUNDED_ARGUMENT = "ungrounded_argument"
    TOOL_ERROR = "tool_error"
    IGNORED_TOOL_ERROR = "ignored_tool_error"
    REPEATED_CALL = "repeated_call"
    OSCILLATION = "oscillation"
    DUPLICATE_SIDE_EFFECT = "duplicate_side_effect"
    TOOL_TIMEOUT = "tool_timeout"
    MALFORMED_CALL = "malformed_call"
    EMPTY_RESPONSE = "empty_response"
    OFF_TASK_ACTION = "off_task_action"

    CONTEXT_OVERFLOW = "context_overflow"
    FORGOTTEN_CONSTRAINT = "forgotten_constraint"
    RETRIEVAL_MISS = "retrieval_miss"
    RETRIEVAL_CONFLICT = "retrieval_conflict"
    STALE_MEMORY = "stale_memory"
    MEMORY_POISONING = "memory_poisoning"

    PROMPT_INJECTION = "prompt_injection"
    TOOL_POISONING = "tool_poisoning"
    DATA_EXFILTRATION = "data_exfiltration"
    SECRET_LEAK = "secret_leak"
    PII_LEAK = "pii_leak"
    PRIVILEGE_ESCALATION = "privilege_escalation"
    UNSAFE_COMMAND = "unsafe_command"
    MESSAGE_FLOOD = "message_flood"

    UNDERSPECIFIED_TASK = "underspecified_task"
    MISSING_INPUT = "missing_input"
    ROLE_MISMATCH = "role_mismatch"
    CONFLICTING_INSTRUCTIONS = "conflicting_instructions"

    PLAN_DEVIATION = "plan_deviation"
    UNFINISHED_PLAN = "unfinished_plan"
    WRONG_AGENT = "wrong_agent"
    STEP_ORDER = "step_order"
    DELEGATION_LOOP = "delegation_loop"
    RESOURCE_EXHAUSTION = "resource_exhaustion"
    LATENCY_SPIKE = "latency_spike"

    REDUNDANT_MESSAGE = "redundant_message"
    MESSAGE_STORM = "message_storm"
    LOST_HANDOFF = "lost_handoff"
    IGNORED_MESSAGE = "ignored_message"
    UNVERIFIED_TRUST = "unverified_trust"
    ECHO_AMPLIFICATION = "echo_amplification"
    TOPIC_DRIFT = "topic_drift"

    PREMATURE_STOP = "premature_stop"
    NO_PROGRESS = "no_progress"
    STEP_LIMIT = "step_limit"
    BUDGET_EXCEEDED = "budget_exceeded"
    MISSING_VERIFICATION = "missing_verification"
    UNAWARE_OF_COMPLETION = "unaware_of_completion"

    GUARD_FAILURE = "guard_failure"


@dataclass(frozen=True, slots=True)
class TypeInfo:
    """
    What the field knows of one anomaly type.

    `ladder` is the default remedy, weakest first, as a policy writes it. `feedback` is the template of what the
    agent is told; `mast`, `owasp` and `trail` are identifiers in MAST (arXiv 2503.13657), OWASP's Top 10 for
    agentic applications and TRAIL (arXiv 2505.08638), empty where the source names no counterpart.
    """

    type: AnomalyType
    category: Category
    definition: str
    scope: tuple[Scope, ...]
    phases: tuple[Phase, ...]
    severity: Severity
    ladder: tuple[str | dict[str, int], ...]
    cause: CauseClass
    feedback: str
    mast: tuple[str, ...]
    owasp: tuple[str, ...]
    trail: tuple[str, ...]


@functools.cache
def _document() -> dict[str, Any]:
    text = resources.files("misstep").joinpath("taxonomy.yaml").read_text(encoding="utf-8")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(text, Loader=loader)  # type: ignore[no-any-return]


@functools.cache
def taxonomy() -> dict[AnomalyType, TypeInfo]:
    """Every anomaly type with what is known of it, in the order of `AnomalyType`."""
    return {type_: _info(type_, _document()["types"][type_.value]) for type_ in AnomalyType}


def category_definition(category: Category) -> str:
    """The definition of a category, one sentence."""
    return str(_document()["categories"][category.value]["definition"])


def _info(type_: AnomalyType, entry: dict[str, Any]) -> TypeInfo:
    return TypeInfo(
        type=type_,
        category=Category(entry["category"]),
        definition=entry["definition"],
        scope=tuple(entry["scope"]),
        phases=tuple(entry["phases"]),
        severity=Severity(entry["severity"]),
        ladder=tuple(entry["ladder"]),
        cause=entry["cause"],
        feedback=entry["feedback"],
        mast=tuple(entry["mast"]),
        owasp=tuple(entry["owasp"]),
        trail=tuple(entry["trail"]),
    )
