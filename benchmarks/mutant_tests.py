"""
The tests of `benchmarks.mutations`, run by pytest in forked children.

The frameworks are imported once, in the parent; the modules of an adapter, and the tests, only in the children. So a
child begins where an import of its own would have taken seconds, and imports the changed source as any other.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import importlib
import importlib.machinery
import importlib.util
import json
import os
import signal
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

import coverage
import pytest

from benchmarks.mutants import Mutant

ROOT = Path(__file__).parents[1]
_ADAPTERS = ("misstep_langgraph", "misstep_autogen", "misstep_crewai")
_FRESH = (*_ADAPTERS, "tests", "benchmarks", "examples", "conftest", "__m")
"""What every child imports itself: adapters, and what may import them."""

_OPTIONS = ("-x", "-q", "-o", "addopts=", "-p", "no:cacheprovider", "--tb=native", "--assert=plain")
_IMPORTING = 60.0
"""Seconds the tests may take to be imported."""


def prepare(files: Sequence[Path]) -> None:
    """Import what the tests import, except for adapters and tests themselves."""
    os.environ.update(
        CREWAI_DISABLE_TELEMETRY="true",
        CREWAI_DISABLE_TRACKING="true",
        CREWAI_STORAGE_DIR=tempfile.mkdtemp(),
        CREWAI_TESTING="true",
        CREWAI_TRACING_ENABLED="false",
        OTEL_SDK_DISABLED="true",
        PYTEST_DISABLE_PLUGIN_AUTOLOAD="1",
    )
    for _, names in forked([lambda: _imported(files)], 1):
        for name in names or ():
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    early = [name for name in sys.modules if name.startswith(_ADAPTERS)]
    if early:
        raise RuntimeError(f"imported before any change was made: {early}")
    gc.collect()
    gc.freeze()


def _imported(files: Sequence[Path]) -> list[str]:
    _run(files, _Selected(None), "--collect-only")
    return [name for name in sys.modules if not name.startswith(_FRESH)]


def forked(tasks: Sequence[Callable[[], Any]], at_once: int) -> Iterator[tuple[int, Any]]:
    """Each task in a child process, so many at once: its number and what it returned, or None if the child died."""
    with tempfile.TemporaryDirectory() as folder:
        waiting, running = list(enumerate(tasks))[::-1], dict[int, int]()
        while waiting or running:
            while waiting and len(running) < at_once:
                number, task = waiting.pop()
                sys.stdout.flush()
                child = os.fork()
                if child == 0:
                    _work(task, Path(folder, str(number)))
                running[child] = number
            ended, _ = os.wait()
            with contextlib.suppress(ProcessLookupError):  # what it may have started itself
                os.killpg(ended, signal.SIGKILL)
            number = running.pop(ended)
            answer = Path(folder, str(number))
            yield number, json.loads(answer.read_text()) if answer.exists() else None


def _work(task: Callable[[], Any], answer: Path) -> None:
    os.setpgid(0, 0)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    with contextlib.suppress(BaseException):
        returned = json.dumps(task())
        unfinished = answer.with_suffix(".part")
        unfinished.write_text(returned)
        unfinished.rename(answer)
    os._exit(0)


class _Selected:
    """Has pytest run the tests named, the quickest first, all if None; a test that hangs ends the process."""

    def __init__(self, seconds: dict[str, float] | None) -> None:
        self._seconds = seconds
        self.took: dict[str, float] = defaultdict(float)
        self.failed: list[str] = []
        self.skipped: list[str] = []

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Take those to be run."""
        known = self._seconds
        if known is not None:
            items[:] = sorted((item for item in items if item.nodeid in known), key=lambda item: known[item.nodeid])

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Count the time."""
        signal.setitimer(signal.ITIMER_REAL, 60 if self._seconds is None else 15 + 5 * self._seconds[nodeid])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what became of it."""
        self.took[report.nodeid] += report.duration
        if report.failed:
            self.failed.append(report.nodeid)
        if report.skipped:
            self.skipped.append(report.nodeid)


