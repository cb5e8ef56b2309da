"""The sink: what is written, what is lost and counted, and that the host never waits or suffers for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest

from misstep import Guard, JsonlSink
from misstep.decisions import Kind
from misstep.events import Event, RunEnded, RunStarted, ToolRequested
from misstep.records import from_record
from tests.core.scenes import LOOP, RUN, exchange, finds, policy, requested, returned, user


def lines(file: Path) -> list[dict[str, Any]]:
    """The records in a file."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]


def written(file: Path, *events: Event) -> list[dict[str, Any]]:
    """What a sink writes of these events."""
    sink = JsonlSink(file)
    for event in events:
        sink.write(event)
    sink.close()
    assert sink.error is None
    assert sink.lost == 0
    return lines(file)


def test_a_run_is_written(tmp_path: Path) -> None:
    """Every event of a run is a line in the file, in order, and reads back as that event."""
    sink = JsonlSink(tmp_path / "runs.jsonl")
    guard = Guard(sink=sink, strict=True)
    for number in range(4):
        for event in exchange(f"c{number}", q="x"):
            guard.observe(event)
    guard.end(RUN)
    guard.close()
    events = [from_record(record) for record in lines(sink.path)]
    assert isinstance(events[0], RunStarted)
    assert isinstance(events[-1], RunEnded)
    assert [event.seq for event in events] == list(range(len(events)))  # type: ignore[union-attr]
    kinds = [record["kind"] for record in lines(sink.path)]
    assert {"tool.requested", "tool.returned", "anomaly.found", "decision.taken", "decision.settled"} <= set(kinds)
    assert (sink.lost, sink.error) == (0, None)


def test_a_file_is_added_to(tmp_path: Path) -> None:
    """What a file already holds stays."""
    file = tmp_path / "runs.jsonl"
    written(file, user("first"))
    assert [record["content"] for record in written(file, user("second"))] == ["first", "second"]


def test_no_secret_is_written(tmp_path: Path) -> None:
    """Secrets in texts, arguments, names and errors are pseudonyms in the file, the same for the same secret."""
    secret = "sk-abcdefghijklmnopqrstuvwx"
    records = written(
        tmp_path / "runs.jsonl",
        user(f"the key is {secret}"),
        requested("c1", "login", arguments={"password": "hunter2hunter2", "deep": [{"x": f"api_key={secret}"}]}),
        returned("c1", json.dumps({"access_token": "abcd1234efgh", "key": "-----BEGIN PRIVATE KEY-----\nMIIEvQ\n"})),
        RunEnded(run=RUN, error=f"401 for {secret}"),
        user("hello", agent=f"agent {secret}"),
    )
    text = (tmp_path / "runs.jsonl").read_text(encoding="utf-8")
    for part in ("abcdefghij", "hunter2", "abcd1234", "MIIEvQ"):
        assert part not in text
    pseudonym = records[0]["content"].removeprefix("the key is ")
    assert text.count(pseudonym) == 4


def test_a_text_is_one_line(tmp_path: Path) -> None:
    """Line ends within a text, of whatever kind, do not end its record, and a broken character breaks nothing."""
    records = written(
        tmp_path / "runs.jsonl", user("a\nb\r\nc\u2028d\x85e"), user("half \ud800 a character"), user("after")
    )
    raw = (tmp_path / "runs.jsonl").read_bytes().splitlines()
    assert len(raw) == 3
    assert records[-1]["content"] == "after"


def test_an_event_that_cannot_be_written_takes_no_other_with_it(tmp_path: Path) -> None:
    """Whatever a host passes as arguments, its event and those round it are written."""
    strange: dict[str, Any] = {"x": object(), "y": b"\xff", "z": {1: {2}}}
    strange["again"] = strange
    records = written(tmp_path / "runs.jsonl", user("before"), requested("c1", arguments=strange), user("after"))
    assert [record["kind"] for record in records] == ["message.sent", "tool.requested", "message.sent"]


class Unwritable(Event):
    """No event of ours."""


