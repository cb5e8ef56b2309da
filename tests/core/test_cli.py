"""The command line, as a shell sees it: what is printed, and the exit code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from typer.testing import CliRunner, Result

import misstep
from misstep.cli import app
from misstep.taxonomy import AnomalyType, Category
from misstep.terminal import WIDTH

HEALTHY = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello."}]
EMPTY = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": ""}]


def looping(answer: str = "not found") -> list[dict[str, Any]]:
    """A run that makes the same call three times."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Where is order A1?"}]
    for number in range(3):
        call = {"id": f"c{number}", "function": {"name": "get_order", "arguments": '{"order": "A1"}'}}
        messages += [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"c{number}", "content": answer},
        ]
    return messages


def written(path: Path, document: object, name: str = "run.json") -> str:
    """The document as a file; its path as one would type it."""
    file = path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document), encoding="utf-8")
    return str(file)


def run(*arguments: str) -> Result:
    """The command line, run in this process."""
    return CliRunner().invoke(app, list(arguments))


def stop_reading(*arguments: str) -> None:
    """Run the command line, read one line, and close the pipe: it ends well, and complains of nothing."""
    command = [sys.executable, "-c", "from misstep.cli import app; app()", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=50) == 0


def shell(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """The command line, run in a process of its own."""
    command = [sys.executable, "-c", "from misstep.cli import app; app()", *arguments]
    return subprocess.run(command, capture_output=True, env={**os.environ, **environment}, check=False, timeout=50)


def records(result: Result) -> list[dict[str, Any]]:
    """The JSON lines of a result."""
    return [json.loads(line) for line in result.stdout.splitlines()]


# -- exit codes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "fail_on", "code"),
    [
        (HEALTHY, [], 0),
        (HEALTHY, ["--fail-on", "info"], 0),
        (EMPTY, [], 0),
        (EMPTY, ["--fail-on", "info"], 1),
        (EMPTY, ["--fail-on", "medium"], 1),
        (EMPTY, ["--fail-on", "high"], 0),
        ({"labels": []}, [], 2),
        ([{"messages": EMPTY}, {"messages": "broken"}], ["--fail-on", "info"], 2),
    ],
)
@pytest.mark.parametrize("format_", ["text", "json"])
def test_exit_codes(tmp_path: Path, document: object, fail_on: list[str], code: int, format_: str) -> None:
    """2 if anything could not be read, else 1 if something at least as severe as --fail-on was found, else 0."""
    assert run("analyze", written(tmp_path, document), "--format", format_, *fail_on).exit_code == code


def test_one_bad_file_does_not_stop_the_others(tmp_path: Path) -> None:
    """Every path is looked at, in the order typed, and what cannot be read is said where it stands."""
    good = written(tmp_path, HEALTHY)
    result = run("analyze", good, str(tmp_path / "gone.json"), good, "--format", "json")
    assert [record.get("error", {}).get("code") for record in records(result)] == [None, "unreadable", None]
    assert result.exit_code == 2


# -- JSON -------------------------------------------------------------------------------------------------------------


def test_json_is_one_object_a_line(tmp_path: Path) -> None:
    """The JSON is ASCII, one object a line, in the promised order of fields, and no `NaN` in it."""
    documents = [{"messages": looping("ü\u2028\n\ud800"), "reward": float("nan")}, {"messages": EMPTY}, None]
    result = run("analyze", written(tmp_path, documents), "--format", "json")
    assert result.stdout.isascii()
    assert "NaN" not in result.stdout
    first, second, third = records(result)
    fields = ["schema", "trace", "source", "steps", "agents", "outcome", "anomalies", "decisions", "root_cause"]
    assert [list(first), list(second), list(third)] == [fields, fields, ["schema", "trace", "error"]]
    assert [record["trace"].rpartition("#")[2] for record in (first, second, third)] == ["0", "1", "2"]


def test_output_is_the_same_in_every_process(tmp_path: Path) -> None:
    """No ids, times or hash seeds: the same files give the same bytes, secrets and all."""
    secret = "sk-" + "a1B2c3D4" * 6
    written(tmp_path, looping(), "a.json")
    document = json.dumps([{"messages": looping()}, {"messages": EMPTY}]).replace("A1", secret)
    (tmp_path / "b.json").write_text(document, encoding="utf-8")
    for format_ in ("json", "text"):
        runs = [
            shell("analyze", str(tmp_path), "--format", format_, PYTHONHASHSEED=seed, TZ=zone).stdout
            for seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo"))
        ]
        assert runs[0] == runs[1]
        assert secret.encode() not in runs[0]


def test_nothing_goes_to_standard_error(tmp_path: Path) -> None:
    """What is found is printed once; the log does not repeat it."""
    result = shell("analyze", written(tmp_path, looping()), written(tmp_path, HEALTHY, "b.json"))
    assert (result.returncode, result.stderr) == (0, b"")


