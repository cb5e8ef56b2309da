"""The enforcement paths of LangGraph and LangChain, each with its proof."""

from __future__ import annotations

from tests.enforcement.langgraph import calls, faults, peers, runs
from tests.enforcement.langgraph.paths import LANGGRAPH

__all__ = ["LANGGRAPH", "calls", "faults", "peers", "runs"]
