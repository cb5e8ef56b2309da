"""Fixtures of the core's tests."""

from __future__ import annotations

import pytest

from tests.core.scenes import Driver


@pytest.fixture(autouse=True)
def _no_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """A `MISSTEP_MODE` of whoever runs the tests must not switch the guards in them."""
    monkeypatch.delenv("MISSTEP_MODE", raising=False)


@pytest.fixture(params=["sync", "async"])
def driver(request: pytest.FixtureRequest) -> Driver:
    """Both ways through the loop."""
    return Driver(request.param)
