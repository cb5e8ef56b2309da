"""Framework versions: what an adapter needs, what it was tried on, and what it says where neither holds."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from misstep.errors import ChangedFrameworkError, MissingExtraError, MisstepError, UnsupportedVersionError

Versions = Mapping[str, tuple[str, str]]
"""Distribution → (oldest that works, first untried)."""


class UntriedVersionWarning(UserWarning):
    """A framework newer than what the adapter was tried on."""


def require(adapter: str, extra: str, needed: Versions) -> None:
    """
    Check the versions of the installed frameworks.

    Raises `MissingExtraError` or `UnsupportedVersionError`; warns once of all that are newer than what was tried.
    """
    untried = []
    for distribution, (oldest, first_untried) in needed.items():
        try:
            found = version(distribution)
        except PackageNotFoundError as error:
            raise MissingExtraError(adapter, extra, distribution) from error
        if _numbers(found) < _numbers(oldest):
            raise UnsupportedVersionError(distribution, found, oldest)
        if _numbers(found) >= _numbers(first_untried):
            untried.append(f"{distribution} {found} (only before {first_untried})")
    if untried:
        warnings.warn(
            f"`{adapter}` was not tried on {', '.join(untried)}: run `misstep`'s own tests before you rely on it",
            UntriedVersionWarning,
            stacklevel=3,
        )


@contextmanager
def relying(adapter: str, needed: Versions) -> Iterator[None]:
    """While an adapter imports what it uses of its framework. Raises `ChangedFrameworkError` where that fails."""
    try:
        yield
    except MisstepError:
        raise
    except Exception as error:
        raise ChangedFrameworkError(adapter, [f"what failed with {error!r}"], _installed(needed), needed) from error


@dataclass(frozen=True, slots=True)
class Need:
    """What an adapter relies on: an attribute of `owner`'s (or of its instances'), and by which names it takes what."""

    owner: Any
    name: str
    parameters: tuple[str, ...] = ()

    @property
    def there(self) -> bool:
        """Whether it is there, with all its parameters."""
        if not self.parameters:
            return hasattr(self.owner, self.name) or self.name in _kept(self.owner)
        method = getattr(self.owner, self.name, None)
        return callable(method) and {*self.parameters} <= {*inspect.signature(method).parameters}

    def __str__(self) -> str:
        taken = f"({', '.join(self.parameters)})" if self.parameters else ""
        return f"`{getattr(self.owner, '__qualname__', self.owner.__name__)}.{self.name}{taken}`"


def needs(owner: Any, *names: str, **methods: Sequence[str]) -> tuple[Need, ...]:
    """Several of one owner: attributes, and methods with the parameters they are given by name."""
    taking = (Need(owner, name, tuple(parameters)) for name, parameters in methods.items())
    return (*(Need(owner, name) for name in names), *taking)


def rely(adapter: str, needed: Versions, on: Sequence[Need]) -> None:
    """Raises `ChangedFrameworkError` where any of it is not there: an adapter attaches as a whole, or not at all."""
    missing = [str(need) for need in on if not need.there]
    if missing:
        raise ChangedFrameworkError(adapter, missing, _installed(needed), needed)


def _kept(owner: Any) -> Iterator[str]:
    """What the instances of a class hold: its declared fields, and whatever its `__init__` names."""
    for cls in getattr(owner, "__mro__", ()):
        yield from vars(cls).get("__annotations__", ())
        begins = inspect.unwrap(vars(cls).get("__init__", None) or (lambda: None))
        yield from getattr(getattr(begins, "__code__", None), "co_names", ())


def _installed(needed: Versions) -> dict[str, str]:
    return {distribution: version(distribution) for distribution in needed}


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text.split("+")[0])[:3])
