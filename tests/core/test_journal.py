"""The journal: which call is which after a kill, what is durable, what is kept from strangers, and what it forgets."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from misstep.errors import JournalError
from misstep.journal import Entry, Journal, Name, Proposal, State
from misstep.side_effects import SideEffect

PAY = Proposal("thread:t", Name("r1", "m1", "c1"), "pay", '{"to": "bob"}', SideEffect.IRREVERSIBLE)
"""A payment as a reply of this run proposes it."""


def like(run: str = "r1", batch: str | None = "m1", call: str = "c1", **fields: str) -> Proposal:
    """The same payment under another name, or another call."""
    return dataclasses.replace(PAY, name=Name(run, batch, call), **fields)  # type: ignore[arg-type]


def resumed(batch: str | None = None, **fields: str) -> Proposal:
    """The same payment as a later run meets it: from a checkpoint, unless a reply (`batch`) of that run proposes it."""
    return like(**{"run": "r2", "batch": batch, **fields})  # type: ignore[arg-type]


def nothing_gone(entry: Entry) -> bool:
    """The conversation knows of every call."""
    return False


def all_gone(entry: Entry) -> bool:
    """The conversation knows of no call of the earlier run."""
    return all(name.run == PAY.name.run for name in entry.names)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """A journal of a test's own."""
    return Journal(tmp_path / "misstep.db")


def later(journal: Journal) -> Journal:
    """Another process's view of the file."""
    return Journal(journal.path)


def done(journal: Journal, proposal: Proposal = PAY, result: str = "paid") -> Entry:
    """A call that was made."""
    entry = journal.begin(proposal, nothing_gone)
    assert entry.state is State.BEGUN
    journal.settle(entry, State.DONE, result)
    return entry


# -- which call is which ----------------------------------------------------------------------------------------------


def test_a_call_is_begun_once_and_answered_after(journal: Journal) -> None:
    """A call met again by its id, in the run that made it or in one that resumes it, is answered with its result."""
    done(journal)
    for proposal in (PAY, resumed()):
        met = later(journal).begin(proposal, nothing_gone)
        assert (met.state, met.result) == (State.DONE, "paid")


def test_a_call_that_was_begun_is_unknown_to_others(journal: Journal) -> None:
    """A call that was never settled is unknown to whoever meets it, again and again, until somebody settles it."""
    journal.begin(PAY, nothing_gone)
    for _ in range(2):
        entry = later(journal).begin(resumed(), nothing_gone)
        assert entry.state is State.UNKNOWN
    other = later(journal)
    again = other.again(entry)
    assert again.state is State.BEGUN
    other.settle(again, State.DONE, "paid at last")
    assert later(journal).begin(resumed(), nothing_gone).result == "paid at last"


def test_a_call_that_failed_may_be_made_again(journal: Journal) -> None:
    """A failed call is begun anew, and its new end counts."""
    journal.settle(journal.begin(PAY, nothing_gone), State.FAILED)
    done(later(journal), resumed())
    assert later(journal).begin(resumed(), nothing_gone).state is State.DONE


def test_a_call_that_was_not_made_leaves_no_trace(journal: Journal) -> None:
    """A call whose framework paused in the middle of it is begun anew when it comes again."""
    journal.drop(journal.begin(PAY, nothing_gone))
    assert later(journal).begin(resumed(), nothing_gone).state is State.BEGUN


ANOTHER: list[tuple[str, Proposal, Callable[[Entry], bool]]] = [
    ("another conversation", resumed(scope="thread:u"), all_gone),
    ("another tool", resumed(tool="refund"), all_gone),
    ("other arguments", resumed(arguments='{"to": "eve"}'), all_gone),
    ("another call of a checkpoint", resumed(call="c2"), all_gone),
    ("asked for again, and both are known", resumed(call="c2", batch="m9"), nothing_gone),
    ("another call of the same reply", like(call="c2"), all_gone),
    ("the same id in another reply", like(batch="m2"), nothing_gone),
]


@pytest.mark.parametrize(("_", "proposal", "gone"), ANOTHER, ids=[row[0] for row in ANOTHER])
def test_another_call_is_another_call(
    journal: Journal, _: str, proposal: Proposal, gone: Callable[[Entry], bool]
) -> None:
    """What was done does not answer for a call that only looks like it."""
    done(journal)
    assert later(journal).begin(proposal, gone).state is State.BEGUN


