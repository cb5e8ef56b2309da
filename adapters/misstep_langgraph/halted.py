"""The halt signal of LangGraph."""

from langgraph.errors import GraphBubbleUp

import misstep


class Halted(misstep.Halted, GraphBubbleUp):
    """Ends a graph; no node's error handling, retry policy or ToolNode swallows it."""
