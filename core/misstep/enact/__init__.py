"""
Enactment: the loops that carry decisions out, once for a model call and once for a tool call; `proposed_calls` is for
calls that are made where no seat is.

Each is a generator that yields effects (`effects.py`), gets back what came of them, and returns the value to pass on.
It never waits and does no I/O; the two drivers, `drive` and `adrive`, are the only things that come in a sync and an
async form. What a framework looks like it learns from a seat (`seats.py`), which an adapter implements.
"""

from misstep.enact.drivers import Loop, Rescue, aasked, adrive, asked, drive, until_call, within
from misstep.enact.effects import Call, Consult, Effect, Steps, Store
from misstep.enact.ending import past
from misstep.enact.model import MOST_ATTEMPTS, model_call
from misstep.enact.proposal import proposed_calls
from misstep.enact.seats import ModelSeat, ToolSeat
from misstep.enact.tool import tool_call

__all__ = [
    "MOST_ATTEMPTS",
    "Call",
    "Consult",
    "Effect",
    "Loop",
    "ModelSeat",
    "Rescue",
    "Steps",
    "Store",
    "ToolSeat",
    "aasked",
    "adrive",
    "asked",
    "drive",
    "model_call",
    "past",
    "proposed_calls",
    "tool_call",
    "until_call",
    "within",
]
