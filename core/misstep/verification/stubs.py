"""Putting stubs in the place of what classes define themselves, so that all a framework puts round it stays real."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

Make = Callable[[Any], Any]
"""What makes a stub of a method."""

Stub = tuple[type, str, Make]
"""A class, the name of a method, and what makes a stub of the method if the class defines it."""

TOLD = "a stub of misstep's verification"
"""What a stub answers where anything will do."""


@contextmanager
def replaced(stubs: Iterable[Stub]) -> Iterator[None]:
    """While stubs are in place, in every thread; the classes are as they were afterwards."""
    originals: list[tuple[type, str, Any]] = []
    try:
        for cls, name, make in stubs:
            if name in vars(cls):
                originals.append((cls, name, vars(cls)[name]))
                setattr(cls, name, make(vars(cls)[name]))
        yield
    finally:
        for cls, name, original in reversed(originals):
            setattr(cls, name, original)


def subclasses(cls: type) -> Iterator[type]:
    """A class, and every class that is made from it."""
    yield cls
    direct: list[type] = cls.__subclasses__()
    for sub in direct:
        yield from subclasses(sub)
