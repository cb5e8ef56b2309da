"""What people read of policies in a terminal: what a check found, and the tables of a trial."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from misstep.analysis import NotRead
from misstep.decisions import Kind
from misstep.policy import Policy
from misstep.seats import Seats
from misstep.taxonomy import AnomalyType
from misstep.terminal import Block
from misstep.trial import Comparison, Counts, Group, Trial

_LABEL, _CELL = 26, 15


@dataclass(frozen=True, slots=True)
class Check:
    """
    What was found in a policy file: its mistakes, or the policy and what each adapter cannot enact of it.

    `seats` holds, for each adapter asked for, every way of attaching it with the gaps it leaves.
    """

    file: str
    policy: Policy | None = None
    mistakes: tuple[str, ...] = ()
    seats: Mapping[str, Sequence[tuple[Seats, Sequence[str]]]] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Whether the policy can be used, and attached to each adapter in one way at least."""
        return self.policy is not None and not any(map(self.refused, self.seats))

    def refused(self, adapter: str) -> bool:
        """Whether an adapter would raise, however it is attached."""
        policy = self.policy
        strict = policy is not None and (policy.mode, policy.unsupported) == ("enforce", "error")
        return strict and all(missing for seats, missing in self.seats[adapter] if seats.acts)


def checked(found: Check) -> list[Block]:
    """One policy file: its mistakes, or what is in it and what of it cannot be enacted."""
    blocks = [Block(found.file, style="bold", whole=True)]
    if found.policy is None:
        return [*blocks, *(Block(mistake, 2, "red") for mistake in found.mistakes), Block()]
    blocks.append(Block(_in_short(found.policy), 2))
    for adapter in found.seats:
        blocks += _held_against(found, found.policy, adapter)
    return [*blocks, Block()]


def _in_short(policy: Policy) -> str:
    on = [type_ for type_, rule in policy.rules.items() if rule.enabled]
    act = sum(bool(policy.ladder(type_)) for type_ in on)
    off = len(policy.rules) - len(on)
    parts = [f"{act} with remedies", f"{len(on) - act} only recording", *([f"{off} switched off"] if off else [])]
    return f"No mistake. Mode {policy.mode}; {_counted(len(policy.rules), 'rule')}: {', '.join(parts)}."


def _held_against(found: Check, policy: Policy, adapter: str) -> Iterator[Block]:
    acting = [(seats, missing) for seats, missing in found.seats[adapter] if seats.acts]
    for seats, missing in acting:
        if not missing:
            yield Block(f"{adapter}: `{seats.adapter}` can enact all of it.", 2)
            continue
        yield Block(f"{adapter}: `{seats.adapter}` {_consequence(policy)}", 2, "yellow")
        yield from (Block(f"- {gap}", 4) for gap in missing)
    yield from (
        Block(f"{adapter}: `{seats.adapter}` only watches.", 2) for seats, _ in found.seats[adapter] if not seats.acts
    )
    if found.refused(adapter):
        yield Block(f"{adapter}: there is no way to attach this policy.", 2, "red")


def _consequence(policy: Policy) -> str:
    if policy.mode != "enforce":
        return f"could not enact all of it if the mode were not {policy.mode}:"
    if policy.unsupported == "error":
        return "refuses this policy when it is attached (`unsupported: error`):"
    return "takes the next rung, or only records (`unsupported: degrade`):"


def tried(trial: Trial, not_read: Sequence[NotRead]) -> list[Block]:
    """A policy over saved traces, a table a rule."""
    blocks = [Block(trial.name, style="bold", whole=True), Block(_runs(trial, not_read), 2), Block()]
    for type_, groups in trial.rules.items():
        blocks += _table(trial, type_, groups, groups, lambda new, _: str(new))
    return [*blocks, *_closing(trial), *_unread(not_read)]


