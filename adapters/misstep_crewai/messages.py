"""
CrewAI's messages, replies and tools in misstep's terms.

A CrewAI message is a dict without an id. In text mode (ReAct) CrewAI writes what a tool answered into the assistant's
own message, and it writes earlier tasks' results, memories and instructions of its own into the user's: such a
message is read as several, each with the trust it deserves.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crewai.agents.constants import FINAL_ANSWER_ACTION
from crewai.agents.parser import AgentAction
from crewai.events.types.llm_events import LLMCallType
from crewai.tools.tool_failure import ToolFailure
from crewai.utilities.agent_utils import (
    build_tool_calls_assistant_message,
    extract_tool_call_info,
    format_answer,
    is_tool_call_list,
)
from crewai.utilities.i18n import I18N_DEFAULT
from crewai.utilities.string_utils import sanitize_tool_name
from pydantic import BaseModel

from misstep.arguments import Check, checked_by
from misstep.conversation import Said, digest
from misstep.events import ProposedCall, Role, Tool, Trust
from misstep.side_effects import Classified, declared_on
from misstep_crewai.place import Place
from misstep_crewai.private import function_of

_ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant", "tool": "tool"}

_OBSERVED = I18N_DEFAULT.slice("observation")
_OBSERVATION = f"{_OBSERVED.strip()} "
_PROMPTS = {I18N_DEFAULT.slice("post_tool_reasoning"), I18N_DEFAULT.errors("force_final_answer")}
_FEEDBACK = I18N_DEFAULT.slice("feedback_instructions").partition("{")[0]
_SUMMARY = I18N_DEFAULT.slice("summary").partition("{")[0]
_QUOTED = (
    I18N_DEFAULT.slice("task_with_context").partition("{task}")[2].partition("{")[0],
    I18N_DEFAULT.slice("memory").partition("{")[0],
    "Additional Information: ",
)
"""What comes before earlier tasks' results, memories and knowledge in a task's prompt."""
_FAILED = (
    "Error executing tool",
    I18N_DEFAULT.errors("agent_tool_execution_error").partition("{")[0],
    I18N_DEFAULT.errors("tool_usage_error").partition("{")[0],
    I18N_DEFAULT.errors("tool_usage_exception").partition("{")[0],
    I18N_DEFAULT.errors("wrong_tool_name").partition("{")[0],
    I18N_DEFAULT.errors("task_repeated_usage").strip(),
)
"""What CrewAI says in a tool's place: it raised, is unknown, or was called in text with the same input once more."""
_REMINDER = I18N_DEFAULT.slice("tools").partition("{")[0]
"""What CrewAI adds below every third answer of a tool in text mode: the format of a call. No tool said it."""


_MARKED = re.compile(rf"Action\s*\d*\s*:|Action\s*\d*\s*Input\s*\d*\s*:|{FINAL_ANSWER_ACTION}")
"""Where CrewAI's parser finds an action, its input, or a final answer."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One message, or one speaker's part of it. `answers` is the id of the call a tool's part answers."""

    role: Role
    text: str
    calls: tuple[Any, ...] = ()
    answers: str | None = None
    tool: str = ""
    trust: Trust | None = None


def pieces(messages: str | Sequence[Mapping[str, Any]], place: Place, *, first: bool) -> list[Piece]:
    """A conversation, or a lone prompt, as its speakers said it; `first` is whether its instance has no other."""
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    found: list[Piece] = []
    begun = False
    for message in messages:
        role, text = _ROLES.get(str(message.get("role")), "user"), words(message.get("content"))
        begun = begun or role in ("assistant", "tool")
        match role:
            case "assistant":
                found.extend(_of_assistant(text, tuple(message.get("tool_calls") or ())))
            case "tool":
                found.append(
                    Piece("tool", text, answers=message.get("tool_call_id"), tool=str(message.get("name") or ""))
                )
            case "user" if text.startswith(_OBSERVATION) and found and found[-1].role == "assistant":
                answer = answer_of(text.removeprefix(_OBSERVATION))
                found.append(Piece("tool", answer, answers=_id_of(found[-1].text)))
            case "user":
                found.extend(_of_user(text, place, first=first, begun=begun))
            case _:
                found.append(Piece(role, text))
    return found


