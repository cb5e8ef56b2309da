"""Every scenario, on every way of attaching misstep, in every mode."""

from __future__ import annotations

import pytest

from misstep import AttachError
from tests.conformance.host import MODES, Host, Mode
from tests.conformance.hosts.autogen import GuardedTeam
from tests.conformance.hosts.crewai import GuardedCrew
from tests.conformance.hosts.langgraph import AgentWithMiddleware, GuardedGraph
from tests.conformance.scenarios import SCENARIOS, Scenario

HOSTS: tuple[Host, ...] = (GuardedGraph(), AgentWithMiddleware(), GuardedTeam(), GuardedCrew())


def declared(scenario: Scenario, host: Host, mode: Mode) -> bool:
    """Whether the framework cannot do it."""
    return scenario.__name__ in host.declares or f"{scenario.__name__} {mode}" in host.declares


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("host", HOSTS, ids=lambda host: type(host).__name__)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_conformance(scenario: Scenario, host: Host, mode: Mode) -> None:
    """What misstep promises holds here; what an adapter declares impossible is indeed impossible."""
    if declared(scenario, host, mode):
        with pytest.raises((AssertionError, AttachError)):
            scenario(host, mode)
    else:
        scenario(host, mode)
