"""Where tools are called: workbenches of every kind, hand-offs, and what is done with results."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.base import Handoff
from autogen_agentchat.messages import TextMessage
from autogen_agentchat.teams import Swarm
from autogen_core import CancellationToken
from autogen_core.tools import (
    BaseStreamTool,
    StaticStreamWorkbench,
    StaticWorkbench,
    TextResultContent,
    ToolOverride,
    ToolResult,
    Workbench,
)
from autogen_ext.tools.mcp import McpWorkbench, StdioServerParams
from mcp.server.lowlevel import Server
from mcp.shared.memory import create_connected_server_and_client_session
from mcp.types import TextContent, Tool
from pydantic import BaseModel

from misstep.decisions import Kind
from misstep.events import ModelResponded, ToolRequested, ToolReturned
from misstep.testing import Ask, AskAll, Say
from misstep_autogen import guarded
from tests.conformance.decisions import BAD, bad_reply, bad_result, finds, guarding
from tests.conformance.host import World
from tests.enforcement.autogen.listed import AUTOGEN
from tests.enforcement.autogen.parts import (
    Going,
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
    tools_in,
    within,
)

ABOUT = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}
"""What a tool is given, as a JSON schema."""


class Bench(Workbench):
    """A workbench of one's own, as one for a server is: it knows no tool objects, and only `call_tool`."""

    component_type = "workbench"

    def __init__(self, call: Callable[[str], Any], name: str = "act") -> None:
        self.call, self.name = call, name

    async def list_tools(self) -> list[Any]:
        """The one tool."""
        return [{"name": self.name, "description": "act", "parameters": ABOUT}]

    async def call_tool(
        self, name: str, arguments: Any = None, cancellation_token: Any = None, call_id: str | None = None
    ) -> ToolResult:
        """Call it."""
        said = self.call(arguments["q"])
        said = await said if asyncio.iscoroutine(said) else said
        return ToolResult(name=name, result=[TextResultContent(content=str(said))])

    async def start(self) -> None:
        """Nothing to start."""

    async def stop(self) -> None:
        """Nothing to stop."""

    async def reset(self) -> None:
        """Nothing to reset."""

    async def save_state(self) -> Mapping[str, Any]:
        """Nothing to save."""
        return {}

    async def load_state(self, state: Mapping[str, Any]) -> None:
        """Nothing to load."""


def at(*workbenches: Workbench, **options: Any) -> Any:
    """Alice, who goes the usual course, at these workbenches."""
    return agent("alice", World(), workbench=list(workbenches), **options)


def on(bench: Callable[[World], Workbench]) -> Going:
    """Alice at one workbench."""

    async def go(world: World, keep: Keep) -> Any:
        await keep(alone(at(bench(world)))).run(task="go")

    return go


def raising(error: BaseException) -> Callable[[str], str]:
    """A call that raises where it is about something else than `first`."""

    def call(q: str) -> str:
        if q != "first":
            raise error
        return "fine"

    return call


@AUTOGEN.holds("a workbench that raises", "a workbench that is cancelled")
def raising_workbench() -> None:
    """A bare agent waits for ever; under guard the team comes to its end, its rules are heard, and it can go on."""
    for error in (ConnectionError("gone"), asyncio.CancelledError("gone"), KeyError(0)):
        guard, world = refusing(), World()
        team = guarded(alone(at(Bench(raising(error))), agent("bob", world, *acts(BAD, "by bob"), Say("end"))), guard)
        assert told(within(team.run(task="go"), 5))[-1] == "bob: end"
        assert world.done == ["by bob"]


@AUTOGEN.holds("a workbench that cannot list its tools")
def unlisted() -> None:
    """Where the list fails within the call a bare agent waits for ever; under guard the error comes out."""

    class Failing(Bench):
        asked = 0

        async def list_tools(self) -> list[Any]:
            self.asked += 1
            if self.asked == 2:
                raise ConnectionError("gone")
            return await super().list_tools()

    world = World()
    alice = guarded(at(Failing(world.act)), refusing())

    async def main() -> None:
        with pytest.raises(ConnectionError):
            await alice.run(task="go")
        await alice.run(task="again")

    within(main(), 5)
    assert world.done == ["after"]


