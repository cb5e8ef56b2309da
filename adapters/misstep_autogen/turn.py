"""The turn of an agent: where it begins and ends, and what a tool seat may not raise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autogen_agentchat.base import Response
from autogen_agentchat.messages import (
    BaseTextChatMessage,
    HandoffMessage,
    TextMessage,
    ToolCallExecutionEvent,
    ToolCallRequestEvent,
    ToolCallSummaryMessage,
)
from autogen_agentchat.teams import Swarm

from misstep.decisions import Reroute, Rewrite
from misstep.enact import past
from misstep.events import Event, HandoffRequested, TurnEnded, TurnStarted
from misstep.session import Verdict
from misstep_autogen import private
from misstep_autogen.halted import Halted, TurnLeft
from misstep_autogen.live import Live, shielded

_LEFT = "[misstep] This turn was ended, and another agent goes on."


class Turn:
    """
    One turn, given by `team` if any gives it.

    `objections` are what its refused hand-offs were answered with, `redirected` whom a hand-off goes to instead, by
    whom it was to go to. `raising` is what one of its tool seats would have raised: AutoGen's agents hang where one
    does, so it is raised at the next item of the agent's stream.
    """

    def __init__(self, live: Live, owner: Any, agent: str, instance: str, team: Any) -> None:
        self.objections: set[str] = set()
        self.redirected: dict[str, str] = {}
        self.raising: BaseException | None = None
        self._live, self._owner, self._agent, self._instance = live, owner, agent, instance
        self._team = team

    def begin(self, messages: Sequence[Any]) -> None:
        """The agent is given the turn; in a run that is to be stopped, or where another is to have it, it is not."""
        live = self._live
        lost = False
        if live.stopping is None:
            with shielded(live.guard, "a turn"):
                lost = self._judged(TurnStarted(**self._of()))
        if live.stopping is not None:
            live.enacted()
            live.unheard[id(self._owner)] = list(messages)
            raise Halted(live.stopping)
        if lost:
            live.unheard[id(self._owner)] = list(messages)
            raise TurnLeft

    def go_on(self) -> None:
        """Raise what a tool seat could not."""
        raising, self.raising = self.raising, None
        if raising is not None:
            raise raising

    def end(self, response: Response) -> Response:
        """The agent gives the turn back: its response, as it is passed on."""
        self.go_on()
        with shielded(self._live.guard, "a turn"):
            response = self._handed_off(response)
            return self._told(response)
        return response

    def left(self) -> Response:
        """What an agent says that lost its turn."""
        return self.end(Response(chat_message=TextMessage(content=_LEFT, source=self._owner.name)))

    def redirect(self, target: str, agent: str) -> bool:
        """Have a hand-off to `target` go to another agent; only a swarm gives the turn to whom a hand-off names."""
        if not isinstance(self._team, Swarm) or agent not in private.participants(self._team):
            return False
        self.redirected[target] = agent
        return True

    def _handed_off(self, response: Response) -> Response:
        """The response, where it is a hand-off: not made where that was refused, to whom it is redirected."""
        message = response.chat_message
        if not isinstance(message, HandoffMessage):
            return response
        if message.content in self.objections:
            return _summary(response)
        if message.target in self.redirected:
            response = _with(response, target=self.redirected[message.target])
            message = response.chat_message
            assert isinstance(message, HandoffMessage)
        verdict = self._judge(HandoffRequested(**self._of(), target=message.target, content=message.content))
        decision = verdict.decision
        if isinstance(decision, Reroute) and self.redirect(message.target, decision.agent):
            response = _with(response, target=decision.agent)
            self._live.guard.settle(self._live.session, verdict, took_effect=True)
        else:
            self._past(verdict)
        return response

    def _told(self, response: Response) -> Response:
        """The response, with the words a rule puts in the place of the agent's."""
        live, message = self._live, response.chat_message
        verdict = self._judge(TurnEnded(**self._of(), content=message.to_model_text()))
        if not isinstance(verdict.decision, Rewrite):
            self._past(verdict)
        elif isinstance(message, BaseTextChatMessage):
            response = _with(response, content=verdict.decision.content)
            live.guard.settle(live.session, verdict, took_effect=True)
        else:
            live.guard.settle(live.session, verdict, took_effect=False, detail=f"a {message.type} is not a text")
        return response

    def _judged(self, event: Event) -> bool:
        """Whether the turn is taken away for what was decided."""
        verdict = self._judge(event)
        self._past(verdict)
        return isinstance(verdict.decision, Reroute)

    def _judge(self, event: Event) -> Verdict:
        """The verdict; a halt takes effect here, since the run ends after it."""
        before = self._live.halted
        verdict = self._live.guard.judge(event)
        if before is None and self._live.halted is not None:
            self._live.enacted()
        return verdict

    def _past(self, verdict: Verdict) -> None:
        """What is carried out later: a reroute at the next choice of a speaker, a notice at the next model call."""
        live = self._live
        if isinstance(verdict.decision, Reroute):
            with live.session.run.lock:
                live.session.put_off(verdict)
        else:
            past(live.guard, live.session, verdict, "the turn was over", self._instance)

    def _of(self) -> dict[str, Any]:
        return {"run": self._live.session.run.id, "agent": self._agent, "instance": self._instance}


def _with(response: Response, **changes: Any) -> Response:
    message = response.chat_message.model_copy(update=changes)
    return Response(chat_message=message, inner_messages=response.inner_messages)


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
