"""The enforcement paths of AutoGen, and the proof of each."""

from __future__ import annotations

from tests.enforcement.autogen import agents, common, faults, more, rest, runs, teams, tools
from tests.enforcement.autogen.listed import AUTOGEN

__all__ = ["AUTOGEN", "agents", "common", "faults", "more", "rest", "runs", "teams", "tools"]
