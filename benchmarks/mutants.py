"""
The changes `benchmarks.mutations` makes to a source file: one line of it taken away, or one condition taken as settled.

- A statement is removed: `pass` stands in its place, `return None` in the place of `return x`. Of a `with` the body is
  left; of a `try` one `except` goes, of a `match` one `case`; of a `for` nothing is left.
- A condition (`if`, `while`, `x if y else z`, a comprehension's `if`, a case's guard) is taken as True, and as False;
  a `while` only as False, since a loop without end says nothing. So is a comparison or a `not` anywhere else.
- Of `a and b`, `a or b` one operand is left out, each in turn.

Left as they are: imports, definitions, docstrings, annotations, `__all__`, `__slots__`, and `assert`, which enforces
nothing (`python -O` drops it; it tells mypy what is known).
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_DECLARED = {"__all__", "__slots__"}
_DEFINES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_KEPT = (*_DEFINES, ast.Import, ast.ImportFrom, ast.Pass, ast.Assert, ast.If, ast.While, ast.Try, ast.Match)
_ANNOTATIONS = ("annotation", "returns")
_TESTS = {
    (ast.If, "test"),
    (ast.While, "test"),
    (ast.IfExp, "test"),
    (ast.comprehension, "ifs"),
    (ast.match_case, "guard"),
}


@dataclass(frozen=True, slots=True)
class Mutant:
    """
    One change to one file, not made yet; `change` and `source` say what is changed how, `where` in which function.

    `first` to `last` are the lines of the statement it belongs to: a test that runs none of them cannot notice.
    """

    file: Path
    where: str
    line: int
    first: int
    last: int
    change: str
    source: str
    tree: ast.Module
    make: Callable[[], None]

    @property
    def name(self) -> str:
        """What tells it from others, whatever stands above it in the file."""
        return f"{self.file.parent.name}/{self.file.name} {self.where}: {self.source} -> {self.change}"


@dataclass(frozen=True, slots=True)
class _Slot:
    """Where in the tree a node stands."""

    owner: ast.AST
    field: str
    index: int | None

    def put(self, *nodes: ast.AST) -> None:
        """Have others stand there."""
        if self.index is None:
            setattr(self.owner, self.field, nodes[0])
        else:
            getattr(self.owner, self.field)[self.index : self.index + 1] = nodes

    @property
    def is_test(self) -> bool:
        """Whether the node there is a condition."""
        return (type(self.owner), self.field) in _TESTS


@dataclass(frozen=True, slots=True)
class _Place:
    """The function and the statement a node is in."""

    where: str = ""
    first: int = 1
    last: int = 1

    def of(self, node: ast.AST) -> _Place:
        """The place of what is in `node`."""
        if isinstance(node, ast.stmt | ast.ExceptHandler | ast.match_case):
            first = node.pattern.lineno if isinstance(node, ast.match_case) else node.lineno
            body = getattr(node, "body", None)
            last = max(first, body[0].lineno - 1) if body else getattr(node, "end_lineno", None) or first
            where = f"{self.where}.{node.name}".lstrip(".") if isinstance(node, _DEFINES) else self.where
            return _Place(where, first, last)
        return self


def mutants(file: Path) -> list[Mutant]:
    """Every change to a file."""
    tree = ast.parse(file.read_text())
    return [
        Mutant(
            file,
            place.where,
            getattr(node, "lineno", place.first),
            place.first,
            place.last,
            change,
            _short(node),
            tree,
            make,
        )
        for node, place, change, make in _within(tree, _Place())
    ]


_Change = tuple[str, Callable[[], None]]


def _within(owner: ast.AST, around: _Place) -> Iterator[tuple[ast.AST, _Place, str, Callable[[], None]]]:
    for field, value in ast.iter_fields(owner):
        if field in _ANNOTATIONS:
            continue
        for index, node in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(node, ast.AST):
                slot = _Slot(owner, field, index if isinstance(value, list) else None)
                place = around.of(node)
                for change, make in _changes(node, slot):
                    yield node, place, change, make
                yield from _within(node, place)


def _changes(node: ast.AST, slot: _Slot) -> Iterator[_Change]:
    if isinstance(node, ast.stmt):
        yield from _removals(node, slot)
    elif isinstance(node, ast.ExceptHandler):
        yield "removed", lambda: _without_handler(slot, node)
    elif isinstance(node, ast.match_case):
        yield "removed", lambda: _drop(slot, node)
    elif isinstance(node, ast.expr):
        yield from _settled(node, slot)
    if isinstance(node, ast.BoolOp):
        for operand in node.values:
            yield f"without {_short(operand)}", lambda operand=operand: slot.put(_left(node, operand))  # type: ignore[misc]


def _removals(node: ast.stmt, slot: _Slot) -> Iterator[_Change]:
    match node:
        case ast.AnnAssign(value=None) | ast.Expr(value=ast.Constant()):
            return
        case ast.Assign(targets=[ast.Name(id=name)]) if name in _DECLARED:
            return
        case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield "return None", lambda: _drop(_Slot(node, "value", None), value, ast.Constant(None))
        case ast.With() | ast.AsyncWith():
            yield "its body alone", lambda: slot.put(*node.body)
        case _ if not isinstance(node, _KEPT):
            yield "removed", lambda: _drop(slot, node)


def _settled(node: ast.expr, slot: _Slot) -> Iterator[_Change]:
    if isinstance(node, ast.Constant):
        return
    decides = isinstance(node, ast.Compare) or (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not))
    inside = isinstance(slot.owner, ast.BoolOp | ast.UnaryOp)
    if not slot.is_test and (not decides or inside):
        return
    if not isinstance(slot.owner, ast.While):
        yield "True", lambda: _drop(slot, node, ast.Constant(True))
    if not isinstance(slot.owner, ast.Return):  # there it is what `return None` is
        yield "False", lambda: _drop(slot, node, ast.Constant(False))


def _drop(slot: _Slot, node: ast.AST, stead: ast.expr | None = None) -> None:
    if isinstance(node, ast.match_case):
        node.guard = ast.copy_location(ast.Constant(False), node.pattern)
    else:
        slot.put(ast.copy_location(stead or ast.Pass(), node))


def _without_handler(slot: _Slot, node: ast.ExceptHandler) -> None:
    tried = slot.owner
    assert isinstance(tried, ast.Try)
    tried.handlers.remove(node)
    if not tried.handlers and not tried.finalbody:
        tried.finalbody = [ast.copy_location(ast.Pass(), node)]
        tried.body += tried.orelse
        tried.orelse = []


def _left(node: ast.BoolOp, without: ast.expr) -> ast.expr:
    values = [value for value in node.values if value is not without]
    return values[0] if len(values) == 1 else ast.copy_location(ast.BoolOp(node.op, values), node)


def _short(node: ast.AST) -> str:
    text = ast.unparse(node.pattern) if isinstance(node, ast.match_case) else ast.unparse(node)
    first = text.strip().splitlines()[0]
    return first if len(first) <= 100 else f"{first[:100]}..."
