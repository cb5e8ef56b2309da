"""The enforcement paths of CrewAI."""

from tests.enforcement.crewai.paths import CREWAI

__all__ = ["CREWAI"]
