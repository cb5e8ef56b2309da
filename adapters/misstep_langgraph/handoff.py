"""Calls by which an agent hands over to another: which they are, and how they go to somebody else."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping
from typing import Any

from langchain_core.messages import ToolMessage
from langgraph.types import Command, Send

from misstep_langgraph.private import HANDOFF_DESTINATION

_BY_NAME = re.compile(r"(?:transfer|hand_?off|delegate|assign)_to_(\w+)")


def destination(tool: str, metadata: Mapping[str, Any] | None, agents: Collection[str] | None) -> str | None:
    """The agent a tool hands over to, by its metadata or its name; where `agents` are known, only one of them."""
    said = (metadata or {}).get(HANDOFF_DESTINATION)
    if said is not None:
        return str(said) if agents is None or said in agents else None
    named = _BY_NAME.fullmatch(tool)
    return next((agent for agent in agents or () if named and _plain(agent) == _plain(named[1])), None)


def handed_to(raw: Any, agent: str, call_id: str | None) -> Any:
    """The result of a hand-off, to `agent`: where it goes, who is active now, and what the call is answered with."""
    if isinstance(raw, list):
        return [handed_to(each, agent, call_id) for each in raw]
    if not isinstance(raw, Command) or not raw.goto:
        return raw
    goes = raw.goto if isinstance(raw.goto, list | tuple) else [raw.goto]
    before = {each.node if isinstance(each, Send) else each for each in goes}
    first = goes[0]
    changed = Send(agent, _renamed(first.arg, before, agent, call_id)) if isinstance(first, Send) else agent
    return dataclasses.replace(
        raw,
        goto=[changed] if isinstance(raw.goto, list | tuple) else changed,
        update=_renamed(raw.update, before, agent, call_id),
    )


def _renamed(update: Any, before: Collection[str], agent: str, call_id: str | None) -> Any:
    if not isinstance(update, dict):
        return update
    changed = {name: agent if isinstance(value, str) and value in before else value for name, value in update.items()}
    if isinstance(changed.get("messages"), list):
        changed["messages"] = [_answered(message, agent, call_id) for message in changed["messages"]]
    return changed


def _answered(message: Any, agent: str, call_id: str | None) -> Any:
    if isinstance(message, ToolMessage) and message.tool_call_id == call_id:
        return message.model_copy(update={"content": f"Transferred to {agent}."})
    return message


def _plain(name: str) -> str:
    return re.sub(r"\W+", "_", name).lower()
