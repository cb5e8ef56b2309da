"""A scripted chat model for LangChain."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from misstep.testing import AskAll, Say, Script
from misstep_langgraph.messages import words


class ScriptedChatModel(BaseChatModel):
    """Answers from a `Script`; streams word by word where it is streamed."""

    script: Any
    """A `Script`, kept as it is: models are copied, their script is shared."""

    def __init__(self, script: Script, **fields: Any) -> None:
        super().__init__(script=script, **fields)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        """Takes any tools."""
        return self.bind(tools=list(tools), **kwargs)

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._reply(messages))])

    def _stream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        reply = self._reply(messages)
        if reply.tool_calls:
            pieces = [
                {"name": call["name"], "args": json.dumps(call["args"]), "id": call["id"], "index": index}
                for index, call in enumerate(reply.tool_calls)
            ]
            yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=pieces))
            return
        for word in str(reply.content).split(" "):
            yield ChatGenerationChunk(message=AIMessageChunk(content=f"{word} "))

    def _reply(self, messages: list[BaseMessage]) -> AIMessage:
        usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
        match self.script.next([words(message.content) for message in messages]):
            case Say(text):
                return AIMessage(text, usage_metadata=usage)
            case AskAll(calls):
                asked = [
                    {"name": call.tool, "args": call.arguments, "id": call.id, "type": "tool_call"} for call in calls
                ]
                return AIMessage("", tool_calls=asked, usage_metadata=usage)
            case other:
                raise TypeError(f"a script plays `Say` or `AskAll`, found {other!r}")
