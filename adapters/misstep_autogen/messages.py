"""AutoGen's messages and tools in misstep's terms."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from autogen_core import FunctionCall
from autogen_core.models import (
    AssistantMessage,
    CreateResult,
    FunctionExecutionResultMessage,
    LLMMessage,
    SystemMessage,
    UserMessage,
)

from misstep.conversation import Said, digest
from misstep.events import ProposedCall, Tool, Trust, Usage
from misstep_autogen import private
from misstep_autogen.place import Place

USER = "user"
"""The source AutoGen gives what a user says; any other is an agent's name."""


def key_of(place: Place, message: LLMMessage) -> str:
    """What tells a message from others: what it says. The agent's own words are known again by `own_key`."""
    if isinstance(message, AssistantMessage):
        return own_key(place, message.content) if _own(message, place) else _key(message.source, message.content)
    if isinstance(message, FunctionExecutionResultMessage):
        return digest("results", *((result.call_id, result.content) for result in message.content))
    return digest(message.type, getattr(message, "source", ""), words(message.content))


def own_key(place: Place, content: Any) -> str:
    """The key of what the agent at a place says: AutoGen's messages have no id."""
    return _key(place.instance, content)


def _key(speaker: str, content: Any) -> str:
    said = [content] if isinstance(content, str) else [(call.id, call.name, call.arguments) for call in content]
    return digest("assistant", speaker, *said)


def _own(message: AssistantMessage, place: Place) -> bool:
    return bool(message.source == place.agent)


def words(content: Any) -> str:
    """The text of a message's content; an image stands as `[image]`."""
    if isinstance(content, str):
        return content
    return "\n".join(part if isinstance(part, str) else "[image]" for part in content)


def said(place: Place, message: LLMMessage) -> Sequence[Said]:
    """A message of a conversation; the results of a batch of calls are several."""
    match message:
        case SystemMessage():
            return (Said("system", message.content, trust=_vouched(place, message)),)
        case AssistantMessage():
            sender = "" if _own(message, place) else message.source
            return (
                Said(
                    "assistant",
                    message.content if isinstance(message.content, str) else message.thought or "",
                    sender=sender,
                    calls=proposed(message.content, place.scope),
                ),
            )
        case FunctionExecutionResultMessage():
            return tuple(
                Said(
                    "tool",
                    result.content,
                    answers=call_key(place.scope, result.call_id),
                    tool=result.name,
                    failed=bool(result.is_error),
                )
                for result in message.content
            )
        case UserMessage():
            sender = place.teller if message.source == USER else message.source
            trust: Trust = "agent" if sender and sender not in place.live.users else "user"
            return (Said("user", words(message.content), sender=sender, trust=trust),)
    return ()


def _vouched(place: Place, message: SystemMessage) -> Trust | None:
    """An agent's memory puts what it finds into system messages, beside the agent's own instructions."""
    own = private.instructions(place.owner)
    return None if own is None or message.content in own else "tool"


def proposed(content: Any, scope: str) -> tuple[ProposedCall, ...]:
    """The calls a reply proposes, those whose arguments could not be parsed included."""
    if isinstance(content, str):
        return ()
    return tuple(_proposed(call, call_key(scope, call.id)) for call in content)


def _proposed(call: FunctionCall, key: str) -> ProposedCall:
    try:
        arguments = json.loads(call.arguments)
    except ValueError:
        arguments = None
    if isinstance(arguments, dict):
        return ProposedCall(key, call.name, arguments)
    return ProposedCall(key, call.name, None, call.arguments)


def replaced(place: Place, result: CreateResult, changed: Mapping[str, Mapping[str, Any] | str]) -> CreateResult:
    """A reply in which calls have other arguments, or are not there: what is told of those stands in its words."""
    calls: list[FunctionCall] = []
    told: list[str] = [result.thought] if result.thought else []
    for call in result.content if not isinstance(result.content, str) else ():
        instead = changed.get(call_key(place.scope, call.id))
        if isinstance(instead, str):
            told.append(instead)
        elif instead is None:
            calls.append(call)
        else:
            calls.append(FunctionCall(id=call.id, name=call.name, arguments=json.dumps(instead)))
    text = "\n".join(told)
    if calls:
        return result.model_copy(update={"content": calls, "thought": text or None})
    return result.model_copy(update={"content": text, "thought": None, "finish_reason": "stop"})


def call_key(scope: str, call: str) -> str:
    """A call's id, unique in the run: agents of one team may use the same ids."""
    return f"{scope}:{call}" if scope else call


def usage_of(result: CreateResult) -> Usage:
    """Tokens as the client reported them, else an estimate of four characters a token."""
    used = result.usage
    if not used.prompt_tokens and not used.completion_tokens:
        return Usage(0, len(str(result.content)) // 4, estimated=True)
    return Usage(used.prompt_tokens, used.completion_tokens)


def declared(tools: Sequence[Any]) -> tuple[Tool, ...]:
    """The tools a model was given: AutoGen's schemas, or its tools."""
    return tuple(_declared(tool if isinstance(tool, Mapping) else tool.schema) for tool in tools)


def _declared(schema: Mapping[str, Any]) -> Tool:
    return Tool(schema["name"], schema.get("description", ""), schema.get("parameters", {}))


def task_of(task: Any) -> str | None:
    """What the user asks for: a text, or the last message that is the user's own."""
    if task is None or isinstance(task, str):
        return task
    messages = task if isinstance(task, Sequence) else [task]
    texts = [each.to_model_text() for each in messages if getattr(each, "source", None) == USER]
    return texts[-1] if texts else None
