"""How an app is verified: it is run in every way there is, each time with a canary in it."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from misstep.errors import Halted, VerificationError
from misstep.guard import Guard
from misstep.seats import Seat, Seats
from misstep.verification.canary import POLICY, Canary, rules
from misstep.verification.result import Checked, Standing, Verification

_ADAPTERS = {"langgraph": "misstep_langgraph", "langchain": "misstep_langgraph", "langchain_core": "misstep_langgraph"}
_ADAPTERS |= {"autogen_agentchat": "misstep_autogen", "crewai": "misstep_crewai"}
"""The top package of an app's class → the adapter that knows it."""

_NOT_REACHED = "the canary did not get there"


@dataclass(frozen=True, slots=True)
class Part:
    """
    A model, a tool or another part an app is known to have without running it.

    Where it is plain without a run how the guard stands to it, `standing` and `why` say so.
    """

    seat: Seat
    name: str
    standing: Standing = Standing.NOT_EXERCISED
    why: str = _NOT_REACHED


@dataclass(frozen=True, slots=True)
class Way:
    """
    One way of running the app: `run` gives all that its caller gets to read, as anything with a repr.

    It is called in a thread of its own without an event loop. With `halts` the run is to be ended by the guard.
    """

    name: str
    run: Callable[[], object]
    halts: bool = False


class Rehearsal(Protocol):
    """What an adapter knows of one app of its framework, for it to be verified."""

    guard: Guard | None
    """The guard it is attached to."""
    seats: Seats | None
    """What the attachment declares it can enact."""

    def parts(self) -> Iterable[Part]:
        """What the app consists of, as far as that shows without a run."""
        ...

    def stubbed(self, canary: Canary) -> AbstractContextManager[None]:
        """While models and tools answer with stubs, everywhere in this process, so that nothing real can happen."""
        ...

    def ways(self) -> Iterable[Way]:
        """Every way of running the app that its framework has."""
        ...


def verify(
    app: Any, guard: Guard | None = None, *, bodies: bool = False, inputs: Any = None, deadline: float = 60.0
) -> Verification:
    """
    Say of each seat of an app whether the guard is really in its path, by running it with stubs for models and tools.

    While it is verified every model and tool of the framework in this process answers with a stub, and the guard judges
    nothing else: verify at start-up or in a test, never in a process that serves. `guard` is the one that must be in
    the path; the one attached, where it is left out. Code of the application's own (bodies of nodes, agents inside
    tools, methods of flows) is run only with `bodies`. `inputs` is what the app is run with, in its framework's terms.
    No way of running it may take longer than `deadline` seconds. Raises TypeError for what no adapter knows, and
    `VerificationError` where the guard is at work.
    """
    rehearsal = rehearsal_of(app, bodies=bodies, inputs=inputs)
    meant = guard or rehearsal.guard or Guard()
    if meant.open_runs:
        raise VerificationError(
            f"the guard has {len(meant.open_runs)} open runs: verify before the app serves, or after"
        )
    switched = _switched(meant)
    found = _Found(rehearsal.parts())
    ways: list[str] = []
    canary = Canary()
    with meant.rehearsing(POLICY, rules(canary)), rehearsal.stubbed(canary):
        for way in rehearsal.ways():
            ways.append(way.name)
            if not _tried(way, canary, meant, rehearsal.seats, found, deadline):
                break
    attached = rehearsal.seats.adapter if rehearsal.seats is not None and rehearsal.guard is meant else ""
    return Verification(
        app=type(app).__name__, attached=attached, ways=tuple(ways), switched=switched, checked=tuple(found.checked())
    )


def rehearsal_of(app: Any, *, bodies: bool = False, inputs: Any = None) -> Rehearsal:
    """What the adapter of an app's framework knows of it. Raises TypeError where there is none."""
    for cls in type(app).__mro__:
        adapter = _ADAPTERS.get(cls.__module__.partition(".")[0])
        if adapter is not None:
            rehearse: Callable[..., Rehearsal] = importlib.import_module(f"{adapter}.verify").rehearse
            return rehearse(app, bodies=bodies, inputs=inputs)
    raise TypeError(
        f"`{type(app).__name__}` cannot be verified: give a LangGraph graph or agent, an AutoGen team or agent, or a "
        "CrewAI crew"
    )


