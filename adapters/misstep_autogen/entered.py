"""Where in an app something is called while that is verified, be a guard in the path or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from autogen_agentchat.base import Team

from misstep_autogen import private
from misstep_autogen.place import joined

_entered: ContextVar[Entered | None] = ContextVar("misstep_autogen_entered", default=None)

trial: ContextVar[int] = ContextVar("misstep_autogen_trial", default=0)
"""What tells two runs at the same time from each other."""


@dataclass(frozen=True, slots=True)
class Entered:
    """The agent or team that was entered last, its path, and the path of the team that gives the turns there."""

    owner: Any
    path: str
    team: str


def entered() -> Entered | None:
    """Where this is called; None outside every agent and team."""
    return _entered.get()


def speaker() -> str:
    """Under what name anything is called here; `app` outside every agent and team."""
    here = _entered.get()
    if here is None:
        return "app"
    return joined(here.path, private.manager_name(here.owner)) if isinstance(here.owner, Team) else here.path


@contextmanager
def entering(owner: Any, paths: Mapping[int, str]) -> Iterator[None]:
    """While an agent or a team works, whose path is in `paths` by its id, or follows from where it is called."""
    before = _entered.get()
    if before is not None and before.owner is owner:
        yield
        return
    path = paths.get(id(owner))
    if path is None:
        own = "" if before is None and isinstance(owner, Team) else owner.name
        path = joined(before.path, own) if before is not None else own
    team = path if isinstance(owner, Team) else before.team if before is not None else ""
    token = _entered.set(Entered(owner, path, team))
    try:
        yield
    finally:
        _entered.reset(token)
