"""
The journal: which calls with a lasting effect were begun and what became of them, durable across a kill.

A call is written down when it is proposed, before it is made, and after, so that a run that is resumed, by whichever
process, answers what was done from the record and does not do it again. Exactly once does not exist: a kill between an
effect and its record leaves it unknown, and then only a person can say.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeAlias

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
    scope BLOB NOT NULL, tool TEXT NOT NULL, arguments BLOB NOT NULL, side_effect TEXT NOT NULL,
    state TEXT NOT NULL, result TEXT, begun REAL NOT NULL, ended INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS names (
    entry INTEGER NOT NULL REFERENCES calls ON DELETE CASCADE, run TEXT NOT NULL, batch TEXT, call TEXT NOT NULL,
    UNIQUE (entry, run, batch, call)
);
CREATE INDEX IF NOT EXISTS same ON calls (scope, tool, arguments);
CREATE INDEX IF NOT EXISTS age ON calls (begun);
CREATE TABLE IF NOT EXISTS salt (value BLOB NOT NULL);
"""


class State(StrEnum):
    """What is known of a call: it was proposed, begun, done, or failed; or nobody knows whether it took effect."""

    PROPOSED = "proposed"
    BEGUN = "begun"
    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Name:
    """
    What a call is called: its id, and the run and reply (`batch`) that proposed it.

    `batch` is None where the reply was not heard in that run: then the id comes from a checkpoint, and says by itself
    which call it is.
    """

    run: str
    batch: str | None
    call: str


@dataclass(frozen=True, slots=True)
class Proposal:
    """A call that may be made. `scope` is the conversation it belongs to, or its run where there is none."""

    scope: str
    name: Name
    tool: str
    arguments: str
    side_effect: SideEffect


@dataclass(frozen=True, slots=True)
class Entry:
    """
    One call in the journal, under every name it was proposed by.

    `result` is what the tool answered, with secrets as pseudonyms, once it is done; None where that cannot be given
    back.
    """

    id: int
    tool: str
    state: State
    result: str | None
    begun: float
    """Seconds since the epoch."""
    ended: bool
    """Whether the turn it was made in came to its end."""
    names: tuple[Name, ...]

    def claimed(self, name: Name) -> bool:
        """Whether a call of the same reply has this name already."""
        return any((each.run, each.batch) == (name.run, name.batch) for each in self.names)


Gone: TypeAlias = Callable[[Entry], bool]
"""Whether the conversation knows nothing of a call any more, by any of its names."""


