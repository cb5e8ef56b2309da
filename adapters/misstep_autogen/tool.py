"""The tool seat: one tool call, in a workbench or a hand-off, in the core's terms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from autogen_agentchat.base import Handoff
from autogen_core.code_executor import CodeResult
from autogen_core.tools import TextResultContent, ToolResult

from misstep.decisions import Reroute, RollBack
from misstep.errors import ToolTimeout
from misstep.events import ToolCancelled, ToolFailed, ToolRequested, ToolReturned
from misstep.session import Session
from misstep.side_effects import Classified
from misstep_autogen import private
from misstep_autogen.place import Place

_ELSEWHERE = (
    "[misstep] This call was not executed: another agent is given the turn. "
    "Say in a sentence what is left to do, and call nothing more."
)


class AutoGenToolSeat(ABC):
    """
    A tool call; `says` is what the tool itself says of its effect.

    Nothing is raised here: what ends the run or the turn is met at the next model call or turn.
    """

    pause: Callable[[Mapping[str, Any]], Any] | None = None

    def __init__(self, place: Place, tool: str, arguments: Any, call: str, says: Classified | None = None) -> None:
        self.session: Session = place.live.session
        self._place, self._tool, self._arguments, self._call, self._says = place, tool, arguments, call, says

    def requested(self) -> ToolRequested:
        """The call."""
        given = self._arguments
        named = dict(given) if isinstance(given, Mapping) else {}
        raw = str(given) if given is not None and not isinstance(given, Mapping) else None
        return ToolRequested(**self._of(), arguments=named, raw=raw, says=self._says)

    def request(self, arguments: Mapping[str, Any] | None = None) -> Any:
        """What the tool is given."""
        return self._arguments if arguments is None else arguments

    def result(self, raw: Any) -> ToolReturned | ToolFailed:
        """What the tool answered, or the error it reported."""
        text, failed = self._read(raw)
        return ToolFailed(**self._of(), error=text) if failed else ToolReturned(**self._of(), output=text)

    def failure(self, error: BaseException) -> ToolFailed | ToolCancelled:
        """The call was cancelled, or took too long: whatever else a tool raises is its answer."""
        if isinstance(error, ToolTimeout):
            return ToolFailed(**self._of(), error=str(error), error_type=type(error).__name__)
        return ToolCancelled(**self._of(), reason=type(error).__name__)

    @abstractmethod
    def object(self, objection: str) -> Any:
        """The objection as the tool's answer."""

    @abstractmethod
    def rewrite(self, raw: Any, content: str) -> Any:
        """The answer in other words."""

    def redirect(self, agent: str) -> bool:
        """A tool hands nothing off."""
        return False

    def redirected(self, raw: Any) -> Any:
        """The answer of a hand-off that goes to another agent."""
        return raw

    def leave(self, decision: Reroute | RollBack) -> Any:
        """The turn ends by itself, before another agent is given it; a run that is taken back ends where it goes on."""
        return self.object(self._place.live.go_back() if isinstance(decision, RollBack) else _ELSEWHERE)

    @abstractmethod
    def recorded(self, output: str) -> Any:
        """What the tool answered before."""

    @abstractmethod
    def whole(self, raw: Any) -> bool:
        """Whether the answer is text and nothing else."""

    def stop(self, reason: str) -> Any:
        """The run ends at its next model call or turn: here the call is only refused."""
        return self.object(reason)

    @abstractmethod
    def _read(self, raw: Any) -> tuple[str, bool]:
        """What an answer says, and whether it is an error."""

    def _of(self) -> dict[str, Any]:
        place = self._place
        return {
            "run": self.session.run.id,
            "call": self._call,
            "agent": place.agent,
            "instance": place.instance,
            "tool": self._tool,
        }


class WorkbenchSeat(AutoGenToolSeat):
    """A call of a workbench."""

    def object(self, objection: str) -> ToolResult:
        """The objection as an error of the tool."""
        return failed(self._tool, objection)

    def rewrite(self, raw: ToolResult, content: str) -> ToolResult:
        """The result in other words."""
        return raw.model_copy(update={"result": [TextResultContent(content=content)]})

    def recorded(self, output: str) -> ToolResult:
        """The result, as if the tool gave it now."""
        return ToolResult(name=self._tool, result=[TextResultContent(content=output)], is_error=False)

    def whole(self, raw: ToolResult) -> bool:
        """A result may have images."""
        return all(isinstance(part, TextResultContent) for part in raw.result)

    def _read(self, raw: ToolResult) -> tuple[str, bool]:
        return raw.to_text(replace_image="[image]"), raw.is_error


class ExecutorSeat(AutoGenToolSeat):
    """Code that is run: a call whose arguments are its blocks."""

    def object(self, objection: str) -> CodeResult:
        """The objection as what the code printed."""
        return not_run(objection)

    def rewrite(self, raw: CodeResult, content: str) -> CodeResult:
        """What it printed in other words."""
        return CodeResult(exit_code=raw.exit_code, output=content)

    def recorded(self, output: str) -> CodeResult:
        """The result, as if the code was run now."""
        return CodeResult(exit_code=0, output=output)

    def whole(self, raw: CodeResult) -> bool:
        """A result may name a file it wrote."""
        return type(raw) is CodeResult

    def _read(self, raw: CodeResult) -> tuple[str, bool]:
        return raw.output, raw.exit_code != 0


class HandoffSeat(AutoGenToolSeat):
    """
    A call of a hand-off tool, which answers with a text.

    AutoGen hands off whatever the tool answers: where it was refused or redirected, the turn's response is changed.
    """

    def object(self, objection: str) -> str:
        """The objection as the tool's answer, and no hand-off."""
        return not_made(self._place, objection)

    def rewrite(self, raw: str, content: str) -> str:
        """What the next agent is told in other words."""
        return content

    def recorded(self, output: str) -> str:
        """The answer itself."""
        return output

    def whole(self, raw: str) -> bool:
        """An answer is a text."""
        return True

    def redirect(self, agent: str) -> bool:
        """Whether the turn's hand-off goes to that agent of the team from here on."""
        target, turn = private.target_of(self._place.owner, self._tool), self._place.turn
        return target is not None and turn is not None and turn.redirect(target, agent)

    def redirected(self, raw: str) -> str:
        """The words of the hand-off, which by default name whom it goes to."""
        target, turn = private.target_of(self._place.owner, self._tool), self._place.turn
        if target is None or turn is None or str(raw) != Handoff(target=target).message:
            return raw
        return Handoff(target=turn.redirected[target]).message

    def _read(self, raw: Any) -> tuple[str, bool]:
        return str(raw), False


def failed(tool: str, text: str) -> ToolResult:
    """A tool's error, as its agent reads it."""
    return ToolResult(name=tool, result=[TextResultContent(content=text)], is_error=True)


def not_run(text: str) -> CodeResult:
    """The result of code that is not run."""
    return CodeResult(exit_code=1, output=text)


def not_made(place: Place, objection: str) -> str:
    """The answer of a hand-off that is not made."""
    if place.turn is not None:
        place.turn.objections.add(objection)
    return objection
