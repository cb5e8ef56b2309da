"""The command line: `misstep analyze`, `misstep taxonomy`, and what is in `cli_policy` and `cli_verify`."""

from __future__ import annotations

import difflib
import io
import json
import logging
import sys
from collections.abc import Collection
from typing import Annotated

import typer

import misstep
from misstep import cli_policy, cli_verify
from misstep.analysis import Analyzed, NotRead, analyze
from misstep.importers import IMPORTERS, known_importers
from misstep.redact import printable
from misstep.taxonomy import AnomalyType, Category, Severity, category_definition, taxonomy
from misstep.terminal import Block, Format, Page, account, described, piped

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
app.command("init")(cli_policy.init)
app.command("verify")(cli_verify.verify)
app.add_typer(cli_policy.app, name="policy")


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
    fail_on_type: Annotated[
        list[AnomalyType] | None,
        typer.Option(metavar="TYPE", help="Exit with 1 if this is found, however severe; may be given several times."),
    ] = None,
) -> None:
    """
    Say what went wrong in saved traces, at which step, and what a guard would have done about it.

    Exit code: 2 if a trace could not be read, else 1 if --fail-on or --fail-on-type applies, else 0.
    """
    page = Page()
    tally = Tally(fail_on, fail_on_type or ())
    with piped():
        for found in analyze(paths, source):
            tally.add(found)
            page.write(_line(found) if format_ is Format.JSON else page.rendered(account(found)))
        if format_ is Format.TEXT and tally.traces > 1:
            page.write(page.rendered([Block(tally.summary, style="bold")]))
    raise typer.Exit(tally.exit_code)


@app.command("taxonomy")
def taxonomy_(
    format_: Annotated[Format, typer.Option("--format", help="For people, or one JSON document.")] = Format.TEXT,
) -> None:
    """List everything misstep has a name for: each category and anomaly type, with its definition and remedy."""
    page = Page()
    with piped():
        if format_ is Format.JSON:
            page.write(json.dumps(_taxonomy_document(), indent=2) + "\n")
        else:
            for category in Category:
                page.write(page.rendered(described(category)))


class Tally:
    """What was seen so far, and the exit code that follows from it."""

    def __init__(self, fail_on: Severity | None, types: Collection[AnomalyType] = ()) -> None:
        self._fail_on, self._types = fail_on, types
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
        self._failed |= any(anomaly.type in self._types for anomaly in found.report.anomalies)

    @property
    def exit_code(self) -> int:
        """2 where a trace could not be read, else 1 where `--fail-on` or `--fail-on-type` applies, else 0."""
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
