"""What the agent is told: templates of the taxonomy, in which no text of the run ever speaks."""

from __future__ import annotations

from misstep.anomalies import Anomaly
from misstep.redact import printable, redacted
from misstep.run import Run
from misstep.taxonomy import taxonomy

_NEUTRAL = {"tool": "the tool", "argument": "one argument", "agent": "the agent", "times": "several"}


def objection(anomaly: Anomaly, run: Run) -> str:
    """Why a call was not executed, and what to do instead."""
    return _said(anomaly, run, "This call was not executed.")


def withheld(anomaly: Anomaly, run: Run) -> str:
    """Why what a tool answered is not passed on, and what to do instead."""
    return _said(anomaly, run, "What the tool answered was withheld.")


def reprompt(anomaly: Anomaly, run: Run) -> str:
    """Why a reply was thrown away, and what to do instead."""
    return _said(anomaly, run, "Your last reply was not used.")


def notice(anomaly: Anomaly, run: Run) -> str:
    """What went wrong, and what to do about it, where nothing was thrown away."""
    return _said(anomaly, run, "")


def lesson(anomaly: Anomaly, run: Run) -> str:
    """Why the work was taken back, and how not to get there again."""
    return _said(anomaly, run, "What came after this was taken back, since it went wrong.")


def question(anomaly: Anomaly) -> str:
    """What a person is told who is asked; what was seen is redacted, but may be quoted to people."""
    return f"{anomaly.type.value}: {printable(redacted(anomaly.message))}"


def rejected(comment: str) -> str:
    """What an agent is told whose call or reply a person rejected."""
    said = f" They say: {comment}" if comment else ""
    return f"A person was asked about this and rejected it.{said}"


def _said(anomaly: Anomaly, run: Run, what: str) -> str:
    return " ".join(f"[misstep: {anomaly.type.value}] {what} {advice(anomaly, run)}".split())


def halted(anomaly: Anomaly, run: Run) -> str:
    """Why the run was ended, for the caller."""
    tool = _declared_tool(anomaly.facts.get("tool"), run)
    what = f" on {tool}" if tool else ""
    return f"misstep ended this run: {anomaly.type.value}{what}, and milder remedies did not help"


def advice(anomaly: Anomaly, run: Run) -> str:
    """The type's feedback with the names the application declared; any other name becomes a neutral phrase."""
    facts = anomaly.facts
    known = {
        "tool": _declared_tool(facts.get("tool"), run),
        "argument": _declared_argument(facts.get("tool"), facts.get("argument"), run),
        "agent": None,
        "times": str(facts["times"]) if isinstance(facts.get("times"), int) else None,
    }
    return taxonomy()[anomaly.type].feedback.format(**{name: known[name] or _NEUTRAL[name] for name in _NEUTRAL})


def _declared_tool(name: object, run: Run) -> str | None:
    return f"`{name}`" if name in run.tools else None


def _declared_argument(tool: object, name: object, run: Run) -> str | None:
    spec = run.tools.get(str(tool))
    return f"`{name}`" if spec and name in (spec.parameters.get("properties") or ()) else None
