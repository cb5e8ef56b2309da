"""A group chat that is only watched: what a runtime delivers in it, as events."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import takewhile
from typing import Any

from autogen_agentchat.messages import (
    BaseChatMessage,
    HandoffMessage,
    MemoryQueryEvent,
    ThoughtEvent,
    ToolCallExecutionEvent,
    ToolCallRequestEvent,
    UserInputRequestedEvent,
)

from misstep.events import (
    Event,
    HandoffRequested,
    MemoryRead,
    MessageSent,
    ModelResponded,
    Status,
    ToolFailed,
    ToolReturned,
    Trust,
    TurnEnded,
    TurnStarted,
    Usage,
)
from misstep.guard import Guard
from misstep_autogen.messages import USER, call_key, proposed, task_of, words
from misstep_autogen.place import joined
from misstep_autogen.seats import GUARDED

_VERSION = version("autogen-agentchat")

_KEPT = 1000
"""Messages kept for agents that have not had their turn yet, and agents remembered."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What was said to everybody, and who vouches for it."""

    number: int
    sender: str
    content: str
    trust: Trust


class Chat:
    """
    One run of a team; holds what its agents have yet to hear, and no more.

    An agent hears what the others said when it is given its turn, as its model is shown it then. A reply is a model's
    where AutoGen says what it used; anything else an agent says is only heard.
    """

    def __init__(self, guard: Guard, team: str, opening: Sequence[BaseChatMessage]) -> None:
        session = guard.open(
            seats=GUARDED,
            framework="autogen",
            version=_VERSION,
            task=task_of(opening),
            thread=f"autogen:{team}",
            watching=True,
        )
        self.run = session.run.id
        self._guard = guard
        self._count = self._batches = 0
        self._said: deque[Heard] = deque(maxlen=_KEPT)
        self._heard: OrderedDict[str, int] = OrderedDict()
        self._thoughts: OrderedDict[str, str] = OrderedDict()
        self._people: OrderedDict[str, None] = OrderedDict({USER: None})
        for message in opening:
            self._say(message)

    def turn(self, agent: str) -> None:
        """An agent is given the turn, and hears what it has not heard yet."""
        self._tell(TurnStarted(run=self.run, agent=agent, instance=agent))
        last = self._heard.get(agent, 0)
        new = [*takewhile(lambda heard: heard.number > last, reversed(self._said))]
        for heard in reversed(new):
            if heard.sender == agent:
                continue
            self._tell(
                MessageSent(
                    run=self.run,
                    agent=agent,
                    instance=agent,
                    role="user",
                    content=heard.content,
                    sender=heard.sender,
                    recipient=agent,
                    trust=heard.trust,
                )
            )
        _keep(self._heard, agent, self._count)

    def item(self, participant: str, item: Any) -> None:
        """Something an agent tells of its work; a team's participant passes on what its own agents tell."""
        source = str(item.source)
        instance = participant if source == participant else joined(participant, source)
        match item:
            case ThoughtEvent():
                _keep(self._thoughts, instance, item.content)
            case ToolCallRequestEvent():
                self._reply(source, instance, item, self._thoughts.pop(instance, ""))
            case ToolCallExecutionEvent():
                self._results(source, instance, item)
            case MemoryQueryEvent():
                for found in item.content:
                    content = words(found.content) if isinstance(found.content, str) else str(found.content)
                    self._tell(MemoryRead(run=self.run, agent=source, instance=instance, key="memory", content=content))
            case UserInputRequestedEvent():
                _keep(self._people, source, None)
            case BaseChatMessage() if item.models_usage is not None:
                self._thoughts.pop(instance, None)
                self._reply(source, instance, item, item.to_model_text())

    def answered(self, participant: str, messages: Sequence[BaseChatMessage]) -> None:
        """A participant gives the turn back with what all others are to hear."""
        for message in messages:
            self._say(message)
            if isinstance(message, HandoffMessage):
                self._tell(
                    HandoffRequested(
                        run=self.run,
                        agent=participant,
                        instance=participant,
                        target=message.target,
                        content=message.content,
                    )
                )
        content = messages[-1].to_model_text() if messages else None
        self._tell(TurnEnded(run=self.run, agent=participant, instance=participant, content=content))

    def end(self, status: Status, error: str | None = None) -> None:
        """The run is over."""
        self._guard.end(self.run, status, error=error)

    def _reply(self, agent: str, instance: str, item: Any, content: str) -> None:
        used = item.models_usage
        self._batches += 1
        self._tell(
            ModelResponded(
                run=self.run,
                agent=agent,
                instance=instance,
                call=f"m{self._batches}",
                content=content,
                calls=proposed(item.content, instance) if isinstance(item, ToolCallRequestEvent) else (),
                usage=Usage(used.prompt_tokens, used.completion_tokens) if used is not None else None,
            )
        )

    def _results(self, agent: str, instance: str, item: ToolCallExecutionEvent) -> None:
        for result in item.content:
            told: dict[str, Any] = {
                "run": self.run,
                "agent": agent,
                "instance": instance,
                "call": call_key(instance, result.call_id),
                "tool": result.name,
            }
            self._tell(
                ToolFailed(**told, error=result.content)
                if result.is_error
                else ToolReturned(**told, output=result.content)
            )

    def _say(self, message: BaseChatMessage) -> None:
        self._count += 1
        trust: Trust = "user" if message.source in self._people else "agent"
        self._said.append(Heard(self._count, message.source, message.to_model_text(), trust))

    def _tell(self, event: Event) -> None:
        self._guard.observe(event)


def _keep(memory: OrderedDict[str, Any], name: str, value: Any) -> None:
    """Remember it of an agent; those not heard of for longest are forgotten beyond `_KEPT`."""
    memory[name] = value
    memory.move_to_end(name)
    if len(memory) > _KEPT:
        memory.popitem(last=False)
