"""Copies of a database by SQLite's backup API: into a new file, or over another database.

``sqlite3_backup_step()`` copies some pages and returns. Python's ``Connection.backup()`` calls it
until it is done, without the interpreter lock, and calls ``progress`` after each step; an exception
of ``progress`` ends the backup, and nothing else does (``pysqlite_connection_backup_impl`` in
CPython's ``Modules/_sqlite/connection.c``): ``sqlite3_interrupt()`` has no effect on it, and it
waits for a lock without limit. So :func:`_copy` checks after each step.

"If the source database is modified by an external process or via a database connection other than
the one being used by the backup operation, then the backup will be automatically restarted"
(https://www.sqlite.org/c3ref/backup_finish.html). A step "closes" the read transaction only if it
has opened one itself (``bCloseTrans`` in SQLite's ``backup.c``). Within a read transaction that was
already open, all steps read the same state, and the backup does not restart:

    Copy                        | Writers, in WAL mode
    BEGIN; SELECT               |
    step: pages 1 … 256         | COMMIT
    step: pages 257 … 512       | COMMIT
    … the last: done            |
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from ..errors import DamagedDatabaseError, DatabaseInUseError, NotADatabaseError
from ..execution.connection_thread import ConnectionThread
from ..system.clock import time
from ..transactions.locks import may_pass
from .foreign_schemas import ALL_LINES, is_of_values, is_strange, quick_check

Step = Callable[[int, int], None]
"""A function called in the thread after each step: ``step(pages_copied, pages_total)``."""

_STEP_DONE = frozenset({0, 101})  # SQLITE_OK, SQLITE_DONE

# https://www.sqlite.org/fileformat2.html#file_format_version_numbers: "1 for rollback journalling
# modes and 2 for WAL", for writing and for reading.
_VERSIONS_AT = 18
_NO_WAL = b"\x01\x01"

_NAMED = 3  # how many lines a message quotes
_SYNC_BYTES = 8 * 1024 * 1024
_LONGEST_REST_SECONDS = 0.02


def begin_snapshot(connection: sqlite3.Connection) -> None:
    """Begin a read transaction on the present state; if a lock prevents it, leave none open."""
    connection.execute("BEGIN")
    try:
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def write_copy(
    source: sqlite3.Connection,
    path: str,
    pages: int,
    worker: ConnectionThread,
    step: Step,
    *,
    gently: bool = False,
) -> None:
    """Copy the database that ``source`` sees into the empty, self-contained file ``path``; sync it.

    Call this in ``worker``'s thread. With ``gently``, the copy pauses half of the time, so that
    other work can proceed. After an error, the file is unusable.
    """
    began = time.monotonic()

    def each_step(copied: int, total: int) -> None:
        nonlocal began
        _sync_some(copy)
        step(copied, total)
        if gently:
            time.sleep(min(time.monotonic() - began, _LONGEST_REST_SECONDS))
        began = time.monotonic()

    with open(path, "r+b", buffering=0) as copy:
        _fill(source, path, pages, worker, each_step)
        # Otherwise a connection that reads it creates a log beside it, or fails if it cannot.
        copy.seek(_VERSIONS_AT)
        copy.write(_NO_WAL)
        os.fsync(copy.fileno())


def _sync_some(copy: BinaryIO) -> None:
    """Sync every 8 MiB, so that the disk never has much to do at once and the copy ends soon."""
    size = os.fstat(copy.fileno()).st_size
    if size - copy.tell() >= _SYNC_BYTES:
        os.fsync(copy.fileno())
        copy.seek(size)  # the position is the size that has been synced


def _fill(
    source: sqlite3.Connection, path: str, pages: int, worker: ConnectionThread, step: Step
) -> None:
    # Not connect(): backup() requires the class itself, and a tracer returns a proxy.
    target = sqlite3.Connection(path, isolation_level=None, timeout=0)
    try:
        # Nothing is ever rolled back here, and the file is synced elsewhere.
        target.execute("PRAGMA journal_mode = OFF")
        target.execute("PRAGMA synchronous = OFF")
        _copy(source, target, pages, worker, step)
    finally:
        target.close()


def write_over(
    source: sqlite3.Connection,
    target: sqlite3.Connection,
    pages: int,
    worker: ConnectionThread,
    step: Step,
) -> None:
    """Overwrite ``target``, the only user of its file, with ``source``, in one transaction."""
    # "EXTRA … the directory containing a rollback journal is synced after that journal is
    # unlinked", which makes the end of the transaction durable.
    target.execute("PRAGMA synchronous = EXTRA")
    _copy(source, target, pages, worker, step)


def _copy(
    source: sqlite3.Connection,
    target: sqlite3.Connection,
    pages: int,
    worker: ConnectionThread,
    step: Step,
) -> None:
    """Call ``sqlite3_backup_step()`` until the copy is done, with a check after each call."""

    def progress(status: int, remaining: int, total: int) -> None:
        worker.between_steps()
        if status in _STEP_DONE:
            step(total - remaining, total)
        elif status & 0xFF in {5, 6}:  # SQLITE_BUSY, SQLITE_LOCKED: backup() would retry forever
            raise sqlite3.OperationalError("database is locked")

    source.backup(target, pages=pages, progress=progress, sleep=0)


def check_integrity(connection: sqlite3.Connection, name: str) -> None:
    """Raise if ``PRAGMA integrity_check`` finds that the database, called ``name``, is damaged.

    Values that the schema does not allow are not damage: a database is copied before their repair.
    If the check needs what only the application has, run as much of ``quick_check`` as possible.
    """
    try:
        found = _damages(_integrity(connection))
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        if "not a database" in str(error):
            raise NotADatabaseError(f"{name} is not an SQLite database ({error})") from error
        found = [str(error)]
    if found:
        raise DamagedDatabaseError(
            f"{name} is damaged; PRAGMA integrity_check reports: {'; '.join(found)}"
        )


def _damages(lines: Iterable[str]) -> list[str]:
    """Return the first lines that report damage."""
    return list(islice((line for line in lines if line != "ok" and not is_of_values(line)), _NAMED))


def _integrity(connection: sqlite3.Connection) -> Iterator[str]:
    try:
        for (line,) in connection.execute(f"PRAGMA integrity_check({ALL_LINES})"):
            yield line
    except sqlite3.OperationalError as error:
        if not is_strange(error):
            raise
        yield from quick_check(connection)


def check_not_locked(path: Path) -> None:
    """Raise if the file ``path`` is a database in use, or is not a database."""
    connection = sqlite3.Connection(f"{path.as_uri()}?mode=rw", uri=True, timeout=0)
    try:
        connection.isolation_level = None
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
        connection.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        if not may_pass(error, in_transaction=False):
            raise
        raise DatabaseInUseError(f"{path} is in use; close it, or choose another path") from error
    except sqlite3.DatabaseError as error:
        raise NotADatabaseError(
            f"{path} is not an SQLite database ({error}) and was not changed; choose another path, "
            "or remove that file"
        ) from error
    finally:
        connection.close()


def is_readable(connection: sqlite3.Connection) -> bool:
    """Return whether SQLite can read the file as a database."""
    try:
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        return False
    return True


def take_alone(connection: sqlite3.Connection) -> str:
    """Lock the database for ``connection`` alone until that is closed.

    The log is moved into the database and removed. Return the previous journal mode. Raise
    "database is locked" while another connection of any process uses the database.
    """
    connection.execute("PRAGMA busy_timeout = 0")
    # Locks are kept from now on: https://www.sqlite.org/pragma.html#pragma_locking_mode
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    before = _journal_mode(connection)
    set_journal_mode(connection, "DELETE")
    connection.execute("BEGIN EXCLUSIVE")
    connection.execute("COMMIT")
    return before


def set_journal_mode(connection: sqlite3.Connection, mode: str) -> None:
    _journal_mode(connection, f" = {mode}")


def _journal_mode(connection: sqlite3.Connection, change: str = "") -> str:
    return str(connection.execute(f"PRAGMA journal_mode{change}").fetchone()[0]).lower()
