"""
The journal: which calls with a lasting effect were begun and what became of them, durable across a kill.

A call is written down before it is made and again after, so that a run that is resumed, by whichever process, answers
what was done from the record and does not do it again. Exactly once does not exist: a kill between an effect and its
record leaves it unknown, and then only a person can say.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from misstep.errors import JournalError
from misstep.redact import redacted
from misstep.run import shortened
from misstep.side_effects import SideEffect

log = logging.getLogger("misstep")

_VERSION = 1
_LONGEST = 100_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
    id INTEGER PRIMARY KEY,
    scope BLOB NOT NULL, tool TEXT NOT NULL, arguments BLOB NOT NULL,
    run TEXT NOT NULL, batch TEXT, call TEXT NOT NULL, side_effect TEXT NOT NULL,
    state TEXT NOT NULL, result TEXT, begun REAL NOT NULL, settled REAL, ended INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS same ON calls (scope, tool, arguments);
CREATE INDEX IF NOT EXISTS age ON calls (begun);
CREATE TABLE IF NOT EXISTS salt (value BLOB NOT NULL);
"""


class State(StrEnum):
    """What is known of a call: it was begun; it was done, or failed; or nobody knows whether it took effect."""

    BEGUN = "begun"
    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Proposal:
    """
    A call about to be made. `scope` is the conversation it belongs to, or its run where there is none.

    `batch` is the reply that proposed it, if that was heard in this run; None where the call was proposed before the
    run began, so that its id comes from a checkpoint and says by itself which call it is.
    """

    scope: str
    run: str
    batch: str | None
    call: str
    tool: str
    arguments: str
    side_effect: SideEffect


@dataclass(frozen=True, slots=True)
class Entry:
    """One call in the journal. `result` is what the tool answered, with secrets as pseudonyms, once it is done."""

    id: int
    tool: str
    call: str
    run: str
    batch: str | None
    state: State
    result: str | None
    begun: float
    """Seconds since the epoch."""
    ended: bool
    """Whether the turn it was made in came to its end."""


