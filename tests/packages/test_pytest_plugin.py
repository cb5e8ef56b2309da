"""The pytest plug-in, in real pytest processes: what fails a test, what is said of it, and what it costs all others."""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path

import pytest

import misstep_pytest
from misstep.policy import starter
from misstep.taxonomy import Severity

pytest_plugins = "pytester"

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

LOOP = """
    from misstep.events import ToolRequested, ToolReturned

    def loop(guard, run="r", times=3):
        for number in range(times):
            call = f"c{number}"
            guard.observe(ToolRequested(run=run, call=call, tool="search", arguments={"q": "x"}))
            guard.observe(ToolReturned(run=run, call=call, tool="search", output="nothing"))
"""

LOUD = """
    from dataclasses import dataclass
    from typing import ClassVar

    from misstep import Anomaly, AnomalyType, Severity
    from misstep.events import ModelResponded

    @dataclass(frozen=True)
    class Loud:
        type: ClassVar[AnomalyType] = AnomalyType.PROMPT_INJECTION

        def __call__(self, event: ModelResponded, run):
            found = Anomaly(type=self.type, message="somebody shouts", severity=Severity.HIGH)
            return found if "!!" in event.content else None
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project of its own, in which misstep is installed as `pyproject.toml` says, and a rule `loud` beside it."""
    installed = pytester.mkdir("installed")
    info = installed / "misstep_here-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: misstep-here\nVersion: 0\n")
    (entry,) = PROJECT["entry-points"]["pytest11"].items()
    (info / "entry_points.txt").write_text(
        f"[pytest11]\n{' = '.join(entry)}\n\n[misstep.detectors]\nprompt_injection = loud:Loud\n"
    )
    paths = [installed, pytester.path, ROOT / "core", ROOT / "adapters", ROOT / "packages"]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, paths)))
    monkeypatch.delenv("MISSTEP_MODE", raising=False)
    pytester.makepyfile(scene=LOOP, loud=LOUD)
    return pytester


def ran(project: pytest.Pytester, *options: str) -> pytest.RunResult:
    """The project's tests, in a process of their own."""
    return project.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:langsmith_plugin", *options)


def looping(project: pytest.Pytester, marker: str = "") -> None:
    """A test whose agent makes the same call three times."""
    project.makepyfile(
        f"""
        import pytest
        from scene import loop
        {marker}
        def test_it(misstep_guard):
            loop(misstep_guard)
        """
    )


def test_a_test_fails_for_what_is_found(project: pytest.Pytester) -> None:
    """An anomaly severe enough fails the test when it is over, with the report of its run as the text."""
    looping(project)
    result = ran(project, "--misstep-fail-on", "medium")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*ERROR at teardown of test_it*",
            "misstep found 1 anomaly of severity `medium` or above",
            "run r (unknown): evicted, *",
            "*medium *step *: repeated_call - `search` called 3 times with the same arguments*",
            "*-> step *: reprompt for repeated_call*",
        ]
    )
    assert "Traceback" not in result.stdout.str()


@pytest.mark.parametrize(
    ("options", "marker", "errors"),
    [
        ([], "", 0),
        (["--misstep-fail-on", "high"], "", 0),
        (["--misstep-fail-on", "low"], "", 1),
        (["--misstep-fail-on", "never"], "", 0),
        (["--misstep-fail-on", "low"], "@pytest.mark.misstep(fail_on='never')", 0),
        ([], "@pytest.mark.misstep(fail_on='medium')", 1),
        ([], "@pytest.mark.misstep(fail_on='loud')", 1),
        ([], "@pytest.mark.misstep", 1),
    ],
)
def test_from_where_on_a_test_fails(project: pytest.Pytester, options: list[str], marker: str, errors: int) -> None:
    """The option says how severe an anomaly must be, high by default; a marker says it for one test."""
    looping(project, marker)
    result = ran(project, "--strict-markers", *options)
    assert result.parseoutcomes().get("errors", result.parseoutcomes().get("error", 0)) == errors


def test_high_fails_by_default(project: pytest.Pytester) -> None:
    """Without any option a highly severe anomaly fails the test; whoever asks for no guard is left alone."""
    project.makefile(".yaml", misstep="version: 1\nrules:\n  prompt_injection: {ladder: []}\n")
    project.makepyfile(
        """
        from misstep.events import ModelResponded

        def test_loud(misstep_guard):
            misstep_guard.observe(ModelResponded(run="r", content="Obey!!"))

        def test_quiet(misstep_guard):
            misstep_guard.observe(ModelResponded(run="r", content="Fine."))

        def test_alone():
            pass
        """
    )
    result = ran(project)
    result.assert_outcomes(passed=3, errors=1)
    result.stdout.fnmatch_lines(["*high *step 0 : prompt_injection - somebody shouts*"])


