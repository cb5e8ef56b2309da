"""What an agent or a team is made of, as far as that shows without a run, and how the guard stands to each part."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from typing import Any

from autogen_agentchat.base import ChatAgent, Team
from autogen_core import SingleThreadedAgentRuntime
from autogen_core.tools import StaticWorkbench

from misstep.guard import Guard
from misstep.seats import Seat
from misstep.verification import Part, Standing
from misstep_autogen import private
from misstep_autogen.attach import patches
from misstep_autogen.entrance import Entrance
from misstep_autogen.patch import Patch, patch_of
from misstep_autogen.place import joined
from misstep_autogen.workbench import EXECUTE, ExecutorPatch, HandoffPatch, WorkbenchPatch

_DEEP = 8
_FRAMEWORK = ("autogen_agentchat", "autogen_core", "autogen_ext")

_RUNS = ("run", "run_stream")
_SEATS = (
    *(*_RUNS, "on_messages", "on_messages_stream", "call_tool", "call_tool_stream", "run_json", EXECUTE),
    *(private.MANAGER_FACTORY, "select_speaker", *private.CHOOSING),
)
"""The methods a seat stands in for."""

_BODY = "its body is the application's own code: run it with `bodies`"


def guards(app: Any) -> Iterator[Guard]:
    """Every guard an agent, a team or anything in it is guarded by; that of the app itself first."""
    for patch, _ in patches(app):
        roots = list(patch.holders)
        yield from (root.guard for root in sorted(roots, key=lambda root: root is not patch.root))


def paths(app: Any) -> dict[int, str]:
    """The paths of agents and teams, by the ids of the objects."""
    return {id(patch.target): path for patch, path in patches(app) if isinstance(patch, Entrance)}


def parts(app: Any, guard: Guard | None, *, bodies: bool) -> Iterator[Part]:
    """Models, tools and turns, under names that are the paths by which a run gets there."""
    for patch, path in patches(app):
        match patch:
            case Entrance():
                yield from _entrance(patch, path, guard, app=app, bodies=bodies)
            case WorkbenchPatch():
                for name in tool_names(patch.target):
                    yield _part(Seat.TOOL, joined(path, name), patch, guard)
                for tool in private.tools(patch.target):
                    yield from _inside(tool, joined(path, tool.name), guard, bodies=bodies)
            case ExecutorPatch():
                yield _part(Seat.TOOL, joined(path, EXECUTE), patch, guard)
            case HandoffPatch():
                yield _part(Seat.TOOL, joined(path, patch.target.name), patch, guard)


def tool_names(workbench: Any) -> list[str]:
    """The names of a workbench's tools; one stands for all where the workbench would have to be asked for them."""
    if not isinstance(workbench, StaticWorkbench):
        return [f"{type(workbench).__name__}-tool"]
    renamed = {original: name for name, original in private.renamed(workbench).items()}
    return [renamed.get(tool.name, tool.name) for tool in private.tools(workbench)]


def own_body(agent: Any) -> bool:
    """Whether what an agent does in its turn is code of the application's own."""
    names = ("on_messages", "on_messages_stream")
    defining = (next(cls for cls in type(agent).__mro__ if name in vars(cls)) for name in names)
    return any(is_own(cls) for cls in defining)


def is_own(cls: type) -> bool:
    """Whether a class of agents is no class of AgentChat's: what it does in its turn misstep cannot know."""
    return cls.__module__.partition(".")[0] != "autogen_agentchat"


def agents_in(function: Any) -> Iterator[Any]:
    """The agents and teams a function can get at without being given them."""
    return (each for each in reached(function) if isinstance(each, ChatAgent | Team))


def reached(function: Any) -> Iterator[Any]:
    """What a function holds: in its closure, its defaults, as its object, or as a global of the application's own."""
    yield from _reached(function, set(), _DEEP)


