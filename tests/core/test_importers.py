"""Importers: what each format becomes, what is never read, and what a file that cannot be read is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from misstep.errors import TraceError
from misstep.events import (
    Event,
    HandoffRequested,
    MessageSent,
    ModelRequested,
    ModelResponded,
    RunEnded,
    RunStarted,
    ToolFailed,
    ToolReturned,
)
from misstep.importers import IMPORTERS, MAX_BYTES, Trace, Unread, read

CODE = "Let me count.\n```python\nprint(sum([1, 2]))\n```\nThat should do.\n```sh\nls\n```\n"
NO_CODE = "There is no code from the last 1 message for me to execute."

GROUP_CHAT = {
    "question": "How many rows are there?",
    "history": [
        {"role": "assistant", "name": "Planner", "content": "First count them."},
        {"role": "user", "name": "Computer_terminal", "content": NO_CODE},
        {"role": "user", "name": "Coder", "content": CODE},
        {"role": "user", "name": "Computer_terminal", "content": "exitcode: 1 (execution failed)\nCode output: boom"},
        {"role": "user", "name": "Coder", "content": CODE},
        {"role": "user", "name": "Computer_terminal", "content": "exitcode: 0 (execution succeeded)\nCode output: 3"},
        {"role": "assistant", "name": "Planner", "content": "TERMINATE"},
    ],
    "system_prompt": {"Coder": "You write code.", "Planner": "You plan."},
    "is_correct": False,
}

MAGENTIC = [
    {"role": "human", "content": "Which bird is it?"},
    {"role": "Orchestrator (thought)", "content": "Initial plan: look it up."},
    {"role": "Orchestrator (-> WebSurfer)", "content": "Please look it up."},
    {"role": "WebSurfer", "content": "It is a heron."},
    {"role": "ComputerTerminal", "content": ""},
    {"role": "Orchestrator (termination condition)", "content": ""},
]

SHOP: dict[str, Any] = {
    "traj": [
        {"role": "system", "content": "You serve customers."},
        {"role": "user", "content": "Where is order A1?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "get_order", "arguments": '{"order": "A1"}'}},
                {"id": "call_2", "type": "function", "function": {"name": "get_user", "arguments": "{oops"}},
            ],
        },
        {"role": "tool", "tool_call_id": "call_2", "name": "get_user", "content": "Error: no such user"},
        {"role": "tool", "tool_call_id": "call_1", "name": "get_order", "content": '{"status": "sent"}'},
        {"role": "assistant", "content": "It was sent."},
    ],
    "reward": 1.0,
}


def written(path: Path, document: object, name: str = "run.json") -> Path:
    """The document as a file."""
    file = path / name
    file.write_text(json.dumps(document), encoding="utf-8")
    return file


def only(path: Path, document: object, source: str | None = None) -> Trace:
    """The one trace of a document."""
    (trace,) = read(written(path, document), source)
    assert isinstance(trace, Trace)
    return trace


def of(trace: Trace, *classes: type[Event]) -> list[Any]:
    """The trace's events of those classes."""
    return [event for event in trace.events if isinstance(event, classes)]


def refused(path: Path, content: str | bytes) -> TraceError:
    """The error of a file with that content."""
    file = path / "file"
    file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    with pytest.raises(TraceError) as caught:
        list(read(file))
    return caught.value


# -- Who&When ---------------------------------------------------------------------------------------------------------


def test_group_chat_agents_go_by_name(tmp_path: Path) -> None:
    """In a group chat everybody but the terminal is a model, whatever the role says."""
    trace = only(tmp_path, GROUP_CHAT)
    replies = of(trace, ModelResponded)
    assert trace.source == "whowhen"
    assert trace.steps == 7
    assert trace.agents == ("Planner", "Computer_terminal", "Coder")
    assert [(event.step, event.agent, event.instance) for event in replies] == [
        (0, "Planner", "Planner"),
        (2, "Coder", "Coder"),
        (4, "Coder", "Coder"),
        (6, "Planner", "Planner"),
    ]


