"""Calls that cannot be carried out as they are: of no tool there is, with the wrong arguments, or unreadable."""

from __future__ import annotations

import ast
import functools
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import jsonschema_rs

from misstep.anomalies import Anomaly
from misstep.events import ModelResponded, Tool, ToolRequested
from misstep.run import Run, shortened
from misstep.taxonomy import AnomalyType, Severity

_LONGEST = 100_000
_DEEPEST = 100
_PROBLEMS = 16
_INTEGER = re.compile(r"[+-]?\d{1,18}")
_NUMBER = re.compile(r"[+-]?\d{1,18}(\.\d{1,18})?([eE][+-]?\d{1,2})?")
_FENCED = re.compile(r"\s*```(?:json)?\s*(.*?)\s*```\s*", re.DOTALL)
_TAGGED = re.compile(r"<tool_call>\s*(.{1,20000}?)\s*</tool_call>", re.DOTALL)


@dataclass(frozen=True)
class UnknownTool:
    """
    A call of a tool the application has declared to nobody.

    Judged only where the calling instance's own model was given tools: otherwise nobody knows what it may call.
    """

    type: ClassVar[AnomalyType] = AnomalyType.UNKNOWN_TOOL

    def __call__(self, event: ToolRequested, run: Run) -> Anomaly | None:
        """Judge one proposed call."""
        if event.tool in run.tools or not run.instances[event.instance].tools:
            return None
        return Anomaly(
            type=self.type,
            message=f"`{shortened(event.tool, 100)}` is none of the tools there are",
            evidence=(event.seq,),
            facts={"tool": event.tool, "agent": event.agent},
        )


@dataclass(slots=True)
class _Schemas:
    """The schemas compiled in this run, by tool; each with the declaration it was compiled from."""

    compiled: dict[str, tuple[Tool, Any]] = field(default_factory=dict)

    def of(self, tool: Tool, keep: int = 4096) -> Any:
        """The validator of a tool's arguments, or None where its schema cannot be used."""
        known = self.compiled.get(tool.name)
        if known is None or known[0] is not tool:
            known = self.compiled[tool.name] = (tool, _validator(tool.parameters))
            if len(self.compiled) > keep:
                self.compiled.pop(next(iter(self.compiled)))
        return known[1]


@dataclass(frozen=True)
class InvalidArguments:
    """
    Arguments that break the JSON schema the tool was declared with: missing, unknown, of another type or value.

    Where the framework's own model of the tool's arguments is at hand, what that takes is taken, and what it does not
    is told in its words. Elsewhere, where there is no doubt what was meant ("5" for an integer, an object as text,
    null for what may be left out), the anomaly carries the mended arguments and only informs: many frameworks convert
    such values themselves.
    """

    type: ClassVar[AnomalyType] = AnomalyType.INVALID_ARGUMENTS

    def __call__(self, event: ToolRequested, run: Run) -> Anomaly | None:
        """Judge one proposed call."""
        tool = run.instances[event.instance].tools.get(event.tool) or run.tools.get(event.tool)
        if tool is None or event.raw is not None or not tool.parameters:
            return None
        check = run.checks.get(event.tool)
        wrong = check(event.arguments) if check is not None else None
        if check is not None and wrong is None:
            return None
        validator = run.memory(self, _Schemas).of(tool)
        try:
            if validator is None or validator.is_valid(event.arguments):
                return None if wrong is None else self._found(event, wrong)
            problems = list(itertools.islice(validator.iter_errors(event.arguments), _PROBLEMS))
        except ValueError:  # arguments that are no JSON: objects of the host's, which only the host can judge
            return None if wrong is None else self._found(event, wrong)
        mended = _mended(event.arguments, problems, validator)
        names = [name for problem in problems if (name := _argument(problem))]
        return self._found(event, wrong or _described(problems), names[0] if names else "", mended, taken=check is None)

    def _found(
        self,
        event: ToolRequested,
        wrong: str,
        argument: str = "",
        mended: Mapping[str, Any] | None = None,
        *,
        taken: bool = False,
    ) -> Anomaly:
        """`taken` where the framework may convert by itself what can be mended."""
        return Anomaly(
            type=self.type,
            message=f"`{event.tool}` called with arguments that do not fit its schema: {shortened(wrong, 300)}",
            evidence=(event.seq,),
            severity=Severity.INFO if taken and mended is not None else None,
            facts={"tool": event.tool, "argument": argument},
            rewrite=mended,
        )


@dataclass(frozen=True)
class MalformedCall:
    """
    A call whose arguments cannot be read, or that stands in the reply as text.

    Where a tolerant reading leaves no doubt (a code fence, a trailing comma, Python's quotes, JSON in JSON) the
    anomaly carries the arguments. A reply is a call written as text where it is nothing but one JSON object that
    names a tool the model was given, or holds one between `<tool_call>` tags.
    """

    type: ClassVar[AnomalyType] = AnomalyType.MALFORMED_CALL

    def __call__(self, event: ToolRequested | ModelResponded, run: Run) -> Anomaly | None:
        """Judge one proposed call, or a reply without any."""
        if isinstance(event, ToolRequested):
            if event.raw is None:
                return None
            return self._found(event, f"`{event.tool}` called with arguments that cannot be read", event.tool)
        tool = None if event.calls else _written(event.content, run.instances[event.instance].tools)
        return None if tool is None else self._found(event, f"a call of `{tool}` written as text", tool)

    def _found(self, event: ToolRequested | ModelResponded, message: str, tool: str) -> Anomaly:
        raw = event.raw if isinstance(event, ToolRequested) else None
        return Anomaly(
            type=self.type,
            message=message,
            evidence=(event.seq,),
            facts={"tool": tool},
            rewrite=None if raw is None else tolerantly(raw),
        )


