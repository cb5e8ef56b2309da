"""Calls that failed, and what the agent makes of them: nothing, or a success."""

from __future__ import annotations

import functools
import re
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import ClassVar

from misstep import errors
from misstep.anomalies import Anomaly
from misstep.calls import Call
from misstep.events import ModelResponded, ToolFailed, ToolReturned
from misstep.run import Run, shortened
from misstep.taxonomy import AnomalyType, Severity

TIMEOUT = errors.ToolTimeout.__name__
"""The `error_type` of a call that an adapter's deadline gave up on."""

_ADMITS = re.compile(
    r"\b(?:error\w*|fail\w*|unable|unsuccessful\w*|cannot|not|no|none|never|sorry|apolog\w+|unfortunately|however|"
    r"issue\w*|problem\w*|invalid|missing|incorrect|wrong|denied|reject\w*|unavailable|timed? ?out|again|instead|"
    r"retry\w*|trouble|difficult\w*|without|alternative\w*|fix\w*|correct\w*|debug\w*|exception\w*|try|let me|"
    r"let[’']s|need\w*)\b|n[’']t\b|\?",
    re.IGNORECASE,
)
"""Words in which a reply takes a failure into account, or asks about it."""

_ENGLISH = re.compile(r"\b(?:the|is|are|your|you|have|has|and|to|was|with|for|of)\b", re.IGNORECASE)

_CLAIM = re.compile(
    r"\b(I(?: have|[’']ve)|has been|have been|was|were|is now)\s+"
    r"(?:(?:now|all|just|also|both|already|successfully) ){0,3}(\w{3,20})\b"
)
_IRREGULAR = {"sent": "send", "paid": "pay", "built": "build", "made": "make", "bought": "buy"}
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


@dataclass(frozen=True)
class ToolError:
    """A tool failed. This only informs: see `IgnoredToolError` for an agent that does not notice."""

    type: ClassVar[AnomalyType] = AnomalyType.TOOL_ERROR

    def __call__(self, event: ToolFailed, run: Run) -> Anomaly | None:
        """Say that a call failed; one that ran out of time is a `tool_timeout`."""
        if event.error_type == TIMEOUT:
            return None
        why = event.error_type or shortened(event.error, 200)
        return Anomaly(
            type=self.type,
            message=f"`{event.tool}` failed: {why}" if why else f"`{event.tool}` failed",
            evidence=(event.seq,),
            facts={"tool": event.tool},
        )


@dataclass(frozen=True)
class ToolTimeout:
    """
    A call an adapter's deadline gave up on after `seconds`, or one whose result came later than that.

    Of the first nobody knows whether it took effect; the second weighs less. Late is counted from the request, so
    that a person who is asked in between counts too.
    """

    seconds: float = 60.0
    """How long a tool may take."""
    type: ClassVar[AnomalyType] = AnomalyType.TOOL_TIMEOUT

    def __call__(self, event: ToolFailed | ToolReturned, run: Run) -> Anomaly | None:
        """Judge what became of one call."""
        call = run.calls.get(event.call)
        took = event.elapsed - call.elapsed if call is not None else 0.0
        given_up = isinstance(event, ToolFailed) and event.error_type == TIMEOUT
        if not given_up and took <= self.seconds:
            return None
        said = "did not answer in time" if given_up else f"answered after {took:.0f} s, later than {self.seconds:g} s"
        return Anomaly(
            type=self.type,
            message=f"`{event.tool}` {said}",
            evidence=(event.seq,) if call is None else (event.seq, call.seq),
            severity=None if given_up else Severity.LOW,
            facts={"tool": event.tool},
        )


@dataclass(slots=True)
class _Answered:
    """The calls whose failure each instance has already answered for, by the `seq` of the newest; at most 1024."""

    by: OrderedDict[str, int] = field(default_factory=OrderedDict)

    def first(self, instance: str, seq: int, keep: int = 1024) -> bool:
        """Whether this is the instance's first reply after that failure."""
        if self.by.get(instance, -1) >= seq:
            return False
        self.by[instance] = seq
        self.by.move_to_end(instance)
        if len(self.by) > keep:
            self.by.popitem(last=False)
        return True


