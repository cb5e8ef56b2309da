"""Entrances: what the methods have in common by which a run gets into an agent or a team."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

from autogen_agentchat.base import Team
from autogen_core import MessageHandlerContext

from misstep_autogen import private
from misstep_autogen.halted import Halted
from misstep_autogen.live import Live, Root, shielded
from misstep_autogen.messages import task_of
from misstep_autogen.model import ModelProxy
from misstep_autogen.patch import Patch
from misstep_autogen.place import MODEL, Place, Stream, at, here, streamed
from misstep_autogen.run import RunSeat
from misstep_autogen.seats import GUARDED
from misstep_autogen.turn import Turn

_VERSION = version("autogen-agentchat")

_TURNS = frozenset({"on_messages", "on_messages_stream"})


@dataclass(frozen=True, slots=True)
class Visit:
    """
    One call of an entrance: the place it leads to, what is handed in, the turn and the run that begin with it.

    `seated` where a team gives the turn: its manager then knows how to end the run.
    """

    place: Place | None
    given: Sequence[Any] = ()
    seated: bool = False
    turn: Turn | None = None
    seat: RunSeat | None = None


class Entrance(Patch):
    """
    What the entrances of agents and teams share. Each is idle where nobody holds its object any more.

    `minutes` is set where the object's model is shown what is written up for the one call, and not a conversation.
    """

    minutes = False

    async def run(self, *args: Any, **kwargs: Any) -> Any:
        """Run to the end."""
        return await self._call("run", args, kwargs)

    def run_stream(self, *args: Any, **kwargs: Any) -> Stream:
        """Run, and give what is said as it is said."""
        return self._stream("run_stream", args, kwargs)

    def apply(self) -> None:
        """Put the patch in place, and a proxy in that of the model client."""
        super().apply()
        client = getattr(self.target, private.MODEL_CLIENT, None)
        if client is not None:
            self.put(private.MODEL_CLIENT, ModelProxy(client, self.speaker))

    def speaker(self) -> Place | None:
        """Where the model is called; None where nobody is to judge the call. Raises `Halted` once the run is halted."""
        place = (here() or self._adopted()) if self.holders else None
        if place is None or place.in_hand == MODEL:
            return None
        if not place.live.over:
            return place
        if place.live.halted is not None:
            raise Halted(place.live.halted)
        return None

    async def _call(self, method: str, args: Any, kwargs: Mapping[str, Any]) -> Any:
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

    def _stream(self, method: str, args: Any, kwargs: Mapping[str, Any]) -> Stream:
        return self._streaming(self.original(method)(*args, **kwargs), method, args, kwargs)

    async def _streaming(self, original: Stream, method: str, args: Any, kwargs: Mapping[str, Any]) -> Stream:
        visit = self._visit(method, args, kwargs)
        items = streamed(visit.place, original)
        if visit.place is not None:
            items = self._passing(visit, visit.place, items)
        if visit.seat is not None:
            items = visit.seat.stream(items)
        async with aclosing(items):
            async for item in items:
                yield item

    def _passing(self, visit: Visit, place: Place, items: Stream) -> Stream:
        """What the stream of an entrance passes on."""
        raise NotImplementedError

    def _visit(self, method: str, args: Any, kwargs: Mapping[str, Any]) -> Visit:
        """Where a call leads; if we fail, to where it came from."""
        if not self.holders:
            return Visit(here())
        root = self.root or next(reversed(self.holders))
        with shielded(root.guard, "the run seat"):
            return self._entered(root, method, args, kwargs)
        return Visit(here())

    def _entered(self, root: Root, method: str, args: Any, kwargs: Mapping[str, Any]) -> Visit:
        turns = method in _TURNS
        given = (args[0] if args else kwargs.get("messages")) if turns else kwargs.get("task")
        place, seat = here(), None
        if place is None or place.live.over or (self.root is not None and self.root.guard is not place.live.guard):
            place = self._adopted(by=self.root)
            seated = place is not None
        else:
            seated = isinstance(place.owner, Team)
        if place is None:
            live = self._begun(root, given)
            place = self._place(live, "", "")
            raises = root.on_halt == "raise" or _in_handler()
            seat = RunSeat(live, root, kwargs, responds=turns, raises=raises)
        elif place.owner is not self.target:
            place = place.within(self.target.name, self.target, minutes=self.minutes)
        messages = given if isinstance(given, Sequence) and not isinstance(given, str) else ()
        if not turns or place.turn is not None:
            return Visit(place, messages, seated, seat=seat)
        turn = Turn(place.live, self.target, place.agent, place.instance)
        return Visit(replace(place, turn=turn), messages, seated, turn, seat)

    def _begun(self, root: Root, given: Any) -> Live:
        """A run of its own; one that was begun at a participant, on its own, belongs to no conversation."""
        session = root.guard.open(
            seats=GUARDED,
            framework="autogen",
            version=_VERSION,
            task=task_of(given),
            thread=root.thread if self.root is not None else None,
        )
        live = Live(root, session, self.target)
        if self.root is not None:
            self.root.live.append(live)
            object.__setattr__(self.target, "last_run", session.run.id)
        return live

    def _adopted(self, by: Root | None = None) -> Place | None:
        """
        The place of a call on a runtime that was started outside the run, by a path known from the outset.

        None where no run can have made the call, or more than one. What was guarded by itself (`by`) is only taken
        into another run of its own guard.
        """
        holders = self.holders.items() if _in_handler() else ()
        others = [each for each in holders if by is None or (each[0] is not by and each[0].guard is by.guard)]
        found = [(live, path) for root, path in others for live in root.live]
        return self._place(found[0][0], *[found[0][1]] * 2) if len(found) == 1 else None

    def _place(self, live: Live, path: str, scope: str) -> Place:
        raise NotImplementedError


def _in_handler() -> bool:
    """Whether this runs in an AutoGen runtime, as the turn of a team's participant does."""
    try:
        MessageHandlerContext.agent_id()
    except RuntimeError:
        return False
    return True
