"""Verification of an AutoGen team or agent: what it consists of, and every way of running it."""

from __future__ import annotations

import asyncio
import copy
import itertools
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any, TypeAlias

from autogen_agentchat.base import ChatAgent, Team
from autogen_agentchat.messages import BaseChatMessage, TextMessage
from autogen_core import CancellationToken, SingleThreadedAgentRuntime

from misstep.errors import Halted
from misstep.guard import Guard
from misstep.policy import Policy
from misstep.seats import Seats
from misstep.verification import Canary, Part, Way
from misstep.verification.canary import POLICY
from misstep_autogen import private
from misstep_autogen.attach import patches
from misstep_autogen.entered import trial
from misstep_autogen.keeping import Kept
from misstep_autogen.messages import USER
from misstep_autogen.model import behind
from misstep_autogen.patch import patch_of
from misstep_autogen.stubs import stubbed
from misstep_autogen.walk import guards, parts, paths, replaced
from misstep_autogen.workbench import ToolPatch, WorkbenchPatch

Run: TypeAlias = Callable[[Any], Awaitable[Any]]
"""Runs an agent or a team once."""

_trials = itertools.count(1)

_TASK = "a canary of misstep's verification\n```python\npass\n```"
"""What is asked for; what runs the code it is given is given some."""

_RUNS = 20
"""A way ends after so many runs of the app one after the other."""
_PATIENCE = 2.0
"""Seconds for a run that was given up to let itself be cancelled."""


def rehearse(app: Any, *, bodies: bool = False, inputs: Any = None) -> AutoGenRehearsal:
    """What is known of a team or an agent. Raises TypeError for what is none."""
    if not isinstance(app, ChatAgent | Team):
        raise TypeError(f"`{type(app).__name__}` is no AutoGen team or agent: verify what is run")
    return AutoGenRehearsal(app, bodies, inputs)


