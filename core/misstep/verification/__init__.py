"""
Verification: is the guard really in the path of an app?

A canary goes through the real graph, team or crew, whose models and tools answer with stubs meanwhile: calls that must
be refused, a reply that must be thrown away, a run that must be halted. What gets through is named.
"""

from misstep.verification.canary import Canary, Offer
from misstep.verification.procedure import Part, Rehearsal, Way, rehearsal_of, verify
from misstep.verification.result import Checked, Standing, Verification

__all__ = [
    "Canary",
    "Checked",
    "Offer",
    "Part",
    "Rehearsal",
    "Standing",
    "Verification",
    "Way",
    "rehearsal_of",
    "verify",
]
