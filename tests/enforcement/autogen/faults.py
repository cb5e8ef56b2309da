"""Faults of the guard's own, and what else every framework is held against: policies, models, messages."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from autogen_agentchat.messages import MultiModalMessage
from autogen_core import Image
from autogen_core.models import CreateResult
from autogen_core.tools import StaticWorkbench
from PIL import Image as Picture
from pydantic import BaseModel

from misstep import Anomaly, AnomalyType, Guard, Policy, Rule, Rung
from misstep.decisions import Kind
from misstep.events import MessageSent, ModelResponded, ToolFailed, ToolRequested
from misstep.run import Run
from misstep.testing import Ask, AskAll, Say
from misstep_autogen import guarded
from misstep_autogen.model import AutoGenModelSeat
from misstep_autogen.testing import ScriptedChatClient
from misstep_autogen.turn import Turn
from misstep_autogen.workbench import WorkbenchSeat
from tests.conformance import scenarios
from tests.conformance.decisions import BAD, bad_call, bad_reply, finds, guarding
from tests.conformance.host import World
from tests.enforcement.autogen.listed import AUTOGEN
from tests.enforcement.autogen.parts import (
    BAD_CALL,
    HOST,
    Keep,
    act,
    acts,
    agent,
    alone,
    client_of,
    held,
    refused,
    refusing,
    told,
    took,
    within,
)

CARD = "4539 5787 6362 1486"


def failing(*args: Any, **kwargs: Any) -> Any:
    """A bug of ours."""
    raise RuntimeError("a bug of ours")


def crashed(cls: type, method: str, *, closed: bool = False) -> tuple[World, Any]:
    """What a team does while a method of ours crashes."""
    rung = (Rung(kind=Kind.REFUSE, limit=9),)
    rule = Rule(ladder=rung, on_guard_failure="closed" if closed else "open")
    guard, world = Guard(Policy(rules={BAD_CALL.type: rule}), detectors=[BAD_CALL]), World()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cls, method, failing)
        return world, within(guarded(alone(agent("alice", world)), guard).run(task="go"))


@AUTOGEN.holds("the guard crashes in the model seat")
def model_seat() -> None:
    """The call the model seat could not judge is judged where it is made."""
    for method in ("opening", "reply"):
        world, result = crashed(AutoGenModelSeat, method)
        assert world.done == ["first", "after"]
        assert told(result)[-1] == "alice: all done"


@AUTOGEN.holds("the guard crashes in the tool seat")
def tool_seat() -> None:
    """Nothing hangs; a fail-closed rule lets nothing be done that could not be checked."""
    for closed, done in ((False, ["first", BAD, "after"]), (True, [])):
        world, result = crashed(WorkbenchSeat, "requested", closed=closed)
        assert world.done == done
        assert told(result)[-1] == "alice: all done"


@AUTOGEN.holds("the guard crashes in the turn seat")
def turn_seat() -> None:
    """The turn's calls are judged all the same."""
    world, result = crashed(Turn, "_judged")
    assert (world.done, told(result)[-1]) == (["first", "after"], "alice: all done")


@AUTOGEN.holds("the guard crashes in the message seat")
def message_seat() -> None:
    """The message is passed on as it is."""
    world, result = crashed(Turn, "_told")
    assert (world.done, told(result)[-1]) == (["first", "after"], "alice: all done")


@AUTOGEN.holds("the guard crashes in a callback")
def callback() -> None:
    """A subscriber that crashes changes nothing."""
    guard = refusing()
    guard.on(BAD_CALL.type, failing)
    guard.on_decision(None, failing)

    async def go(world: World, keep: Keep) -> Any:
        await keep(agent("alice", world)).run(task="go")

    refused(go, guard)


@AUTOGEN.holds("the guard crashes in the run seat")
def run_seat() -> None:
    """The host gets its result all the same."""
    scenarios.seat_crash(HOST, "async")
    scenarios.seat_crash(HOST, "stream")


