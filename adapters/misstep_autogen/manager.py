"""A team's manager: in a run that is to end it gives nobody the turn, and stops the team as AutoGen does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from misstep_autogen import private
from misstep_autogen.halted import Halted
from misstep_autogen.live import Live
from misstep_autogen.patch import Patch


class ManagerPatch(Patch):
    """
    The patch of a manager; `live` tells the run it works in.

    An exception would end the run as well, but AutoGen's team is then of no more use: its manager waits for the
    failed speaker for ever, and ends every later run after one turn.
    """

    methods = (*private.CHOOSING, "update_message_thread")

    def __init__(self, target: Any, live: Callable[[], Live | None]) -> None:
        super().__init__(target)
        self._live = live

    async def _transition_to_next_speakers(self, *args: Any) -> None:
        await self._choosing("_transition_to_next_speakers", args)

    async def _orchestrate_step(self, *args: Any, **kwargs: Any) -> None:
        await self._choosing("_orchestrate_step", args, kwargs)

    async def update_message_thread(self, messages: Sequence[Any]) -> None:
        """Take what was said; the sign of a halted turn was said to nobody."""
        live = self._live()
        if live is not None and messages and messages[-1].id in live.signs.values():
            return
        await self.original("update_message_thread")(messages)

    async def _choosing(self, method: str, args: Any, kwargs: Any = None) -> None:
        live = self._live()
        if live is None or live.halted is None:
            try:
                return await self.original(method)(*args, **(kwargs or {}))
            except Halted:
                if live is None:
                    raise
        live.enacted()
        await private.stop(self.target, str(live.halted))
        return None
