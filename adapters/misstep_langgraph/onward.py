"""How a run goes on from another state than its last: with another agent, or from before the misstep."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.channels import BinaryOperatorAggregate, DeltaChannel
from langgraph.graph import END
from langgraph.types import Command

from misstep.decisions import Refuse, Reprompt, Reroute, RollBack
from misstep.events import CheckpointRestored, ModelResponded
from misstep.guard import Guard
from misstep.judge import UNCHECKED
from misstep.session import PASSED, Session, Verdict

_LEFT = "[misstep] The turn went to another agent before this call was answered."
_NO_STATE = "no checkpoint before it was found: its call is refused, or its model told, in the state as it is"


class Way(NamedTuple):
    """What the graph is to be run with."""

    input: Any
    config: RunnableConfig | None


class Step(NamedTuple):
    """A method of the graph that has an async twin, and its arguments."""

    method: str
    arguments: tuple[Any, ...]


Steps = Generator[Step, Any, Way]


def perform(graph: Any, steps: Steps) -> Way:
    """Carry out the steps."""
    play = _Play(steps)
    while (step := play.advance()) is not None:
        try:
            play.answer = getattr(graph, step.method)(*step.arguments)
        except Exception as error:
            play.error = error
    return play.way


async def aperform(graph: Any, steps: Steps) -> Way:
    """`perform` for async code."""
    play = _Play(steps)
    while (step := play.advance()) is not None:
        try:
            play.answer = await getattr(graph, f"a{step.method}")(*step.arguments)
        except Exception as error:
            play.error = error
    return play.way


class _Play:
    """Both drivers but for the line that waits."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self.answer: Any = None
        self.error: Exception | None = None
        self.way = Way(None, None)

    def advance(self) -> Step | None:
        error, self.error = self.error, None
        try:
            return self._steps.throw(error) if error is not None else self._steps.send(self.answer)
        except StopIteration as end:
            self.way = end.value
            return None


@dataclass(slots=True)
class Origins:
    """Where model calls were made, by their batch: the path of the task, the guarded graph's checkpoint under it."""

    known: OrderedDict[str, tuple[str, str | None]] = field(default_factory=OrderedDict)

    def add(self, batch: str, path: str, checkpoint: str | None, keep: int) -> None:
        """Keep one; beyond `keep` the oldest go."""
        self.known[batch] = path, checkpoint
        if len(self.known) > keep:
            self.known.popitem(last=False)


def origins_of(session: Session) -> Origins:
    """A run's origins, and those of the interrupted run it continues."""
    return session.run.memory("origins", Origins)


def addressed(config: RunnableConfig | None, checkpoint: str | None = None) -> RunnableConfig:
    """The conversation at one of its checkpoints, or at its newest state."""
    changed: RunnableConfig = {**(config or {})}
    changed.pop("run_id", None)
    configurable = {k: v for k, v in changed.get("configurable", {}).items() if k != "checkpoint_id"}
    changed["configurable"] = configurable if checkpoint is None else {**configurable, "checkpoint_id": checkpoint}
    return changed


def rerouted(guard: Guard, session: Session, config: RunnableConfig | None, verdict: Verdict, graph: Any) -> Steps:
    """End what is pending, answer the calls that are left open, and run the agent's node, and only that, next."""
    assert isinstance(verdict.decision, Reroute)
    newest = addressed(config)
    yield Step("update_state", (newest, None, END))
    state = yield Step("get_state", (newest,))
    if state.next:  # what finished beside it called for more
        yield Step("update_state", (newest, None, END))
    update = None
    if keeps_messages(graph):
        update = {"messages": unanswered(state.values.get("messages") or ())}
    agent = _other(verdict, session)
    guard.settle(session, verdict, took_effect=True, detail=f"the turn went to {agent}")
    return Way(Command(goto=agent, update=update), newest)


