"""misstep for LangGraph and LangChain: watch any app, intercept in `create_agent`, guard any graph."""

from misstep.frameworks import relying, require

VERSIONS = {
    "langchain-core": ("1.7.2", "1.9"),
    "langgraph": ("1.2.22", "1.3"),
    "langchain": ("1.4.7", "1.6"),
}
"""Distribution → (oldest that works, first untried)."""

require("misstep_langgraph", "langgraph", VERSIONS)

with relying("misstep_langgraph", VERSIONS):
    from misstep_langgraph.callback import MisstepCallbackHandler
    from misstep_langgraph.halted import Halted
    from misstep_langgraph.middleware import MisstepMiddleware
    from misstep_langgraph.run import guarded, unguard

__all__ = ["Halted", "MisstepCallbackHandler", "MisstepMiddleware", "guarded", "unguard"]
