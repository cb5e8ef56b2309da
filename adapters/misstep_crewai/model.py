"""The model seat: one call of an LLM in the core's terms."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from crewai.events import LLMCallCompletedEvent, LLMStreamChunkEvent, crewai_event_bus
from crewai.events.stream_context import add_stream_sink, reset_stream_sinks
from crewai.hooks import HookAborted
from crewai.llms.base_llm import BaseLLM, call_stop_override, call_stream_override, llm_call_context
from crewai.types.usage_metrics import UsageMetrics

from misstep.conversation import Listener, unheard
from misstep.decisions import Reroute, RollBack
from misstep.events import Event, ModelFailed, ModelRequested, ModelResponded, Usage
from misstep_crewai.course import divert
from misstep_crewai.functions import judged
from misstep_crewai.halted import Diverted, Halted
from misstep_crewai.live import Live
from misstep_crewai.messages import checks, chunks, declared, key_of, pieces, reworded, said, spoken, words
from misstep_crewai.place import place
from misstep_crewai.private import count, stops_of, streams

_batches = itertools.count()

_PARAMETERS = ("messages", "tools", "callbacks", "available_functions", "from_task", "from_agent", "response_model")


class Ear:
    """Hears the events CrewAI emits during one call: tokens streamed, tokens used. Never raises."""

    def __init__(self) -> None:
        self.streamed = False
        self.completed: LLMCallCompletedEvent | None = None

    def __call__(self, source: Any, event: Any) -> None:
        """One event."""
        if isinstance(event, LLMStreamChunkEvent):
            self.streamed = True
        elif isinstance(event, LLMCallCompletedEvent):
            self.completed = event

    def __enter__(self) -> None:
        self.streamed, self.completed = False, None
        self._token = add_stream_sink(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        reset_stream_sinks(self._token)


@dataclass(frozen=True, slots=True)
class Request:
    """
    What is asked, and of which model, if not of the call's own.

    `streamed` says whether its tokens are streamed and `stops` where it ends, if not as the model itself has it.
    """

    messages: Any
    model: BaseLLM | None = None
    streamed: bool | None = None
    stops: list[str] | None = None


class Asked:
    """A call of `llm.call` or `llm.acall`, as CrewAI makes it."""

    def __init__(self, llm: BaseLLM, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.llm = self.answering = llm
        self.ear = Ear()
        self.held = False
        """Whether its tokens are kept back from streams until the reply is accepted."""
        self._args, self._kwargs = args, kwargs
        given = {**dict(zip(_PARAMETERS, args, strict=False)), **kwargs}
        self.messages = given.get("messages")
        self.tools, self.task, self.agent = given.get("tools"), given.get("from_task"), given.get("from_agent")
        self.structured = given.get("response_model") is not None
        self.functions = given.get("available_functions")

    def arguments(self, messages: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The call's own arguments, with these messages."""
        if messages is self.messages:
            return self._args, dict(self._kwargs)
        if self._args:
            return (messages, *self._args[1:]), dict(self._kwargs)
        return (), {**self._kwargs, "messages": messages}

    def give(self, functions: Mapping[str, Any]) -> None:
        """The model is given these functions in the place of its own."""
        at = _PARAMETERS.index("available_functions")
        if "available_functions" in self._kwargs:
            self._kwargs = {**self._kwargs, "available_functions": functions}
        else:
            self._args = (*self._args[:at], functions, *self._args[at + 1 :])

    @contextmanager
    def heard(self, request: Request) -> Iterator[None]:
        """While the model is called, or another in its place."""
        self.answering = request.model or self.llm
        with ExitStack() as stack:
            stack.enter_context(self.ear)
            if request.streamed is not None:
                stack.enter_context(call_stream_override(self.answering, request.streamed))
            if request.stops is not None:
                stack.enter_context(call_stop_override(self.answering, request.stops))
            yield

    def release(self, raw: Any) -> None:
        """The reply is accepted: what was held back of it is streamed, its words in one piece and each of its calls."""
        if not self.held or self.ear.streamed:
            return
        with llm_call_context() as call_id:
            for chunk in chunks(raw):
                event = LLMStreamChunkEvent(
                    **chunk, call_id=call_id, model=self.answering.model, from_task=self.task, from_agent=self.agent
                )
                crewai_event_bus.emit(self.answering, event=event)


@dataclass(slots=True)
class Declared:
    """The tools an instance's model was last given, so that they are told once."""

    ids: tuple[int, ...] = ()