def rolled_back(guard: Guard, session: Session, config: RunnableConfig | None, verdict: Verdict, graph: Any) -> Steps:
    """
    Go on, with the lesson, from the checkpoint the misstep's model call was made in.

    Where that is not known or not kept, the run goes on from its newest state: the call at fault is refused there
    with the lesson, or, where there is none, the model is told it.
    """
    assert isinstance(verdict.decision, RollBack)
    lesson, taken = verdict.decision.lesson, verdict.taken[0]
    checkpoint = _before(session, verdict)
    past = addressed(config, checkpoint)
    state = (yield Step("get_state", (past,))) if checkpoint is not None else None
    if checkpoint is None or state is None or state.created_at is None:
        guard.settle(session, verdict, took_effect=False, detail=_NO_STATE)
        with session.run.lock:
            if session.remembered(taken.call) is not None:
                session.remember(taken.call or "", Verdict(Refuse(lesson)))
            else:
                session.notify(taken.instance, Verdict(Reprompt(lesson)))
        return Way(None, addressed(config))
    guard.observe(
        CheckpointRestored(run=session.run.id, agent=taken.agent, instance=taken.instance, checkpoint=checkpoint)
    )
    guard.settle(session, verdict, took_effect=True)
    if keeps_messages(graph):
        return Way(Command(update={"messages": [HumanMessage(lesson, name="misstep")]}), past)
    with session.run.lock:
        session.notify(taken.instance, Verdict(Reprompt(lesson)))
    return Way(None, past)


def without_us(guard: Guard, session: Session, config: RunnableConfig | None, verdict: Verdict) -> Way:
    """The guard's own code failed: the run goes on from its newest state, with the call let pass or refused."""
    guard.settle(session, verdict, took_effect=False, detail="the guard failed to carry it out")
    call = verdict.taken[0].call if verdict.taken else None
    with session.run.lock:
        if session.remembered(call) is not None:
            session.remember(call or "", Verdict(Refuse(UNCHECKED)) if guard.fails_closed else PASSED)
    return Way(None, addressed(config))


def keeps_messages(graph: Any) -> bool:
    """Whether the state has a list `messages` that messages are added to."""
    return isinstance(graph.channels.get("messages"), BinaryOperatorAggregate | DeltaChannel)


def unanswered(messages: Sequence[Any]) -> list[ToolMessage]:
    """An answer to each call of the last reply that has none: without one the next model call would be invalid."""
    last = max((place for place, each in enumerate(messages) if isinstance(each, AIMessage)), default=None)
    if last is None:
        return []
    answered = {each.tool_call_id for each in messages[last:] if isinstance(each, ToolMessage)}
    return [
        ToolMessage(_LEFT, name=call["name"], tool_call_id=call["id"], status="error")
        for call in messages[last].tool_calls
        if call["id"] not in answered
    ]


def _before(session: Session, verdict: Verdict) -> str | None:
    """The checkpoint the model call behind the misstep was made in: the agent's first from that step on."""
    assert isinstance(verdict.decision, RollBack)
    step, instance = verdict.decision.step, verdict.taken[0].instance
    known: Mapping[str, tuple[str, str | None]] = origins_of(session).known
    with session.run.lock:
        for event in session.run.events:
            said = isinstance(event, ModelResponded) and not event.history and event.instance == instance
            if said and step is not None and (event.step or 0) >= step:
                return known.get(event.call or "", ("", None))[1]
    return None


def _other(verdict: Verdict, session: Session) -> str:
    """The agent to go to; where that is the very node that goes wrong, the next one."""
    assert isinstance(verdict.decision, Reroute)
    agent, agents = verdict.decision.agent, list(session.agents or ())
    taken = verdict.taken[0]
    path, _ = origins_of(session).known.get(taken.batch or taken.call or "", ("", None))
    if path.partition(":")[0] == agent in agents:
        return agents[(agents.index(agent) + 1) % len(agents)]
    return agent
