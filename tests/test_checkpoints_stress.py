"""Safe checkpoints, between processes; ``python -m tests.checkpoints`` runs longer."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sa_sqlite_pool import CheckpointOutcome, SQLiteDatabase
from sa_sqlite_pool.wal.reset_bug import has_reset_bug
from tests.cancellations.oracle import Fate
from tests.checkpoints.journal import Entry, Journal, read_journals
from tests.checkpoints.oracle import ADD_ONE, INSERT, create_tables, discrepancies, rows_of
from tests.checkpoints.run import run
from tests.checkpoints.window import why_not
from tests.checkpoints.without_protection import alone, lost_by, schedule, under_lock
from tests.helpers import turn_of, until_waiting

SECONDS = 3.0
PROCESSES = 3


def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    """The run raises if anything is lost, and did enough to be conclusive."""
    result = run(tmp_path, seconds=SECONDS, processes=PROCESSES, seed=1)
    print(result)  # noqa: T201 - for pytest -s
    assert result.resets > 1
    assert min(result.acknowledged, result.rolled_back) > 10
    assert result.killed + result.replaced > 0


# -- the oracle detects errors -------------------------------------------------------------------


def write(path: Path, *entries: Entry) -> None:
    """Commit these transactions."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for entry in entries:
            connection.executemany(INSERT, [row._asdict() for row in rows_of(entry)])
            connection.execute(ADD_ONE, {"counter": entry.counter})


def change(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(sql).rowcount > 0


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "p1.journal"


@pytest.fixture
def finished(path: Path, journal: Path) -> Path:
    """Provide a file that matches its journal, with one transaction of each fate."""
    create_tables(path)
    book = Journal(journal)
    acknowledged, cut_off, lost = (book.begin(parts=3, counter=n) for n in (5, 6, 7))
    doomed = book.begin_doomed(parts=2, counter=5)
    write(path, acknowledged, cut_off)
    book.acknowledge(acknowledged)
    book.close()
    tokens = [entry.token for entry in (acknowledged, cut_off, lost, doomed)]
    assert tokens == ["p1-1", "p1-2", "p1-3", "p1-4"]
    return path


def test_the_oracle_finds_nothing_where_nothing_is_wrong(finished: Path, journal: Path) -> None:
    entries = read_journals([journal])
    fates = [entry.fate for entry in entries]
    assert fates == [Fate.ACKNOWLEDGED, Fate.UNKNOWN, Fate.UNKNOWN, Fate.ROLLED_BACK]
    assert list(discrepancies(finished, entries)) == []


@pytest.mark.parametrize(
    ("sql", "complaint"),
    [
        pytest.param(
            "DELETE FROM entries WHERE token = 'p1-1' AND part = 1",
            "token p1-1: parts [0, 2] of 3 at counters [5], not all there at 5",
            id="an acknowledged row is lost",
        ),
        pytest.param(
            "DELETE FROM entries WHERE token = 'p1-1'",
            "token p1-1: parts [] of 3 at counters [], not all there at 5",
            id="an acknowledged transaction is lost",
        ),
        pytest.param(
            "DELETE FROM entries WHERE token = 'p1-2' AND part = 0",
            "token p1-2: parts [1, 2] of 3 at counters [6], not all or none at 6",
            id="half a transaction of unknown outcome is there",
        ),
        pytest.param(
            "INSERT INTO entries SELECT * FROM entries WHERE token = 'p1-1' AND part = 2",
            "token p1-1: parts [0, 1, 2, 2] of 3 at counters [5], not all there at 5",
            id="a row is there twice",
        ),
        pytest.param(
            "INSERT INTO entries VALUES ('p1-4', 0, 5, '')",
            "token p1-4: parts [0] of 2 at counters [5], not none there at 5",
            id="a row that was rolled back is there",
        ),
        pytest.param(
            "INSERT INTO entries VALUES ('p2-1', 0, 5, '')",
            "token p2-1 is in the file and nobody wrote it",
            id="a row of nobody is there",
        ),
        pytest.param(
            "UPDATE entries SET padding = 'p1-2' WHERE token = 'p1-1' AND part = 0",
            "token p1-1, part 0: its padding is not its own",
            id="a row has the content of another one",
        ),
        pytest.param(
            "UPDATE counters SET value = value + 1 WHERE id = 6",
            "counter 6 is 2 after 1 transactions",
            id="an addition is there twice",
        ),
        pytest.param(
            "UPDATE counters SET value = 0 WHERE id = 5",
            "counter 5 is 0 after 1 transactions",
            id="an addition is lost",
        ),
        pytest.param(
            "DELETE FROM counters WHERE id = 9",
            "counter 9 is None after 0 transactions",
            id="a counter is lost",
        ),
    ],
)
def test_the_oracle_names_what_is_wrong(
    finished: Path, journal: Path, sql: str, complaint: str
) -> None:
    change(finished, sql)
    assert complaint in list(discrepancies(finished, read_journals([journal])))


def test_the_oracle_sees_damage(finished: Path, journal: Path) -> None:
    """It notices an index that differs from its table, and a missing page."""
    with closing(sqlite3.connect(finished)) as connection, connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("DELETE FROM sqlite_master WHERE name = 'entries_token'")
    assert any("never used" in complaint for complaint in _complaints(finished, journal))
    content = finished.read_bytes()
    finished.write_bytes(content[:4096] + bytes(len(content) - 4096))
    assert "the file cannot be read" in _complaints(finished, journal)[-1]


def _complaints(path: Path, journal: Path) -> list[str]:
    return list(discrepancies(path, read_journals([journal])))


def test_a_journal_whose_last_line_is_torn(journal: Path) -> None:
    book = Journal(journal)
    entry = book.begin(parts=1, counter=0)
    book.acknowledge(entry)
    book.close()
    torn = journal.read_text()[:-1]
    journal.write_text(torn)
    assert read_journals([journal]) == [entry]


# -- the bug that safe checkpoints are for ---------------------------------------------------------

needs_window = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


@needs_window
def test_a_checkpoint_alone_loses_what_another_process_commits(tmp_path: Path) -> None:
    """Otherwise, the schedule of the next tests would prove nothing."""
    lost = lost_by(tmp_path, alone)
    assert bool(lost) == has_reset_bug(sqlite3.sqlite_version_info), lost


@needs_window
def test_a_checkpoint_under_another_connections_lock_loses_nothing(tmp_path: Path) -> None:
    assert lost_by(tmp_path, under_lock) == []


@needs_window
async def test_a_checkpoint_of_this_package_loses_nothing(tmp_path: Path) -> None:
    """With the same schedule, a checkpoint with open connections waits in line for the turn."""
    with schedule(tmp_path) as steps:
        async with SQLiteDatabase(steps.path) as db:
            async with db.writer_engine.connect():  # the turn
                checkpoint = asyncio.create_task(db.checkpoint())
                await until_waiting(1, turn_of(steps.path))
                steps.fill_log()
            done = await checkpoint
            assert done.outcome is CheckpointOutcome.MOVED_ALL
            assert steps.refused
            assert steps.lost() == []