@AUTOGEN.holds("a workbench of one's own", "a denied tool at the framework's own hook")
def own_workbench() -> None:
    """A workbench that only has `call_tool`."""
    held(on(lambda world: Bench(world.act)))


def serving(world: World) -> Server[Any, Any]:
    """An MCP server with one tool."""
    server: Server[Any, Any] = Server("world")

    @server.list_tools()  # type: ignore[no-untyped-call, untyped-decorator]
    async def tools() -> list[Tool]:
        return [Tool(name="act", description="act", inputSchema=ABOUT)]

    @server.call_tool()  # type: ignore[untyped-decorator]
    async def call(name: str, arguments: dict[str, Any]) -> list[TextContent]:
        return [TextContent(type="text", text=world.act(arguments["q"]))]

    return server


@AUTOGEN.holds("a tool of an MCP server")
def mcp() -> None:
    """A real server's tool, called by AutoGen's own workbench for servers."""

    async def go(world: World, keep: Keep) -> Any:
        async with create_connected_server_and_client_session(serving(world)) as session:
            workbench = McpWorkbench(StdioServerParams(command="unused"))
            workbench._actor = _Session(session)  # type: ignore[assignment]
            await keep(alone(at(workbench))).run(task="go")

    held(go)


class _Session:
    """Stands in for the process AutoGen's workbench starts: the session is one in memory."""

    def __init__(self, session: Any) -> None:
        self._session = session

    async def call(self, type_: str, arguments: Any = None) -> Any:
        """One request of the server."""
        result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if type_ == "list_tools":
            result.set_result(await self._session.list_tools())
        else:
            result.set_result(await self._session.call_tool(arguments["name"], arguments["kargs"]))
        return result


@AUTOGEN.holds("several workbenches")
def several() -> None:
    """Each of an agent's workbenches."""

    async def go(world: World, keep: Keep) -> Any:
        benches = Bench(world.look, "look"), Bench(world.act), StaticWorkbench(tools_in(world, "send"))
        steps = act("x", "look"), act(BAD), act("after"), Ask("send", {"order_id": "K1"}), act(BAD, "look")
        await keep(alone(agent("alice", world, *steps, Say("end"), workbench=list(benches)))).run(task="go")
        while f"look {BAD}" in world.done:
            world.done[world.done.index(f"look {BAD}")] = BAD

    held(go)


@AUTOGEN.holds("a workbench shared by two agents")
def shared() -> None:
    """One workbench at two agents, at work at once."""

    async def go(world: World, keep: Keep) -> Any:
        bench = Bench(world.act)
        members = [agent(name, world, act(name), act(BAD), Say("end"), workbench=bench) for name in ("alice", "bob")]
        await keep(alone(*members)).run(task="go")

    held(go)


@AUTOGEN.holds("a workbench added after attaching")
def added() -> None:
    """One that is put into the application's own list, before the run or by a tool in the middle of a turn."""

    async def before(world: World, keep: Keep) -> Any:
        benches: list[Workbench] = [Bench(world.look, "look")]
        team = keep(alone(agent("alice", world, workbench=benches)))
        benches.append(Bench(world.act))
        await team.run(task="go")

    async def meanwhile(world: World, keep: Keep) -> Any:
        benches: list[Workbench] = []
        benches.append(Bench(lambda q: benches.append(Bench(world.act)), "more"))
        steps = act("x", "more"), *acts("first", BAD, "after"), Say("end")
        await keep(agent("alice", world, *steps, workbench=benches)).run(task="go")

    held(before)
    held(meanwhile)


