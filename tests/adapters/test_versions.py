"""What an adapter relies on: where a framework lacks a part of it, nothing is attached; an untried version warns."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

os.environ.update(CREWAI_DISABLE_TELEMETRY="true", OTEL_SDK_DISABLED="true", CREWAI_TRACING_ENABLED="false")

pytest.importorskip("autogen_agentchat")
pytest.importorskip("crewai")
pytest.importorskip("langgraph")

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.teams import RoundRobinGroupChat
from crewai import Agent, Crew, Task
from crewai.llms.base_llm import BaseLLM
from examples import langgraph_loop
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.tools import BaseTool

import misstep_autogen
import misstep_crewai
import misstep_langgraph
from misstep import ChangedFrameworkError, Guard
from misstep.frameworks import Need
from misstep.testing import Say, Script
from misstep_autogen.testing import ScriptedChatClient
from misstep_crewai.testing import ScriptedLLM

ROOT = Path(__file__).parents[2]
VERSIONS: dict[str, dict[str, tuple[str, str]]] = {
    "langgraph": misstep_langgraph.VERSIONS,
    "autogen": misstep_autogen.VERSIONS,
    "crewai": misstep_crewai.VERSIONS,
}


@dataclass(frozen=True)
class Adapter:
    """One adapter: an app of its framework, the ways to attach to it, and the classes it patches."""

    name: str
    app: Callable[[], Any]
    ways: tuple[Callable[[Any, Guard], object], ...]
    patched: tuple[type, ...]

    @property
    def private(self) -> Any:
        """The module that says what is relied on."""
        return importlib.import_module(f"misstep_{self.name}.private")

    def seen(self, app: Any) -> list[Any]:
        """All that attaching might change."""
        return [type(app), dict(vars(app)), *(dict(vars(cls)) for cls in self.patched)]


def _team() -> Any:
    return RoundRobinGroupChat([AssistantAgent("writer", ScriptedChatClient(Script(Say("done"))))], max_turns=1)


def _crew() -> Any:
    clerk = Agent(role="clerk", goal="help", backstory="a shop", llm=ScriptedLLM(Script(Say("done"))))
    return Crew(agents=[clerk], tasks=[Task(description="Say it.", expected_output="done", agent=clerk)])


ADAPTERS = (
    Adapter(
        "langgraph",
        langgraph_loop.build,
        (
            misstep_langgraph.guarded,
            lambda _, guard: misstep_langgraph.MisstepMiddleware(guard),
            lambda _, guard: misstep_langgraph.MisstepCallbackHandler(guard),
        ),
        (BaseChatModel, BaseTool),
    ),
    Adapter(
        "autogen",
        _team,
        (misstep_autogen.guarded, lambda _, guard: misstep_autogen.MisstepInterventionHandler(guard)),
        (),
    ),
    Adapter(
        "crewai", _crew, (misstep_crewai.guarded, lambda _, guard: misstep_crewai.callbacks(guard)), (Crew, BaseLLM)
    ),
)

CASES = [
    pytest.param(adapter, need, id=f"{adapter.name}-{need}")
    for adapter in ADAPTERS
    for need in adapter.private.NEEDS
    if not isinstance(need.owner, type) or not issubclass(need.owner, Enum)  # Python lets nobody take a member away
]


def take_away(monkeypatch: pytest.MonkeyPatch, need: Need) -> None:
    """A framework without that: no such attribute on any class, field or `__init__`, or other parameters."""
    if need.parameters:
        monkeypatch.setattr(need.owner, need.name, lambda *args: None)
        return
    for owner in getattr(need.owner, "__mro__", (need.owner,)):
        if need.name in getattr(getattr(vars(owner).get("__init__"), "__code__", None), "co_names", ()):
            monkeypatch.setattr(owner, "__init__", lambda self: None)
        if need.name in vars(owner).get("__annotations__", ()):
            monkeypatch.delitem(owner.__annotations__, need.name)
        if need.name in vars(owner).get("__private_attributes__", ()):
            monkeypatch.delitem(owner.__private_attributes__, need.name)
        if need.name in vars(owner):
            monkeypatch.delattr(owner, need.name)


@pytest.mark.parametrize(("adapter", "need"), CASES)
def test_a_framework_without_a_part_that_is_relied_on_is_not_guarded_at_all(
    monkeypatch: pytest.MonkeyPatch, adapter: Adapter, need: Need
) -> None:
    """Every way to attach refuses, says what is missing and what was tried, and leaves app and framework untouched."""
    adapter.private.check.cache_clear()
    app, guard = adapter.app(), Guard()
    for way in adapter.ways:
        with monkeypatch.context() as changed:
            take_away(changed, need)
            before = adapter.seen(app)
            with pytest.raises(ChangedFrameworkError) as caught:
                way(app, guard)
            assert adapter.seen(app) == before
        assert str(need) in caught.value.missing
        assert all(missing in str(caught.value) for missing in caught.value.missing)
        for distribution, (oldest, untried) in VERSIONS[adapter.name].items():
            assert f"{distribution} {caught.value.found[distribution]}" in str(caught.value)
            assert f"'{distribution}>={oldest},<{untried}'" in str(caught.value)


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.name)
def test_what_is_relied_on_is_looked_for_once(monkeypatch: pytest.MonkeyPatch, adapter: Adapter) -> None:
    """The framework that is installed has all of it, and a process looks no second time."""
    adapter.private.check.cache_clear()
    for way in adapter.ways:
        assert way(adapter.app(), Guard()) is not None
    assert adapter.private.check.cache_info().misses == 1


def run(program: str) -> subprocess.CompletedProcess[str]:
    """A program in a process of its own."""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)


PATCHED = """
import importlib.metadata as metadata, warnings
real = metadata.version
metadata.version = lambda name: "{version}" if name in {names} else real(name)
"""

EXAMPLES = {"langgraph": "langgraph_loop", "autogen": "autogen_empty_reply", "crewai": "crewai_invented_id"}


@pytest.mark.parametrize("adapter", VERSIONS)
def test_a_newer_version_warns_once_and_works(adapter: str) -> None:
    """All of a framework newer than what was tried: a process is warned once, of each by name, and runs are guarded."""
    names = sorted(VERSIONS[adapter])
    done = run(
        PATCHED.format(version="99.1", names=names)
        + f"""
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from examples import {EXAMPLES[adapter]} as example
    from misstep import Guard
    for _ in range(2):
        guard = Guard(getattr(example, "POLICY", None))
        told = example.with_misstep(guard)
