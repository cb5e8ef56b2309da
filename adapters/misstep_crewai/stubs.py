"""Stubs under CrewAI's models and tools: while a crew is verified nothing real happens, and nothing is stored."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from crewai.knowledge.knowledge import Knowledge
from crewai.llms.base_llm import BaseLLM
from crewai.tools.base_tool import BaseTool

from misstep.testing import AskAll, Say
from misstep.verification import Canary, Offer
from misstep.verification.arguments import arguments_for
from misstep.verification.stubs import TOLD, Make, Stub, replaced, subclasses
from misstep_crewai import private
from misstep_crewai.messages import declared, words
from misstep_crewai.place import place


def stubbed(canary: Canary, leads: Mapping[str, str]) -> AbstractContextManager[None]:
    """
    While every model and tool there is answers with a stub, in every thread.

    `leads` are the tools that are called for real once a call of theirs is to get through, with where they lead.
    """
    return replaced(_stubs(canary, leads))


def _stubs(canary: Canary, leads: Mapping[str, str]) -> Iterator[Stub]:
    for cls in subclasses(BaseLLM):
        yield from ((cls, "call", _call(canary, leads)), (cls, "acall", _acall(canary, leads)))
    for cls in subclasses(BaseTool):
        yield from ((cls, name, stub) for name, stub in zip(private.TOOL, (_tool(canary), _atool(canary)), strict=True))
        if cls is not BaseTool:  # whose own way in leads to the methods above
            yield from ((cls, "run", _tool(canary)), (cls, "arun", _atool(canary)))
    for name in ("query", "aquery"):
        yield Knowledge, name, _anothing if name == "aquery" else _nothing
    for name in ("update", "add", "reset"):
        yield private.STORED, name, _nothing


def _call(canary: Canary, leads: Mapping[str, str]) -> Make:
    def stub(original: Any) -> Any:
        @functools.wraps(original)
        def call(llm: Any, messages: Any, tools: Any = None, *args: Any, **kwargs: Any) -> Any:
            return _answer(canary, leads, llm, messages, tools, kwargs)

        return call

    return stub


def _acall(canary: Canary, leads: Mapping[str, str]) -> Make:
    def stub(original: Any) -> Any:
        @functools.wraps(original)
        async def acall(llm: Any, messages: Any, tools: Any = None, *args: Any, **kwargs: Any) -> Any:
            return _answer(canary, leads, llm, messages, tools, kwargs)

        return acall

    return stub


def _answer(
    canary: Canary, leads: Mapping[str, str], llm: BaseLLM, messages: Any, tools: Any, kwargs: dict[str, Any]
) -> Any:
    """The canary's reply as that model would put it; data of a type that is asked for is as small as can be."""
    agent, shape = kwargs.get("from_agent"), kwargs.get("response_model")
    if shape is not None:
        return shape.model_validate(arguments_for(shape.model_json_schema()))
    where = place(agent, kwargs.get("from_task")) if agent is not None else None
    texts = [messages] if isinstance(messages, str) else [words(message.get("content")) for message in messages]
    native = bool(tools)
    given = tools or getattr(getattr(agent, "agent_executor", None), "tools", None) or ()
    offers = [
        Offer(tool.name, tool.parameters, to)
        for tool in declared(given)
        for to in (*_co_workers(tool.name, agent), leads.get(tool.name))
    ]
    speaker = where.agent if where is not None else "crew"
    reply = canary.reply(speaker, offers, texts, where=where.instance if where else None, at_once=native)
    match reply:
        case Say(text):
            return text if native or not given else f"Thought: I know\nFinal Answer: {text}"
        case AskAll(calls) if native:
            return [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.tool, "arguments": json.dumps(call.arguments)},
                }
                for call in calls
            ]
        case AskAll((call, *_)):
            return f"Thought: I need it\nAction: {call.tool}\nAction Input: {json.dumps(call.arguments)}"


def _co_workers(tool: str, agent: Any) -> list[str]:
    """Whom a delegating tool can give work to."""
    tools = getattr(getattr(agent, "agent_executor", None), "tools", None) or ()
    return [role for each in tools if declared([each])[0].name == tool for role in private.co_workers(each)]


def _tool(canary: Canary) -> Make:
    def stub(original: Any) -> Any:
        @functools.wraps(original)
        def run(tool: Any, *args: Any, **kwargs: Any) -> Any:
            return original(tool, *args, **kwargs) if canary.executed(_name(tool)) else TOLD

        return run

    return stub


def _atool(canary: Canary) -> Make:
    def stub(original: Any) -> Any:
        @functools.wraps(original)
        async def arun(tool: Any, *args: Any, **kwargs: Any) -> Any:
            return await original(tool, *args, **kwargs) if canary.executed(_name(tool)) else TOLD

        return arun

    return stub


def _name(tool: BaseTool) -> str:
    return declared([tool])[0].name


def _nothing(original: Any) -> Any:
    @functools.wraps(original)
    def do(*args: Any, **kwargs: Any) -> list[Any]:
        return []

    return do


def _anothing(original: Any) -> Any:
    @functools.wraps(original)
    async def do(*args: Any, **kwargs: Any) -> list[Any]:
        return []

    return do
