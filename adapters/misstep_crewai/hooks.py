"""
The hooks of guarded runs: in the contexts of a run they come last of all the hooks CrewAI finds.

They are in CrewAI's own scope of hooks, where they stay for what straggles on after a halt (see `live.py`). But whoever
opens another scope within it hides them, and whoever registers a hook there comes after them. So while any run is going
on they are also put where CrewAI looks hooks up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from crewai.hooks import InterceptionPoint

from misstep_crewai.live import lives
from misstep_crewai.private import resolving

Resolve = Callable[[InterceptionPoint], list[Any]]


@contextmanager
def looked_up() -> Iterator[None]:
    """While CrewAI finds them whatever the scope, and last."""
    with resolving(_with_ours):
        yield


def _with_ours(original: Resolve) -> Resolve:
    def resolve(point: InterceptionPoint) -> list[Any]:
        ours = [live.hooks[point] for live in lives() if point in live.hooks]
        found = original(point)
        return [*(hook for hook in found if hook not in ours), *ours] if ours else found

    return resolve
