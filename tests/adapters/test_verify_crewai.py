"""`verify` on CrewAI: it finds every way a guard is absent, and calls no sound crew broken."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from crewai import Agent, Crew, Process, Task
from crewai.hooks import clear_all_hooks
from crewai.llms.base_llm import BaseLLM
from crewai.project import CrewBase, agent, crew, task
from crewai.tools import BaseTool
from crewai.tools import tool as as_tool
from pydantic import BaseModel
from typer.testing import CliRunner

from misstep import Guard, VerificationError
from misstep.cli import app as cli
from misstep.seats import Seat
from misstep.testing import Script
from misstep.verification import Standing
from misstep_crewai import guarded, unguard
from misstep_crewai.testing import ScriptedLLM
from tests.adapters.verifying import REAL, idle, not_protected, nothing_real, real, standing

__all__ = ["nothing_real"]


def model(*, native: bool = True, cls: type[ScriptedLLM] = ScriptedLLM) -> ScriptedLLM:
    """A model of the application's."""
    return cls(Script(real), native=native)


@as_tool("pay")
def pay(amount: int) -> str:
    """Pay an amount."""
    REAL.append("tool")
    return "paid"


class Look(BaseTool):
    """A tool that is a class."""

    name: str = "look"
    description: str = "Looks something up."

    def _run(self, q: str) -> str:
        REAL.append("tool")
        return "found"


def worker(role: str = "clerk", **fields: Any) -> Agent:
    """An agent."""
    return Agent(role=role, goal="g", backstory="b", **{"llm": model(), "tools": [pay, Look()], **fields})


def one(by: Agent | None = None, cls: type[Crew] = Crew, **fields: Any) -> Crew:
    """A crew of one agent with one task."""
    by = by or worker()
    return cls(agents=[by], tasks=[Task(description="do it", expected_output="x", agent=by, **fields)])


def two(**fields: Any) -> Crew:
    """A crew of two agents with a task each."""
    first, second = worker("clerk", **fields), worker("boss", **fields)
    tasks = [Task(description="do it", expected_output="x", agent=each) for each in (first, second)]
    return Crew(agents=[first, second], tasks=tasks)


# -- broken


class Evading(ScriptedLLM):
    """A model whose attributes nobody else looks up."""

    def __getattribute__(self, name: str) -> Any:
        return object.__getattribute__(self, name)


class ByHand(Crew):
    """A crew that does its work itself."""

    def kickoff(self, inputs: Any = None, **kwargs: Any) -> Any:
        """In a thread of its own."""
        said: list[Any] = []
        thread = threading.Thread(target=lambda: said.append(self.agents[0].llm.call("do it")))
        thread.start()
        thread.join()
        return said


def apart(llm: BaseLLM) -> Callable[[Any], None]:
    """A callback that asks a model in a thread of its own."""

    def callback(_: Any) -> None:
        thread = threading.Thread(target=lambda: llm.call("what do you think?"))
        thread.start()
        thread.join()

    return callback


def thinks_apart(guard: Guard) -> Crew:
    """A model that is asked by a callback, past the run."""
    by = worker()
    return guarded(one(by, callback=apart(by.llm)), guard)


def set_back(guard: Guard) -> Crew:
    """Somebody gave the crew its old class."""
    made = guarded(one(), guard)
    object.__setattr__(made, "__class__", Crew)
    return made


def crew_in_a_tool(inner: Crew, *, in_thread: bool) -> Any:
    """A tool that kicks off a crew."""

    @as_tool("helper")
    def helper(task: str) -> str:
        """Have somebody else do it."""
        got: list[Any] = []
        if in_thread:
            thread = threading.Thread(target=lambda: got.append(inner.kickoff()))
            thread.start()
            thread.join()
        else:
            got.append(inner.kickoff())
        return str(got[0].raw)

    return helper


def ungated(inputs: Any) -> Any:
    """Somebody takes the gate off in the middle of a run."""
    BaseLLM.__getattribute__ = object.__getattribute__  # type: ignore[method-assign]
    return inputs


def gate_taken_off(guard: Guard) -> Crew:
    """A crew in which that happens."""
    made = one()
    made.before_kickoff_callbacks.append(ungated)
    return guarded(made, guard)


def retooled(inner_in_thread: bool) -> Crew:
    """A crew with a crew in a tool."""
    inner = one(worker("inner"))
    return one(worker(tools=[crew_in_a_tool(inner, in_thread=inner_in_thread)]))


