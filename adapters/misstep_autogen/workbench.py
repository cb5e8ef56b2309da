"""Where an agent's tools are called: its workbenches, its hand-offs, its code. Of ours nothing is ever raised here."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import asdict
from functools import partial
from typing import Any

from autogen_core import CancellationToken
from autogen_core.code_executor import CodeBlock
from autogen_core.tools import ToolResult

from misstep.enact import Rescue, adrive, tool_call
from misstep.side_effects import HANDOFF
from misstep_autogen import private
from misstep_autogen.messages import call_key
from misstep_autogen.patch import Patch
from misstep_autogen.place import Place, Stream, at, here, streamed
from misstep_autogen.stream import driven
from misstep_autogen.tool import ExecutorSeat, HandoffSeat, WorkbenchSeat, failed, not_made, not_run

EXECUTE = "execute_code_blocks"
"""What code that is run is called as a tool."""

_unnamed = itertools.count()


class ToolPatch(Patch):
    """What patches of workbenches and of hand-offs share."""

    def place(self, key: str | None) -> Place | None:
        """Where the call happens; None outside a guarded run, and where a seat has this very call in hand."""
        place = here() if self.holders else None
        if place is None or (place.live.over and place.live.halted is None):
            return None
        return None if key is not None and place.in_hand == call_key(place.scope, key) else place


class WorkbenchPatch(ToolPatch):
    """A workbench whose calls are judged; whose they are, the place tells: agents may share it."""

    methods = ("call_tool", "call_tool_stream", "list_tools")

    async def list_tools(self) -> Any:
        """
        The tools there are; none where the list fails, which is raised as the model is asked or the turn goes on.

        AutoGen's own agents ask for it within a call too, where they would hang.
        """
        place = self.place(None)
        if place is None or place.turn is None or private.calls_elsewhere(place.owner):
            return await self.original("list_tools")()
        try:
            return await self.original("list_tools")()
        except (Exception, asyncio.CancelledError) as error:
            _swallowed(place, error)
            return []

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
            if place.live.goes_back:
                return failed(name, str(place.live.stopping))
            with at(place.holding(key)):
                try:
                    return await original(name, request, **more)
                except Exception as error:
                    return failed(name, str(error))

        refuse = partial(failed, name)
        steps = tool_call(
            place.live.guard, lambda: WorkbenchSeat(place, name, arguments, key, private.says_of(self.target, name))
        )
        ask = partial(place.live.ask, cancellation_token)
        try:
            return await adrive(place.live.guard, steps, execute, Rescue(arguments, refuse), ask)
        except (Exception, asyncio.CancelledError) as error:
            return refuse(_swallowed(place, error, cancellation_token))

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
            if place.live.goes_back:
                yield failed(name, str(place.live.stopping))
                return
            try:
                async for item in streamed(place.holding(key), original(name, request, **more)):
                    yield item
            except Exception as error:
                yield failed(name, str(error))

        refuse = partial(failed, name)
        steps = tool_call(
            place.live.guard, lambda: WorkbenchSeat(place, name, arguments, key, private.says_of(self.target, name))
        )
        rescue = Rescue(arguments, refuse)
        ask = partial(place.live.ask, cancellation_token)
        try:
            async for item in driven(place.live.guard, steps, execute, rescue, ToolResult, ask):
                yield item
            return
        except (Exception, asyncio.CancelledError) as error:
            instead = refuse(_swallowed(place, error, cancellation_token))
        yield instead


class ExecutorPatch(ToolPatch):
    """What an agent has its code run by: the code is a call, judged where it is run."""

    methods = (EXECUTE,)

    async def execute_code_blocks(self, code_blocks: Any, cancellation_token: Any, **more: Any) -> Any:
        """Run code."""
        original, place = self.original(EXECUTE), self.place(None)
        if place is None:
            return await original(code_blocks, cancellation_token, **more)
        given = {"code_blocks": [asdict(block) for block in code_blocks]}
        key = _key(place, None)

        async def execute(request: Any) -> Any:
            blocks = code_blocks if request is given else [CodeBlock(**block) for block in request["code_blocks"]]
            with at(place.holding(key)):
                return await original(blocks, cancellation_token, **more)

        steps = tool_call(place.live.guard, lambda: ExecutorSeat(place, EXECUTE, given, key))
        ask = partial(place.live.ask, cancellation_token)
        return await adrive(place.live.guard, steps, execute, Rescue(given, not_run), ask)


class HandoffPatch(ToolPatch):
    """A hand-off tool of an agent."""

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

        refuse = partial(not_made, place)
        steps = tool_call(place.live.guard, lambda: HandoffSeat(place, self.target.name, args, key, HANDOFF))
        ask = partial(place.live.ask, cancellation_token)
        try:
            return await adrive(place.live.guard, steps, execute, Rescue(args, refuse), ask)
        except (Exception, asyncio.CancelledError) as error:
            return refuse(_swallowed(place, error, cancellation_token))


def _key(place: Place, call_id: str | None) -> str:
    return call_key(place.scope, call_id or f"t{next(_unnamed)}")


def _swallowed(place: Place, error: BaseException, token: CancellationToken | None = None) -> str:
    """
    What the agent reads instead of an exception that would make it hang: it is raised where its turn goes on.

    Where this very task is to be cancelled, it is; where nobody cancelled anything, the tool only failed.
    """
    task = asyncio.current_task()
    cancelled = isinstance(error, asyncio.CancelledError)
    if cancelled and task is not None and task.cancelling():
        raise error
    if place.turn is not None and not (cancelled and token is not None and not token.is_cancelled()):
        place.turn.raising = error
    return f"Error: {type(error).__name__}"
