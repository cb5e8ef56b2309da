"""Importers on documents of the real SDKs: one run, whoever wrote it down, is one story."""

from __future__ import annotations

import copy
import itertools
import json
import random
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from misstep import importers
from misstep.analysis import judged
from misstep.errors import TraceError
from misstep.events import (
    Event,
    HandoffRequested,
    MessageSent,
    ModelRequested,
    ModelResponded,
    RetrievalRequested,
    RetrievalReturned,
    RunEnded,
    RunStarted,
    ToolFailed,
    ToolRequested,
    ToolReturned,
    TurnEnded,
    TurnStarted,
)
from misstep.importers import IMPORTERS, Trace, Unread, known_importers, read
from misstep.taxonomy import AnomalyType
from tests.core.samples import LINES, SAMPLES, STORIES, document, file_of
from tests.fixtures.story import ANSWER, SYSTEM, TASK, TOOL

pytestmark = pytest.mark.timeout(240)

GENERAL = {"openai", "messages"}
"""The formats of any conversation; the others are asked before them."""


def source(name: str) -> str:
    """The importer a sample is for."""
    return name.partition(":")[0]


def only(folder: Path, name: str, content: Any = None) -> Trace:
    """The one trace of a sample, or of other content in its place."""
    (trace,) = read(file_of(folder, name, content))
    assert isinstance(trace, Trace), trace
    return trace


def of(trace: Trace, *classes: type[Event]) -> list[Any]:
    """The trace's events of those classes."""
    return [event for event in trace.events if isinstance(event, classes)]


# -- the story --------------------------------------------------------------------------------------------------------


def story(trace: Trace) -> Iterator[tuple[str, str]]:
    """What a trace tells of the clerk, without the words its format adds."""
    for event in trace.events:
        match event:
            case MessageSent(trust="user") if TASK in event.content:
                yield "asked", TASK
            case ModelResponded(instance="critic"):
                continue
            case ModelResponded() if event.calls:
                yield from (("calls", str(call.arguments)) for call in event.calls)
            case ModelResponded():
                yield "says", event.content
            case ToolReturned():
                yield "returned", event.output
            case ToolFailed():
                yield "failed", "no such order" if "no such order" in event.error else event.error
            case ToolRequested():
                yield "requested", event.tool
            case _:
                continue


@pytest.mark.parametrize("name", STORIES)
def test_one_run_is_one_story(tmp_path: Path, name: str) -> None:
    """Whichever SDK wrote the run down: the task, each call with its own result, and the answer, each once."""
    trace = only(tmp_path, name)
    assert (trace.source, trace.label) == (source(name), "")
    assert list(story(trace)) == [
        ("asked", TASK),
        ("calls", "{'order': 'A1'}"),
        ("returned", "A1 sent"),
        ("calls", "{'order': 'A2'}"),
        ("failed", "no such order"),
        ("says", ANSWER),
    ]


@pytest.mark.parametrize("name", STORIES)
def test_each_result_is_of_its_call(tmp_path: Path, name: str) -> None:
    """Results carry the id of the call they answer and its agent, and the two calls are two."""
    trace = only(tmp_path, name)
    calls = [(reply.agent, call.call) for reply in of(trace, ModelResponded) for call in reply.calls]
    assert len(set(calls)) == 2
    assert [(event.agent, event.call) for event in of(trace, ToolReturned, ToolFailed)] == calls


@pytest.mark.parametrize("name", STORIES)
def test_a_sound_run_raises_no_alarm(tmp_path: Path, name: str) -> None:
    """The tool's one error is noted where it came, and nothing of a format looks like a misstep."""
    trace = only(tmp_path, name)
    (failed,) = of(trace, ToolFailed)
    found = judged(trace, name).report.anomalies
    assert [(anomaly.type, anomaly.step) for anomaly in found] == [(AnomalyType.TOOL_ERROR, failed.step)]