def test_code_in_a_message_is_a_call_that_the_terminal_answers(tmp_path: Path) -> None:
    """Fenced code is a call of `execute_code`; a terminal's exit code 0 is its return, any other its failure."""
    trace = only(tmp_path, GROUP_CHAT)
    first, second = (event for event in of(trace, ModelResponded) if event.calls)
    failed, returned = of(trace, ToolFailed, ToolReturned)
    assert first.calls[0].tool == "execute_code"
    assert first.calls[0].arguments == {"code": "print(sum([1, 2]))\n\nls\n"}
    assert isinstance(failed, ToolFailed)
    assert isinstance(returned, ToolReturned)
    assert (failed.call, failed.step, failed.agent) == (first.calls[0].call, 3, "Coder")
    assert (returned.call, returned.step) == (second.calls[0].call, 5)


def test_a_terminal_that_answers_nothing_is_a_message_of_a_tool(tmp_path: Path) -> None:
    """A terminal without code to run says so; that is neither a result nor a model's reply."""
    (message,) = (event for event in of(only(tmp_path, GROUP_CHAT), MessageSent) if not event.history)
    assert (message.step, message.role, message.trust, message.sender) == (1, "tool", "tool", "Computer_terminal")


@pytest.mark.parametrize(
    ("after", "calls"),
    [
        ([], 1),
        ([{"role": "user", "name": "Critic", "content": "Wait."}], 0),
        (
            [
                {"role": "user", "name": "Critic", "content": "Go on."},
                {"role": "user", "name": "Computer_terminal", "content": "exitcode: 0 (execution succeeded)"},
            ],
            1,
        ),
        (
            [
                {"role": "user", "name": "Critic", "content": "```python\nprint(2)\n```"},
                {"role": "user", "name": "Computer_terminal", "content": "exitcode: 0 (execution succeeded)"},
            ],
            1,
        ),
    ],
)
def test_code_nobody_ran_is_only_talk(tmp_path: Path, after: list[object], calls: int) -> None:
    """Code is a call if the terminal ran it, or if the run ended before anybody could; the latest code is what ran."""
    trace = only(tmp_path, {"question": "?", "history": [{"role": "user", "name": "Coder", "content": CODE}, *after]})
    assert sum(len(event.calls) for event in of(trace, ModelResponded)) == calls


def test_task_and_system_prompts_take_no_step(tmp_path: Path) -> None:
    """The question opens the run; each agent's system prompt is history at step 0, and no step of its own."""
    trace = only(tmp_path, GROUP_CHAT)
    start, *rest = trace.events
    prompts = [event for event in rest if event.history]
    assert isinstance(start, RunStarted)
    assert start.task == "How many rows are there?"
    assert [(event.step, event.instance, event.trust) for event in prompts] == [  # type: ignore[attr-defined]
        (0, "Coder", "system"),
        (0, "Planner", "system"),
    ]


def test_magentic_agents_go_by_role(tmp_path: Path) -> None:
    """Without names the agent is the role before the bracket, an arrow in it is a hand-off, `human` is the user."""
    bare, framed = only(tmp_path, MAGENTIC), only(tmp_path, {"question": "Which bird?", "history": MAGENTIC})
    assert (bare.source, framed.source) == ("messages", "whowhen")
    for trace in (bare, framed):
        assert trace.agents == ("Orchestrator", "WebSurfer", "ComputerTerminal")
        assert [(event.step, event.agent) for event in of(trace, ModelResponded)] == [
            (1, "Orchestrator"),
            (2, "Orchestrator"),
            (3, "WebSurfer"),
        ]
        (handoff,) = of(trace, HandoffRequested)
        assert (handoff.step, handoff.agent, handoff.target) == (2, "Orchestrator", "WebSurfer")
        assert [(event.step, event.role) for event in of(trace, MessageSent)] == [
            (0, "user"),
            (4, "tool"),
            (5, "assistant"),
        ]


# -- plain conversations ----------------------------------------------------------------------------------------------


