"""`guarded(team, guard)`: the user's own object, patched with everything it holds, and put back by `unguard`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, TypeVar

from autogen_agentchat.agents import UserProxyAgent
from autogen_agentchat.base import ChatAgent, Team

from misstep.guard import Guard
from misstep_autogen import gate, private
from misstep_autogen.agent import AgentPatch
from misstep_autogen.live import OnHalt, Root
from misstep_autogen.patch import Patch, patch_of
from misstep_autogen.place import joined
from misstep_autogen.seats import means_of
from misstep_autogen.team import TeamPatch
from misstep_autogen.workbench import ExecutorPatch, HandoffPatch, WorkbenchPatch

T = TypeVar("T")

log = logging.getLogger("misstep")


def guarded(team_or_agent: T, guard: Guard, *, on_halt: OnHalt = "return") -> T:
    """
    The same team or agent, guarded with every agent, team, tool and model it holds; `unguard` undoes it exactly.

    Runs are begun by `run`, `run_stream` and, of an agent, `on_messages` and `on_messages_stream`; agents and teams
    called within one belong to it. A halt ends the run softly: the result has what was done, and the reason as its
    `stop_reason`. With `on_halt="raise"`, and always inside a team that is not guarded, `Halted` is raised. A run that
    is taken back begins again from an earlier state, and its result has the messages that stand; what was streamed of
    the others is out. `team.last_run` is the id of the run begun last. A second guard takes the place of the first.

    What the team or an agent comes to hold later is guarded from then on, and so is an agent that is run within a run,
    for as long as that goes on. Of a custom agent the calls its model proposes are judged in the reply, and a refused
    one is taken out of it. One without a model client of its own is seen by its turns only; what it calls past
    AutoGen's tools and model clients nobody judges, and the log says so. On a runtime that was started outside the
    run, an agent that works in two teams there at once has each turn taken for a run of its own.

    Raises `AttachError`, `TypeError`, `ChangedFrameworkError`.
    """
    if not isinstance(team_or_agent, ChatAgent | Team):
        raise TypeError(f"`guarded` takes an AutoGen team or agent, found {type(team_or_agent).__name__}")
    known = patch_of(team_or_agent)
    if known is not None and known.root is not None and known.root.guard is guard:
        return team_or_agent
    private.check()
    means = means_of(team_or_agent)
    guard.attach(*means)
    unguard(team_or_agent)
    root = Root(team_or_agent, guard, on_halt, means, _hold)
    gate.open_for(root)
    try:
        root.hold(team_or_agent, "" if isinstance(team_or_agent, Team) else team_or_agent.name)
        object.__setattr__(team_or_agent, "last_run", None)
    except TypeError:
        _release(root)
        raise
    patch_of(team_or_agent).root = root
    return team_or_agent


def unguard(team_or_agent: T) -> T:
    """The same team or agent without its guard; one that was not guarded is left as it is."""
    known = patch_of(team_or_agent)
    if known is not None and known.root is not None:
        root, known.root = known.root, None
        _release(root)
        vars(team_or_agent).pop("last_run", None)
    return team_or_agent


def _hold(root: Root, target: Any, path: str) -> Iterator[Patch]:
    """Patch an agent or a team and all it holds, as far as that is not done; said once of what cannot be seen."""
    for patch, at in _patches(target, path, set()):
        if root in patch.holders:
            patch.renew()
            continue
        patch.hold(root, at)
        if isinstance(patch.target, UserProxyAgent):
            root.users.add(patch.target.name)
        if isinstance(patch, AgentPatch) and private.unseen(patch.target):
            log.warning("`%s` has no model client misstep knows: only its turns are seen", patch.target.name)
        yield patch


def _release(root: Root) -> None:
    gate.close_for(root)
    root.release()


def patches(team_or_agent: Any) -> Iterator[tuple[Patch, str]]:
    """A patch for an agent or team and for each part of it, with the path by which a run gets there."""
    path = "" if isinstance(team_or_agent, Team) else team_or_agent.name
    yield from _patches(team_or_agent, path, set())


def _patches(target: Any, path: str, seen: set[int]) -> Iterator[tuple[Patch, str]]:
    if id(target) in seen:
        return
    seen.add(id(target))
    yield (TeamPatch if isinstance(target, Team) else AgentPatch).on(target), path
    inner = [*private.inner(target)]
    for workbench in private.workbenches(target):
        yield WorkbenchPatch.on(workbench), path
        inner.extend(private.called(workbench))
    for executor in private.executors(target):
        yield ExecutorPatch.on(executor), path
    for tool in private.handoff_tools(target):
        yield HandoffPatch.on(tool), path
    for part in inner:
        yield from _patches(part, joined(path, part.name), seen)
