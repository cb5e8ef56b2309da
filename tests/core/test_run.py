"""The run: where an event stands, how far a conversation was read, and that nothing grows without end."""

from __future__ import annotations

import pytest

from misstep.events import (
    Event,
    Evidence,
    HandoffRequested,
    MessageSent,
    ModelFailed,
    ModelRequested,
    RunEnded,
    RunStarted,
    ToolCancelled,
    TurnStarted,
    Usage,
)
from misstep.run import Limits, Run
from tests.core.scenes import RUN, declared, exchange, failed, proposed, replied, requested, returned, tool, user


def told(*events: Event, run: Run | None = None) -> list[Event]:
    """The events, each in its place in one run."""
    run = run or Run(RUN)
    return [run.append(event) for event in events]


def steps(*events: Event) -> list[int | None]:
    """The steps the events come to stand at."""
    return [event.step for event in told(*events)]


def turns(*events: Event) -> list[int | None]:
    """The turns the events come to stand at."""
    return [event.turn for event in told(*events)]


def refused(call: str, objection: str = "do not") -> ToolCancelled:
    """A call that was not executed."""
    return ToolCancelled(run=RUN, call=call, tool="search", reason="refused", objection=objection)


# -- the stamps -------------------------------------------------------------------------------------------------------


def test_events_are_numbered_as_they_come() -> None:
    """`seq` counts the events of the run, and an event without an id gets one that is unique in it."""
    events = told(user("a"), user("b", id="mine"), user("c"))
    assert [event.seq for event in events] == [0, 1, 2]
    assert events[1].id == "mine"
    assert len({event.id for event in events}) == 3


def test_time_is_told_or_kept() -> None:
    """An event gets the time it came at, unless its source knew it."""
    run = Run(RUN)
    first, second, known = told(user("a"), user("b"), user("c", time=1.5, elapsed=0.5), run=run)
    assert run.started <= first.time <= second.time
    assert 0.0 <= first.elapsed <= second.elapsed
    assert (known.time, known.elapsed) == (1.5, 0.5)


def test_every_message_takes_a_step() -> None:
    """Messages, replies, results and errors count as messages; starting, asking and handing on do not."""
    assert steps(
        RunStarted(run=RUN, task="t"),
        user("a"),
        TurnStarted(run=RUN),
        replied("b", proposed()),
        requested(batch="m1"),
        returned(),
        replied("c", call="m2"),
        HandoffRequested(run=RUN, target="other"),
        failed("c9"),
        RunEnded(run=RUN),
    ) == [0, 0, 0, 1, 1, 2, 3, 3, 4, 4]


def test_parallel_calls_share_the_step_of_their_message() -> None:
    """Calls of one reply stand at its step, however late they are made; each result is a message of its own."""
    assert steps(
        user("a"),
        replied("", proposed("c1"), proposed("c2")),
        requested("c1", batch="m1"),
        returned("c1"),
        requested("c2", batch="m1"),
        returned("c2"),
    ) == [0, 1, 1, 2, 1, 3]


def test_a_call_of_a_reply_without_an_id_shares_its_step_too() -> None:
    """A reply that its framework gave no id is known to its calls by the id the run gave it."""
    run = Run(RUN)
    reply = run.append(replied("", proposed(), call=None))
    told(user("in between"), run=run)
    assert run.append(requested(batch=reply.id)).step == reply.step


def test_a_model_is_asked_at_the_step_of_its_reply() -> None:
    """The request to a model stands where the reply will stand."""
    assert steps(user("a"), declared(), replied("b"), declared(), replied("c", call="m2")) == [0, 1, 1, 2, 2]


def test_another_attempt_takes_no_step() -> None:
    """Attempts at one reply share its step, and the next message takes the next one."""
    assert steps(
        user("a"),
        replied("bad", attempt=0),
        replied("worse", attempt=1),
        replied("good", attempt=2),
        user("next"),
    ) == [0, 1, 1, 1, 2]


