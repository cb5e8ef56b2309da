"""The model seat: one model call, as the gate or the middleware sees it, in the core's terms."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain.agents.middleware import ModelRequest, ModelResponse
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from misstep.conversation import Listener, digest, unheard
from misstep.decisions import Reroute, RollBack
from misstep.events import Event, ModelFailed, ModelRequested, ModelResponded
from misstep.session import Session
from misstep_langgraph.halted import Halted
from misstep_langgraph.messages import (
    checks,
    declared,
    finish_reason,
    key_of,
    proposed,
    reworded,
    said,
    usage_of,
    words,
)
from misstep_langgraph.onward import origins_of
from misstep_langgraph.place import Place
from misstep_langgraph.private import outermost_checkpoint
from misstep_langgraph.signals import Diverted

_batches = itertools.count()


@dataclass(slots=True)
class Declared:
    """The tools an instance's model was last given, so that they are told once."""

    ids: tuple[int, ...] = ()


class ModelCall:
    """What the two model seats share: everything but the framework's own request and reply."""

    def __init__(
        self, session: Session, place: Place, model: str, tools: Sequence[Any], *, hold: bool, streaming: bool
    ) -> None:
        self.session = session
        self.streaming = streaming and not hold
        self._place, self._model, self._tools, self._hold = place, model, tools, hold
        self._batch = f"m{next(_batches)}"
        self._again = False

    def _next(self, model: Any) -> Any:
        """The model to ask: one held back tells no tokens, and what was thrown away comes from no cache."""
        fields: dict[str, Any] = {}
        if self._hold:
            fields["disable_streaming"] = True
        if self._again:
            fields["cache"] = False
        self._again = True
        return model.model_copy(update=fields) if fields else model

    def _opening(self, messages: Sequence[BaseMessage], system: BaseMessage | None = None) -> list[Event]:
        place, run = self._place, self.session.run
        heard = [system, *messages] if system is not None else messages
        listener = Listener(place.agent, place.instance)
        events = unheard(run, listener, heard, key_of, lambda message: said(message, place.scope))
        origins_of(self.session).add(self._batch, place.path, outermost_checkpoint(), run.limits.agents)
        ids = tuple(map(id, self._tools))
        told = run.memory(("tools", place.instance), Declared)
        tools = declared(self._tools) if told.ids != ids else None
        told.ids = ids
        if tools is not None:
            run.check_by(checks(self._tools))
        requested = ModelRequested(
            run=run.id,
            agent=place.agent,
            instance=place.instance,
            call=self._batch,
            model=self._model,
            tools=tools,
            messages=len(heard),
        )
        return [*events, requested]

    def _reply(self, message: BaseMessage, attempt: int) -> ModelResponded:
        place, known = self._place, isinstance(message, AIMessage)
        return ModelResponded(
            run=self.session.run.id,
            agent=place.agent,
            instance=place.instance,
            call=self._batch,
            attempt=attempt,
            content=words(message.content),
            message=key_of(message),
            calls=proposed(message, place.scope) if known else (),
            usage=usage_of(message) if known else None,
            finish_reason=finish_reason(message) if known else None,
        )

    def failure(self, error: BaseException, attempt: int) -> ModelFailed:
        """What was raised instead of a reply."""
        return ModelFailed(
            run=self.session.run.id,
            agent=self._place.agent,
            instance=self._place.instance,
            call=self._batch,
            attempt=attempt,
            error=str(error),
            error_type=type(error).__name__,
        )

    def leave(self, decision: Reroute | RollBack) -> Any:
        """The run seat sees to it."""
        raise Diverted(decision)


class GateModelSeat(ModelCall):
    """
    A model call anywhere in a guarded run: the handler takes the model, the messages and the run manager to call it
    under, and gives a `ChatResult`.
    """

    def __init__(
        self,
        session: Session,
        place: Place,
        model: str,
        messages: Sequence[BaseMessage],
        tools: Sequence[Any],
        manager: Any = None,
        asked: BaseChatModel | None = None,
        *,
        hold: bool = False,
        streaming: bool = False,
    ) -> None:
        super().__init__(session, place, model, tools, hold=hold, streaming=streaming)
        self._messages, self._manager, self._asked = messages, manager, asked

    def opening(self) -> list[Event]:
        """What is new in the message list."""
        return self._opening(self._messages)

    def request(self, feedback: Sequence[str], model: Any = None) -> tuple[Any, list[BaseMessage], Any]:
        """The model, the messages with the feedback as the user's last words, and the run manager."""
        asked = self._next(model or self._asked)
        return asked, [*self._messages, *map(HumanMessage, feedback)], self._manager

    def reply(self, raw: ChatResult, attempt: int) -> ModelResponded:
        """The first generation."""
        return self._reply(raw.generations[0].message, attempt)

    def rewrite(self, raw: ChatResult, content: str) -> ChatResult:
        """The first generation in other words."""
        first = raw.generations[0]
        changed = ChatGeneration(message=reworded(first.message, content), generation_info=first.generation_info)
        return ChatResult(generations=[changed, *raw.generations[1:]], llm_output=raw.llm_output)

    def stop(self, reason: str) -> ChatResult:
        """End the graph."""
        raise Halted(reason)


class MiddlewareModelSeat(ModelCall):
    """A model call of `create_agent`: the handler takes a `ModelRequest` and gives a `ModelResponse`."""

    def __init__(self, session: Session, place: Place, request: ModelRequest, *, hold: bool, streaming: bool) -> None:
        super().__init__(session, place, model_name(request.model), request.tools, hold=hold, streaming=streaming)
        self._request = request

    def opening(self) -> list[Event]:
        """What is new in the state's messages."""
        return self._opening(self._request.messages, self._request.system_message)

    def request(self, feedback: Sequence[str], model: Any = None) -> ModelRequest:
        """The request, with the feedback as the user's last words."""
        changes: dict[str, Any] = {}
        if feedback:
            changes["messages"] = [*self._request.messages, *map(HumanMessage, feedback)]
        asked = self._next(model or self._request.model)
        if asked is not self._request.model:
            changes["model"] = asked
        return self._request.override(**changes) if changes else self._request

    def reply(self, raw: Any, attempt: int) -> ModelResponded:
        """The model's own message; a structured answer's synthetic tool message is not it."""
        messages = raw.result if isinstance(raw, ModelResponse) else [raw]
        return self._reply(next(message for message in messages if isinstance(message, AIMessage)), attempt)

    def rewrite(self, raw: Any, content: str) -> Any:
        """The model's own message in other words."""
        if not isinstance(raw, ModelResponse):
            return reworded(raw, content)
        own = next(message for message in raw.result if isinstance(message, AIMessage))
        result = [reworded(message, content) if message is own else message for message in raw.result]
        return dataclasses.replace(raw, result=result)

    def stop(self, reason: str) -> ModelResponse:
        """A last message without calls: the agent ends, and keeps what it did."""
        return ModelResponse(result=[AIMessage(reason, id=f"misstep-{digest(reason, next(_batches))}")])


def model_name(model: Any) -> str:
    """A model's name for people."""
    fields = vars(model)  # what a model of pydantic's does not have is dear to ask for
    return str(fields.get("model_name") or fields.get("model") or type(model).__name__)


def as_result(message: BaseMessage) -> ChatResult:
    """A message as a model returns it."""
    return ChatResult(generations=[ChatGeneration(message=message)])
