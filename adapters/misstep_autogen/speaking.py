"""What a stubbed model says in AutoGen's terms: calls, texts, the name of a speaker, a ledger, a structure."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from autogen_agentchat.teams import MagenticOneGroupChat, SelectorGroupChat
from autogen_core import FunctionCall
from autogen_core.models import CreateResult, FunctionExecutionResultMessage, RequestUsage
from pydantic import BaseModel

from misstep.testing import AskAll, Say
from misstep.verification import Canary, Offer
from misstep.verification.arguments import arguments_for
from misstep_autogen import private
from misstep_autogen.entered import Entered, entered, speaker, trial
from misstep_autogen.messages import declared, words
from misstep_autogen.place import joined
from misstep_autogen.walk import agents_in
from misstep_autogen.workbench import EXECUTE

EACH = 3
"""How often an agent is given the turn: to propose calls, to say what must be thrown away, and to hand on."""

_USAGE = RequestUsage(prompt_tokens=1, completion_tokens=1)
_LEDGER = ("is_request_satisfied", "is_in_loop", "is_progress_being_made", "next_speaker", "instruction_or_question")


class Speech:
    """
    The replies of every model of an app.

    Of several hand-offs AutoGen makes only the first, and code is run from a reply that is text: such calls are
    proposed one by one.
    """

    def __init__(self, canary: Canary, *, bodies: bool) -> None:
        self._canary, self._bodies = canary, bodies
        self._chosen: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def reply(self, messages: Sequence[Any], kwargs: Mapping[str, Any]) -> CreateResult:
        """A model's answer to messages."""
        here = entered()
        owner = None if here is None else here.owner
        where = f"{trial.get()}:{speaker()}"
        tools = () if kwargs.get("tool_choice") == "none" else declared(kwargs.get("tools") or ())
        leads = {} if here is None else dict(self._leads(here))
        offers = [
            Offer(tool.name, tool.parameters, leads.get(tool.name), EACH if tool.name in leads else 1) for tool in tools
        ]
        if private.executors(owner):
            offers.append(Offer(EXECUTE))
        chosen = self._choice(owner, where) if isinstance(owner, SelectorGroupChat) else ""
        said = self._canary.reply(
            speaker(),
            offers,
            [_text(message) for message in messages],
            where=where,
            at_once=len(private.handoff_tools(owner)) < 2 and not private.executors(owner),
            **({"done": chosen} if chosen else {}),
        )
        if isinstance(said, AskAll) and said.calls[0].tool == EXECUTE:
            said = Say(f"```python\n# {said.calls[0].id}\n```")
        if isinstance(said, AskAll):
            asked = [FunctionCall(id=ask.id, name=ask.tool, arguments=json.dumps(ask.arguments)) for ask in said.calls]
            return CreateResult(finish_reason="function_calls", content=asked, usage=_USAGE, cached=False)
        text = self._put(said, owner, where, kwargs.get("json_output"))
        return CreateResult(finish_reason="stop", content=text, usage=_USAGE, cached=False)

    def _put(self, said: Say, owner: Any, where: str, wanted: Any) -> str:
        if wanted and isinstance(owner, MagenticOneGroupChat):
            return self._ledger(owner, where, said.text)
        if isinstance(wanted, type) and issubclass(wanted, BaseModel):
            return _structured(wanted, said.text)
        return json.dumps({"text": said.text}) if wanted else said.text

    def _leads(self, here: Entered) -> Iterator[tuple[str, str]]:
        """The tools by which the canary gets on, and to whom."""
        for tool in private.handoff_tools(here.owner):
            target = private.target_of(here.owner, tool.name)
            if target is not None:
                yield tool.name, joined(here.team, target)
        for workbench in private.workbenches(here.owner):
            for tool in private.tools(workbench):
                runner = private.runner(tool)
                if runner is not None:
                    yield tool.name, joined(here.path, runner.name)
                elif self._bodies and any(True for _ in agents_in(private.function(tool))):
                    yield tool.name, f"inside {joined(here.path, tool.name)}"

    def _choice(self, team: Any, where: str) -> str:
        """Who had the turn least often."""
        chosen = self._chosen[where]
        name = min(private.participants(team), key=lambda each: chosen[each])
        chosen[name] += 1
        return name

    def _ledger(self, team: Any, where: str, text: str) -> str:
        """What an orchestrator asks for after each turn."""
        done = sum(self._chosen[where].values()) >= EACH * len(private.participants(team))
        if done:
            self._chosen[where].clear()
        answers = (done, False, True, "" if done else self._choice(team, where), text)
        return json.dumps(
            {key: {"reason": text, "answer": answer} for key, answer in zip(_LEDGER, answers, strict=True)}
        )


def _structured(wanted: type[BaseModel], text: str) -> str:
    """The least such an object can be, with the text in its first text; beside its fields, where it has none."""
    schema = wanted.model_json_schema()
    values = arguments_for(schema)
    fields = schema.get("properties", {})
    name = next((name for name, each in fields.items() if each.get("type") == "string" and "enum" not in each), "text")
    return json.dumps({**values, name: text})


def _text(message: Any) -> str:
    if isinstance(message, FunctionExecutionResultMessage):
        return "\n".join(result.content for result in message.content)
    content = message.content
    if isinstance(content, list) and all(isinstance(part, FunctionCall) for part in content):
        return str(getattr(message, "thought", None) or "")
    return words(content)
