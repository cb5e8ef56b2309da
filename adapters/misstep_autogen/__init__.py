"""
misstep for AutoGen AgentChat: guard any team or agent with all that is in it, or only watch a runtime.

`attach` walks what an agent or a team holds and puts a `patch` on each part of it. What is called then finds by its
`place` (a context variable) which run it belongs to (`live`). One file a seat:

| seat | file | patched there or for it |
|---|---|---|
| run | `run` (with `rollback`) | `run`, `run_stream` of what was guarded: `entrance`, `team`, `agent` |
| turn | `turn`; the next one in `manager` | `on_messages`, `on_messages_stream`; a manager's `select_speaker` |
| message | `turn` | the response of a turn |
| model | `model` | the model client, by a proxy |
| tool | `tool` | workbenches, hand-off tools and code executors: `workbench` |

What a walk does not find is patched where it is run within a guarded run, by the `gate` on AutoGen's classes.
`messages` translates, `stream` drives the core's loop where the host streams, and everything private of AutoGen is
in `private`. Watching only is `watching`, with `chat`.
"""

from misstep.frameworks import relying, require

VERSIONS = {
    "autogen-agentchat": ("0.7.5", "0.8"),
    "autogen-core": ("0.7.5", "0.8"),
}
"""Distribution → (oldest that works, first untried)."""

require("misstep_autogen", "autogen", VERSIONS)

with relying("misstep_autogen", VERSIONS):
    from misstep_autogen.attach import guarded, unguard
    from misstep_autogen.halted import Halted
    from misstep_autogen.watching import MisstepInterventionHandler

__all__ = ["Halted", "MisstepInterventionHandler", "guarded", "unguard"]
