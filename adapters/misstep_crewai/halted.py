"""The halt signal of CrewAI."""

from crewai.hooks import HookAborted

import misstep


class Halted(misstep.Halted, HookAborted):
    """Ends a kickoff; no executor retries it. Delegation and tool bodies turn it into text: it is raised again then."""
