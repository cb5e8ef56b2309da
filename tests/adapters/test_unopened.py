"""Runs that the guard could not open: as if there were no guard, or, where a rule fails closed, with nothing done."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from misstep import AnomalyType, Guard, Halted
from misstep.testing import Say, Script
from tests.conformance.host import MODES, Host, Mode, World
from tests.conformance.hosts.autogen import GuardedTeam
from tests.conformance.hosts.crewai import GuardedCrew
from tests.conformance.hosts.langgraph import GuardedGraph
from tests.conformance.scenarios import again, policy

HOSTS: tuple[Host, ...] = (GuardedGraph(), GuardedTeam(), GuardedCrew())


class Unopenable(Guard):
    """A guard that cannot begin a run."""

    def open(self, *args: Any, **kwargs: Any) -> Any:
        """Crash."""
        raise RuntimeError("a bug in the guard")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("host", HOSTS, ids=lambda host: type(host).__name__)
def test_fail_closed(host: Host, mode: Mode) -> None:
    """No call is made in a run nobody could guard; the caller gets a `Halted` if anything is raised."""
    guard = Unopenable(policy(AnomalyType.REPEATED_CALL, {"refuse": 5}, closed=True))
    world = World()
    with contextlib.suppress(Halted):
        host.app(Script(*again(2), Say("done")), world, guard).run("do it", mode)
    assert world.done == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("host", HOSTS, ids=lambda host: type(host).__name__)
def test_fail_open(host: Host, mode: Mode) -> None:
    """Otherwise the run is the one there would have been without a guard."""
    guard = Unopenable(policy(AnomalyType.REPEATED_CALL, {"refuse": 5}))
    world = World()
    outcome = host.app(Script(*again(2), Say("done")), world, guard).run("do it", mode)
    assert world.done == ["x", "x"]
    assert "done" in outcome.texts[-1]
