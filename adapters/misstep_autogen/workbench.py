"""Where an agent's tools are called: its workbenches, and its hand-offs. Nothing is ever raised here."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

from autogen_core.tools import TextResultContent, ToolResult

from misstep.enact import Rescue, Steps, adrive, tool_call
from misstep_autogen.messages import call_key
from misstep_autogen.patch import Patch
from misstep_autogen.place import Place, Stream, at, here, streamed
from misstep_autogen.private import says_of
from misstep_autogen.stream import driven
from misstep_autogen.tool import AutoGenToolSeat

_unnamed = itertools.count()


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
        recorded: Callable[[str], Any] = str,
    ) -> Steps:
        """The core's loop for the call."""
        says = says_of(self.target, tool)
        return tool_call(
            place.live.guard, lambda: AutoGenToolSeat(place, tool, arguments, key, answer, read, recorded, says)
        )


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
        steps = self.steps(place, name, arguments, key, answer, _read, _recording(name))
        try:
            return await adrive(place.live.guard, steps, execute, Rescue(arguments, answer))
        except (Exception, asyncio.CancelledError) as error:
            return answer(_swallowed(place, error))

    async def call_tool_stream(
        self, name: str, arguments: Any = None, cancellation_token: Any = None, call_id: str | None = None, **more: Any
    ) -> Stream:
        """One tool call whose inner events are passed on as they come."""
        original, place = self.original("call_tool_stream"), self.place(call_id)
        more = {"cancellation_token": cancellation_token, "call_id": call_id, **more}
        if place is None:
            async for item in streamed(here(), original(name, arguments, **more)):
                yield item
            return
        key = _key(place, call_id)

        async def execute(request: Any) -> Stream:
            try:
                async for item in streamed(place.holding(key), original(name, request, **more)):
                    yield item
            except Exception as error:
                yield failed(name, str(error))

        answer = _answering(name)
        steps = self.steps(place, name, arguments, key, answer, _read, _recording(name))
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


def _recording(name: str) -> Callable[[str], ToolResult]:
    return lambda output: ToolResult(name=name, result=[TextResultContent(content=output)], is_error=False)


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
