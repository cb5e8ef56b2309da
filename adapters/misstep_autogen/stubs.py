"""Stubs under AutoGen's models, tools, executors and people: while an app is verified nothing real happens."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any
from weakref import WeakKeyDictionary

from autogen_agentchat.agents import CodeExecutorAgent, UserProxyAgent
from autogen_agentchat.base import ChatAgent, Response, Team
from autogen_agentchat.messages import TextMessage
from autogen_core.code_executor import CodeExecutor, CodeResult
from autogen_core.memory import Memory, MemoryQueryResult, UpdateContextResult
from autogen_core.models import ChatCompletionClient
from autogen_core.tools import (
    BaseStreamTool,
    BaseTool,
    StaticStreamWorkbench,
    StaticWorkbench,
    TextResultContent,
    ToolResult,
    Workbench,
)

from misstep.verification import Canary
from misstep.verification.stubs import TOLD, Make, replaced, subclasses
from misstep_autogen import private
from misstep_autogen.entered import entering, speaker
from misstep_autogen.patch import patch_of
from misstep_autogen.place import Stream, within
from misstep_autogen.speaking import EACH, Speech
from misstep_autogen.walk import calls, is_own, tool_names
from misstep_autogen.workbench import EXECUTE

_STUBBED = (ChatCompletionClient, BaseTool, Workbench, CodeExecutor, Memory, ChatAgent, Team, private.MANAGER)

_called: ContextVar[str] = ContextVar("misstep_autogen_called", default="")
"""The id of the tool call that is being made."""


@contextmanager
def stubbed(canary: Canary, paths: Mapping[int, str], parts: Sequence[Any], *, bodies: bool) -> Iterator[None]:
    """
    While every model, tool, executor, memory and person there is answers with a stub, in every thread.

    `paths` are those of agents and teams by their ids; `parts` the clients, workbenches and tools of the app itself,
    which may be of anybody's classes and have methods of their own.
    """
    stubs = _Stubs(canary, paths, bodies=bodies)
    with ExitStack() as stack:
        classes = {each for base in _STUBBED for each in subclasses(base)} | {type(part) for part in parts}
        stack.enter_context(replaced((cls, name, make) for cls in classes for name, make in stubs.of(cls).items()))
        for part in parts:
            for name, make in stubs.of(type(part), leaf=True).items():
                _on_itself(part, name, make, stack)
        yield


def _on_itself(part: Any, name: str, make: Make, stack: ExitStack) -> None:
    """A stub for a method a part has for itself, be it under our patch or in its place."""
    patch, held = patch_of(part), getattr(part, "__dict__", {})
    stub = types.MethodType(make(held.get(name)), part)
    if patch is not None and patch.holders:
        stack.callback(patch.put_under(name, stub))
        if name not in held or calls(held[name], patch.ours(name)):
            return
    if name in held:
        stack.callback(object.__setattr__, part, name, held[name])
        object.__setattr__(part, name, stub)


class _Stubs:
    """Makes the functions that stand in for methods of a class."""

    def __init__(self, canary: Canary, paths: Mapping[int, str], *, bodies: bool) -> None:
        self._canary, self._paths, self._bodies = canary, paths, bodies
        self._speech = Speech(canary, bodies=bodies)
        self._turns: WeakKeyDictionary[Any, int] = WeakKeyDictionary()

    def of(self, cls: type, *, leaf: bool = False) -> Mapping[str, Make]:
        """What is replaced of a class; of a `leaf`, whatever is called to get something real done."""
        if issubclass(cls, BaseTool):
            within = cls in (BaseTool, BaseStreamTool) and not leaf
            called = {"run_json": self._named, "run_json_stream": self._named_stream}
            replaced = {"run_json": self._run, "run_json_stream": self._run_stream}
            return {"run": self._run, "run_stream": self._run_stream, **(called if within else replaced)}
        if issubclass(cls, ChatAgent):
            return self._of_agent(cls)
        if issubclass(cls, Team):
            return {"run": self._entered, "run_stream": self._entered_stream}
        if issubclass(cls, private.MANAGER):
            return {private.ENDING: self._ending}
        if cls in (StaticWorkbench, StaticStreamWorkbench) and not leaf:
            return {}
        if issubclass(cls, CodeExecutor):
            return {EXECUTE: self._execute, "start": _nothing, "stop": _nothing, "restart": _nothing}
        if issubclass(cls, Memory):
            return {"update_context": _no_update, "query": _no_memories, "add": _nothing}
        if issubclass(cls, ChatCompletionClient) or hasattr(cls, "create"):
            return {"create": self._create, "create_stream": self._create_stream}
        listed = {} if issubclass(cls, StaticWorkbench) else {"list_tools": _listed, "start": _nothing}
        return {"call_tool": self._call, "call_tool_stream": self._call_stream, "stop": _nothing, **listed}

    def _of_agent(self, cls: type) -> Mapping[str, Make]:
        """An agent's turns are only noted; those of the application's own agents are passed over."""
        if is_own(cls) and not self._bodies:
            return {"on_messages": _passed, "on_messages_stream": _passed_stream}
        turns: dict[str, Make] = {"on_messages": self._entered, "on_messages_stream": self._entered_stream}
        if issubclass(cls, UserProxyAgent):
            turns[private.INPUT] = _input
        if issubclass(cls, CodeExecutorAgent):
            turns["execute_code_block"] = _without_approval
        return turns

    # -- agents and teams ---------------------------------------------------------------------------------------------

    def _entered(self, original: Any) -> Any:
        @wraps(original)
        async def call(owner: Any, *args: Any, **kwargs: Any) -> Any:
            with entering(owner, self._paths):
                return await original(owner, *args, **kwargs)

        return call

    def _entered_stream(self, original: Any) -> Any:
        @wraps(original)
        def stream(owner: Any, *args: Any, **kwargs: Any) -> Stream:
            return within(lambda: entering(owner, self._paths), original(owner, *args, **kwargs))

        return stream

    def _ending(self, original: Any) -> Any:
        async def ending(manager: Any, delta: Any, increment_turn_count: bool = False) -> bool:
            if await original(manager, delta, increment_turn_count):
                self._turns.pop(manager, None)
                return True
            self._turns[manager] = self._turns.get(manager, 0) + increment_turn_count
            if self._turns[manager] <= EACH * (1 + len(private.speaker_names(manager))):
                return False
            self._turns.pop(manager, None)
            await private.stop(manager, TOLD)
            return True

        return ending

    # -- models -------------------------------------------------------------------------------------------------------

    def _create(self, original: Any) -> Any:
        async def create(client: Any, messages: Any, **kwargs: Any) -> Any:
            return self._speech.reply(messages, kwargs)

        return create

    def _create_stream(self, original: Any) -> Any:
        async def create_stream(client: Any, messages: Any, **kwargs: Any) -> Stream:
            reply = self._speech.reply(messages, kwargs)
            if isinstance(reply.content, str):
                yield reply.content
            yield reply

        return create_stream

    # -- tools --------------------------------------------------------------------------------------------------------

    def _named(self, original: Any) -> Any:
        @wraps(original)
        async def run_json(tool: Any, args: Any, token: Any, call_id: str | None = None) -> Any:
            with _calling(call_id):
                return await original(tool, args, token, call_id=call_id)

        return run_json

    def _named_stream(self, original: Any) -> Any:
        @wraps(original)
        def run_json_stream(tool: Any, args: Any, token: Any, call_id: str | None = None) -> Stream:
            return within(lambda: _calling(call_id), original(tool, args, token, call_id=call_id))

        return run_json_stream

    def _run(self, original: Any) -> Any:
        async def run(tool: Any, *args: Any, call_id: str | None = None, **kwargs: Any) -> Any:
            if not self._canary.executed(tool.name, call_id or _called.get(), speaker()):
                return TOLD
            return await original(tool, *args, **kwargs)

        return run

    def _run_stream(self, original: Any) -> Any:
        async def run_stream(tool: Any, *args: Any, call_id: str | None = None, **kwargs: Any) -> Stream:
            if self._canary.executed(tool.name, call_id or _called.get(), speaker()):
                async for item in original(tool, *args, **kwargs):
                    yield item

        return run_stream

    def _call(self, original: Any) -> Any:
        async def call_tool(
            workbench: Any, name: str, arguments: Any = None, cancellation_token: Any = None, call_id: Any = None
        ) -> ToolResult:
            self._canary.executed(name, call_id or "", speaker())
            return ToolResult(name=name, result=[TextResultContent(content=TOLD)], is_error=False)

        return call_tool

    def _execute(self, original: Any) -> Any:
        async def execute_code_blocks(executor: Any, *args: Any, **kwargs: Any) -> CodeResult:
            self._canary.executed(EXECUTE, "", speaker())
            return CodeResult(exit_code=0, output=TOLD)

        return execute_code_blocks

    def _call_stream(self, original: Any) -> Any:
        call = self._call(original)

        async def call_tool_stream(workbench: Any, *args: Any, **kwargs: Any) -> Stream:
            yield await call(workbench, *args, **kwargs)

        return call_tool_stream


@contextmanager
def _calling(call_id: str | None) -> Iterator[None]:
    token = _called.set(call_id or "")
    try:
        yield
    finally:
        _called.reset(token)


def _passed(original: Any) -> Any:
    async def on_messages(agent: Any, messages: Any, cancellation_token: Any) -> Response:
        return Response(chat_message=TextMessage(content=TOLD, source=agent.name))

    return on_messages


def _passed_stream(original: Any) -> Any:
    async def on_messages_stream(agent: Any, messages: Any, cancellation_token: Any) -> Stream:
        yield Response(chat_message=TextMessage(content=TOLD, source=agent.name))

    return on_messages_stream


def _without_approval(original: Any) -> Any:
    async def execute_code_block(agent: Any, code_blocks: Any, cancellation_token: Any) -> Any:
        executor = private.executors(agent)[0]
        return await executor.execute_code_blocks(code_blocks, cancellation_token=cancellation_token)

    return execute_code_block


def _answering(make: Callable[[], Any]) -> Make:
    def stub(original: Any) -> Any:
        async def answer(*args: Any, **kwargs: Any) -> Any:
            return make()

        return answer

    return stub


_nothing = _answering(lambda: None)
_input = _answering(lambda: TOLD)
_no_memories = _answering(lambda: MemoryQueryResult(results=[]))
_no_update = _answering(lambda: UpdateContextResult(memories=MemoryQueryResult(results=[])))


def _listed(original: Any) -> Any:
    async def list_tools(workbench: Any) -> list[Any]:
        parameters = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
        return [{"name": name, "description": TOLD, "parameters": parameters} for name in tool_names(workbench)]

    return list_tools