def test_plain_conversations_are_read_bare_or_framed(tmp_path: Path) -> None:
    """A list of messages without tools is a conversation, bare or under `messages`; each role has its trust."""
    talk = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello?"},
        {"role": "assistant", "content": "Hello."},
        {"role": "assistant", "name": "Critic", "content": "Too long."},
    ]
    for document in (talk, {"messages": talk}):
        trace = only(tmp_path, document)
        assert trace.source == "messages"
        assert trace.agents == ("assistant", "Critic")
        assert [(event.step, event.trust) for event in of(trace, MessageSent)] == [(0, "system"), (1, "user")]


# -- OpenAI -----------------------------------------------------------------------------------------------------------


def test_calls_and_results_are_paired_by_id(tmp_path: Path) -> None:
    """A result belongs to the call with its id, in any order, and is a failure where it begins with "Error"."""
    trace = only(tmp_path, SHOP)
    (reply, _) = of(trace, ModelResponded)
    failed, returned = of(trace, ToolFailed, ToolReturned)
    assert (trace.source, trace.steps, trace.agents, trace.outcome) == ("openai", 6, ("assistant",), "success")
    assert (reply.call, reply.content) == ("m2", "")
    assert [(call.call, call.tool, call.arguments, call.raw) for call in reply.calls] == [
        ("call_1", "get_order", {"order": "A1"}, None),
        ("call_2", "get_user", None, "{oops"),
    ]
    assert isinstance(failed, ToolFailed)
    assert (failed.call, failed.tool, failed.step) == ("call_2", "get_user", 3)
    assert (returned.call, returned.step, returned.instance) == ("call_1", 4, "assistant")


@pytest.mark.parametrize(
    ("content", "failed"),
    [
        ("Error: no seat", True),
        ("error: no seat", True),
        ("Error - no seat", True),
        ("Errors found: 0", False),
        ("Error-free", False),
        ("No error: all is well", False),
        ("", False),
    ],
)
def test_a_result_fails_by_how_it_begins(tmp_path: Path, content: str, failed: bool) -> None:
    """Only a result that begins with the word is an error, not one that speaks of errors."""
    messages = [*SHOP["traj"][:4], {"role": "tool", "tool_call_id": "call_1", "content": content}]
    (*_, result) = of(only(tmp_path, messages), ToolFailed, ToolReturned)
    assert isinstance(result, ToolFailed) is failed


def call(name: str, id_: str | None = None) -> dict[str, object]:
    """A tool call as OpenAI writes it."""
    return {"id": id_, "function": {"name": name, "arguments": "{}"}}


def test_results_without_an_id_are_paired_by_order(tmp_path: Path) -> None:
    """Where ids are missing, a result answers the oldest open call of its name, else the oldest of all."""
    trace = only(
        tmp_path,
        [
            {"role": "assistant", "content": "", "tool_calls": [call("a"), call("b"), call("c")]},
            {"role": "tool", "name": "b", "content": "of b"},
            {"role": "tool", "content": "of a"},
            {"role": "tool", "content": "of c"},
            {"role": "tool", "content": "of nothing"},
        ],
    )
    proposed = [call.call for call in of(trace, ModelResponded)[0].calls]
    results = of(trace, ToolReturned)
    assert len(set(proposed)) == 3
    assert [(result.tool, result.output) for result in results] == [("b", "of b"), ("a", "of a"), ("c", "of c")]
    assert [result.call for result in results] == [proposed[1], proposed[0], proposed[2]]
    assert [(event.step, event.trust) for event in of(trace, MessageSent)] == [(4, "tool")]


def test_an_id_used_again_is_another_call(tmp_path: Path) -> None:
    """Some models number their calls anew in every reply; the calls must not be taken for one."""
    turn = [
        {"role": "assistant", "content": "", "tool_calls": [call("look", "call_0")]},
        {"role": "tool", "tool_call_id": "call_0", "content": "nothing"},
    ]
    trace = only(tmp_path, [*turn, *turn])
    first, second = (reply.calls[0].call for reply in of(trace, ModelResponded))
    assert first != second
    assert [event.call for event in of(trace, ToolReturned)] == [first, second]


