"""A scripted model client for AutoGen."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from autogen_core import FunctionCall
from autogen_core.models import (
    ChatCompletionClient,
    CreateResult,
    FunctionExecutionResultMessage,
    LLMMessage,
    ModelFamily,
    ModelInfo,
    RequestUsage,
)

from misstep.testing import AskAll, Say, Script
from misstep_autogen.messages import words


class ScriptedChatClient(ChatCompletionClient):
    """Answers from a `Script`; streams word by word where it is streamed."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self._used = RequestUsage(0, 0)

    def __deepcopy__(self, memo: dict[int, Any]) -> ScriptedChatClient:
        return self  # a copied agent goes on with the same script

    async def create(self, messages: Sequence[LLMMessage], **kwargs: Any) -> CreateResult:
        """The script's next reply."""
        return self._reply(messages)

    async def create_stream(self, messages: Sequence[LLMMessage], **kwargs: Any) -> AsyncIterator[str | CreateResult]:
        """The words of the script's next reply, then the reply."""
        reply = self._reply(messages)
        if isinstance(reply.content, str):
            first, *rest = reply.content.split(" ")
            for word in (first, *(f" {word}" for word in rest)):
                yield word
        yield reply

    def _reply(self, messages: Sequence[LLMMessage]) -> CreateResult:
        usage = RequestUsage(prompt_tokens=10, completion_tokens=5)
        match self.script.next([_text(message) for message in messages]):
            case Say(text):
                reply = CreateResult(finish_reason="stop", content=text, usage=usage, cached=False)
            case AskAll(calls):
                asked = [
                    FunctionCall(id=call.id, name=call.tool, arguments=json.dumps(call.arguments)) for call in calls
                ]
                reply = CreateResult(finish_reason="function_calls", content=asked, usage=usage, cached=False)
            case other:
                raise TypeError(f"a script plays `Say` or `AskAll`, found {other!r}")
        self._used = RequestUsage(self._used.prompt_tokens + 10, self._used.completion_tokens + 5)
        return reply

    async def close(self) -> None:
        """Nothing to close."""

    def actual_usage(self) -> RequestUsage:
        """Tokens of all calls so far."""
        return self._used

    def total_usage(self) -> RequestUsage:
        """Tokens of all calls so far."""
        return self._used

    def count_tokens(self, messages: Sequence[LLMMessage], **kwargs: Any) -> int:
        """Four characters a token."""
        return sum(len(_text(message)) for message in messages) // 4

    def remaining_tokens(self, messages: Sequence[LLMMessage], **kwargs: Any) -> int:
        """Plenty."""
        return 100_000 - self.count_tokens(messages)

    @property
    def capabilities(self) -> Any:
        """As `model_info`."""
        return self.model_info

    @property
    def model_info(self) -> ModelInfo:
        """A model that can do all but see."""
        return ModelInfo(
            vision=False,
            function_calling=True,
            json_output=True,
            structured_output=True,
            family=ModelFamily.UNKNOWN,
        )

    def _to_config(self) -> Any:
        raise NotImplementedError("a script cannot be written down")

    @classmethod
    def _from_config(cls, config: Any) -> Any:
        raise NotImplementedError("a script cannot be written down")


def _text(message: LLMMessage) -> str:
    if isinstance(message, FunctionExecutionResultMessage):
        return "\n".join(result.content for result in message.content)
    content: Any = message.content
    if isinstance(content, list) and all(isinstance(part, FunctionCall) for part in content):
        return ""
    return words(content)
