"""What the proofs are built of: agents that play scripts, and the two ways of finding that nothing got through."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from autogen_agentchat.agents import AssistantAgent, BaseChatAgent
from autogen_agentchat.base import Response
from autogen_agentchat.messages import TextMessage
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_core import CancellationToken
from autogen_core.models import CreateResult
from autogen_core.tools import FunctionTool

from misstep import Guard, RunReport
from misstep.decisions import Kind
from misstep.events import ToolRequested
from misstep.testing import Ask, Say, Script, Step
from misstep_autogen import guarded
from misstep_autogen.testing import ScriptedChatClient
from tests.conformance.decisions import BAD, bad_call, finds, guarding
from tests.conformance.host import World, tools_of
from tests.conformance.hosts.autogen import GuardedTeam

HOST = GuardedTeam()
"""Plays the shared scenarios."""

Keep = Callable[[Any], Any]
"""Guards a team or an agent, or leaves it as it is."""

Going = Callable[[World, Keep], Coroutine[Any, Any, Any]]
"""Builds something, runs it, and gives what came of it."""

BAD_CALL = finds(ToolRequested, bad_call)


def within(work: Coroutine[Any, Any, Any], seconds: float = 8.0) -> Any:
    """Run to the end, or fail: a hang is what is looked for."""

    async def timed() -> Any:
        task = asyncio.ensure_future(work)
        done, _ = await asyncio.wait({task}, timeout=seconds)
        assert done, f"still not done after {seconds:g} s: it hangs"
        return task.result()

    return asyncio.run(timed())


def refusing(**fields: Any) -> Guard:
    """A guard that refuses bad calls."""
    return guarding(BAD_CALL, {"refuse": 99}, **fields)


def halting(**fields: Any) -> Guard:
    """A guard that ends a run at a bad call."""
    return guarding(BAD_CALL, "halt", **fields)


def keeping(guard: Guard, **options: Any) -> Keep:
    """Under that guard."""
    return lambda x: guarded(x, guard, **options)


def bare(go: Going) -> World:
    """What happens without a guard: the bad call too, or there would be nothing to prove."""
    world = World()
    within(go(world, lambda x: x))
    assert BAD in world.done
    return world


def refused(go: Going, guard: Guard | None = None) -> Sequence[RunReport]:
    """Under a guard all happens that happens without one, but for the bad calls; its receipts say so."""
    free, world = bare(go), World()
    guard = guard or refusing()
    within(go(world, keeping(guard)))
    assert sorted(world.done) == sorted(what for what in free.done if what != BAD)
    runs = guard.report().runs
    assert {each.took_effect for run in runs for each in run.decisions} == {True}
    return runs


def halted(go: Going, guard: Guard | None = None) -> None:
    """Under a guard all happens that happens without one before the bad call, and nothing from there on."""
    free, world = bare(go), World()
    guard = guard or halting()
    within(go(world, keeping(guard)))
    assert world.done == free.done[: free.done.index(BAD)]
    assert took(guard) == [(Kind.HALT, True)]


def held(go: Going) -> None:
    """Both: a bad call is refused, and where the policy says so it ends the run."""
    refused(go)
    halted(go)


def took(guard: Guard) -> list[tuple[Kind, bool | None]]:
    """What was decided in all runs since it was last asked, and whether it took effect."""
    return [(each.kind, each.took_effect) for run in guard.report().runs for each in run.decisions]


def report(guard: Guard, x: Any) -> RunReport:
    """The report of the run begun last."""
    return guard.report(x.last_run).runs[0]


def acts(*things: str) -> list[Ask]:
    """A call for each of the things."""
    return [act(thing) for thing in things]


def act(thing: str, tool: str = "act") -> Ask:
    """A call about something."""
    return Ask(tool, {"q": thing}, id=f"{tool}-{thing}")


COURSE = (*acts("first", BAD, "after"), Say("all done"))
"""What an agent does: something before, the bad call, something after."""


def agent(name: str, world: World, *steps: Step, tools: Sequence[Any] = ("act",), **options: Any) -> AssistantAgent:
    """An agent with tools, by their names in that world, that plays a script, by default the usual course."""
    given: dict[str, Any] = {"max_tool_iterations": 9, "system_message": None, "description": name}
    if "workbench" not in options and tools:
        named = [each for each in tools if isinstance(each, str)]
        given["tools"] = [*tools_in(world, *named), *(each for each in tools if not isinstance(each, str))]
    client = options.pop("client", None) or client_of(*steps)
    return AssistantAgent(name, client, **{**given, **options})


class Slow(ScriptedChatClient):
    """A client that lets others have their turn meanwhile."""

    async def create(self, messages: Any, **kwargs: Any) -> CreateResult:
        """Answer a little later."""
        await asyncio.sleep(0.02)
        return await super().create(messages, **kwargs)


def client_of(*steps: Step) -> ScriptedChatClient:
    """A client that plays a script, by default the usual course."""
    return ScriptedChatClient(Script(*(steps or COURSE)))


def tools_in(world: World, *names: str) -> list[Any]:
    """Tools of that world, as AutoGen has them."""
    return [FunctionTool(function, description=function.__doc__ or "") for function in tools_of(world, tuple(names))]


def talker(name: str, *texts: str) -> AssistantAgent:
    """An agent that only talks."""
    return agent(name, World(), *map(Say, texts or (f"{name} speaks",)), tools=())


def alone(*members: Any, turns: int | None = None, **options: Any) -> RoundRobinGroupChat:
    """A team that goes round, by default once."""
    return RoundRobinGroupChat(list(members), max_turns=turns or len(members), **options)


async def read(stream: AsyncIterator[Any]) -> list[Any]:
    """All a stream gives."""
    return [item async for item in stream]


def told(result: Any) -> list[str]:
    """What was said, as the caller reads it."""
    return [f"{message.source}: {message.to_text()}" for message in result.messages]


@contextmanager
def logged() -> Iterator[list[str]]:
    """What misstep says in the log while the context is open."""
    said: list[str] = []
    log, handler = logging.getLogger("misstep"), logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    log.addHandler(handler)
    try:
        yield said
    finally:
        log.removeHandler(handler)


class Own(BaseChatAgent):
    """An agent of one's own: no model, and what it does it does by itself."""

    def __init__(self, name: str, does: Callable[[], Any] = lambda: "own words") -> None:
        super().__init__(name, "does things by itself")
        self.does = does

    @property
    def produced_message_types(self) -> Sequence[type[TextMessage]]:
        """Texts."""
        return (TextMessage,)

    async def on_messages(self, messages: Any, cancellation_token: CancellationToken) -> Response:
        """Do it, and tell of it."""
        done = self.does()
        text = await done if asyncio.iscoroutine(done) else done
        return Response(chat_message=TextMessage(content=str(text), source=self.name))

    async def on_reset(self, cancellation_token: CancellationToken) -> None:
        """Nothing to forget."""
