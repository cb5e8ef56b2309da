"""misstep watches LLM agents, names the step that went wrong, and puts it right while the run goes on."""

from misstep.anomalies import Anomaly
from misstep.approval import Answer, Approver, Question
from misstep.errors import (
    AttachError,
    ChangedFrameworkError,
    Halted,
    JournalError,
    MissingExtraError,
    MisstepError,
    PolicyError,
    TraceError,
    UnsupportedVersionError,
    VerificationError,
)
from misstep.guard import Guard
from misstep.journal import Journal
from misstep.policy import Policy, Rule, Rung, default_policy, load_policy
from misstep.report import Report, RunReport
from misstep.run import Limits, Run
from misstep.side_effects import SideEffect, side_effect
from misstep.sink import JsonlSink, Sink
from misstep.taxonomy import AnomalyType, Category, Severity, taxonomy

__version__ = "0.1.0"

__all__ = [
    "Anomaly",
    "AnomalyType",
    "Answer",
    "Approver",
    "AttachError",
    "Category",
    "ChangedFrameworkError",
    "Guard",
    "Halted",
    "Journal",
    "JournalError",
    "JsonlSink",
    "Limits",
    "MissingExtraError",
    "MisstepError",
    "Policy",
    "PolicyError",
    "Question",
    "Report",
    "Rule",
    "Run",
    "RunReport",
    "Rung",
    "Severity",
    "SideEffect",
    "Sink",
    "TraceError",
    "UnsupportedVersionError",
    "VerificationError",
    "default_policy",
    "load_policy",
    "side_effect",
    "taxonomy",
]
