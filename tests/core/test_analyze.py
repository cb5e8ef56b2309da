"""Analysis and replay: the guard that runs live, on recorded runs."""

from __future__ import annotations

import copy
import json
import os
import random
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from misstep.analysis import Analyzed, NotRead, analyze
from misstep.events import (
    Event,
    MessageSent,
    ModelResponded,
    ProposedCall,
    RunEnded,
    RunStarted,
    ToolReturned,
)
from misstep.guard import Guard
from misstep.records import from_record, to_record
from misstep.replay import replay, watcher
from misstep.taxonomy import AnomalyType, Category, Severity

KEY = "sk-" + "a1B2c3D4" * 6


def reply(step: int, *, call: str | None = None, text: str = "", **arguments: object) -> dict[str, Any]:
    """An assistant's message, which calls a tool if `call` names one."""
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if call is not None:
        function = {"name": call, "arguments": json.dumps(arguments)}
        message["tool_calls"] = [{"id": f"call_{step}", "type": "function", "function": function}]
    return message


def result(step: int, text: str) -> dict[str, Any]:
    """The answer to the call made at the step before."""
    return {"role": "tool", "tool_call_id": f"call_{step - 1}", "content": text}


def looping(times: int = 3) -> list[dict[str, Any]]:
    """A run that makes the same call again and again."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Where is order A1?"}]
    for _ in range(times):
        step = len(messages)
        messages += [reply(step, call="get_order", order="A1"), result(step + 1, "not found")]
    return messages


EMPTY_REPLY = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "  "}]
HEALTHY = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello."}]


def written(path: Path, document: object, name: str = "run.json") -> str:
    """The document as a file; its path as one would type it."""
    file = path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document), encoding="utf-8")
    return str(file)


def analyzed(path: Path, document: object, name: str = "run.json") -> Analyzed:
    """The account of the one trace of a document."""
    (found,) = analyze([written(path, document, name)])
    assert isinstance(found, Analyzed)
    return found


# -- the JSON of a trace ----------------------------------------------------------------------------------------------


def test_the_record_is_the_contract(tmp_path: Path) -> None:
    """The JSON of a trace has exactly the promised fields, down to evidence and candidates."""
    found = analyzed(tmp_path, {"messages": looping(), "reward": 0.0})
    assert found.record() == {
        "schema": 1,
        "trace": str(tmp_path / "run.json"),
        "source": "openai",
        "steps": 7,
        "agents": ["assistant"],
        "outcome": "failure",
        "anomalies": [
            {
                "id": found.report.anomalies[0].id,
                "type": "repeated_call",
                "category": "action",
                "severity": "medium",
                "confidence": 1.0,
                "step": 5,
                "agent": "assistant",
                "message": "`get_order` called 3 times with the same arguments, and nothing new was learned in between",
                "evidence": [
                    {"step": 3, "quote": "get_order(order='A1')"},
                    {"step": 1, "quote": "get_order(order='A1')"},
                ],
            }
        ],
        "decisions": [
            {
                "step": 5,
                "agent": "assistant",
                "kind": "reprompt",
                "anomaly": "repeated_call",
                "hypothetical": True,
            }
        ],
        "root_cause": {
            "class": "model",
            "confidence": found.report.root_cause.confidence if found.report.root_cause else None,
            "abstained": found.report.root_cause.abstained if found.report.root_cause else None,
            "candidates": [
                {
                    "agent": "assistant",
                    "step": 1,
                    "score": 1.0,
                    "why": "`get_order` called 3 times with the same arguments, and nothing new was learned in between",
                }
            ],
        },
    }


def test_a_healthy_run_has_an_empty_record(tmp_path: Path) -> None:
    """Nothing found is said as empty lists and null, not left out."""
    record = analyzed(tmp_path, HEALTHY).record()
    assert (record["anomalies"], record["decisions"], record["root_cause"]) == ([], [], None)
    assert (record["outcome"], record["steps"], record["source"]) == (None, 2, "messages")


def test_a_trace_that_cannot_be_read_has_its_own_record(tmp_path: Path) -> None:
    """A file that is no trace is a record with a code and a message, and nothing else."""
    (found,) = analyze([written(tmp_path, {"labels": []})])
    assert isinstance(found, NotRead)
    record: Any = found.record()
    assert set(record) == {"schema", "trace", "error"}
    assert record["error"]["code"] == "unknown_format"
    assert "`whowhen`" in record["error"]["message"]


def test_a_solved_run_has_no_root_cause(tmp_path: Path) -> None:
    """Where the run succeeded nothing is blamed, whatever was found on the way."""
    found = analyzed(tmp_path, {"messages": looping(), "reward": 1})
    assert found.report.anomalies
    assert found.record()["root_cause"] is None


def test_an_empty_reply_is_found_and_an_empty_terminal_is_not(tmp_path: Path) -> None:
    """Only a model can answer with nothing; a terminal or a user who says nothing is no anomaly."""
    history = [
        {"role": "user", "name": "Computer_terminal", "content": ""},
        {"role": "user", "name": "user", "content": ""},
        {"role": "assistant", "name": "Planner", "content": " \n"},
        {"role": "user", "name": "Computer_terminal", "content": "exitcode: 0 (execution succeeded)\nCode output: "},
    ]
    found = analyzed(tmp_path, {"question": "?", "history": history})
    assert [(anomaly.type, anomaly.step) for anomaly in found.report.anomalies] == [(AnomalyType.EMPTY_RESPONSE, 2)]


def test_code_run_again_and_again_is_found(tmp_path: Path) -> None:
    """An agent of a group chat whose code fails the same way three times repeats itself."""
    turn = [
        {"role": "user", "name": "Coder", "content": "```python\nopen('x')\n```"},
        {"role": "user", "name": "Computer_terminal", "content": "exitcode: 1 (execution failed)\nCode output: no x"},
    ]
    found = analyzed(tmp_path, {"question": "?", "history": turn * 3, "is_correct": False})
    weighty = [anomaly for anomaly in found.report.anomalies if anomaly.type is not AnomalyType.TOOL_ERROR]
    assert [(anomaly.type, anomaly.step, anomaly.agent) for anomaly in weighty] == [
        (AnomalyType.REPEATED_CALL, 4, "Coder")
    ]


def test_evidence_is_quoted_however_long_the_run(tmp_path: Path) -> None:
    """A replay forgets nothing: the words of an early step are still there thousands of steps later."""
    messages = [{"role": "user", "content": "Go on."}, reply(1, text="Account zz-991 it is.")]
    for number in range(3000):
        messages += [{"role": "user", "content": f"And {number}?"}, {"role": "assistant", "content": f"Yes, {number}."}]
    messages.append(reply(len(messages), call="close", account_id="zz-991"))
    (anomaly,) = analyzed(tmp_path, messages).report.anomalies
    assert anomaly.type is AnomalyType.UNGROUNDED_ARGUMENT
    assert (1, "Account zz-991 it is.") in [(piece.step, piece.quote) for piece in anomaly.evidence]


@pytest.mark.parametrize("mode", ["off", "enforce", "shadow"])
def test_the_live_switch_does_not_switch_analysis(tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """MISSTEP_MODE is for what runs live: an analysis is always made, and always hypothetical."""
    monkeypatch.setenv("MISSTEP_MODE", mode)
    report = analyzed(tmp_path, looping()).report
    assert [decision.hypothetical for decision in report.decisions] == [True]


# -- secrets and determinism ------------------------------------------------------------------------------------------


def test_secrets_are_shown_the_same_in_every_process(tmp_path: Path) -> None:
    """A secret is a number in order of appearance, so that two analyses of one trace are byte for byte the same."""
    messages = [{"role": "user", "content": "Go."}]
    for _ in range(3):
        step = len(messages)
        messages += [reply(step, call="login", token=KEY, other="x"), result(step + 1, "denied")]
    line = json.dumps(analyzed(tmp_path, messages).record())
    assert KEY[:10] not in line
    assert re.findall(r"<secret:\w+:(\w+)>", line) == ["1"] * line.count("<secret:") != []


def test_a_secret_at_the_edge_of_a_quote_does_not_leak(tmp_path: Path) -> None:
    """A quote is cut after it was redacted, so that no half of a secret is left."""
    text = "x " * 70 + KEY + " y" * 400
    messages = [{"role": "user", "content": "Go."}]
    for _ in range(3):
        step = len(messages)
        messages += [reply(step, call="note", text=text, body=text), result(step + 1, "done")]
    assert KEY[:8] not in json.dumps(analyzed(tmp_path, messages).record())


UNREAD = {"labels": [1], "ground_truth": "8", "mistake_step": "3", "mistake_agent": "x", "info": {}, "trial": 4}


def test_only_named_fields_and_no_names_decide(tmp_path: Path) -> None:
    """Unread fields, their order and the file's name change nothing but `trace`."""
    chat = [
        {"role": "assistant", "name": "Coder", "content": "```python\nprint(1)\n```"},
        {"role": "user", "name": "Computer_terminal", "content": "exitcode: 0 (execution succeeded)\nCode output: 1"},
        {"role": "assistant", "name": "Coder", "content": ""},
    ]
    for document, field in (
        ({"question": "How many?", "history": chat, "is_correct": "False"}, "history"),
        ({"traj": looping(), "reward": 0.0}, "traj"),
        ({"messages": EMPTY_REPLY, "utility": False}, "messages"),
    ):
        plain = analyzed(tmp_path, document).record()
        for seed in range(5):
            noise = random.Random(seed)
            noisy = {**UNREAD, **document, "level": seed}
            noisy[field] = [{**{name: noise.random() for name in UNREAD}, **item} for item in document[field]]  # type: ignore[attr-defined]
            shuffled = dict(noise.sample(sorted(noisy.items()), len(noisy)))
            other = analyzed(tmp_path, shuffled, f"deep/{seed}/mistake_{seed}.json").record()
            assert json.dumps({**other, "trace": ""}) == json.dumps({**plain, "trace": ""})


