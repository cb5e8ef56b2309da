"""The enforcement paths of LangGraph and LangChain."""

from __future__ import annotations

from tests.enforcement.langgraph.paths import LANGGRAPH

__all__ = ["LANGGRAPH"]
