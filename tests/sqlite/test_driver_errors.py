"""Errors of SQLite are recognized from any module, and no other error is taken for one."""

from __future__ import annotations

import sqlite3
import sys
import types
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import exc

from sa_sqlite_pool.sqlite.driver_errors import (
    DriverErrors,
    dbapi,
    error_code,
    is_busy,
    is_interrupted,
    is_read_only,
    tells_code,
)
from sa_sqlite_pool.transactions.locks import may_pass

MODULES = ["sqlite3", "pysqlite3", "sqlcipher3", "sqlean"]


@pytest.fixture(params=MODULES)
def module(request: pytest.FixtureRequest) -> types.ModuleType:
    """Return a module with SQLite's API; any but the first may be missing."""
    found: types.ModuleType = pytest.importorskip(request.param)
    return found


def raised(call: Any, *arguments: Any) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - of whichever module
        call(*arguments)
    assert isinstance(caught.value, Exception)
    return caught.value


def fork_of(name: str) -> types.ModuleType:
    """Return a module whose errors do not derive from those of ``sqlite3``, and have no code."""
    error = type("Error", (Exception,), {"__module__": name})
    database = type("DatabaseError", (error,), {"__module__": name})
    module = types.ModuleType(name)
    families = {"Error": error, "DatabaseError": database}
    for family in ("OperationalError", "IntegrityError", "ProgrammingError"):
        families[family] = type(family, (database,), {"__module__": name})
    vars(module).update(families)
    return module


def test_families_of_every_module(module: types.ModuleType, path: Path) -> None:
    """An error that a module raises is caught by the family to which it belongs."""
    connection = module.connect(str(path))
    dbapi.learn(connection)
    connection.execute("CREATE TABLE t (i INTEGER PRIMARY KEY)")
    connection.execute("INSERT INTO t VALUES (1)")
    assert isinstance(raised(connection.execute, "SELECT"), dbapi.OperationalError)
    twice = raised(connection.execute, "INSERT INTO t VALUES (1)")
    assert isinstance(twice, dbapi.IntegrityError)
    assert not isinstance(twice, dbapi.OperationalError)
    connection.close()
    closed = raised(connection.execute, "SELECT 1")
    assert isinstance(closed, dbapi.ProgrammingError)
    assert isinstance(closed, dbapi.Error)


def test_a_snapshot_that_is_too_old_in_every_module(module: types.ModuleType, path: Path) -> None:
    """Such an error is not temporary; if it cannot be told from a lock, no lock is waited for."""
    first = module.connect(str(path), isolation_level=None, timeout=0)
    dbapi.learn(first)
    first.execute("PRAGMA journal_mode = WAL")
    first.execute("CREATE TABLE t (x)")
    first.execute("BEGIN")
    first.execute("SELECT * FROM t").fetchall()
    second = module.connect(str(path), isolation_level=None, timeout=0)
    second.execute("INSERT INTO t VALUES (1)")
    too_old = raised(first.execute, "INSERT INTO t VALUES (2)")
    assert is_busy(too_old)
    assert not may_pass(too_old, in_transaction=True)
    first.execute("ROLLBACK")
    second.execute("BEGIN IMMEDIATE")
    busy = raised(first.execute, "INSERT INTO t VALUES (2)")
    assert may_pass(busy, in_transaction=False)
    assert may_pass(busy, in_transaction=True) is (error_code(too_old) == 517)
    first.close()
    second.close()


def test_codes_of_every_module(module: types.ModuleType, path: Path) -> None:
    """A lock, a read-only file, an interrupt and a full disk are distinguished."""
    first = module.connect(str(path), isolation_level=None)
    dbapi.learn(first)
    first.execute("CREATE TABLE t (x)")
    first.execute("BEGIN IMMEDIATE")
    second = module.connect(str(path), isolation_level=None, timeout=0)
    busy = raised(second.execute, "BEGIN IMMEDIATE")
    assert is_busy(busy)
    assert error_code(busy) == 5
    first.execute("ROLLBACK")
    second.execute("PRAGMA query_only = ON")
    assert is_read_only(raised(second.execute, "INSERT INTO t VALUES (1)"))
    first.set_progress_handler(lambda: 1, 1)
    interrupted = raised(lambda: first.execute("SELECT count(*) FROM t").fetchall())
    assert is_interrupted(interrupted)
    assert not is_busy(interrupted)
    first.close()
    second.close()


def test_errors_of_proxies_are_those_of_the_module(path: Path) -> None:
    """A proxy of a connection provides the error classes of the connection's module."""
    fork = fork_of("fork_behind_a_proxy")
    connection = types.SimpleNamespace(**vars(fork))
    errors = DriverErrors()
    errors.learn(connection)
    errors.learn(connection)
    error: Any = vars(fork)["OperationalError"]("database is locked")
    assert isinstance(error, errors.OperationalError)
    assert errors.OperationalError == (sqlite3.OperationalError, type(error))


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("database is locked", 5),
        ("database table is locked", 6),
        ("database table is locked: t", 262),
        ("database schema is locked: main", 262),
        ("attempt to write a readonly database", 8),
        ("interrupted", 9),
        ("disk I/O error", 10),
        ("database or disk is full", 13),
        ('near "SELEC": syntax error', None),
    ],
)
def test_code_from_the_message(message: str, code: int | None) -> None:
    """If the error has no code, as on Python 3.10, it is derived from the message."""
    error = sqlite3.OperationalError(message)
    assert error_code(error) == code
    assert not tells_code(error)
    assert is_busy(error) == (code in {5, 6, 262})


def test_a_tracer_does_not_see_the_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """The statement that finds out whether codes are extended does not use a traced module."""

    def traced(*args: Any) -> None:
        raise AssertionError("a tracer would show this connection")

    module = types.ModuleType("traced_driver")
    vars(module).update(connect=traced, Connection=sqlite3.Connection)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    error = type("OperationalError", (sqlite3.OperationalError,), {"__module__": module.__name__})()
    error.sqlite_errorcode = 5
    assert tells_code(error) is (sys.version_info >= (3, 11))


def test_what_is_no_error_of_sqlite() -> None:
    """Errors of other databases, of SQLAlchemy and of the application are not SQLite's errors."""
    other = vars(fork_of("another_database"))["OperationalError"]("database is locked")
    wrapped = exc.OperationalError("SELECT 1", {}, sqlite3.OperationalError("database is locked"))
    for error in (other, wrapped, ValueError("database is locked")):
        assert not isinstance(error, dbapi.Error)
        assert error_code(error) is None
        assert not is_busy(error)


def test_no_class_is_learnt_twice_or_from_what_has_none() -> None:
    """``sqlite3`` is known from the start, and an object without error classes changes nothing."""
    errors = DriverErrors()
    errors.learn(sqlite3)
    errors.learn(object())
    with closing(sqlite3.connect(":memory:")) as connection:
        errors.learn(connection)
    assert errors.Error == (sqlite3.Error,)
