"""The turn of an agent: where it begins and ends, and what a tool seat may not raise."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
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
    One turn. `objections` are what its refused hand-offs were answered with; `raising` is what one of its tools
    raised: AutoGen's agents hang where a tool seat raises, so it is raised at the next item of the agent's stream.
    """

    def __init__(self, live: Live, owner: Any, agent: str, instance: str) -> None:
        self.objections: set[str] = set()
        self.raising: BaseException | None = None
        self._live, self._owner, self._agent, self._instance = live, owner, agent, instance

    def begin(self, messages: Sequence[Any]) -> None:
        """The agent is given the turn; in a run that is to end, it is not."""
        live = self._live
        if live.halted is not None:
            live.enacted()
            raise Halted(live.halted)
        with shielded(live.guard, "a turn"):
            self._judge(TurnStarted(run=live.session.run.id, agent=self._agent, instance=self._instance))
        if live.halted is not None:
            raise Halted(live.halted)
        live.unread[id(self._owner)] = (self._owner, list(messages))

    def passed_on(self, item: Any) -> Any:
        """What to pass on of an item of the agent's stream; its response ends the turn."""
        raising, self.raising = self.raising, None
        if raising is not None:
            raise raising
        if not isinstance(item, Response):
            return item
        self._live.unread.pop(id(self._owner), None)
        with shielded(self._live.guard, "a turn"):
            return self._ended(item)
        return item

    def _ended(self, response: Response) -> Response:
        run, message = self._live.session.run.id, response.chat_message
        if isinstance(message, HandoffMessage):
            if message.content in self.objections:
                response = _kept(response)
            else:
                self._judge(
                    HandoffRequested(
                        run=run,
                        agent=self._agent,
                        instance=self._instance,
                        target=message.target,
                        content=message.content,
                    )
                )
        text = response.chat_message.to_model_text()
        self._judge(TurnEnded(run=run, agent=self._agent, instance=self._instance, content=text))
        return response

    def _judge(self, event: Event) -> None:
        live = self._live
        before = live.halted
        live.guard.judge(event)
        if before is None and live.halted is not None:
            live.enacted()


def _kept(response: Response) -> Response:
    """The response of an agent whose hand-off was refused: a summary of its calls, and the turn is still its own."""
    inner = response.inner_messages or ()
    calls: list[Any] = []
    results: list[Any] = []
    for event in inner:
        if isinstance(event, ToolCallRequestEvent):
            calls = list(event.content)
        elif isinstance(event, ToolCallExecutionEvent):
            results = list(event.content)
    summary = ToolCallSummaryMessage(
        content="\n".join(result.content for result in results),
        source=response.chat_message.source,
        tool_calls=calls,
        results=results,
    )
    return Response(chat_message=summary, inner_messages=response.inner_messages)
