"""A team's manager: where the guard gives a turn to another agent, and where it stops a team as AutoGen does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from misstep.decisions import Kind, Reroute
from misstep_autogen import private
from misstep_autogen.halted import Halted
from misstep_autogen.live import Live, shielded
from misstep_autogen.patch import Patch


class ManagerPatch(Patch):
    """
    The patch of a manager of `team`; `live` tells the run it works in.

    An exception would end the run as well, but AutoGen's team is then of no more use: its manager waits for the
    failed speaker for ever, and ends every later run after one turn.
    """

    methods = ("select_speaker", "update_message_thread")

    def __init__(self, target: Any, team: Any, live: Callable[[], Live | None]) -> None:
        super().__init__(target)
        self._team, self._live = team, live
        self._aside: str | None = None
        """Who was given a turn the team itself would not have given."""

    def apply(self) -> None:
        """Put the patch in place."""
        for name in private.CHOOSING:
            if hasattr(self.target, name):
                self.put(name, partial(self._choosing, name))
        super().apply()

    async def select_speaker(self, thread: Sequence[Any]) -> Any:
        """The next speaker: whom the guard gives the turn to, for once, else the team's own choice."""
        self._aside = None
        live = self._live()
        if live is None:
            return await self.original("select_speaker")(thread)
        if live.snapshots is not None and live.target is self._team:
            with shielded(live.guard, "a snapshot"):
                await live.snapshots.before_choice(self._team, live.session.run)
        chosen = self._rerouted(live)
        if chosen is None:
            own = await self.original("select_speaker")(thread)
            chosen = self._rerouted(live) or own  # what a selecting model said may have been judged as well
        return chosen

    async def update_message_thread(self, messages: Sequence[Any]) -> None:
        """Take what was said; the sign of a turn that was stopped was said to nobody."""
        live = self._live()
        last = messages[-1] if messages else None
        if last is not None and live is not None and last.id in live.signs.values():
            return
        if last is not None and last.source == self._aside:
            self._aside = None
            if await private.heard_aside(self.target, messages):
                return
        await self.original("update_message_thread")(messages)

    async def _choosing(self, method: str, *args: Any, **kwargs: Any) -> None:
        live = self._live()
        if live is None or live.stopping is None:
            try:
                return await self.original(method)(*args, **kwargs)
            except Halted:
                if live is None:
                    raise
        live.enacted()
        await private.stop(self.target, str(live.stopping))
        return None

    def _rerouted(self, live: Live) -> list[str] | None:
        """Whom the guard gives the turn to, if anybody; where this team has no such agent, an outer one may."""
        with shielded(live.guard, "a reroute"):
            verdict = live.due(Kind.REROUTE)
            if verdict is None or not isinstance(verdict.decision, Reroute):
                return None
            name = verdict.decision.agent
            if name not in private.participants(self._team):
                with live.session.run.lock:
                    live.session.put_off(verdict)
                return None
            private.settle(self._team, live.signs.values(), live.unheard)
            comes_anyway = private.comes_next(self.target, name)
            if not comes_anyway:
                private.circle_on(self.target, name)
            live.guard.settle(live.session, verdict, took_effect=True)
            if not comes_anyway:
                self._aside = name
                return [name]
        return None
