"""What an adapter implements: one model call and one tool call in the core's terms. Nothing there judges."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from misstep.decisions import Reroute, RollBack
from misstep.events import Event, ModelFailed, ModelResponded, ToolCancelled, ToolFailed, ToolRequested, ToolReturned
from misstep.session import Session

Request = TypeVar("Request", covariant=True)
Raw = TypeVar("Raw")


class ModelSeat(Protocol[Request, Raw]):
    """One model call, as an adapter presents it. Every method only translates."""

    session: Session
    streaming: bool
    """Whether the reply's tokens reach somebody before it is judged."""

    def opening(self) -> Sequence[Event]:
        """What is new before the call: messages not seen before, then the `ModelRequested`."""
        ...

    def request(self, feedback: Sequence[str], model: Any = None) -> Request:
        """What to hand to the handler: `feedback` appended for the model alone; another `model`, where one is given."""
        ...

    def reply(self, raw: Raw, attempt: int) -> ModelResponded:
        """What came back."""
        ...

    def failure(self, error: BaseException, attempt: int) -> ModelFailed:
        """What was raised instead."""
        ...

    def rewrite(self, raw: Raw, content: str) -> Raw:
        """The reply with other words; its calls stay."""
        ...

    def leave(self, decision: Reroute | RollBack) -> Raw:
        """The run goes on elsewhere: raise the framework's own signal, or return a reply that ends the turn."""
        ...

    def stop(self, reason: str) -> Raw:
        """End here: raise the framework's own halt, or return a reply after which nothing follows."""
        ...


class ToolSeat(Protocol[Request, Raw]):
    """One tool call, as an adapter presents it."""

    session: Session
    pause: Callable[[Mapping[str, Any]], Any] | None
    """
    The framework's own way to wait for a person, given a question as data; None where the guard's approver is asked.

    It returns the answer, or raises the framework's signal, a `Signal` too, and is called again on resuming.
    """

    def requested(self) -> ToolRequested:
        """The call."""
        ...

    def request(self, arguments: Mapping[str, Any] | None = None) -> Request:
        """What to hand to the handler; with other `arguments`, where they are given."""
        ...

    def result(self, raw: Raw) -> ToolReturned | ToolFailed:
        """What came back."""
        ...

    def failure(self, error: BaseException) -> ToolFailed | ToolCancelled:
        """What was raised instead."""
        ...

    def object(self, objection: str) -> Raw:
        """A result in the framework's terms that the agent reads in place of the tool's."""
        ...

    def recorded(self, output: str) -> Raw:
        """A result in the framework's terms, as if the tool had answered `output` just now."""
        ...

    def whole(self, raw: Any) -> bool:
        """Whether `recorded` gives this result back from its words alone."""
        ...

    def rewrite(self, raw: Raw, content: str) -> Raw:
        """The result with other words."""
        ...

    def redirect(self, agent: str) -> bool:
        """From here on this hand-off goes to `agent`; False, and nothing happens, where the call is none."""
        ...

    def redirected(self, raw: Raw) -> Raw:
        """The result of a redirected hand-off, to the new agent."""
        ...

    def leave(self, decision: Reroute | RollBack) -> Raw:
        """The run goes on elsewhere: raise the framework's own signal, or answer the call with an objection."""
        ...

    def stop(self, reason: str) -> Raw:
        """End here: raise the framework's own halt, or, where that is not safe, object; the halt is sticky."""
        ...