# -- text -------------------------------------------------------------------------------------------------------------


def test_text_tells_a_newcomer_what_went_wrong(tmp_path: Path) -> None:
    """A headline, what was found with a quote, the likely misstep, and what a live guard would have done."""
    path = written(tmp_path, {"messages": looping(), "reward": 0})
    text = " ".join(run("analyze", path).stdout.split())
    for said in (
        path,
        "The run failed; ",
        "step 1, assistant: `get_order` called 3 times with the same arguments",
        "What was found (steps count from 0)",
        "step 5, assistant: repeated_call (medium)",
        "step 3: \"get_order(order='A1')\"",
        "Where to begin looking for the misstep (50% sure, too little to act on; cause: what a model said or did)",
        "A live guard would have",
        "asked again, saying what was wrong with it (reprompt)",
    ):
        assert said in text


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (HEALTHY, "Nothing suspicious was found in its 2 steps."),
        (HEALTHY[:1], "Nothing suspicious was found in its 1 step."),
        ({"messages": HEALTHY, "reward": 1}, "The run succeeded, and nothing suspicious was found in its 2 steps."),
        ({"messages": HEALTHY, "reward": 0}, "The run failed, but nothing suspicious was found in its 2 steps."),
        ({"messages": EMPTY, "reward": 1}, "The run succeeded all the same; worth a look is step 1, assistant: "),
        (EMPTY, "step 1, assistant: `assistant` answered with no words and no call."),
        ({"labels": 1}, "Not read (unknown_format): an object is no trace: misstep reads `whowhen`"),
    ],
)
def test_headlines(tmp_path: Path, document: object, said: str) -> None:
    """The first sentence says what went wrong and where, or honestly that nothing was found."""
    text = " ".join(run("analyze", written(tmp_path, document)).stdout.split())
    assert said.lower() in text.lower()


def test_a_call_without_arguments_is_quoted_by_its_tool(tmp_path: Path) -> None:
    """A call that says nothing but the tool's name is still shown as evidence, with its step."""
    document = json.loads(json.dumps(looping()).replace('{\\"order\\": \\"A1\\"}', "{}"))
    assert 'step 3: "get_order()"' in run("analyze", written(tmp_path, document)).stdout


def test_the_last_line_counts(tmp_path: Path) -> None:
    """Over several traces the end says how many there were; a single one needs no sum."""
    result = run("analyze", written(tmp_path, [{"messages": EMPTY}, {"messages": HEALTHY}, 7]))
    assert result.stdout.splitlines()[-1] == "3 traces: something was found in 1, 1 could not be read"
    assert "traces:" not in run("analyze", written(tmp_path, EMPTY)).stdout


def test_what_would_only_be_reported_is_said_so(tmp_path: Path) -> None:
    """Where the default policy only warns, the text does not promise a remedy."""
    messages = [
        {"role": "user", "content": "Close my account."},
        {"role": "assistant", "tool_calls": [{"name": "close", "args": {"account_id": "zz-991"}}]},
    ]
    assert "A live guard would only have reported this" in run("analyze", written(tmp_path, messages)).stdout


def test_long_accounts_are_cut_and_say_so(tmp_path: Path) -> None:
    """A run with hundreds of findings does not fill the screen; JSON has all of them."""
    path = written(tmp_path, EMPTY * 100)
    text = run("analyze", path).stdout
    assert "... and 80 more; --format json has all of them" in text
    assert len(text.splitlines()) < 120
    (record,) = records(run("analyze", path, "--format", "json"))
    assert len(record["anomalies"]) == 100


HOSTILE = "[red]x[/red] :smile: \x1b[2J\u202e [/] [link=http://x]y[/link]"


@given(words=st.text(max_size=30) | st.sampled_from([HOSTILE, "日本語" * 20, "x" * 200]), secret=st.booleans())
@settings(deadline=None, max_examples=50)
def test_text_is_plain_narrow_and_safe(tmp_path_factory: pytest.TempPathFactory, words: str, secret: bool) -> None:
    """In a pipe no line is wider than 80 columns, and nothing of a trace steers the terminal or is markup."""
    name = words + (" sk-" + "a1B2c3D4" * 6 if secret else "")
    messages = [{"role": "user", "content": name}]
    for number in range(3):
        call = {"id": str(number), "name": f"f{name}", "args": {name: name, "id": 1}}
        messages += [
            {"role": "assistant", "name": f"A{name}", "content": name, "tool_calls": [call]},  # type: ignore[dict-item]
            {"role": "tool", "tool_call_id": str(number), "content": name},
        ]
    result = run("analyze", written(tmp_path_factory.getbasetemp(), messages))
    assert result.exit_code == 0, result.output
    assert "repeated_call" in result.stdout
    assert "a1B2c3D4" not in result.stdout
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", result.stdout)
    assert all(cell_len(line) <= WIDTH and line == line.rstrip() for line in result.stdout.split("\n"))


