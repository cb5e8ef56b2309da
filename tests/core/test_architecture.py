"""The shape of the code: who imports whom, and what each package says it holds."""

from __future__ import annotations

import ast
import itertools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "core" / "misstep"
ADAPTERS = sorted(path for path in (ROOT / "adapters").iterdir() if (path / "__init__.py").exists())

DEPENDENCIES = {"pydantic", "yaml", "typer", "rich", "re2", "jsonschema_rs"}
"""What the base install brings."""

FRAMEWORKS = {
    "misstep_langgraph": {"langgraph", "langchain", "langchain_core"},
    "misstep_autogen": {"autogen_agentchat", "autogen_core", "autogen_ext"},
    "misstep_crewai": {"crewai"},
}

OPTIONAL = {"misstep_pytest": {"pytest"}}
"""Parts round the core, each with what it may import beside it."""

ORDER = ["taxonomy", "decisions", "events", "run", "detectors", "policy", "guard", "enact"]
"""Imports flow from the right to the left."""

NEVER = [
    ("taxonomy", "anomalies"),
    ("anomalies", "run"),
    ("provenance", "run"),
    ("calls", "run"),
    ("localize", "guard"),
    ("localize", "run"),
    ("detectors", "policy"),
    ("policy", "guard"),
    ("policy", "session"),
    ("side_effects", "events"),
    ("journal", "session"),
    ("remedies", "report"),
]
"""The first of each pair does not import the second, not even by way of others."""


def imports(file: Path) -> Iterator[str]:
    """The dotted names a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are written in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module(file: Path) -> str:
    """The dotted name of a file of the core, a package being its `__init__`."""
    parts = file.relative_to(CORE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module(file): file for file in CORE.rglob("*.py")}


def graph() -> dict[str, set[str]]:
    """Each module of the core with the modules of the core it imports."""
    found: dict[str, set[str]] = {}
    for name, file in FILES.items():
        targets: set[str] = set()
        for target in imports(file):
            while target not in FILES and "." in target:
                target = target.rpartition(".")[0]
            if target in FILES and target != "misstep":
                targets.add(target)
        found[name] = targets - {name}
    return found


def reached(start: str, edges: dict[str, set[str]]) -> set[str]:
    """Every module that is imported when one is."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        for target in edges.get(waiting.pop(), set()) - found:
            found.add(target)
            waiting.append(target)
    return found


def within(name: str, part: str) -> bool:
    """Whether a module is a part of the core, or lies in it."""
    return name == f"misstep.{part}" or name.startswith(f"misstep.{part}.")


def test_core_needs_no_framework() -> None:
    """The core imports the standard library, its six dependencies and itself, and nothing else."""
    allowed = sys.stdlib_module_names | DEPENDENCIES | {"misstep"}
    strangers = {
        (name, target)
        for name, file in FILES.items()
        for target in imports(file)
        if target.split(".")[0] not in allowed
    }
    assert not strangers


def test_importing_misstep_loads_no_framework() -> None:
    """`import misstep` brings no framework in, however many are installed."""
    script = "import sys, misstep; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    frameworks = set().union(*FRAMEWORKS.values(), *OPTIONAL.values())
    assert "misstep" in done.stdout.split()
    assert not frameworks & set(done.stdout.split())


@pytest.mark.parametrize(("early", "late"), [*itertools.pairwise(ORDER), *NEVER])
def test_imports_flow_one_way(early: str, late: str) -> None:
    """What comes early in the flow of data imports nothing that comes later, not even by way of others."""
    edges = graph()
    starts = [name for name in FILES if within(name, early)]
    assert starts
    assert any(within(name, late) for name in FILES)
    upstream = {(start, target) for start in starts for target in reached(start, edges) if within(target, late)}
    assert not upstream


def test_no_module_imports_itself_by_way_of_others() -> None:
    """The modules of the core can be read in some order: no imports go round in a circle."""
    edges = {name: {target for target in targets if target != name} for name, targets in graph().items()}
    packages = {name for name in FILES if FILES[name].name == "__init__.py"}
    circles = {name for name in FILES if name not in packages and name in reached(name, edges)}
    assert not circles


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda path: path.name)
def test_adapters_know_their_own_framework_only(adapter: Path) -> None:
    """An adapter imports misstep, its own framework and the base install, never another adapter."""
    allowed = sys.stdlib_module_names | DEPENDENCIES | {"misstep", adapter.name} | FRAMEWORKS[adapter.name]
    strangers = {
        (str(file), target)
        for file in adapter.rglob("*.py")
        for target in imports(file)
        if target.split(".")[0] not in allowed
    }
    assert not strangers


def private(name: str) -> bool:
    """Whether a name is one its owner promises nothing of; `__init__` and its like belong to the language."""
    return name.startswith("_") and name.strip("_") != "" and not (name.startswith("__") and name.endswith("__"))


