"""The tool seat: one tool call, as the gate or the middleware sees it, in the core's terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from langchain_core.messages import ToolMessage
from langgraph.errors import GraphBubbleUp
from langgraph.types import Command

from misstep.decisions import Kind, Reroute, RollBack
from misstep.events import ToolCancelled, ToolFailed, ToolRequested, ToolReturned
from misstep.seats import Seat
from misstep.session import Session
from misstep.side_effects import HANDOFF, Classified
from misstep_langgraph.handoff import destination, handed_to
from misstep_langgraph.messages import call_key, is_text, result_text, with_result
from misstep_langgraph.onward import origins_of
from misstep_langgraph.place import Place
from misstep_langgraph.questions import Payload, batch_of, questions_of
from misstep_langgraph.signals import Diverted


class LangChainToolSeat:
    """
    A tool call; the handler takes no more than what the framework itself would have passed on.

    A call without an id is the one a model proposed with the same tool and arguments; if none did, it is the
    application's own, which is taken in and never acted on. `halt` says how the run is ended here: by raising
    (anywhere in a guarded run), or by an objection where no run seat would catch it. `metadata` is the tool's own;
    `says` is what the tool itself says of its effect.
    """

    pause: Callable[[Payload], Any] | None = None

    def __init__(
        self,
        session: Session,
        place: Place,
        tool: str,
        arguments: Mapping[str, Any],
        call_id: str | None,
        fallback_id: str,
        request: Any,
        halt: Callable[[str], Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        says: Classified | None = None,
    ) -> None:
        self.session = session
        self._says = says
        self._tool, self._arguments, self._call_id = tool, arguments, call_id
        proposed = None if call_id else session.run.calls.proposed(tool, arguments)
        self._own = not call_id and proposed is None
        self._call = call_key(place.scope, call_id) if call_id else (proposed.call if proposed else fallback_id)
        self._place, self._request, self._halt, self._metadata = place, request, halt, metadata
        if destination(tool, metadata, session.agents) is not None:
            self._says = says or HANDOFF
        self._agent = ""
        self._asked: Payload | None = None

    def may_pause(self, *, alone: bool) -> None:
        """
        Questions about the call interrupt the graph. No call of a batch is made before all its questions are
        answered, unless each is `alone` in its node: a node that is interrupted is run from its start again.
        """
        if not self._own:
            self.pause = lambda question: self._pause(question, alone)
            if self.session.asked and not alone and self._call not in self.session.asked:
                questions_of(self.session).ask(*map(self._shown, batch_of(self.session, self._call)))

    def _pause(self, question: Payload, alone: bool) -> Any:
        self._asked = self._shown(question)
        others = [] if alone else batch_of(self.session, self._call)
        return questions_of(self.session).ask(self._asked, *map(self._shown, others))[0]

    def _shown(self, question: Payload) -> Payload:
        """A node that calls model and tool by itself has its reply anew when it is run again, under another id."""
        known = self.session.run.calls.get(self._call)
        path, _ = origins_of(self.session).known.get((known and known.batch) or "", ("", None))
        return question if path != self._place.path else {**question, "call": None}

    def requested(self) -> ToolRequested:
        """The call, in the name of whoever proposed it."""
        return ToolRequested(**self._of(), arguments=dict(self._arguments), says=self._says)

    def request(self, arguments: Mapping[str, Any] | None = None) -> Any:
        """What the framework would have passed on; with other arguments, what it injects stays."""
        return self._request if arguments is None else self._with(arguments)

    def _with(self, arguments: Mapping[str, Any]) -> Any:
        if not isinstance(self._request, dict):
            return arguments["input"] if arguments.keys() == {"input"} else dict(arguments)
        injected = {name: value for name, value in self._request.items() if name not in self._arguments}
        return {**injected, **arguments}

    def result(self, raw: Any) -> ToolReturned | ToolFailed:
        """What the tool answered, or the error it reported."""
        if self._asked is not None:
            questions_of(self.session).done(self._asked)
        text, failed = result_text(raw)
        if failed:
            return ToolFailed(**self._of(), error=text)
        return ToolReturned(**self._of(), output=text)

    def failure(self, error: BaseException) -> ToolFailed | ToolCancelled:
        """What the tool raised; an interrupt or a hand-off to a parent is no failure."""
        if isinstance(error, GraphBubbleUp) or not isinstance(error, Exception):
            return ToolCancelled(**self._of(), reason=type(error).__name__)
        return ToolFailed(**self._of(), error=str(error), error_type=type(error).__name__)

    def object(self, objection: str) -> Any:
        """The objection as the tool's message, or as its output where the tool was called by hand."""
        return refusal(self._tool, self._call_id, objection)

    def recorded(self, output: str) -> Any:
        """What the tool answered, as its message, or as its output where the tool was called by hand."""
        if self._call_id is None:
            return output
        return ToolMessage(output, name=self._tool, tool_call_id=self._call_id)

    def whole(self, raw: Any) -> bool:
        """Whether the result is text and changes nothing else in the graph; an artifact is not given back."""
        content = raw.content if isinstance(raw, ToolMessage) else raw
        return not isinstance(content, Command) and is_text(content)

    def rewrite(self, raw: Any, content: str) -> Any:
        """The tool's message, or its output, in other words."""
        return with_result(raw, content)

    def redirect(self, agent: str) -> bool:
        """A hand-off goes to `agent`."""
        handed = destination(self._tool, self._metadata, self.session.agents) is not None
        self._agent = agent if handed else ""
        return bool(self._agent)

    def redirected(self, raw: Any) -> Any:
        """The command to go to the new agent."""
        return handed_to(raw, self._agent, self._call_id)

    def leave(self, decision: Reroute | RollBack) -> Any:
        """The run seat sees to it; where there is none, the call is refused."""
        seats = self.session.seats
        if seats is not None and Kind.ROLL_BACK in seats.kinds(Seat.RUN):
            raise Diverted(decision)
        return self.object("[misstep] This call was not executed.")

    def stop(self, reason: str) -> Any:
        """End the run here, or as soon as it can be."""
        return self._halt(reason) if self._halt is not None else self.object(reason)

    def _of(self) -> dict[str, Any]:
        agent, instance = self._owner()
        return {
            "run": self.session.run.id,
            "call": self._call,
            "agent": agent,
            "instance": instance,
            "tool": self._tool,
            "history": self._own,
        }

    def _owner(self) -> tuple[str, str]:
        known = self.session.run.calls.get(self._call)
        if known is None:
            return self._place.agent, self._place.instance
        return self.session.run.instance(known.instance).agent, known.instance


def refusal(tool: str, call_id: str | None, objection: str) -> Any:
    """What the agent reads in place of a result."""
    return objection if call_id is None else ToolMessage(objection, name=tool, tool_call_id=call_id, status="error")


class MiddlewareToolSeat(LangChainToolSeat):
    """A tool call of `create_agent`: the handler takes a `ToolCallRequest`, into which LangChain injects by itself."""

    def _with(self, arguments: Mapping[str, Any]) -> Any:
        call = {**self._request.tool_call, "args": dict(arguments)}
        return self._request.override(tool_call=call)