def test_a_path_is_never_broken(tmp_path: Path) -> None:
    """The path of a trace stands whole on a line of its own, however long, to be copied and searched for."""
    path = written(tmp_path, [{"messages": HEALTHY}], f"{'long ' * 10}/{'longer-' * 10}.json")
    assert f"{path}#0" in run("analyze", path).stdout.splitlines()


def test_markup_is_shown_as_it_is(tmp_path: Path) -> None:
    """Square brackets and colons of a trace are words, not styles or pictures."""
    message = {"role": "[bold]Boss[/bold] :smile:", "content": ""}
    assert "step 0, [bold]Boss[/bold] :smile:" in run("analyze", written(tmp_path, [message])).stdout


def test_a_terminal_gets_colour_and_a_pipe_does_not(tmp_path: Path) -> None:
    """Colour is for terminals; NO_COLOR is kept."""
    path = written(tmp_path, EMPTY)
    assert b"\x1b[" not in shell("analyze", path).stdout
    coloured = shell("analyze", path, FORCE_COLOR="1", TERM="xterm-256color", COLUMNS="100")
    assert b"\x1b[" in coloured.stdout


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_encoding_of_the_terminal_will_do(tmp_path: Path, encoding: str) -> None:
    """What a terminal cannot show is escaped, not an error."""
    path = written(tmp_path, [{"role": "Bärbel 日本 \ud800", "content": ""}])
    for command in (["analyze", path], ["taxonomy"]):
        result = shell(*command, PYTHONIOENCODING=encoding)
        assert (result.returncode, result.stderr) == (0, b"")


# -- pipes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["analyze", "FOLDER"], ["analyze", "FOLDER", "--format=json"], ["taxonomy"]])
def test_a_closed_pipe_is_no_error(tmp_path: Path, arguments: list[str]) -> None:
    """Whoever reads may stop reading: misstep ends quietly, with the exit code of what it has seen."""
    for number in range(30):
        written(tmp_path, looping(), f"{number}.json")
    arguments = [str(tmp_path) if argument == "FOLDER" else argument for argument in arguments]
    stop_reading(*arguments)


# -- the rest ---------------------------------------------------------------------------------------------------------


def test_version() -> None:
    """`--version` says the version, and nothing more."""
    assert run("--version").stdout == f"misstep {misstep.__version__}\n"


@pytest.mark.parametrize(
    ("name", "said"),
    [("opnai", "Did you mean `openai`?"), ("whowhen.json", "Did you mean `whowhen`?"), ("zzz", "Known: `whowhen`")],
)
def test_a_misspelt_source_is_helped(tmp_path: Path, name: str, said: str) -> None:
    """An unknown source is refused with the nearest one that exists, before anything is read."""
    result = run("analyze", written(tmp_path, HEALTHY), "--source", name)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert said in " ".join(result.stderr.split())


def test_a_source_can_be_named(tmp_path: Path) -> None:
    """`--source` reads a file as what it is said to be."""
    result = run("analyze", written(tmp_path, HEALTHY), "--source", "openai", "--format", "json")
    assert records(result)[0]["source"] == "openai"


def test_nothing_to_analyze_is_an_error() -> None:
    """Without a path there is nothing to say, and that is not success."""
    assert run("analyze").exit_code == 2


def test_taxonomy_names_everything() -> None:
    """Every category and type is listed, each type with its definition, remedies and references, 80 columns wide."""
    text = run("taxonomy").stdout
    words = text.split()
    assert {category.value for category in Category} <= set(words)
    assert {type_.value for type_ in AnomalyType} <= set(words)
    assert "remedies: reprompt (at most 1), refuse (at most 2), halt" in text
    assert "see: MAST FM-1.3; OWASP ASI02; TRAIL Resource Abuse" in text
    assert max(map(len, text.splitlines())) <= WIDTH


def test_taxonomy_as_json_is_complete() -> None:
    """The JSON has every category and type with definition, scope, phases, severity, ladder, cause and references."""
    document = json.loads(run("taxonomy", "--format", "json").stdout)
    assert [category["name"] for category in document["categories"]] == list(Category)
    assert [type_["name"] for type_ in document["types"]] == list(AnomalyType)
    for type_ in document["types"]:
        assert type_["definition"]
        assert set(type_) == {
            "name",
            "category",
            "definition",
            "scope",
            "phases",
            "severity",
            "ladder",
            "cause",
            "references",
        }