@dataclass(frozen=True)
class IgnoredToolError:
    """
    The agent answers as if its last calls had succeeded, though every one of them failed.

    Only the first reply after them is judged, and only one in English that calls nothing, asks nothing and has none
    of the words in which failures are owned up to; so a failure that is admitted in any way is none.
    """

    shortest: int = 40
    """Characters; a shorter reply commits itself to nothing."""
    type: ClassVar[AnomalyType] = AnomalyType.IGNORED_TOOL_ERROR

    def __call__(self, event: ModelResponded, run: Run) -> Anomaly | None:
        """Judge one reply."""
        if event.calls:
            return None
        calls = run.calls.latest(event.instance)
        if not calls or any(call.state != "failed" for call in calls):
            return None
        if not run.memory(self, _Answered).first(event.instance, calls[0].seq) or self._takes_notice(event.content):
            return None
        tools = ", ".join(sorted({f"`{call.tool}`" for call in calls}))
        return Anomaly(
            type=self.type,
            message=f"`{event.agent or 'the agent'}` goes on as if {tools} had not failed",
            evidence=(event.seq, *(call.seq for call in calls[:8])),
            confidence=0.7,
            facts={"tool": min(call.tool for call in calls)},
        )

    def _takes_notice(self, content: str) -> bool:
        if len(content.strip()) < self.shortest or len(_ENGLISH.findall(content[:2000])) < 3:
            return True
        return _ADMITS.search(content) is not None


@dataclass(frozen=True)
class FalseSuccess:
    """
    The agent reports as done what the run shows to have failed, or never to have been tried.

    A claim is a verb in the perfect or passive ("I have cancelled", "has been sent"), in a reply that calls and asks
    nothing; it is held against the tools whose names begin with that verb. It is false where such a tool failed and
    none of them returned among the agent's last 32 calls; or, for a claim in the first person, where the agent has
    exactly one such tool, and it never came back to anybody in the run.
    """

    type: ClassVar[AnomalyType] = AnomalyType.FALSE_SUCCESS

    def __call__(self, event: ModelResponded, run: Run) -> Anomaly | None:
        """Judge one reply."""
        if event.calls or "?" in event.content:
            return None
        for claim in _CLAIM.finditer(event.content[:10_000]):
            past = claim[2].lower()
            calls = [call for call in run.calls.recent(event.instance) if _means(past, call.tool)]
            if calls:
                failed = _last_failed(calls)
                if failed is not None:
                    return self._found(event, failed.tool, claim[0], (event.seq, failed.seq), "the last call failed")
            elif claim[1].startswith("I"):
                tools = [tool for tool in run.instances[event.instance].tools if _means(past, tool)]
                if len(tools) == 1 and tools[0] not in run.calls.returned:
                    return self._found(event, tools[0], claim[0], (event.seq,), "no call was ever made")
        return None

    def _found(self, event: ModelResponded, tool: str, claim: str, evidence: tuple[int, ...], why: str) -> Anomaly:
        return Anomaly(
            type=self.type,
            message=f"`{event.agent or 'the agent'}` reports success ({claim!r}), but of `{tool}` {why}",
            evidence=evidence,
            confidence=0.7,
            facts={"tool": tool},
        )


def _last_failed(calls: list[Call]) -> Call | None:
    """Of calls of one verb the one that failed last, if none of them returned or is open; else None."""
    if any(call.state in ("returned", "open") for call in calls):
        return None
    failed = [call for call in calls if call.state == "failed"]
    last = max((call.round for call in failed), default=0)
    return min((call for call in failed if call.round == last), key=lambda call: (call.tool, call.seq), default=None)


@functools.lru_cache(maxsize=4096)
def _means(past: str, tool: str) -> bool:
    """Whether a past participle is of the verb a tool's name begins with, as far as English is regular."""
    words = _WORDS.findall(tool)
    verb = words[0].lower() if words else ""
    if past in _IRREGULAR:
        return _IRREGULAR[past] == verb
    return len(verb) > 2 and past.startswith(verb.rstrip("ey")) and past.endswith("ed") and len(past) - len(verb) <= 3