# -- files and folders ------------------------------------------------------------------------------------------------


def test_folders_are_read_deep_sorted_and_whole(tmp_path: Path) -> None:
    """In a folder every regular file is tried, in order of path; links to nowhere and pipes are not files."""
    for name in ("b.json", "a/z.json", "a/b.json", "a.json", ".hidden"):
        written(tmp_path, HEALTHY, name)
    (tmp_path / "LICENSE").write_text("MIT License", encoding="utf-8")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    found = list(analyze([str(tmp_path)]))
    names = [one.trace.removeprefix(f"{tmp_path}/") for one in found]
    assert names == [".hidden", "LICENSE", "a.json", "a/b.json", "a/z.json", "b.json"]
    assert [one.trace for one in found if isinstance(one, NotRead)] == [f"{tmp_path}/LICENSE"]


def test_a_trace_is_named_as_it_was_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`trace` is the path as typed, joined with the path inside a folder, and the index inside a file."""
    written(tmp_path, [{"messages": HEALTHY}, None], "runs/a.json")
    monkeypatch.chdir(tmp_path)
    assert [one.trace for one in analyze(["runs", "./runs/a.json", "nowhere"])] == [
        "runs/a.json#0",
        "runs/a.json#1",
        "./runs/a.json#0",
        "./runs/a.json#1",
        "nowhere",
    ]


def test_an_empty_folder_is_not_passed_over(tmp_path: Path) -> None:
    """A folder without a file is an error: a check that looks at nothing must not pass."""
    (found,) = analyze([str(tmp_path)])
    assert isinstance(found, NotRead)
    assert found.code == "unreadable"


def test_traces_come_as_soon_as_they_are_done(tmp_path: Path) -> None:
    """Nothing waits for the end: the first account is there before the second file is looked at."""
    first, second = written(tmp_path, HEALTHY, "1.json"), str(tmp_path / "2.json")
    stream = analyze([first, second])
    assert isinstance(next(stream), Analyzed)
    written(tmp_path, HEALTHY, "2.json")
    assert isinstance(next(stream), Analyzed)


# -- replay -----------------------------------------------------------------------------------------------------------


class Kept:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def write(self, event: Event) -> None:
        """Keep one event."""
        self.events.append(event)

    def close(self) -> None:
        """There is nothing to close."""


def live(guard: Guard) -> None:
    """A run that loops, told to a guard as an adapter would."""
    guard.open("r", task="Where is order A1?")
    for number in range(3):
        proposed = ProposedCall(f"c{number}", "get_order", {"order": "A1"})
        guard.observe(ModelResponded(run="r", call=f"m{number}", agent="a", instance="a", calls=(proposed,)))
        guard.observe(
            ToolReturned(run="r", call=f"c{number}", agent="a", instance="a", tool="get_order", output="not found")
        )
    guard.observe(ModelResponded(run="r", call="m4", agent="a", instance="a", content=""))
    guard.outcome("r", success=False, score=0.0)
    guard.end("r", "failed")


def test_a_recorded_run_replays_to_the_same_anomalies() -> None:
    """What a sink wrote of a live run, verdicts and all, gives the anomalies the live run gave, each once."""
    sink = Kept()
    guard = Guard(mode="shadow", sink=sink, strict=True)
    live(guard)
    records = [json.loads(json.dumps(to_record(event))) for event in sink.events]
    events = [event for event in map(from_record, records) if isinstance(event, Event)]
    (then,) = guard.report("r").runs
    now = replay(events, watcher(events))
    told = [[(one.type, one.step, one.agent, one.message) for one in run.anomalies] for run in (then, now)]
    assert told[0] == told[1] != []
    assert (now.status, now.outcome, now.score, now.steps) == (then.status, then.outcome, then.score, then.steps)
    assert now.root_cause == then.root_cause


def test_replay_changes_nothing_and_can_be_repeated() -> None:
    """The recorded events stay as they are, and a second replay says the same."""
    events: list[Event] = [
        RunStarted(run="r"),
        MessageSent(run="r", role="user", trust="user", content="Hello?", step=0),
        ModelResponded(run="r", agent="a", instance="a", content="", step=1),
        RunEnded(run="r", outcome="failure"),
    ]
    before = copy.deepcopy(events)
    guard = Guard(mode="shadow")
    first, second = replay(events, guard), replay(events, guard)
    assert events == before
    assert first == second
    assert [anomaly.step for anomaly in first.anomalies] == [1]


def test_every_decision_of_a_replay_is_hypothetical() -> None:
    """What happened has happened: even an enforcing guard only says what it would have decided."""
    report = replay([ModelResponded(run="r", agent="a", instance="a", content="")], Guard(mode="enforce"))
    assert [decision.hypothetical for decision in report.decisions] == [True]
    assert report.status == "completed"


def test_a_failure_of_the_guard_is_in_the_report() -> None:
    """When the guard's own code fails on an event, the report says so instead of looking healthy."""
    broken = ModelResponded(run="r", agent="a", instance="a", content=None)  # type: ignore[arg-type]
    report = replay([broken], watcher([broken]))
    assert {anomaly.type for anomaly in report.anomalies} == {AnomalyType.GUARD_FAILURE}


