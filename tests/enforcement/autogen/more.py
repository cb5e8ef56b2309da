"""More of the paths every framework is held against: long runs, malformed calls, retries, copies, the wheel."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from autogen_agentchat.agents import CodeExecutorAgent
from autogen_agentchat.messages import TextMessage
from autogen_core.models import CreateResult

from misstep import Anomaly, AnomalyType, Guard, Journal, Policy, Rule, Rung
from misstep.decisions import Kind
from misstep.events import ToolRequested
from misstep.run import Run
from misstep.side_effects import SideEffect
from misstep.testing import Ask, Say
from misstep_autogen import guarded
from misstep_autogen.testing import ScriptedChatClient
from tests.conformance.decisions import BAD, finds, guarding
from tests.conformance.host import World
from tests.enforcement.autogen.agents import BAD_CODE, Running, approving, code
from tests.enforcement.autogen.listed import AUTOGEN
from tests.enforcement.autogen.parts import Keep, act, acts, agent, alone, client_of, held, refused, took, within
from tests.enforcement.autogen.tools import Bench

CARD = "4539 5787 6362 1486"


@AUTOGEN.holds("a card number in an older message")
def older_card() -> None:
    """A model is not asked where an older message of its task holds one."""
    rule = Rule(thresholds={"places": ("messages",)}, ladder=(Rung(kind=Kind.HALT),))
    guard, client = Guard(Policy(rules={AnomalyType.PII_LEAK: rule}), strict=True), client_of(Say("yes"))
    said = [(f"my card is {CARD}", "user"), ("thanks", "bob"), ("go on", "user")]
    task = [TextMessage(content=content, source=source) for content, source in said]
    within(guarded(agent("alice", World(), client=client, tools=()), guard).run(task=task))
    assert client.script.calls == 0


@AUTOGEN.holds("a forbidden pattern that is only mentioned")
def mentioned() -> None:
    """A command that is only spoken of stops nothing; the same in a call does."""
    rule = Rule(ladder=(Rung(kind=Kind.REFUSE),))
    guard, world = Guard(Policy(rules={AnomalyType.UNSAFE_COMMAND: rule}), strict=True), World()

    def shell(command: str) -> str:
        """Run a command."""
        return world.act(command)

    steps = [Ask("shell", {"command": each}, id=each[:2]) for each in ("ls", "rm -rf /")]
    alice = agent("alice", world, *steps, Say("never run rm -rf /"), tools=[shell])
    within(guarded(alice, guard).run(task="never run rm -rf /"))
    assert world.done == ["ls"]
    assert took(guard) == [(Kind.REFUSE, True)]


class AfterFirst:
    """A rule over two calls: none about something bad after one about the first thing."""

    type = AnomalyType.REPEATED_CALL

    def __call__(self, event: ToolRequested, run: Run) -> Anomaly | None:
        """Judge a call."""
        seen = run.memory(self, set)
        seen.add(str(event.arguments.get("q")))
        return Anomaly(type=self.type, message="both") if {"first", BAD} <= seen and BAD in str(event) else None


@AUTOGEN.holds("a rule over two calls in a long run")
def two_calls() -> None:
    """The second is refused, sixty calls after the first."""

    async def go(world: World, keep: Keep) -> Any:
        things = [f"thing {number}" for number in range(60)]
        script = *acts("first", *things, BAD), Say("end")
        await keep(agent("alice", world, *script, max_tool_iterations=99)).run(task="go")

    refused(go, guarding(AfterFirst(), {"refuse": 9}))


class Listing(ScriptedChatClient):
    """A client whose calls have a list in the place of an object."""

    async def create(self, messages: Any, **kwargs: Any) -> CreateResult:
        """Answer."""
        reply = await super().create(messages, **kwargs)
        for call in reply.content if isinstance(reply.content, list) else ():
            call.arguments = json.dumps([json.loads(call.arguments)["q"]])
        return reply


@AUTOGEN.holds("arguments that are not an object")
def no_object() -> None:
    """A call with such arguments is judged as any other, where its workbench would have taken them."""

    class Lax(Bench):
        async def call_tool(self, name: str, arguments: Any = None, *args: Any, **kwargs: Any) -> Any:
            return await super().call_tool(name, {"q": arguments[0]}, *args, **kwargs)

    async def go(world: World, keep: Keep) -> Any:
        client = Listing(client_of().script)
        await keep(agent("alice", world, client=client, workbench=Lax(world.act))).run(task="go")

    refused(go, guarding(finds(ToolRequested, lambda event: BAD in str(event.raw)), {"refuse": 9}))


@AUTOGEN.holds("the framework tries again by itself")
def tries_again() -> None:
    """An agent that writes its code anew once it was refused is refused anew."""

    async def go(world: World, keep: Keep) -> Any:
        again = Say('{"reason": "r", "retry": true}')
        client = client_of(code(BAD), again, code(BAD), again, code("good"), Say("end"))
        coder = CodeExecutorAgent(
            "coder", Running(world), model_client=client, max_retries_on_error=2, approval_func=approving(world)
        )
        await keep(coder).run(task="go")

    world, guard = World(), guarding(BAD_CODE, {"refuse": 9})
    within(go(world, lambda x: guarded(x, guard)))
    assert world.done == ["good"]


@AUTOGEN.holds("an effect that must not happen twice")
def not_twice() -> None:
    """What was done before a roll-back and is proposed again happens twice without a guard, and once under one."""
    with tempfile.TemporaryDirectory() as folder:
        world = World()
        rung = (Rung(kind=Kind.ROLL_BACK, limit=1),)
        rules = {AnomalyType.REPEATED_CALL: Rule(ladder=rung), AnomalyType.DUPLICATE_SIDE_EFFECT: Rule()}
        guard = Guard(
            Policy(rules=rules, side_effects={"act": SideEffect.IRREVERSIBLE}, unsupported="degrade"),
            detectors=[finds(ToolRequested, lambda event: BAD in str(event.arguments))],
            journal=Journal(Path(folder) / "journal.db"),
        )
        again = Ask("act", {"q": "first"}, id="again")
        free, script = World(), (act("first"), act(BAD), again, Say("end"))
        within(agent("alice", free, *script).run(task="go"))
        within(guarded(agent("alice", world, *script), guard).run(task="go"))
    assert (free.done.count("first"), world.done) == (2, ["first"])


@AUTOGEN.holds("a copy of the app")
def copied() -> None:
    """A deep copy is guarded as what it was made of."""

    async def go(world: World, keep: Keep) -> Any:
        def do(q: str) -> str:
            """Act."""
            return world.act(q)

        steps = [act(what, "do") for what in ("first", BAD, "after")]
        await copy.deepcopy(keep(alone(agent("alice", World(), *steps, Say("end"), tools=[do])))).run(task="go")

    held(go)


@AUTOGEN.holds("as installed from the wheel")
def from_wheel() -> None:
    """What is in the wheel, and nothing else, holds."""
    pytest.importorskip("hatchling")
    root = Path(__file__).parents[3]
    with tempfile.TemporaryDirectory() as folder:
        build = f"import hatchling.build; print(hatchling.build.build_wheel({folder!r}))"
        subprocess.run([sys.executable, "-c", build], cwd=root, check=True, capture_output=True)
        zipfile.ZipFile(next(Path(folder).glob("*.whl"))).extractall(folder)
        run = subprocess.run(
            [sys.executable, "-c", _INSTALLED], cwd=folder, env={"PYTHONPATH": folder}, capture_output=True
        )
        assert run.stdout.decode().split() == [folder, "x", "x"], run.stderr.decode()


_INSTALLED = """
import asyncio, pathlib
from autogen_agentchat.agents import AssistantAgent
import misstep
from misstep import Guard, Policy, Rule, Rung, AnomalyType
from misstep.testing import Ask, Say, Script
from misstep_autogen import guarded
from misstep_autogen.testing import ScriptedChatClient
done = [str(pathlib.Path(misstep.__file__).parents[1])]
def act(q: str) -> str:
    'Act.'
    done.append(q)
    return "nothing"
script = Script(*[Ask("act", {"q": "x"}, id=str(n)) for n in range(4)], Say("end"))
alice = AssistantAgent("alice", ScriptedChatClient(script), tools=[act], max_tool_iterations=9)
guard = Guard(Policy(rules={AnomalyType.REPEATED_CALL: Rule(ladder=(Rung(kind="refuse", limit=9),))}))
asyncio.run(guarded(alice, guard).run(task="go"))
print(*done)
"""
