"""misstep for AutoGen AgentChat: guard any team or agent, with every agent, tool and model in it."""

from misstep.frameworks import require

VERSIONS = {
    "autogen-agentchat": ("0.7.5", "0.8"),
    "autogen-core": ("0.7.5", "0.8"),
}
"""Distribution → (oldest that works, first untried)."""

require("misstep_autogen", "autogen", VERSIONS)

from misstep_autogen.attach import guarded, unguard  # noqa: E402 - after the check of versions
from misstep_autogen.halted import Halted  # noqa: E402

__all__ = ["Halted", "guarded", "unguard"]