def _of_assistant(text: str, calls: tuple[Any, ...]) -> Iterator[Piece]:
    """An assistant's message; with an action, what the tool answered is written below it."""
    own, observed, answer = text.partition(_OBSERVED)
    if not observed or "Action" not in own:
        yield Piece("assistant", text, calls)
        return
    yield Piece("assistant", own, calls)
    yield Piece("tool", answer_of(answer).strip(), answers=_id_of(own))


def _of_user(text: str, place: Place, *, first: bool, begun: bool) -> Iterator[Piece]:
    """
    A user's message: a prompt, whose quotes agents vouch for; people's feedback; or a word of CrewAI's own.

    A task has one prompt of the user's; what comes after it, or begins another conversation in the task, CrewAI put
    together. Where a message is cut does not depend on that, so that it is known again.
    """
    if text in _PROMPTS:
        yield Piece("user", text, trust="system")
    elif text.startswith(_FEEDBACK):
        yield Piece("user", text, trust="user")
    elif text.startswith(_SUMMARY) or (begun and place.task):
        yield Piece("user", text, trust="agent")
    else:
        cut = min((text.find(mark) for mark in _QUOTED if mark in text), default=len(text))
        yield Piece("user", text[:cut], trust=place.vouched if first or not place.task else "agent")
        if cut < len(text):
            yield Piece("user", text[cut:], trust="agent")


def words(content: Any) -> str:
    """The text of a message's content; a part that is no text stands as `[its type]`."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        return str(content)
    return "\n".join(
        part if isinstance(part, str) else str(part.get("text") or f"[{part.get('type', 'content')}]")
        for part in content
        if isinstance(part, str | dict)
    )


def key_of(piece: Piece) -> str:
    """What tells a piece from others: what it says."""
    calls = [extract_tool_call_info(call) for call in piece.calls]
    return digest(piece.role, piece.text, calls or "", piece.answers or "")


def said(piece: Piece, place: Place, *, first: bool) -> Said:
    """
    A piece of a conversation; call ids are the instance's own.

    Calls are only told of what was said before the guard came: any other was seen where it was made.
    """
    if piece.role == "assistant":
        calls = native_calls(piece.calls, place) or text_calls(piece.text, place) if first else ()
        return Said("assistant", piece.text, calls=calls)
    if piece.role == "tool":
        return Said(
            "tool",
            piece.text,
            tool=piece.tool,
            failed=_says_failure(piece.text),
            answers=call_key(place, piece.answers) if piece.answers else None,
        )
    return Said(piece.role, piece.text, trust=piece.trust)


@dataclass(frozen=True, slots=True)
class Spoken:
    """A model's reply; `loose` if its calls were read from text, `key` what it is called in the conversation."""

    content: str
    key: str
    calls: tuple[ProposedCall, ...] = ()
    loose: bool = False


def spoken(raw: Any, place: Place, *, in_text: bool) -> Spoken:
    """What `llm.call` returned: words, tool calls of any provider, or a model of structured output."""
    if isinstance(raw, list) and is_tool_call_list(raw):
        message, _ = build_tool_calls_assistant_message(raw)
        own = Piece("assistant", "", tuple((message or {}).get("tool_calls") or ()))
        return Spoken("", key_of(own), native_calls(own.calls, place))
    text = raw.model_dump_json() if isinstance(raw, BaseModel) else "" if raw is None else str(raw)
    (own, *_) = _of_assistant(text, ())
    return Spoken(text, key_of(own), text_calls(own.text, place) if in_text else (), loose=True)


def reworded(raw: Any, content: str, *, in_text: bool) -> Any:
    """
    A reply in other words, which does what it did: calls stay, and so does what CrewAI reads in a text.

    Calls have no words on CrewAI; structured output must still fit its model, else ValidationError is raised.
    """
    if isinstance(raw, BaseModel):
        return type(raw).model_validate_json(content)
    if isinstance(raw, list) and is_tool_call_list(raw):
        return raw
    if not in_text:
        return content
    text = str(raw)
    before, after = format_answer(text), format_answer(content)
    if isinstance(before, AgentAction):
        same = isinstance(after, AgentAction) and (after.tool, after.tool_input) == (before.tool, before.tool_input)
        return content if same else f"{_unmarked(content).rstrip()}\n{text[len(_unmarked(text)) :]}"
    if FINAL_ANSWER_ACTION in content:
        return content
    changed = FINAL_ANSWER_ACTION in text or isinstance(after, AgentAction)
    return f"{FINAL_ANSWER_ACTION} {content}" if changed else content


