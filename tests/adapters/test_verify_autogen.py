"""`verify` on AutoGen: it finds every way a guard is absent, and calls no sound app broken."""

from __future__ import annotations

import asyncio
import copy
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("autogen_agentchat")

from autogen_agentchat.agents import (
    ApprovalResponse,
    AssistantAgent,
    BaseChatAgent,
    CodeExecutorAgent,
    MessageFilterAgent,
    MessageFilterConfig,
    PerSourceFilter,
    SocietyOfMindAgent,
    UserProxyAgent,
)
from autogen_agentchat.base import ChatAgent, Response, Team
from autogen_agentchat.conditions import MaxMessageTermination, TextMentionTermination
from autogen_agentchat.messages import TextMessage
from autogen_agentchat.teams import (
    DiGraphBuilder,
    GraphFlow,
    MagenticOneGroupChat,
    RoundRobinGroupChat,
    SelectorGroupChat,
    Swarm,
)
from autogen_agentchat.tools import AgentTool, TeamTool
from autogen_core import CancellationToken, SingleThreadedAgentRuntime
from autogen_core.code_executor import CodeExecutor, CodeResult
from autogen_core.memory import ListMemory, Memory, MemoryContent, MemoryMimeType
from autogen_core.models import ChatCompletionClient
from autogen_core.tools import BaseTool, FunctionTool, StaticStreamWorkbench, StaticWorkbench, ToolResult, Workbench
from autogen_ext.models.replay import ReplayChatCompletionClient
from autogen_ext.tools.mcp import McpWorkbench, StdioServerParams
from pydantic import BaseModel
from typer.testing import CliRunner

from misstep import Guard, Policy, VerificationError
from misstep.cli import app as cli
from misstep.events import Event
from misstep.seats import Seat
from misstep.testing import Say, Script
from misstep.verification import Standing
from misstep_autogen import guarded, unguard
from misstep_autogen.testing import ScriptedChatClient
from tests.adapters.verifying import REAL, idle, not_protected, nothing_real, real, standing

__all__ = ["nothing_real"]


def client() -> ScriptedChatClient:
    """A model of the application's."""
    return ScriptedChatClient(Script(real))


async def pay(amount: int) -> str:
    """Pay an amount."""
    REAL.append("tool")
    return "paid"


async def look(q: str) -> str:
    """Look something up."""
    REAL.append("tool")
    return "found"


def ask(prompt: str) -> str:
    """A person who must never be asked."""
    REAL.append("person")
    return "yes"


def approve(request: Any) -> ApprovalResponse:
    """Another one."""
    REAL.append("person")
    return ApprovalResponse(approved=True, reason="")


def agent(name: str = "a", **options: Any) -> AssistantAgent:
    """An agent with a tool."""
    return AssistantAgent(name, client(), **{"tools": [look], **options})


def circle(*agents: Any, **options: Any) -> RoundRobinGroupChat:
    """A team that goes round."""
    return RoundRobinGroupChat([*(agents or (agent("a"), agent("b")))], **options)


class Machine(CodeExecutor):
    """Runs code, and says so."""

    async def execute_code_blocks(self, code_blocks: Any, cancellation_token: Any) -> CodeResult:
        """Run it."""
        REAL.append("code")
        return CodeResult(exit_code=0, output="done")

    async def start(self) -> None:
        """Begin."""
        REAL.append("machine")

    async def stop(self) -> None:
        """End."""
        REAL.append("machine")

    async def restart(self) -> None:
        """Begin anew."""
        REAL.append("machine")

    def _to_config(self) -> Any:
        raise NotImplementedError


