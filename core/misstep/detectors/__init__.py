"""
Detectors: `(event, run) -> Anomaly | None`, each a frozen dataclass whose fields are its thresholds.

The annotation of `event` is the subscription. What a detector must remember it keeps in `run.memory(self, ...)`;
it reads no clock, does no I/O and logs nothing, so a recorded run replays to the same anomalies.
"""

from __future__ import annotations

import functools
from importlib.metadata import entry_points
from typing import Any, ClassVar, Protocol

from misstep.anomalies import Anomaly
from misstep.detectors.commands import UnsafeCommand
from misstep.detectors.failures import FalseSuccess, IgnoredToolError, ToolError, ToolTimeout
from misstep.detectors.grounding import UngroundedArgument
from misstep.detectors.injection import PromptInjection
from misstep.detectors.interaction import DelegationLoop, MessageFlood
from misstep.detectors.leaks import PiiLeak, SecretLeak
from misstep.detectors.repetition import Oscillation, RepeatedCall
from misstep.detectors.responses import EmptyResponse
from misstep.detectors.side_effects import DuplicateSideEffect
from misstep.detectors.termination import BudgetExceeded, ContextOverflow, NoProgress, PrematureStop, StepLimit
from misstep.detectors.tools import InvalidArguments, MalformedCall, UnknownTool
from misstep.run import Run
from misstep.taxonomy import AnomalyType


class Detector(Protocol):
    """What every detector is; `type` is the anomaly it names, and so the rule that configures it."""

    type: ClassVar[AnomalyType]

    def __call__(self, event: Any, run: Run) -> Anomaly | None:
        """Judge one event; None where there is nothing to say."""
        ...


BUILTIN: tuple[type[Detector], ...] = (
    RepeatedCall,
    Oscillation,
    NoProgress,
    DuplicateSideEffect,
    UngroundedArgument,
    EmptyResponse,
    UnknownTool,
    InvalidArguments,
    MalformedCall,
    ToolError,
    IgnoredToolError,
    ToolTimeout,
    FalseSuccess,
    PrematureStop,
    StepLimit,
    BudgetExceeded,
    ContextOverflow,
    DelegationLoop,
    MessageFlood,
    PromptInjection,
    SecretLeak,
    PiiLeak,
    UnsafeCommand,
)
"""The detectors misstep ships, in the order they are asked."""


@functools.cache
def known_detectors() -> dict[AnomalyType, type[Detector]]:
    """The built-in detectors and those installed packages announce as `misstep.detectors`; the latter replace."""
    found = {detector.type: detector for detector in BUILTIN}
    for entry in entry_points(group="misstep.detectors"):
        detector = entry.load()
        found[detector.type] = detector
    return found


__all__ = [
    "BUILTIN",
    "BudgetExceeded",
    "ContextOverflow",
    "DelegationLoop",
    "Detector",
    "DuplicateSideEffect",
    "EmptyResponse",
    "FalseSuccess",
    "IgnoredToolError",
    "InvalidArguments",
    "MalformedCall",
    "MessageFlood",
    "NoProgress",
    "Oscillation",
    "PiiLeak",
    "PrematureStop",
    "PromptInjection",
    "RepeatedCall",
    "SecretLeak",
    "StepLimit",
    "ToolError",
    "ToolTimeout",
    "UngroundedArgument",
    "UnknownTool",
    "UnsafeCommand",
    "known_detectors",
]
