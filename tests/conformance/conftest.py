"""Collects the results of the scenarios into one matrix, printed at the end of the run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.host import MODES
from tests.conformance.scenarios import SCENARIOS
from tests.conformance.test_conformance import HOSTS

_results: dict[tuple[str, str, str], str] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Write what became of a cell into its report, which may be made in another process."""
    result = yield
    cell = getattr(item, "callspec", None)
    if call.when == "call" and cell is not None and "scenario" in cell.params:
        host, mode = cell.params["host"], cell.params["mode"]
        scenario = cell.params["scenario"].__name__
        held = "declared" if {scenario, f"{scenario} {mode}"} & set(host.declares) else "holds"
        result.user_properties.append(("cell", [scenario, host.name, mode, held if result.passed else "FAILS"]))
    return result


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note what became of each cell."""
    for name, value in report.user_properties:
        if name == "cell" and report.when == "call":
            scenario, host, mode, state = value  # type: ignore[misc]
            _results[scenario, host, mode] = state


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--write-matrix` puts the matrix into README.md."""
    parser.addoption("--write-matrix", action="store_true", help="write the conformance matrix into README.md")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the matrix as Markdown."""
    if _results:
        terminalreporter.write_line("")
        for line in matrix():
            terminalreporter.write_line(line)
        if config.getoption("--write-matrix", default=False):
            _write(config.rootpath / "README.md")


def _write(readme: Path) -> None:
    before, rest = readme.read_text().split("<!-- matrix -->")
    after = rest.split("<!-- /matrix -->")[1]
    lines = "\n".join(matrix())
    readme.write_text(f"{before}<!-- matrix -->\n{lines}\n<!-- /matrix -->{after}")


def matrix() -> list[str]:
    """One row a scenario, one column a way of attaching; a cell names the modes that do not simply hold."""
    hosts = [host.name for host in HOSTS]
    lines = ["| scenario | " + " | ".join(hosts) + " |", "|---" * (len(hosts) + 1) + "|"]
    for scenario in SCENARIOS:
        cells = [_cell([_results.get((scenario.__name__, host, mode), "not run") for mode in MODES]) for host in hosts]
        lines.append(f"| {scenario.__name__.replace('_', ' ')} | " + " | ".join(cells) + " |")
    return lines


def _cell(states: list[str]) -> str:
    if len(set(states)) == 1:
        return states[0]
    return ", ".join(f"{mode} {state}" for mode, state in zip(MODES, states, strict=True))