@pytest.mark.parametrize("name", SAMPLES)
def test_every_trace_is_whole(tmp_path: Path, name: str) -> None:
    """A trace begins and ends, its steps are of the source, and reading it again gives the same."""
    trace = only(tmp_path, name)
    assert isinstance(trace.events[0], RunStarted)
    assert isinstance(trace.events[-1], RunEnded)
    assert {event.step for event in trace.events} <= set(range(trace.steps))
    assert only(tmp_path, name) == trace


# -- steps and agents -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "steps", "agents"),
    [
        ("langchain:state", [0, 1, 2, 3, 4, 5], ("clerk",)),
        ("autogen:result", [0, 2, 3, 5, 6, 7], ("clerk", "critic")),
        ("autogen:agent state", [0, 1, 2, 3, 4, 5], ("clerk",)),
        ("crewai:native", [1, 2, 3, 4, 5, 6], ("clerk", "critic")),
        ("crewai:text", [1, 2, 2, 4, 4, 6], ("clerk", "critic")),
        ("agentdojo:run", [1, 2, 3, 4, 5, 6], ("assistant",)),
        ("agentdojo:no ids", [0, 0, 1, 2, 3, 4], ("assistant",)),
        ("otlp:genai", [2, 2, 3, 4, 5, 6], ("clerk",)),
        ("langfuse:trace", [1, 1, 2, 3, 4, 5], ("clerk",)),
    ],
)
def test_steps_are_the_sources_own(tmp_path: Path, name: str, steps: list[int], agents: tuple[str, ...]) -> None:
    """A step is a message's index, over all tasks in CrewAI's case, and of spans the rank by start time."""
    trace = only(tmp_path, name)
    told = of(trace, MessageSent, ModelResponded, ToolReturned, ToolFailed)
    asked = next(event for event in told if isinstance(event, MessageSent) and TASK in event.content)
    rest = [event.step for event in told if not isinstance(event, MessageSent) and event.agent != "critic"]
    assert [asked.step, *rest] == steps
    assert trace.agents == agents