class Journal:
    """
    Calls with a lasting effect in an SQLite file (`Journal("misstep.db")`), for any number of threads and processes.

    Every write is on the disk before it returns (WAL, `synchronous=FULL`). The file is readable by its owner alone;
    conversations and arguments are in it as salted digests only, results with their secrets as pseudonyms and at most
    100,000 characters long. What is older than `age` days is forgotten, also what is unknown. A process waits for
    another at most `timeout` seconds. One application, one file: conversations are told apart by their id alone.

    Raises `JournalError` where the file cannot be opened or is none of ours.
    """

    def __init__(self, path: str | Path, *, age: float = 30.0, timeout: float = 5.0) -> None:
        self.path, self.age, self.timeout = Path(path), age, timeout
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._process = 0
        self._salt = b""
        self._swept = 0.0
        self._at_work: set[int] = set()
        """The entries whose calls this process is making right now."""
        with self._transaction():
            pass

    # -- one call -----------------------------------------------------------------------------------------------------

    def begin(self, proposal: Proposal, gone: Callable[[Entry], bool]) -> Entry:
        """
        Write down that a call is about to be made, unless it is known already.

        The entry's state says what to do: make the call (`begun`), pass on its result (`done`), ask a person
        (`unknown`). `gone` tells whether the conversation knows nothing of a call any more: one that was done and is
        gone was proposed again under another id, since the reply that proposed it was lost.
        """
        with self._transaction() as database:
            self._sweep(database)
            known = self._known(database, proposal, gone)
            entry = self._insert(database, proposal) if known is None else self._claim(database, known, proposal)
        if entry.state is State.BEGUN:
            self._at_work.add(entry.id)
        return entry

    def answer(self, proposal: Proposal, gone: Callable[[Entry], bool]) -> Entry | None:
        """The entry of a call that was done before; None where it was not, and then nothing is written down."""
        with self._transaction() as database:
            known = self._known(database, proposal, gone)
            if known is None or known.state is not State.DONE:
                return None
            return self._claim(database, known, proposal)

    def again(self, entry: Entry) -> Entry:
        """A person has approved: a call nobody knows of is about to be made once more."""
        with self._transaction() as database:
            database.execute("UPDATE calls SET state = ?, settled = NULL WHERE id = ?", (State.BEGUN, entry.id))
        self._at_work.add(entry.id)
        return replace(entry, state=State.BEGUN)

    def settle(self, entry: Entry, state: State, result: str | None = None) -> None:
        """Write down what became of a call."""
        kept = shortened(redacted(result), _LONGEST) if result is not None else None
        try:
            with self._transaction() as database:
                database.execute(
                    "UPDATE calls SET state = ?, result = ?, settled = ? WHERE id = ?",
                    (state, kept, time.time(), entry.id),
                )
        finally:
            self._at_work.discard(entry.id)

    def drop(self, entry: Entry) -> None:
        """The call was not made after all, or is to be made again from its start when the run is resumed."""
        try:
            with self._transaction() as database:
                database.execute("DELETE FROM calls WHERE id = ?", (entry.id,))
        finally:
            self._at_work.discard(entry.id)

    # -- the whole ----------------------------------------------------------------------------------------------------

    def end(self, scope: str) -> None:
        """The turn of a conversation came to its end: what is asked for from now on is asked for anew."""
        with self._transaction() as database:
            database.execute("UPDATE calls SET ended = 1 WHERE scope = ? AND ended = 0", (self._digest(scope),))

    def unsettled(self) -> list[Entry]:
        """The calls of which nobody knows whether they took effect, but for those this process is making now."""
        with self._transaction() as database:
            rows = database.execute(
                f"SELECT {_FIELDS} FROM calls WHERE state IN ('begun', 'unknown') ORDER BY id"
            ).fetchall()
        return [entry for entry in map(_entry, rows) if entry.id not in self._at_work]

    def resolve(self, id: int, *, took_effect: bool, result: str = "") -> None:  # noqa: A002 - the entry's own name
        """
        Say what became of an unsettled call, once a person has found out.

        If it took effect, the resumed run is answered with `result`; if not, it may make the call. Raises KeyError.
        """
        entry = next((each for each in self.unsettled() if each.id == id), None)
        if entry is None:
            raise KeyError(id)
        self.settle(entry, State.DONE if took_effect else State.FAILED, result if took_effect else None)

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            self._disconnect()

    # -- inside -------------------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction no other process or thread comes between; durable once it is left. Raises `JournalError`."""
        with self._lock:
            try:
                database = self._connected()
                database.execute("BEGIN IMMEDIATE")
                try:
                    yield database
                    database.execute("COMMIT")
                except BaseException:
                    if database.in_transaction:
                        database.execute("ROLLBACK")
                    raise
            except (sqlite3.Error, OSError) as error:
                self._disconnect()
                raise JournalError(str(self.path), str(error)) from error

    def _connected(self) -> sqlite3.Connection:
        """The connection, opened at first use, after a failure, and in a forked process."""
        if self._connection is None or self._process != os.getpid():
            if self._process != os.getpid():
                self._at_work = set()
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            os.chmod(self.path, 0o600)
            database = sqlite3.connect(self.path, self.timeout, isolation_level=None, check_same_thread=False)
            self._connection, self._process = database, os.getpid()
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            self._prepare(database)
        return self._connection

    def _prepare(self, database: sqlite3.Connection) -> None:
        database.execute("BEGIN IMMEDIATE")
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, _VERSION):
            raise sqlite3.DatabaseError(f"written by another version of misstep ({version}, this one reads {_VERSION})")
        for statement in _SCHEMA.split(";"):
            database.execute(statement)
        salt = database.execute("SELECT value FROM salt").fetchone()
        if salt is None:
            salt = (secrets.token_bytes(16),)
            database.execute("INSERT INTO salt VALUES (?)", salt)
        database.execute(f"PRAGMA user_version = {_VERSION}")
        database.execute("COMMIT")
        self._salt = salt[0]

    def _disconnect(self) -> None:
        if self._connection is not None and self._process == os.getpid():
            self._connection.close()
        self._connection = None

    def _digest(self, text: str) -> bytes:
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=self._salt, digest_size=16).digest()

    def _known(self, database: sqlite3.Connection, proposal: Proposal, gone: Callable[[Entry], bool]) -> Entry | None:
        rows = database.execute(
            f"SELECT {_FIELDS} FROM calls WHERE scope = ? AND tool = ? AND arguments = ? ORDER BY id",
            (self._digest(proposal.scope), proposal.tool, self._digest(proposal.arguments)),
        )
        return _matching([_entry(row) for row in rows], proposal, gone, self._at_work)

    def _claim(self, database: sqlite3.Connection, known: Entry, proposal: Proposal) -> Entry:
        """From now on the entry is that of this proposal."""
        ours = {"run": proposal.run, "batch": proposal.batch, "call": proposal.call, "state": _NEXT[known.state]}
        database.execute(
            "UPDATE calls SET run = :run, batch = :batch, call = :call, state = :state WHERE id = :id",
            {**ours, "id": known.id},
        )
        return replace(known, **ours)

    def _insert(self, database: sqlite3.Connection, proposal: Proposal) -> Entry:
        row = {
            "scope": self._digest(proposal.scope),
            "tool": proposal.tool,
            "arguments": self._digest(proposal.arguments),
            "run": proposal.run,
            "batch": proposal.batch,
            "call": proposal.call,
            "side_effect": proposal.side_effect,
            "state": State.BEGUN,
            "begun": time.time(),
        }
        names = ", ".join(row)
        marks = ", ".join(f":{name}" for name in row)
        return _entry(
            database.execute(f"INSERT INTO calls ({names}) VALUES ({marks}) RETURNING {_FIELDS}", row).fetchone()
        )

    def _sweep(self, database: sqlite3.Connection) -> None:
        """Once an hour, forget what is too old."""
        now = time.time()
        if now - self._swept < 3600.0:
            return
        self._swept = now
        oldest = now - self.age * 86_400
        unsettled = database.execute(
            "DELETE FROM calls WHERE begun < ? AND state IN ('begun', 'unknown')", (oldest,)
        ).rowcount
        database.execute("DELETE FROM calls WHERE begun < ?", (oldest,))
        if unsettled:
            log.warning("journal `%s`: forgot %d calls nobody ever settled, as too old", self.path, unsettled)