def test_a_result_of_an_unknown_call_is_only_a_message(tmp_path: Path) -> None:
    """A result whose id no call had is not given to another call."""
    trace = only(
        tmp_path,
        [
            {"role": "assistant", "content": "", "tool_calls": [call("a", "1")]},
            {"role": "tool", "tool_call_id": "2", "content": "?"},
        ],
    )
    assert not of(trace, ToolReturned)
    assert [event.step for event in of(trace, MessageSent)] == [1]


def test_other_ways_to_write_a_call(tmp_path: Path) -> None:
    """AgentDojo's `args`, a flat call and the old `function_call` are calls too; a tool's own `error` is a failure."""
    trace = only(
        tmp_path,
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "content": "Go."}]},
                {"role": "assistant", "content": None, "tool_calls": [{"function": "a", "args": {"x": 1}, "id": "1"}]},
                {"role": "tool", "content": [{"type": "text", "content": ""}], "tool_call_id": "1", "error": "boom"},
                {"role": "assistant", "content": "", "tool_calls": [{"name": "b", "args": {"y": [1, 2]}}]},
                {"role": "assistant", "content": None, "function_call": {"name": "c", "arguments": ""}},
                {"role": "function", "name": "c", "content": "done"},
            ],
            "utility": True,
        },
    )
    calls = [(proposed.tool, proposed.arguments) for reply in of(trace, ModelResponded) for proposed in reply.calls]
    assert calls == [("a", {"x": 1}), ("b", {"y": [1, 2]}), ("c", {})]
    assert [event.error for event in of(trace, ToolFailed)] == ["boom"]
    assert [event.tool for event in of(trace, ToolReturned)] == ["c"]
    assert of(trace, MessageSent)[0].content == "Go."
    assert trace.outcome == "success"


def test_declared_tools_are_offered_at_the_first_reply(tmp_path: Path) -> None:
    """The tools a frame declares are told once for each agent, as a live model call would tell them."""
    spec = {"name": "get_order", "description": "Finds an order", "parameters": {"properties": {"order": {}}}}
    document = {**SHOP, "tools": [{"type": "function", "function": spec}, {"name": "plain"}, {}, 7]}
    (request,) = of(only(tmp_path, document), ModelRequested)
    assert request.step == 2
    assert [(tool.name, tool.description) for tool in request.tools] == [
        ("get_order", "Finds an order"),
        ("plain", ""),
    ]


def test_a_user_speaks_to_the_agent_that_answers(tmp_path: Path) -> None:
    """What a user says is said to the instance that replies next, so that it counts as news to it."""
    trace = only(
        tmp_path,
        [
            {"role": "user", "content": "One?"},
            {"role": "assistant", "name": "Anna", "content": "", "tool_calls": [call("look", "1")]},
            {"role": "user", "content": "Two?"},
            {"role": "assistant", "name": "Ben", "content": "Yes."},
            {"role": "user", "content": "Three?"},
        ],
    )
    assert [event.instance for event in of(trace, MessageSent)] == ["Anna", "Ben", "Ben"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, ""),
        ([], ""),
        ([{"type": "text", "text": ""}], ""),
        ([{"type": "text", "text": "a"}, "b", {"type": "image_url", "image_url": {}}], "a\nb\n[image_url]"),
        ([{"type": "refusal", "refusal": "No."}], "No."),
        ({"answer": 3}, '{"answer": 3}'),
        (12, "12"),
        ("\ud800 broken", "? broken"),
    ],
)
def test_content_of_any_kind_becomes_words(tmp_path: Path, content: object, said: str) -> None:
    """A list of parts is its texts, a part that is no text is named, and only what is empty is empty."""
    trace = only(tmp_path, [{"role": "assistant", "content": content}])
    assert of(trace, ModelResponded)[0].content == said