def test_another_attempt_shares_the_step_of_its_own_agent() -> None:
    """What others said between two attempts of one agent does not move the second one."""
    assert steps(
        replied("bad", call="a1", instance="a"),
        replied("hello", call="b1", instance="b"),
        replied("good", call="a1", instance="a", attempt=1),
    ) == [0, 1, 0]


def test_an_objection_is_a_message_and_a_thrown_away_call_is_none() -> None:
    """A refused call leaves its objection in the conversation; one that fell with its reply leaves nothing."""
    events = (replied("", proposed("c1"), proposed("c2")), refused("c1"), refused("c2", ""), user("next"))
    assert steps(*events) == [0, 1, 1, 2]
    assert turns(*(replied("", proposed("c1"), proposed("c2")), refused("c1"), refused("c2", ""), user("x"))) == [
        0,
        1,
        1,
        2,
    ]


def test_steps_of_the_source_are_kept() -> None:
    """An importer's steps stand as given, and counting goes on behind the highest of them."""
    run = Run(RUN)
    events = told(user("a", step=4), replied("b", step=9), user("late", step=2), user("next"), run=run)
    assert [event.step for event in events] == [4, 9, 2, 10]
    assert run.steps == 11


def test_calls_of_an_imported_reply_stand_at_its_step() -> None:
    """A call belongs to the step its source gave the reply, wherever the run is by then."""
    assert steps(replied("", proposed(), step=3), user("x", step=8), requested(batch="m1")) == [3, 8, 3]


def test_turns_count_in_the_conversation_of_an_instance() -> None:
    """Two copies of one agent have a turn counter each; attempts and requests do not count."""
    assert turns(
        user("a", instance="x", agent="worker"),
        user("a", instance="y", agent="worker"),
        ModelRequested(run=RUN, instance="x"),
        replied("b", instance="x"),
        replied("b2", instance="x", attempt=1),
        requested(batch="m1", instance="x"),
        returned(instance="x"),
        replied("b", instance="y", call="m2"),
    ) == [0, 0, 0, 1, 1, 1, 2, 1]


# -- looking back -----------------------------------------------------------------------------------------------------


def test_events_are_found_by_seq_until_they_are_too_long_ago() -> None:
    """`find` gives the event of that number while it is kept, and None before, after and below."""
    run = Run(RUN, Limits(events=3))
    events = told(*(user(str(number)) for number in range(5)), run=run)
    assert [run.find(seq) for seq in range(-1, 6)] == [None, None, None, *events[2:], None]


def test_evidence_of_what_is_no_longer_kept() -> None:
    """Evidence names the step, the agent and the words of an event; of one that is gone only the number."""
    run = Run(RUN, Limits(events=2))
    told(*(user(f"word{number}", agent="ada") for number in range(3)), run=run)
    assert run.evidence((2, 0)) == (Evidence(2, 2, "ada", "word2"), Evidence(0))


def test_evidence_is_short_and_says_what_it_leaves_out() -> None:
    """A long text is quoted by its head and tail and the number of characters between them."""
    run = Run(RUN, Limits(quote=20))
    told(user("a" * 30 + "z" * 30), run=run)
    (evidence,) = run.evidence((0,))
    assert evidence.quote == f"{'a' * 10} … 40 characters … {'z' * 10}"


def test_evidence_keeps_no_secret() -> None:
    """A secret is taken out before a quotation is cut, so that no half of one is left in it."""
    run = Run(RUN, Limits(quote=40))
    secret = "ghp_" + "a1B2" * 10
    told(user(f"the token is {secret}, use it"), run=run)
    (evidence,) = run.evidence((0,))
    assert "a1B2" not in evidence.quote


# -- what was read of a conversation ----------------------------------------------------------------------------------


class Reader:
    """Reads lists of messages that are their own keys, and counts how many keys were asked for."""

    def __init__(self) -> None:
        self.run = Run(RUN)
        self.keys = 0

    def __call__(self, messages: str, instance: str = "") -> tuple[str, int | None]:
        """What is new among the letters of a word, and how many were dropped."""
        new, dropped = self.run.unread(instance, messages, self._key)
        return "".join(new), dropped

    def _key(self, message: str) -> str:
        self.keys += 1
        return message