class Server(Workbench):
    """Tools of somebody else's, which would have to be asked for them."""

    async def list_tools(self) -> list[Any]:
        """Ask for the tools."""
        REAL.append("server")
        return []

    async def call_tool(self, name: str, *args: Any, **kwargs: Any) -> ToolResult:
        """Call one."""
        REAL.append("server")
        return ToolResult(name=name, result=[])

    async def start(self) -> None:
        """Begin."""
        REAL.append("server")

    async def stop(self) -> None:
        """End."""
        REAL.append("server")

    async def reset(self) -> None:
        """Begin anew."""
        REAL.append("server")

    async def save_state(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    async def load_state(self, state: Any) -> None:
        """Nothing."""


class Custom(BaseChatAgent):
    """An agent of the application's own, whose turn is `body`."""

    def __init__(self, name: str, body: Callable[[], Any]) -> None:
        super().__init__(name, "its own")
        self.body = body

    @property
    def produced_message_types(self) -> Any:
        """A text."""
        return (TextMessage,)

    async def on_messages(self, messages: Any, cancellation_token: Any) -> Response:
        """Its turn."""
        return Response(chat_message=TextMessage(content=str(await self.body()), source=self.name))

    async def on_reset(self, cancellation_token: Any) -> None:
        """Nothing."""


class Answer(BaseModel):
    """What an agent answers with."""

    number: int
    text: str


# -- sound


def flow() -> GraphFlow:
    """A flow that parts."""
    a, b, c = agent("a"), agent("b"), agent("c")
    graph = DiGraphBuilder().add_node(a).add_node(b).add_node(c).add_edge(a, b).add_edge(a, c)
    return GraphFlow([a, b, c], graph=graph.build())


def filtered() -> MessageFilterAgent:
    """An agent that hears only part of what is said."""
    only = MessageFilterConfig(per_source=[PerSourceFilter(source="user", position="last", count=1)])
    return MessageFilterAgent("f", agent("a"), only)


def remembering() -> AssistantAgent:
    """An agent with a memory."""
    memory = ListMemory("m", [MemoryContent(content="it rains", mime_type=MemoryMimeType.TEXT)])
    return agent(memory=[memory])


def on_a_runtime() -> RoundRobinGroupChat:
    """A team on a runtime of the application's."""
    return circle(runtime=SingleThreadedAgentRuntime())


def traced(team: RoundRobinGroupChat) -> RoundRobinGroupChat:
    """A team whose methods somebody has wrapped over the guard's."""
    run_stream = team.run_stream
    team.run_stream = lambda *args, **kwargs: run_stream(*args, **kwargs)  # type: ignore[method-assign]
    workbench: Any = team._participants[0]._workbench[0]  # type: ignore[union-attr]
    call = workbench.call_tool_stream
    workbench.call_tool_stream = lambda *args, **kwargs: call(*args, **kwargs)
    return team


def later(team: Any) -> Any:
    """A team that has come to hold more since it was guarded."""
    first = team._participants[0]
    first._model_client = client()
    first._workbench = [StaticStreamWorkbench([FunctionTool(pay, "pays", name="pay")])]
    return team


def ever() -> RoundRobinGroupChat:
    """A team that nothing but a word of a model ends."""
    return circle(termination_condition=TextMentionTermination("APPROVE"))


SOUND: dict[str, Callable[[], Any]] = {
    "a lone agent": agent,
    "an agent that streams": lambda: agent(model_client_stream=True, reflect_on_tool_use=True),
    "reflection": lambda: agent(reflect_on_tool_use=True, max_tool_iterations=3, tools=[look, pay]),
    "a structured answer": lambda: agent(output_content_type=Answer),
    "memory": remembering,
    "a circle": circle,
    "one turn a run": lambda: circle(max_turns=1),
    "few messages a run": lambda: circle(termination_condition=MaxMessageTermination(3)),
    "no end": ever,
    "a selector": lambda: SelectorGroupChat([agent("a"), agent("b"), agent("c")], client()),
    "a selector that streams": lambda: SelectorGroupChat(
        [agent("a"), agent("b")], client(), model_client_streaming=True
    ),
    "a selecting function": lambda: SelectorGroupChat(
        [agent("a"), agent("b")], client(), selector_func=lambda said: "b" if said[-1].source == "a" else None
    ),
    "a swarm": lambda: Swarm([agent("a", handoffs=["b", "c"]), agent("b", handoffs=["a"]), agent("c")]),
    "a flow": flow,
    "a team in a team": lambda: circle(agent("x"), circle(name="inner", max_turns=2)),
    "a society of mind": lambda: circle(SocietyOfMindAgent("mind", circle(max_turns=2), client()), agent("x")),
    "a society of mind without an end": lambda: SocietyOfMindAgent("mind", circle(), client()),
    "an agent as a tool": lambda: agent(tools=[AgentTool(agent("inner")), look]),
    "a team as a tool": lambda: agent(tools=[TeamTool(circle(agent("x"), agent("y"), max_turns=2), "t", "a team")]),
    "a filter": lambda: circle(filtered(), agent("x")),
    "an orchestrator": lambda: MagenticOneGroupChat([agent("a"), agent("b")], client()),
    "a person": lambda: circle(agent("a"), UserProxyAgent("p", input_func=ask)),
    "code of a model's": lambda: CodeExecutorAgent("c", Machine(), model_client=client(), approval_func=approve),
    "code of somebody else's": lambda: circle(agent("a"), CodeExecutorAgent("c", Machine(), approval_func=approve)),
    "a server's tools": lambda: agent(tools=None, workbench=Server()),
    "a runtime of its own": on_a_runtime,
}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_app_is_protected_in_every_way_it_is_run(name: str) -> None:
    """Whatever AutoGen makes a team of, it is protected once it is guarded, and nothing of it is unknown."""
    guard = Guard()
    found = guard.verify(guarded(SOUND[name](), guard))
    assert found.verdict == "protected"
    assert {"run", "run_stream", "run with messages", "resumed", "halted"} <= set(found.ways)
    assert found.attached == "misstep_autogen.guarded"


@pytest.mark.parametrize("name", SOUND)
def test_the_same_app_without_a_guard_is_not_in_the_path_anywhere(name: str) -> None:
    """Nothing of what a guard would have stopped is taken for stopped where there is none."""
    found = Guard().verify(SOUND[name]())
    assert found.broken
    assert found.headline == "not protected"
    assert {each.standing for each in found.checked} == {Standing.NOT_IN_PATH}


@pytest.mark.parametrize("name", ["a circle", "a selector", "an orchestrator"])
def test_a_run_with_no_guard_shows_it_without_the_walk(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The canary itself finds every model and tool that nobody judges."""
    monkeypatch.setattr("misstep_autogen.verify.parts", lambda *args, **kwargs: iter(()))
    found = Guard().verify(SOUND[name]())
    assert {Seat.MODEL, Seat.TOOL} == {each.seat for each in found.checked}
    assert {each.standing for each in found.checked} == {Standing.NOT_IN_PATH}


def test_every_way_of_a_team_and_of_an_agent() -> None:
    """A team and an agent are run in each way AutoGen has, in copies too, and halted."""
    guard = Guard()
    team = guard.verify(guarded(circle(), guard)).ways
    lone = guard.verify(guarded(agent(), guard)).ways
    copies = ("resumed", "copy", "copies at once", "halted", "halted stream")
    assert team == ("run", "run_stream", "run with messages", *copies)
    assert lone == ("run", "run_stream", "run with messages", "on_messages", "on_messages_stream", *copies)


@pytest.mark.parametrize("on_halt", ["return", "raise"])
def test_a_halt_may_be_raised(on_halt: Any) -> None:
    """A halted run is ended as the application wants it to end."""
    guard = Guard()
    assert guard.verify(guarded(circle(), guard, on_halt=on_halt)).protected


def test_what_calls_the_guard_in_its_turn_is_sound() -> None:
    """A method somebody put over the guard's that calls it is no leak."""
    guard = Guard()
    assert guard.verify(traced(guarded(circle(), guard))).verdict == "protected"


def test_what_a_team_comes_to_hold_is_verified() -> None:
    """A model client and a workbench that were put in after `guarded` are guarded, and so verified."""
    guard = Guard()
    found = guard.verify(later(guarded(circle(), guard)))
    assert found.verdict == "protected"
    assert standing(found, Seat.TOOL, "a/pay") == {Standing.ENFORCED}


def test_a_hand_off_and_a_participant_that_came_later_are_verified() -> None:
    """What is appended to a team's lists after `guarded` is found by the canary, and enforced."""
    guard = Guard()
    team: Any = guarded(circle(), guard)
    new = agent("c", handoffs=["a"])
    team._participants.append(new)
    team._participant_names.append("c")
    team._participant_descriptions.append("new")
    team._participant_topic_types.append(f"c_{team._team_id}")
    found = guard.verify(team)
    assert found.verdict == "protected"
    assert standing(found, Seat.TOOL, "c/transfer_to_a") == {Standing.ENFORCED}


def test_an_agent_guarded_by_itself_in_a_team_that_is_not() -> None:
    """A team without a model of its own is as safe as its agents are; nobody says that it is guarded itself."""
    guard = Guard()
    found = guard.verify(circle(guarded(agent("a"), guard), guarded(agent("b"), guard)))
    assert found.verdict == "protected"
    assert found.attached == ""


def test_a_team_that_has_run_goes_on_as_it_stood() -> None:
    """A conversation of before is not changed, the live manager is verified, and the team goes on in its event loop."""

    async def talk() -> None:
        team: Any = circle(max_turns=2)
        for each in team._participants:
            each._model_client.script = Script(*[Say("fine")] * 4)
        await team.run(task="hello")
        guard = Guard()
        guarded(team, guard)
        before = await team.save_state()
        found = await asyncio.to_thread(guard.verify, team)
        assert found.verdict == "protected"
        assert await team.save_state() == before
        assert len((await team.run(task="again")).messages) == 3

    asyncio.run(talk())


# -- broken


def bypassed_run() -> Any:
    """A team whose run somebody has put back."""
    team = circle()
    guard = Guard()
    run_stream = team.run_stream
    guarded(team, guard)
    team.run_stream = lambda *args, **kwargs: run_stream(*args, **kwargs)  # type: ignore[method-assign]
    return team, guard


def bypassed_turn() -> Any:
    """An agent whose turns somebody has put back."""
    team: Any = circle()
    guard = Guard()
    turn = team._participants[0].on_messages_stream
    guarded(team, guard)
    team._participants[0].on_messages_stream = lambda *args, **kwargs: turn(*args, **kwargs)
    return team, guard


def bypassed_tool() -> Any:
    """A workbench whose calls somebody has put back."""
    lone: Any = agent()
    guard = Guard()
    call = lone._workbench[0].call_tool_stream
    guarded(lone, guard)
    lone._workbench[0].call_tool_stream = lambda *args, **kwargs: call(*args, **kwargs)
    return lone, guard


def bypassed_hand_off() -> Any:
    """A hand-off somebody has put back."""
    swarm: Any = Swarm([agent("a", handoffs=["b"]), agent("b")])
    guard = Guard()
    tool = swarm._participants[0]._handoff_tools[0]
    call = tool.run_json
    guarded(swarm, guard)
    tool.run_json = lambda *args, **kwargs: call(*args, **kwargs)
    return swarm, guard


def bypassed_choice() -> Any:
    """A manager whose choice of a speaker somebody has put back."""
    team: Any = circle(max_turns=1)
    guard = Guard()
    guarded(team, guard)
    asyncio.run(team.save_state())
    manager = next(
        each for id_, each in team._runtime._instantiated_agents.items() if id_.type.startswith("RoundRobin")
    )
    manager.select_speaker = type(manager).select_speaker.__get__(manager)
    return team, guard


def bare_selector() -> Any:
    """A selecting team that is not guarded, though its agents are."""
    guard = Guard()
    return SelectorGroupChat([guarded(agent("a"), guard), guarded(agent("b"), guard)], client()), guard


def half() -> Any:
    """A team of which one agent is guarded."""
    guard = Guard()
    return circle(guarded(agent("a"), guard), agent("b")), guard


def two_guards() -> Any:
    """An agent with a guard of its own in a team that has another."""
    team, guard = circle(agent("a"), guarded(agent("b"), Guard())), Guard()
    return guarded(team, guard), guard


def another() -> Any:
    """A team guarded by another guard than the one that is asked."""
    return guarded(circle(), Guard()), Guard()


def let_go() -> Any:
    """A team that was guarded."""
    guard = Guard()
    return unguard(guarded(circle(), guard)), guard


def loaded() -> Any:
    """A team made anew from a guarded one's component."""
    guard = Guard()
    team = circle(AssistantAgent("a", ReplayChatCompletionClient(["x"])))
    component = guarded(team, guard).dump_component()
    return RoundRobinGroupChat.load_component(component), guard


BROKEN: dict[str, tuple[Callable[[], Any], Seat, str]] = {
    "run_stream put back": (bypassed_run, Seat.RUN, "run"),
    "a turn put back": (bypassed_turn, Seat.TURN, "a"),
    "a workbench put back": (bypassed_tool, Seat.TOOL, "a/look"),
    "a hand-off put back": (bypassed_hand_off, Seat.TOOL, "a/transfer_to_b"),
    "a choice put back": (bypassed_choice, Seat.TURN, "RoundRobinGroupChatManager"),
    "a bare selector": (bare_selector, Seat.MODEL, "SelectorGroupChatManager"),
    "half a team": (half, Seat.MODEL, "b"),
    "two guards": (two_guards, Seat.MODEL, "b"),
    "another guard": (another, Seat.MODEL, "a"),
    "unguarded": (let_go, Seat.MODEL, "b"),
    "a component": (loaded, Seat.MODEL, "a"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_gets_past_the_guard_is_named(name: str) -> None:
    """A set-up that lets something past is broken, and the part is named."""
    make, seat, part = BROKEN[name]
    app, guard = make()
    found = guard.verify(app)
    assert found.broken
    assert standing(found, seat, part) == {Standing.NOT_IN_PATH}
    assert not found.protected


def test_what_is_enforced_beside_a_leak_is_said_to_be() -> None:
    """Only the part that leaks is held against a team."""
    app, guard = bypassed_hand_off()
    assert [(each.seat, each.part) for each in guard.verify(app).exceptions] == [(Seat.TOOL, "a/transfer_to_b")]


@idle
def test_a_guard_that_is_switched_off_protects_nothing(guard: Guard, reason: str) -> None:
    """However well it is attached: what keeps it from acting is said."""
    not_protected(guard.verify(guarded(circle(), guard)), reason)


def test_a_client_called_by_hand_is_not_in_the_path() -> None:
    """A custom agent's model that no seat knows is found once its body is run; before, it is not known."""
    guard, hidden = Guard(), [client()]

    async def body() -> Any:
        return (await hidden[0].create([])).content

    team = guarded(circle(agent("a"), Custom("own", body)), guard)
    unknown = guard.verify(team)
    assert not unknown.protected
    assert not unknown.broken
    assert "run it with `bodies`" in unknown.verdict
    found = guard.verify(team, bodies=True)
    assert standing(found, Seat.MODEL, "own") == {Standing.NOT_IN_PATH}


def test_a_tool_called_by_hand_is_not_in_the_path() -> None:
    """A custom agent that calls its tool itself is found once its body is run."""
    guard, tool = Guard(), FunctionTool(pay, "pays", name="pay")

    async def body() -> Any:
        return await tool.run_json({"amount": 1}, CancellationToken())

    team = guarded(circle(agent("a"), Custom("own", body)), guard)
    assert not guard.verify(team).protected
    found = guard.verify(team, bodies=True)
    assert standing(found, Seat.TOOL, "own/pay") == {Standing.NOT_IN_PATH}


def test_a_custom_agent_with_a_client_misstep_knows_is_enforced_with_its_body() -> None:
    """What an agent of the application's own keeps as an attribute is guarded, and run with `bodies`."""
    guard = Guard()

    async def body() -> Any:
        return (await own.mine.create([])).content

    own: Any = Custom("own", body)
    own.mine = client()
    team = guarded(circle(agent("a"), own), guard)
    assert standing(guard.verify(team), Seat.MODEL, "own") == {Standing.NOT_EXERCISED}
    assert guard.verify(team, bodies=True).verdict == "protected"


def helper(inner: Any) -> FunctionTool:
    """An agent in a function that is a tool."""

    async def ask_inner(task: str) -> str:
        """Have somebody else do it."""
        return str((await inner.run(task=task)).messages[-1].to_model_text())

    return FunctionTool(ask_inner, "asks", name="helper")


def test_an_agent_in_a_tools_closure_is_taken_into_the_run() -> None:
    """It is not known without its body, and enforced with it."""
    guard = Guard()
    lone = guarded(agent(tools=[helper(agent("inner"))]), guard)
    found = guard.verify(lone)
    assert standing(found, Seat.MODEL, "a/helper") == {Standing.NOT_EXERCISED}
    assert not found.broken
    found = guard.verify(lone, bodies=True)
    assert found.verdict == "protected"
    assert standing(found, Seat.TOOL, "a/inner/look") == {Standing.ENFORCED}


def test_an_agent_in_a_tools_closure_with_another_guard() -> None:
    """An agent in a tool that another guard holds is not in this one's path, which shows without a run."""
    guard = Guard()
    lone = guarded(agent(tools=[helper(guarded(agent("inner"), Guard()))]), guard)
    assert standing(guard.verify(lone), Seat.MODEL, "a/helper") == {Standing.NOT_IN_PATH}


# -- nothing real, nothing left behind


def test_methods_of_a_parts_own_are_not_called() -> None:
    """A client, a tool and a workbench whose methods somebody replaced before `guarded` do nothing real."""
    lone: Any = agent(tools=[FunctionTool(pay, "pays", name="pay")])

    async def tell(*args: Any, **kwargs: Any) -> Any:
        REAL.append("own method")

    lone._model_client.create = tell
    lone._workbench[0]._tools[0].run_json = tell
    guard = Guard()
    assert guard.verify(guarded(lone, guard)).verdict == "protected"


def test_a_workbench_replaced_by_somebody_elses_is_not_called() -> None:
    """A method in the guard's place that does not call it is broken, and not called either."""
    lone: Any = agent()
    guard = Guard()
    guarded(lone, guard)

    async def tell(*args: Any, **kwargs: Any) -> Any:
        REAL.append("own method")
        yield ToolResult(name="look", result=[])

    lone._workbench[0].call_tool_stream = tell
    found = guard.verify(lone)
    assert standing(found, Seat.TOOL, "a/look") == {Standing.NOT_IN_PATH}
    assert lone._workbench[0].call_tool_stream is tell


def test_an_mcp_server_is_not_started(tmp_path: Path) -> None:
    """A server's command is never run, though its workbench is called."""
    mark = tmp_path / "started"
    workbench = McpWorkbench(StdioServerParams(command="touch", args=[str(mark)]))
    guard = Guard()
    found = guard.verify(guarded(agent(tools=None, workbench=workbench), guard))
    assert standing(found, Seat.TOOL, "a/McpWorkbench-tool") == {Standing.ENFORCED}
    assert not found.broken
    assert not mark.exists()


class Kept:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        """Keep it."""
        self.events.append(event)

    def close(self) -> None:
        """Nothing."""


ROOTS = (ChatCompletionClient, BaseTool, Workbench, CodeExecutor, Memory, ChatAgent, Team)


def classes() -> dict[type, dict[str, Any]]:
    """Every class a stub may touch, with what it defines; not what Python itself notes there when it copies."""
    found: dict[type, dict[str, Any]] = {}
    rest: list[type] = list(ROOTS)
    while rest:
        cls = rest.pop()
        found[cls] = {name: value for name, value in vars(cls).items() if name != "__slotnames__"}
        rest.extend(cls.__subclasses__())
    return found


def attributes(app: Any) -> list[tuple[Any, ...]]:
    """What an app's agents, teams and tools have for attributes."""
    things = [app, *app._participants]
    things += [workbench for each in app._participants for workbench in getattr(each, "_workbench", ())]
    return [tuple(sorted((name, id(value)) for name, value in vars(thing).items())) for thing in things]


async def _hang() -> Any:
    await asyncio.Event().wait()


async def _raise() -> Any:
    raise ZeroDivisionError("of the application's")


async def _talk() -> Any:
    return "fine"


@pytest.mark.parametrize("body", [_talk, _raise, _hang])
def test_nothing_is_left_behind(body: Any) -> None:
    """App, guard and classes are as before, also where a run raises or does not end."""
    sink, policy = Kept(), Policy()
    guard = Guard(policy, sink=sink, mode="shadow")
    team: Any = guarded(circle(agent("a"), Custom("own", body)), guard)
    state = asyncio.run(team.save_state())
    held, of_classes, threads = attributes(team), classes(), threading.active_count()
    found = guard.verify(team, bodies=True, deadline=0.5 if body is _hang else 60.0)
    if body is _hang:
        assert "it did not end within 0.5 s" in found.verdict
    assert classes() == of_classes
    assert attributes(team) == held
    assert asyncio.run(team.save_state()) == state
    assert (guard.policy, guard.mode, guard.open_runs) == (policy, "shadow", ())
    assert guard.report().runs == ()
    assert sink.events == []
    assert threading.active_count() == threads


def test_a_run_that_was_given_up_does_nothing_more() -> None:
    """What does not end in time is cancelled, so that it never comes to a real model."""
    hidden, woken = [client()], threading.Event()

    async def body() -> Any:
        try:
            await asyncio.sleep(1.5)
        finally:
            woken.set()
        return (await hidden[0].create([])).content

    guard = Guard()
    guard.verify(guarded(circle(Custom("own", body)), guard), bodies=True, deadline=0.3)
    assert woken.is_set()
    time.sleep(1.5)


def test_another_guard_hears_nothing() -> None:
    """A guard inside the app that is not verified has none of the canary's runs in its books."""
    sink = Kept()
    other, guard = Guard(sink=sink), Guard()
    guard.verify(guarded(circle(agent("a"), guarded(agent("b"), other)), guard))
    assert sink.events == []
    assert other.report().runs == ()


def test_no_guard_at_work_is_verified() -> None:
    """With a run open it is refused."""
    guard = Guard()
    team = guarded(circle(), guard)
    guard.open("a run")
    with pytest.raises(VerificationError, match="1 open runs"):
        guard.verify(team)


def test_what_is_no_team_is_refused() -> None:
    """A condition is no app."""
    with pytest.raises(TypeError, match="is no AutoGen team or agent"):
        Guard().verify(MaxMessageTermination(1))


def test_an_input_of_the_applications() -> None:
    """It is run with the task that is given, as text or as messages."""
    guard = Guard()
    heard: list[str] = []

    async def body() -> Any:
        return "fine"

    class Hearing(Custom):
        async def on_messages(self, messages: Any, cancellation_token: Any) -> Response:
            heard.extend(each.content for each in messages)
            return await super().on_messages(messages, cancellation_token)

    team = guarded(circle(Hearing("own", body), agent("a")), guard)
    assert not guard.verify(team, inputs="a task of ours", bodies=True).broken
    assert not guard.verify(team, inputs=[TextMessage(content="another", source="user")], bodies=True).broken
    assert {"a task of ours", "another"} <= set(heard)


def test_a_copy_is_guarded_as_its_original() -> None:
    """A deep copy of a guarded team is verified like it."""
    guard = Guard()
    assert guard.verify(copy.deepcopy(guarded(circle(), guard))).verdict == "protected"


# -- the command line


MODULE = """
from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_ext.models.replay import ReplayChatCompletionClient

from misstep import Guard
from misstep_autogen import guarded


def bare():
    return RoundRobinGroupChat([AssistantAgent("a", ReplayChatCompletionClient(["never"]))], max_turns=1)


def team():
    return guarded(bare(), Guard())


nothing = 1
"""


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 0 where a team is protected, 1 where it is not, 2 where there is no team."""
    (tmp_path / "autogen_app.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    results = {name: CliRunner().invoke(cli, ["verify", f"autogen_app:{name}"]) for name in ("team", "bare", "nothing")}
    assert {name: result.exit_code for name, result in results.items()} == {"team": 0, "bare": 1, "nothing": 2}
    assert "RoundRobinGroupChat: protected" in results["team"].output
    assert "nothing is guarded" in results["bare"].output


def test_a_static_workbench_that_does_not_stream() -> None:
    """Tools of a plain workbench are called in another way, and judged there."""
    guard = Guard()
    bench = StaticWorkbench([FunctionTool(pay, "pays", name="pay")])
    assert guard.verify(guarded(agent(tools=None, workbench=bench), guard)).verdict == "protected"
