"""Asserting on saved traces: what is let pass, what fails, and what is said of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from misstep import AnomalyType, Policy, Rule
from misstep.testing import assert_clean
from tests.core.test_cli import EMPTY, HEALTHY, looping, written


@pytest.mark.parametrize("fail_on", ["medium", "low", "info"])
def test_a_trace_that_is_not_clean_fails(tmp_path: Path, fail_on: str) -> None:
    """Anything severe enough fails, with the account of just the traces it was found in."""
    bad = written(tmp_path, [{"messages": looping()}, {"messages": HEALTHY}, {"messages": EMPTY}])
    with pytest.raises(AssertionError) as caught:
        assert_clean(written(tmp_path, HEALTHY, "good.json"), bad, fail_on=fail_on)
    text = " ".join(str(caught.value).split())
    assert text.startswith(f"2 of the saved traces not clean: {bad}#0 ")
    assert "step 5, assistant: repeated_call (medium)" in text
    assert f"{bad}#2 " in text
    assert "#1" not in text


def test_what_is_mild_enough_passes(tmp_path: Path) -> None:
    """By default only what is highly severe fails; a folder and a path object will do."""
    written(tmp_path, [{"messages": looping()}, {"messages": EMPTY}])
    assert_clean(tmp_path)
    assert_clean(str(tmp_path), fail_on="critical")


def test_the_policy_says_what_is_looked_for(tmp_path: Path) -> None:
    """A policy of one's own finds what it looks for, and nothing else."""
    file = written(tmp_path, looping())
    assert_clean(file, fail_on="info", policy=Policy(rules={AnomalyType.EMPTY_RESPONSE: Rule()}))
    with pytest.raises(AssertionError, match="repeated_call"):
        assert_clean(file, fail_on="info", policy=Policy(rules={AnomalyType.REPEATED_CALL: Rule(ladder=())}))


def test_what_cannot_be_read_is_not_clean(tmp_path: Path) -> None:
    """A trace that is gone, or is none, must not pass for one in which nothing was found."""
    with pytest.raises(AssertionError, match="unreadable"):
        assert_clean(tmp_path / "gone.json")
    with pytest.raises(AssertionError, match="unreadable"):
        assert_clean(tmp_path)
    with pytest.raises(AssertionError, match="unknown_format"):
        assert_clean(written(tmp_path, {"labels": 1}))


def test_nothing_to_look_at_is_an_error() -> None:
    """Without a path nothing is asserted, which is a mistake in the test."""
    with pytest.raises(ValueError, match="no saved trace"):
        assert_clean()
    with pytest.raises(ValueError, match="loud"):
        assert_clean("x.json", fail_on="loud")