def test_every_test_has_a_guard_of_its_own(project: pytest.Pytester) -> None:
    """What one test has found is not held against the next, nor kept in a run that goes on."""
    project.makepyfile(
        """
        import pytest
        from scene import loop

        @pytest.mark.parametrize("times", [2, 2, 3, 2])
        def test_it(misstep_guard, times):
            loop(misstep_guard, times=times)
        """
    )
    ran(project, "--misstep-fail-on", "medium").assert_outcomes(passed=4, errors=1)


def test_the_policy_of_the_project(project: pytest.Pytester) -> None:
    """`misstep.yaml` in the root folder is the guard's policy, or the file the ini option names, from any folder."""
    project.makefile(".yaml", misstep="version: 1\nmode: shadow\n")
    project.makepyfile(
        """
        def test_it(misstep_guard):
            assert misstep_guard.strict
            print("mode", misstep_guard.mode, *misstep_guard.policy.rules)
        """
    )
    ran(project, "-s").stdout.fnmatch_lines(["*mode shadow"])
    project.mkdir("ci").joinpath("strict.yaml").write_text(starter())
    project.makeini("[pytest]\nmisstep_policy = ci/strict.yaml\n")
    ran(project, "-s").stdout.fnmatch_lines(["*mode enforce repeated_call * ungrounded_argument *"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("version: 1\nrule: {}\n", "*line 2, `rule`: unknown key `rule`. Did you mean `rules`?"),
        (None, "*cannot be read*"),
    ],
)
def test_a_policy_that_is_wrong_is_told(project: pytest.Pytester, text: str | None, said: str) -> None:
    """A policy with a mistake, or that is not there although it is named, is an error before the test."""
    project.makeini("[pytest]\nmisstep_policy = own.yaml\n")
    if text is not None:
        project.makefile(".yaml", own=text)
    looping(project)
    result = ran(project)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*ERROR at setup of test_it*", said])


def test_a_crash_of_a_rule_is_raised(project: pytest.Pytester) -> None:
    """The guard is strict: what its own code raises fails the test instead of being logged."""
    project.makefile(".yaml", misstep="version: 1\nrules:\n  prompt_injection: {ladder: []}\n")
    project.makepyfile(
        """
        from misstep.events import ModelResponded

        def test_it(misstep_guard):
            misstep_guard.observe(ModelResponded(run="r", content=None))
        """
    )
    ran(project).assert_outcomes(failed=1)


def test_a_guard_that_is_off_says_so(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """With MISSTEP_MODE=off nothing is checked, and pytest's summary warns of it."""
    monkeypatch.setenv("MISSTEP_MODE", "off")
    looping(project)
    result = ran(project, "--misstep-fail-on", "info")
    result.assert_outcomes(passed=1, warnings=1)
    result.stdout.fnmatch_lines(["*misstep is off: nothing is checked in this test*"])


def test_a_real_agent_under_watch(project: pytest.Pytester) -> None:
    """A guarded agent of a real framework fails its test for a loop; one that is well passes."""
    pytest.importorskip("autogen_agentchat")
    project.makepyfile(
        """
        import asyncio
        import pytest
        from autogen_agentchat.agents import AssistantAgent
        from misstep.testing import Ask, Say, Script
        from misstep_autogen import guarded
        from misstep_autogen.testing import ScriptedChatClient

        def search(q: str) -> str:
            return "nothing"

        @pytest.mark.parametrize("calls", [1, 4])
        def test_agent(misstep_guard, calls):
            steps = [Ask("search", {"q": "x"}, id=f"c{number}") for number in range(calls)]
            client = ScriptedChatClient(Script(*steps, Say("done")))
            agent = AssistantAgent("alice", client, tools=[search], max_tool_iterations=9)
            asyncio.run(guarded(agent, misstep_guard).run(task="go"))
        """
    )
    result = ran(project, "--misstep-fail-on", "medium")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_agent?4?*", "*repeated_call*took effect*"])


def test_other_tests_pay_nothing(project: pytest.Pytester) -> None:
    """At pytest's start and in tests without the fixture nothing of misstep is imported but the plug-in's one file."""
    project.makepyfile(
        """
        import sys

        def test_it(pytestconfig):
            assert pytestconfig.pluginmanager.get_plugin("misstep") is sys.modules["misstep_pytest"]
            assert [name for name in sys.modules if name.split(".")[0].startswith("misstep")] == ["misstep_pytest"]
        """
    )
    ran(project).assert_outcomes(passed=1)


def test_pytest_is_no_dependency() -> None:
    """Installing and importing misstep needs no pytest."""
    needed = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["all"]]
    assert not any(requirement.startswith("pytest") for requirement in needed)


def test_the_option_knows_every_severity() -> None:
    """The plug-in spells the severities out so as not to import them; none is missing."""
    assert (*Severity, "never") == misstep_pytest.FAIL_ON
    assert "misstep" in sys.modules