def test_a_proposal_whose_reply_was_lost_is_known_again(journal: Journal) -> None:
    """
    A call that was done, and of which the resumed conversation knows nothing, answers for the same call under a new
    id; each such call answers once.
    """
    done(journal)
    done(journal, like(batch="m3", call="c3"), "paid twice")
    other = later(journal)
    met = [other.begin(resumed(batch=f"m{n}", call=f"n{n}"), all_gone) for n in range(3)]
    assert [each.result for each in met] == ["paid", "paid twice", None]
    assert met[2].state is State.BEGUN


def test_a_call_keeps_every_name_it_was_proposed_by(journal: Journal) -> None:
    """A call that was done and is proposed anew, twice and lost both times, is known by whichever id it comes."""
    done(journal)
    later(journal).propose([resumed(batch="m2", call="c2")], all_gone)
    later(journal).propose([like("r3", "m3", "c3")], lambda entry: True)
    for call in ("c1", "c2", "c3"):
        assert later(journal).begin(like("r4", None, call), nothing_gone).result == "paid"


def test_a_second_call_is_told_apart_before_it_is_begun(journal: Journal) -> None:
    """What a reply proposed as a second call is one, even if the run that makes it knows nothing of the first."""
    done(journal)
    journal.propose([like(batch="m2", call="c2")], nothing_gone)
    assert later(journal).begin(resumed(call="c2"), all_gone).state is State.BEGUN
    assert later(journal).begin(resumed(), all_gone).state is State.DONE


def test_what_was_only_proposed_answers_for_nothing(journal: Journal) -> None:
    """A proposal that was lost before it was begun says nothing of the same call under another id."""
    journal.propose([PAY], nothing_gone)
    assert journal.unsettled() == []
    assert later(journal).begin(resumed(batch="m2", call="c2"), all_gone).state is State.BEGUN


def test_a_turn_that_ended_answers_for_nothing_new(journal: Journal) -> None:
    """Once a turn has come to its end, the same call under a new id is a new one; under its own id it is known."""
    done(journal)
    journal.end("thread:t")
    assert later(journal).begin(resumed(batch="m9", call="c9"), all_gone).state is State.BEGUN
    assert later(journal).begin(resumed(), all_gone).state is State.DONE


def test_an_unknown_call_speaks_for_its_like(journal: Journal) -> None:
    """As long as nobody knows what became of a call, the same call under another id is unknown too, ended or not."""
    journal.begin(PAY, nothing_gone)
    journal.end("thread:t")
    assert later(journal).begin(resumed(batch="m9", call="c9"), nothing_gone).state is State.UNKNOWN


def test_calls_at_work_are_not_unknown(journal: Journal) -> None:
    """While this process makes a call, the same call of another reply is a call of its own; of its own id it is not."""
    journal.begin(PAY, nothing_gone)
    assert journal.begin(like(batch="m2", call="c2"), nothing_gone).state is State.BEGUN
    assert journal.begin(PAY, nothing_gone).state is State.UNKNOWN


# -- people -----------------------------------------------------------------------------------------------------------


def test_a_person_can_say_what_became_of_a_call(journal: Journal) -> None:
    """What nobody settled is listed, and somebody who has found out can say so, either way."""
    journal.begin(PAY, nothing_gone)
    journal.begin(dataclasses.replace(PAY, tool="send"), nothing_gone)
    done(journal, dataclasses.replace(PAY, tool="book"))
    assert journal.unsettled() == []
    other = later(journal)
    paid, sent = other.unsettled()
    assert (paid.tool, sent.tool) == ("pay", "send")
    other.resolve(paid.id, took_effect=True, result="receipt 7")
    other.resolve(sent.id, took_effect=False)
    assert other.begin(resumed(), nothing_gone).result == "receipt 7"
    assert other.begin(resumed(tool="send"), nothing_gone).state is State.BEGUN
    with pytest.raises(KeyError):
        other.resolve(paid.id, took_effect=True)


# -- what is durable, and private -------------------------------------------------------------------------------------


def test_the_file_is_private_and_synced(journal: Journal) -> None:
    """The file and its log can be read by their owner alone, also one that was open to all, and writes are synced."""
    journal.begin(PAY, nothing_gone)
    for name in ("misstep.db", "misstep.db-wal"):
        assert stat.S_IMODE(os.stat(journal.path.with_name(name)).st_mode) == 0o600
    with journal._transaction() as database:
        assert database.execute("PRAGMA synchronous").fetchone() == (2,)
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    journal.close()
    os.chmod(journal.path, 0o644)
    later(journal)
    assert stat.S_IMODE(os.stat(journal.path).st_mode) == 0o600


