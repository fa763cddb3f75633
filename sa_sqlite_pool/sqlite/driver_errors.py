"""The errors of SQLite drivers, whichever module a connection comes from.

Most connections are the standard library's ``sqlite3.Connection``. ``pysqlite3``, ``sqlcipher3``
and ``sqlean`` have exception classes of their own, none of which derives from ``sqlite3.Error``. So
the classes are looked up when an error is caught: ``except dbapi.OperationalError``.
"""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from functools import cache
from typing import Any, Final, final

# https://www.sqlite.org/rescode.html. The messages are those of sqlite3ErrStr() in SQLite's main.c;
# for "table is locked", see sqlite3_unlock_notify() and sqlite3BtreeLockTable().
_CODES = {
    "database is locked": 5,
    # Followed by a name: another connection with the same cache holds the lock (OP_TableLock in
    # SQLite's vdbe.c, sqlite3Prepare() in its prepare.c).
    "table is locked: ": 262,
    "schema is locked: ": 262,
    "table is locked": 6,
    "schema is locked": 6,
    "readonly database": 8,
    "interrupted": 9,
    "disk I/O error": 10,
    "database or disk is full": 13,
}
_BUSY_OR_LOCKED: Final = frozenset({5, 6})  # 6 comes from a shared cache
_READ_ONLY: Final = 8
_INTERRUPTED: Final = 9
_LARGEST_PRIMARY: Final = 0xFF


@final
class DriverErrors:
    """The exception classes of PEP 249, as tuples for ``except`` and ``isinstance``.

    The tuples begin with the classes of ``sqlite3``; the classes of each other module are added
    when the package has opened a connection of that module.
    """

    __slots__ = ("DatabaseError", "Error", "IntegrityError", "OperationalError", "ProgrammingError")

    def __init__(self) -> None:
        self.Error: tuple[type[sqlite3.Error], ...] = (sqlite3.Error,)
        self.DatabaseError: tuple[type[sqlite3.DatabaseError], ...] = (sqlite3.DatabaseError,)
        self.IntegrityError: tuple[type[sqlite3.IntegrityError], ...] = (sqlite3.IntegrityError,)
        self.OperationalError: tuple[type[sqlite3.OperationalError], ...] = (
            sqlite3.OperationalError,
        )
        self.ProgrammingError: tuple[type[sqlite3.ProgrammingError], ...] = (
            sqlite3.ProgrammingError,
        )

    def failures(self, *others: type[Exception]) -> tuple[type[Exception], ...]:
        """Return the errors that may end a statement: SQLite's, MemoryError, and ``others``.

        MemoryError is Python's own class, and running out of memory makes SQLite roll back, even
        during a read (``sqlite3VdbeHalt()`` in its vdbeaux.c).
        """
        return (*self.Error, MemoryError, *others)

    def learn(self, source: object) -> None:
        """Add the exception classes of ``source``, a connection or a module.

        "All exception classes defined by the DB API standard should be exposed on the Connection
        objects as attributes" (PEP 249, optional extensions); if they are not, the module of the
        connection's class has them. A proxy has the class of the connection that it wraps.
        """
        kind = type(source)
        if kind in _learned:
            return
        if issubclass(kind, sqlite3.Connection):  # not a proxy: each may wrap another class
            _learned.add(kind)
        for family in self.__slots__:
            known = getattr(self, family)
            found = _class_of(source, family)
            if found is not None and not issubclass(found, known):
                setattr(self, family, (*known, found))


_learned: set[type] = set()


def _class_of(source: object, family: str) -> type[Exception] | None:
    module = sys.modules.get(getattr(source, "__class__", type(source)).__module__)
    for owner in (source, module):
        found = getattr(owner, family, None)
        if isinstance(found, type) and issubclass(found, Exception):
            return found
    return None


dbapi: Final = DriverErrors()
"""The exception classes in this process, read when an error is caught: ``except dbapi.Error``."""


def error_code(error: BaseException) -> int | None:
    """Return SQLite's result code; None if ``error`` is not SQLite's, or has no code.

    Python 3.10 and older forks of its module provide no code. For some errors, the code is then
    derived from SQLite's message, which does not distinguish the kinds of "busy".
    """
    if not isinstance(error, dbapi.Error):
        return None
    code: Any = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        return int(code)
    if not isinstance(error, dbapi.DatabaseError):
        return None
    message = str(error)
    return next((known for text, known in _CODES.items() if text in message), None)


def tells_code(error: BaseException) -> bool:
    """Return whether ``error`` has SQLite's extended code; some modules provide the primary one."""
    if getattr(error, "sqlite_errorcode", None) is None:
        return False
    return any(_tells_extended(kind.__module__) for kind in type(error).__mro__)


@cache
def _tells_extended(module: str) -> bool:
    """Return whether a driver module has switched on ``sqlite3_extended_result_codes()``."""
    driver = sys.modules.get(module)
    if not hasattr(driver, "connect"):
        return False
    # Avoid connect() if there is another way: a tracer may have replaced it, and would report the
    # failure here as an error of the application.
    connect: Any = getattr(driver, "Connection", None) or vars(driver)["connect"]
    with closing(connect(":memory:")) as connection:
        try:
            connection.execute("CREATE TABLE t (i NOT NULL)")
            connection.execute("INSERT INTO t VALUES (NULL)")
        except Exception as error:  # SQLITE_CONSTRAINT_NOTNULL, of any class
            return bool(getattr(error, "sqlite_errorcode", 0) > _LARGEST_PRIMARY)
    return False


def _primary(error: BaseException) -> int | None:
    code = error_code(error)
    return None if code is None else code & 0xFF


def is_busy(error: BaseException) -> bool:
    """Return whether another connection holds a lock that is needed: SQLITE_BUSY, SQLITE_LOCKED."""
    return _primary(error) in _BUSY_OR_LOCKED


def is_read_only(error: BaseException) -> bool:
    """Return whether the database cannot be written: SQLITE_READONLY."""
    return _primary(error) == _READ_ONLY


def is_interrupted(error: BaseException) -> bool:
    """Return whether the statement was stopped by ``interrupt()``: SQLITE_INTERRUPT."""
    return _primary(error) == _INTERRUPTED
