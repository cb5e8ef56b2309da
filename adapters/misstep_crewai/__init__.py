"""misstep for CrewAI: guard any crew, or only watch it."""

from misstep.frameworks import relying, require

VERSIONS = {"crewai": ("1.15.30", "1.16")}
"""Distribution → (oldest that works, first untried)."""

require("misstep_crewai", "crewai", VERSIONS)

with relying("misstep_crewai", VERSIONS):
    from misstep_crewai.halted import Halted
    from misstep_crewai.run import guarded, unguard
    from misstep_crewai.watching import callbacks

__all__ = ["Halted", "callbacks", "guarded", "unguard"]
