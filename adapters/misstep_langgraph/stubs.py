"""Stubs under LangChain's models, tools and retrievers: while an app is verified nothing real happens."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.language_models.llms import BaseLLM
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, Generation, LLMResult
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables.config import ensure_config
from langchain_core.tools import BaseTool

from misstep.testing import AskAll, Say
from misstep.verification import Canary, Offer
from misstep.verification.stubs import TOLD, Make, Stub, replaced, subclasses
from misstep_langgraph import private
from misstep_langgraph.messages import declared, words
from misstep_langgraph.place import place

_USAGE: Any = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}


def stubbed(canary: Canary, leads: Mapping[str, str]) -> AbstractContextManager[None]:
    """
    While every model, tool and retriever there is answers with a stub, in every thread.

    `leads` are the tools that are called for real once a call of theirs is to get through, with where they lead.
    """
    return replaced(_stubs(canary, leads))


def _stubs(canary: Canary, leads: Mapping[str, str]) -> Iterator[Stub]:
    """What classes define themselves is replaced, so that all that LangChain puts round it is the real thing."""
    chat = _Chat(canary, leads)
    methods: tuple[tuple[Any, tuple[str, ...], tuple[Make, ...]], ...] = (
        (BaseChatModel, private.CHAT, (chat.generate, chat.agenerate, chat.stream, chat.astream)),
        (BaseLLM, private.COMPLETION, (chat.complete, chat.acomplete)),
        (BaseTool, private.TOOL, (_tool(canary), _atool(canary))),
        (BaseRetriever, private.RETRIEVER, (_nothing, _anothing)),
    )
    for base, names, stubs in methods:
        yield from ((cls, name, stub) for cls in subclasses(base) for name, stub in zip(names, stubs, strict=True))


class _Chat:
    """Makes functions that stand in for the methods of a model's class."""

    def __init__(self, canary: Canary, leads: Mapping[str, str]) -> None:
        self._canary, self._leads = canary, leads

    def generate(self, original: Any) -> Any:
        """In the place of a chat model's own method."""

        def generate(model: Any, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
            return ChatResult(generations=[ChatGeneration(message=self._answer(messages, run_manager, kwargs))])

        return generate

    def agenerate(self, original: Any) -> Any:
        """In the place of a chat model's own method, in async code."""

        async def agenerate(model: Any, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
            return ChatResult(generations=[ChatGeneration(message=self._answer(messages, run_manager, kwargs))])

        return agenerate

    def stream(self, original: Any) -> Any:
        """In the place of a chat model's own stream."""

        def stream(model: Any, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
            yield ChatGenerationChunk(message=_chunk(self._answer(messages, run_manager, kwargs)))

        return stream

    def astream(self, original: Any) -> Any:
        """In the place of a chat model's own stream, in async code."""

        async def astream(model: Any, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
            yield ChatGenerationChunk(message=_chunk(self._answer(messages, run_manager, kwargs)))

        return astream

    def complete(self, original: Any) -> Any:
        """In the place of a completion model's own method."""

        def generate(model: Any, prompts: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
            return self._completed(prompts, run_manager)

        return generate

    def acomplete(self, original: Any) -> Any:
        """In the place of a completion model's own method, in async code."""

        async def agenerate(model: Any, prompts: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
            return self._completed(prompts, run_manager)

        return agenerate

    def _answer(self, messages: Any, manager: Any, kwargs: Mapping[str, Any]) -> AIMessage:
        speaker, where = _speaker(manager)
        offers = [
            Offer(tool.name, tool.parameters, self._leads.get(tool.name))
            for tool in declared(kwargs.get("tools") or ())
        ]
        texts = [words(message.content) for message in messages]
        match self._canary.reply(speaker, offers, texts, where=where):
            case Say(text):
                return AIMessage(text, usage_metadata=_USAGE)
            case AskAll(calls):
                asked: Any = [{"name": call.tool, "args": call.arguments, "id": call.id} for call in calls]
                return AIMessage("", tool_calls=asked, usage_metadata=_USAGE)

    def _completed(self, prompts: list[str], manager: Any) -> LLMResult:
        speaker, where = _speaker(manager)
        said = [self._canary.reply(speaker, (), [prompt], where=where) for prompt in prompts]
        return LLMResult(generations=[[Generation(text=each.text if isinstance(each, Say) else "")] for each in said])


def _speaker(manager: Any) -> tuple[str, str]:
    """The path of nodes a model is called in, and what tells two runs of it apart."""
    metadata = getattr(manager, "metadata", None) or ensure_config().get("metadata") or {}
    path = place(metadata).path
    nodes = (
        [step.partition(":")[0] for step in path.split("|")] if path else [metadata.get("langgraph_node") or "model"]
    )
    return "/".join(nodes), f"{metadata.get('thread_id')}:{path.rpartition('|')[0]}:{nodes[-1]}"


def _tool(canary: Canary) -> Make:
    def stub(original: Any) -> Any:
        @functools.wraps(original)  # LangChain reads from its signature what it is to be given
        def run(tool: Any, *args: Any, **kwargs: Any) -> Any:
            return original(tool, *args, **kwargs) if canary.executed(tool.name) else _result(tool)

        return run

    return stub


def _atool(canary: Canary) -> Make:
    def stub(original: Any) -> Any:
        @functools.wraps(original)
        async def arun(tool: Any, *args: Any, **kwargs: Any) -> Any:
            return await original(tool, *args, **kwargs) if canary.executed(tool.name) else _result(tool)

        return arun

    return stub


def _result(tool: Any) -> Any:
    return (TOLD, None) if tool.response_format == "content_and_artifact" else TOLD


def _nothing(original: Any) -> Any:
    return lambda retriever, *args, **kwargs: []


def _anothing(original: Any) -> Any:
    async def retrieve(retriever: Any, *args: Any, **kwargs: Any) -> list[Any]:
        return []

    return retrieve


def _chunk(message: AIMessage) -> AIMessageChunk:
    return AIMessageChunk(
        content=message.content,
        tool_calls=message.tool_calls,
        tool_call_chunks=[
            {"name": call["name"], "args": json.dumps(call["args"]), "id": call["id"], "index": index}
            for index, call in enumerate(message.tool_calls)
        ],
        usage_metadata=message.usage_metadata,
    )
