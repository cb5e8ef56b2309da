"""What a guard judges by: a policy, its rules and its mode, and how they are switched while runs go on."""

from __future__ import annotations

import difflib
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, cast

from misstep.approval import Approver
from misstep.detectors import Detector
from misstep.dispatch import Dispatch, Rulewatch
from misstep.errors import AttachError
from misstep.judge import Judge
from misstep.policy import Ladder, Mode, Policy, load_policy
from misstep.remedies import Remedies
from misstep.run import Run
from misstep.seats import Seats, described
from misstep.sessions import Sessions
from misstep.side_effects import Classes, SideEffect
from misstep.support import Means, gaps
from misstep.taxonomy import AnomalyType

log = logging.getLogger("misstep")

_ATTACHED = 256
"""Apps whose seats and agents are remembered, to hold a reloaded policy against."""


class InForce:
    """
    The policy in force, and who it is held against: the part of a guard that operators switch and adapters attach to.

    An event is judged by one policy, never by parts of two; open runs go on under the new one.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        detectors: tuple[Detector, ...],
        mode: Mode | None,
        models: dict[str, Any],
        approver: Approver | None,
        sessions: Sessions,
        budget: float,
        strict: bool,
    ) -> None:
        self.strict = strict
        self.models = models
        self.approver = approver
        self._means = Means(models.keys(), approver is not None)
        self._own, self._budget = detectors, budget
        self._given_mode, self._switched = mode, cast("Mode | None", None)
        self._switching = threading.RLock()
        self._attached: OrderedDict[tuple[object, ...], tuple[Seats, Collection[str] | None]] = OrderedDict()
        self._unsupported: dict[str, None] = {}
        self._dispatch = Dispatch(())
        self._sessions = sessions
        self._classes = Classes()
        self._remedies = Remedies()
        self._put_in_force(policy)
        self._mode = self._mode_under(policy)

    # -- for operators ------------------------------------------------------------------------------------------------

    @property
    def mode(self) -> Mode:
        """
        What the guard does: `enforce`, `shadow` (decide, and only record it) or `off`.

        Assigned, it holds at once, in open runs too, and until it is assigned again: over MISSTEP_MODE and whatever
        policy is reloaded. Raises ValueError, and `AttachError` where an adapter attached before cannot enact what
        the policy asks for; the mode then stays as it was.
        """
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        chosen = _known(mode)
        with self._switching:
            missing = self._missing(self.policy, chosen, self._attached.values())
            self._switched = chosen
            self._switch(chosen, missing)

    def reload(self, policy: Policy | str | Path) -> None:
        """
        Put another policy, or a changed policy file, in force for every event from now on.

        Open runs go on with their history, their ladders' counts, and the memory of each rule whose thresholds are
        the same; a rule with other thresholds begins its own anew. A rule that was switched off stays off. Raises
        `PolicyError` for a file with a mistake, and `AttachError` where an adapter attached before cannot enact what
        the policy asks for; the policy in force then stays in force.
        """
        new = policy if isinstance(policy, Policy) else load_policy(policy)
        with self._switching:
            mode = self._mode_under(new)
            missing = self._missing(new, mode, self._attached.values())
            self._put_in_force(new)
            self._switch(mode, missing)
        log.warning("policy reloaded: mode %s, rules: %s", mode, ", ".join(new.rules) or "none")

    def disable(self, rule: AnomalyType | str) -> None:
        """Switch one rule off until it is enabled again; every report says so. Raises ValueError for an unknown one."""
        with self._switching:
            self._rule(rule).disabled = True
            self._prepare()
        log.warning("rule `%s` is switched off: it protects nothing", AnomalyType(rule))

    def enable(self, rule: AnomalyType | str) -> None:
        """Switch a rule on again, or let it out of quarantine. Raises ValueError for an unknown one."""
        with self._switching:
            self._rule(rule).enable()
            self._prepare()
        log.warning("rule `%s` is switched on", AnomalyType(rule))

    # -- for adapters -------------------------------------------------------------------------------------------------

    def attach(self, seats: Seats, agents: Collection[str] | None = None) -> None:
        """
        Hold the policy against what an adapter can enact, and the `agents` it can give the turn to, if it knows them.

        Raises `AttachError` where it asks for more, unless the policy says `unsupported: degrade`: then the next rung
        that can be enacted stands in, the gap is logged once, and every report repeats it.
        """
        with self._switching:
            missing = self._missing(self.policy, self.mode, [(seats, agents)])
            self._attached[seats.adapter, described(seats), agents and tuple(agents)] = seats, agents
            if len(self._attached) > _ATTACHED:
                self._attached.popitem(last=False)
            self._tell_of(missing)

    def repeatable(self, tool: str, run: Run) -> bool:
        """Whether a call of that tool may be made twice: only if it is declared to change nothing."""
        classified = run.side_effect(tool)
        return classified.declared and classified.side_effect is SideEffect.READ_ONLY

    @property
    def deadline(self) -> float | None:
        """How many seconds a tool has to answer, where a rule for `tool_timeout` enforces that; None: for ever."""
        return self._deadline if self.mode == "enforce" else None

    @property
    def holds(self) -> bool:
        """Whether answers are held back from streams until they are accepted."""
        return self._holds and self.mode == "enforce"

    @property
    def fails_closed(self) -> bool:
        """Whether any rule of the policy refuses what it cannot check, and the guard enforces."""
        return self.mode == "enforce" and any(rule.closed and not rule.disabled for rule in self._dispatch.rules)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _put_in_force(self, policy: Policy) -> None:
        """Judge by this policy from now on: an event is judged by the old one or by the new one, never by both."""
        rules = _rules(policy, self._own, self._dispatch)
        dispatch = Dispatch(rules, budget=self._budget, strict=self.strict)
        judge = Judge(Ladder(policy), dispatch, self._means, self.repeatable)
        judge.dropped = self._remedies.harmful() if policy.drop_harmful else frozenset()
        self._classes.heed(policy.side_effects)
        self.policy, self._dispatch, self._judge = policy, dispatch, judge
        self._prepare()

    def _mode_under(self, policy: Policy) -> Mode:
        """The mode a policy is run in: as it was switched to, else the environment's, the constructor's, its own."""
        return _known(self._switched or os.environ.get("MISSTEP_MODE") or self._given_mode or policy.mode)

    def _switch(self, mode: Mode, missing: dict[str, str]) -> None:
        with self._sessions.lock:
            self._mode = mode
            for run in self._sessions.ids():
                session = self._sessions.get(run)
                if session is not None:
                    session.heed(mode, self.policy.explored(session.drawn))
        self._unsupported = {gap: None for gap in self._unsupported if gap in missing}
        self._tell_of(missing)

    def _missing(
        self, policy: Policy, mode: Mode, apps: Iterable[tuple[Seats, Collection[str] | None]]
    ) -> dict[str, str]:
        """What the seats of these apps cannot enact, each with its adapter. Raises `AttachError` where it is one."""
        found: dict[str, str] = {}
        enforces = mode == "enforce" or (mode == "shadow" and policy.explores)
        for seats, agents in apps if enforces else ():
            missing = gaps(policy, seats, self._means, agents, self._own)
            if missing and policy.unsupported == "error":
                raise AttachError(seats.adapter, missing)
            found.update(dict.fromkeys(missing, seats.adapter))
        return found

    def _tell_of(self, missing: dict[str, str]) -> None:
        for gap, adapter in missing.items():
            if gap not in self._unsupported:
                self._unsupported[gap] = None
                log.warning("%s: %s", adapter, gap)

    def _prepare(self) -> None:
        """What the seats ask of the policy before there is anything to judge, by the rules that are on."""
        off = self._dispatch.disabled()
        rules = {type_: rule for type_, rule in self.policy.rules.items() if type_ not in off}
        on = self.policy.model_copy(update={"rules": rules})
        self._holds, self._deadline = on.holds(), on.deadline()

    def _rule(self, name: AnomalyType | str) -> Rulewatch:
        known = [rule.detector.type.value for rule in self._dispatch.rules]
        rule = self._dispatch.find(AnomalyType(name)) if name in known else None
        if rule is None:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean `{close[0]}`?" if close else f"it has: {', '.join(known) or 'none'}"
            raise ValueError(f"this guard has no rule {str(name)!r}; {hint}")
        return rule


def _rules(policy: Policy, own: Iterable[Detector], before: Dispatch) -> list[Rulewatch]:
    """The rules of a policy; one that was there before goes on with its counts, its quarantine, or switched off."""
    asked: dict[AnomalyType, Detector] = {detector.type: detector for detector, _ in policy.detectors()}
    asked.update({detector.type: detector for detector in own})
    closed = {type_ for type_, rule in policy.rules.items() if rule.on_guard_failure == "closed"}
    rules: list[Rulewatch] = []
    for type_, detector in asked.items():
        known = before.find(type_)
        if known is None or (known.detector, known.closed) != (detector, type_ in closed):
            known = Rulewatch(detector, type_ in closed, disabled=known is not None and known.disabled)
        rules.append(known)
    return rules


def _known(mode: str) -> Mode:
    if mode not in ("enforce", "shadow", "off"):
        raise ValueError(f"`mode` or MISSTEP_MODE must be `enforce`, `shadow` or `off`, found {mode!r}")
    return cast("Mode", mode)
