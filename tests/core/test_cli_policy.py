"""`misstep init` and `misstep policy`, as a shell sees them: what is printed and written, and the exit code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from misstep import default_policy, load_policy
from misstep.cli_policy import _given
from misstep.decisions import Kind
from misstep.policy import parse_policy, schema, starter
from misstep.seats import WATCHING, Seat, Seats
from misstep.support import Means, gaps
from misstep.terminal import WIDTH
from misstep.terminal_policy import Check, checked
from tests.core.test_cli import EMPTY, HEALTHY, looping, run, shell, stop_reading, written

MILD = "version: 1\nrules:\n  repeated_call:\n    ladder: [{refuse: 1}]\n"
LAX = "version: 1\nrules:\n  repeated_call:\n    with: {limit: 4}\n  empty_response: {}\n"


def policy_file(folder: Path, text: str = MILD, name: str = "misstep.yaml") -> str:
    """A policy file; its path as one would type it."""
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def told(text: str) -> str:
    """The words of an output, wherever its lines were broken."""
    return " ".join(text.split())


# -- init -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["misstep.yaml", "own.yaml", "."])
def test_init_writes_the_default_policy(tmp_path: Path, name: str) -> None:
    """`init` writes a commented policy into a file, or into a folder, and says where; it is the default policy."""
    result = run("init", str(tmp_path / name))
    (file,) = tmp_path.iterdir()
    assert (result.exit_code, load_policy(file)) == (0, default_policy())
    assert file.read_text(encoding="utf-8") == starter()
    assert str(file) in told(result.stdout)


def test_init_writes_here_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a path the file is `misstep.yaml` in the current folder."""
    monkeypatch.chdir(tmp_path)
    assert run("init").exit_code == 0
    assert load_policy("misstep.yaml") == default_policy()


def test_init_overwrites_only_when_told_to(tmp_path: Path) -> None:
    """A file that is there is kept, and how to overwrite it said; with `--force` it is overwritten."""
    file = policy_file(tmp_path)
    result = run("init", file)
    assert (result.exit_code, Path(file).read_text(encoding="utf-8"), result.stdout) == (1, MILD, "")
    assert "--force overwrites it" in told(result.stderr)
    assert run("init", file, "--force").exit_code == 0
    assert load_policy(file) == default_policy()


def test_init_says_where_it_cannot_write(tmp_path: Path) -> None:
    """A folder that is not there is no crash."""
    result = run("init", str(tmp_path / "gone" / "misstep.yaml"))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "cannot be written: No such file or directory" in told(result.stderr)


# -- check ------------------------------------------------------------------------------------------------------------


def test_check_tells_every_mistake_of_every_file(tmp_path: Path) -> None:
    """Each file is told by its path, with all its mistakes in the order of their lines, or what is in it."""
    good = policy_file(tmp_path, starter())
    bad = policy_file(tmp_path, "version: 1\nrule: {}\nmode: shadowy\n", "bad.yaml")
    result = run("policy", "check", bad, good, str(tmp_path / "gone.yaml"))
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert bad in lines
    assert good in lines
    text = told(result.stdout)
    assert text.index("line 2, `rule`: unknown key") < text.index("line 3, `mode`:") < text.index("No mistake. Mode")
    rules = len(default_policy().rules)
    assert f"{rules} rules: 2 with remedies, {rules - 2} only recording." in text
    assert "cannot be read: No such file or directory" in text


@pytest.mark.parametrize(("text", "code"), [(MILD, 0), ("version: 2\n", 1), ("", 1)])
def test_check_exit_codes(tmp_path: Path, text: str, code: int) -> None:
    """1 where there is a mistake, else 0."""
    assert run("policy", "check", policy_file(tmp_path, text)).exit_code == code


STRONG = "version: 1\nunsupported: {}\nmode: {}\nrules:\n  repeated_call:\n    ladder: [roll_back: 1]\n"


