"""Root cause localization: which agent and which step, from the anomalies of a run."""

from misstep.localize.ranking import Candidate, RootCause, localize

__all__ = ["Candidate", "RootCause", "localize"]