BROKEN: dict[str, tuple[Callable[[Guard], Crew], Seat, str, Standing]] = {
    "no guard": (lambda _: one(), Seat.TOOL, "clerk/pay", Standing.NOT_IN_PATH),
    "another guard": (lambda _: guarded(one(), Guard()), Seat.MODEL, "clerk", Standing.NOT_IN_PATH),
    "the guard taken off": (
        lambda guard: unguard(guarded(one(), guard)),
        Seat.TOOL,
        "clerk/look",
        Standing.NOT_IN_PATH,
    ),
    "no guard, called in text": (
        lambda _: one(worker(llm=model(native=False))),
        Seat.TOOL,
        "clerk/pay",
        Standing.NOT_IN_PATH,
    ),
    "a model that evades the gate": (
        lambda guard: guarded(one(worker(llm=model(cls=Evading))), guard),
        Seat.MODEL,
        "clerk",
        Standing.NOT_IN_PATH,
    ),
    "a model asked in a thread": (thinks_apart, Seat.MODEL, "crew", Standing.NOT_IN_PATH),
    "the class set back": (set_back, Seat.TOOL, "clerk/pay", Standing.NOT_IN_PATH),
    "a bare crew in a tool, in a thread": (
        lambda guard: guarded(retooled(True), guard),
        Seat.TOOL,
        "inner/pay",
        Standing.NOT_IN_PATH,
    ),
    "one of two models evades the gate": (
        lambda guard: guarded(_with_second(two(), Evading), guard),
        Seat.MODEL,
        "boss",
        Standing.NOT_IN_PATH,
    ),
}


def _with_second(made: Crew, cls: type[ScriptedLLM]) -> Crew:
    made.agents[1].llm = model(cls=cls)
    return made


@pytest.mark.parametrize("name", BROKEN)
def test_what_gets_past_the_guard_is_named(name: str) -> None:
    """A set-up in which something gets past the guard is called broken, with the seat at which it does."""
    build, seat, part, expected = BROKEN[name]
    guard = Guard()
    found = guard.verify(build(guard), bodies=True)
    assert found.broken
    assert not found.protected
    assert expected in standing(found, seat, part), found.verdict


def test_the_gate_taken_off_in_the_middle() -> None:
    """What somebody does to the class of all models shows in the run in which it is done."""
    guard, bare = Guard(), BaseLLM.__dict__.get("__getattribute__")
    try:
        found = guard.verify(gate_taken_off(guard))
    finally:
        if bare is None and "__getattribute__" in BaseLLM.__dict__:
            del BaseLLM.__getattribute__
    assert found.broken
    assert Standing.NOT_IN_PATH in standing(found, Seat.MODEL, "clerk")


@idle
def test_a_guard_that_would_not_act(guard: Guard, reason: str) -> None:
    """A guard that is in the path and does nothing there protects nothing, whatever its seats can do."""
    not_protected(guard.verify(guarded(one(), guard)), reason)


def test_a_crew_of_a_class_of_its_own() -> None:
    """CrewAI copies any crew as a plain one: of what its class does by itself nothing is known."""
    guard = Guard()
    found = guard.verify(guarded(one(cls=ByHand), guard))
    assert not found.protected
    assert standing(found, Seat.RUN, "ByHand") == {Standing.NOT_EXERCISED}


def test_a_crew_in_a_tool_is_not_run_unasked() -> None:
    """A tool's body is the application's own code; what is in it is not known until it may be run."""
    guard = Guard()
    found = guard.verify(guarded(retooled(False), guard))
    assert not found.broken
    assert not found.protected
    assert standing(found, Seat.MODEL, "tools/helper") == {Standing.NOT_EXERCISED}


# -- sound


class Answer(BaseModel):
    """A structured answer."""

    text: str


@CrewBase
class Office:
    """A crew written the way CrewAI's own templates are."""

    agents_config: Any = {}  # noqa: RUF012 - CrewAI's own form
    tasks_config: Any = {}  # noqa: RUF012

    @agent
    def clerk(self) -> Agent:
        """The agent."""
        return worker()

    @task
    def work(self) -> Task:
        """The task."""
        return Task(description="do it", expected_output="x", agent=self.clerk())

    @crew
    def crew(self) -> Crew:
        """The crew."""
        return Crew(agents=self.agents, tasks=self.tasks)


