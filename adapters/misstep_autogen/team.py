"""A team's entrances: its runs, and how they end softly."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import aclosing
from typing import Any

from autogen_agentchat.base import TaskResult

from misstep_autogen import private
from misstep_autogen.entrance import Entrance, Visit
from misstep_autogen.halted import Halted
from misstep_autogen.live import Live, shielded
from misstep_autogen.manager import ManagerPatch
from misstep_autogen.patch import Patch
from misstep_autogen.place import Place, Stream, here


class TeamPatch(Entrance):
    """A team: its runs, its manager, and the model by which that chooses speakers or orchestrates them."""

    def __init__(self, target: Any) -> None:
        super().__init__(target)
        self._manager: ManagerPatch | None = None

    def apply(self) -> None:
        """Put the patch in place; a team that has not run yet has no manager."""
        super().apply()
        if hasattr(self.target, private.MANAGER_FACTORY):
            self.put(private.MANAGER_FACTORY, self._factory)
        manager = private.manager(self.target)
        if manager is not None:
            self._managed(manager)
            self._hand_on(self._originals.get(private.MODEL_CLIENT), self._ours.get(private.MODEL_CLIENT))

    def renew(self) -> None:
        """As for any; a manager that is there keeps the client it was made with."""
        if self._manager is None:
            super().renew()

    def restore(self) -> None:
        """Take the patch away."""
        super().restore()
        if self._manager is not None:
            self._manager.restore()
        self._hand_on(self._ours.get(private.MODEL_CLIENT), self._originals.get(private.MODEL_CLIENT))

    @property
    def further(self) -> Iterable[Patch]:
        """That of the manager, once there is one."""
        manager = self._manager
        return (manager,) if manager is not None and manager.target is private.manager(self.target) else ()

    def speaker(self) -> Place | None:
        """Where the manager calls its model; its prompts are minutes of what others said."""
        place = super().speaker()
        return place and place.within(private.manager_name(self.target), self.target, minutes=True)

    def live(self) -> Live | None:
        """The run the team works in."""
        place = (here() or self._adopted()) if self.holders else None
        return None if place is None or place.live.over else place.live

    def _factory(self, *args: Any, **kwargs: Any) -> Callable[[], Any]:
        make = self.original(private.MANAGER_FACTORY)(*args, **kwargs)
        return lambda: self._managed(make())

    def _managed(self, manager: Any) -> Any:
        if self.holders:
            self._manager = ManagerPatch(manager, self.target, self.live)
            self._manager.apply()
        return manager

    def _hand_on(self, old: Any, new: Any) -> None:
        manager = private.manager(self.target)
        if old is not None and getattr(manager, private.MODEL_CLIENT, None) is old:
            setattr(manager, private.MODEL_CLIENT, new)

    async def _passing(self, visit: Visit, place: Place, items: Stream) -> Stream:
        live = place.live
        if live.stopping is not None:
            live.unheard[id(self.target)] = list(visit.given)
            yield TaskResult(messages=[], stop_reason=live.stopping)
            return
        try:
            async with aclosing(items):
                async for item in items:
                    if getattr(item, "id", None) in live.signs.values():
                        continue
                    if isinstance(item, TaskResult):
                        item = _unsigned(item, live)
                    elif live.target is self.target:
                        live.keep(item)
                    yield item
        except Exception as error:
            if not live.stopped_by(error):
                raise
            raise Halted(str(live.stopping)) from None
        finally:
            if live.stopping is not None or live.unheard:
                with shielded(live.guard, "the end of a team"):
                    private.settle(self.target, live.signs.values(), live.unheard)

    def _place(self, live: Live, path: str, scope: str) -> Place:
        return Place(live, instance=path, scope=scope, owner=self.target)


def _unsigned(result: TaskResult, live: Live) -> TaskResult:
    if not live.signs:
        return result
    signs = set(live.signs.values())
    messages = [message for message in result.messages if message.id not in signs]
    return TaskResult(messages=messages, stop_reason=result.stop_reason)