class AutoGenRehearsal:
    """
    A team or an agent, to be run with a canary; its bodies are its own agents' turns and the agents inside its tools.

    Functions that choose speakers and conditions that end a team run for real. A team that does not end is ended.
    """

    def __init__(self, app: Any, bodies: bool, inputs: Any) -> None:
        self._app, self._bodies = app, bodies
        self._task = inputs if inputs is not None else _TASK
        self._guards = list(dict.fromkeys(guards(app)))
        patch = patch_of(app)
        root = patch.root if patch is not None else None
        self.guard: Guard | None = root.guard if root is not None else next(iter(self._guards), None)
        self.seats: Seats | None = root.means[0] if root is not None else None
        self._kept: Kept | None = None
        self._canary = Canary()
        self._going: list[tuple[threading.Thread, asyncio.AbstractEventLoop]] = []

    def parts(self) -> Iterator[Part]:
        """Models, tools and turns, and what is between them and the guard."""
        return parts(self._app, self.guard, bodies=self._bodies)

    @contextmanager
    def stubbed(self, canary: Canary) -> Iterator[None]:
        """While all that is real answers with a stub, and any guard but the one that is verified judges nothing."""
        self._canary, canary.unasked = canary, True
        with ExitStack() as stack:
            for guard in self._guards:
                if guard.policy is not POLICY:
                    stack.enter_context(guard.rehearsing(Policy(), ()))
            stack.enter_context(stubbed(canary, paths(self._app), list(self._leaves()), bodies=self._bodies))
            self._kept = Kept(self._app)
            stack.callback(self._kept.restore)
            stack.callback(self._given_up)
            yield

    def ways(self) -> Iterator[Way]:
        """Run and streamed, with a text and with messages, resumed, in copies, halted; and run on where it stands."""
        app = self._app
        entrances = dict(self._entrances())
        for name, run in entrances.items():
            yield self._way(name, self._on(app, run))
        yield self._way("resumed", self._on(app, self._resumed))
        if self._copied() is not None:
            yield self._way("copy", lambda: self._on(self._copied(), entrances["run"])())
            yield self._way("copies at once", self._at_once)
        if self.seats is not None:
            yield self._way("halted", lambda: entrances["run"](app), halts=True)
            yield self._way("halted stream", lambda: entrances["run_stream"](app), halts=True)

    def _entrances(self) -> Iterator[tuple[str, Run]]:
        task, messages = self._task, _messages(self._task)
        yield "run", lambda app: app.run(task=task)
        yield "run_stream", lambda app: _gathered(app.run_stream(task=task))
        yield "run with messages", lambda app: app.run(task=messages)
        if isinstance(self._app, ChatAgent):
            yield "on_messages", lambda app: app.on_messages(messages, CancellationToken())
            yield "on_messages_stream", lambda app: _gathered(app.on_messages_stream(messages, CancellationToken()))

    def _way(self, name: str, work: Callable[[], Awaitable[Any]], *, halts: bool = False) -> Way:
        async def main() -> Any:
            self._going.append((threading.current_thread(), asyncio.get_running_loop()))
            trial.set(next(_trials))
            async with _elsewhere(self._app):
                return await work()

        def run() -> Any:
            assert self._kept is not None
            self._kept.unbind()
            try:
                return asyncio.run(main())
            finally:
                self._kept.restore()

        return Way(name, run, halts)

    def _on(self, app: Any, run: Run) -> Callable[[], Awaitable[Any]]:
        """The app is run again and again, until that brings nothing new even from its beginning."""

        async def work() -> list[Any]:
            got: list[Any] = []
            anew = False
            for _ in range(_RUNS):
                before = self._canary.again()
                try:
                    got.append(await run(app))
                except Halted as error:
                    got.append(error)
                if self._canary.again() > before:
                    anew = False
                elif anew:
                    break
                else:
                    anew = True
                    await _reset(app)
            return got

        return work

    async def _resumed(self, app: Any) -> Any:
        """A run that goes on from a state that was saved."""
        state = await app.save_state()
        await _reset(app)
        await app.load_state(state)
        return await app.run(task=self._task)

    async def _at_once(self) -> list[Any]:
        works = [self._on(self._copied(), lambda app: app.run(task=self._task)) for _ in range(2)]
        return list(await asyncio.gather(*(_apart(work) for work in works)))

    def _copied(self) -> Any:
        """
        A deep copy; None where the app does not let itself be copied.

        On a runtime of the application's a copy has none that goes, and a method of somebody else's acts on the
        original.
        """
        shared = (True for patch, _ in patches(self._app) for _ in replaced(patch))
        if _on_given_runtime(self._app) or any(shared):
            return None
        assert self._kept is not None
        self._kept.unbind()
        try:
            return copy.deepcopy(self._app)
        except Exception:
            return None

    def _leaves(self) -> Iterator[Any]:
        """The clients, workbenches and tools of the app."""
        for patch, _ in patches(self._app):
            if isinstance(patch, ToolPatch):
                yield patch.target
            else:
                clients = (getattr(patch.target, name) for name in private.clients(patch.target))
                yield from map(behind, clients)
            yield from private.tools(patch.target) if isinstance(patch, WorkbenchPatch) else ()

    def _given_up(self) -> None:
        """Cancel a run that did not end, so that it does not go on with what is real."""
        for thread, loop in self._going:
            if thread.is_alive() and not loop.is_closed():
                loop.call_soon_threadsafe(_cancel, loop)
                thread.join(_PATIENCE)


@asynccontextmanager
async def _elsewhere(app: Any) -> AsyncIterator[None]:
    """While teams on a runtime of the application's are on one of ours, which was started before them as well."""
    teams = _on_given_runtime(app)
    if not teams:
        yield
        return
    runtime = SingleThreadedAgentRuntime()
    runtime.start()
    for team in teams:
        private.move(team, runtime)
    try:
        yield
    finally:
        await runtime.stop()


def _on_given_runtime(app: Any) -> list[Any]:
    return [each for each in private.within(app) if isinstance(each, Team) and private.runtime(each) is not None]


async def _apart(work: Callable[[], Awaitable[Any]]) -> Any:
    trial.set(next(_trials))
    return await work()


def _messages(task: Any) -> Iterable[BaseChatMessage]:
    if isinstance(task, str):
        return [TextMessage(content=task, source=USER)]
    return [task] if isinstance(task, BaseChatMessage) else task


async def _gathered(stream: Any) -> list[Any]:
    return [item async for item in stream]


async def _reset(app: Any) -> None:
    await (app.reset() if isinstance(app, Team) else app.on_reset(CancellationToken()))


def _cancel(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel()
