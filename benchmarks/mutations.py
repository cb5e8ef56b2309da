"""
Does a test fail if one line of an adapter is taken away? `python -m benchmarks.mutations --adapter langgraph`.

Every change that `benchmarks.mutants` makes to the adapter's files, `testing.py` aside, is a mutant. It is *killed* if
one of the tests that run its line fails or hangs, and *survives* otherwise, also where no test runs it at all. Those
that `equivalent_mutants.yaml` lists change nothing that anybody could observe, or nothing that enforces; they count as
survivors in the raw score, and the second score leaves them out. `--sample` tries a random part, and then says how
far the score may be off (Wilson's interval, 95 %). Needs `fork`. (mutmut removes no statements and wraps functions,
which our patches and nested classes are not fit for; cosmic-ray starts an interpreter for every mutant, and importing
the frameworks takes longer than most tests.)
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.mutant_tests import ROOT, forked, judge, prepare, trace
from benchmarks.mutants import Mutant, mutants

TESTS = ("tests/adapters", "tests/conformance", "tests/enforcement", "tests/faults")
"""Where the tests of adapters are."""

_EQUIVALENT = Path(__file__).with_name("equivalent_mutants.yaml")
_HANGS = "hangs or crashes"


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of a mutant: the test that killed it, "" if it survived; `tests` is how many run its line."""

    mutant: Mutant
    by: str
    tests: int
    equivalent: str = ""

    def __str__(self) -> str:
        mutant = self.mutant
        why = f"  [equivalent: {self.equivalent}]" if self.equivalent else "" if self.tests else "  [no test runs it]"
        place = f"{mutant.file.relative_to(ROOT)}:{mutant.line}"
        return f"{place}: {mutant.source} -> {mutant.change}{why}"


def run(chosen: Sequence[Mutant], tests: Sequence[Path], jobs: int) -> list[Tried]:
    """Try each; a test that fails as things are is named, and left out."""
    prepare(tests)
    traced = trace(tests, sorted((ROOT / "adapters").rglob("*.py")), jobs)
    if traced["failed"]:
        print("left out, since they fail as things are:", *traced["failed"], sep="\n  ")
    equivalent = {each["mutant"]: each["reason"] for each in yaml.safe_load(_EQUIVALENT.read_text()) or ()}
    running = [_tests_of(mutant, traced) for mutant in chosen]
    tasks = [lambda m=mutant, t=ids: judge(m, t) if t else "" for mutant, ids in zip(chosen, running, strict=True)]  # type: ignore[misc]
    tried: list[Tried | None] = [None] * len(chosen)
    for done, (number, by) in enumerate(forked(tasks, jobs), 1):
        mutant = chosen[number]
        killed = _HANGS if by is None else by
        tried[number] = Tried(mutant, killed, len(running[number]), "" if killed else equivalent.get(mutant.name, ""))
        print(f"{done}/{len(chosen)}  {'killed  ' if killed else 'SURVIVED'}  {tried[number]}", file=sys.stderr)
    return [each for each in tried if each is not None]


def _tests_of(mutant: Mutant, traced: dict[str, Any]) -> dict[str, float]:
    """Tests that run a mutant's line, with their seconds; of a line run at import, all that run any of the adapter."""
    folder = mutant.file.parent.relative_to(ROOT)
    lines = traced["lines"].get(str(folder / mutant.file.name), {})
    ids = set[str]().union(*(lines.get(str(line), ()) for line in range(mutant.first, mutant.last + 1)))
    if "" in ids:
        of_adapter = (found for name, found in traced["lines"].items() if Path(name).parent == folder)
        ids = ids.union(*(each for found in of_adapter for each in found.values()))
    return {name: traced["tests"][name] for name in ids - {""}}


def interval(part: int, whole: int) -> tuple[float, float]:
    """Wilson's score interval of a share, at 95 %."""
    z = 1.96
    share, spread = part / whole, z * z / whole
    middle = (share + spread / 2) / (1 + spread)
    half = z * (share * (1 - share) / whole + spread / whole / 4) ** 0.5 / (1 + spread)
    return middle - half, middle + half


def report(tried: Sequence[Tried], *, sampled: bool) -> str:
    """The figures, per file and overall, and the survivors."""
    lines = []
    for file in sorted({each.mutant.file for each in tried}):
        lines.append(_figures(file.name, [each for each in tried if each.mutant.file == file]))
    lines.append(_figures("all", tried))
    if sampled:
        low, high = interval(sum(bool(each.by) for each in tried), len(tried))
        lines.append(f"a sample: between {low:.1%} and {high:.1%} (95 %)")
    return "\n".join([*lines, "survivors:", *(f"  {each}" for each in tried if not each.by)])


def _figures(name: str, tried: Sequence[Tried]) -> str:
    killed, equivalent = sum(bool(each.by) for each in tried), sum(bool(each.equivalent) for each in tried)
    counted = len(tried) - equivalent
    score = f"{killed / len(tried):.1%}, {killed / counted:.1%} without {equivalent} equivalent" if counted else "-"
    return f"{name:16} {len(tried):5} mutants {killed:5} killed {len(tried) - killed:4} survived  {score}"


def _written(tried: Sequence[Tried]) -> str:
    return json.dumps(
        [
            {"mutant": each.mutant.name, "line": each.mutant.line, "tests": each.tests, "killed_by": each.by}
            for each in tried
        ],
        indent=1,
    )


def main() -> None:
    """Try and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", choices=("langgraph", "autogen", "crewai"), required=True)
    parser.add_argument("--module", default="", help="only these files, as in `gate,tool`")
    parser.add_argument("--sample", type=int, help="so many mutants, drawn at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--tests", nargs="+", type=Path, help=f"files or folders of tests (default: {' '.join(TESTS)})")
    parser.add_argument("--report", type=Path, help="write what became of each into this file (JSON)")
    parser.add_argument("--again", type=Path, help="only those that survived in this report")
    options = parser.parse_args()
    os.chdir(ROOT)
    chosen = _chosen(options)
    tests = options.tests or [ROOT / name for name in TESTS if (ROOT / name).is_dir()]
    files = [file for path in tests for file in ([path] if path.is_file() else sorted(path.rglob("test_*.py")))]
    tried = run(chosen, files, options.jobs)
    if options.report:
        options.report.write_text(_written(tried))
    print(report(tried, sampled=options.sample is not None))


def _chosen(options: argparse.Namespace) -> list[Mutant]:
    folder = ROOT / "adapters" / f"misstep_{options.adapter}"
    modules = set(filter(None, options.module.split(",")))
    files = [file for file in sorted(folder.glob("*.py")) if file.stem != "testing"]
    found = [mutant for file in files if not modules or file.stem in modules for mutant in mutants(file)]
    if options.again:
        survived = {each["mutant"] for each in json.loads(options.again.read_text()) if not each["killed_by"]}
        found = [mutant for mutant in found if mutant.name in survived]
    if options.sample is not None:
        found = random.Random(options.seed).sample(found, min(options.sample, len(found)))
    return found


if __name__ == "__main__":
    main()