@AUTOGEN.holds("a slow rule")
def slow_rule() -> None:
    """What it says late is enforced."""

    def slowly(event: Any) -> bool:
        time.sleep(0.06)
        return bad_call(event)

    world = World()
    within(guarded(agent("alice", world), guarding(finds(ToolRequested, slowly), {"refuse": 9})).run(task="go"))
    assert world.done == ["first", "after"]


@AUTOGEN.holds("a card number in a call's arguments")
def card() -> None:
    """The call is not made."""
    rule = Rule(thresholds={"places": ("arguments",)}, ladder=(Rung(kind=Kind.REFUSE),))
    world, guard = World(), Guard(Policy(rules={AnomalyType.PII_LEAK: rule}), strict=True)
    within(guarded(agent("alice", world, *acts("first", CARD), Say("end")), guard).run(task="go"))
    assert world.done == ["first"]


@AUTOGEN.holds("a policy from a file")
def from_file() -> None:
    """It is enforced as written."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "policy.yaml"
        file.write_text("version: 1\nrules:\n  repeated_call: {with: {limit: 3}, ladder: [{refuse: 5}]}\n")
        world = World()
        script = [Ask("act", {"q": "x"}, id=f"c{number}") for number in range(4)]
        within(guarded(agent("alice", world, *script, Say("end")), Guard.from_file(file)).run(task="go"))
    assert world.done == ["x", "x"]


@AUTOGEN.holds("a wrapper round every tool call")
def wrapper() -> None:
    """A workbench of the application's own round another one."""

    class Wrapped(StaticWorkbench):
        async def call_tool(self, *args: Any, **kwargs: Any) -> Any:
            return await super().call_tool(*args, **kwargs)

    async def go(world: World, keep: Keep) -> Any:
        bench = Wrapped(list(agent("x", world)._tools))
        await keep(agent("alice", world, workbench=bench)).run(task="go")

    held(go)


@AUTOGEN.holds("an unknown tool")
def unknown() -> None:
    """It is judged though no tool is reached, and the run can end there."""
    rule = Rule(ladder=(Rung(kind=Kind.HALT),))
    world, guard = World(), Guard(Policy(rules={AnomalyType.UNKNOWN_TOOL: rule}), strict=True)
    within(guarded(agent("alice", world, act("first"), act("x", "nope"), act("after")), guard).run(task="go"))
    assert world.done == ["first"]


class Strong:
    """A rule of another type that finds fault with the same calls."""

    type = AnomalyType.OSCILLATION

    def __call__(self, event: ToolRequested, run: Run) -> Anomaly | None:
        """Find fault."""
        return Anomaly(type=self.type, message="bad") if bad_call(event) else None


@AUTOGEN.holds("several rules on one call")
def several_rules() -> None:
    """The strictest wins."""
    weak = finds(ToolRequested, bad_call, rewrite={"q": "good"})
    strong = Strong()
    rules = {
        AnomalyType.REPEATED_CALL: Rule(ladder=(Rung(kind=Kind.REWRITE),)),
        AnomalyType.OSCILLATION: Rule(ladder=(Rung(kind=Kind.REFUSE),)),
    }
    world, guard = World(), Guard(Policy(rules=rules), detectors=[weak, strong], strict=True)
    within(guarded(agent("alice", world), guard).run(task="go"))
    assert world.done == ["first", "after"]


@AUTOGEN.holds("a tool that raises")
def tool_raises() -> None:
    """What it raised is judged, and withheld from the model."""
    guard, world = guarding(finds(ToolFailed, lambda event: True), {"refuse": 9}), World()
    client = client_of(act("x", "flaky"), Say("end"))
    within(guarded(agent("alice", world, client=client, tools=("flaky",)), guard).run(task="go"))
    assert world.done == ["x"]
    assert "[misstep:" in client.script.seen[1][-1]


@AUTOGEN.holds("a halt while calls run side by side")
def side_by_side() -> None:
    """Of a reply with a bad call no call is made, and none after it."""
    world = World()
    guard = guarding(BAD_CALL, "halt")
    both = AskAll(tuple(acts("one", BAD, "two")))
    within(guarded(agent("alice", world, both, act("after")), guard).run(task="go"))
    assert world.done == []
    assert took(guard) == [(Kind.HALT, True)]


