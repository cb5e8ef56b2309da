"""Entrances: what the methods have in common by which a run gets into an agent or a team."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import Any, ClassVar

from autogen_agentchat.base import Team
from autogen_core import MessageHandlerContext

from misstep.judge import UNOPENED
from misstep_autogen import private
from misstep_autogen.halted import Halted, TurnLeft
from misstep_autogen.live import Live, Root, shielded
from misstep_autogen.messages import task_of
from misstep_autogen.model import ModelProxy
from misstep_autogen.patch import Patch
from misstep_autogen.place import MODEL, Place, Stream, at, here, streamed
from misstep_autogen.run import Given, RunSeat
from misstep_autogen.seats import means_of
from misstep_autogen.turn import Turn

log = logging.getLogger("misstep")

_VERSION = version("autogen-agentchat")

_TURNS = frozenset({"on_messages", "on_messages_stream"})


@dataclass(frozen=True, slots=True)
class Visit:
    """
    One call of an entrance: the place it leads to, what is handed in, the turn and the run that begin with it.

    `team` is who gives the turn, if a team does: its manager knows how to end the run, and who may be next.
    """

    place: Place | None
    given: Sequence[Any] = ()
    team: Any = None
    turn: Turn | None = None
    seat: RunSeat | None = None


class Entrance(Patch):
    """
    What the entrances of agents and teams share. Each is idle where nobody holds its object any more.

    `minutes` is set where the object's model is shown what is written up for the one call, and not a conversation.
    """

    methods: ClassVar[tuple[str, ...]] = ("run", "run_stream", "dump_component")

    minutes = False

    async def run(self, *args: Any, **kwargs: Any) -> Any:
        """Run to the end."""
        return await self._call("run", args, kwargs)

    def run_stream(self, *args: Any, **kwargs: Any) -> Stream:
        """Run, and give what is said as it is said."""
        return self._stream("run_stream", args, kwargs)

    def dump_component(self) -> Any:
        """What the object is made from, as data; who guards it is no part of that."""
        if self.root is not None:
            log.warning("a component has no guard: `%s` must be `guarded` again where it is loaded", self.target.name)
        return self.original("dump_component")()

    def apply(self) -> None:
        """Put the patch in place, and a proxy in that of the model client."""
        super().apply()
        self.renew()

    def renew(self) -> None:
        """Put a proxy in the place of each model client, as of one that has taken another's place."""
        for name in private.clients(self.target):
            client = getattr(self.target, name)
            if client is not self._ours.get(name):
                self.put(name, ModelProxy(client, self.speaker))

    def speaker(self) -> Place | None:
        """Where the model is called; None where nobody is to judge it. Raises `Halted` once the run is stopped."""
        place = (here() or self._adopted()) if self.holders else None
        if place is None or place.in_hand == MODEL:
            return None
        live = place.live
        if live.stopping is not None and (live.over or live.goes_back):
            raise Halted(live.stopping)
        return None if live.over else place

    def look_again(self) -> None:
        """Hold what the object has come to hold since; what cannot be held is on record as a failure of ours."""
        for root, path in list(self.holders.items()):
            with shielded(root.guard, f"holding what `{self.target.name}` has come to hold"):
                root.hold(self.target, path)

    async def _call(self, method: str, args: Any, kwargs: Mapping[str, Any]) -> Any:
        visit = self._visit(method, args, kwargs)
        given = Given(args, kwargs)
        work = partial(self._answered, method, visit)
        return await (work(given) if visit.seat is None else visit.seat.answer(work, given))

    async def _answered(self, method: str, visit: Visit, given: Given) -> Any:
        turn = visit.turn
        try:
            if turn is not None:
                turn.begin(visit.given)
            with at(visit.place):
                result = await self.original(method)(*given.args, **given.kwargs)
            return result if turn is None else turn.end(result)
        except TurnLeft:
            if turn is None:
                raise
            return turn.left()

    def _stream(self, method: str, args: Any, kwargs: Mapping[str, Any]) -> Stream:
        begin = partial(self._begin, method)
        given = Given(args, kwargs)
        return self._streaming(begin, begin(given), method, given)

    def _begin(self, method: str, given: Given) -> Stream:
        """The object's own stream; what it objects to in its arguments it says at once."""
        return self.original(method)(*given.args, **given.kwargs)

    async def _streaming(self, begin: Callable[[Given], Stream], first: Stream, method: str, given: Given) -> Stream:
        visit = self._visit(method, given.args, given.kwargs)

        def pass_on(given: Given, original: Stream | None = None) -> Stream:
            items = streamed(visit.place, original or begin(given))
            return items if visit.place is None else self._passing(visit, visit.place, items)

        items = pass_on(given, first) if visit.seat is None else visit.seat.stream(pass_on, given, first)
        async with aclosing(items):
            async for item in items:
                yield item

    def _passing(self, visit: Visit, place: Place, items: Stream) -> Stream:
        """What the stream of an entrance passes on."""
        raise NotImplementedError

    def _visit(self, method: str, args: Any, kwargs: Mapping[str, Any]) -> Visit:
        """
        Where a call leads; if we fail, to where it came from.

        A run that could not be opened has no seat that might refuse anything: under a fail-closed policy there is none.
        """
        if not self.holders:
            return Visit(here())
        root = self.root or next(reversed(self.holders))
        self.look_again()
        with shielded(root.guard, "the run seat"):
            return self._entered(root, method, args, kwargs)
        if here() is None and root.guard.fails_closed:
            raise Halted(UNOPENED)
        return Visit(here())

    def _entered(self, root: Root, method: str, args: Any, kwargs: Mapping[str, Any]) -> Visit:
        turns = method in _TURNS
        given = (args[0] if args else kwargs.get("messages")) if turns else kwargs.get("task")
        place, seat = here(), None
        if place is None or place.live.over or (self.root is not None and self.root.guard is not place.live.guard):
            place = self._adopted(by=self.root)
            team = _giver(place.live.target, self.target) if place is not None else None
        else:
            team = place.owner if isinstance(place.owner, Team) else None
        if place is None:
            live = self._begun(root, given)
            place = self._place(live, "", "")
            raises = root.on_halt == "raise" or _in_handler()
            seat = RunSeat(live, root, responds=turns, raises=raises)
        elif place.owner is not self.target:
            place = place.within(self.target.name, self.target, minutes=self.minutes)
        messages = given if isinstance(given, Sequence) and not isinstance(given, str) else ()
        if not turns or place.turn is not None:
            return Visit(place, messages, team, seat=seat)
        turn = Turn(place.live, self.target, place.agent, place.instance, team)
        return Visit(replace(place, turn=turn), messages, team, turn, seat)

    def _begun(self, root: Root, given: Any) -> Live:
        """A run of its own; one that was begun at a participant, on its own, belongs to no conversation."""
        seats, agents = root.means if self.root is not None else means_of(self.target)
        session = root.guard.open(
            seats=seats,
            agents=agents,
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


def _giver(team: Any, target: Any) -> Any:
    """The team, if it gives turns to the target itself."""
    return team if isinstance(team, Team) and any(each is target for each in private.inner(team)) else None


def _in_handler() -> bool:
    """Whether this runs in an AutoGen runtime, as the turn of a team's participant does."""
    try:
        MessageHandlerContext.agent_id()
    except RuntimeError:
        return False
    return True
