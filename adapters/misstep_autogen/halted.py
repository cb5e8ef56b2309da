"""How misstep leaves the flow of AutoGen."""

import misstep
from misstep.errors import Diverted


class Halted(misstep.Halted):
    """
    Ends an agent's turn where its model is called, or where the turn would begin; never raised in a tool.

    AutoGen has no signal of its own: a team turns any exception of an agent into a `RuntimeError` with its words,
    which the run seat knows again.
    """


class TurnLeft(Diverted):
    """Ends an agent's turn so that another one is given it; never leaves the agent."""
