"""Collects what became of each path into one table, printed at the end of the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.enforcement.path import Framework
from tests.enforcement.test_enforcement import FRAMEWORKS

_results: dict[tuple[str, str], bool] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Write what became of a path into its report, which may be made in another process."""
    result = yield
    cell = getattr(item, "callspec", None)
    if call.when == "call" and cell is not None and "path" in cell.params:
        result.user_properties.append(("path", [cell.params["framework"].name, cell.params["path"], result.passed]))
    return result


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note what became of each path."""
    for name, value in report.user_properties:
        if name == "path" and report.when == "call":
            framework, path, passed = value  # type: ignore[misc]
            _results[framework, path] = passed


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--write-paths` puts the table into ENFORCEMENT.md."""
    parser.addoption("--write-paths", action="store_true", help="write the table of enforcement paths to a file")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table as Markdown."""
    if _results:
        terminalreporter.write_line("")
        for line in table():
            terminalreporter.write_line(line)
        if config.getoption("--write-paths", default=False):
            _write(config.rootpath / "ENFORCEMENT.md")


def _write(page: Path) -> None:
    before, rest = page.read_text().split("<!-- paths -->")
    after = rest.split("<!-- /paths -->")[1]
    lines = "\n".join(table())
    page.write_text(f"{before}<!-- paths -->\n{lines}\n<!-- /paths -->{after}")


def table() -> list[str]:
    """One row a path; in the cells what it does on each framework. Reasons for what is declared stand below."""
    names = list(dict.fromkeys(name for framework in FRAMEWORKS for name in framework.listed))
    lines = ["| path | " + " | ".join(framework.name for framework in FRAMEWORKS) + " |"]
    lines.append("|---" * (len(FRAMEWORKS) + 1) + "|")
    lines += [f"| {name} | " + " | ".join(_cell(each, name) for each in FRAMEWORKS) + " |" for name in names]
    lines += ["", *(_summary(framework) for framework in FRAMEWORKS)]
    return [*lines, "", *_reasons()]


def _cell(framework: Framework, name: str) -> str:
    if name not in framework.listed:
        return ""
    tried = framework.tried.get(name)
    if tried is None:
        return "NOT TRIED"
    if tried.proof is None:
        return "no such path"
    passed = _results.get((framework.name, name))
    return "not run" if passed is None else tried.state if passed else "LEAKS"


def _summary(framework: Framework) -> str:
    counts = Counter(_cell(framework, name) for name in framework.listed)
    said = ", ".join(f"{counts[state]} {state}" for state in ("holds", "declared", "LEAKS", "NOT TRIED", "not run"))
    return f"{framework.name}: {said}; {counts['no such path']} it does not have."


def _reasons() -> list[str]:
    return [
        f"- {framework.name}, {name} ({tried.state if tried.proof else 'no such path'}): {tried.why}"
        for framework in FRAMEWORKS
        for name, tried in framework.tried.items()
        if tried.why
    ]
