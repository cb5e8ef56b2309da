"""
Is an effect ever brought about twice by a kill? `python -m benchmarks.kills --kills 300`.

An agent that pays (see `benchmarks.killed`) is killed with SIGKILL, at a random moment or at a boundary of what it
does, and resumed in a new process, which may be killed again, until the run is finished; then the next is begun. A
*repeat* is a payment beyond those asked for that no person approved; a payment is *lost* where it was not made though
nobody was asked about it. Both must be 0; `--bare` shows what comes of it without a journal.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import signal
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.killed import WANTED, Orders, orders_for, work

MOST_KILLS = 4
"""How often one run is killed at most."""


@dataclass
class Tally:
    """What came of it."""

    kills: int = 0
    runs: int = 0
    finished: int = 0
    asked: int = 0
    approved: int = 0
    answered: int = 0
    repeats: int = 0
    lost: int = 0
    boundaries: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        where = ", ".join(f"{name} {count}" for name, count in sorted(self.boundaries.items()))
        return (
            f"kills {self.kills} ({where}); runs {self.runs}, finished {self.finished}\n"
            f"calls answered from the journal {self.answered}; unknown and asked {self.asked}, "
            f"approved {self.approved}\nrepeated without approval {self.repeats}; lost {self.lost}"
        )


def measure(kills: int, seed: int = 0, *, journal: bool = True) -> Tally:
    """Kill that often, and count."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.killed"])
    draw, tally = random.Random(seed), Tally()
    longest = _uninterrupted(context)
    while tally.kills < kills:
        with tempfile.TemporaryDirectory() as folder:
            _one(context, draw, folder, longest, tally, journal)
            _count(Path(folder), tally)
    return tally


def _uninterrupted(context: multiprocessing.context.ForkServerContext) -> float:
    """How many seconds a process takes that nobody kills, once the server that forks it is up."""
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            process = context.Process(target=work, args=(folder, Orders()))
            process.start()
            process.join()
    return time.monotonic() - began


def _one(
    context: multiprocessing.context.ForkServerContext,
    draw: random.Random,
    folder: str,
    longest: float,
    tally: Tally,
    journal: bool,
) -> None:
    """One run, killed and resumed until it is finished."""
    tally.runs += 1
    for attempt in range(MOST_KILLS + 1):
        last = attempt == MOST_KILLS
        boundary = not last and draw.random() < 0.5
        process = context.Process(target=work, args=(folder, orders_for(draw, boundary, journal)))
        process.start()
        if not last and not boundary:
            process.join(draw.uniform(0, longest))
            process.kill()
        process.join(60)
        if process.exitcode == 0:
            tally.finished += 1
            return
        if process.exitcode != -signal.SIGKILL:
            raise RuntimeError(f"the agent ended with {process.exitcode}")
        tally.kills += 1
        tally.boundaries["boundary" if boundary else "moment"] += 1


def _count(folder: Path, tally: Tally) -> None:
    paid, asked, approved = (Counter(_lines(folder / name)) for name in ("effects", "asked", "approved"))
    tally.asked += asked.total()
    tally.approved += approved.total()
    tally.answered += sum(int(line.split()[0]) for line in _lines(folder / "reports"))
    for order, wanted in WANTED.items():
        tally.repeats += max(0, paid[order] - wanted - approved[order])
        tally.lost += max(0, wanted - paid[order]) if not asked[order] else 0


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bare", action="store_true", help="without a journal")
    options = parser.parse_args()
    tally = measure(options.kills, options.seed, journal=not options.bare)
    print(tally)
    if tally.repeats or tally.lost or tally.finished < tally.runs:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
