"""Fixtures of the core's tests."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.core.scenes import Driver


@pytest.fixture(autouse=True)
def _no_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """A `MISSTEP_MODE` of whoever runs the tests must not switch the guards in them."""
    monkeypatch.delenv("MISSTEP_MODE", raising=False)


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """The command line, run within a test, turns misstep's log down; the next test must not notice."""
    log = logging.getLogger("misstep")
    level, log.disabled = log.level, False
    yield
    log.setLevel(level)


@pytest.fixture(params=["sync", "async"])
def driver(request: pytest.FixtureRequest) -> Driver:
    """Both ways through the loop."""
    return Driver(request.param)
