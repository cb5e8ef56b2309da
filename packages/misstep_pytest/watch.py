"""One test under watch: its guard, and what becomes of the test for what the guard has found."""

from __future__ import annotations

from pathlib import Path

import pytest

from misstep import AnomalyType, Guard, Policy, PolicyError, Report, Severity, default_policy, load_policy
from misstep.events import AnomalyFound
from misstep_pytest import FAIL_ON

_MOST = 10
"""Runs shown of one test."""


class Watch:
    """A guard, and what it has found that the test is to fail for."""

    def __init__(self, config: pytest.Config, test: pytest.Item) -> None:
        self._severity = _severity(config, test)
        self.guard = Guard(_policy(config), strict=True)
        self._found: list[AnomalyFound] = []
        for type_ in AnomalyType:
            self.guard.on(type_, self._keep)
        if self.guard.mode == "off":
            test.warn(pytest.PytestWarning("misstep is off: nothing is checked in this test"))

    def close(self) -> None:
        """End every run; fail the test where something was found."""
        self.guard.close()
        if self._found:
            pytest.fail(self._account(), pytrace=False)

    def _keep(self, found: AnomalyFound) -> None:
        if self._severity is not None and found.severity.rank >= self._severity.rank:
            self._found.append(found)

    def _account(self) -> str:
        runs = list(dict.fromkeys(found.run for found in self._found))
        report = Report(runs=tuple(self.guard.report(run).runs[0] for run in runs[:_MOST]))
        count = "1 anomaly" if len(self._found) == 1 else f"{len(self._found)} anomalies"
        more = f"\n... and {len(runs) - _MOST} more runs" if len(runs) > _MOST else ""
        return f"misstep found {count} of severity `{self._severity}` or above\n{report}{more}"


def _severity(config: pytest.Config, test: pytest.Item) -> Severity | None:
    """From where on a test fails: by its marker, else by the option."""
    marker = test.get_closest_marker("misstep")
    chosen = marker.kwargs.get("fail_on") if marker is not None else config.getoption("--misstep-fail-on")
    if chosen not in FAIL_ON:
        pytest.fail(f"`@pytest.mark.misstep(fail_on=...)` takes one of {', '.join(FAIL_ON)}", pytrace=False)
    return None if chosen == "never" else Severity(chosen)


def _policy(config: pytest.Config) -> Policy:
    named: str = config.getini("misstep_policy")
    file = config.rootpath / Path(named or "misstep.yaml")
    if not named and not file.exists():
        return default_policy()
    try:
        return load_policy(file)
    except PolicyError as error:
        pytest.fail(str(error), pytrace=False)