@pytest.mark.parametrize("adapter", ["langgraph", "autogen", "crewai"])
def test_check_holds_a_policy_against_an_adapter(tmp_path: Path, adapter: str) -> None:
    """`--adapter` tells for every way of attaching it what its seats cannot enact, and what they can instead."""
    pytest.importorskip({"autogen": "autogen_agentchat"}.get(adapter, adapter))
    file = policy_file(tmp_path, "version: 1\nrules:\n  empty_response:\n    ladder: [refuse]\n")
    result = shell("policy", "check", file, "--adapter", adapter)
    text = told(result.stdout.decode())
    assert result.returncode == 1
    assert f"{adapter}: `misstep_{adapter}.guarded` refuses this policy when it is attached" in text
    assert re.search(r"`empty_response` asks for `refuse`, which .* cannot enact; it can: .*`halt`.*`retry`", text)
    assert "there is no way to attach this policy" in text
    assert max(map(len, result.stdout.decode().splitlines())) <= max(WIDTH, len(file))
    fine = shell("policy", "check", policy_file(tmp_path), "--adapter", adapter)
    assert fine.returncode == 0
    assert f"{adapter}: `misstep_{adapter}.guarded` can enact all of it." in told(fine.stdout.decode())


HALF = Seats("half", {Seat.TOOL: {Kind.REFUSE: ""}})
WHOLE = Seats("whole", {Seat.RUN: {Kind.ROLL_BACK: ""}})


@pytest.mark.parametrize(
    ("unsupported", "mode", "ways", "good", "said"),
    [
        ("error", "enforce", [HALF], False, "`half` refuses this policy when it is attached"),
        ("error", "enforce", [HALF, WHOLE], True, "`whole` can enact all of it"),
        ("error", "enforce", [WHOLE, WATCHING], True, "`watching` only watches"),
        ("error", "enforce", [HALF, WATCHING], False, "there is no way to attach this policy"),
        ("degrade", "enforce", [HALF], True, "takes the next rung, or only records"),
        ("error", "shadow", [HALF], True, "could not enact all of it if the mode were not shadow"),
    ],
)
def test_what_an_adapter_would_do(unsupported: str, mode: str, ways: list[Seats], good: bool, said: str) -> None:
    """A check fails where the policy could be attached in no way; what only watches refuses nothing."""
    policy = parse_policy(STRONG.format(unsupported, mode))
    found = Check("p.yaml", policy, seats={"own": [(seats, gaps(policy, seats, Means())) for seats in ways]})
    assert found.good is good
    assert any(said in block.text for block in checked(found))


def test_what_an_application_gives_is_taken_as_given(tmp_path: Path) -> None:
    """Models and people are the application's to give: a check of the file alone does not miss them."""
    ladder = "[{fallback: 1}, {fallback: {to: small, limit: 1}}, ask]"
    file = policy_file(tmp_path, f"version: 1\nrules:\n  empty_response:\n    ladder: {ladder}\n")
    able = Seats("able", {Seat.MODEL: {Kind.FALLBACK: "", Kind.ASK: ""}})
    policy = load_policy(file)
    assert gaps(policy, able, _given(policy)) == []
    assert len(gaps(policy, able, Means())) == 3


def test_an_adapter_whose_framework_is_missing_is_named(tmp_path: Path) -> None:
    """Where the framework is not installed, the check says which extra brings it, and does not pretend to know."""
    script = (
        "import sys\n"
        "from importlib import metadata\n"
        "found = metadata.version\n"
        "def version(name):\n"
        "    if name == 'crewai':\n"
        "        raise metadata.PackageNotFoundError(name)\n"
        "    return found(name)\n"
        "metadata.version = version\n"
        "from misstep.cli import app\n"
        "app()\n"
    )
    command = [sys.executable, "-c", script, "policy", "check", policy_file(tmp_path), "--adapter", "crewai"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)
    assert (done.returncode, done.stdout) == (2, "")
    assert "`misstep_crewai` needs `crewai`: pip install 'misstep[crewai]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_adapter_is_refused(tmp_path: Path) -> None:
    """Only the frameworks there are adapters for can be asked about."""
    assert run("policy", "check", policy_file(tmp_path), "--adapter", "cobol").exit_code == 2


