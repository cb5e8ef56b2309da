"""The enforcement paths of CrewAI."""

from __future__ import annotations

from tests.enforcement.path import Framework

CREWAI = Framework("CrewAI")
