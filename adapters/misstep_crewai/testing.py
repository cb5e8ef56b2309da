"""A scripted LLM for CrewAI."""

from __future__ import annotations

import json
from typing import Any

from crewai.events.types.llm_events import LLMCallType
from crewai.llms.base_llm import BaseLLM, llm_call_context

from misstep.testing import AskAll, Say, Script
from misstep_crewai.messages import words


class ScriptedLLM(BaseLLM):
    """
    Answers from a `Script`, as a provider's model does: with events, tokens counted, streamed where it is to stream.

    With `native=False` it knows no tool calling: it asks in text (ReAct), one call at a time.
    """

    script: Any = None
    """A `Script`, kept as it is: models are copied, their script is shared."""
    native: bool = True

    def __init__(self, script: Script, **fields: Any) -> None:
        super().__init__(script=script, **{"model": "scripted", **fields})

    def supports_function_calling(self) -> bool:
        """Whether tools are called natively."""
        return self.native

    def get_context_window_size(self) -> int:
        """More than any script needs."""
        return 1_000_000

    def get_input_tokens_count(self, messages: Any, tools: Any = None, response_model: Any = None) -> int:
        """The same for every request."""
        return 10

    def call(
        self,
        messages: Any,
        tools: Any = None,
        callbacks: Any = None,
        available_functions: Any = None,
        from_task: Any = None,
        from_agent: Any = None,
        response_model: Any = None,
    ) -> Any:
        """The next reply."""
        whose = {"from_task": from_task, "from_agent": from_agent}
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        with llm_call_context():
            self._emit_call_started_event(messages, tools, **whose)
            try:
                reply = self._reply(messages)
            except Exception as error:
                self._emit_call_failed_event(str(error), **whose)
                raise
            said = isinstance(reply, str)
            if said and self._effective_stream():
                for word in reply.split(" "):
                    self._emit_stream_chunk_event(f"{word} ", **whose)
            self._track_token_usage_internal(usage)
            kind = LLMCallType.LLM_CALL if said else LLMCallType.TOOL_CALL
            self._emit_call_completed_event(reply, kind, messages=messages, usage=usage, **whose)
        return reply

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        """The next reply."""
        return self.call(*args, **kwargs)

    def _reply(self, messages: Any) -> Any:
        texts = [messages] if isinstance(messages, str) else [words(message.get("content")) for message in messages]
        match self.script.next(texts):
            case Say(text):
                return text if self.native or not text else f"Thought: I know\nFinal Answer: {text}"
            case AskAll(calls) if self.native:
                return [
                    {
                        "id": call.id,
                        "type": "function",
                        "function": {"name": call.tool, "arguments": json.dumps(call.arguments)},
                    }
                    for call in calls
                ]
            case AskAll((call,)):
                return f"Thought: I need it\nAction: {call.tool}\nAction Input: {json.dumps(call.arguments)}"
            case other:
                raise TypeError(f"a script plays `Say`, or `AskAll` (in text: of one call), found {other!r}")
