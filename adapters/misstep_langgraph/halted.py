"""The halt signal of LangGraph."""

from langgraph.errors import GraphBubbleUp

import misstep


class Halted(misstep.Halted, GraphBubbleUp):
    """
    Ends a graph; no error handler, retry policy or ToolNode swallows it.

    A node's own `except Exception` may; the next seat then raises it again.
    """
