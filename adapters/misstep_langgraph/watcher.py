"""Callbacks: what LangChain tells of a run, whether or not the guard has a seat in it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any
from uuid import UUID

from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.outputs import LLMResult
from langgraph.callbacks import GraphCallbackHandler, GraphInterruptEvent

from misstep.decisions import Allow
from misstep.events import RetrievalRequested, RetrievalReturned
from misstep.guard import Guard
from misstep.session import Session, Verdict
from misstep_langgraph.in_hand import call_in_hand, has_in_hand, model_in_hand
from misstep_langgraph.model import GateModelSeat, as_result
from misstep_langgraph.place import Place, place
from misstep_langgraph.tool import LangChainToolSeat


def shielded(callback: Callable[..., None]) -> Callable[..., None]:
    """The boundary round a callback: our failures are reported and go no further."""

    @wraps(callback)
    def safe(self: Watcher, *args: Any, **kwargs: Any) -> None:
        if self.guard.mode == "off":
            return
        try:
            callback(self, *args, **kwargs)
        except Exception as error:
            self.guard.failed("a callback", error)

    return safe


class Watcher(GraphCallbackHandler):
    """
    Turns callbacks into events.

    An `enforcing` watcher is also what the gate looks for: calls the gate has a seat in are judged there, and only
    those that went past it (a model streamed by hand) are judged here, where nothing can be done about them.
    """

    run_inline = True
    raise_error = False

    def __init__(self, guard: Guard, *, enforcing: bool) -> None:
        self.guard = guard
        self.enforcing = enforcing
        self.interrupted = False
        self._pending: OrderedDict[UUID, Any] = OrderedDict()

    def session_of(self, run_id: UUID | None) -> Session:
        """The session of the run a callback belongs to, by the id of it or of a parent of it."""
        raise NotImplementedError

    def seated(self, seat: LangChainToolSeat, metadata: Mapping[str, Any] | None) -> LangChainToolSeat:
        """A tool seat under this watcher; `metadata` is that of its task."""
        return seat

    def claim(self, run_id: UUID) -> None:
        """The gate has this call: nothing is to be said of it here."""
        self._pending.pop(run_id, None)

    @shielded
    def on_chat_model_start(
        self,
        serialized: Any,
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """A chat model is called; the gate may claim it."""
        if has_in_hand(self.guard, model_in_hand(place(metadata).scope)):
            return
        tools = (kwargs.get("invocation_params") or {}).get("tools") or ()
        name = (metadata or {}).get("ls_model_name") or (serialized or {}).get("name") or "model"
        seat = GateModelSeat(
            self.session_of(parent_run_id or run_id), place(metadata), str(name), list(messages[0]), tools
        )
        self._hold(run_id, seat)

    @shielded
    def on_llm_start(
        self,
        serialized: Any,
        prompts: list[str],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """A completion model is called."""
        messages: Sequence[BaseMessage] = [HumanMessage(prompt) for prompt in prompts[:1]]
        seat = GateModelSeat(self.session_of(parent_run_id or run_id), place(metadata), "model", messages, ())
        self._hold(run_id, seat)

    @shielded
    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """A model answered, and no seat had it."""
        seat = self._pending.pop(run_id, None)
        if isinstance(seat, GateModelSeat) and response.generations and response.generations[0]:
            for event in seat.opening():
                self.guard.observe(event)
            generation = response.generations[0][0]
            message = getattr(generation, "message", None) or HumanMessage(generation.text)
            self._seen_only(seat.session, self.guard.judge(seat.reply(as_result(message), 0)))

    @shielded
    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """A model raised, and no seat had it."""
        seat = self._pending.pop(run_id, None)
        if isinstance(seat, GateModelSeat):
            self.guard.observe(seat.failure(error, 0))

    @shielded
    def on_tool_start(
        self,
        serialized: dict[str, Any],
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        inputs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """A tool is called; nothing is said where a seat has it."""
        where, call_id = place(metadata), kwargs.get("tool_call_id")
        if has_in_hand(self.guard, call_in_hand(where.scope, call_id, run_id)):
            return
        seat = LangChainToolSeat(
            self.session_of(parent_run_id or run_id),
            where,
            str((serialized or {}).get("name", "tool")),
            inputs if inputs is not None else {"input": input_str},
            call_id,
            str(run_id),
            None,
        )
        self._hold(run_id, seat)
        self._seen_only(seat.session, self.guard.verdict(seat.requested()))

    @shielded
    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """A tool answered, and no seat had it."""
        seat = self._pending.pop(run_id, None)
        if isinstance(seat, LangChainToolSeat):
            self.guard.observe(seat.result(output))

    @shielded
    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """A tool raised, and no seat had it."""
        seat = self._pending.pop(run_id, None)
        if isinstance(seat, LangChainToolSeat):
            self.guard.observe(seat.failure(error))

    @shielded
    def on_retriever_start(
        self,
        serialized: Any,
        query: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """A retriever is asked."""
        session, where = self.session_of(parent_run_id or run_id), place(metadata)
        self._hold(run_id, (session, where))
        self.guard.observe(
            RetrievalRequested(
                run=session.run.id, call=str(run_id), agent=where.agent, instance=where.instance, query=query
            )
        )

    @shielded
    def on_retriever_end(self, documents: Sequence[Any], *, run_id: UUID, **kwargs: Any) -> None:
        """A retriever answered."""
        session, where = self._pending.pop(run_id, (None, Place("", "", "")))
        if session is not None:
            texts = tuple(document.page_content for document in documents)
            self.guard.observe(
                RetrievalReturned(
                    run=session.run.id, call=str(run_id), agent=where.agent, instance=where.instance, documents=texts
                )
            )

    def on_interrupt(self, event: GraphInterruptEvent) -> None:
        """The graph pauses to be resumed."""
        self.interrupted = True

    def _seen_only(self, session: Session, verdict: Verdict) -> None:
        if not isinstance(verdict.decision, Allow):
            self.guard.settle(session, verdict, took_effect=False, detail="seen only: the call went past every seat")

    def _hold(self, run_id: UUID, what: Any) -> None:
        self._pending[run_id] = what
        if len(self._pending) > 10_000:
            self._pending.popitem(last=False)