def hierarchical(**manager: Any) -> Crew:
    """A crew with a manager."""
    workers = [worker("clerk"), worker("boss")]
    return Crew(
        agents=workers,
        tasks=[Task(description="do it", expected_output="x")],
        process=Process.hierarchical,
        **(manager or {"manager_llm": model()}),
    )


def at_once() -> Crew:
    """Two tasks at once, and one after them."""
    by = [worker(f"w{number}") for number in range(3)]
    tasks = [
        Task(description="do it", expected_output="x", agent=each, async_execution=number < 2)
        for number, each in enumerate(by)
    ]
    return Crew(agents=by, tasks=tasks)


def with_hooks_cleared() -> Crew:
    """Somebody clears all hooks in the middle."""
    return one(callback=lambda _: clear_all_hooks())


SOUND: dict[str, Callable[[], Crew]] = {
    "one agent, native calls": one,
    "one agent, calls in text": lambda: one(worker(llm=model(native=False))),
    "two agents": two,
    "two agents that delegate": lambda: two(allow_delegation=True),
    "a manager's model": hierarchical,
    "a manager of the application's own": lambda: hierarchical(manager_agent=worker("chief", tools=[])),
    "tasks at once": at_once,
    "tools of the task": lambda: one(worker(tools=[]), tools=[pay]),
    "no tools": lambda: one(worker(tools=[])),
    "a guardrail": lambda: one(guardrail=lambda output: (True, output)),
    "data for an answer": lambda: one(output_pydantic=Answer),
    "places for inputs": lambda: one(worker("clerk of {topic}")),
    "a person would be asked": lambda: one(human_input=True),
    "hooks cleared in the middle": with_hooks_cleared,
    "a crew from a template": lambda: Office().crew(),
    "a crew in a tool": lambda: retooled(False),
}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_crew_is_protected(name: str) -> None:
    """A crew in which nothing gets past the guard is called protected."""
    guard = Guard()
    found = guard.verify(guarded(SOUND[name](), guard), bodies=True)
    assert not found.broken, found.verdict
    assert found.protected, found.verdict


# -- what is left alone


def test_nothing_is_left_behind() -> None:
    """The crew, its tasks, the guard's books and the classes are as they were."""
    guard = Guard(mode="shadow")
    made = guarded(one(), guard)

    def state() -> tuple[object, ...]:
        tasks = [(each.output, each.human_input) for each in made.tasks]
        return guard.policy, guard.mode, guard.report(), tasks, ScriptedLLM.call, Look._run, made.usage_metrics

    before = state()
    guard.verify(made)
    assert state() == before


def test_a_run_that_hangs_is_given_up() -> None:
    """A kickoff that does not end is said to be unknown, and everything is put back."""
    free, original = threading.Event(), ScriptedLLM.call
    made = one(callback=lambda _: free.wait(20))
    guard = Guard()
    found = guard.verify(guarded(made, guard), deadline=1.5)
    free.set()
    time.sleep(0.2)
    assert not found.protected
    assert "did not end" in found.verdict
    assert ScriptedLLM.call is original


def test_a_guard_at_work_is_not_verified() -> None:
    """While a run is open, verifying would take the guard away from it."""
    guard = Guard()
    made = guarded(one(), guard)
    guard.open("at work")
    with pytest.raises(VerificationError, match="1 open run"):
        guard.verify(made)


def test_what_is_no_crew() -> None:
    """A lone agent is refused, with what to do."""
    with pytest.raises(TypeError, match="no crew"):
        Guard().verify(worker())


APP = """
from crewai import Agent, Crew, Task
from misstep import Guard
from misstep.testing import Say, Script
from misstep_crewai import guarded
from misstep_crewai.testing import ScriptedLLM

def make():
    by = Agent(role="clerk", goal="g", backstory="b", llm=ScriptedLLM(Script(Say("x"))))
    return Crew(agents=[by], tasks=[Task(description="d", expected_output="x", agent=by)])

bare = make()
crew = guarded(make(), Guard())
"""


@pytest.mark.parametrize(
    ("name", "code", "words"), [("office:crew", 0, "protected"), ("office:bare", 1, "not protected")]
)
def test_command(name: str, code: int, words: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """`misstep verify` names the crew's standing, and its exit code is one a pipeline can use."""
    (tmp_path / "office.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "office", raising=False)
    done = CliRunner().invoke(cli, ["verify", name])
    assert (done.exit_code, f": {words}" in done.output) == (code, True), done.output
