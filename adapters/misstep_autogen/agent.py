"""An agent's entrances: its runs, and the turns it is given."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

from autogen_agentchat.agents import SocietyOfMindAgent
from autogen_agentchat.base import Response

from misstep_autogen.entrance import Entrance, Visit
from misstep_autogen.halted import TurnLeft
from misstep_autogen.live import Live
from misstep_autogen.place import Place, Stream


class AgentPatch(Entrance):
    """An agent: its runs, its turns, and the model it calls."""

    methods = (*Entrance.methods, "on_messages", "on_messages_stream")

    def __init__(self, target: Any) -> None:
        super().__init__(target)
        self.minutes = isinstance(target, SocietyOfMindAgent)

    def speaker(self) -> Place | None:
        """Where the model is called; the tools it may ask for can have changed, or failed, within the turn."""
        place = super().speaker()
        if place is not None:
            self.look_again()
            if place.turn is not None:
                place.turn.go_on()
        return place

    async def on_messages(self, *args: Any, **kwargs: Any) -> Any:
        """One turn."""
        return await self._call("on_messages", args, kwargs)

    def on_messages_stream(self, *args: Any, **kwargs: Any) -> Stream:
        """One turn, streamed."""
        return self._stream("on_messages_stream", args, kwargs)

    async def _passing(self, visit: Visit, place: Place, items: Stream) -> Stream:
        turn, live = place.turn, place.live
        try:
            if visit.turn is not None:
                visit.turn.begin(visit.given)
            async with aclosing(items):
                async for item in items:
                    if turn is not None:
                        turn.go_on()
                    if visit.turn is not None and isinstance(item, Response):
                        item = visit.turn.end(item)
                    if turn is not None and live.target is self.target:
                        live.keep(item)
                    yield item
            return
        except TurnLeft:
            if visit.turn is None:
                raise
            instead = visit.turn.left()
        except Exception as error:
            sign = live.sign(self.target) if visit.team is not None and visit.turn and live.stopped_by(error) else None
            if sign is None:
                raise
            instead = Response(chat_message=sign)
        yield instead

    def _place(self, live: Live, path: str, scope: str) -> Place:
        name = str(self.target.name)
        return Place(live, name, path or name, scope, self.target, minutes=self.minutes)
