"""The canary: what stubbed models say in a verification, the rules that must stop it, and what came of it."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from misstep.anomalies import Anomaly
from misstep.decisions import Kind
from misstep.detectors import Detector
from misstep.events import ModelResponded, ToolRequested
from misstep.policy import Policy, Rule, Rung
from misstep.run import Run
from misstep.seats import Seat
from misstep.taxonomy import AnomalyType
from misstep.testing import Ask, AskAll, Say
from misstep.verification.arguments import arguments_for
from misstep.verification.result import Checked, Standing

_MARK = "misstep-canary"
_LONG = 60
"""Replies after which a run that does not end by itself is halted."""
_ENDLESS = 30
"""Further replies after which a run that does not stop for a halt is broken off."""


class Endless(Exception):
    """A run went on and on although the guard ended it, or was to."""


@dataclass(frozen=True, slots=True)
class Offer:
    """
    A tool a model can call: its name, its arguments' JSON schema, and whom it gives the turn to, if anybody.

    `times` is how often that turn is given, to one who has only one reply in it.
    """

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    leads_to: str | None = None
    times: int = 1


@dataclass(slots=True)
class Sent:
    """One thing that was sent into the app to be stopped: a call of a tool, or, where there is no tool, a reply."""

    speaker: str
    mark: str
    tool: str = ""
    passes: bool = False
    """Whether it is to get through: a hand-off, once the turn is to go on."""
    judged: bool = False
    happened: bool = False

    @property
    def standing(self) -> Standing:
        """What became of it."""
        if self.happened:
            return Standing.SEEN_ONLY if self.judged else Standing.NOT_IN_PATH
        if self.judged:
            return Standing.ENFORCED
        return Standing.NOT_EXERCISED if self.tool else Standing.NOT_IN_PATH


@dataclass(slots=True)
class Spoken:
    """What one stubbed model has said so far in a run."""

    proposed: set[str] = field(default_factory=set)
    rejected: bool = False


class Canary:
    """
    Scripted replies for every model of an app, and the record of what they led to; one run at a time, any thread.

    A model first proposes a call of each of its tools, all of which must be refused; then it says something that must
    be thrown away; then it hands the turn to each agent it can that has not spoken yet; then it is done.
    """

    def __init__(self) -> None:
        self.unasked = False
        """Whether calls that no model proposed are to be refused as well, each under the name of who makes it."""
        self._lock = threading.RLock()
        self._marks = itertools.count(1)
        self.begin()

    def begin(self, *, halts: bool = False) -> None:
        """Another run begins; where it `halts`, its first reply must end it."""
        with self._lock:
            self._halts = halts
            self._sent: list[Sent] = []
            self._spoken: dict[str, Spoken] = {}
            self._speakers: set[str] = set()
            self._led: Counter[str] = Counter()
            self._replies = 0
            self.halted = False
            """Whether the guard was told to end the run."""
            self.after = 0
            """How many replies were asked for since."""

    def again(self) -> int:
        """The same app runs once more, to go on where it stands; how much was sent into it so far."""
        with self._lock:
            self._replies = 0
            return len(self._sent)

    # -- for the stubs of an adapter ----------------------------------------------------------------------------------

    def reply(
        self,
        speaker: str,
        offers: Collection[Offer] = (),
        texts: Sequence[str] = (),
        *,
        where: str | None = None,
        at_once: bool = True,
        done: str = f"{_MARK} is done",
    ) -> Say | AskAll:
        """
        What a stubbed model answers that is shown `texts` and can call `offers`.

        `speaker` is the part of the app it is; `where` tells two instances of it apart. With `at_once` false only one
        call is proposed at a time. `done` is said once nothing else is left to say. Raises `Endless`.
        """
        with self._lock:
            self.surfaced("\n".join(texts))
            self._speakers.add(speaker)
            self._replies += 1
            self.after += self.halted
            if self._halts or self._replies > _LONG:
                if self._replies > _LONG + _ENDLESS:
                    raise Endless(f"the run went on after {self._replies} replies")
                return Say(f"{_MARK}-halt")
            spoken = self._spoken.setdefault(where or speaker, Spoken())
            new = {offer.name: offer for offer in offers if offer.name not in spoken.proposed}
            asked = list(new.values())[: None if at_once else 1]
            if asked:
                spoken.proposed.update(offer.name for offer in asked)
                return AskAll(tuple(self._ask(speaker, offer) for offer in asked))
            if not spoken.rejected:
                spoken.rejected = True
                return Say(self._send(speaker).mark)
            onward = next((each for each in offers if self._leads_on(each)), None)
            if onward is not None:
                self._speakers.add(str(onward.leads_to))
                self._led[str(onward.leads_to)] += 1
                return AskAll((self._ask(speaker, onward, passes=True),))
            return Say(done)

    def executed(self, tool: str, call: str = "", speaker: str = "") -> bool:
        """
        A stubbed tool is called, under a call's id and by a part of the app where those are known; whether it is to get
        through.
        """
        with self._lock:
            sent = (None if call else self._awaited(tool)) or self._meant(tool, call, speaker)
            if sent is not None:
                sent.happened = True
            return sent is not None and sent.passes

    def surfaced(self, text: str) -> None:
        """A text that somebody reads: a model that is asked again, or the caller."""
        with self._lock:
            for sent in self._sent:
                if not sent.tool and sent.mark in text:
                    sent.happened = True

    # -- for the rules ------------------------------------------------------------------------------------------------

    def judges(self, event: ToolRequested | ModelResponded) -> Kind | None:
        """What must become of an event."""
        with self._lock:
            if isinstance(event, ToolRequested):
                call = self._meant(event.tool, event.call or "", event.instance or event.agent)
                if call is None or call.passes:
                    return None
                call.judged = True
                return Kind.REFUSE
            if f"{_MARK}-halt" in event.content:
                self.halted = True
                return Kind.HALT
            for sent in self._sent:
                if not sent.tool and sent.mark in event.content:
                    sent.judged = True
                    return Kind.RETRY
            return None

    # -- for the result -----------------------------------------------------------------------------------------------

    def found(self) -> Iterator[Checked]:
        """What became of all that was sent."""
        for sent in self._sent:
            if not sent.passes:
                seat, part = (Seat.TOOL, f"{sent.speaker}/{sent.tool}") if sent.tool else (Seat.MODEL, sent.speaker)
                yield Checked(seat=seat, part=part, standing=sent.standing)

    def _leads_on(self, offer: Offer) -> bool:
        to = offer.leads_to
        return bool(to) and (to not in self._speakers or 0 < self._led[str(to)] < offer.times)

    def _ask(self, speaker: str, offer: Offer, *, passes: bool = False) -> Ask:
        sent = self._send(speaker, offer.name)
        sent.passes = passes
        return Ask(offer.name, arguments_for(offer.parameters, offer.leads_to), id=sent.mark)

    def _send(self, speaker: str, tool: str = "") -> Sent:
        sent = Sent(speaker, f"{_MARK}-{next(self._marks):04}", tool)
        self._sent.append(sent)
        return sent

    def _awaited(self, tool: str) -> Sent | None:
        """The call of a tool that is to get through and has not yet: of two runs at once one may be further on."""
        return next((sent for sent in self._sent if sent.tool == tool and sent.passes and not sent.happened), None)

    def _meant(self, tool: str, call: str, speaker: str) -> Sent | None:
        """What was sent by that call: by its id, whatever the tool's name is there, else the last of that tool."""
        asked = [sent for sent in reversed(self._sent) if sent.tool]
        by_id = next((sent for sent in asked if sent.mark in call), None)
        if by_id is not None:
            return by_id
        whose = speaker if self.unasked else ""
        found = next((sent for sent in asked if sent.tool == tool and (not whose or sent.speaker == whose)), None)
        return self._send(whose, tool) if found is None and whose else found