_FIELDS = "id, tool, call, run, batch, state, result, begun, ended"

_NEXT = {
    State.BEGUN: State.UNKNOWN,
    State.UNKNOWN: State.UNKNOWN,
    State.DONE: State.DONE,
    State.FAILED: State.BEGUN,
}
"""What a call that is met again becomes: one that failed may be made again, one that was begun is unknown."""

_OPEN = (State.BEGUN, State.UNKNOWN)


def _entry(row: tuple[Any, ...]) -> Entry:
    id_, tool, call, run, batch, state, result, begun, ended = row
    return Entry(id_, tool, call, run, batch, State(state), result, begun, bool(ended))


def _matching(
    entries: list[Entry], proposal: Proposal, gone: Callable[[Entry], bool], at_work: set[int]
) -> Entry | None:
    """
    The entry of this very call, among those of its conversation with the same tool and arguments, oldest first.

    It is known by its id. Where the reply that proposes it was heard in this run, an id may have been used before, so
    the reply must be the same too; and then it may be the second proposal of a call whose first was lost: one nobody
    knows the end of, or one that was done in a turn that did not end and that the conversation knows nothing of.
    """
    ours = (proposal.run, proposal.batch)
    for entry in reversed(entries):
        if entry.call == proposal.call and (proposal.batch is None or (entry.run, entry.batch) == ours):
            return entry
    if proposal.batch is None:
        return None
    for entry in entries:
        claimed = (entry.run, entry.batch) == ours
        if entry.state in _OPEN and not claimed and entry.id not in at_work:
            return entry
        if entry.state is State.DONE and not claimed and not entry.ended and gone(entry):
            return entry
    return None
