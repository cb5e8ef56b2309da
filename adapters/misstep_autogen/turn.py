"""The turn of an agent: where it begins and ends, and what a tool seat may not raise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autogen_agentchat.base import Response
from autogen_agentchat.messages import (
    HandoffMessage,
    ToolCallExecutionEvent,
    ToolCallRequestEvent,
    ToolCallSummaryMessage,
)

from misstep.events import Event, HandoffRequested, TurnEnded, TurnStarted
from misstep_autogen.halted import Halted
from misstep_autogen.live import Live, shielded


class Turn:
    """
    One turn. `objections` are what its refused hand-offs were answered with; `raising` is what one of its tool seats
    would have raised: AutoGen's agents hang where one does, so it is raised at the next item of the agent's stream.
    """

    def __init__(self, live: Live, owner: Any, agent: str, instance: str) -> None:
        self.objections: set[str] = set()
        self.raising: BaseException | None = None
        self._live, self._owner, self._agent, self._instance = live, owner, agent, instance

    def begin(self, messages: Sequence[Any]) -> None:
        """The agent is given the turn; in a run that is to end, it is not."""
        live = self._live
        if live.halted is None:
            with shielded(live.guard, "a turn"):
                live.guard.judge(TurnStarted(run=live.session.run.id, agent=self._agent, instance=self._instance))
        if live.halted is not None:
            live.enacted()
            live.unheard[id(self._owner)] = list(messages)
            raise Halted(live.halted)

    def go_on(self) -> None:
        """Raise what a tool seat could not."""
        raising, self.raising = self.raising, None
        if raising is not None:
            raise raising

    def end(self, response: Response) -> Response:
        """The agent gives the turn back: its response, but for a hand-off that was refused."""
        self.go_on()
        live, message = self._live, response.chat_message
        with shielded(live.guard, "a turn"):
            if isinstance(message, HandoffMessage):
                if message.content in self.objections:
                    response = _summary(response)
                else:
                    self._handoff(message)
            text = response.chat_message.to_model_text()
            self._told(TurnEnded(run=live.session.run.id, agent=self._agent, instance=self._instance, content=text))
        return response

    def _handoff(self, message: HandoffMessage) -> None:
        self._told(
            HandoffRequested(
                run=self._live.session.run.id,
                agent=self._agent,
                instance=self._instance,
                target=message.target,
                content=message.content,
            )
        )

    def _told(self, event: Event) -> None:
        """What is decided of a turn that is over is a halt, and the run ends after it."""
        before = self._live.halted
        self._live.guard.judge(event)
        if before is None and self._live.halted is not None:
            self._live.enacted()


def _summary(response: Response) -> Response:
    """What an agent says whose hand-off was refused: what its calls came to. In a swarm the next turn is its own."""
    calls: list[Any] = []
    results: list[Any] = []
    for event in response.inner_messages or ():
        if isinstance(event, ToolCallRequestEvent):
            calls = list(event.content)
        elif isinstance(event, ToolCallExecutionEvent):
            results = list(event.content)
    message = ToolCallSummaryMessage(
        content="\n".join(result.content for result in results),
        source=response.chat_message.source,
        tool_calls=calls,
        results=results,
    )
    return Response(chat_message=message, inner_messages=response.inner_messages)
