"""`MisstepInterventionHandler`: watches the teams of a runtime, and intercepts nothing."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from autogen_agentchat.messages import BaseChatMessage
from autogen_core import AgentId, DefaultInterventionHandler, DropMessage, InterventionHandler, MessageContext

from misstep.guard import Guard
from misstep_autogen.chat import Chat
from misstep_autogen.private import GROUP_CHAT, check

_CHATS = 1000


class MisstepInterventionHandler(DefaultInterventionHandler):
    """
    Give it to a runtime: `SingleThreadedAgentRuntime(intervention_handlers=[MisstepInterventionHandler(guard)])`.

    Every run of every team on that runtime is watched: its turns, replies, tool calls and their results, and what
    agents say to each other. Decisions are hypothetical: what `guarded` would have decided. No message is changed,
    dropped or held up, and nothing is raised, not even by a strict guard: AutoGen would never come to an end.

    AutoGen shows every handler the original message and delivers what the last one returns. `others` are handlers of
    your own: each is shown what the one before it returned, and misstep watches what is delivered.

    A run ends where its team says so. One that was cancelled is ended as interrupted when its team is run again or by
    `close`, or evicted by the guard's own limits. A team in a team on the same runtime is a run of its own.
    """

    def __init__(self, guard: Guard, *others: InterventionHandler) -> None:
        check()
        self.guard = guard
        self.last_run: str | None = None
        """The id of the run begun last."""
        self._others = others
        self._chats: OrderedDict[str, Chat] = OrderedDict()

    async def on_send(
        self, message: Any, *, message_context: MessageContext, recipient: AgentId
    ) -> Any | type[DropMessage]:
        """A message to one agent: a team is started by one."""
        for other in self._others:
            message = await other.on_send(message, message_context=message_context, recipient=recipient)
            if _dropped(message):
                return message
        if isinstance(message, GROUP_CHAT.GroupChatStart):
            self._see(recipient.key, "", message)
        return message

    async def on_publish(self, message: Any, *, message_context: MessageContext) -> Any | type[DropMessage]:
        """A message to a topic: everything else a team tells."""
        for other in self._others:
            message = await other.on_publish(message, message_context=message_context)
            if _dropped(message):
                return message
        sender, topic = message_context.sender, message_context.topic_id
        if isinstance(message, GROUP_CHAT.GroupChatRequestPublish) and topic is not None:
            self._see(topic.source, topic.type, message)
        elif sender is not None and not isinstance(message, GROUP_CHAT.GroupChatStart):
            self._see(sender.key, sender.type, message)
        return message

    async def on_response(self, message: Any, *, sender: AgentId, recipient: AgentId | None) -> Any | type[DropMessage]:
        """A response to a message that was sent."""
        for other in self._others:
            message = await other.on_response(message, sender=sender, recipient=recipient)
            if _dropped(message):
                return message
        return message

    def close(self) -> None:
        """End the runs whose end nobody told."""
        for team in list(self._chats):
            self._end(team)

    def _see(self, team: str, who: str, message: Any) -> None:
        """The boundary: our failures are reported, and go no further."""
        try:
            self._told(team, who.removesuffix(f"_{team}"), message)
        except Exception as error:
            self.guard.failed("the intervention handler", error)

    def _told(self, team: str, who: str, message: Any) -> None:
        if isinstance(message, GROUP_CHAT.GroupChatStart):
            self._end(team)
            if self.guard.mode != "off":
                self._begin(team, message.messages or ())
            return
        chat = self._chats.get(team)
        if chat is None:
            return
        match message:
            case GROUP_CHAT.GroupChatRequestPublish():
                chat.turn(who)
            case GROUP_CHAT.GroupChatMessage(message=inner):
                chat.item(who, inner)
            case GROUP_CHAT.GroupChatAgentResponse(response=response):
                chat.answered(who, [response.chat_message])
            case GROUP_CHAT.GroupChatTeamResponse(result=result):
                chat.answered(who, [each for each in result.messages if isinstance(each, BaseChatMessage)])
            case GROUP_CHAT.GroupChatTermination(error=error):
                del self._chats[team]
                chat.end("failed" if error is not None else "completed", str(error) if error is not None else None)

    def _begin(self, team: str, messages: Any) -> None:
        chat = self._chats[team] = Chat(self.guard, team, messages)
        self.last_run = chat.run
        if len(self._chats) > _CHATS:
            self._end(next(iter(self._chats)))

    def _end(self, team: str) -> None:
        chat = self._chats.pop(team, None)
        if chat is not None:
            chat.end("interrupted")


def _dropped(message: Any) -> bool:
    return message is DropMessage or isinstance(message, DropMessage)
