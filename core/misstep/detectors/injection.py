"""Orders in what is only data: the wording of an injected instruction, in the open or hidden."""

from __future__ import annotations

import base64
import binascii
import itertools
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from misstep.anomalies import Anomaly
from misstep.detectors.signals import ORDERS, Pass, pattern, scan, signals
from misstep.events import Event, MemoryRead, MessageSent, RetrievalReturned, ToolFailed, ToolReturned
from misstep.run import Run
from misstep.taxonomy import AnomalyType, Severity

_UNSEEN = dict.fromkeys([0xAD, *range(0x200B, 0x2010), *range(0x2060, 0x2065), 0xFEFF])
_TAGS = {0xE0000 + code: chr(code) for code in range(0x20, 0x7F)}
_LOOK_ALIKE = str.maketrans(
    "асеорхуіјѕԁһӏАВЕКМНОРСТХУІЈЅαεικνορτυχΑΒΕΖΗΙΚΜΝΟΡΤΥΧ", "aceopxyijsdhlABEKMHOPCTXYIJSaeiKvoptuxABEZHIKMNOPTYX"
)
_WEAK = frozenset({"secrecy", "frame", "address"})
"""Families that honest texts use too: one alone says little."""


@dataclass(frozen=True)
class PromptInjection:
    """
    A tool result, a document, a memory or another agent's message worded as an order to an assistant.

    Wording alone is weak evidence: attacks do without it, and honest texts quote it. So what stands in the open only
    informs, with the more confidence the more families of wording there are; one that honest texts use too is not
    enough. An order that was hidden (in characters nobody sees, in look-alike letters, in base64) has no honest
    reason, and weighs more. What the user or the system says is not judged.
    """

    families: int = 1
    """How many families of wording there must be in the open; those that honest texts use too count half."""
    type: ClassVar[AnomalyType] = AnomalyType.PROMPT_INJECTION

    def __call__(
        self, event: ToolReturned | ToolFailed | RetrievalReturned | MemoryRead | MessageSent, run: Run
    ) -> Anomaly | None:
        """Judge one text the agent reads."""
        if isinstance(event, MessageSent) and event.trust not in ("tool", "agent"):
            return None
        found = signals(event, run)
        if not found.names:
            return None
        for how, text in _uncovered(found):
            hidden = scan(text).names & ORDERS.keys() - found.names - {"steering"}
            if hidden:
                return self._found(event, found, sorted(hidden), f"an order hidden in {how}", 0.9, Severity.HIGH)
        families = sorted(found.names & ORDERS.keys())
        weight = sum(0.5 if family in _WEAK else 1.0 for family in families)
        if weight < self.families:
            return None
        confidence = min(0.8, 0.3 + 0.2 * weight)
        return self._found(event, found, families, "wording of an order to an assistant", confidence, Severity.INFO)

    def _found(
        self, event: Event, found: Pass, families: list[str], what: str, confidence: float, severity: Severity
    ) -> Anomaly:
        return Anomaly(
            type=self.type,
            message=f"{what} ({', '.join(families)}) in {_source(event)}{found.caution}",
            evidence=(event.seq,),
            confidence=confidence,
            severity=severity,
        )


def _source(event: Event) -> str:
    match event:
        case ToolReturned() | ToolFailed():
            return f"a result of `{event.tool}`"
        case MessageSent():
            return f"a message of `{event.sender or event.role}`"
        case MemoryRead():
            return "a memory"
        case _:
            return "a document"


def _uncovered(found: Pass) -> Iterator[tuple[str, str]]:
    """What another text may be hidden in, each with the text that then shows."""
    text = found.text
    if "invisible" in found.names:
        yield "characters nobody sees", text.translate(_UNSEEN)
        yield "characters nobody sees", "".join(_TAGS.get(ord(letter), "") for letter in text)
    if "mixed" in found.names:
        yield "letters that look alike", unicodedata.normalize("NFKC", text).translate(_LOOK_ALIKE)
    if "encoded" in found.names:
        for match in itertools.islice(pattern("encoded").finditer(text), 16):
            decoded = _decoded(match.group())
            if decoded:
                yield "base64", decoded


def _decoded(encoded: str) -> str:
    """The text some base64 stands for; empty where it is none that people read."""
    whole = encoded.rstrip("=")
    try:
        text = base64.b64decode(whole + "=" * (-len(whole) % 4), validate=True).decode()
    except (binascii.Error, ValueError):
        return ""
    return text if re.search(r"[a-z]{3,} [a-z]{2,}", text, re.IGNORECASE) else ""
