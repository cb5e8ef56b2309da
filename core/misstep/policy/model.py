"""The policy as data: pydantic models, the same whether written in YAML or in Python."""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import json
import reprlib
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_validator, model_validator

from misstep.decisions import Default, Kind
from misstep.detectors import BUILTIN, Detector, known_detectors
from misstep.side_effects import SideEffect
from misstep.taxonomy import AnomalyType, taxonomy

Mode = Literal["enforce", "shadow", "off"]

_ENDLESS = frozenset({Kind.RETRY, Kind.REPROMPT, Kind.VOTE, Kind.FALLBACK, Kind.REROUTE, Kind.ROLL_BACK})

_OPTIONS = {
    "to": (Kind.REROUTE, Kind.FALLBACK),
    "samples": (Kind.VOTE,),
    "timeout": (Kind.ASK,),
    "default": (Kind.ASK,),
}
"""What a rung may say beside its limit, and of which decisions."""


class Rung(BaseModel):
    """
    One step of a ladder: a decision, and how often it may be taken for a type: `limit` by each agent of a run,
    `per_run` by all of them together (None: always).

    `to` names the agent of a `reroute` (left out: the next of those the adapter knows), or the model of a `fallback`
    as it was given to the guard (left out: the first); `samples` is how many replies a `vote` compares; `timeout` is
    how many seconds a person who is asked has, and `default` what stands after that. Written `halt`, `{refuse: 2}`,
    or `{reroute: {to: writer, limit: 1}}`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    limit: int | None = Field(default=None, ge=1, strict=True)
    per_run: int | None = Field(default=None, ge=1, strict=True)
    to: str | None = Field(default=None, min_length=1)
    samples: int | None = Field(default=None, ge=2, le=20, strict=True)
    timeout: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    default: Default | None = None

    @model_validator(mode="before")
    @classmethod
    def _written(cls, value: object) -> object:
        if isinstance(value, str):
            return {"kind": value}
        if isinstance(value, Mapping) and len(value) == 1 and "kind" not in value:
            kind, given = next(iter(value.items()))
            if isinstance(given, Mapping) and "kind" in given:
                raise ValueError(f"the decision is `{kind}`; leave `kind` out")
            return {"kind": kind, **given} if isinstance(given, Mapping) else {"kind": kind, "limit": given}
        if isinstance(value, Mapping) and len(value) > 1 and "kind" not in value:
            raise ValueError("one decision to a rung: write each as an item of its own")
        return value

    @model_validator(mode="after")
    def _finite(self) -> Rung:
        if self.kind is Kind.ALLOW:
            raise ValueError("`allow` is no remedy; leave the rung out")
        if self.limit is None and self.kind in _ENDLESS:
            raise ValueError(f"`{self.kind}` needs a limit, or the guard could loop: write `{{{self.kind}: 1}}`")
        return self

    @model_validator(mode="after")
    def _fitting(self) -> Rung:
        for name, kinds in _OPTIONS.items():
            if getattr(self, name) is not None and self.kind not in kinds:
                raise ValueError(f"`{name}` goes with {' or '.join(f'`{kind}`' for kind in kinds)}, not `{self.kind}`")
        return self


class Rule(BaseModel):
    """
    What is done about one anomaly type.

    `with` are the detector's thresholds; `ladder` the remedies, weakest first (left out: the taxonomy's; empty:
    record only); `on_guard_failure` what happens when the rule itself crashes; `output: hold` buffers a streamed
    answer until it is accepted; `enabled: false` switches the rule off; `explore` is the rule's own share of runs (see
    `Policy`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    thresholds: Mapping[str, Any] = Field(default_factory=dict, alias="with")
    ladder: tuple[Rung, ...] | None = None
    on_guard_failure: Literal["open", "closed"] = "open"
    output: Literal["hold", "pass"] = "pass"
    enabled: bool = Field(default=True, strict=True)
    explore: float | None = Field(default=None, ge=0, le=1)