def used_privately(tree: ast.Module, frameworks: set[str]) -> Iterator[tuple[int, str]]:
    """
    Each private thing of others' that a file touches, with its line: a private name imported, read from an object
    other than `self`, or written as a string (for `getattr`), and an attribute put on a framework's class.
    """
    theirs = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in frameworks
        for alias in node.names
    }
    slots = {id(each) for node in ast.walk(tree) if named(node, "__slots__") for each in ast.walk(node)}
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                found = [alias.name for alias in node.names if any(map(private, alias.name.split(".")))]
            case ast.ImportFrom():
                dotted = [f"{node.module}.{alias.name}" for alias in node.names]
                found = [name for name in dotted if any(map(private, name.split(".")))]
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                found = []
            case ast.Attribute(value=ast.Name(id=owner), ctx=ast.Store() | ast.Del()) if owner in theirs:
                found = [ast.unparse(node)]
            case ast.Call(func=ast.Name(id="setattr" | "delattr"), args=[ast.Name(id=owner), *_]) if owner in theirs:
                found = [ast.unparse(node)]
            case ast.Attribute() if private(node.attr):
                found = [ast.unparse(node)]
            case ast.Constant(value=str(text)) if text.isidentifier() and private(text) and id(node) not in slots:
                found = [repr(text)]
            case _:
                found = []
        yield from ((node.lineno, each) for each in found)


def named(node: ast.AST, name: str) -> bool:
    """Whether a statement gives a name its value."""
    return isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == name for to in node.targets)


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda path: path.name)
def test_what_is_private_of_a_framework_stands_in_one_file(adapter: Path) -> None:
    """Only an adapter's `private.py` touches what its framework does not promise; that file says where it was tried."""
    found = [
        f"{file.name}:{line}: {what}"
        for file in sorted(adapter.rglob("*.py"))
        if file.name != "private.py"
        for line, what in used_privately(ast.parse(file.read_text(encoding="utf-8")), FRAMEWORKS[adapter.name])
    ]
    assert not found
    own = ast.parse((adapter / "private.py").read_text(encoding="utf-8"))
    assert list(used_privately(own, FRAMEWORKS[adapter.name]))
    assert re.search(r"[Tt]ried on .*\d+\.\d+\.\d+", ast.get_docstring(own) or "")


@pytest.mark.parametrize(
    "line",
    [
        "from crewai._x import y",
        "from crewai.x import _y",
        "import crewai.x._y",
        "agent._model",
        "super()._execute_tasks()",
        "getattr(agent, '_model', None)",
        "BaseLLM.call = gated",
        "del BaseLLM.call",
        "setattr(BaseLLM, name, gated)",
        "self.agent._model",
    ],
)
def test_a_private_name_is_found_however_it_is_written(line: str) -> None:
    """The rule above sees imports, attributes, strings and patched classes; what an object keeps itself is its own."""
    begun = "from crewai.llms.base_llm import BaseLLM\n"
    assert [at for at, _ in used_privately(ast.parse(begun + line), {"crewai"})] == [2]
    own = "class A:\n    __slots__ = ('_a',)\n    def f(self):\n        self._a = len(self.__dict__)\n"
    assert not list(used_privately(ast.parse(begun + own), {"crewai"}))


@pytest.mark.parametrize("name", OPTIONAL)
def test_optional_parts_stand_on_the_core(name: str) -> None:
    """A part round the core imports misstep and its own library, no adapter and no framework."""
    allowed = sys.stdlib_module_names | DEPENDENCIES | {"misstep", name} | OPTIONAL[name]
    files = list((ROOT / "packages" / name).rglob("*.py"))
    assert files
    assert not {
        (str(file), target) for file in files for target in imports(file) if target.split(".")[0] not in allowed
    }


PACKAGES = sorted(
    file
    for place in (CORE, *ADAPTERS, *(ROOT / "packages" / name for name in OPTIONAL))
    for file in place.rglob("__init__.py")
    if "__all__" in file.read_text(encoding="utf-8")
)


def exported(tree: ast.Module) -> list[str]:
    """What `__all__` says."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__":
            return list(ast.literal_eval(node.value))
    raise AssertionError("no `__all__`")


def bound(tree: ast.Module) -> dict[str, str]:
    """The names a module binds at its top, each with the module it was imported from; its own are from nowhere."""
    names: dict[str, str] = {}
    body = itertools.chain.from_iterable(node.body if isinstance(node, ast.With) else [node] for node in tree.body)
    for node in body:
        if isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: node.module or "" for alias in node.names}
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            names[node.name] = ""
        elif isinstance(node, ast.Assign):
            names |= {target.id: "" for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names[node.target.id] = ""
    return names


@pytest.mark.parametrize("file", PACKAGES, ids=lambda file: file.parent.name)
def test_all_is_sorted_and_true(file: Path) -> None:
    """`__all__` is sorted (constants, classes, the rest), and names just what is public of what the package holds."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    names, package = exported(tree), ".".join(file.parent.relative_to(ROOT).parts[1:])
    held = {
        name
        for name, source in bound(tree).items()
        if not name.startswith("_") and (source == "" or source.startswith(f"{package}."))
    }
    assert names == sorted(set(names), key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    assert set(names) <= set(bound(tree))
    assert held - set(names) <= {"VERSIONS"}


def test_the_public_names_are_there() -> None:
    """Every name of `misstep.__all__` can be imported, and nothing public is missing from it."""
    import types

    import misstep

    public = {
        name
        for name, value in vars(misstep).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert public == set(misstep.__all__)