class CrewModelSeat:
    """A model call; the handler takes a `Request` and gives whatever the model's `call` returns."""

    def __init__(self, live: Live, asked: Asked) -> None:
        self.session = live.session
        self.streaming = False
        self._live, self._asked = live, asked
        self._messages: Any = asked.messages
        self._raw: Any = None
        self._counted: LLMCallCompletedEvent | None = None
        own = place(asked.agent, asked.task) if asked.agent is not None else None
        self._place = live.found(_opening(self._messages), own)
        self._number = next(_batches)
        asked.held = live.guard.holds and streams(asked.llm)
        if asked.functions:
            asked.give(judged(live, asked.functions, asked.agent, asked.task))

    def opening(self) -> list[Event]:
        """What is new in the conversation."""
        where, run = self._place, self.session.run
        listener, first = Listener(where.agent, where.instance), not run.has_read(where.instance)
        heard = pieces(self._messages, where, first=first)
        events = unheard(run, listener, heard, key_of, lambda piece: said(piece, where, first=first))
        tools = self._tools()
        ids = tuple(map(id, tools))
        told = run.memory(("tools", where.instance), Declared)
        given = declared(tools) if told.ids != ids else None
        told.ids = ids
        if given is not None:
            run.check_by(checks(getattr(getattr(self._asked.agent, "agent_executor", None), "tools", None) or ()))
        requested = ModelRequested(
            run=run.id,
            agent=where.agent,
            instance=where.instance,
            call=self._batch,
            model=self._asked.llm.model,
            tools=given,
            messages=1 if isinstance(self._messages, str) else len(self._messages),
        )
        return [*events, requested]

    def request(self, feedback: Sequence[str], model: Any = None) -> Request:
        """CrewAI's own list, untouched; or a new one with the feedback as the user's last words."""
        messages, held, llm = self._messages, self._asked.held, self._asked.llm
        if feedback:
            asked = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
            messages = [*asked, *({"role": "user", "content": text} for text in feedback)]
        if model is None:
            return Request(messages, streamed=False if held else None)
        if not isinstance(model, BaseLLM):
            raise TypeError(f"a fallback on CrewAI needs a `BaseLLM`, found {type(model).__name__}")
        return Request(messages, model, streams(llm) and not held, stops_of(model, llm))

    def reply(self, raw: Any, attempt: int) -> ModelResponded:
        """The reply with what it proposes, which a tool hook will ask for."""
        self._raw = raw
        reply = spoken(raw, self._place, in_text=self._in_text)
        self.streaming = self._asked.ear.streamed
        self._live.proposals.propose(self._place.instance, self._number, reply.calls, loose=reply.loose)
        completed = self._asked.ear.completed
        self._count(completed)
        return ModelResponded(
            run=self.session.run.id,
            agent=self._place.agent,
            instance=self._place.instance,
            call=self._batch,
            attempt=attempt,
            content=reply.content,
            message=reply.key,
            calls=reply.calls,
            usage=_usage(completed, reply.content),
            finish_reason=completed.finish_reason if completed is not None else None,
        )

    def failure(self, error: BaseException, attempt: int) -> ModelFailed:
        """What was raised instead of a reply; a deliberate stop is nobody's failure, and goes on."""
        if isinstance(error, HookAborted):
            raise error
        return ModelFailed(
            run=self.session.run.id,
            agent=self._place.agent,
            instance=self._place.instance,
            call=self._batch,
            attempt=attempt,
            error=str(error),
            error_type=type(error).__name__,
        )

    def rewrite(self, raw: Any, content: str) -> Any:
        """The reply in other words."""
        return reworded(raw, content, in_text=self._in_text)

    def leave(self, decision: Reroute | RollBack) -> Any:
        """Leave the task, where the crew can begin it again; else the reply is passed on."""
        if divert(self._live, decision):
            raise Diverted
        return self._raw

    def stop(self, reason: str) -> Any:
        """End the run."""
        raise Halted(reason)

    @property
    def _in_text(self) -> bool:
        """Whether CrewAI reads actions from the reply's text."""
        return self._asked.agent is not None and not self._asked.tools and not self._asked.structured

    def _count(self, completed: LLMCallCompletedEvent | None) -> None:
        """A crew counts the tokens of its agents' models: another's, that answered, are put down to them."""
        asked = self._asked
        if completed is None or completed is self._counted or asked.answering is asked.llm:
            return
        self._counted = completed
        crew = getattr(asked.agent, "crew", None)
        if not any(getattr(agent, "llm", None) is asked.answering for agent in getattr(crew, "agents", ())):
            count(asked.llm, completed.usage or {})

    @property
    def _batch(self) -> str:
        return f"m{self._number}"

    def _tools(self) -> Sequence[Any]:
        """Those of the request, else those the agent's prompt lists."""
        executor = getattr(self._asked.agent, "agent_executor", None)
        return self._asked.tools or getattr(executor, "tools", None) or ()


def _opening(messages: Any) -> tuple[str, ...]:
    """How a conversation begins: its system prompt and its task."""
    if isinstance(messages, str):
        return (messages,)
    return tuple(words(message.get("content")) for message in messages[:2])


def _usage(completed: LLMCallCompletedEvent | None, content: str) -> Usage:
    """Tokens as the model reported them, else an estimate of four characters a token."""
    told = UsageMetrics.from_provider_dict(completed.usage) if completed is not None else None
    if told is None:
        return Usage(0, len(content) // 4, estimated=True)
    return Usage(told.prompt_tokens, told.completion_tokens)