# -- replay -----------------------------------------------------------------------------------------------------------


def traces(folder: Path) -> str:
    """Four runs: one solved and one failed that loop, one empty reply of which nothing is known, one that is well."""
    documents = [
        {"messages": looping(), "reward": 1},
        {"messages": looping() + looping()[1:], "reward": 0},
        {"messages": EMPTY},
        {"messages": HEALTHY, "reward": 1},
    ]
    return written(folder, documents, "traces.json")


def document(*arguments: str) -> dict[str, Any]:
    """What `policy replay` says as JSON."""
    return json.loads(run("policy", "replay", *arguments, "--format", "json").stdout)  # type: ignore[no-any-return]


def test_replay_counts_by_rule_and_outcome(tmp_path: Path) -> None:
    """Alarms and decisions are counted for every rule, apart for solved, failed and other runs."""
    found = document(policy_file(tmp_path), traces(tmp_path))
    assert (found["schema"], found["comparable"], found["not_read"]) == (1, ["first_decisions"], [])
    assert found["runs"] == {"solved": 2, "failed": 1, "unknown": 1}
    (rule,) = found["rules"]
    assert rule["rule"] == "repeated_call"
    once = {"alarms": 1, "alarmed_runs": 1, "decisions": 1, "decided_runs": 1, "first_decisions": {"refuse": 1}}
    assert rule["solved"] == once
    assert rule["failed"] == {**once, "alarms": rule["failed"]["alarms"]}
    assert rule["failed"]["alarms"] > rule["failed"]["decisions"] == 1
    assert rule["unknown"] == {**dict.fromkeys(once, 0), "first_decisions": {}}


def test_only_the_first_decision_of_a_run_is_comparable(tmp_path: Path) -> None:
    """Of many decisions in a run one is the first, by what wins; the text says why the others are not comparable."""
    text = "version: 1\nrules:\n  repeated_call:\n    ladder: [{reprompt: 1}, {refuse: 9}]\n"
    file, runs = policy_file(tmp_path, text), traces(tmp_path)
    (rule,) = document(file, runs)["rules"]
    assert rule["failed"]["first_decisions"] == {"reprompt": 1}
    assert rule["failed"]["decisions"] > 1
    said = told(run("policy", "replay", file, runs).stdout)
    assert "first decision: reprompt 1 1 0" in said
    assert "Only first decisions are comparable with what happened" in said


def test_a_policy_is_compared_with_another(tmp_path: Path) -> None:
    """`--against` puts the other's figures before this one's, and counts the runs whose first decision differs."""
    new, old, runs = policy_file(tmp_path, LAX), policy_file(tmp_path, MILD, "old.yaml"), traces(tmp_path)
    found = document(new, runs, "--against", old)
    assert (found["policy"], found["against"]["policy"]) == (new, old)
    assert found["differing_runs"] == {"solved": 1, "failed": 1, "unknown": 1}
    text = told(run("policy", "replay", new, runs, "--against", old).stdout)
    assert f"{old} -> {new} 4 runs: 2 solved, 1 failed, 1 of unknown outcome." in text
    assert "runs with an alarm 1 -> 0 1 -> 1 0 -> 0" in text
    assert "Runs whose first decision differs: 1 of 2 solved, 1 of 1 failed, 1 of 1 unknown." in text
    same = document(old, runs, "--against", old)
    assert set(same["differing_runs"].values()) == {0}
    assert same["rules"] == same["against"]["rules"]


