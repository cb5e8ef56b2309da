"""What the tests of `verify` share: nothing real may happen while an app is verified, and how its seats stand."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from misstep import AnomalyType, Guard, Policy, Rule
from misstep.seats import Seat
from misstep.testing import Say
from misstep.verification import Standing, Verification

REAL: list[str] = []
"""What was really done: nothing may be, while an app is verified."""


@pytest.fixture(autouse=True)
def nothing_real() -> Iterator[None]:
    """After every test nothing real was done; the command line turns the log down, and it is turned up again."""
    REAL.clear()
    yield
    logging.getLogger("misstep").setLevel(logging.NOTSET)
    assert REAL == []


def real(_: Any) -> Say:
    """A model that must never be asked."""
    REAL.append("model")
    return Say("a real answer")


def standing(found: Verification, seat: Seat, part: str) -> set[Standing]:
    """How one seat stands, over all ways."""
    return {each.standing for each in found.checked if (each.seat, each.part) == (seat, part)}


idle = pytest.mark.parametrize(
    ("guard", "reason"),
    [
        (Guard(mode="off"), "the guard's mode is `off`"),
        (Guard(mode="shadow"), "the guard's mode is `shadow`"),
        (Guard(Policy(rules={AnomalyType.REPEATED_CALL: Rule(ladder=())})), "no rule of the policy has a remedy"),
    ],
)
"""Guards that would not act, each with what is said of it."""


def not_protected(found: Verification, reason: str) -> None:
    """However well a guard is attached: what keeps it from acting is said."""
    assert reason in found.switched
    assert reason in found.verdict
    assert found.broken
    assert found.headline == "not protected"