def test_a_refusal_is_an_answer(tmp_path: Path) -> None:
    """A reply whose words stand under `refusal` is not empty."""
    trace = only(tmp_path, [*SHOP["traj"], {"role": "assistant", "content": None, "refusal": "I cannot do that."}])
    assert of(trace, ModelResponded)[-1].content == "I cannot do that."


# -- outcome ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({}, None),
        ({"reward": 1.0}, "success"),
        ({"reward": 0}, "failure"),
        ({"reward": 0.5}, "failure"),
        ({"reward": True}, "success"),
        ({"reward": float("nan")}, None),
        ({"reward": None}, None),
        ({"utility": False}, "failure"),
        ({"is_correct": "True"}, "success"),
        ({"is_corrected": "False"}, "failure"),
        ({"is_corrected": "perhaps"}, None),
        ({"reward": "no idea", "utility": True}, "success"),
    ],
)
def test_outcome_comes_from_named_fields(tmp_path: Path, fields: dict[str, object], outcome: str | None) -> None:
    """`reward`, `utility`, `is_correct` and `is_corrected` say how a run turned out; what they do not say is None."""
    trace = only(tmp_path, {"messages": [{"role": "user", "content": "Hi"}], **fields})
    (end,) = of(trace, RunEnded)
    assert (trace.outcome, end.outcome) == (outcome, outcome)


# -- what is never read -----------------------------------------------------------------------------------------------

UNREAD = ("ground_truth", "mistake_agent", "mistake_step", "mistake_reason", "labels", "info", "level", "question_ID")


@pytest.mark.parametrize(
    "document", [GROUP_CHAT, {"question": "?", "history": MAGENTIC}, SHOP], ids=["group chat", "magentic", "openai"]
)
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_nothing_but_the_named_fields_is_read(
    tmp_path_factory: pytest.TempPathFactory, document: dict[str, Any], data: st.DataObject
) -> None:
    """Labels, answers, unknown fields, their order and the file's name change nothing of a trace."""
    folder = tmp_path_factory.mktemp("unread")
    plain = only(folder, document)
    junk = st.dictionaries(st.sampled_from(UNREAD), st.text() | st.integers() | st.lists(st.text()), min_size=1)
    noisy = {**data.draw(junk), **document}
    key = next(name for name in ("history", "traj") if name in document)
    noisy[key] = [{**data.draw(junk), **message} for message in document[key]]
    shuffled = {name: noisy[name] for name in data.draw(st.permutations(sorted(noisy)))}
    (trace,) = read(written(folder, shuffled, data.draw(st.sampled_from(["Coder_3.json", "success", "a.txt"]))))
    assert trace == plain


# -- files with several traces ----------------------------------------------------------------------------------------


def test_lists_and_lines_hold_one_trace_each(tmp_path: Path) -> None:
    """A list of frames, a list of conversations and JSON Lines give one trace each, labelled by index."""
    documents = [SHOP, {"messages": MAGENTIC}, GROUP_CHAT]
    lines = tmp_path / "runs.jsonl"
    lines.write_text("\n\n".join(map(json.dumps, documents)) + "\n", encoding="utf-8")
    for file in (written(tmp_path, documents), lines):
        assert [(trace.label, trace.source) for trace in read(file) if isinstance(trace, Trace)] == [
            ("#0", "openai"),
            ("#1", "messages"),
            ("#2", "whowhen"),
        ]
    conversations = written(tmp_path, [MAGENTIC, SHOP["traj"]])
    assert [trace.label for trace in read(conversations)] == ["#0", "#1"]
    assert [trace.label for trace in read(written(tmp_path, [SHOP]))] == ["#0"]