@pytest.mark.parametrize(
    ("before", "now", "new", "dropped"),
    [
        ("", "", "", None),
        ("", "abc", "abc", None),
        ("abc", "abc", "", None),
        ("abc", "abcde", "de", None),
        ("abcd", "cde", "e", 2),
        ("abcd", "Scde", "Se", 2),
        ("abcdef", "Sf", "S", 5),
        ("abc", "ab", "", 1),
        ("abc", "", "", 3),
        ("abc", "abX", "X", 1),
        ("abc", "xyz", "xyz", 3),
        ("abc", "abXd", "Xd", 1),
    ],
    ids=[
        "nothing", "the first", "nothing new", "grown", "trimmed", "summarized", "summarized to one", "shortened",
        "emptied", "the last one edited", "another conversation", "edited and grown",
    ],
)  # fmt: skip
def test_only_what_is_new_is_read(before: str, now: str, new: str, dropped: int | None) -> None:
    """Of a list that grew only the new part is read; of one that was changed, what was never seen, and it is said."""
    read = Reader()
    read(before)
    assert read(now) == (new, dropped)


def test_reading_a_grown_list_costs_what_is_new() -> None:
    """Where a conversation only grew, no more keys are asked for than of the new messages and the last old one."""
    read = Reader()
    read("abcdefgh")
    read.keys = 0
    assert read("abcdefghij") == ("ij", None)
    assert read.keys <= 3


def test_reading_goes_on_after_a_change() -> None:
    """After a trimmed list its growth is told from it again."""
    read = Reader()
    read("abcd")
    read("cde")
    assert read("cdefg") == ("fg", None)


def test_instances_read_apart() -> None:
    """What one instance has read is new to another."""
    read = Reader()
    read("abc", "x")
    assert read("abc", "y") == ("abc", None)
    assert (read.run.has_read("x"), read.run.has_read("z")) == (True, False)


# -- books ------------------------------------------------------------------------------------------------------------


def test_costs_are_kept_by_run_and_by_instance() -> None:
    """Tokens and calls add up for the run and for each copy of an agent; an estimate makes the sum one."""
    run = Run(RUN)
    told(
        replied("a", instance="x", usage=Usage(10, 1)),
        replied("b", instance="y", usage=Usage(20, 2, estimated=True)),
        replied("c", instance="x"),
        requested(instance="x"),
        returned(instance="x"),
        run=run,
    )
    spent = run.spent
    assert (spent.model_calls, spent.tool_calls, spent.input_tokens, spent.output_tokens) == (3, 1, 30, 3)
    assert spent.estimated
    mine = run.instance("x").spent
    assert (mine.model_calls, mine.tool_calls, mine.input_tokens, mine.estimated) == (2, 1, 10, False)


def test_history_costs_nothing() -> None:
    """What happened before the guard came is not charged to this run."""
    run = Run(RUN)
    told(replied("a", usage=Usage(10, 1), history=True), requested(history=True), returned(history=True), run=run)
    assert (run.spent.model_calls, run.spent.tool_calls, run.spent.input_tokens) == (0, 0, 0)


def test_a_result_told_twice_is_paid_once() -> None:
    """A call whose result reaches us by two ways was executed once."""
    run = Run(RUN)
    told(requested(), returned(), returned(), run=run)
    assert run.spent.tool_calls == 1


def test_errors_are_open_until_a_result_comes() -> None:
    """The failures of an instance are open until it gets a result; those of another stay."""
    run = Run(RUN)
    told(failed("c1", instance="x"), ModelFailed(run=RUN, instance="x"), failed("c2", instance="y"), run=run)
    assert (list(run.instance("x").open_errors), list(run.instance("y").open_errors)) == ([0, 1], [2])
    told(returned("c3", instance="x"), run=run)
    assert (list(run.instance("x").open_errors), list(run.instance("y").open_errors)) == ([], [2])


def test_the_task_is_what_was_asked_first() -> None:
    """The task is what the run was started with, else the first words of the user."""
    started, unstarted = Run(RUN), Run(RUN)
    told(RunStarted(run=RUN, task="the task"), user("more"), run=started)
    told(RunStarted(run=RUN), user("first"), user("second"), run=unstarted)
    assert (started.task, unstarted.task) == ("the task", "first")


