"""The signals by which a seat leaves LangGraph's flow for the run to go on later, or elsewhere."""

from langgraph.errors import GraphBubbleUp, GraphInterrupt

from misstep.decisions import Reroute, RollBack
from misstep.errors import Diverted as MisstepDiverted
from misstep.errors import Signal


class Diverted(MisstepDiverted, GraphBubbleUp):
    """Comes up through every graph inside the guarded one; its run seat sees to `decision`."""

    def __init__(self, decision: Reroute | RollBack) -> None:
        self.decision = decision
        super().__init__(decision.kind.value)


class Paused(Signal, GraphInterrupt):
    """LangGraph's interrupt, with questions of the guard's own."""