@AUTOGEN.declares(
    "a workbench that takes no attributes",
    why="AutoGen asks the object itself, and nothing can be put in its place; `guarded` raises TypeError by its name",
)
def unpatchable() -> None:
    """Its methods cannot be replaced, and the team is refused when it is attached, and left as it was."""

    class Closed(Bench):
        def __setattr__(self, name: str, value: Any) -> None:
            raise AttributeError("closed")

        @property
        def __dict__(self) -> Any:
            raise AttributeError("closed")

        call, name = staticmethod(lambda q: "done"), "act"

        def __init__(self) -> None:
            """Nothing to keep."""

    team = alone(at(Closed()))
    with pytest.raises(TypeError, match="`Closed` takes no attributes, so it cannot be guarded"):
        guarded(team, refusing())
    assert "misstep_patch" not in vars(team)
    within(team.run(task="go"))


@AUTOGEN.holds("a tool under another name")
def renamed() -> None:
    """A tool whose workbench gives it another name."""

    async def go(world: World, keep: Keep) -> Any:
        bench = StaticWorkbench(tools_in(world, "act"), {"act": ToolOverride(name="harmless")})
        steps = [act(what, "harmless") for what in ("first", BAD, "after")]
        await keep(alone(agent("alice", world, *steps, Say("end"), workbench=bench))).run(task="go")

    held(go)


class About(BaseModel):
    """What a streaming tool is given."""

    q: str


class Streaming(BaseStreamTool[About, TextMessage, str]):
    """A tool that streams."""

    def __init__(self, world: World) -> None:
        super().__init__(About, str, "act", "act")
        self._world = world

    async def run(self, args: About, cancellation_token: CancellationToken) -> str:
        """Never called."""
        raise NotImplementedError

    async def run_stream(self, args: About, cancellation_token: CancellationToken) -> Any:
        """Act, and tell of it."""
        yield TextMessage(content=self._world.act(args.q), source="act")
        yield "done"


@AUTOGEN.holds("a tool that streams")
def streaming() -> None:
    """A tool that is called by `call_tool_stream`."""
    held(on(lambda world: StaticStreamWorkbench([Streaming(world)])))


# -- hand-offs

TO_BOB = Ask("transfer_to_bob", id="h")

NO_HAND_OFF = finds(ToolRequested, lambda event: event.tool.startswith("transfer"))


def handing(world: World, *steps: Any, **options: Any) -> Swarm:
    """A swarm whose first agent may hand over to one that acts."""
    first = agent("alice", world, *steps, handoffs=[Handoff(target="bob"), Handoff(target="carol")], **options)
    bob = agent("bob", world, *acts("by bob"), Say("bob is done"))
    return Swarm([first, bob, agent("carol", world, *acts("by carol"), Say("carol is done"))], max_turns=2)


@AUTOGEN.holds("a hand-off that is refused")
def refused_hand_off() -> None:
    """The turn goes to nobody else."""
    free, world = World(), World()
    within(handing(free, TO_BOB).run(task="go"))
    guard = guarding(NO_HAND_OFF, {"refuse": 9})
    within(guarded(handing(world, TO_BOB, Say("kept it")), guard).run(task="go"))
    assert (free.done, world.done) == (["by bob"], [])
    assert took(guard) == [(Kind.REFUSE, True)]


@AUTOGEN.holds("a hand-off tool that raises")
def raising_hand_off() -> None:
    """A bare agent waits for ever; under guard the run comes to its end."""
    world = World()
    team = handing(world, TO_BOB)
    tool = team._participants[0]._handoff_tools[0]  # type: ignore[union-attr]

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise ConnectionError("gone")

    object.__setattr__(tool, "run_json", fail)
    result = within(guarded(team, refusing()).run(task="go"), 5)
    assert any("Error: gone" in text for text in told(result))


@AUTOGEN.holds("a hand-off beside a refused call")
def beside() -> None:
    """The hand-off is made, the call is not, and the next agent reads the objection as its result."""

    async def go(world: World, keep: Keep) -> Any:
        await keep(handing(world, AskAll((act("first"), act(BAD), TO_BOB)))).run(task="go")

    refused(go)


