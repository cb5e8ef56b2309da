"""The model seat: a proxy in the place of an agent's model client, and one call of it in the core's terms."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from autogen_core.models import CreateResult, LLMMessage, UserMessage
from pydantic import BaseModel

from misstep.conversation import Listener, unheard
from misstep.decisions import Reroute, RollBack
from misstep.enact import Rescue, Steps, adrive, model_call, proposed_calls
from misstep.events import Event, ModelFailed, ModelRequested, ModelResponded, Tool, ToolRequested
from misstep.session import Session
from misstep_autogen import private
from misstep_autogen.halted import Halted, TurnLeft
from misstep_autogen.messages import declared, key_of, own_key, proposed, replaced, said, usage_of
from misstep_autogen.place import MODEL, Place, Stream, at, streamed
from misstep_autogen.rollback import taught
from misstep_autogen.stream import driven

_batches = itertools.count()


@dataclass(slots=True)
class Declared:
    """The tools an instance's model was last given, so that they are told once."""

    tools: tuple[Tool, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """What a handler is given: the messages, and the client that takes the place of the agent's own, if any."""

    messages: Sequence[LLMMessage]
    client: Any = None


class AutoGenModelSeat:
    """A model call: the handler takes a `Request` and gives a `CreateResult`."""

    def __init__(
        self,
        place: Place,
        model: str,
        messages: Sequence[LLMMessage],
        options: Mapping[str, Any],
        *,
        streaming: bool = False,
    ) -> None:
        self.session: Session = place.live.session
        self.streaming = streaming
        self._place, self._model, self._messages = place, model, messages
        self._tools, self._output = options.get("tools") or (), options.get("json_output")
        self._batch = f"m{next(_batches)}"
        self._raw: CreateResult | None = None
        """The last reply."""

    def opening(self) -> list[Event]:
        """What is new in the conversation; what was written up for this one call was said elsewhere."""
        place, run = self._place, self.session.run
        events: list[Event] = []
        if not place.minutes:
            listener = Listener(place.agent, place.instance)
            key, read = partial(key_of, place), partial(said, place)
            events = unheard(run, listener, self._messages, key, read)
        told = run.memory(("tools", place.instance), Declared)
        tools = declared(self._tools)
        requested = ModelRequested(
            run=run.id,
            agent=place.agent,
            instance=place.instance,
            call=self._batch,
            model=self._model,
            tools=tools if tools != told.tools else None,
            messages=len(self._messages),
        )
        if tools != told.tools:
            run.check_by(private.checks(place.owner))
        told.tools = tools
        return [*events, requested]

    def request(self, feedback: Sequence[str], model: Any = None) -> Request:
        """The messages, with what was learned earlier in its place, and the feedback as the last words."""
        told = [UserMessage(content=text, source="misstep") for text in feedback]
        lessons = self._place.live.lessons.get(self._place.instance)
        messages = self._messages if lessons is None else taught(self._messages, lessons)
        return Request([*messages, *told], model)

    def reply(self, raw: CreateResult | None, attempt: int) -> ModelResponded:
        """What came back; a stream that ended without an answer said nothing."""
        place, self._raw = self._place, raw
        if raw is None:
            return self._responded(attempt)
        return self._responded(
            attempt,
            content=raw.content if isinstance(raw.content, str) else raw.thought or "",
            message=own_key(place, raw.content),
            calls=proposed(raw.content, place.scope),
            usage=usage_of(raw),
            finish_reason=raw.finish_reason,
            logprobs=tuple(token.logprob for token in raw.logprobs) if raw.logprobs else None,
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

    def rewrite(self, raw: CreateResult, content: str) -> CreateResult:
        """The reply in other words, which the agent's conversation will show as its own; beside calls, its thought."""
        if not isinstance(raw.content, str):
            return raw.model_copy(update={"thought": content})
        if isinstance(self._output, type) and issubclass(self._output, BaseModel):
            self._output.model_validate_json(content)  # its agent could not read it, and would raise
        with self.session.run.lock:
            self.session.run.spoke(self._place.instance, own_key(self._place, content))
        return raw.model_copy(update={"content": content})

    def without_tool_seats(self, raw: CreateResult) -> Steps:
        """The reply as it is passed on where its calls are made past every workbench."""
        asked = () if raw is None else proposed(raw.content, self._place.scope)
        if not asked:
            return raw
        place, run = self._place, self.session.run.id
        calls = [
            ToolRequested(
                run=run,
                call=each.call,
                agent=place.agent,
                instance=place.instance,
                tool=each.tool,
                arguments=each.arguments or {},
                raw=each.raw,
            )
            for each in asked
        ]
        changed = yield from proposed_calls(place.live.guard, self, calls)
        return replaced(place, raw, changed) if isinstance(changed, dict) else changed

    def leave(self, decision: Reroute | RollBack) -> CreateResult:
        """End the turn here; a manager has none, and its choice is overridden where it is made."""
        if isinstance(decision, RollBack):
            raise Halted(self._place.live.go_back())
        if self._place.turn is not None:
            raise TurnLeft
        assert self._raw is not None
        return self._raw

    def stop(self, reason: str) -> CreateResult:
        """End the turn here, and with it the run."""
        raise Halted(reason)

    def _responded(self, attempt: int, **fields: Any) -> ModelResponded:
        place = self._place
        return ModelResponded(
            run=self.session.run.id,
            agent=place.agent,
            instance=place.instance,
            call=self._batch,
            attempt=attempt,
            **fields,
        )


class ModelProxy:
    """
    An agent's own model client, but for `create` and `create_stream`; the client may be shared, and is not touched.

    `find` says where a call happens: None outside a guarded run.
    """

    def __init__(self, client: Any, find: Callable[[], Place | None]) -> None:
        self.__dict__.update(_misstep_client=client, _misstep_find=find)

    async def create(self, messages: Sequence[LLMMessage], **kwargs: Any) -> CreateResult:
        """One model call."""
        client, place = self._misstep_client, self._misstep_find()
        if place is None:
            return await client.create(messages, **kwargs)

        async def create(request: Request) -> CreateResult:
            with at(place.holding(MODEL)):
                return await (request.client or client).create(request.messages, **kwargs)

        steps = self._steps(place, messages, kwargs, streaming=False)
        ask = partial(place.live.ask, kwargs.get("cancellation_token"))
        return await adrive(place.live.guard, steps, create, Rescue(Request(messages)), ask)

    async def create_stream(self, messages: Sequence[LLMMessage], **kwargs: Any) -> Stream:
        """One model call whose tokens are passed on as they come, or, where a rule says `hold`, once it is accepted."""
        client, place = self._misstep_client, self._misstep_find()
        if place is None:
            async for item in streamed(None, client.create_stream(messages, **kwargs)):
                yield item
            return

        def begin(request: Request) -> Stream:
            stream = (request.client or client).create_stream(request.messages, **kwargs)
            return streamed(place.holding(MODEL), stream)

        guard, ask = place.live.guard, partial(place.live.ask, kwargs.get("cancellation_token"))
        steps = self._steps(place, messages, kwargs, streaming=not guard.holds)
        rescue: Rescue[CreateResult] = Rescue(Request(messages))
        async for item in driven(guard, steps, begin, rescue, CreateResult, ask, hold=guard.holds):
            yield item

    def _steps(self, place: Place, messages: Any, kwargs: dict[str, Any], *, streaming: bool) -> Steps:
        seats: list[AutoGenModelSeat] = []

        def take() -> AutoGenModelSeat:
            model = private.model_name(self._misstep_client)
            seats.append(AutoGenModelSeat(place, model, messages, kwargs, streaming=streaming))
            return seats[0]

        raw = yield from model_call(place.live.guard, take)
        if kwargs.get("tools") and private.calls_elsewhere(place.owner) and place.live.guard.mode != "off":
            raw = yield from seats[0].without_tool_seats(raw)
        return raw

    @property
    def misstep_behind(self) -> Any:
        """The client itself."""
        return self._misstep_client

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._misstep_client, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._misstep_client, name, value)

    @property  # type: ignore[misc]  # what asks for the client's class gets it
    def __class__(self) -> Any:
        return type(self._misstep_client)

    def __deepcopy__(self, memo: dict[int, Any]) -> ModelProxy:
        clone = memo[id(self)] = ModelProxy(None, self._misstep_find)
        client, find = copy.deepcopy((self._misstep_client, self._misstep_find), memo)
        clone.__dict__.update(_misstep_client=client, _misstep_find=find)
        return clone


def behind(client: Any) -> Any:
    """The application's own client, where that is given or a proxy in its place."""
    return client.misstep_behind if type(client) is ModelProxy else client