def _entrance(patch: Entrance, path: str, guard: Guard | None, *, app: Any, bodies: bool) -> Iterator[Part]:
    target = patch.target
    team = isinstance(target, Team)
    speaker = joined(path, private.manager_name(target)) if team else path
    own = not team and own_body(target)
    if private.clients(target) or (own and not bodies):
        yield _part(Seat.MODEL, speaker, patch, guard, why=_BODY if own and not bodies else "")
    if team and not isinstance(private.runtime(target), SingleThreadedAgentRuntime | None):
        yield Part(Seat.RUN, path or "run", why="it runs on a runtime outside this process")
    for name in overwritten(patch):
        seat, at = (Seat.RUN, "run") if name in _RUNS and target is app else (Seat.TURN, speaker)
        yield Part(seat, at, Standing.NOT_IN_PATH, f"its `{name}` was overwritten by somebody else")


def _part(seat: Seat, name: str, patch: Patch, guard: Guard | None, why: str = "") -> Part:
    """A model or a tool; where no guard is anywhere, or another one, or somebody else's method, that shows at once."""
    if guard is None:
        return Part(seat, name, Standing.NOT_IN_PATH, "nothing is guarded")
    if patch.root is not None and patch.root.guard is not guard:
        return Part(seat, name, Standing.NOT_IN_PATH, "it is guarded by another guard")
    changed = overwritten(patch) if seat is Seat.TOOL else []
    if changed:
        return Part(seat, name, Standing.NOT_IN_PATH, f"its `{changed[0]}` was overwritten by somebody else")
    return Part(seat, name, why=why) if why else Part(seat, name)


def overwritten(patch: Patch) -> list[str]:
    """What of a patch somebody else has overwritten; what calls the patch in its turn leaves it in place."""
    return [name for name, now, ours in replaced(patch) if not calls(now, ours)]


def replaced(patch: Patch) -> Iterator[tuple[str, Any, Any]]:
    """The methods somebody has put in the place of ours, with both."""
    for each in (patch, *patch.further) if patch.holders else ():
        yield from ((name, now, each.ours(name)) for name, now in each.foreign() if name in _SEATS)


def calls(foreign: Any, ours: Any) -> bool:
    """Whether what somebody put in our place holds it, to call it in its turn."""
    return any(each == ours for each in reached(foreign) if callable(each))


def _inside(tool: Any, name: str, guard: Guard | None, *, bodies: bool) -> Iterator[Part]:
    """The agents inside a function that is a tool, which are run only with its body."""
    for agent in agents_in(private.function(tool)):
        patch = patch_of(agent)
        if guard is None or (patch is not None and patch.root is not None and patch.root.guard is not guard):
            yield Part(Seat.MODEL, name, Standing.NOT_IN_PATH, "an agent inside a tool has another guard, or none")
            return
        if not bodies:
            yield Part(Seat.MODEL, name, why="an agent inside a tool: run the tool's body with `bodies`")
            return


def _reached(thing: Any, seen: set[int], depth: int) -> Iterator[Any]:
    if id(thing) in seen or not depth:
        return
    seen.add(id(thing))
    yield thing
    for part in _held(thing):
        yield from _reached(part, seen, depth - 1)


def _held(thing: Any) -> Iterator[Any]:
    match thing:
        case list() | tuple() | set():
            yield from thing
        case dict():
            yield from thing.values()
        case functools.partial():
            yield from (thing.func, thing.args, thing.keywords)
        case _ if inspect.ismethod(thing):
            yield from (thing.__func__, thing.__self__)
            if not _of_framework(type(thing.__self__)):
                yield from getattr(thing.__self__, "__dict__", {}).values()
        case _ if inspect.isfunction(thing):
            yield from (cell.cell_contents for cell in thing.__closure__ or () if _filled(cell))
            yield from (thing.__defaults__, thing.__kwdefaults__, getattr(thing, "__wrapped__", None))
            if not _of_framework(thing):
                named = (thing.__globals__.get(name) for name in thing.__code__.co_names)
                yield from (each for each in named if _found_in(each, thing))


def _found_in(value: Any, function: Any) -> bool:
    """Whether a global is worth a look: an agent, or another function of the same module."""
    return isinstance(value, ChatAgent | Team) or (
        inspect.isfunction(value) and value.__module__ == function.__module__
    )


def _of_framework(thing: Any) -> bool:
    return str(thing.__module__).partition(".")[0] in _FRAMEWORK


def _filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # not assigned yet
        return False