@pytest.mark.parametrize(
    "broken",
    [
        None,
        7,
        "text",
        {},
        {"label": 1},
        {"traj": "gone"},
        {"traj": None},
        {"traj": [1]},
        {"messages": [{"content": "no role"}]},
        {"messages": [{"role": 3}]},
        {"messages": [{"role": "assistant", "tool_calls": "gone"}]},
        {"messages": [{"role": "assistant", "tool_calls": [None]}]},
    ],
)
def test_one_broken_frame_does_not_spoil_the_others(tmp_path: Path, broken: object) -> None:
    """In a list of frames each broken one is an error with its index, and the good ones are read."""
    before, error, after = read(written(tmp_path, [SHOP, broken, SHOP]))
    assert isinstance(before, Trace)
    assert isinstance(after, Trace)
    assert isinstance(error, Unread)
    assert (before.label, error.label, after.label) == ("#0", "#1", "#2")
    assert error.error.code == "unknown_format"


def test_one_broken_line_does_not_spoil_the_others(tmp_path: Path) -> None:
    """In JSON Lines each broken line is an error with its index and line number, and the good ones are read."""
    good = json.dumps(SHOP)
    file = tmp_path / "runs.jsonl"
    file.write_text(f"{good}\n{{oops}}\n{good}\n{good[:200]}", encoding="utf-8")
    found = list(read(file))
    assert [trace.label for trace in found] == ["#0", "#1", "#2", "#3"]
    errors = [trace.error for trace in found if isinstance(trace, Unread)]
    assert [error.code for error in errors] == ["not_json", "truncated"]
    assert str(errors[0]).startswith("line 2: ")


# -- what cannot be read ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("", "truncated"),
        ("  \n", "truncated"),
        (json.dumps(SHOP)[:300], "truncated"),
        ("MIT License\n\nCopyright\n", "not_json"),
        ("{'single': 'quotes'}", "not_json"),
        ('[{"role": "user", "content": "x"}]]', "not_json"),
        (b"\x89PNG\r\n\x1a\n\x00\xff\xfe", "not_json"),
        (b"\xff\xfe\xfa", "not_json"),
        ("12", "unknown_format"),
        ("[]", "unknown_format"),
        ("{}", "unknown_format"),
        ('[{"trajectory_id": 2, "failures": []}]', "unknown_format"),
        ('{"a": 1}\n{"a": 2}\n', "unknown_format"),
        ("[" * 200_000, "unreadable"),
    ],
)
def test_each_way_to_be_unreadable_has_its_code(tmp_path: Path, content: str | bytes, code: str) -> None:
    """A file that ends early, is no JSON, is no trace or is nested beyond reason is told apart."""
    assert refused(tmp_path, content).code == code


def test_a_missing_file_is_unreadable(tmp_path: Path) -> None:
    """What the system does not let us open is `unreadable`, with the system's reason."""
    with pytest.raises(TraceError, match="No such file") as caught:
        list(read(tmp_path / "missing.json"))
    assert caught.value.code == "unreadable"


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """A file beyond the stated limit is `too_large`, and costs nothing."""
    file = tmp_path / "huge.json"
    with file.open("wb") as sparse:
        sparse.truncate(MAX_BYTES + 1)
    with pytest.raises(TraceError, match="200 MB") as caught:
        list(read(file))
    assert caught.value.code == "too_large"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(
    document=st.lists(VALUES, min_size=1) | st.dictionaries(st.text(), VALUES, min_size=1),
    indent=st.sampled_from([None, 2]),
    escaped=st.booleans(),
    data=st.data(),
)
@settings(deadline=None)
def test_json_that_ends_early_is_truncated_wherever_it_ends(
    tmp_path_factory: pytest.TempPathFactory, document: object, indent: int | None, escaped: bool, data: st.DataObject
) -> None:
    """Every proper beginning of a JSON object or list is `truncated`, and nothing else."""
    text = json.dumps(document, indent=indent, ensure_ascii=escaped)
    cut = data.draw(st.integers(1, len(text) - 1))
    assert refused(tmp_path_factory.getbasetemp(), text[:cut]).code == "truncated"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_every_encoding_of_json_is_read(tmp_path: Path, encoding: str) -> None:
    """JSON comes as UTF-8, 16 or 32, with or without a byte order mark."""
    file = tmp_path / "run.json"
    file.write_text(json.dumps(MAGENTIC), encoding=encoding)
    assert next(read(file)).label == ""


