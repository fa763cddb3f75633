"""SQLite's "WAL-reset bug", step by step, and the protection against it.

    Checkpointing process          | Another process
    -------------------------------+-------------------------------------------------
                                   | writes N pages into the log
                                   | PASSIVE: all N are in the database
    PASSIVE                        |
    reads: the log has N pages     |
                                   | writes, and so restarts the log, with n < N
    reads: none is in the database |
    notes: N are in the database   |
                                   | writes up to N: these pages are ignored

Later acknowledged commits are visible to no other connection, are never moved into the database,
and the database is often damaged: https://www.sqlite.org/wal.html#walresetbug. If a second
connection holds the write lock meanwhile, the other process cannot write before the checkpoint has
ended. ``python -m tests.checkpoints.without_protection`` runs both cases.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import typer

from .journal import Journal, read_journals
from .oracle import ADD_ONE, COUNTERS, INSERT, create_tables, discrepancies, rows_of
from .outsider import Outsider
from .window import Window, why_not

PASSIVE = "PRAGMA wal_checkpoint(PASSIVE)"
_BEFORE, _AFTER = 30, 5  # transactions: the later ones fit into the space of the earlier ones


class Schedule:
    """One file, another process that writes to it, and the moment at which it does so."""

    def __init__(self, path: Path, outsider: Outsider, journal: Journal) -> None:
        self.path = path
        self.happened = self.refused = False
        self._outsider = outsider
        self._journal = journal
        self.window = Window(self.path, self._write_in_window)

    def fill_log(self) -> None:
        """Let the other process write, and move everything; the checkpoint follows."""
        for _ in range(_BEFORE):
            self._write()
        self.move_all()

    def move_all(self) -> None:
        ((busy, frames, moved),) = self._outsider.execute(PASSIVE)
        assert (busy, frames) == (0, moved), "somebody is in the way"

    def _write(self) -> None:
        """Run one transaction."""
        self._outsider.execute("BEGIN IMMEDIATE")
        entry = self._journal.begin(parts=2, counter=COUNTERS - 1)
        for row in rows_of(entry):
            self._outsider.execute(INSERT, row._asdict())
        self._outsider.execute(ADD_ONE, {"counter": entry.counter})
        self._outsider.execute("COMMIT")
        self._journal.acknowledge(entry)

    def _write_in_window(self) -> None:
        self.happened = True
        try:
            self._write()
        except sqlite3.OperationalError as error:
            if str(error) != "database is locked":
                raise
            self.refused = True

    def lost(self) -> list[str]:
        """Return the errors in the file after the other process has continued to write."""
        assert self.happened, "the checkpoint did not come where it can lose anything"
        for _ in range(_AFTER):
            self._write()
        return list(discrepancies(self.path, read_journals([self._journal.path])))


@contextmanager
def schedule(directory: Path) -> Iterator[Schedule]:
    """``with schedule(directory) as steps``: connect, ``fill_log()``, checkpoint, ``lost()``."""
    path = directory / "schedule.db"
    create_tables(path)
    journal = Journal(directory / "outsider.journal")
    with closing(journal), Outsider(path) as outsider:
        outsider.execute("PRAGMA wal_autocheckpoint = 0")
        steps = Schedule(path, outsider, journal)
        with steps.window:
            yield steps


Checkpoint = Callable[[sqlite3.Connection, sqlite3.Connection], object]


def alone(checkpointer: sqlite3.Connection, _: sqlite3.Connection) -> None:
    checkpointer.execute(PASSIVE).fetchone()


def under_lock(checkpointer: sqlite3.Connection, lock: sqlite3.Connection) -> None:
    """Run the checkpoint under the write lock, as this package does."""
    lock.execute("BEGIN IMMEDIATE")
    alone(checkpointer, lock)
    lock.execute("ROLLBACK")


def lost_by(directory: Path, checkpoint: Checkpoint) -> list[str]:
    """Return what plain ``sqlite3`` loses with that checkpoint."""
    with schedule(directory) as steps, _connected(steps.path) as a, _connected(steps.path) as b:
        steps.fill_log()
        checkpoint(a, b)
        return steps.lost()


@contextmanager
def _connected(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
        yield connection


def main() -> None:
    """Run a checkpoint that loses commits, and the same one under a lock."""
    if reason := why_not():
        typer.echo(reason)
        raise typer.Exit(2)
    typer.echo(f"SQLite {sqlite3.sqlite_version}")
    for checkpoint in (alone, under_lock):
        with TemporaryDirectory(prefix="checkpoints-") as directory:
            lost = lost_by(Path(directory), checkpoint)
        typer.echo(f"{checkpoint.__name__}: {len(lost)} wrong" + "".join(f"\n  {x}" for x in lost))


if __name__ == "__main__":
    typer.run(main)
