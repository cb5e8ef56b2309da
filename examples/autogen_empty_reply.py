"""AutoGen: a writer answers with nothing, and the critic approves it. misstep samples the reply again."""

import asyncio

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.conditions import TextMentionTermination
from autogen_agentchat.teams import RoundRobinGroupChat

from misstep import Guard
from misstep.testing import Say, Script
from misstep_autogen import guarded
from misstep_autogen.testing import ScriptedChatClient


def build() -> RoundRobinGroupChat:
    writer = AssistantAgent("writer", ScriptedChatClient(Script(Say(""), Say("Bees dance to tell where flowers are."))))
    critic = AssistantAgent("critic", ScriptedChatClient(Script(Say("APPROVE"))))
    return RoundRobinGroupChat([writer, critic], termination_condition=TextMentionTermination("APPROVE"), max_turns=6)


def told(result) -> str:
    written = next(message.content for message in result.messages if message.source == "writer")
    return written or "FAILED: an empty text was approved"


def bare() -> str:
    return told(asyncio.run(build().run(task="Write one sentence about bees.")))


def with_misstep(guard: Guard) -> str:
    return told(asyncio.run(guarded(build(), guard).run(task="Write one sentence about bees.")))


if __name__ == "__main__":
    guard = Guard()
    print("bare:   ", bare())
    print("guarded:", with_misstep(guard))
    print(guard.report())
