"""Every path on the list, on every framework: it holds, or is declared with a proof; none leaks."""

from __future__ import annotations

import pytest

from tests.enforcement.autogen import AUTOGEN
from tests.enforcement.crewai import CREWAI
from tests.enforcement.langgraph import LANGGRAPH
from tests.enforcement.path import Framework

FRAMEWORKS: tuple[Framework, ...] = (LANGGRAPH, AUTOGEN, CREWAI)

WORKED_OFF: tuple[Framework, ...] = (AUTOGEN,)
"""Those on which the whole list was tried; of the others the table says what was not."""

MOST_DECLARED = 0.15
"""So much of a framework's paths may be declared impossible."""

_CELLS = [
    pytest.param(framework, name, id=f"{framework.name}: {name}")
    for framework in FRAMEWORKS
    for name, tried in framework.tried.items()
    if tried.proof is not None
]


@pytest.mark.parametrize("framework", WORKED_OFF, ids=lambda framework: framework.name)
def test_the_whole_list_is_tried(framework: Framework) -> None:
    """Nothing on the list is left out on any framework."""
    assert sorted(framework.tried) == sorted(framework.listed)


@pytest.mark.parametrize("framework", FRAMEWORKS, ids=lambda framework: framework.name)
def test_little_is_declared(framework: Framework) -> None:
    """At most 15 % of the paths a framework has are declared impossible."""
    states = [tried.state for tried in framework.tried.values() if tried.state != "absent"]
    assert states.count("declared") <= MOST_DECLARED * len(states)


@pytest.mark.parametrize(("framework", "path"), _CELLS)
def test_path(framework: Framework, path: str) -> None:
    """What is said of the path is so."""
    proof = framework.tried[path].proof
    assert proof is not None
    proof()
