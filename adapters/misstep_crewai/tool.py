"""The tool seat: one tool call, between the hook before it and the hook after it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from crewai.hooks import InterceptionPoint, ToolCallHookContext

from misstep.decisions import Allow, Reroute, RollBack
from misstep.enact import Loop, Rescue, Steps, tool_call, until_call
from misstep.events import ToolCancelled, ToolFailed, ToolRequested, ToolReturned
from misstep.side_effects import HANDOFF
from misstep_crewai.course import divert, leaving
from misstep_crewai.halted import Diverted, Halted
from misstep_crewai.live import Live
from misstep_crewai.messages import answer_of, call_key, failure_of, says_of
from misstep_crewai.place import place
from misstep_crewai.private import amend, co_workers
from misstep_crewai.proposals import Proposal

_unproposed = itertools.count()


class CrewToolSeat:
    """A tool call; the handler is CrewAI itself, which runs between the two hooks and gives the second's context."""

    pause: Callable[[Mapping[str, Any]], Any] | None = None

    def __init__(self, live: Live, context: ToolCallHookContext) -> None:
        self.session = live.session
        self._live, self._context = live, context
        self._place = place(context.agent, context.task)
        self._tool = context.tool_name
        self._says = HANDOFF if co_workers(context.tool) else says_of(context.tool)
        given = context.tool_input
        self._arguments: dict[str, Any] = dict(given) if isinstance(given, Mapping) else {"input": given}
        proposed = live.proposals.take(self._place.instance, self._tool, self._arguments)
        self._in_text = proposed is not None and proposed.loose
        self._call = self._known(proposed) if proposed else call_key(self._place, f"unproposed-{next(_unproposed)}")

    def _known(self, proposed: Proposal) -> str:
        """The id of a call that was proposed; what CrewAI has mended of it was never judged, and is judged now."""
        call, session = proposed.call.call, self.session
        if not proposed.is_just(self._tool, self._arguments):
            with session.run.lock:
                verdict = session.remembered(call)
                if verdict is not None and isinstance(verdict.decision, Allow):
                    session.forget(call)
        return call

    def requested(self) -> ToolRequested:
        """The call."""
        return ToolRequested(
            run=self.session.run.id,
            call=self._call,
            agent=self._place.agent,
            instance=self._place.instance,
            tool=self._tool,
            arguments=self._arguments,
            says=self._says,
        )

    def request(self, arguments: Mapping[str, Any] | None = None) -> None:
        """
        Nothing: CrewAI makes the call, with what stands in its own dict.

        Raises TypeError for what is no JSON, and in text mode for a call without arguments, which CrewAI makes so.
        """
        if arguments is None:
            return
        given = dict(arguments)
        if given and self._in_text and not self._arguments:
            raise TypeError("in text mode CrewAI gives a call without arguments none")
        json.dumps(given)  # CrewAI writes them as JSON, outside of anything that would catch it
        self._context.tool_input.clear()
        self._context.tool_input.update(given)

    def result(self, raw: ToolCallHookContext) -> ToolReturned | ToolFailed:
        """What the tool answered, or the error CrewAI made of what it raised."""
        text = answer_of(raw.tool_result)
        run, agent, instance = self.session.run.id, self._place.agent, self._place.instance
        if failure_of(raw.tool, raw.raw_tool_result, text):
            return ToolFailed(run=run, call=self._call, agent=agent, instance=instance, tool=self._tool, error=text)
        return ToolReturned(run=run, call=self._call, agent=agent, instance=instance, tool=self._tool, output=text)

    def failure(self, error: BaseException) -> ToolCancelled:
        """The run ended before the second hook; what a tool raises comes as a result."""
        return ToolCancelled(
            run=self.session.run.id,
            call=self._call,
            agent=self._place.agent,
            instance=self._place.instance,
            tool=self._tool,
            reason=type(error).__name__,
        )

    def object(self, objection: str) -> str:
        """The tool's answer, for the second hook to put there."""
        return objection

    def recorded(self, output: str) -> str:
        """What the tool answered, for the second hook to put there."""
        return output

    def whole(self, raw: ToolCallHookContext) -> bool:
        """CrewAI's results are texts."""
        return True

    def rewrite(self, raw: ToolCallHookContext, content: str) -> str:
        """The same, in other words."""
        return content

    def redirect(self, agent: str) -> bool:
        """A delegation goes to the co-worker CrewAI's own dict names."""
        if agent not in co_workers(self._context.tool):
            return False
        self._context.tool_input["coworker"] = agent
        return True

    def redirected(self, raw: ToolCallHookContext) -> ToolCallHookContext:
        """As it is: the co-worker's answer."""
        return raw

    def leave(self, decision: Reroute | RollBack) -> str:
        """The second hook leaves the task, where the crew can begin it again; else the agent reads an objection."""
        divert(self._live, decision)
        return "[misstep] This was not passed on. Go on without it, or say that you could not do it."

    def stop(self, reason: str) -> str:
        """The same; the second hook then ends the run, since the first can only block this call."""
        return reason


@dataclass(slots=True)
class Open:
    """A call between its hooks; `given` is held so that no other dict takes its identity."""

    given: Any
    steps: Steps
    loop: Loop
    blocked: bool


class ToolHooks:
    """
    The two hooks of one run. They step the core's loop by hand: it waits while CrewAI runs the tool.

    CrewAI swallows what a hook raises and goes on, so nothing of ours is raised but its signals.
    """

    def __init__(self, live: Live) -> None:
        self._live = live
        self._open: dict[int, Open] = {}
        self.points = {InterceptionPoint.PRE_TOOL_CALL: self.before, InterceptionPoint.POST_TOOL_CALL: self.after}

    def before(self, context: ToolCallHookContext) -> bool | None:
        """False blocks the call."""
        live, session = self._live, self._live.session
        if live.guard.mode == "off":
            return None
        if session.ended:
            return None if session.halted is None else False
        try:
            if leaving(live):
                return False
            steps = tool_call(live.guard, lambda: CrewToolSeat(live, context))
            loop = Loop(live.guard, steps, Rescue(None, str))
            blocked = until_call(live.guard, loop) is None
        except Exception as error:
            live.failed(error)
            return False if live.guard.fails_closed else None
        self._open[id(context.tool_input)] = Open(context.tool_input, steps, loop, blocked)
        return False if blocked else None

    def after(self, context: ToolCallHookContext) -> str | None:
        """What the agent is to read in place of the result, if anything; or the end of the run, or of the task."""
        answer, left = None, False
        try:
            answer = self._answer(context)
            left = leaving(self._live)
        except Exception as error:
            self._live.failed(error)
        if self._live.session.halted is not None:
            raise Halted(self._live.session.halted)
        if left:
            raise Diverted
        return answer

    def close(self) -> None:
        """The run is over: what has not come to its second hook never will."""
        for call in list(self._open.values()):
            call.steps.close()
        self._open.clear()

    def _answer(self, context: ToolCallHookContext) -> str | None:
        call = self._open.pop(id(context.tool_input), None)
        session = self._live.session
        answer = None
        if call is not None and call.blocked:
            answer = str(call.loop.value)
        elif call is not None:
            call.loop.returned(context)
            until_call(self._live.guard, call.loop)
            if isinstance(call.loop.value, str):
                answer = call.loop.value
                amend(context, answer)
        if session.halted is not None and not session.ended:
            self._live.guard.settle(session, session.halt, took_effect=True)
        return answer