ours = [str(each.message) for each in caught if each.category.__name__ == "UntriedVersionWarning"]
print(len(ours), all(name in ours[0] for name in {names}), told.startswith("FAILED"))
(decision, *_) = guard.report().runs[0].decisions
print(decision.took_effect)
"""
    )
    assert done.stdout.split() == ["1", "True", "False", "True"], done.stderr


@pytest.mark.parametrize("adapter", VERSIONS)
def test_an_older_version_is_an_error(adapter: str) -> None:
    """One part of a framework older than what works: the adapter cannot be imported, and says how to upgrade."""
    name, (oldest, _) = next(iter(VERSIONS[adapter].items()))
    done = run(PATCHED.format(version="0.0.1", names=[name]) + f"import misstep_{adapter}")
    assert done.returncode == 1
    assert f"UnsupportedVersionError: misstep works with `{name}` {oldest} or newer" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("adapter", "module", "name"),
    [
        ("langgraph", "langgraph._internal._constants", "CONFIG_KEY_TASK_ID"),
        ("langgraph", "langchain_core.tracers._streaming", "_V2StreamingCallbackHandler"),
        ("autogen", "autogen_agentchat.teams._group_chat._base_group_chat_manager", "BaseGroupChatManager"),
        ("crewai", "crewai.events.event_context", "_event_id_stack"),
        ("crewai", "crewai.utilities.i18n", "I18N_DEFAULT"),
    ],
)
def test_a_framework_whose_modules_have_changed_is_named_as_the_reason(adapter: str, module: str, name: str) -> None:
    """An import that fails is no bare ImportError: it says what is missing, what is installed and what was tried."""
    # the package is imported first, so that only misstep misses what is taken away
    package = {"langgraph": "langchain.agents", "autogen": "autogen_agentchat.teams", "crewai": "crewai"}[adapter]
    done = run(f"import {package}, {module} as changed\ndel changed.{name}\nimport misstep_{adapter}")
    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]
    assert said.startswith("misstep.errors.ChangedFrameworkError: ")
    assert name in said
    assert "pip install" in said


@pytest.mark.parametrize("adapter", VERSIONS)
def test_the_versions_an_adapter_checks_are_those_the_extra_asks_for(adapter: str) -> None:
    """What pip installs is never too old, what is untried is within its bounds, and all that is imported is checked."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [re.fullmatch(r"(.+)>=(.+),<(.+)", each) for each in project["optional-dependencies"][adapter]]
    bounds = {each[1]: (each[2], each[3]) for each in asked if each}
    assert len(bounds) == len(asked)
    code = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "adapters" / f"misstep_{adapter}").glob("*.py"))
    assert set(VERSIONS[adapter]) == {name for name in bounds if re.search(rf"from {name.replace('-', '_')}\b", code)}
    for name, (oldest, untried) in VERSIONS[adapter].items():
        lowest, above = bounds[name]
        assert oldest == lowest
        assert numbers(untried) <= numbers(above)


def numbers(version: str) -> list[int]:
    """A version, to be compared."""
    return [int(part) for part in version.split(".")]