def test_ranks_count_every_span(tmp_path: Path) -> None:
    """The rank of a span is among all spans of the trace, those of no interest included."""
    spans = [
        span
        for resource in document("otlp:autogen enclosed")["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]
    ordered = sorted(spans, key=lambda span: int(span["startTimeUnixNano"]))
    ranks = [rank for rank, span in enumerate(ordered) if span["name"].startswith("invoke_agent")]
    trace = only(tmp_path, "otlp:autogen enclosed")
    assert [event.step for event in of(trace, TurnStarted)] == ranks
    assert trace.steps == len(spans)


# -- what only some formats tell --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["langsmith:batch", "otlp:langfuse handler", "otlp:genai"])
def test_spans_tell_which_tools_a_model_was_offered(tmp_path: Path, name: str) -> None:
    """Declared tools come with every call of a model, as they do live."""
    requests = of(only(tmp_path, name), ModelRequested)
    assert [[tool.name for tool in request.tools] for request in requests] == [[TOOL]] * 3


@pytest.mark.parametrize("name", ["langsmith:batch", "otlp:langfuse", "langfuse:page", "otlp:genai"])
def test_what_a_model_is_shown_again_is_told_once(tmp_path: Path, name: str) -> None:
    """A model is shown the whole conversation at every call; each message becomes an event once."""
    trace = only(tmp_path, name)
    said = [(event.role, event.content) for event in of(trace, MessageSent)]
    assert said == [("system", SYSTEM), ("user", TASK)]
    assert [request.messages for request in of(trace, ModelRequested)] == [2, 4, 6]


def test_agents_take_turns(tmp_path: Path) -> None:
    """An agent's span is a turn of its, which ends after what it does in it."""
    trace = only(tmp_path, "otlp:genai")
    inner = [type(event) for event in trace.events[1:-1]]
    assert (inner[0], inner[-1]) == (TurnStarted, TurnEnded)
    assert trace.events[1].agent == "clerk"


def test_retrievals_are_told(tmp_path: Path) -> None:
    """A retriever's query, and what it found."""
    trace = only(tmp_path, "otlp:genai")
    (asked,), (found,) = of(trace, RetrievalRequested), of(trace, RetrievalReturned)
    assert (asked.query, asked.agent, asked.step) == ("A1 A2", "clerk", 1)
    assert "d1" in found.documents[0]


def test_a_handoff_is_told(tmp_path: Path) -> None:
    """AutoGen's hand-off names the agent that is to go on."""
    (handoff,) = of(only(tmp_path, "autogen:handoff"), HandoffRequested)
    assert (handoff.agent, handoff.target, handoff.step) == ("front", "back", 4)


def test_thoughts_are_no_replies(tmp_path: Path) -> None:
    """AutoGen writes a reply's thought as a message of its own; it is not a second reply."""
    trace = only(tmp_path, "autogen:result")
    assert [event.step for event in of(trace, MessageSent) if event.content == "I look."] == [1, 4]
    assert [event.step for event in of(trace, ModelResponded)] == [2, 5, 7, 8]


def test_arguments_that_could_not_be_parsed_are_kept(tmp_path: Path) -> None:
    """LangChain keeps broken calls apart; they are calls, with the text of their arguments."""
    (reply,) = of(only(tmp_path, "langchain:broken call"), ModelResponded)
    assert [(call.call, call.arguments, call.raw) for call in reply.calls] == [("call_3", None, "{oops")]


def test_what_crewai_puts_together_is_not_the_users(tmp_path: Path) -> None:
    """A task's prompt is the user's, but for what it quotes of other agents; CrewAI's own prompts are the system's."""
    said = [(event.step, event.trust) for event in of(only(tmp_path, "crewai:text"), MessageSent)]
    assert said == [(0, "system"), (1, "user"), (3, "system"), (5, "system"), (7, "system"), (8, "user"), (8, "agent")]


@pytest.mark.parametrize("name", ["sweagent:text", "sweagent:calls", "sweagent:responses"])
def test_commands_are_calls_of_bash(tmp_path: Path, name: str) -> None:
    """However mini-swe-agent's model asks, a command is a call, and an exit code other than 0 its failure."""
    trace = only(tmp_path, name)
    calls = [(reply.step, call.tool) for reply in of(trace, ModelResponded) for call in reply.calls]
    assert (trace.source, trace.steps) == ("sweagent", 8)
    assert calls == [(2, "bash"), (4, "bash"), (6, "bash")]
    assert [(type(event), event.step) for event in of(trace, ToolReturned, ToolFailed)] == [
        (ToolReturned, 3),
        (ToolFailed, 5),
    ]
    assert of(trace, MessageSent)[1].content == TASK


CLASSIC = {
    "environment": "swe_main",
    "trajectory": [
        {"action": "ls\n", "observation": "a.py\n", "response": "x", "state": "{}", "thought": "I look."},
        {"action": "cat b\n", "observation": "Error: no b", "response": "x", "state": "{}", "thought": "I read."},
        {"action": "", "observation": "", "response": "Done.", "state": "{}", "thought": ""},
    ],
    "history": [
        {"role": "system", "content": "You fix bugs.", "agent": "primary"},
        {"role": "user", "content": "An example.", "agent": "primary", "is_demo": True},
        {"role": "user", "content": "Fix it.", "agent": "primary"},
        {"role": "assistant", "content": "x", "agent": "primary"},
        {"role": "user", "content": "a.py", "agent": "primary"},
    ],
    "info": {"exit_status": "submitted"},
}
"""As `Agent.save_trajectory` of SWE-agent writes it; written by hand, since its package needs Docker to be imported."""


def test_a_classic_trajectory_is_read_by_rounds(tmp_path: Path) -> None:
    """In SWE-agent's own format a step is a round, and what was said before the first is history without demos."""
    file = tmp_path / "file"
    file.write_text(json.dumps(CLASSIC), encoding="utf-8")
    (trace,) = read(file)
    assert isinstance(trace, Trace)
    assert (trace.source, trace.steps) == ("sweagent", 3)
    assert [(event.content, event.history) for event in of(trace, MessageSent)] == [
        ("You fix bugs.", True),
        ("Fix it.", True),
    ]
    assert [(reply.step, reply.content, len(reply.calls)) for reply in of(trace, ModelResponded)] == [
        (0, "I look.", 1),
        (1, "I read.", 1),
        (2, "Done.", 0),
    ]
    assert [(type(event), event.step) for event in of(trace, ToolReturned, ToolFailed)] == [
        (ToolReturned, 0),
        (ToolFailed, 1),
    ]


def test_a_lone_prompt_is_history(tmp_path: Path) -> None:
    """Where nobody speaks for the user, AgentDojo's `prompt` was said before the first step."""
    trace = only(tmp_path, "agentdojo:no ids")
    (asked,) = of(trace, MessageSent)
    assert (asked.content, asked.trust, asked.history, asked.step) == (TASK, "user", True, 0)
    assert asked.instance == "assistant"
    assert of(trace, ModelResponded)[0].step == 0


# -- files with several runs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["langsmith:single", "otlp:langfuse", "otlp:genai", "langfuse:page"])
def test_runs_in_one_file_are_told_apart(tmp_path: Path, name: str) -> None:
    """Spans of several traces, mixed in one file, are one trace each, by the trace they say they are of."""
    content = document(name)
    ours = json.dumps(content)
    for field in ("traceId", "trace_id"):
        ours = ours.replace(f'"{field}": "', f'"{field}": "other-')
    for id_ in set(_ids(content)):
        ours = ours.replace(id_, f"other-{id_}")
    file = tmp_path / "file"
    parts = [*content, *json.loads(ours)] if name in LINES else [content, json.loads(ours)]
    random.Random(3).shuffle(parts)
    if name == "langsmith:single":
        parts.sort(key=lambda run: "end_time" in run)
    file.write_text("\n".join(map(json.dumps, parts)), encoding="utf-8")
    found = list(read(file))
    assert [trace.label for trace in found] == ["#0", "#1"]
    assert all(isinstance(trace, Trace) and len(list(story(trace))) == 6 for trace in found)


def _ids(content: Any) -> Iterator[str]:
    """The ids of spans in a document."""
    if isinstance(content, dict):
        yield from (content[name] for name in ("spanId", "id") if isinstance(content.get(name), str))
    if isinstance(content, dict | list):
        for inner in content.values() if isinstance(content, dict) else content:
            yield from () if isinstance(inner, str) else _ids(inner)


def test_a_line_that_is_no_part_of_a_run_is_an_error_of_its_own(tmp_path: Path) -> None:
    """Among lines that make one run together, one that is broken is told and the run is read."""
    file = file_of(tmp_path, "langsmith:single")
    file.write_text(file.read_text(encoding="utf-8") + "\n{oops", encoding="utf-8")
    run, broken = read(file)
    assert isinstance(run, Trace)
    assert len(list(story(run))) == 6
    assert isinstance(broken, Unread)
    assert broken.error.code == "not_json"


# -- whose document it is ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SAMPLES)
def test_no_two_importers_claim_a_document(name: str) -> None:
    """A document has one importer, beside the general ones, which are asked last."""
    content = document(name)
    for part in content if name in LINES else [content]:
        claims = {importer.name for importer in IMPORTERS.values() if importer.matches(part)}
        assert claims - GENERAL == {source(name)}
    assert list(IMPORTERS)[-2:] == ["openai", "messages"]


# -- what is never read -----------------------------------------------------------------------------------------------

LABELS = (
    "ground_truth",
    "mistake_step",
    "labels",
    "info",
    "injections",
    "security",
    "feedback_stats",
    "scores",
    "score",
)
JUNK = ["", "clerk", 3, True, False, ["A2"], 1.0]
RECORDS = ("messages", "tasks_output", "observations", "spans", "child_runs", "message_thread", "trajectory", "post")


def labelled(content: Any, chance: random.Random, *, record: bool = True) -> Any:
    """The content with labels in every record of it, and the fields of every object in another order."""
    if isinstance(content, list):
        return [labelled(item, chance, record=record) for item in content]
    if not isinstance(content, dict):
        return content
    inner = {name: labelled(value, chance, record=name in RECORDS) for name, value in content.items()}
    more = {name: chance.choice(JUNK) for name in chance.sample(LABELS, 3)} if record else {}
    pairs = list({**more, **inner}.items())
    chance.shuffle(pairs)
    return dict(pairs)


@pytest.mark.parametrize("name", SAMPLES)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=3, deadline=None)
def test_labels_change_nothing(tmp_path_factory: pytest.TempPathFactory, name: str, seed: int) -> None:
    """Labels, answers and unknown fields of a document or a record in it, and their order, change nothing."""
    folder = tmp_path_factory.getbasetemp()
    plain = only(folder, name)
    assert only(folder, name, labelled(document(name), random.Random(seed))) == plain


# -- broken and hostile documents -------------------------------------------------------------------------------------

ODD = [None, True, -1, 10**4200, float("nan"), "", "\ud800", "x", "{}", "[[", [], [[]], [None], {}, {"a": []}]


def paths(content: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where there is anything in a document."""
    if here:
        yield here
    if isinstance(content, dict | list):
        for key, inner in content.items() if isinstance(content, dict) else enumerate(content):
            yield from paths(inner, (*here, key))


def mangle(content: Any, chance: random.Random) -> None:
    """Have a few things in a document be gone, doubled, or something else."""
    for _ in range(chance.randint(1, 4)):
        places = list(paths(content))
        if not places:
            return
        *above, key = chance.choice(places)
        holder = content
        for step in above:
            holder = holder[step]
        match chance.choice(["gone", "odd", "doubled"]):
            case "gone":
                del holder[key]
            case "doubled" if isinstance(holder, list):
                holder.insert(key, copy.deepcopy(holder[key]))
            case _:
                holder[key] = copy.deepcopy(chance.choice(ODD))


@pytest.mark.parametrize("name", SAMPLES)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=15, deadline=None)
def test_no_mangled_document_breaks_its_importer(name: str, seed: int) -> None:
    """Whatever is wrong with a real document, it gives whole traces, which can be judged, or a `TraceError`."""
    content = document(name)
    mangle(content, random.Random(seed))
    importer = IMPORTERS[source(name)]
    parts = content if name in LINES else [content]
    for part in parts:
        importer.matches(part)
    try:
        runs = importer.gather(parts) if importer.gather else parts
        traces = [importer.read(run, "") for run in runs]
    except TraceError:
        return
    for trace in traces:
        assert {event.step for event in trace.events[1:-1]} <= set(range(trace.steps))
        judged(trace, name)


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_file_that_ends_early_is_told(tmp_path: Path, name: str, share: float) -> None:
    """A document that was not fully written is `truncated`; of several lines, the last is."""
    file = file_of(tmp_path, name)
    text = file.read_text(encoding="utf-8").splitlines()[-1]
    file.write_text(text[: int(len(text) * share)], encoding="utf-8")
    with pytest.raises(TraceError) as caught:
        list(read(file))
    assert caught.value.code == "truncated"


@pytest.mark.parametrize("above", ["o1", "o2", "gone"])
def test_spans_that_are_their_own_parents_are_read(tmp_path: Path, above: str) -> None:
    """A circle of parents, or a parent that is not there, ends the search for the agent."""
    rows = [
        {"id": id_, "type": "GENERATION", "startTime": "2026-01-01", "parentObservationId": parent, "output": "Hi."}
        for id_, parent in (("o1", above), ("o2", "o1"))
    ]
    file = tmp_path / "file"
    file.write_text(json.dumps(rows), encoding="utf-8")
    (trace,) = read(file)
    assert isinstance(trace, Trace)
    assert [reply.content for reply in of(trace, ModelResponded)] == ["Hi.", "Hi."]


# -- speed ------------------------------------------------------------------------------------------------------------


def many(name: str, size: int) -> str:
    """A file of one run of at least that many characters: the sample again and again, with ids of its own."""
    text = json.dumps(document(name))
    ids = set(_ids(json.loads(text)))
    copies = []
    for n in range(size // len(text) + 1):
        one = text
        for id_ in ids:
            one = one.replace(id_, f"{id_}{n}")
        one = re.sub(r'"trace_id": "[^"]*"', '"trace_id": "t"', one)
        copies.append(json.loads(one))
    return (
        "\n".join(map(json.dumps, copies)) if isinstance(copies[0], dict) else json.dumps([*itertools.chain(*copies)])
    )


@pytest.mark.parametrize(
    "name", ["langchain:dumps", "autogen:messages", "langsmith:list", "otlp:genai", "langfuse:page"]
)
def test_large_files_are_read_in_seconds(tmp_path: Path, name: str) -> None:
    """Ten megabytes of one run take seconds: no importer's time grows faster than the file."""
    file = tmp_path / "file"
    file.write_text(many(name, 10_000_000), encoding="utf-8")
    began = time.process_time()
    (trace,) = read(file)
    assert time.process_time() - began < 20
    assert isinstance(trace, Trace)
    assert trace.steps > 1000


# -- importers of other packages --------------------------------------------------------------------------------------

PLUGIN = """
from misstep.events import RunEnded, RunStarted
from misstep.importers import Importer, Trace

def read(document, label):
    if document["shop"] == "closed":
        raise ZeroDivisionError("closed")
    return Trace(label, "shop", (RunStarted(run="trace", step=0), RunEnded(run="trace", step=0)), 1, (), None)

def matches(document):
    return "shop" in document

IMPORTER = Importer("shop", "the log of a shop", matches, read)
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed package that announces an importer; a folder for files."""
    site = tmp_path / "site"
    info = site / "shop_log-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "shop_log.py").write_text(PLUGIN, encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shop-log\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[misstep.importers]\nshop = shop_log:IMPORTER\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(site))
    known_importers.cache_clear()
    yield tmp_path
    sys.modules.pop("shop_log", None)
    known_importers.cache_clear()


def test_an_installed_package_adds_a_format(shop: Path) -> None:
    """What an entry point `misstep.importers` names is found by content or by name, and asked before the general."""
    file = shop / "file"
    file.write_text(json.dumps({"shop": "open"}), encoding="utf-8")
    assert list(known_importers())[-3:] == ["shop", "openai", "messages"]
    for named in (None, "shop"):
        (trace,) = read(file, named)
        assert isinstance(trace, Trace)
        assert trace.source == "shop"


def test_a_failing_importer_of_a_package_stops_nothing(shop: Path) -> None:
    """What it raises is an error of that file, with its name; what it cannot look at is left to the others."""
    file = shop / "file"
    file.write_text(json.dumps({"shop": "closed"}), encoding="utf-8")
    with pytest.raises(TraceError, match=r"`shop` failed on it: ZeroDivisionError"):
        list(read(file))
    file.write_text("12", encoding="utf-8")
    with pytest.raises(TraceError, match="a number is no trace"):
        list(read(file))


def test_importers_are_exported() -> None:
    """A package that adds a format finds what it needs in `misstep.importers`."""
    assert {"Importer", "Trace"} <= set(importers.__all__)
