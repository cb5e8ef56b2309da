"""The command line's `misstep init` and `misstep policy`: policies written, checked and tried over saved traces."""

from __future__ import annotations

import importlib
import json
import warnings
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from misstep.analysis import Analyzed, NotRead, analyze
from misstep.decisions import Kind
from misstep.errors import ChangedFrameworkError, MissingExtraError, PolicyError, UnsupportedVersionError
from misstep.frameworks import UntriedVersionWarning
from misstep.policy import Policy, load_policy, schema, starter
from misstep.redact import printable
from misstep.seats import Seats
from misstep.support import Means, gaps
from misstep.terminal import Format, Page, piped, stop
from misstep.terminal_policy import Check, checked, compared, tried
from misstep.trial import SCHEMA, Comparison, Trial

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Write, check and try out policies.")


class Adapter(StrEnum):
    """The frameworks a policy can be held against."""

    LANGGRAPH = "langgraph"
    AUTOGEN = "autogen"
    CREWAI = "crewai"


def init(
    path: Annotated[Path, typer.Argument(help="The file to write, or the folder to write it in.")] = Path(
        "misstep.yaml"
    ),
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
) -> None:
    """
    Write a policy to start from: the default one, with a comment on everything that can be set.

    Exit code: 1 if the file is there or cannot be written.
    """
    file = path / "misstep.yaml" if path.is_dir() else path
    try:
        with file.open("w" if force else "x", encoding="utf-8") as opened:
            opened.write(starter())
    except FileExistsError:
        stop(f"{file} is there already: --force overwrites it", 1)
    except OSError as error:
        stop(f"{file} cannot be written: {error.strerror}", 1)
    typer.echo(f"{printable(str(file))} is written. `misstep policy check` finds mistakes in it.")


@app.command("check")
def check(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Policies.")],
    adapter: Annotated[
        list[Adapter] | None,
        typer.Option(help="Also say what no seat of this framework's adapter can enact; may be given several times."),
    ] = None,
) -> None:
    """
    Find the mistakes in policies, each with its line and what to do about it.

    Exit code: 2 if an adapter's framework is missing, else 1 for a mistake, or for an adapter that would refuse the
    policy however it is attached; else 0.
    """
    ways = {name: _seats(name) for name in adapter or ()}
    page, good = Page(), True
    with piped():
        for file in files:
            found = _checked(file, ways)
            good &= found.good
            page.write(page.rendered(checked(found)))
    raise typer.Exit(0 if good else 1)


@app.command("replay")
def replay(
    policy: Annotated[str, typer.Argument(help="The policy to try out.")],
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Saved traces: JSON or JSON Lines files, or folders of them.")
    ],
    against: Annotated[
        str | None, typer.Option(metavar="OTHER_POLICY", help="A second policy to compare it with, such as today's.")
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="For people, or one JSON document.")] = Format.TEXT,
) -> None:
    """
    Say what a policy would have done over saved traces: how often each rule would have spoken and acted.

    Only a run's first decision is comparable with what happened: after it the run would have gone on differently.

    Exit code: 2 if the policy or a trace could not be read, else 0.
    """
    trial = Trial(policy, _loaded(policy))
    other = None if against is None else Trial(against, _loaded(against))
    comparison = None if other is None else Comparison(trial, other)
    not_read = _run(trial, comparison, paths)
    page = Page()
    with piped():
        if format_ is Format.JSON:
            document = {"schema": SCHEMA, **trial.record(), "not_read": [found.record() for found in not_read]}
            page.write(json.dumps(document | (comparison.record() if comparison else {}), indent=2) + "\n")
        else:
            page.write(page.rendered(tried(trial, not_read) if comparison is None else compared(comparison, not_read)))
    raise typer.Exit(2 if not_read else 0)


@app.command("schema")
def schema_() -> None:
    """Print the JSON schema of policies, for editors: `misstep policy schema > misstep.schema.json`."""
    with piped():
        Page().write(json.dumps(schema(), indent=2) + "\n")


def _run(trial: Trial, comparison: Comparison | None, paths: list[str]) -> list[NotRead]:
    not_read: list[NotRead] = []
    others = analyze(paths, policy=comparison.against.policy) if comparison is not None else None
    for found in analyze(paths, policy=trial.policy):
        other = next(others) if others is not None else None
        if isinstance(found, NotRead):
            not_read.append(found)
        elif comparison is not None and isinstance(other, Analyzed):
            comparison.add(found, other)
        elif comparison is None:
            trial.add(found)
    return not_read


def _checked(file: str, adapters: dict[Adapter, list[Seats]]) -> Check:
    try:
        policy = load_policy(file)
    except PolicyError as error:
        mistakes = sorted(error.mistakes, key=lambda mistake: mistake.line or 0)
        return Check(file, mistakes=tuple(map(str, mistakes)))
    given = _given(policy)
    return Check(
        file,
        policy,
        seats={name.value: [(way, gaps(policy, way, given)) for way in ways] for name, ways in adapters.items()},
    )


def _given(policy: Policy) -> Means:
    """What an application gives its guard is not known here: it is taken to give whatever the policy asks for."""
    rungs = [rung for type_ in policy.rules for rung in policy.ladder(type_) if rung.kind is Kind.FALLBACK]
    return Means({rung.to or "any" for rung in rungs}, person=True)


def _seats(adapter: Adapter) -> list[Seats]:
    """What an adapter can enact, for every way of attaching it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UntriedVersionWarning)  # no part of what the adapter says of itself
            module = importlib.import_module(f"misstep_{adapter}.seats")
    except (ChangedFrameworkError, MissingExtraError, UnsupportedVersionError) as error:
        stop(f"what `{adapter}` can enact is not known here: {error}", 2)
    return [seats for seats in vars(module).values() if isinstance(seats, Seats)]


def _loaded(file: str) -> Policy:
    try:
        return load_policy(file)
    except PolicyError as error:
        stop(str(error), 2)
