"""misstep for CrewAI: guard any crew, or only watch it."""

from misstep.frameworks import require

VERSIONS = {"crewai": ("1.15.30", "1.16")}
"""Distribution → (oldest that works, first untried)."""

require("misstep_crewai", "crewai", VERSIONS)

from misstep_crewai.halted import Halted  # noqa: E402 - after the check of versions
from misstep_crewai.run import guarded, unguard  # noqa: E402
from misstep_crewai.watching import callbacks  # noqa: E402

__all__ = ["Halted", "callbacks", "guarded", "unguard"]
