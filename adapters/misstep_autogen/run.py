"""The run seat: what becomes of a run's last item, of what is raised instead, and of a run that is taken back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from autogen_agentchat.base import ChatAgent, Response, TaskResult
from autogen_agentchat.messages import BaseChatMessage, StopMessage, TextMessage

from misstep.decisions import Kind, RollBack
from misstep.events import CheckpointRestored, Status
from misstep.session import PASSED, Verdict
from misstep_autogen.halted import Halted
from misstep_autogen.live import Live, Root, shielded
from misstep_autogen.messages import USER
from misstep_autogen.place import Stream
from misstep_autogen.rollback import Lesson, Snapshot


@dataclass(frozen=True, slots=True)
class Given:
    """What an entrance was called with."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def without_task(self, *, messages: bool) -> Given:
        """The same, with nothing new to be done: `messages` where the entrance takes those, and not a task."""
        if self.args:
            return replace(self, args=((), *self.args[1:]))
        return replace(self, kwargs={**self.kwargs, **({"messages": ()} if messages else {"task": None})})


class RunSeat:
    """
    One run, begun at a method of `live.target` that gives a `TaskResult` or, with `responds`, a `Response`.

    A halt ends it softly, with what was done; it is raised where the caller wants that (`raises`). A run that is to
    be taken back is stopped in the same way, brought to an earlier state, and begun again.
    """

    def __init__(self, live: Live, root: Root, *, responds: bool, raises: bool) -> None:
        self._live, self._root = live, root
        self._responds, self._raises = responds, raises
        self._given = Given((), {})
        self._stands: Sequence[Any] = ()
        """What stands of earlier tries, as far as the last one does not give it again."""

    async def answer(self, work: Callable[[Given], Awaitable[Any]], given: Given) -> Any:
        """The answer of a run, from its last try."""
        await self._before(given)
        while True:
            try:
                answer = await work(given)
                if not self._live.goes_back:
                    return self._finished(answer)
            except BaseException as error:
                if not self._comes_again(error):
                    instead = self._failed(error)
                    if instead is None:
                        raise
                    return instead
            given = await self._again(given)

    async def stream(self, work: Callable[..., Stream], given: Given, first: Stream | None) -> Stream:
        """The stream of a run, to the end of its last try; `first` is what the object itself streams in the first."""
        await self._before(given)
        while True:
            try:
                async with aclosing(work(given, first)) as items:
                    async for item in items:
                        if isinstance(item, TaskResult | Response):
                            if self._live.goes_back:
                                continue
                            item = self._finished(item)
                        try:
                            yield item
                        except GeneratorExit:
                            self._live.leave()
                            raise
                if not self._live.goes_back:
                    self._end("completed")
                    return
            except BaseException as error:
                if not self._comes_again(error):
                    instead = self._failed(error)
                    if instead is None:
                        raise
                    break
            first = None
            given = await self._again(given)
        yield instead

    async def _before(self, given: Given) -> None:
        self._given = given
        live = self._live
        if live.snapshots is not None:
            with shielded(live.guard, "a snapshot"):
                await live.snapshots.begin(live.target, live.session.run)

    def _comes_again(self, error: BaseException) -> bool:
        return self._live.goes_back and self._live.stopped_by(error)

    async def _again(self, given: Given) -> Given:
        """
        Take the run back; what to begin it again with.

        Where that fails, it goes on from where it stands: with the lesson, and with a receipt that says so.
        """
        live, restored = self._live, None
        verdict = live.due(Kind.ROLL_BACK) or PASSED
        with shielded(live.guard, "a roll-back"):
            restored = await self._restored(verdict)
        live.go_on()
        with shielded(live.guard, "a roll-back"):
            self._told(verdict, restored)
        if restored is not None and restored.first:
            self._stands = ()
            return self._given
        self._stands = [*self._task(), *live.work]
        return given.without_task(messages=self._responds)

    async def _restored(self, verdict: Verdict) -> Snapshot | None:
        """The state the run was brought back to, if there is one."""
        live, decision = self._live, verdict.decision
        if live.snapshots is None or not isinstance(decision, RollBack):
            return None
        snapshot = await live.snapshots.restore(live.target, decision.step)
        if snapshot is not None:
            live.forget(live.snapshots.standing(live.target))
        return snapshot

    def _told(self, verdict: Verdict, snapshot: Snapshot | None) -> None:
        """Teach the agent, tell the run's index, and write the receipt."""
        live, session = self._live, self._live.session
        for taken in verdict.taken:
            if isinstance(verdict.decision, RollBack):
                live.lessons.setdefault(taken.instance, []).append(Lesson(verdict.decision.lesson))
            if snapshot is not None:
                restored = CheckpointRestored(
                    run=session.run.id, agent=taken.agent, instance=taken.instance, checkpoint=f"step {snapshot.step}"
                )
                live.guard.judge(restored)
        detail = "the run went on from where it was: no earlier state could be loaded" if snapshot is None else ""
        live.guard.settle(session, verdict, took_effect=snapshot is not None, detail=detail)

    def _finished(self, last: Any) -> Any:
        """What the run came to; it may have been halted where no seat came after."""
        live = self._live
        if isinstance(last, TaskResult) and self._stands:
            last = TaskResult(messages=[*self._stands, *last.messages], stop_reason=last.stop_reason)
        if live.halted is None:
            self._end("completed")
            return last
        live.enacted()
        self._end("halted")
        if isinstance(last, TaskResult):
            return self._halted(last.messages)
        return self._halted([*(last.inner_messages or ()), last.chat_message])

    def _failed(self, error: BaseException) -> Any:
        """What to give in place of an exception that is our halt; None for any other, which passes through."""
        if self._live.stopped_by(error):
            self._end("halted")
            return self._halted([*self._task(), *self._live.work])
        gone = isinstance(error, GeneratorExit | asyncio.CancelledError)
        self._end("interrupted" if gone else "failed", str(error))
        return None

    def _end(self, status: Status, error: str | None = None) -> None:
        self._live.end(status, error)
        self._root.ended(self._live)

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
        task = self._given.kwargs.get("task")
        silent = not self._given.kwargs.get("output_task_messages", True)
        if task is None or silent or not isinstance(self._live.target, ChatAgent):
            return ()
        if isinstance(task, str):
            return (TextMessage(content=task, source=USER),)
        return (task,) if isinstance(task, BaseChatMessage) else task