def compared(comparison: Comparison, not_read: Sequence[NotRead]) -> list[Block]:
    """Two policies over the same traces: each figure of the one compared with, then of the one tried out."""
    trial, against = comparison.trial, comparison.against
    blocks = [
        Block(against.name, style="bold", whole=True),
        Block(f"-> {trial.name}", style="bold", whole=True),
        Block(_runs(trial, not_read), 2),
        Block(),
    ]
    for type_ in dict.fromkeys([*trial.rules, *against.rules]):
        new, old = (each.rules.get(type_) or {group: Counts() for group in Group} for each in (trial, against))
        blocks += _table(trial, type_, new, old, lambda after, before: f"{before} -> {after}")
    differing = ", ".join(f"{comparison.differing[group]} of {trial.runs[group]} {group}" for group in _groups(trial))
    blocks.append(Block(f"Runs whose first decision differs: {differing or 'none'}.", 2))
    return [*blocks, *_closing(trial), *_unread(not_read)]


def _runs(trial: Trial, not_read: Sequence[NotRead]) -> str:
    parts = ", ".join(f"{trial.runs[group]} {_GROUPS[group]}" for group in _groups(trial))
    unread = f" {_counted(len(not_read), 'trace')} could not be read." if not_read else ""
    return f"{_counted(trial.runs.total(), 'run')}{f': {parts}' if parts else ''}.{unread}"


_GROUPS = {Group.SOLVED: "solved", Group.FAILED: "failed", Group.UNKNOWN: "of unknown outcome"}


def _groups(trial: Trial) -> list[Group]:
    return [group for group in Group if trial.runs[group]]


_MEASURES: tuple[tuple[str, Callable[[Counts], int]], ...] = (
    ("runs with an alarm", lambda counts: counts.alarmed_runs),
    ("alarms", lambda counts: counts.alarms),
    ("runs with a decision", lambda counts: counts.decided_runs),
    ("decisions", lambda counts: counts.decisions),
)


def _table(
    trial: Trial,
    type_: AnomalyType,
    new: Mapping[Group, Counts],
    old: Mapping[Group, Counts],
    shown: Callable[[int, int], str],
) -> Iterator[Block]:
    """One rule: a row a measure, a column a group of runs; one line where it never spoke."""
    groups = _groups(trial)
    if not any(each[group].alarms for each in (new, old) for group in groups):
        rule = trial.policy.rules.get(type_)
        yield Block(f"{type_}: {'no alarm' if rule is None or rule.enabled else 'switched off'}", 2)
        yield Block()
        return
    kinds = sorted({kind for each in (new, old) for group in groups for kind in each[group].firsts}, key=_strength)
    firsts = [(f"first decision: {kind}", _first(kind)) for kind in kinds]
    yield _row(type_.value, [group.value for group in groups], 2, "bold")
    for label, measure in (*_MEASURES, *firsts):
        yield _row(label, [shown(measure(new[group]), measure(old[group])) for group in groups], 4)
    yield Block()


def _first(kind: Kind) -> Callable[[Counts], int]:
    return lambda counts: counts.firsts[kind]


def _strength(kind: Kind) -> int:
    return kind.strength


def _row(label: str, cells: Sequence[str], indent: int, style: str = "") -> Block:
    text = f"{' ' * indent}{label:<{_LABEL + 4 - indent}}{''.join(f'{cell:>{_CELL}}' for cell in cells)}"
    return Block(text, style=style, whole=True)


def _closing(trial: Trial) -> Iterator[Block]:
    if any(counts.firsts for groups in trial.rules.values() for counts in groups.values()):
        yield Block(
            "Only first decisions are comparable with what happened: after one the run would have gone on differently. "
            "A decision on a solved run may be harm; one on a failed run is a chance, and no proof of help.",
            2,
            "dim",
        )


def _unread(not_read: Sequence[NotRead]) -> Iterator[Block]:
    for found in not_read:
        yield Block()
        yield Block(found.trace, style="bold", whole=True)
        yield Block(f"Not read ({found.code}): {found.message}", 2, "red")


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