class _Found:
    """How each seat of each part stands, way by way."""

    def __init__(self, parts: Iterable[Part]) -> None:
        self._static = {(part.seat, part.name): part for part in parts}
        self._standings: dict[tuple[Seat, str], dict[str, tuple[Standing, str]]] = {}

    def add(self, way: str, checked: Checked) -> None:
        """What one way of running it showed of a part; the worst counts."""
        known = self._standings.setdefault((checked.seat, checked.part), {})
        before = known.get(way)
        if before is None or _grave(checked.standing) > _grave(before[0]):
            known[way] = checked.standing, checked.why

    def missing(self, way: str, why: str = _NOT_REACHED) -> None:
        """What is known from elsewhere and did not show in this way."""
        for seat, part in {**self._static, **self._standings}:
            self._standings.setdefault((seat, part), {}).setdefault(way, (Standing.NOT_EXERCISED, why))

    def stopped(self, way: str, why: str) -> None:
        """A run did not come to its end, so that nobody knows what would have come after."""
        self.add(way, Checked(seat=Seat.RUN, part="run", standing=Standing.NOT_EXERCISED, why=why))
        self.missing(way, why)

    def checked(self) -> Iterable[Checked]:
        """Every part, the same standing in one line; what shows without a run goes first."""
        for (seat, name), part in self._static.items():
            if part.standing is not Standing.NOT_EXERCISED or (seat, name) not in self._standings:
                yield Checked(seat=seat, part=name, standing=part.standing, why=part.why)
        for (seat, name), ways in self._standings.items():
            static = self._static.get((seat, name))
            if static is not None and static.standing is not Standing.NOT_EXERCISED:
                continue
            yield from _in_short(seat, name, ways, static)


def _in_short(
    seat: Seat, name: str, ways: Mapping[str, tuple[Standing, str]], static: Part | None
) -> Iterable[Checked]:
    if {standing for standing, _ in ways.values()} == {Standing.NOT_EXERCISED} and static is not None:
        yield Checked(seat=seat, part=name, standing=Standing.NOT_EXERCISED, why=static.why)
        return
    for standing in Standing:
        of_it = {way: why for way, (each, why) in ways.items() if each is standing}
        if of_it:
            everywhere = len(of_it) == len(ways)
            why = next((why for why in of_it.values() if why), "")
            yield Checked(seat=seat, part=name, standing=standing, ways=() if everywhere else tuple(of_it), why=why)


def _grave(standing: Standing) -> int:
    return (Standing.ENFORCED, Standing.NOT_EXERCISED, Standing.SEEN_ONLY, Standing.NOT_IN_PATH).index(standing)


def _tried(way: Way, canary: Canary, guard: Guard, seats: Seats | None, found: _Found, deadline: float) -> bool:
    """Run the app in one way and note what came of it; whether it came to an end."""
    canary.begin(halts=way.halts)
    ending = _Ending(way.run)
    thread = threading.Thread(target=ending, name="misstep-verify", daemon=True)
    thread.start()
    thread.join(deadline)
    if thread.is_alive():
        found.stopped(way.name, f"it did not end within {deadline:g} s")
        return False
    canary.surfaced(repr(ending.got))
    for checked in canary.found():
        found.add(way.name, checked)
    if seats is not None and Seat.RUN in seats.enacts:
        found.add(way.name, _run(way, canary, guard, ending))
    if ending.error is not None and not isinstance(ending.error, Halted):
        said = str(ending.error).strip().partition("\n")[0]  # a framework may write a whole traceback into it
        found.stopped(way.name, f"it raised {type(ending.error).__name__}: {said}")
    elif not way.halts:
        found.missing(way.name)
    return True


class _Ending:
    """One run, and how it ended."""

    def __init__(self, run: Callable[[], object]) -> None:
        self._run = run
        self.got: object = None
        self.error: BaseException | None = None

    def __call__(self) -> None:
        """Run it."""
        try:
            self.got = self._run()
        except BaseException as error:  # the thread ends either way, and this says how
            self.error = error


def _run(way: Way, canary: Canary, guard: Guard, ending: _Ending) -> Checked:
    """How the guard stands to the run itself: whether it knew of it, saw its end, and could end it."""
    runs = guard.report().runs
    if not runs or guard.open_runs:
        for run in guard.open_runs:
            guard.end(run, "evicted")
        guard.report()
        why = "a run was never said to have ended" if runs else "the guard knew of no run"
        return Checked(seat=Seat.RUN, part="run", standing=Standing.NOT_IN_PATH, why=why)
    if not way.halts:
        return Checked(seat=Seat.RUN, part="run", standing=Standing.ENFORCED)
    if not canary.halted:
        return Checked(seat=Seat.RUN, part="run", standing=Standing.NOT_EXERCISED, why=_NOT_REACHED)
    went_on = canary.after > 0 or not any(run.status == "halted" for run in runs)
    broke = ending.error is not None and not isinstance(ending.error, Halted)
    if went_on or broke:
        why = f"a halt came out as {type(ending.error).__name__}" if broke else "the run went on after a halt"
        return Checked(seat=Seat.RUN, part="run", standing=Standing.SEEN_ONLY, why=why)
    return Checked(seat=Seat.RUN, part="run", standing=Standing.ENFORCED)


def _switched(guard: Guard) -> tuple[str, ...]:
    """What keeps the guard from acting although its seats could."""
    reasons = [] if guard.mode == "enforce" else [f"the guard's mode is `{guard.mode}`"]
    if not any(rule.enabled and guard.policy.ladder(type_) for type_, rule in guard.policy.rules.items()):
        reasons.append("no rule of the policy has a remedy")
    return tuple(reasons)
