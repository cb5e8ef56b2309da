"""The signals of CrewAI."""

from crewai.hooks import HookAborted

import misstep
import misstep.errors


class Halted(misstep.Halted, HookAborted):
    """Ends a kickoff; no executor retries it. Delegation and tool bodies turn it into text: it is raised again then."""


class Diverted(misstep.errors.Diverted, HookAborted):
    """Ends the task in hand, which is then begun again, perhaps by another agent; swallowed, it is raised again."""

    def __init__(self) -> None:
        super().__init__("misstep: the task in hand is begun again")
