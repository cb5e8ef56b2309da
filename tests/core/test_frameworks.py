"""Framework versions: a missing extra, a version too old and one untried each say what is wrong and what to do."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest

from misstep import ChangedFrameworkError, MissingExtraError, UnsupportedVersionError
from misstep.frameworks import UntriedVersionWarning, needs, rely, relying, require


def test_a_missing_framework_names_the_extra_to_install() -> None:
    """Without its framework an adapter says which extra brings it, and the error is an ImportError."""
    with pytest.raises(
        ImportError, match=r"`misstep_x` needs `no-such-framework`: pip install 'misstep\[x\]'"
    ) as caught:
        require("misstep_x", "x", {"no-such-framework": ("1.0", "2.0")})
    assert isinstance(caught.value, MissingExtraError)
    assert caught.value.extra == "x"


def test_a_framework_that_is_too_old_is_refused_with_the_version_needed() -> None:
    """An older framework than the adapter works with is an error that says how to upgrade."""
    with pytest.raises(
        UnsupportedVersionError, match=r"works with `pytest` 99\.1 or newer, found .*pip install -U"
    ) as caught:
        require("misstep_x", "x", {"pytest": ("99.1", "100")})
    assert caught.value.needed == "99.1"


def test_an_untried_newer_framework_warns() -> None:
    """A newer framework than was tried is said to be one, and is let through."""
    with pytest.warns(UntriedVersionWarning, match="was not tried on pytest"):
        require("misstep_x", "x", {"pytest": ("1.0", "1.1")})


def test_a_tried_version_says_nothing() -> None:
    """Within the bounds there is neither error nor warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        require("misstep_x", "x", {"pytest": ("1.0", "100")})


@pytest.mark.parametrize("adapter", ["langgraph", "autogen", "crewai"])
def test_an_adapter_without_its_framework_says_so_on_import(adapter: str) -> None:
    """Importing an adapter whose framework is not installed raises MissingExtraError, not a ModuleNotFoundError."""
    program = (
        "import importlib.metadata as metadata\n"
        "real = metadata.version\n"
        "def version(name):\n"
        "    if name.split('-')[0] in ('langgraph', 'langchain', 'autogen', 'crewai'):\n"
        "        raise metadata.PackageNotFoundError(name)\n"
        "    return real(name)\n"
        "metadata.version = version\n"
        f"import misstep_{adapter}\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 1
    assert f"pip install 'misstep[{adapter}]'" in done.stderr.splitlines()[-1]


class Framework:
    """A class of a framework, with each kind of thing an adapter may rely on."""

    declared: int

    def __init__(self) -> None:
        self._kept = 1

    def method(self, first: int, *, second: int = 0) -> None:
        """Take two things."""


@pytest.mark.parametrize(
    ("name", "parameters", "there"),
    [
        ("declared", (), True),
        ("_kept", (), True),
        ("method", (), True),
        ("method", ("first", "second"), True),
        ("method", ("first", "third"), False),
        ("_lost", (), False),
        ("_lost", ("first",), False),
        ("_kept", ("first",), False),
    ],
)
def test_what_an_adapter_relies_on_is_looked_for(name: str, parameters: tuple[str, ...], there: bool) -> None:
    """Fields, attributes that `__init__` sets and methods with their parameters are found; what is missing is named."""
    (need,) = needs(Framework, name) if not parameters else needs(Framework, **{name: parameters})
    if there:
        rely("misstep_x", {"pytest": ("1.0", "100")}, [need])
        return
    with pytest.raises(ChangedFrameworkError, match=rf"`misstep_x` .*pytest \d.*`Framework\.{name}") as caught:
        rely("misstep_x", {"pytest": ("1.0", "100")}, [need])
    assert caught.value.missing == (str(need),)


def test_an_import_that_fails_is_put_down_to_the_framework() -> None:
    """What an adapter's own imports raise is put down to the framework having changed; our own errors stay."""
    tried = {"pytest": ("1.0", "100")}
    said = r"no_such_name.*pip install 'pytest>=1\.0,<100'"
    with pytest.raises(ChangedFrameworkError, match=said), relying("misstep_x", tried):
        raise ImportError("cannot import name 'no_such_name'")
    with pytest.raises(MissingExtraError), relying("misstep_x", tried):
        raise MissingExtraError("misstep_x", "x", "y")
