"""
The process that `benchmarks.kills` kills: a guarded LangGraph agent that pays, begun or resumed in a folder.

Everything durable is in the folder: LangGraph's checkpoints (SqliteSaver), the journal, and three files that are
appended to and synced: `effects` (a payment was made), `asked` (a person was asked), `approved` (and approved).
"""

from __future__ import annotations

import logging
import os
import random
import signal
import sqlite3
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from langchain.agents import create_agent
from langchain_core.tools import tool
from langgraph.checkpoint.sqlite import SqliteSaver

from misstep import Guard, Journal, side_effect
from misstep.approval import Answer, Question
from misstep.testing import Ask, AskAll, Reply, Say, Script
from misstep_langgraph import guarded
from misstep_langgraph.testing import ScriptedChatModel

WANTED = {"A": 2, "B": 1, "C": 1}
"""How often each order is to be paid: A twice, which nobody may mistake for a repetition."""

BOUNDARIES = ("model", "proposed", "begin", "begun", "effect", "done", "put", "put_writes")
"""Where a process can be told to kill itself: before or after each thing it does that lasts."""


@dataclass(frozen=True, slots=True)
class Orders:
    """How one process is to go about it: when to kill itself (`at`, the `nth` time from 0), and how people answer."""

    durability: Literal["sync", "async", "exit"] = "async"
    at: str = ""
    nth: int = 0
    approves: bool = False
    journal: bool = True


def work(folder: str, orders: Orders) -> None:
    """Begin the run in that folder, or resume it, and bring it to its end."""
    logging.getLogger("misstep").setLevel(logging.ERROR)
    place, bomb = Path(folder), _Bomb(orders)
    saver = SqliteSaver(sqlite3.connect(place / "checkpoints.db", check_same_thread=False))
    journal = Journal(place / "journal.db") if orders.journal else None
    for owner, name in ((saver, "put"), (saver, "put_writes")):
        setattr(owner, name, bomb.after(name, getattr(owner, name)))
    if journal is not None:
        vars(journal)["propose"] = bomb.after("proposed", journal.propose)
        vars(journal)["begin"] = bomb.after("begun", bomb.before("begin", journal.begin))
        vars(journal)["settle"] = bomb.after("done", journal.settle)

    def approve(question: Question) -> Answer:
        order = str((question.arguments or {}).get("order"))
        _append(place / "asked", order)
        if orders.approves:
            _append(place / "approved", order)
        return Answer("approve" if orders.approves else "reject")

    guard = Guard(journal=journal, approver=approve, strict=True)
    model = ScriptedChatModel(Script(bomb.after("model", _reply)))
    agent = create_agent(model, [_payment(place, bomb), look_up], checkpointer=saver)
    graph = guarded(agent, guard)
    config: Any = {"configurable": {"thread_id": "t"}}
    said = graph.get_state(config).values.get("messages")
    if said and said[-1].content == "done":
        return
    begins = None if said else {"messages": [("user", "pay A, then B and C, look A up, and pay A again")]}
    graph.invoke(begins, config, durability=orders.durability)
    met = guard.report(graph.last_run).runs[0].journal
    _append(place / "reports", f"{met.answered} {met.unknown} {met.repeated}")


@tool
def look_up(order: str) -> str:
    """Look an order up."""
    return f"order {order} is open"


def _payment(place: Path, bomb: _Bomb) -> Any:
    @tool
    @side_effect("irreversible")
    def pay(order: str) -> str:
        """Pay an order."""
        bomb.spark("effect")
        _append(place / "effects", order)
        bomb.spark("effect")
        return f"paid {order}"

    return pay


def _reply(texts: Sequence[str]) -> Reply:
    """What the model says to a conversation of that many messages; it never uses an id again."""

    def ask(name: str, order: str) -> Ask:
        return Ask(name, {"order": order}, str(uuid.uuid4()))

    match len(texts):
        case 1 | 8:
            return ask("pay", "A")
        case 3:
            return AskAll((ask("pay", "B"), ask("pay", "C")))
        case 6:
            return ask("look_up", "A")
        case _:
            return Say("done")


class _Bomb:
    """Kills this process at the boundary it was told, the nth time it comes there."""

    def __init__(self, orders: Orders) -> None:
        self._at, self._left = orders.at, orders.nth

    def spark(self, boundary: str) -> None:
        """The process is at a boundary."""
        if boundary == self._at:
            if self._left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self._left -= 1

    def before(self, boundary: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function with the boundary before it."""

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.spark(boundary)
            return function(*args, **kwargs)

        return wrapped

    def after(self, boundary: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function with the boundary after it."""

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            value = function(*args, **kwargs)
            self.spark(boundary)
            return value

        return wrapped


def _append(file: Path, line: str) -> None:
    handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(handle, f"{line}\n".encode())
    os.fsync(handle)
    os.close(handle)


def orders_for(draw: random.Random, boundary: bool, journal: bool = True) -> Orders:
    """Orders drawn by chance, to kill itself at a `boundary` or not at all."""
    at = draw.choice(BOUNDARIES) if boundary else ""
    return Orders(draw.choice(("sync", "async", "exit")), at, draw.randrange(9), draw.random() < 0.5, journal)
