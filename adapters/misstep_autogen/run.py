"""The run seat: the methods by which a run gets into an agent or a team, where it begins, halts and ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

from autogen_agentchat.agents import SocietyOfMindAgent
from autogen_agentchat.base import Response, TaskResult
from autogen_agentchat.messages import BaseChatMessage, ModelClientStreamingChunkEvent, StopMessage, TextMessage

from misstep_autogen import private
from misstep_autogen.halted import Halted
from misstep_autogen.live import Live, Root, shielded
from misstep_autogen.messages import USER, task_of
from misstep_autogen.model import ModelProxy
from misstep_autogen.patch import Patch, in_handler
from misstep_autogen.place import MODEL, Place, at, here, joined, streamed
from misstep_autogen.seats import GUARDED
from misstep_autogen.turn import Turn

_VERSION = version("autogen-agentchat")

_TURNS = frozenset({"on_messages", "on_messages_stream"})


@dataclass(frozen=True, slots=True)
class Visit:
    """One way into an agent or a team: to which place, and the turn and the run that begin by it."""

    place: Place | None
    turn: Turn | None = None
    seat: RunSeat | None = None
    given: Sequence[Any] = ()


class RunSeat:
    """One run, at the method it began by: what becomes of its last item, and of what is raised instead."""

    def __init__(self, live: Live, root: Root, target: Any, method: str, arguments: Mapping[str, Any]) -> None:
        self.live = live
        self._root, self._target, self._method, self._arguments = root, target, method, arguments
        self._raises = root.on_halt == "raise" or in_handler()

    def finished(self, last: Any) -> Any:
        """The run came to its end by itself, though perhaps after a halt that no seat has met."""
        live = self.live
        if live.halted is not None and not live.over:
            live.enacted()
        self._end("completed")
        if live.halted is None:
            return last
        if self._raises:
            raise Halted(live.halted)
        if isinstance(last, TaskResult):
            return TaskResult(messages=last.messages, stop_reason=live.halted)
        return self._halted([*(last.inner_messages or ()), last.chat_message])

    def failed(self, error: BaseException, work: Sequence[Any] | None = None) -> Any:
        """What to return in place of an exception; None where it is not our halt, and passes through."""
        live = self.live
        if live.halted_by(error):
            self._end("halted")
            if self._raises:
                raise Halted(str(live.halted)) from None
            return self._halted([*self._task(), *live.work] if work is None else work)
        gone = isinstance(error, GeneratorExit | asyncio.CancelledError)
        self._end("interrupted" if gone else "failed", error)
        return None

    async def stream(self, items: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """The run's stream, ended by what was done so far where it is halted."""
        work: list[Any] = []
        try:
            async with aclosing(items):  # type: ignore[type-var]
                async for item in items:
                    if isinstance(item, TaskResult | Response):
                        yield self.finished(item)
                        continue
                    if not isinstance(item, ModelClientStreamingChunkEvent):
                        work.append(item)
                    yield item
            self._end("completed")
            return
        except BaseException as error:
            instead = self.failed(error, work)
            if instead is None:
                raise
        yield instead

    def _end(self, status: Any, error: BaseException | None = None) -> None:
        self.live.end(status, str(error) if error is not None else None)
        if self.live in self._root.live:
            self._root.live.remove(self.live)

    def _halted(self, work: Sequence[Any]) -> Any:
        reason = str(self.live.halted)
        if self._method in _TURNS:
            message = StopMessage(content=reason, source=self._target.name)
            return Response(chat_message=message, inner_messages=list(work))
        return TaskResult(messages=list(work), stop_reason=reason)

    def _task(self) -> list[Any]:
        """The messages of an agent's task, which its result begins with; those of a team are in its stream."""
        task = self._arguments.get("task")
        if not isinstance(self.live.target, AGENT) or task is None or not self._arguments.get("output_task_messages", True):
            return []
        if isinstance(task, str):
            return [TextMessage(content=task, source=USER)]
        return [task] if isinstance(task, BaseChatMessage) else list(task)
