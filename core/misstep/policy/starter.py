"""A policy to start from: the default one as YAML, each rule with what it means and all that can be set in it."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from misstep.detectors import known_detectors
from misstep.policy.model import Policy, Rule, Rung, default_policy
from misstep.taxonomy import AnomalyType, taxonomy

_WIDTH = 80

_HEAD = """\
# What misstep looks for in your agents' runs, and what it does about it.
#
#   misstep policy check FILE            finds mistakes in this file
#   misstep policy replay FILE TRACES    says what it would have done
#   misstep taxonomy                     explains every type and every remedy
#   misstep policy schema                prints a JSON schema: save it as
#                                        misstep.schema.json, and an editor that
#                                        knows YAML checks this file as you type
#                                        if it begins with the line
#   # yaml-language-server: $schema=misstep.schema.json
#
# What is commented out holds as it stands. Of every rule:
#   enabled            false switches it off
#   with               the thresholds of its detector
#   ladder             remedies, weakest first, each with its limit per run and
#                      agent; an empty one only records
#   on_guard_failure   if the rule itself fails: open (let pass) or closed
#                      (refuse what could not be checked)
#   output             pass (stream answers as they come) or hold (until they
#                      are accepted)

version: 1

# enforce, shadow (decide, and only record it) or off; the environment's
# MISSTEP_MODE wins
mode: {mode}

# what no seat can enact: error (when the guard is attached) or degrade (to the
# next rung)
unsupported: {unsupported}

rules:
"""


def starter() -> str:
    """The default policy as a commented YAML text; read, it is that policy again."""
    policy = default_policy()
    head = _HEAD.format(mode=policy.mode, unsupported=policy.unsupported)
    return head + "\n".join("".join(_rule(policy, type_)) for type_ in policy.rules)


def _rule(policy: Policy, type_: AnomalyType) -> Iterator[str]:
    info, rule, usual = taxonomy()[type_], policy.rules[type_], Rule()
    about = textwrap.wrap(f"{info.category}, {info.severity}. {info.definition}", _WIDTH - 4, break_on_hyphens=False)
    yield from (f"  # {line}\n" for line in about)
    yield f"  {type_}:\n"
    yield f"    enabled: {_flow(rule.enabled)}\n"
    if rule.thresholds:
        yield f"    with: {_flow(dict(rule.thresholds))}\n"
    elif thresholds := _thresholds(type_):
        yield from _commented(thresholds)
    if not rule.ladder:
        yield f"    # ladder: {_ladder([Rung.model_validate(rung) for rung in info.ladder])}\n"
    if rule.ladder is not None:
        yield f"    ladder: {_ladder(rule.ladder)}\n"
    for name in ("on_guard_failure", "output"):
        value = getattr(rule, name)
        yield f"    {'# ' if value == getattr(usual, name) else ''}{name}: {_flow(value)}\n"


def _thresholds(type_: AnomalyType) -> dict[str, Any]:
    """What can be set of a type's detector, with what holds otherwise."""
    detector = known_detectors().get(type_)
    fields = dataclasses.fields(detector) if detector is not None else ()  # type: ignore[arg-type]
    return {field.name: _default(field) for field in fields}


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _commented(thresholds: dict[str, Any]) -> Iterator[str]:
    """Thresholds as a comment: in one line, or in as many as they need."""
    line = f"    # with: {_flow(thresholds)}\n"
    if len(line) <= _WIDTH:
        yield line
        return
    yield "    # with:\n"
    yield from (f"    #   {name}: {_flow(value)}\n" for name, value in thresholds.items())


def _ladder(rungs: Sequence[Rung]) -> str:
    return f"[{', '.join(map(_rung, rungs))}]"


def _rung(rung: Rung) -> str:
    options = rung.model_dump(mode="json", exclude={"kind"}, exclude_none=True)
    if not options:
        return rung.kind.value
    return _flow({rung.kind.value: options["limit"] if [*options] == ["limit"] else options})


def _flow(value: Any) -> str:
    """A value as YAML in one line."""
    plain = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6, allow_unicode=True)
    return plain.removesuffix("\n").removesuffix("\n...")
