"""The run seat: what becomes of a run's last item, and of what is raised instead, at the method it was begun by."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Any

from autogen_agentchat.base import ChatAgent, Response, TaskResult
from autogen_agentchat.messages import BaseChatMessage, ModelClientStreamingChunkEvent, StopMessage, TextMessage

from misstep.events import Status
from misstep_autogen.halted import Halted
from misstep_autogen.live import Live, Root
from misstep_autogen.messages import USER
from misstep_autogen.place import Stream


class RunSeat:
    """
    One run, begun at a method of `live.target` that gives a `TaskResult` or, with `responds`, a `Response`.

    A halt ends it softly, with what was done; it is raised where the caller wants that (`raises`).
    """

    def __init__(self, live: Live, root: Root, arguments: Mapping[str, Any], *, responds: bool, raises: bool) -> None:
        self._live, self._root, self._arguments = live, root, arguments
        self._responds, self._raises = responds, raises

    async def stream(self, items: Stream) -> Stream:
        """The stream of a run, to its end or to its halt."""
        work: list[Any] = []
        try:
            async with aclosing(items):
                async for item in items:
                    if isinstance(item, TaskResult | Response):
                        yield self.finished(item)
                    else:
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

    def finished(self, last: Any) -> Any:
        """What the run came to; it may have been halted where no seat came after."""
        live = self._live
        if live.halted is None:
            self._end("completed")
            return last
        live.enacted()
        self._end("halted")
        if isinstance(last, TaskResult):
            return self._halted(last.messages)
        return self._halted([*(last.inner_messages or ()), last.chat_message])

    def failed(self, error: BaseException, work: Sequence[Any] | None = None) -> Any:
        """What to give in place of an exception that is our halt; None for any other, which passes through."""
        if self._live.halted_by(error):
            self._end("halted")
            return self._halted([*self._task(), *self._live.work] if work is None else work)
        gone = isinstance(error, GeneratorExit | asyncio.CancelledError)
        self._end("interrupted" if gone else "failed", str(error))
        return None

    def _end(self, status: Status, error: str | None = None) -> None:
        self._live.end(status, error)
        if self._live in self._root.live:
            self._root.live.remove(self._live)

    def _halted(self, work: Sequence[Any]) -> Any:
        reason = str(self._live.halted)
        if self._raises:
            raise Halted(reason) from None
        if self._responds:
            message = StopMessage(content=reason, source=self._live.target.name)
            return Response(chat_message=message, inner_messages=list(work))
        return TaskResult(messages=list(work), stop_reason=reason)

    def _task(self) -> Sequence[Any]:
        """The messages an agent's result begins with; a team's are among its work."""
        task = self._arguments.get("task")
        silent = not self._arguments.get("output_task_messages", True)
        if task is None or silent or not isinstance(self._live.target, ChatAgent):
            return ()
        if isinstance(task, str):
            return (TextMessage(content=task, source=USER),)
        return (task,) if isinstance(task, BaseChatMessage) else task
