"""
Signals: what a text holds that looks like a secret, like personal data, or like an order to an assistant.

One `re2.Set` says in a single pass which patterns there are in a text; detectors then look closely at those alone.
The pass over an event's text is made once, however many detectors hear the event. Personal data has a set of its own:
digits are everywhere, and by default only what leaves the system is looked at for it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import re2

from misstep.events import Event, ToolRequested, text_of
from misstep.redact import SECRETS
from misstep.run import Run

LONGEST = 20_000
"""Characters; of a longer text head and tail are read."""

PERSONAL = {
    "email": r"\b[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*\.[A-Za-z]{2,24}\b",
    "card": r"\b[3-6][0-9]{3}(?:[ -]?[0-9]{2,6}){2,4}\b",
    "iban": r"\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b",
    "ssn": r"\b[0-9]{3}-[0-9]{2}-[0-9]{4}\b",
    "phone": r"(?:\+[0-9]{1,3}[ .-]?)?(?:\([0-9]{1,4}\)[ .-]?|\b[0-9]{1,4}[ .-])[0-9]{2,4}[ .-][0-9]{2,5}"
    r"(?:[ .-][0-9]{2,4})*\b",
    "ip": r"\b(?:[0-9]{1,3}\.){3}[0-9]{1,3}\b",
}
"""Shapes of personal data, by kind; what has the shape need not be it (see `leaks`)."""

_INSTRUCTIONS = r"(?:instruct\w*|iunstruct\w*|prompts?|rules|guidelines|directions|directives|programming)"
_ASSISTANT = r"(?:AI|assistant|language model|LLM|chat ?bot|agent|GPT-?[0-9]|ChatGPT|Claude|Gemini|Llama|Copilot)"

ORDERS = {
    "override": r"(?i)(?:ignore|disregard|forget|override|bypass|do not follow|stop following)\b[^.\n]{0,40}"
    r"\b(?:previous|prior|above|earlier|preceding|your|system|original|initial|all)\b"
    rf"[^.\n]{{0,20}}\b{_INSTRUCTIONS}\b",
    "address": rf"(?i)\b(?:message|note|instructions?|attention|important)\b[^.\n]{{0,60}}\b(?:to|for) (?:you,? )?"
    rf"(?:the |all |any |our )?{_ASSISTANT}\b|(?m:^\W*(?:dear|hey|attention|note to|to the) {_ASSISTANT}\b)",
    "first": r"(?i)\bbefore you (?:can |continue|proceed|do |start|solve|complete|finish|go )[^.\n]{0,60}"
    r"\b(?:task|request|instructions?)\b[^.\n]{0,60}\b(?:please|first|must|need|do)\b",
    "role": r"<\|(?:im_start|system|assistant|user|start_header_id)\|>|\[/?INST\]|<</?SYS>>|</?system>|"
    r"(?im:^\W{0,4}(?:system|developer|admin(?:istrator)?) (?:message|prompt|override|note|instructions?|notice)"
    r"\W{0,3}:)",
    "frame": r"</?(?:INFORMATION|IMPORTANT|INSTRUCTIONS?|ADMIN|OVERRIDE|URGENT)>",
    "renewal": r"(?i)\b(?:new|updated|real|actual|your next) (?:system )?(?:instructions?|objective|directives?)"
    r"\s*(?::|are|is)",
    "secrecy": r"(?i)\b(?:do not|don['’]t|never|without) (?:tell|inform|mention|alert|notify|telling|informing|"
    r"mentioning|alerting|notifying)\w*\b[^.\n]{0,30}\b(?:the user|user|anyone|anybody)\b",
    "reveal": r"(?i)\b(?:reveal|print|output|repeat|show|leak|disclose|send)\b[^.\n]{0,30}"
    rf"\b(?:system prompt|your (?:initial|hidden|original|full|secret|system) {_INSTRUCTIONS})",
    "steering": r"(?i)(?:^|[.!?:\n\"'(>]\s*)(?:please )?(?:"
    r"(?:add|append|include|insert|integrate|incorporate|introduce|replace|remove|substitute|swap|convert|write|translate|"
    r"rearrange|reverse|respond|end|begin|start|finish|embed|encode|place|mention|promote|scramble|switch|change|merge|shift|"
    r"attach|weave|modify|augment|enhance|combine|misspell|jumble|anagram|render|alter|adjust|tailor|use)\b"
    r"(?:[^.\n]|\.\S){0,120}\byour (?:response|answer|reply|message|output)s?\b|"
    r"in your (?:response|answer|reply|output), (?:please )?\w+)",
}
"""Wordings that order an assistant about, by family."""

DISGUISES = {
    "invisible": r"[\x{200B}\x{200C}\x{2060}-\x{2064}\x{FEFF}\x{AD}\x{E0000}-\x{E007F}]",
    "mixed": r"[A-Za-z][\p{Cyrillic}\p{Greek}]|[\p{Cyrillic}\p{Greek}][A-Za-z]",
    "encoded": r"[A-Za-z0-9+/]{40,}={0,2}",
}
"""What another text may be hidden in."""


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass over a text found: the text as far as it was read, and the names of the patterns in it."""

    text: str
    names: frozenset[str]
    left_out: int = 0
    """Characters that were not read."""

    @property
    def caution(self) -> str:
        """What an anomaly has to add where the text was not read whole."""
        return f" (the middle {self.left_out} characters were not read)" if self.left_out else ""