def test_what_is_no_event_is_lost_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be made a record at all is counted as lost and reported; the rest is written."""
    sink = JsonlSink(tmp_path / "runs.jsonl")
    for event in (user("before"), Unwritable(run=RUN), user("after")):
        sink.write(event)
    sink.close()
    assert [record["content"] for record in lines(sink.path)] == ["before", "after"]
    assert sink.lost == 1
    assert sink.error is not None


@pytest.mark.parametrize("place", ["missing/runs.jsonl", "."], ids=["no such folder", "a folder"])
def test_a_file_that_cannot_be_written(tmp_path: Path, place: str, caplog: pytest.LogCaptureFixture) -> None:
    """Where nothing can be written the host goes on as if nothing were; it is reported once, and the loss counted."""
    sink = JsonlSink(tmp_path / place)
    guard = Guard(policy({LOOP: ["refuse"]}), detectors=[finds(LOOP)], sink=sink, strict=True)
    for number in range(3):
        assert guard.observe(requested(f"c{number}")).kind is Kind.REFUSE
    guard.end(RUN)
    told = len(guard.report(RUN).runs[0].anomalies)
    guard.close()
    assert told == 3
    assert isinstance(sink.error, OSError)
    assert sink.lost >= 1 + 3 * 3 + 1
    assert caplog.text.count("events are being lost") == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a pipe to hold the writer up")
def test_what_finds_no_room_is_dropped_and_counted(tmp_path: Path) -> None:
    """Under overload the host never waits: what does not fit is dropped and counted, and the rest is written."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    sink = JsonlSink(pipe, capacity=5)
    for number in range(200):
        sink.write(user(f"m{number}"))
    lost, read = sink.lost, list[str]()
    assert 0 < lost < 200

    def reader() -> None:
        while len(read) < 200 - lost:
            read.extend(pipe.read_text(encoding="utf-8").splitlines())

    thread = threading.Thread(target=reader, daemon=True)
    thread.start()
    thread.join(timeout=10)
    assert len(read) == 200 - lost
    sink.close(timeout=0)


def test_writing_after_the_end_is_lost_and_counted(tmp_path: Path) -> None:
    """An event told to a sink that was closed is not silently swallowed."""
    sink = JsonlSink(tmp_path / "runs.jsonl")
    sink.write(user("in time"))
    sink.close()
    sink.write(user("too late"))
    assert sink.lost == 1
    assert [record["content"] for record in lines(sink.path)] == ["in time"]


def test_closing_twice_and_closing_what_was_never_used(tmp_path: Path) -> None:
    """A sink can be closed at any time and more than once; one that was never written to leaves no file."""
    sink = JsonlSink(tmp_path / "runs.jsonl")
    sink.close()
    sink.close()
    assert not sink.path.exists()


def test_many_threads_write_whole_lines(tmp_path: Path) -> None:
    """Events of several threads are each a whole line."""
    sink = JsonlSink(tmp_path / "runs.jsonl")
    threads = [
        threading.Thread(target=lambda name=name: [sink.write(user("x" * 500, agent=name)) for _ in range(50)])  # type: ignore[misc]
        for name in "abcd"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sink.close()
    assert sorted(record["agent"] for record in lines(sink.path)) == sorted("abcd" * 50)


def test_a_program_that_ends_loses_nothing(tmp_path: Path) -> None:
    """What was told to a sink is in the file when the program has ended, also where nobody closed it."""
    script = textwrap.dedent(
        """
        import sys
        from misstep import JsonlSink
        from misstep.events import MessageSent

        sink = JsonlSink(sys.argv[1])
        for number in range(5000):
            sink.write(MessageSent(run="r", role="user", content=str(number)))
        """
    )
    file = tmp_path / "runs.jsonl"
    subprocess.run([sys.executable, "-c", script, str(file)], check=True)
    assert len(lines(file)) == 5000


def test_a_record_can_be_read_as_data(tmp_path: Path) -> None:
    """A line is plain JSON with the version of the format and the kind first."""
    (record,) = written(tmp_path / "runs.jsonl", requested("c1", arguments={"q": "é"}))
    assert list(record)[:2] == ["v", "kind"]
    back = from_record(record)
    assert isinstance(back, ToolRequested)
    assert back.arguments == {"q": "é"}
