"""The command line: `misstep analyze` and `misstep taxonomy`."""

from __future__ import annotations

import difflib
import io
import json
import logging
import os
import sys
from enum import StrEnum
from typing import Annotated

import typer

import misstep
from misstep.analysis import Analyzed, NotRead, analyze
from misstep.importers import IMPORTERS, known_importers
from misstep.redact import printable
from misstep.taxonomy import Category, Severity, category_definition, taxonomy
from misstep.terminal import Block, Page, account, described

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


class Format(StrEnum):
    """How results are written."""

    TEXT = "text"
    JSON = "json"


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"misstep {misstep.__version__}")
        raise typer.Exit


def _known_source(name: str | None) -> str | None:
    if name is None or name in known_importers():
        return name
    close = difflib.get_close_matches(name, known_importers(), n=1)
    hint = f"Did you mean `{close[0]}`? " if close else ""
    known = ", ".join(f"`{source}`" for source in known_importers())
    raise typer.BadParameter(f"there is no source {printable(name)!r}. {hint}Known: {known}")


@app.callback()
def _main(
    version: Annotated[  # noqa: ARG001 - its callback answers it
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Watches LLM agents, and names the step that went wrong."""
    logging.getLogger("misstep").setLevel(logging.ERROR)  # what is found is printed; the log is for what fails
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


@app.command("analyze")
def analyze_(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Saved traces: JSON or JSON Lines files, or folders of them.")
    ],
    format_: Annotated[Format, typer.Option("--format", help="For people, or one JSON object a line.")] = Format.TEXT,
    source: Annotated[
        str | None,
        typer.Option(
            callback=_known_source,
            metavar="NAME",
            help=f"What the files are ({', '.join(IMPORTERS)}); found out from their content if left out.",
        ),
    ] = None,
    fail_on: Annotated[
        Severity | None, typer.Option(help="Exit with 1 if anything at least this severe is found.")
    ] = None,
) -> None:
    """
    Say what went wrong in saved traces, at which step, and what a guard would have done about it.

    Exit code: 2 if a trace could not be read, else 1 if --fail-on applies, else 0.
    """
    page = Page()
    tally = Tally(fail_on)
    try:
        for found in analyze(paths, source):
            tally.add(found)
            page.write(_line(found) if format_ is Format.JSON else page.rendered(account(found)))
        if format_ is Format.TEXT and tally.traces > 1:
            page.write(page.rendered([Block(tally.summary, style="bold")]))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise typer.Exit(tally.exit_code)


@app.command("taxonomy")
def taxonomy_(
    format_: Annotated[Format, typer.Option("--format", help="For people, or one JSON document.")] = Format.TEXT,
) -> None:
    """List everything misstep has a name for: each category and anomaly type, with its definition and remedy."""
    page = Page()
    try:
        if format_ is Format.JSON:
            page.write(json.dumps(_taxonomy_document(), indent=2) + "\n")
        else:
            for category in Category:
                page.write(page.rendered(described(category)))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Tally:
    """What was seen so far, and the exit code that follows from it."""

    def __init__(self, fail_on: Severity | None) -> None:
        self._fail_on = fail_on
        self.traces = self.findings = self.not_read = 0
        self._failed = False

    def add(self, found: Analyzed | NotRead) -> None:
        """Count one trace."""
        self.traces += 1
        if isinstance(found, NotRead):
            self.not_read += 1
            return
        self.findings += bool(found.report.anomalies)
        worst = found.worst
        self._failed |= self._fail_on is not None and worst is not None and worst.rank >= self._fail_on.rank

    @property
    def exit_code(self) -> int:
        """2 where a trace could not be read, else 1 where `--fail-on` applies, else 0."""
        return 2 if self.not_read else int(self._failed)

    @property
    def summary(self) -> str:
        """One line over all traces."""
        not_read = f", {self.not_read} could not be read" if self.not_read else ""
        return f"{self.traces} traces: something was found in {self.findings}{not_read}"


def _line(found: Analyzed | NotRead) -> str:
    return json.dumps(found.record()) + "\n"


def _taxonomy_document() -> dict[str, object]:
    return {
        "schema": 1,
        "categories": [{"name": category, "definition": category_definition(category)} for category in Category],
        "types": [
            {
                "name": info.type,
                "category": info.category,
                "definition": info.definition,
                "scope": info.scope,
                "phases": info.phases,
                "severity": info.severity,
                "ladder": info.ladder,
                "cause": info.cause,
                "references": {"mast": info.mast, "owasp": info.owasp, "trail": info.trail},
            }
            for info in taxonomy().values()
        ],
    }