@dataclass(slots=True)
class _Last:
    """The last event whose text was passed over."""

    seq: int = -1
    found: Pass | None = None


def signals(event: Event, run: Run) -> Pass:
    """The pass over an event's text; of a call, over the texts among its arguments."""
    last = run.memory("signals", _Last)
    if last.seq != event.seq or last.found is None:
        text = "\n".join(value for _, value in texts(event.arguments)) if isinstance(event, ToolRequested) else None
        last.seq, last.found = event.seq, scan(text_of(event) if text is None else text)
    return last.found


def personal(text: str) -> Pass:
    """One pass over a text, or over its head and tail, for personal data alone."""
    return scan(text, "personal")


def scan(text: str, patterns: str = "signals") -> Pass:
    """One pass over a text, or over its head and tail."""
    left_out = len(text) - LONGEST
    if left_out > 0:
        text = f"{text[: LONGEST // 2]}\n{text[-LONGEST // 2 :]}"
    names, every = _set(patterns)
    try:
        found = every.Match(text.encode())
    except UnicodeEncodeError:
        text = text.encode("utf-8", "replace").decode()
        found = every.Match(text.encode())
    return Pass(text, frozenset(names[index] for index in found) if found else _NONE, max(0, left_out))


def pattern(name: str) -> Any:
    """The compiled pattern of that name."""
    return _patterns()[name]


def texts(arguments: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every text among the arguments with the name it stands under, of which a list has none of its own."""
    waiting: list[tuple[str, Any]] = [("", arguments)]
    while waiting:  # and not a recursion, which a model could drive too deep
        name, value = waiting.pop()
        if isinstance(value, str):
            yield name, value
        elif isinstance(value, Mapping):
            waiting.extend((str(key), inner) for key, inner in reversed(list(value.items())))
        elif isinstance(value, list | tuple):
            waiting.extend((name, inner) for inner in reversed(value))


_NONE: frozenset[str] = frozenset()
_SETS = {"signals": {**SECRETS, **ORDERS, **DISGUISES}, "personal": PERSONAL}


@functools.cache
def _options() -> Any:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 256 << 20  # a set that runs out of memory would find nothing, and say nothing
    return options


@functools.cache
def _set(patterns: str) -> tuple[list[str], Any]:
    every = re2.Set.SearchSet(_options())
    for source in _SETS[patterns].values():
        every.Add(source)
    every.Compile()
    return list(_SETS[patterns]), every


@functools.cache
def _patterns() -> dict[str, Any]:
    return {name: re2.compile(source, _options()) for sources in _SETS.values() for name, source in sources.items()}