def test_replay_refuses_what_would_be_silent_or_mixed_up() -> None:
    """No events, a guard that is off and a run that is open are errors, not empty reports."""
    event = ModelResponded(run="r", content="")
    with pytest.raises(ValueError, match="no events"):
        replay([], Guard())
    with pytest.raises(ValueError, match="off"):
        replay([event], Guard(mode="off"))
    guard = Guard()
    guard.open("r")
    with pytest.raises(ValueError, match="is open"):
        replay([event], guard)


# -- whatever a file holds --------------------------------------------------------------------------------------------

WORDS = st.sampled_from(["", " ", "Error: no", "```sh\nls\n```", "exitcode: 1", "\ud800", "[red]x[/]", "\x1b[2J", KEY])
LEAF = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | WORDS
ODD = st.recursive(
    LEAF,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "text", "type", "\ud800"]), inner)
    ),
    max_leaves=6,
)
CALL = st.fixed_dictionaries(
    {"function": st.fixed_dictionaries({"name": st.sampled_from(["f", "g", "\ud800"]), "arguments": ODD})},
    optional={"id": st.sampled_from(["1", "2"])},
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "assistant", "tool", "system", "O (-> X)", "\x1b[31m", "\ud800"])},
    optional={
        "content": WORDS | ODD,
        "name": st.sampled_from(["Coder", "Computer_terminal", "[bold]", "\ud800"]),
        "tool_calls": st.lists(CALL, max_size=3),
        "tool_call_id": st.sampled_from(["1", "2"]),
    },
)
FRAME = st.one_of(
    st.fixed_dictionaries(
        {name: st.lists(MESSAGE, max_size=12)}, optional={"reward": ODD, "question": ODD, "tools": ODD}
    )
    for name in ("messages", "history", "traj")
)


