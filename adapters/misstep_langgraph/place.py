"""Where in a LangGraph app a call happens, read from the metadata LangGraph gives it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

RUN = "misstep_run"
"""The metadata key under which the run seat, or a user, names the run."""


@dataclass(frozen=True, slots=True)
class Place:
    """
    `agent` is a name for people; `instance` the path that tells two copies apart; `scope` the graph the call is in.

    The scope is the checkpoint namespace, `path`, without the node itself: `outer:uuid|model:uuid` → `outer:uuid`.
    """

    agent: str
    instance: str
    scope: str
    path: str = ""


def place(metadata: Mapping[str, Any] | None) -> Place:
    """The place of a call."""
    metadata = metadata or {}
    path = str(metadata.get("langgraph_checkpoint_ns") or "")
    scope = path.rpartition("|")[0]
    agent = str(metadata.get("lc_agent_name") or metadata.get("langgraph_node") or "agent")
    return Place(agent, f"{scope}/{agent}" if scope else agent, scope, path)
