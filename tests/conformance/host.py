"""What a scenario needs of a framework: build an app around a script, and run it in each of its modes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from misstep import Guard
from misstep.testing import Ask, Script

Mode = Literal["sync", "async", "stream"]
MODES: tuple[Mode, ...] = ("sync", "async", "stream")


@dataclass
class World:
    """Where tools have their effects: `done` is what really happened."""

    done: list[str] = field(default_factory=list)
    late: threading.Event = field(default_factory=threading.Event)

    def act(self, q: str) -> str:
        """Act on something; the answer is always the same."""
        self.done.append(q)
        return "nothing"

    def hang(self, q: str) -> str:
        """Answer far too late; `late` is set once somebody waited for it."""
        time.sleep(3)
        self.late.set()
        return "late"

    def flaky(self, q: str) -> str:
        """Look something up; it fails the first time."""
        self.done.append(q)
        if len(self.done) == 1:
            raise ConnectionError("once")
        return "found it"

    def count(self, n: int) -> str:
        """Count to a number."""
        self.done.append(f"count {n}")
        return "counted"

    def look(self, q: str) -> str:
        """Look something up; it tells an order's number."""
        self.done.append(f"look {q}")
        return f"found order K7310 for {q}"

    def send(self, order_id: str) -> str:
        """Send an order by its number."""
        self.done.append(f"send {order_id}")
        return f"sent {order_id}"


@dataclass(frozen=True)
class Inner:
    """An agent the outer one can call; `tools` are names of `World` methods."""

    script: Script
    tools: tuple[str, ...] = ("act",)


@dataclass(frozen=True)
class Outcome:
    """What the caller got: every text of the result, the last one last, and the run's id (None where unguarded)."""

    texts: list[str]
    run: str | None = None


class App(Protocol):
    """A guarded or bare app, run as often as one likes; a second run is a second turn where the framework has turns."""

    def run(self, task: str, mode: Mode) -> Outcome:
        """Run to the end, from a thread without an event loop."""
        ...


class Host(Protocol):
    """One way of attaching misstep to one framework."""

    name: str
    declares: Mapping[str, str]
    """Scenario, or `scenario mode` → why the framework cannot do it; the scenario must then indeed fail."""

    def app(
        self,
        script: Script,
        world: World,
        guard: Guard | None,
        *,
        tools: tuple[str, ...] = ("act",),
        inner: Inner | None = None,
        opening: str | None = None,
        others: Mapping[str, Script] | None = None,
    ) -> App:
        """
        An app whose agent plays the script; `opening` is work already done before the agent's turn.

        `others` are agents beside it, by name, without tools: each is given the turn only if the first one hands it
        over, or the guard does.
        """
        ...

    def model(self, script: Script) -> Any:
        """A model of the framework that plays the script."""
        ...

    def hand_off(self, agent: str) -> Ask:
        """The call by which the first agent hands the turn to one of the `others`."""
        ...

    def ask_inner(self, task: str, id: str = "d1") -> Ask:  # noqa: A002 - as in `Ask`
        """The call by which the outer agent calls the inner one."""
        ...


Tool = Callable[..., str]


def tools_of(world: World, names: tuple[str, ...]) -> list[Any]:
    """The world's tools, as plain functions."""
    return [getattr(world, name) for name in names]