@given(document=st.lists(MESSAGE, max_size=12) | FRAME | st.lists(FRAME | ODD, max_size=3) | ODD)
@settings(deadline=None, max_examples=150)
def test_no_file_breaks_an_analysis(tmp_path_factory: pytest.TempPathFactory, document: object) -> None:
    """Whatever a file holds, each trace in it gives one sound record, and the guard does not fail on it."""
    path = written(tmp_path_factory.getbasetemp(), document)
    for found in analyze([path]):
        record: Any = json.loads(json.dumps(found.record(), allow_nan=False))
        assert record["trace"].startswith(path)
        if isinstance(found, NotRead):
            assert found.code == "unknown_format", found.message
            continue
        assert not found.guard_failures
        for anomaly in record["anomalies"]:
            assert 0 <= anomaly["step"] < record["steps"]
            assert 0 <= anomaly["confidence"] <= 1
            assert anomaly["category"] in set(Category)
            assert anomaly["severity"] in set(Severity)
        for candidate in (record["root_cause"] or {"candidates": []})["candidates"]:
            assert 0 <= candidate["score"] <= 1


@given(data=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace")))
@settings(deadline=None)
def test_no_bytes_break_an_analysis(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """Any file at all is an account or an error with a code."""
    file = tmp_path_factory.getbasetemp() / "bytes"
    file.write_bytes(data)
    for found in analyze([str(file)]):
        assert isinstance(found, Analyzed) or found.code in {"truncated", "not_json", "unknown_format", "unreadable"}
