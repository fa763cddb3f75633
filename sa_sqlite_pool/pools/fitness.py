"""Decide whether a connection is fit for the next checkout."""

from __future__ import annotations

from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

from ..database_file import DatabaseFile
from ..execution.connection_thread import ConnectionThread
from ..settings import Role
from ..sqlite.read_only import should_write


def is_fit(worker: ConnectionThread, role: Role, file: DatabaseFile) -> bool:
    """Return whether a connection to ``file``, which has been rolled back, can do its work.

    It cannot if it is closed or spent, or if SQLite has opened it read-only although it should
    write. SQLite opens the index of the log once for all connections of a process to a file
    (``unixShmNode`` in its os_unix.c), and read-only for all of them, until the last is closed. So
    if one is read-only, connections at rest are closed, too.
    """
    if worker.closed or worker.spent:
        return False
    if not worker.suspect or role is Role.READER or (path := file.file) is None:
        return True
    if not in_greenlet():  # SQLite cannot be asked here
        return False
    worker.suspect = await_only(worker.run(lambda connection: should_write(connection, path)))
    if worker.suspect:
        for pool in list(file.pools):
            pool.close_at_rest()
    return not worker.suspect
