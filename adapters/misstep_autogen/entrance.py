"""Entrances: the methods by which a run gets into an agent or a team, and the places they lead to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

from autogen_agentchat.agents import SocietyOfMindAgent
from autogen_agentchat.base import Response, TaskResult
from autogen_agentchat.messages import ModelClientStreamingChunkEvent
from autogen_core import MessageHandlerContext

from misstep_autogen import private
from misstep_autogen.halted import Halted
from misstep_autogen.live import Live, Root, shielded
from misstep_autogen.messages import task_of
from misstep_autogen.model import ModelProxy
from misstep_autogen.patch import Patch
from misstep_autogen.place import MODEL, Place, at, here, streamed
from misstep_autogen.run import RunSeat
from misstep_autogen.seats import GUARDED
from misstep_autogen.turn import Turn

_VERSION = version("autogen-agentchat")

_TURNS = frozenset({"on_messages", "on_messages_stream"})


@dataclass(frozen=True, slots=True)
class Visit:
    """One call of an entrance: the place it leads to, and the turn and the run that begin with it."""

    place: Place | None
    turn: Turn | None = None
    given: Sequence[Any] = ()
    seat: RunSeat | None = None


class Entrance(Patch):
    """What the entrances of agents and teams share."""

    async def run(self, *args: Any, **kwargs: Any) -> Any:
        """Run to the end."""
        return await self._called("run", args, kwargs)

    def run_stream(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        """Run, and give what is said as it is said."""
        return self._streamed("run_stream", args, kwargs)

    def apply(self) -> None:
        """Put the patch in place, and a proxy in that of the model client."""
        super().apply()
        client = getattr(self.target, private.MODEL_CLIENT, None)
        if client is not None:
            self.put(private.MODEL_CLIENT, ModelProxy(client, self.speaker))

    def speaker(self) -> Place | None:
        """Where the model is called from; None where nobody is to judge the call. Raises `Halted` after a halt."""
        place = (here() or self._adopted()) if self.holders else None
        if place is None or place.in_hand == MODEL:
            return None
        if place.live.over:
            if place.live.halted is not None:
                raise Halted(place.live.halted)
            return None
        return place

    async def _called(self, method: str, args: Any, kwargs: Any) -> Any:
        original, visit = self.original(method), self._visit(method, args, kwargs)
        try:
            if visit.turn is not None:
                visit.turn.begin(visit.given)
            with at(visit.place):
                result = await original(*args, **kwargs)
            if visit.turn is not None:
                result = visit.turn.end(result)
            return visit.seat.finished(result) if visit.seat is not None else result
        except BaseException as error:
            instead = visit.seat.failed(error) if visit.seat is not None else None
            if instead is None:
                raise
            return instead

    async def _streamed(self, method: str, args: Any, kwargs: Any) -> AsyncIterator[Any]:
        original, visit = self.original(method), self._visit(method, args, kwargs)
        items = streamed(visit.place, original(*args, **kwargs))
        if visit.place is not None:
            items = self._watched(visit, visit.place, items)
        if visit.seat is not None:
            items = visit.seat.stream(items)
        async with aclosing(items):  # type: ignore[type-var]
            async for item in items:
                yield item

    def _watched(self, visit: Visit, place: Place, items: AsyncIterator[Any]) -> AsyncIterator[Any]:
        raise NotImplementedError

    def _visit(self, method: str, args: Any, kwargs: Mapping[str, Any]) -> Visit:
        """Where this call leads; at the worst, to where it is made."""
        if not self.holders:
            return Visit(here())
        root = self.root or next(reversed(self.holders))
        with shielded(root.guard, "the run seat"):
            return self._entered(root, method, args, kwargs)
        return Visit(here())

    def _entered(self, root: Root, method: str, args: Any, kwargs: Mapping[str, Any]) -> Visit:
        given = (args[0] if args else kwargs.get("messages", ())) if method in _TURNS else kwargs.get("task")
        place, seat = here(), None
        if place is None or place.live.over or (self.root is not None and self.root.guard is not place.live.guard):
            place = self._adopted(but=self.root)
        if place is None:
            live = self._begun(root, given)
            place = self._place(live, "" if self.root is None else self.holders[root], whole=True)
            raises = root.on_halt == "raise" or _in_handler()
            seat = RunSeat(live, root, kwargs, responds=method in _TURNS, raises=raises)
        elif place.owner is not self.target:
            place = place.within(self.target.name, self.target, minutes=self._minutes)
        if method not in _TURNS or place.turn is not None:
            return Visit(place, given=_messages(given), seat=seat)
        turn = Turn(place.live, self.target, place.agent, place.instance)
        return Visit(replace(place, turn=turn), turn, given, seat)