# -- sources ----------------------------------------------------------------------------------------------------------


def test_a_named_source_is_taken_at_its_word(tmp_path: Path) -> None:
    """With a source named nothing is guessed; what does not fit is refused, not read wrongly."""
    talk = [{"role": "user", "content": "Hi"}]
    assert only(tmp_path, talk, "openai").source == "openai"
    assert only(tmp_path, talk, "whowhen").source == "whowhen"
    with pytest.raises(TraceError, match="openai"):
        only(tmp_path, SHOP, "messages")
    with pytest.raises(KeyError):
        only(tmp_path, talk, "nonsense")


# -- hostile documents ------------------------------------------------------------------------------------------------

ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**4200, float("nan"), float("inf"), "", "Error", "\ud800", "user", "{}", '{"a": NaN}'])
    | st.text(st.characters(), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["text", "type", "id", "name", "function", "arguments", 1, None]), inner)
    ),
    max_leaves=8,
)
MESSAGE = st.fixed_dictionaries(
    {
        "role": st.sampled_from(
            ["user", "assistant", "tool", "system", "Orchestrator (-> X)", "\ud800", "Computer_terminal"]
        )
    },
    optional={
        "content": ODD | st.just(CODE),
        "name": ODD | st.sampled_from(["Coder", "Computer_terminal"]),
        "tool_calls": st.lists(
            st.fixed_dictionaries({"id": ODD, "function": st.fixed_dictionaries({"name": ODD, "arguments": ODD})}),
            max_size=3,
        )
        | ODD,
        "tool_call_id": ODD,
        "function_call": ODD,
        "refusal": ODD,
    },
)
DOCUMENT = st.lists(MESSAGE, max_size=6) | st.fixed_dictionaries(
    {},
    optional={
        name: strategy
        for names, strategy in (
            (("messages", "history", "traj"), st.lists(MESSAGE, max_size=6) | ODD),
            (("question", "system_prompt", "tools", "reward", "is_correct"), ODD),
        )
        for name in names
    },
)


@pytest.mark.parametrize("source", sorted(IMPORTERS))
@given(document=DOCUMENT | ODD)
@settings(deadline=None, max_examples=200)
def test_no_document_breaks_an_importer(source: str, document: object) -> None:
    """Whatever a document holds, an importer makes a whole trace of it or raises `TraceError`; one step a message."""
    importer = IMPORTERS[source]
    importer.matches(document)
    try:
        trace = importer.read(document, "")
    except TraceError:
        return
    assert isinstance(trace.events[0], RunStarted)
    assert isinstance(trace.events[-1], RunEnded)
    told = [event for event in trace.events[1:-1] if not event.history]
    assert {event.step for event in told} == set(range(trace.steps))


def nested(depth: int) -> object:
    """A list in a list in a list."""
    value: object = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "arguments", [nested(5000), {"x": nested(5000)}, {1: 2, "a": 3}, {"n": 10**6000}, {"\ud800": {"\udfff": "\ud800"}}]
)
def test_arguments_of_any_shape_are_kept_safely(arguments: object) -> None:
    """Arguments nested beyond reason, with odd keys or huge numbers become arguments that can be compared and shown."""
    document = [{"role": "assistant", "content": "", "tool_calls": [{"id": "1", "name": "f", "args": arguments}]}]
    trace = IMPORTERS["openai"].read(document, "")
    (proposed,) = of(trace, ModelResponded)[0].calls
    json.dumps(proposed.arguments, sort_keys=True).encode()
    assert repr(proposed)


@pytest.mark.parametrize("make", [lambda depth: "[" * depth, lambda depth: '{"a":' * depth])
def test_arguments_in_text_of_any_depth(make: Callable[[int], str]) -> None:
    """Arguments whose text cannot be parsed are kept as text."""
    raw = make(100_000)
    document = [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": raw}}]}]
    (proposed,) = of(IMPORTERS["openai"].read(document, ""), ModelResponded)[0].calls
    assert (proposed.arguments, proposed.raw) == (None, raw)
