"""The tool seat: a workbench's calls and an agent's hand-offs, in the core's terms. Nothing is ever raised here."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from autogen_core.tools import TextResultContent, ToolResult

from misstep.enact import Rescue, Steps, adrive, tool_call
from misstep.events import ToolCancelled, ToolFailed, ToolRequested, ToolReturned
from misstep.session import Session
from misstep_autogen.messages import call_key
from misstep_autogen.patch import Patch
from misstep_autogen.place import Place, at, here, streamed
from misstep_autogen.stream import driven

_unnamed = itertools.count()


class AutoGenToolSeat:
    """A tool call; `answer` makes an objection the tool's answer, `read` tells what an answer says and if it failed."""

    def __init__(
        self,
        place: Place,
        tool: str,
        arguments: Any,
        call: str,
        answer: Callable[[str], Any],
        read: Callable[[Any], tuple[str, bool]],
    ) -> None:
        self.session: Session = place.live.session
        self._place, self._tool, self._arguments, self._call = place, tool, arguments, call
        self._answer, self._read = answer, read

    def requested(self) -> ToolRequested:
        """The call."""
        given = self._arguments
        named = dict(given) if isinstance(given, Mapping) else {}
        raw = str(given) if given is not None and not isinstance(given, Mapping) else None
        return ToolRequested(**self._of(), arguments=named, raw=raw)

    def request(self) -> Any:
        """What the workbench would have been given."""
        return self._arguments

    def result(self, raw: Any) -> ToolReturned | ToolFailed:
        """What the tool answered, or the error it reported."""
        text, failed = self._read(raw)
        return ToolFailed(**self._of(), error=text) if failed else ToolReturned(**self._of(), output=text)

    def failure(self, error: BaseException) -> ToolCancelled:
        """The call was cancelled: whatever else a tool raises is its answer."""
        return ToolCancelled(**self._of(), reason=type(error).__name__)

    def object(self, objection: str) -> Any:
        """The objection as the tool's answer."""
        return self._answer(objection)

    def stop(self, reason: str) -> Any:
        """The run ends at its next model call or turn: here the call is only refused."""
        return self._answer(reason)

    def _of(self) -> dict[str, Any]:
        place = self._place
        return {
            "run": self.session.run.id,
            "call": self._call,
            "agent": place.agent,
            "instance": place.instance,
            "tool": self._tool,
        }


class ToolPatch(Patch):
    """What patches of workbenches and of hand-offs share."""

    def place(self, key: str | None) -> Place | None:
        """Where the call happens; None outside a guarded run, and where a seat has this very call in hand."""
        place = here() if self.holders else None
        if place is None or (place.live.over and place.live.halted is None):
            return None
        return None if key is not None and place.in_hand == call_key(place.scope, key) else place

    def steps(
        self,
        place: Place,
        tool: str,
        arguments: Any,
        key: str,
        answer: Callable[[str], Any],
        read: Callable[[Any], tuple[str, bool]],
    ) -> Steps:
        """The core's loop for the call."""
        return tool_call(place.live.guard, lambda: AutoGenToolSeat(place, tool, arguments, key, answer, read))


class WorkbenchPatch(ToolPatch):
    """A workbench whose calls are judged; whose they are, the place tells: agents may share it."""

    methods = ("call_tool", "call_tool_stream")

    async def call_tool(
        self, name: str, arguments: Any = None, cancellation_token: Any = None, call_id: str | None = None, **more: Any
    ) -> ToolResult:
        """One tool call."""
        original, place = self.original("call_tool"), self.place(call_id)
        more = {"cancellation_token": cancellation_token, "call_id": call_id, **more}
        if place is None:
            return await original(name, arguments, **more)
        key = _key(place, call_id)

        async def execute(request: Any) -> ToolResult:
            with at(place.holding(key)):
                try:
                    return await original(name, request, **more)
                except Exception as error:
                    return failed(name, str(error))

        answer = _answering(name)
        steps = self.steps(place, name, arguments, key, answer, _read)
        try:
            return await adrive(place.live.guard, steps, execute, Rescue(arguments, answer))
        except (Exception, asyncio.CancelledError) as error:
            return answer(_swallowed(place, error))

    async def call_tool_stream(
        self, name: str, arguments: Any = None, cancellation_token: Any = None, call_id: str | None = None, **more: Any
    ) -> AsyncIterator[Any]:
        """One tool call whose inner events are passed on as they come."""
        original, place = self.original("call_tool_stream"), self.place(call_id)
        more = {"cancellation_token": cancellation_token, "call_id": call_id, **more}
        if place is None:
            async for item in streamed(here(), original(name, arguments, **more)):
                yield item
            return
        key = _key(place, call_id)

        async def execute(request: Any) -> AsyncIterator[Any]:
            try:
                async for item in streamed(place.holding(key), original(name, request, **more)):
                    yield item
            except Exception as error:
                yield failed(name, str(error))

        answer = _answering(name)
        steps = self.steps(place, name, arguments, key, answer, _read)
        try:
            async for item in driven(place.live.guard, steps, execute, Rescue(arguments, answer), ToolResult):
                yield item
            return
        except (Exception, asyncio.CancelledError) as error:
            instead = answer(_swallowed(place, error))
        yield instead


class HandoffPatch(ToolPatch):
    """
    A hand-off tool of an agent.

    AutoGen hands off whatever the tool answers; where it was refused, the turn's response is changed.
    """

    methods = ("run_json",)

    async def run_json(self, args: Any, cancellation_token: Any, call_id: str | None = None, **more: Any) -> Any:
        """One hand-off."""
        original, place = self.original("run_json"), self.place(call_id)
        if place is None:
            return await original(args, cancellation_token, call_id=call_id, **more)
        key = _key(place, call_id)

        async def execute(request: Any) -> Any:
            with at(place.holding(key)):
                try:
                    return await original(request, cancellation_token, call_id=call_id, **more)
                except Exception as error:
                    return f"Error: {error}"

        def answer(objection: str) -> str:
            if place.turn is not None:
                place.turn.objections.add(objection)
            return objection

        steps = self.steps(place, self.target.name, args, key, answer, lambda raw: (str(raw), False))
        try:
            return await adrive(place.live.guard, steps, execute, Rescue(args, answer))
        except (Exception, asyncio.CancelledError) as error:
            return answer(_swallowed(place, error))


def failed(name: str, text: str) -> ToolResult:
    """A tool's error, as its agent reads it."""
    return ToolResult(name=name, result=[TextResultContent(content=text)], is_error=True)


def _answering(name: str) -> Callable[[str], ToolResult]:
    return lambda objection: failed(name, objection)


def _read(raw: ToolResult) -> tuple[str, bool]:
    return raw.to_text(replace_image="[image]"), raw.is_error


def _key(place: Place, call_id: str | None) -> str:
    return call_key(place.scope, call_id or f"t{next(_unnamed)}")


def _swallowed(place: Place, error: BaseException) -> str:
    """
    What the agent reads instead of an exception that would make it hang: it is raised where its turn goes on.

    Where this very task is to be cancelled, it is.
    """
    task = asyncio.current_task()
    if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
        raise error
    if place.turn is not None:
        place.turn.raising = error
    return f"Error: {type(error).__name__}"
