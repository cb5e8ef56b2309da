"""The command line's `misstep verify`: the app a name stands for, and what people read of its verification."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from typing import Annotated, Any

import typer

from misstep.errors import MisstepError
from misstep.terminal import Block, Format, Page, piped, stop
from misstep.verification import Standing, Verification
from misstep.verification import verify as verify_app

_STYLES = {
    Standing.ENFORCED: "green",
    Standing.SEEN_ONLY: "red",
    Standing.NOT_IN_PATH: "bold red",
    Standing.NOT_EXERCISED: "yellow",
}


def verify(
    name: Annotated[
        str, typer.Argument(metavar="MODULE:OBJECT", help="The app, or a function without arguments that makes it.")
    ],
    bodies: Annotated[
        bool,
        typer.Option("--run-bodies", help="Also run the application's own code: bodies of nodes, agents inside tools."),
    ] = False,
    input_: Annotated[
        str | None, typer.Option("--input", metavar="JSON", help="What to run it with; else the least it accepts.")
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="For people, or one JSON document.")] = Format.TEXT,
) -> None:
    """
    Say whether the guard is really in the path of an app: a canary is sent through it, its models and tools are stubs.

    Exit code: 2 if the app could not be loaded or verified, 1 if anything is not enforced, else 0.
    """
    inputs = None if input_ is None else _parsed(input_)
    try:
        with redirect_stdout(sys.stderr):  # what a framework prints is no part of the result
            found = verify_app(_made(_loaded(name)), bodies=bodies, inputs=inputs)
    except (MisstepError, TypeError) as error:
        stop(str(error))
    page = Page()
    with piped():
        if format_ is Format.JSON:
            page.write(json.dumps(_document(found), indent=2) + "\n")
        else:
            page.write(page.rendered(verified(found)))
    raise typer.Exit(0 if found.protected else 1)


def verified(found: Verification) -> Iterator[Block]:
    """A verification as paragraphs: the verdict, then each seat."""
    yield Block(f"{found.app}: {found.headline}{'' if found.protected else ':'}", style="bold")
    yield from (Block(reason, 2, "red") for reason in found.switched)
    yield from (Block(str(checked), 2, _STYLES[checked.standing]) for checked in found.exceptions)
    yield Block(f"Attached as {found.attached}." if found.attached else "No guard is attached to it.", 2)
    yield Block(f"Run as: {', '.join(found.ways)}.", 2)
    enforced = (checked for checked in found.checked if checked.standing is Standing.ENFORCED)
    yield from (Block(str(checked), 2, _STYLES[checked.standing]) for checked in enforced)


def _document(found: Verification) -> dict[str, object]:
    return {
        "schema": 1,
        **found.model_dump(mode="json"),
        "protected": found.protected,
        "broken": found.broken,
        "verdict": found.verdict,
    }


def _loaded(name: str) -> Any:
    module, colon, path = name.partition(":")
    if not (module and colon and path):
        stop(f"`MODULE:OBJECT` is wanted, such as `app:graph`, found {name!r}")
    sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:
        stop(f"`{module}` cannot be imported: {type(error).__name__}: {error}")
    for step in path.split("."):
        if not hasattr(found, step):
            stop(f"`{module}` has no `{path}`")
        found = getattr(found, step)
    return found


def _made(found: Any) -> Any:
    """An app, or what a function without arguments makes."""
    if not (callable(found) and type(found).__name__ in ("function", "builtin_function_or_method", "type")):
        return found
    try:
        return found()
    except Exception as error:
        stop(f"the function that makes the app raised {type(error).__name__}: {error}")


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        stop(f"--input is no JSON: {error}")
