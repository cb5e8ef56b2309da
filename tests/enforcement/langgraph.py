"""The enforcement paths of LangGraph."""

from __future__ import annotations

from tests.enforcement.path import Framework

LANGGRAPH = Framework("LangGraph")
