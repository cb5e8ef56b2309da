"""Killed and resumed: a LangGraph agent that pays, real processes, LangGraph's own checkpoints, and the journal."""

from __future__ import annotations

import multiprocessing
import signal
from pathlib import Path
from typing import Literal

import pytest

pytest.importorskip("langgraph.checkpoint.sqlite")

from benchmarks.killed import Orders, work
from benchmarks.kills import measure

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["benchmarks.killed"])

Durability = Literal["sync", "async", "exit"]


def run(folder: Path, orders: Orders) -> int | None:
    """One process, and how it ended."""
    process = CONTEXT.Process(target=work, args=(str(folder), orders))
    process.start()
    process.join(60)
    return process.exitcode


def killed(folder: Path, orders: Orders) -> None:
    """One process that kills itself."""
    assert run(folder, orders) == -signal.SIGKILL


def lines(file: Path) -> list[str]:
    """What was written there."""
    return file.read_text().splitlines() if file.exists() else []


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_what_was_done_is_answered_from_the_journal(tmp_path: Path, durability: Durability) -> None:
    """A kill after the record, before the checkpoint: the payment is not made again, its result is passed on."""
    killed(tmp_path, Orders(durability, "done", 0))
    assert run(tmp_path, Orders(durability)) == 0
    assert sorted(lines(tmp_path / "effects")) == ["A", "A", "B", "C"]
    assert lines(tmp_path / "asked") == []


def test_without_a_journal_it_is_done_again(tmp_path: Path) -> None:
    """The same kill without a journal pays A a third time: what these tests count can go wrong."""
    killed(tmp_path, Orders("sync", "effect", 1, journal=False))
    assert run(tmp_path, Orders("sync", journal=False)) == 0
    assert lines(tmp_path / "effects").count("A") == 3


@pytest.mark.parametrize("nth", [0, 1], ids=["before the effect", "after the effect"])
@pytest.mark.parametrize("durability", ["sync", "exit"])
def test_what_nobody_knows_is_asked(tmp_path: Path, durability: Durability, nth: int) -> None:
    """A kill between the two records leaves the call unknown: until a person says otherwise it is not made again."""
    killed(tmp_path, Orders(durability, "effect", nth))
    assert run(tmp_path, Orders(durability)) == 0
    assert lines(tmp_path / "asked") == ["A", "A"]
    assert lines(tmp_path / "reports") == ["0 2 0"]
    assert sorted(lines(tmp_path / "effects")) == ["A"] * nth + ["B", "C"]


def test_what_a_person_approves_is_made(tmp_path: Path) -> None:
    """A person who knows that it did not happen has the call made, and is asked once."""
    killed(tmp_path, Orders("sync", "effect", 0))
    assert run(tmp_path, Orders("sync", approves=True)) == 0
    assert lines(tmp_path / "asked") == ["A"]
    assert lines(tmp_path / "reports") == ["0 1 1"]
    assert lines(tmp_path / "effects").count("A") == 2


def test_two_payments_that_were_asked_for_are_two(tmp_path: Path) -> None:
    """A kill right after the second payment of the same order, whose first is long known, leaves two of them."""
    killed(tmp_path, Orders("sync", "done", 3))
    assert run(tmp_path, Orders("sync")) == 0
    assert lines(tmp_path / "effects").count("A") == 2
    assert lines(tmp_path / "reports") == ["1 0 0"]


@pytest.mark.timeout(120)
def test_random_kills_repeat_nothing() -> None:
    """Ten kills at random moments and boundaries: nothing is paid twice unapproved, nothing is lost, all finish."""
    tally = measure(10, seed=3)
    assert (tally.repeats, tally.lost) == (0, 0)
    assert tally.finished == tally.runs
    assert tally.kills >= 10