def tolerantly(raw: str) -> dict[str, Any] | None:
    """The arguments a text certainly means, or None; text that is cut short means nothing for certain."""
    if len(raw) > _LONGEST or sum(raw.count(bracket) for bracket in "[{(") > _DEEPEST:
        return None
    fenced = _FENCED.fullmatch(raw)
    text = fenced[1] if fenced else raw.strip()
    for read in (json.loads, _without_trailing_commas, ast.literal_eval):
        try:
            value = read(text)
            if isinstance(value, str):
                value = json.loads(value)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
        if isinstance(value, dict) and all(isinstance(key, str) for key in value):
            return value
    return None


def _without_trailing_commas(text: str) -> Any:
    if '"' in re.sub(r'"(?:[^"\\]|\\.)*"', "", text):  # an open string: what is a comma in it cannot be told
        raise ValueError("an open string")
    pieces = re.split(r'("(?:[^"\\]|\\.)*")', text)
    pieces[::2] = [re.sub(r",(\s*[}\]])", r"\1", piece) for piece in pieces[::2]]
    return json.loads("".join(pieces))


def _written(content: str, tools: Mapping[str, Tool]) -> str | None:
    """The tool of a call that stands as text in a reply."""
    if not tools or "{" not in content or len(content) > _LONGEST:
        return None
    tagged, fenced = _TAGGED.search(content), _FENCED.fullmatch(content)
    text = (tagged or fenced or {1: content.strip()})[1]
    if not (text.startswith("{") and text.endswith("}")):
        return None
    try:
        call = json.loads(text)
    except (ValueError, RecursionError):
        return None
    named = call.get("name", call.get("tool", call.get("function")))
    given = any(isinstance(call.get(name), dict | str) for name in ("arguments", "parameters", "args", "input"))
    return named if isinstance(named, str) and named in tools and given else None


# -- schemas ----------------------------------------------------------------------------------------------------------


def _validator(schema: Mapping[str, Any]) -> Any:
    try:
        return _compiled(json.dumps(schema, sort_keys=True))
    except (TypeError, ValueError, RecursionError):
        return None


@functools.lru_cache(maxsize=1024)
def _compiled(schema: str) -> Any:
    """
    A validator, or None where the schema is none or refers to something outside itself.

    Nothing is ever fetched, and a pattern may only go back so often.
    """
    try:
        bounded = jsonschema_rs.FancyRegexOptions(backtrack_limit=10_000)
        return jsonschema_rs.validator_for(json.loads(schema), offline=True, pattern_options=bounded)
    except (ValueError, jsonschema_rs.ReferencingError):
        return None


def _described(problems: Sequence[Any]) -> str:
    told = [f"{'.'.join(map(str, problem.instance_path))}: {problem.message}".lstrip(": ") for problem in problems]
    return shortened("; ".join(told), 300)


def _argument(problem: Any) -> str:
    """The argument a problem is about: the first step of its path, else the one that is missing or unknown."""
    if problem.instance_path:
        return str(problem.instance_path[0])
    kind = problem.kind
    if isinstance(kind, jsonschema_rs.ValidationErrorKind.Required):
        return str(kind.property)
    if isinstance(kind, jsonschema_rs.ValidationErrorKind.AdditionalProperties):
        return str(kind.unexpected[0])
    return ""


_DROP = object()


def _mended(arguments: Mapping[str, Any], problems: Sequence[Any], validator: Any) -> dict[str, Any] | None:
    """The arguments with every problem mended in the one way there is, valid then; else None."""
    if any(not problem.instance_path for problem in problems):
        return None
    mended: dict[str, Any] = json.loads(json.dumps(arguments))
    for problem in problems:
        *path, last = problem.instance_path
        holder: Any = functools.reduce(lambda value, step: value[step], path, mended)
        meant = _meant(holder[last], problem)
        if len(meant) != 1:
            return None
        if meant[0] is not _DROP:
            holder[last] = meant[0]
        elif isinstance(holder, dict):
            del holder[last]
        else:
            return None
    return mended if validator.is_valid(mended) else None


def _meant(value: Any, problem: Any) -> list[Any]:
    """What a value was meant to be, as far as the problem tells: the one candidate, or none or several."""
    kinds = jsonschema_rs.ValidationErrorKind
    if isinstance(problem.kind, kinds.Enum):
        return [one for one in problem.kind.options if _alike(one, value)]
    if isinstance(problem.kind, kinds.AnyOf | kinds.OneOfNotValid):
        branches = [branch for branch in problem.kind.context if len(branch) == 1]
        return [meant for branch in branches for meant in _meant(value, branch[0])]
    if isinstance(problem.kind, kinds.Type):
        return list(_converted(value, problem.kind.types))
    return []


def _converted(value: Any, types: Sequence[str]) -> Iterator[Any]:
    if value is None:
        yield _DROP
    elif isinstance(value, str):
        yield from _from_text(value, types)
    elif "string" in types and isinstance(value, int) and not isinstance(value, bool):
        yield str(value)


def _from_text(value: str, types: Sequence[str]) -> Iterator[Any]:
    text = value.strip()
    if "integer" in types and _INTEGER.fullmatch(text):
        yield int(text)
    elif "number" in types and _NUMBER.fullmatch(text):
        yield float(text)
    elif "boolean" in types and text.lower() in ("true", "false"):
        yield text.lower() == "true"
    elif {"object", "array"} & set(types) and text[:1] in ("{", "["):
        try:
            yield json.loads(text)
        except (ValueError, RecursionError):
            return


def _alike(one: object, other: object) -> bool:
    return isinstance(one, str) and isinstance(other, str) and one.lower() == other.strip().lower()