@AUTOGEN.holds("a halt inside a user's try")
def inside_a_try() -> None:
    """A tool that swallows what its inner agent raises does not keep the outer one going."""

    async def go(world: World, keep: Keep) -> Any:
        async def helper(q: str) -> str:
            """Help."""
            try:
                await agent("inner", world).run(task=q)
            except Exception:
                return "swallowed"
            return "done"

        outer = agent("outer", world, act("x", "helper"), act("afterwards"), Say("end"), tools=("act", helper))
        await keep(outer).run(task="go")

    held(go)


@AUTOGEN.holds("a second run after a crash")
def after_a_crash() -> None:
    """A run that failed leaves the next one guarded."""
    world = World()
    alice = guarded(agent("alice", world, ConnectionError("gone"), *acts("first", BAD), Say("end")), refusing())

    async def main() -> None:
        with pytest.raises(ConnectionError):
            await alice.run(task="go")
        await alice.run(task="again")

    within(main())
    assert world.done == ["first"]


@AUTOGEN.holds("the policy changes in mid-run")
def changes() -> None:
    """What was let through under the old policy is refused under the new one, in the same run."""
    guard, world = Guard(Policy(rules={BAD_CALL.type: Rule(ladder=())}), detectors=[BAD_CALL], strict=True), World()

    def change(q: str) -> str:
        """Change the policy."""
        guard.reload(Policy(rules={BAD_CALL.type: Rule(ladder=(Rung(kind=Kind.REFUSE),))}))
        return "changed"

    steps = act(BAD), act("x", "change"), Ask("act", {"q": BAD}, id="z"), act("after"), Say("end")
    within(guarded(agent("alice", world, *steps, tools=("act", change)), guard).run(task="go"))
    assert world.done == [BAD, "after"]


class Data(BaseModel):
    """What an agent answers with."""

    word: str


@AUTOGEN.holds("a structured answer")
def structured() -> None:
    """It is judged as any reply is, and a bad one is asked for again."""
    guard = guarding(finds(ModelResponded, lambda event: "bad" in event.content), {"retry": 1})
    client = client_of(Say('{"word": "bad"}'), Say('{"word": "good"}'))
    alice = agent("alice", World(), client=client, tools=(), output_content_type=Data)
    result = within(guarded(alice, guard).run(task="go"))
    assert result.messages[-1].content == Data(word="good")


class Thinking(ScriptedChatClient):
    """A client with words beside its calls."""

    async def create(self, messages: Any, **kwargs: Any) -> CreateResult:
        """Answer, thinking aloud."""
        reply = await super().create(messages, **kwargs)
        return reply if isinstance(reply.content, str) else reply.model_copy(update={"thought": "bad thoughts"})


@AUTOGEN.holds("a reply with words beside its calls")
def words_beside() -> None:
    """The words are judged and rewritten, and so is the call refused."""
    for rule, rung, done in (
        (finds(ModelResponded, bad_reply, rewrite="kind"), "rewrite", ["first", BAD, "after"]),
        (BAD_CALL, {"refuse": 9}, ["first", "after"]),
    ):
        world = World()
        client = Thinking(client_of().script)
        result = within(guarded(agent("alice", world, client=client), guarding(rule, rung)).run(task="go"))
        assert world.done == done
        assert any("bad thoughts" in text for text in told(result)) is (rung != "rewrite")


@AUTOGEN.holds("content in parts, with an image")
def parts() -> None:
    """Words beside an image are judged before the model reads them."""
    rule = finds(MessageSent, lambda event: "bad words" in event.content)
    client = client_of(Say("seen"))
    task = MultiModalMessage(content=["bad words", Image(Picture.new("RGB", (1, 1)))], source="user")
    within(guarded(agent("alice", World(), client=client, tools=()), guarding(rule, "halt")).run(task=task))
    assert client.script.calls == 0