def _run(files: Sequence[Path], selected: _Selected, *options: str) -> int:
    signal.setitimer(signal.ITIMER_REAL, _IMPORTING)
    return int(pytest.main([*_OPTIONS, *options, *map(str, files)], plugins=[selected]))


def trace(files: Sequence[Path], sources: Sequence[Path], at_once: int) -> dict[str, Any]:
    """
    Which tests run which lines: `tests`, id → seconds; `lines`, file → line → ids; `""` is the import.

    What is found of a test file is kept in the temporary folder until a source, or anything in its folder, changes.
    Tests that fail as things are stand in `failed` and nowhere else.
    """
    found: dict[str, Any] = {"tests": {}, "failed": [], "lines": {}}
    kept = [Path(tempfile.gettempdir(), f"misstep-traced-{_digest(file)}.json") for file in files]
    missing = [number for number, path in enumerate(kept) if not path.exists()]
    for done, traced in forked([lambda file=files[n]: _trace(file, sources) for n in missing], at_once):  # type: ignore[misc]
        if traced is None:
            raise RuntimeError(f"{files[missing[done]]}: the tests hang, or crash, as things are")
        kept[missing[done]].write_text(json.dumps(traced))
    for path in kept:
        traced = json.loads(path.read_text())
        found["tests"] |= traced["tests"]
        found["failed"] += traced["failed"]
        for name, lines in traced["lines"].items():
            known = found["lines"].setdefault(name, {})
            for line, ids in lines.items():
                known.setdefault(line, set()).update(ids)
    return found


def _digest(file: Path) -> str:
    helpers = (path for path in (ROOT / "tests").rglob("*.py") if not path.name.startswith("test_"))
    read = [file, *helpers, *(ROOT / "core").rglob("*.py"), *(ROOT / "adapters").rglob("*.py")]
    said = hashlib.sha256()
    for path in sorted(read):
        said.update(f"{path} {path.read_text()}".encode())
    return said.hexdigest()[:24]


def _trace(file: Path, sources: Sequence[Path]) -> dict[str, Any]:
    traced = coverage.Coverage(data_file=None, include=[str(source) for source in sources])

    class Contexts:
        @pytest.hookimpl(wrapper=True)
        def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
            traced.switch_context(item.nodeid)
            return (yield)

    selected = _Selected(None)
    traced.start()
    signal.setitimer(signal.ITIMER_REAL, _IMPORTING)
    pytest.main([*_OPTIONS[1:], str(file)], plugins=[selected, Contexts()])
    traced.stop()
    data = traced.get_data()
    without = {*selected.failed, *selected.skipped}
    return {
        "tests": {name: seconds for name, seconds in selected.took.items() if name not in without},
        "failed": selected.failed,
        "lines": {
            str(Path(name).relative_to(ROOT)): {
                line: [each for each in names if each not in without]
                for line, names in data.contexts_by_lineno(name).items()
            }
            for name in data.measured_files()
        },
    }


def judge(mutant: Mutant, tests: dict[str, float]) -> str:
    """The test that notices the change, "" if none does. To be called in a child."""
    mutant.make()
    sys.meta_path.insert(0, _Changed(mutant))
    selected = _Selected(tests)
    files = sorted({ROOT / name.partition("::")[0] for name in tests})
    ended = pytest.ExitCode(_run(files, selected))
    if ended in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        return ""
    return selected.failed[0] if selected.failed else f"{ended.name.lower()}: not importable"


class _Changed(MetaPathFinder):
    """Finds the changed module in place of the one on disk."""

    def __init__(self, mutant: Mutant) -> None:
        package, stem = mutant.file.parent.name, mutant.file.stem
        self._name = package if stem == "__init__" else f"{package}.{stem}"
        self._mutant = mutant

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Its spec."""
        if name != self._name:
            return None
        file = str(self._mutant.file)
        return importlib.util.spec_from_file_location(name, file, loader=_Loader(name, file, self._mutant))


class _Loader(SourceFileLoader):
    def __init__(self, name: str, file: str, mutant: Mutant) -> None:
        super().__init__(name, file)
        self._mutant = mutant

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._mutant.tree, self.path, "exec", dont_inherit=True)
