"""The tool seat: one tool call, in a workbench or a hand-off, in the core's terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from autogen_core.tools import TextResultContent, ToolResult

from misstep.events import ToolCancelled, ToolFailed, ToolRequested, ToolReturned
from misstep.session import Session
from misstep.side_effects import Classified
from misstep_autogen.place import Place


class AutoGenToolSeat:
    """
    A tool call; `answer` makes an objection the tool's answer, `read` tells what an answer says and if it failed, and
    `recorded` makes a text the tool's own answer. `says` is what the tool itself says of its effect.
    """

    def __init__(
        self,
        place: Place,
        tool: str,
        arguments: Any,
        call: str,
        answer: Callable[[str], Any],
        read: Callable[[Any], tuple[str, bool]],
        recorded: Callable[[str], Any] = str,
        says: Classified | None = None,
    ) -> None:
        self.session: Session = place.live.session
        self._place, self._tool, self._arguments, self._call = place, tool, arguments, call
        self._answer, self._read, self._recorded, self._says = answer, read, recorded, says

    def requested(self) -> ToolRequested:
        """The call."""
        given = self._arguments
        named = dict(given) if isinstance(given, Mapping) else {}
        raw = str(given) if given is not None and not isinstance(given, Mapping) else None
        return ToolRequested(**self._of(), arguments=named, raw=raw, says=self._says)

    def request(self, arguments: Mapping[str, Any] | None = None) -> Any:
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

    def recorded(self, output: str) -> Any:
        """What the tool answered."""
        return self._recorded(output)

    def whole(self, raw: Any) -> bool:
        """Whether the answer is text and nothing else."""
        return not isinstance(raw, ToolResult) or all(isinstance(part, TextResultContent) for part in raw.result)

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
