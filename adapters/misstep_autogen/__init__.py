"""misstep for AutoGen AgentChat: guard any team or agent with all that is in it, or only watch a runtime."""

from misstep.frameworks import require

VERSIONS = {
    "autogen-agentchat": ("0.7.5", "0.8"),
    "autogen-core": ("0.7.5", "0.8"),
}
"""Distribution → (oldest that works, first untried)."""

require("misstep_autogen", "autogen", VERSIONS)

from misstep_autogen.attach import guarded, unguard  # noqa: E402 - after the check of versions
from misstep_autogen.halted import Halted  # noqa: E402
from misstep_autogen.watching import MisstepInterventionHandler  # noqa: E402

__all__ = ["Halted", "MisstepInterventionHandler", "guarded", "unguard"]