@dataclass(frozen=True)
class _Calls:
    """Finds the calls that must be refused."""

    canary: Canary
    type: ClassVar[AnomalyType] = AnomalyType.UNSAFE_COMMAND

    def __call__(self, event: ToolRequested, run: Run) -> Anomaly | None:
        """A call of the canary's."""
        return _anomaly(self.type) if self.canary.judges(event) is Kind.REFUSE else None


@dataclass(frozen=True)
class _Replies:
    """Finds the replies that must be thrown away."""

    canary: Canary
    type: ClassVar[AnomalyType] = AnomalyType.EMPTY_RESPONSE
    kind: ClassVar[Kind] = Kind.RETRY

    def __call__(self, event: ModelResponded, run: Run) -> Anomaly | None:
        """A reply of the canary's."""
        return _anomaly(self.type) if self.canary.judges(event) is self.kind else None


@dataclass(frozen=True)
class _Ends(_Replies):
    """Finds the replies that must end the run."""

    type = AnomalyType.STEP_LIMIT
    kind = Kind.HALT


def rules(canary: Canary) -> tuple[Detector, ...]:
    """The rules that stop a canary, to be used with `POLICY`."""
    return _Calls(canary), _Replies(canary), _Ends(canary)


POLICY = Policy(
    unsupported="degrade",
    rules={
        AnomalyType.UNSAFE_COMMAND: Rule(ladder=(Rung(kind=Kind.REFUSE, limit=1000),)),
        AnomalyType.EMPTY_RESPONSE: Rule(ladder=(Rung(kind=Kind.RETRY, limit=1000),), output="hold"),
        AnomalyType.STEP_LIMIT: Rule(ladder=(Rung(kind=Kind.HALT),)),
    },
)
"""What a canary is met with: its calls refused, its bad replies thrown away and held back from streams, its end."""


def _anomaly(type_: AnomalyType) -> Anomaly:
    return Anomaly(type=type_, message="a canary of `verify`")
