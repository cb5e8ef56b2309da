"""What people read in a terminal: the account of one trace, and the taxonomy, as paragraphs on a page."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import NoReturn

import typer
from rich.console import Console
from rich.text import Text

from misstep.analysis import Analyzed, NotRead
from misstep.decisions import Kind
from misstep.redact import printable
from misstep.report import AnomalyReport, DecisionReport
from misstep.run import shortened
from misstep.taxonomy import Category, CauseClass, Severity, TypeInfo, category_definition, taxonomy

WIDTH = 80
_WIDEST = 100
_QUOTE = 160
_EVEN = 0.5
_MOST = 20
"""Findings and decisions shown of one trace; the JSON has all of them."""


class Format(StrEnum):
    """How results are written."""

    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Block:
    """
    A paragraph: its text, how far it is indented, and its style on a terminal; an empty one is an empty line.

    What is `whole`, a path, is not wrapped.
    """

    text: str = ""
    indent: int = 0
    style: str = ""
    whole: bool = False


class Page:
    """Standard output: coloured and as wide as a terminal if it is one, else plain and 80 columns wide."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, markup=False, emoji=False, legacy_windows=False)
        self._width = min(self._console.width, _WIDEST) if self._console.is_terminal else WIDTH

    def rendered(self, blocks: Iterable[Block]) -> str:
        """The blocks wrapped to the width; their texts are redacted, and nothing in them is markup."""
        with self._console.capture() as captured:
            for block in blocks:
                self._print(block)
        return captured.get()

    def write(self, text: str) -> None:
        """Write it now: whoever reads a pipe need not wait for the end."""
        sys.stdout.write(text)
        sys.stdout.flush()

    def _print(self, block: Block) -> None:
        if block.whole:
            self._console.print(Text(printable(block.text).replace("\n", "\ufffd"), style=block.style), soft_wrap=True)
            return
        text = Text(" ".join(printable(block.text).split()), style=block.style)
        for line in text.wrap(self._console, max(self._width - block.indent, 20)) or [Text()]:
            line.rstrip()
            self._console.print(Text(" " * block.indent) + line, soft_wrap=True)