class Policy(BaseModel):
    """
    The whole policy; see `Rule`.

    `mode` enforces, only watches (`shadow`) or is `off`; `unsupported` says what happens where a rung asks a seat
    for what it cannot enact: an error when the guard is attached, or the next rung it can. `explore`
    enforces on a random share of runs while the mode is `shadow`, so that the report can tell which remedies save runs
    and which cost them; with `drop_harmful`, those that cost runs are no longer carried out. `side_effects` says of
    tools, by name or glob (`search_*`), what they do to the world; the first that fits counts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    mode: Mode = "enforce"
    unsupported: Literal["error", "degrade"] = "error"
    rules: Mapping[AnomalyType, Rule] = Field(default_factory=dict)
    side_effects: Mapping[str, SideEffect] = Field(default_factory=dict)
    explore: float = Field(default=0.0, ge=0, le=1)
    drop_harmful: bool = False

    @field_validator("mode", mode="before")
    @classmethod
    def _off(cls, mode: object) -> object:
        return "off" if mode is False else mode  # what YAML makes of the bare word

    @field_validator("rules")
    @classmethod
    def _detectable(cls, rules: Mapping[AnomalyType, Rule]) -> Mapping[AnomalyType, Rule]:
        detectors = known_detectors()
        mistakes = [mistake for type_, rule in rules.items() for mistake in _mistakes(type_, rule, detectors)]
        if mistakes:
            raise ValueError("\n".join(mistakes))
        return rules

    def ladder(self, type_: AnomalyType) -> tuple[Rung, ...]:
        """The remedies in force for a type: the rule's own, else the taxonomy's; none for a type without a rule."""
        rule = self.rules.get(type_)
        if rule is None:
            return ()
        if rule.ladder is not None:
            return rule.ladder
        return tuple(Rung.model_validate(rung) for rung in taxonomy()[type_].ladder)

    def detectors(self) -> list[tuple[Detector, Rule]]:
        """A detector, with its thresholds, for every rule that is on."""
        known = known_detectors()
        return [
            (_made(known[type_], rule.thresholds), rule)
            for type_, rule in self.rules.items()
            if rule.enabled and type_ in known
        ]

    def explored(self, drawn: float) -> frozenset[AnomalyType]:
        """The rules enforced in a run of a policy in shadow that drew that number, at least 0 and below 1."""
        shares = {type_: self.explore if rule.explore is None else rule.explore for type_, rule in self.rules.items()}
        return frozenset(type_ for type_, share in shares.items() if drawn < share)

    @property
    def explores(self) -> bool:
        """Whether a policy in shadow enforces on any share of runs."""
        return bool(self.explored(0.0))

    def deadline(self) -> float | None:
        """How many seconds a tool has to answer; None where no rule does anything about it."""
        rule = self.rules.get(AnomalyType.TOOL_TIMEOUT)
        if rule is None or not rule.enabled or not self.ladder(AnomalyType.TOOL_TIMEOUT):
            return None
        detector = known_detectors()[AnomalyType.TOOL_TIMEOUT](**rule.thresholds)
        return float(detector.seconds)  # type: ignore[attr-defined]

    def holds(self) -> bool:
        """Whether any enforcing rule wants answers held until they are accepted."""
        return any(rule.enabled and rule.output == "hold" and self.ladder(type_) for type_, rule in self.rules.items())


def default_policy() -> Policy:
    """
    What `Guard()` runs: every detector on, enforcing what was measured harmless to healthy runs, warning of the rest.

    See README for the measurements.
    """
    harmless = (AnomalyType.REPEATED_CALL, AnomalyType.EMPTY_RESPONSE)
    return Policy(
        unsupported="degrade",
        rules={detector.type: Rule() if detector.type in harmless else Rule(ladder=()) for detector in BUILTIN},
    )


def _mistakes(type_: AnomalyType, rule: Rule, known: Mapping[AnomalyType, type[Detector]]) -> Iterator[str]:
    """What is wrong with a rule, each as `place||problem`."""
    if type_ is AnomalyType.GUARD_FAILURE:
        if rule.thresholds:
            yield f"{type_.value}.with||`{type_}` has no thresholds"
        return
    if type_ not in known:
        yield f"{type_.value}||no detector finds `{type_}` in this version"
        return
    found = list(_wrong_thresholds(known[type_], type_, rule.thresholds))
    if not found:
        try:
            _made(known[type_], rule.thresholds)
        except ValueError as error:
            found = [f"{type_.value}.with||{' '.join(str(error).splitlines())}"]
    yield from found


def _made(detector: type[Detector], thresholds: Mapping[str, Any]) -> Detector:
    """A detector with these thresholds. Raises ValueError for what it does not accept."""
    hints = threshold_types(detector)
    return detector(**{name: _typed(hints[name], value) for name, value in thresholds.items()})


def _wrong_thresholds(detector: type[Detector], type_: AnomalyType, thresholds: Mapping[str, Any]) -> Iterator[str]:
    fields = {field.name: field for field in dataclasses.fields(detector)}  # type: ignore[arg-type]
    hints = threshold_types(detector)
    for name, value in thresholds.items():
        place = f"{type_.value}.with.{name if name.isidentifier() else ascii(name).replace('|', '/')}"
        given = " ".join(reprlib.repr(value).splitlines())
        if name not in fields:
            known = ", ".join(f"`{field}`" for field in fields) or "none"
            yield f"{place}||unknown threshold; `{type_}` has {known}"
            continue
        try:
            _typed(hints[name], value)
        except ValueError:
            yield f"{place}||must be {_described(hints[name])}, found {given}"
            continue
        if _negative(value):
            yield f"{place}||must be above 0, found {given}"


def _typed(hint: Any, value: object) -> Any:
    """
    A threshold as its detector has it, from what YAML or Python writes: a list becomes a tuple, nothing else changes.

    Raises ValueError for a value of another type.
    """
    try:
        return _adapter(hint).validate_json(json.dumps(value), strict=True)
    except TypeError as error:
        raise ValueError(str(error)) from None


@functools.lru_cache(maxsize=256)
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint)


@functools.lru_cache(maxsize=256)
def threshold_types(detector: type[Detector]) -> dict[str, Any]:
    """The types of a detector's thresholds; where its annotations cannot be read, those of their defaults."""
    try:
        return typing.get_type_hints(detector)
    except NameError:
        return {field.name: type(field.default) for field in dataclasses.fields(detector)}  # type: ignore[arg-type]


def _described(hint: Any) -> str:
    """A threshold's type in words."""
    origin, inner = typing.get_origin(hint), [each for each in typing.get_args(hint) if each is not Ellipsis]
    if origin is tuple:
        return f"a list of {' and '.join(map(_described, inner))}"
    if origin is collections.abc.Mapping:
        return f"a mapping of {' to '.join(map(_described, inner))}"
    return hint.__name__ if isinstance(hint, type) else str(hint)


def _negative(value: object) -> bool:
    """Whether a number is not above 0, or one among several is below."""
    match value:
        case int() | float():
            return value <= 0
        case Mapping():
            return any(_below(each) for each in value.values())
        case list() | tuple():
            return any(map(_below, value))
        case _:
            return False


def _below(value: object) -> bool:
    return value < 0 if isinstance(value, int | float) else _negative(value)