def test_no_secret_and_no_argument_is_in_the_file(journal: Journal) -> None:
    """Arguments and conversations are digests in the file, which differ from file to file; secrets are pseudonyms."""
    secret = "sk-" + "a1" * 20
    proposal = dataclasses.replace(
        PAY, scope="thread:ada@example.org", arguments=f'{{"card": "4111", "key": "{secret}"}}'
    )
    done(journal, proposal, f"paid with {secret}")
    journal.close()
    held = b"".join(file.read_bytes() for file in journal.path.parent.iterdir())
    for word in (b"4111", b"ada@example.org", secret.encode()):
        assert word not in held
    assert b"<secret:model_key:" in held
    other = Journal(journal.path.with_name("other.db"))
    done(other, proposal)

    def digests(each: Journal) -> set[bytes]:
        with each._transaction() as database:
            return set(database.execute("SELECT scope, arguments FROM calls").fetchone())

    assert not digests(journal) & digests(other)


def test_a_long_result_is_shortened(journal: Journal) -> None:
    """A result of any length is kept with its head and its tail."""
    done(journal, result="a" * 300_000 + "z")
    result = later(journal).begin(resumed(), nothing_gone).result or ""
    assert len(result) < 101_000
    assert result[0] + result[-1] == "az"


def test_what_is_too_old_is_forgotten(journal: Journal, caplog: pytest.LogCaptureFixture) -> None:
    """Entries older than `age` days are gone when the file is used again, and unsettled ones are not lost silently."""
    done(journal)
    journal.begin(dataclasses.replace(PAY, tool="send"), nothing_gone)
    with journal._transaction() as database:
        database.execute("UPDATE calls SET begun = ?", (time.time() - 31 * 86_400,))
    young = Journal(journal.path, age=32)
    assert young.begin(resumed(), nothing_gone).state is State.DONE
    assert later(journal).begin(resumed(), nothing_gone).state is State.BEGUN
    assert "forgot 1 calls nobody ever settled" in caplog.text


# -- many at once -----------------------------------------------------------------------------------------------------


def test_threads_begin_a_call_once(journal: Journal) -> None:
    """Of many threads that meet the same call at the same time, one makes it."""
    states: list[State] = []
    barrier = threading.Barrier(8)

    def meet() -> None:
        barrier.wait()
        states.append(journal.begin(resumed(), nothing_gone).state)

    threads = [threading.Thread(target=meet) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(states) == [State.BEGUN] + [State.UNKNOWN] * 7


def _meet(path: str, gate: int) -> int:
    journal = Journal(path)
    while not os.path.exists(f"{path}.go"):
        time.sleep(0.001)
    begun = 0
    for number in range(20):
        proposal = resumed(call=f"c{number}")
        begun += journal.begin(proposal, nothing_gone).state is State.BEGUN
    return begun


def test_processes_begin_a_call_once(journal: Journal) -> None:
    """Of several processes that meet the same calls at the same time, one makes each."""
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        met = pool.starmap_async(_meet, [(str(journal.path), n) for n in range(3)])
        Path(f"{journal.path}.go").touch()
        assert sum(met.get(timeout=50)) == 20


def test_a_forked_process_opens_the_file_itself(journal: Journal) -> None:
    """A child of a process that holds the journal open goes on with a connection of its own."""
    journal.begin(PAY, nothing_gone)
    child = os.fork()
    if child == 0:
        entry = journal.begin(PAY, nothing_gone)
        os._exit(0 if entry.state is State.UNKNOWN else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert [entry.tool for entry in later(journal).unsettled()] == ["pay"]


# -- when it is down --------------------------------------------------------------------------------------------------


def test_what_is_no_journal_is_refused(tmp_path: Path) -> None:
    """A file of something else, of a later version or in no folder is an error that says so where it is opened."""
    other = tmp_path / "other.db"
    other.write_text("this is no database, and long enough to be seen as none" * 20)
    with pytest.raises(JournalError, match="not a database"):
        Journal(other)
    with pytest.raises(JournalError, match=r"missing/misstep\.db"):
        Journal(tmp_path / "missing" / "misstep.db")
    newer = tmp_path / "newer.db"
    sqlite3.connect(newer).execute("PRAGMA user_version = 99")
    with pytest.raises(JournalError, match="another version of misstep"):
        Journal(newer)


def test_a_journal_that_was_down_is_used_again(journal: Journal) -> None:
    """While another process holds the file too long every use raises; after that it works again."""
    journal.timeout = 0.05
    journal.close()
    holder = sqlite3.connect(journal.path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(JournalError, match="locked"):
        journal.begin(PAY, nothing_gone)
    holder.execute("ROLLBACK")
    assert journal.begin(PAY, nothing_gone).state is State.BEGUN
