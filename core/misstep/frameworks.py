"""Framework versions: what an adapter needs, what it was tried on, and what it says where neither holds."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from misstep.errors import MissingExtraError, UnsupportedVersionError


class UntriedVersionWarning(UserWarning):
    """A framework newer than what the adapter was tried on."""


def require(adapter: str, extra: str, needed: Mapping[str, tuple[str, str]]) -> None:
    """
    Check the installed frameworks: `needed` maps a distribution to (oldest that works, first untried).

    Raises `MissingExtraError` or `UnsupportedVersionError`; warns once of an untried newer version.
    """
    for distribution, (oldest, untried) in needed.items():
        try:
            found = version(distribution)
        except PackageNotFoundError as error:
            raise MissingExtraError(adapter, extra, distribution) from error
        if _numbers(found) < _numbers(oldest):
            raise UnsupportedVersionError(distribution, found, oldest)
        if _numbers(found) >= _numbers(untried):
            warnings.warn(
                f"`{adapter}` was not tried on {distribution} {found} (only before {untried}): "
                "run `misstep`'s own tests before you rely on it",
                UntriedVersionWarning,
                stacklevel=3,
            )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text.split("+")[0])[:3])
