"""
misstep for pytest: the fixture `misstep_guard`, a guard that fails the test in which something went wrong.

pytest loads this at every start, wherever misstep is installed: nothing of misstep is imported before a test asks for
the fixture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from misstep import Guard

FAIL_ON = ("info", "low", "medium", "high", "critical", "never")
"""What `--misstep-fail-on` and the marker accept: severities, weakest first, and `never`."""

__all__ = ["FAIL_ON", "misstep_guard", "pytest_addoption", "pytest_configure"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--misstep-fail-on` and the ini option `misstep_policy`."""
    parser.getgroup("misstep").addoption(
        "--misstep-fail-on",
        choices=FAIL_ON,
        default="high",
        help="a test with `misstep_guard` fails if anything at least this severe is found (default: high)",
    )
    parser.addini(
        "misstep_policy",
        "the policy of `misstep_guard`, relative to the root folder (default: misstep.yaml if there is one)",
        default="",
    )


def pytest_configure(config: pytest.Config) -> None:
    """The marker `misstep`."""
    config.addinivalue_line("markers", "misstep(fail_on): --misstep-fail-on for one test, or `never`")


@pytest.fixture
def misstep_guard(request: pytest.FixtureRequest) -> Iterator[Guard]:
    """
    A guard for one test, strict, with the project's own policy.

    Every run it has seen is over when the test is; the test then fails if an anomaly at or above `--misstep-fail-on`
    was found, or what `@pytest.mark.misstep(fail_on=...)` says. A failure of the guard's own code is raised.
    """
    from misstep_pytest.watch import Watch

    watch = Watch(request.config, request.node)
    yield watch.guard
    watch.close()
