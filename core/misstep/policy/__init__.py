"""Policies: which anomalies are looked for, and what is done about each."""

from misstep.policy.ladder import Ladder, asking
from misstep.policy.load import load_policy, parse_policy
from misstep.policy.model import Mode, Policy, Rule, Rung, default_policy
from misstep.policy.reach import EVERYTHING, Reach
from misstep.policy.schema import schema
from misstep.policy.starter import starter

__all__ = [
    "EVERYTHING",
    "Ladder",
    "Mode",
    "Policy",
    "Reach",
    "Rule",
    "Rung",
    "asking",
    "default_policy",
    "load_policy",
    "parse_policy",
    "schema",
    "starter",
]