@pytest.mark.parametrize("mode", ["off", "shadow", "enforce"])
def test_a_replay_is_always_asked_for(tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy is tried out whatever mode it or the environment names: a replay carries nothing out."""
    monkeypatch.setenv("MISSTEP_MODE", mode)
    (rule,) = document(policy_file(tmp_path, f"mode: {mode}\n{MILD}"), traces(tmp_path))["rules"]
    assert rule["solved"]["first_decisions"] == {"refuse": 1}


def test_rules_that_never_speak_take_a_line(tmp_path: Path) -> None:
    """A rule without an alarm is said to have none; one that is switched off is said to be."""
    text = "version: 1\nrules:\n  repeated_call: {enabled: false}\n  ungrounded_argument: {}\n"
    said = run("policy", "replay", policy_file(tmp_path, text), traces(tmp_path)).stdout.splitlines()
    assert "  repeated_call: switched off" in said
    assert "  ungrounded_argument: no alarm" in said


def test_what_could_not_be_read_is_said_and_is_an_error(tmp_path: Path) -> None:
    """A trace that is none changes no figure, is named, and makes the exit code 2; so does a policy that is wrong."""
    gone = str(tmp_path / "gone.json")
    result = run("policy", "replay", policy_file(tmp_path), traces(tmp_path), gone)
    assert result.exit_code == 2
    assert gone in result.stdout.splitlines()
    assert "1 trace could not be read" in told(result.stdout)
    wrong = run("policy", "replay", policy_file(tmp_path, "version: 1\nrule: 1\n"), gone)
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert "line 2, `rule`: unknown key `rule`" in told(wrong.stderr)


def test_replay_is_the_same_in_every_process(tmp_path: Path) -> None:
    """The same policy over the same traces gives the same bytes, and nothing on standard error."""
    arguments = ["policy", "replay", policy_file(tmp_path), traces(tmp_path)]
    first, second = (shell(*arguments, PYTHONHASHSEED=seed) for seed in "12")
    assert (first.stdout, first.stderr, first.returncode) == (second.stdout, b"", 0)


# -- schema, and what all of them promise -----------------------------------------------------------------------------


def test_schema_is_printed(tmp_path: Path) -> None:
    """`policy schema` prints the JSON schema, whole and nothing else."""
    assert json.loads(run("policy", "schema").stdout) == schema()


@pytest.mark.parametrize("command", ["check", "replay"])
def test_pages_are_narrow_plain_and_safe(tmp_path: Path, command: str) -> None:
    """In a pipe no line but a path is wider than 80 columns, none is coloured; on a terminal there is colour."""
    file = policy_file(tmp_path, f"{LAX}  guard_failure: {{}}\n# \x9b[2J\n".replace("\x9b", ""))
    arguments = [command, file] if command == "check" else [command, file, traces(tmp_path), "--against", file]
    plain = shell("policy", *arguments).stdout.decode()
    assert "\x1b" not in plain
    paths = {file, f"-> {file}"}
    assert all(len(line) <= WIDTH and line == line.rstrip() for line in plain.splitlines() if line not in paths)
    assert b"\x1b[" in shell("policy", *arguments, FORCE_COLOR="1", TERM="xterm-256color").stdout


@pytest.mark.parametrize("arguments", [["schema"], ["replay", "POLICY", "TRACES"], ["check", *["POLICY"] * 2000]])
def test_a_closed_pipe_is_no_error(tmp_path: Path, arguments: list[str]) -> None:
    """Whoever reads may stop reading."""
    places = {"POLICY": policy_file(tmp_path), "TRACES": traces(tmp_path)}
    stop_reading("policy", *(places.get(argument, argument) for argument in arguments))


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--fail-on-type", "empty_response"], 1),
        (["--fail-on-type", "repeated_call"], 0),
        (["--fail-on-type", "repeated_call", "--fail-on-type", "empty_response"], 1),
        (["--fail-on-type", "repeated_call", "--fail-on", "medium"], 1),
        (["--fail-on-type", "nonsense"], 2),
    ],
)
def test_a_check_may_fail_on_a_type(tmp_path: Path, options: list[str], code: int) -> None:
    """`analyze --fail-on-type` makes the exit code 1 where that type is found, however severe."""
    assert run("analyze", written(tmp_path, EMPTY), *options).exit_code == code