@AUTOGEN.holds("two hand-offs in one reply")
def two_hand_offs() -> None:
    """Where the first is refused neither it nor the second is followed."""
    world, guard = World(), guarding(NO_HAND_OFF, {"refuse": 9})
    both = AskAll((TO_BOB, Ask("transfer_to_carol", id="i")))
    with pytest.warns(UserWarning, match="Multiple handoffs"):
        within(guarded(handing(world, both, Say("kept it")), guard).run(task="go"))
    assert world.done == []


# -- cancelled, and too late


async def slow(q: str) -> str:
    """Take long."""
    await asyncio.sleep(0.3)
    return "late"


@AUTOGEN.holds("cancelled with a tool in flight", "a run that is cancelled in a call")
def cancelled() -> None:
    """A bare agent waits for ever; under guard the run is cancelled by its token, and the next one is judged."""
    for team in (False, True):
        world, guard = World(), refusing()
        alice: Any = agent("alice", world, act("x", "slow"), *acts(BAD, "after"), Say("end"), tools=("act", slow))
        x = guarded(alone(alice) if team else alice, guard)

        async def main(x: Any = x) -> None:
            token = CancellationToken()
            asyncio.get_running_loop().call_later(0.05, token.cancel)
            with pytest.raises(asyncio.CancelledError):
                await x.run(task="go", cancellation_token=token)
            await x.run(task="again")

        within(main(), 5)
        assert world.done == ["after"]


@AUTOGEN.holds("a tool that outlives its run")
def outlives() -> None:
    """An agent it goes on to call after the end is no part of that run, and guarded it is a run of its own."""
    world, guard = World(), refusing()
    later: list[asyncio.Task[Any]] = []

    async def main() -> None:
        helper = guarded(agent("helper", world), guard)

        async def start(q: str) -> str:
            """Start something."""

            async def afterwards() -> None:
                await asyncio.sleep(0.05)
                await helper.run(task="late")

            later.append(asyncio.ensure_future(afterwards()))
            return "started"

        await guarded(agent("alice", world, act("x", "start"), Say("end"), tools=[start]), guard).run(task="go")
        await asyncio.gather(*later)

    within(main())
    assert world.done == ["first", "after"]
    assert [len(run.decisions) for run in guard.report().runs] == [0, 1]


# -- what is done with results

WITHHOLD = finds(ToolReturned, bad_result)


def looking(world: World, **options: Any) -> AssistantAgent:
    """An agent that looks something up."""
    return agent("alice", world, act("mia", "look"), Say("all done"), tools=("look",), **options)


@AUTOGEN.holds("no tool iteration left")
def last_iteration() -> None:
    """Where results are the answer, a withheld one is not in it, and nobody after hears it."""
    guard, world, bob = guarding(WITHHOLD, {"refuse": 9}), World(), client_of(Say("fine"))
    team = guarded(alone(looking(world, max_tool_iterations=1), agent("bob", world, client=bob, tools=())), guard)
    result = within(team.run(task="go"))
    assert world.done == ["look mia"]
    assert not any("K7310" in text for text in [*told(result), *bob.script.seen[0]])


@AUTOGEN.holds("a reflection on tool use")
def reflection() -> None:
    """The one more call of the model is judged as any other, and reads what was withheld as such."""
    guard, world = guarding(finds(ModelResponded, bad_reply), {"retry": 1}), World()
    client = client_of(act("mia", "look"), Say("bad words"), Say("good words"))
    alice = guarded(looking(world, client=client, max_tool_iterations=1, reflect_on_tool_use=True), guard)
    assert told(within(alice.run(task="go")))[-1] == "alice: good words"
    assert took(guard) == [(Kind.RETRY, True)]


@AUTOGEN.holds("a loop of tool iterations")
def iterations() -> None:
    """The call of every iteration is judged, and a halt leaves none of those that were to come."""

    async def go(world: World, keep: Keep) -> Any:
        things = [f"{number}" for number in range(6)]
        await keep(agent("alice", world, *acts(*things, BAD, "after"), Say("end"), max_tool_iterations=20)).run(task="")

    held(go)