class Journal:
    """
    Calls with a lasting effect in an SQLite file (`Journal("misstep.db")`), for any number of threads and processes.

    A call is written down when a reply proposes it, before it is made, and after. Every write is on the disk before it
    returns (WAL, `synchronous=FULL`). The file is readable by its owner alone; conversations and arguments are in it as
    salted digests only, results with their secrets as pseudonyms and at most 100,000 characters long. What is older
    than `age` days is forgotten, also what is unknown. A process waits for another at most `timeout` seconds. One
    application, one file: conversations are told apart by their id alone.

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

    def propose(self, proposals: Sequence[Proposal], gone: Gone) -> None:
        """
        Write down what a reply proposes, before anybody can remember the reply.

        A call that was made, but whose reply was lost, so gets the name under which it will come again: one that was
        done and that the conversation knows nothing of, or one whose end nobody knows.
        """
        with self._transaction() as database:
            self._sweep(database)
            for proposal in proposals:
                known = self._find(database, proposal, gone)
                if known is None:
                    self._insert(database, proposal, State.PROPOSED)
                else:
                    self._name(database, known, proposal)

    def begin(self, proposal: Proposal, gone: Gone) -> Entry:
        """
        Write down that a call is about to be made, unless it was made before.

        The entry's state says what to do: make the call (`begun`), pass on its result (`done`), ask a person
        (`unknown`).
        """
        with self._transaction() as database:
            self._sweep(database)
            known = self._find(database, proposal, gone)
            if known is None:
                entry = self._insert(database, proposal, State.BEGUN)
            else:
                entry = replace(known, state=_NEXT[known.state])
                self._name(database, known, proposal)
                database.execute("UPDATE calls SET state = ? WHERE id = ?", (entry.state, entry.id))
        if entry.state is State.BEGUN:
            self._at_work.add(entry.id)
        return entry

    def answer(self, proposal: Proposal, gone: Gone) -> Entry | None:
        """The entry of a call that was done before; None where it was not."""
        with self._transaction() as database:
            known = self._find(database, proposal, gone)
            if known is None or known.state is not State.DONE:
                return None
            self._name(database, known, proposal)
            return known

    def again(self, entry: Entry) -> Entry:
        """A person has approved: a call nobody knows of is about to be made once more."""
        with self._transaction() as database:
            database.execute("UPDATE calls SET state = ? WHERE id = ?", (State.BEGUN, entry.id))
        self._at_work.add(entry.id)
        return replace(entry, state=State.BEGUN)

    def settle(self, entry: Entry, state: State, result: str | None = None) -> None:
        """Write down what became of a call."""
        kept = shortened(redacted(result), _LONGEST) if result is not None else None
        try:
            with self._transaction() as database:
                database.execute("UPDATE calls SET state = ?, result = ? WHERE id = ?", (state, kept, entry.id))
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
            entries = self._select(database, "state IN ('begun', 'unknown')", ())
        return [entry for entry in entries if entry.id not in self._at_work]

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
            database.execute("PRAGMA foreign_keys = ON")
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

    def _find(self, database: sqlite3.Connection, proposal: Proposal, gone: Gone) -> Entry | None:
        key = (self._digest(proposal.scope), proposal.tool, self._digest(proposal.arguments))
        entries = self._select(database, "scope = ? AND tool = ? AND arguments = ?", key)
        return _matching(entries, proposal.name, gone, self._at_work)

    def _select(self, database: sqlite3.Connection, where: str, values: Sequence[Any]) -> list[Entry]:
        rows = database.execute(f"SELECT {_FIELDS} FROM calls WHERE {where} ORDER BY id", values).fetchall()
        names = "SELECT run, batch, call FROM names WHERE entry = ? ORDER BY rowid"
        return [_entry(row, database.execute(names, row[:1]).fetchall()) for row in rows]

    def _name(self, database: sqlite3.Connection, entry: Entry, proposal: Proposal) -> None:
        name = proposal.name
        if name not in entry.names:
            database.execute("INSERT INTO names VALUES (?, ?, ?, ?)", (entry.id, name.run, name.batch, name.call))

    def _insert(self, database: sqlite3.Connection, proposal: Proposal, state: State) -> Entry:
        row = {
            "scope": self._digest(proposal.scope),
            "tool": proposal.tool,
            "arguments": self._digest(proposal.arguments),
            "side_effect": proposal.side_effect,
            "state": state,
            "begun": time.time(),
        }
        made = database.execute(
            f"INSERT INTO calls ({', '.join(row)}) VALUES ({', '.join(f':{name}' for name in row)}) "
            f"RETURNING {_FIELDS}",
            row,
        ).fetchone()
        entry = _entry(made, [])
        self._name(database, entry, proposal)
        return entry

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


_FIELDS = "id, tool, state, result, begun, ended"

_NEXT = {
    State.PROPOSED: State.BEGUN,
    State.BEGUN: State.UNKNOWN,
    State.UNKNOWN: State.UNKNOWN,
    State.DONE: State.DONE,
    State.FAILED: State.BEGUN,
}
"""What a call becomes that is about to be made: one that failed may be made again, one that was begun is unknown."""

_OPEN = (State.BEGUN, State.UNKNOWN)


def _entry(row: tuple[Any, ...], names: Sequence[tuple[Any, ...]]) -> Entry:
    id_, tool, state, result, begun, ended = row
    return Entry(id_, tool, State(state), result, begun, bool(ended), tuple(Name(*name) for name in names))


def _matching(entries: Sequence[Entry], name: Name, gone: Gone, at_work: Collection[int]) -> Entry | None:
    """
    The entry of this very call, among those of its conversation with the same tool and arguments, oldest first.

    It is known by its name; one from a checkpoint by its id alone, since ids are used again at most in later replies.
    Else it may be the second proposal of a call whose first was lost: of one nobody knows the end of, or one that was
    done in a turn that did not end and that the conversation knows nothing of.
    """
    for entry in reversed(entries):
        if any(each == name or (name.batch is None and each.call == name.call) for each in entry.names):
            return entry
    if name.batch is None:
        return None
    for entry in entries:
        unsettled = entry.state in _OPEN and entry.id not in at_work
        lost = entry.state is State.DONE and not entry.ended and gone(entry)
        if (unsettled or lost) and not entry.claimed(name):
            return entry
    return None
