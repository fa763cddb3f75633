"""Which errors report a lock that another connection holds."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sa_sqlite_pool.settings import Role
from sa_sqlite_pool.sqlite.driver_errors import tells_code
from sa_sqlite_pool.transactions.locks import Patience, is_own_lock, may_pass

from .rules import rules_of


def test_a_lock() -> None:
    """Python 3.10 reports it without a code."""
    assert may_pass(sqlite3.OperationalError("database is locked"), in_transaction=False)


@pytest.mark.parametrize("kind", [sqlite3.IntegrityError, sqlite3.DatabaseError])
def test_the_words_of_an_application(kind: type[sqlite3.Error]) -> None:
    """A trigger's RAISE(ABORT, 'the account is locked') does not resolve itself by waiting."""
    assert not may_pass(kind("the account is locked"), in_transaction=False)


def raised(connection: sqlite3.Connection, sql: str) -> sqlite3.OperationalError:
    with pytest.raises(sqlite3.OperationalError) as caught:
        connection.execute(sql)
    return caught.value


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE items (id)")
        connection.execute("INSERT INTO items VALUES (1), (2)")
        yield connection


def test_the_lock_of_another_connection(connection: sqlite3.Connection, path: Path) -> None:
    """It may pass, inside a transaction or not, but a snapshot that is too old never does."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as other:
        other.execute("BEGIN IMMEDIATE")
        busy = raised(connection, "BEGIN IMMEDIATE")
        assert may_pass(busy, in_transaction=False)
        connection.execute("BEGIN")
        connection.execute("SELECT * FROM items").fetchall()
        other.execute("DELETE FROM items WHERE id = 1")
        other.execute("COMMIT")
        if tells_code(busy):
            too_old = raised(connection, "DELETE FROM items")
            assert not may_pass(too_old, in_transaction=True)
            assert may_pass(busy, in_transaction=True)


@pytest.mark.parametrize("sql", ["COMMIT", "RELEASE a"])
def test_a_statement_that_still_writes(connection: sqlite3.Connection, sql: str) -> None:
    """No other connection can end it: "cannot commit transaction - SQL statements in progress"."""
    connection.execute("SAVEPOINT a" if "a" in sql.split() else "BEGIN")
    returning = connection.execute("INSERT INTO items VALUES (3), (4) RETURNING id")
    if sqlite3.sqlite_version_info >= (3, 35) and returning.fetchone() is None:
        pytest.skip("it is read to its end when it is executed")
    error = raised(connection, sql)
    assert is_own_lock(error)
    assert not may_pass(error, in_transaction=True)
    returning.close()


def test_a_table_that_an_open_statement_reads(connection: sqlite3.Connection) -> None:
    """DROP TABLE would wait for itself."""
    reading = connection.execute("SELECT * FROM items")
    reading.fetchone()
    error = raised(connection, "DROP TABLE items")
    assert is_own_lock(error)
    assert not may_pass(error, in_transaction=False)
    reading.close()


def test_the_words_of_a_lock_in_another_error() -> None:
    """Only SQLite's own errors are examined."""
    assert not is_own_lock(ValueError("SQL statements in progress"))
    assert not is_own_lock(sqlite3.OperationalError("database is locked"))


def test_seconds_of_patience() -> None:
    """The elapsed and the remaining seconds add up to the caller's limit."""
    rules = rules_of(Role.AUTO)
    patience = Patience(rules, None, writing=True, began=time.monotonic() - 2)
    assert patience.seconds == 5.0
    assert patience.seconds_gone == pytest.approx(2, abs=0.5)
    assert patience.seconds_gone + patience.seconds_left == pytest.approx(5, abs=0.1)
    assert Patience(rules, None, writing=False, began=time.monotonic() - 60).seconds_left == 0