def test_who_talks_to_whom() -> None:
    """Messages with a sender and a recipient are counted by pair; agents are listed as they appear."""
    run = Run(RUN)
    message = {"run": RUN, "role": "assistant", "content": "x", "agent": "a", "sender": "a"}
    told(
        MessageSent(**message, recipient="b"),
        MessageSent(**message, recipient="b"),
        MessageSent(**message),
        user("x", agent="b"),
        run=run,
    )
    assert run.interactions == {("a", "b"): 2}
    assert list(run.agents) == ["a", "b"]


def test_declared_tools_are_known_until_they_change() -> None:
    """A tool is known by its last declaration, also where a later request does not repeat it."""
    run = Run(RUN)
    told(declared(tool("search", "q")), ModelRequested(run=RUN), declared(tool("search", "query")), run=run)
    assert run.tools == {"search": tool("search", "query")}


def test_a_detector_has_a_memory_in_each_run() -> None:
    """What a detector remembers is made once in a run, and is its own."""
    run, other = Run(RUN), Run("other")
    mine = run.memory("mine", list)
    assert run.memory("mine", list) is mine
    assert run.memory("yours", list) is not mine
    assert other.memory("mine", list) is not mine


def test_who_said_a_message() -> None:
    """A message is known again by its id as what an instance's model said in this run."""
    run = Run(RUN)
    told(replied("a", message="msg-1", instance="x"), run=run)
    assert (run.speaker("msg-1"), run.speaker("msg-2")) == ("x", None)


# -- bounds -----------------------------------------------------------------------------------------------------------


def test_nothing_grows_without_end() -> None:
    """After 50,000 events, every one with new names, a run keeps no more than its limits say."""
    limits = Limits(events=100, calls=64, tokens=500, agents=32)
    run = Run(RUN, limits)
    count = 50_000 // 5
    for number in range(count):
        place = f"i{number}"
        run.append(
            MessageSent(
                run=RUN, role="user", trust="user", content=f"word{number}",
                instance=place, agent=f"agent{number}", sender=f"s{number}", recipient=f"r{number}",
            )
        )  # fmt: skip
        run.append(declared(tool(f"tool{number}"), instance=place))
        run.append(replied(f"text{number}", call=f"m{number}", message=f"msg{number}", instance=place))
        for event in exchange(f"c{number}", f"out{number}", q=number):
            run.append(event)
        run.unread(place, [f"msg{number}"], str)
    assert len(run.events) == limits.events
    assert len(run.instances) <= limits.agents
    assert len(run.agents) <= limits.agents
    assert len(run.interactions) <= limits.calls
    assert len(run.tools) <= limits.calls
    assert sum(run.calls.get(f"c{number}") is not None for number in range(count)) <= limits.calls
    assert sum(run.has_read(f"i{number}") for number in range(count)) <= limits.agents
    assert sum(run.speaker(f"msg{number}") is not None for number in range(count)) <= limits.calls
    assert len(run.provenance) <= 2 * limits.tokens + 10
    assert run.calls.get(f"c{count - 1}") is not None
    assert run.has_read(f"i{count - 1}")


def test_one_declaration_of_very_many_tools_is_bounded_too() -> None:
    """However many tools are declared at once, no more are kept than the limit says."""
    run = Run(RUN, Limits(calls=10))
    told(declared(*(tool(f"t{number}") for number in range(50))), run=run)
    assert len(run.tools) == 10


def test_an_instance_that_goes_on_is_not_forgotten_for_newcomers() -> None:
    """Beyond the limit those go that were silent longest: the main agent keeps its turns and its place in the talk."""
    run = Run(RUN, Limits(agents=4))
    for number in range(20):
        told(replied("thinking", instance="main"), user("hi", instance=f"sub{number}"), run=run)
        run.unread("main", list(range(number + 1)), str)
        run.unread(f"sub{number}", [0], str)
    assert run.instance("main").turn == 19
    assert run.unread("main", list(range(21)), str) == ([20], None)