@contextmanager
def piped() -> Iterator[None]:
    """While something is written: whoever reads a pipe may stop reading."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def stop(message: str, code: int = 2) -> NoReturn:
    """End the command with a message on standard error, and that exit code."""
    typer.echo("\n".join(printable(line) for line in message.splitlines()), err=True)
    raise typer.Exit(code)


_STYLES = {
    Severity.INFO: "dim",
    Severity.LOW: "cyan",
    Severity.MEDIUM: "yellow",
    Severity.HIGH: "red",
    Severity.CRITICAL: "bold red",
}

_WOULD = {
    Kind.RETRY: "thrown the reply away and asked the model again",
    Kind.REPROMPT: "thrown the reply away and asked again, saying what was wrong with it",
    Kind.REFUSE: "refused the call, and told the agent why",
    Kind.REWRITE: "changed it before passing it on",
    Kind.VOTE: "asked several times and taken what most replies agree on",
    Kind.FALLBACK: "asked another model",
    Kind.REROUTE: "given the turn to another agent",
    Kind.ASK: "asked a person",
    Kind.ROLL_BACK: "gone back to the state before it",
    Kind.HALT: "ended the run there",
}

_CAUSES: dict[CauseClass, str] = {
    "model": "what a model said or did",
    "system": "the system round the models: tools, context, the guard",
    "orchestration": "how the work is divided and handed on",
}


def account(found: Analyzed | NotRead) -> list[Block]:
    """One trace: what went wrong in a sentence, what was found, the likely misstep, what would have been done."""
    if isinstance(found, NotRead):
        return [_name(found), Block(f"Not read ({found.code}): {found.message}", 2, "red"), Block()]
    blocks = [_name(found), Block(_headline(found), 2)]
    if found.guard_failures:
        blocks.append(Block(f"! {_times(found.guard_failures)} the guard itself failed here: this is incomplete.", 2))
    if found.report.anomalies:
        blocks += [*_findings(found.report.anomalies), *_cause(found), *_decisions(found.report.decisions)]
    return [*blocks, Block()]


def _name(found: Analyzed | NotRead) -> Block:
    return Block(found.trace, style="bold", whole=True)


def _headline(found: Analyzed) -> str:
    """One sentence: what went wrong and where, or that nothing was found."""
    anomalies, cause = found.report.anomalies, found.report.root_cause
    result = {"success": "The run succeeded", "failure": "The run failed"}.get(found.report.outcome or "", "")
    if not anomalies:
        but = {"success": f"{result}, and nothing", "failure": f"{result}, but nothing"}
        size = f"{found.steps} step{'' if found.steps == 1 else 's'}"
        return f"{but.get(found.report.outcome or '', 'Nothing')} suspicious was found in its {size}."
    if cause is None:
        worst = max(anomalies, key=lambda anomaly: anomaly.severity.rank)
        how = f"{result} all the same; worth a look is" if result else "Worth a look is"
        return f"{how} {_where(worst.step, worst.agent)}: {worst.message}."
    first = cause.candidates[0]
    likely = "it most likely went wrong at" if cause.confidence > _EVEN else "the first place to look is"
    sentence = f"{result + '; ' if result else ''}{likely} {_where(first.step, first.agent)}: {first.why}."
    return sentence[:1].upper() + sentence[1:]


def _findings(anomalies: Sequence[AnomalyReport]) -> list[Block]:
    blocks = [Block(), Block("What was found (steps count from 0)", 2, "bold")]
    for found in anomalies[:_MOST]:
        title = f"{_where(found.step, found.agent)}: {found.type} ({found.severity})"
        blocks += [Block(title, 4, _STYLES[found.severity]), Block(found.message, 6)]
        blocks += [Block(line, 6, "dim") for line in _evidence(found)]
    return blocks + _more(len(anomalies))


def _evidence(found: AnomalyReport) -> list[str]:
    """The first two quotes, then the steps of evidence that has no words."""
    quotes = [(piece.step, shortened(" ".join(piece.quote.split()), _QUOTE)) for piece in found.evidence]
    silent = sorted({step for step, quote in quotes if not quote and step is not None and step != found.step})
    lines = [f'step {step}: "{quote}"' for step, quote in quotes if quote][:2]
    return [*lines, f"see also step {', '.join(map(str, silent))}"] if silent else lines


def _cause(found: Analyzed) -> list[Block]:
    cause = found.report.root_cause
    if cause is None:
        return []
    sure = f"{cause.confidence:.0%} sure{', too little to act on' if cause.abstained else ''}"
    title = "The likely misstep" if cause.confidence > _EVEN else "Where to begin looking for the misstep"
    blocks = [Block(), Block(f"{title} ({sure}; cause: {_CAUSES[cause.cause]})", 2, "bold")]
    for place, candidate in enumerate(cause.candidates[:3], 1):
        blocks.append(Block(f"{place}. {_where(candidate.step, candidate.agent)}: {candidate.why}", 4))
    return blocks


def _decisions(decisions: Sequence[DecisionReport]) -> list[Block]:
    if not decisions:
        return [Block(), Block("A live guard would only have reported this, and let it pass.", 2)]
    blocks = [Block(), Block("A live guard would have", 2, "bold")]
    for decision in decisions[:_MOST]:
        did = _WOULD.get(decision.kind, str(decision.kind))
        blocks.append(Block(f"{_where(decision.step, decision.agent)}: {did} ({decision.kind})", 4))
    if len(decisions) > 1:
        blocks.append(Block("After the first of these the run would have gone on differently.", 4, "dim"))
    return blocks + _more(len(decisions))


def _more(count: int) -> list[Block]:
    return [Block(f"... and {count - _MOST} more; --format json has all of them", 4)] if count > _MOST else []


def _where(step: int | None, agent: str) -> str:
    place = "an unknown step" if step is None else f"step {step}"
    return f"{place}, {agent}" if agent else place


def _times(count: int) -> str:
    return "Once" if count == 1 else f"{count} times"


def described(category: Category) -> list[Block]:
    """A category with its types."""
    blocks = [Block(category.value, style="bold"), Block(category_definition(category), 2), Block()]
    for info in taxonomy().values():
        if info.category is category:
            blocks += [*_type(info), Block()]
    return blocks


def _type(info: TypeInfo) -> list[Block]:
    facts = [
        f"scope: {', '.join(info.scope)}",
        f"phases: {', '.join(info.phases)}",
        f"severity: {info.severity}",
        f"cause: {info.cause}",
        f"remedies: {', '.join(map(_rung, info.ladder)) or 'none, only recorded'}",
    ]
    names = {"MAST": info.mast, "OWASP": info.owasp, "TRAIL": info.trail}
    references = "; ".join(f"{name} {', '.join(ids)}" for name, ids in names.items() if ids)
    if references:
        facts.append(f"see: {references}")
    return [
        Block(info.type.value, 2, _STYLES[info.severity]),
        Block(info.definition, 4),
        *(Block(fact, 4, "dim") for fact in facts),
    ]


def _rung(rung: str | dict[str, int]) -> str:
    if isinstance(rung, str):
        return rung
    return ", ".join(f"{kind} (at most {limit})" for kind, limit in rung.items())