def _unmarked(text: str) -> str:
    """What comes before the first thing CrewAI's parser looks for."""
    return _MARKED.split(text)[0]


def chunks(raw: Any) -> list[dict[str, Any]]:
    """A reply as CrewAI streams it, but whole: fields of `LLMStreamChunkEvent`."""
    if isinstance(raw, str):
        return [{"chunk": raw, "call_type": LLMCallType.LLM_CALL}] if raw else []
    if not isinstance(raw, list) or not is_tool_call_list(raw):
        return []
    calls = build_tool_calls_assistant_message(raw)[1]
    return [
        {
            "chunk": call["function"]["arguments"],
            "tool_call": {**call, "index": index},
            "call_type": LLMCallType.TOOL_CALL,
        }
        for index, call in enumerate(calls)
    ]


def native_calls(calls: Sequence[Any], place: Place) -> tuple[ProposedCall, ...]:
    """Proposed tool calls, those whose arguments could not be parsed included."""
    infos = [info for info in map(extract_tool_call_info, calls) if info is not None]
    return tuple(_proposed(call_key(place, id_), tool, arguments) for id_, tool, arguments in infos)


def text_calls(text: str, place: Place) -> tuple[ProposedCall, ...]:
    """The action a text asks for, as CrewAI's own parser reads it."""
    answer = format_answer(text)
    if not isinstance(answer, AgentAction):
        return ()
    return (_proposed(call_key(place, _id_of(text)), sanitize_tool_name(answer.tool), answer.tool_input),)


def call_key(place: Place, id_: str) -> str:
    """A call's id, unique in the run: co-workers may use the same ids."""
    return f"{place.instance}:{id_}"


def _id_of(text: str) -> str:
    return f"text-{digest(text)}"


def _proposed(call: str, tool: str, arguments: Any) -> ProposedCall:
    if isinstance(arguments, Mapping):
        return ProposedCall(call, tool, dict(arguments))
    for parse in (json.loads, ast.literal_eval):
        try:
            parsed = parse(str(arguments))
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(parsed, dict):
            return ProposedCall(call, tool, parsed)
    return ProposedCall(call, tool, None, str(arguments))


def answer_of(result: Any) -> str:
    """What a tool answered."""
    return words(result).partition(_REMINDER)[0].rstrip("\n")


def failure_of(tool: Any, raw: Any, text: str) -> bool:
    """Whether a tool failed: it said so, CrewAI says so in its own words, or there is no such tool."""
    return tool is None or isinstance(raw, ToolFailure) or _says_failure(text)


def _says_failure(text: str) -> bool:
    return text.lstrip().startswith(_FAILED)


def declared(tools: Sequence[Any]) -> tuple[Tool, ...]:
    """The tools a model was given: a provider's JSON, or CrewAI's own tools where they stand in the prompt."""
    return tuple(_declared(tool) for tool in tools)


def _declared(tool: Any) -> Tool:
    if isinstance(tool, Mapping):
        spec = tool.get("function", tool)
        return Tool(str(spec.get("name", "")), str(spec.get("description", "")), spec.get("parameters") or {})
    schema = tool.args_schema.model_json_schema()
    return Tool(sanitize_tool_name(tool.name), str(tool.description), schema, says_of(tool))


def checks(tools: Sequence[Any]) -> dict[str, Check]:
    """How CrewAI itself judges the arguments of its tools."""
    found = {sanitize_tool_name(tool.name): checked_by(getattr(tool, "args_schema", None)) for tool in tools}
    return {name: check for name, check in found.items() if check is not None}


def says_of(tool: Any) -> Classified | None:
    """What a tool's code declares of its effect. CrewAI keeps no hints of an MCP server's."""
    function = getattr(tool, "func", None)
    owner = getattr(function, "__self__", None)  # CrewAI runs a tool by its bound `_run`
    return declared_on(tool, function, owner, getattr(owner, "func", None), function_of(tool))
