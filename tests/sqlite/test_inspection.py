"""The functions, collations and settings that are specific to a connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sa_sqlite_pool.sqlite.inspection import Commits, commits_of, has_own_collations, own_functions


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    """Return a connection in WAL mode, as the package opens it: commits only write to the log."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for setting in ("journal_mode = WAL", "synchronous = NORMAL", "wal_autocheckpoint = 0"):
            connection.execute(f"PRAGMA {setting}")
        yield connection


def test_functions(connection: sqlite3.Connection) -> None:
    """The registered functions are listed, including those that replace a built-in one."""
    before = own_functions(connection)  # of compiled-in extensions, such as FTS5
    assert before is not None
    assert not before & {"mine", "lower", "most"}
    connection.create_function("Mine", 1, str)
    connection.create_function("lower", 1, str.lower)
    connection.create_aggregate("most", 1, object)  # type: ignore[arg-type]
    assert own_functions(connection) == before | {"mine", "lower", "most"}


def test_an_sqlite_that_does_not_tell(connection: sqlite3.Connection) -> None:
    """Before SQLite 3.30, the query returns no rows."""

    class Old(sqlite3.Cursor):
        def execute(self, _: str, *arguments: Any) -> Old:
            super().execute("SELECT 1 WHERE 0")
            return self

    class Connection:
        text_factory = str

        def cursor(self) -> sqlite3.Cursor:
            return Old(connection)

    assert own_functions(Connection()) is None  # type: ignore[arg-type]


def refuse(action: int, *_: object) -> int:
    return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_PRAGMA else sqlite3.SQLITE_OK


def test_an_application_that_forbids_the_questions(connection: sqlite3.Connection) -> None:
    """Without an answer, the worst case is assumed, and no error is raised."""
    connection.set_authorizer(refuse)
    assert own_functions(connection) is None
    assert has_own_collations(connection)
    assert commits_of(connection) == Commits()


@pytest.mark.parametrize("ask", [own_functions, has_own_collations, commits_of])
def test_questions_that_are_stopped(
    connection: sqlite3.Connection, ask: Callable[[sqlite3.Connection], object]
) -> None:
    """The queries are repeated later: an interrupt is no answer."""
    connection.set_progress_handler(lambda: 1, 1)
    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
        ask(connection)


def test_factories_of_the_application(connection: sqlite3.Connection) -> None:
    """Here, rows are tuples and names are text, whatever the application's factories return."""
    connection.create_function("mine", 0, lambda: 1)
    before = own_functions(connection)
    connection.row_factory = lambda cursor, row: dict(
        zip([name for name, *_ in cursor.description], row, strict=True)
    )
    connection.text_factory = bytes
    assert own_functions(connection) == before
    assert not has_own_collations(connection)
    assert commits_of(connection) == Commits(to_log=True, quick=True)


def test_collations(connection: sqlite3.Connection) -> None:
    assert not has_own_collations(connection)
    connection.create_collation("backwards", lambda a, b: (b > a) - (b < a))
    assert has_own_collations(connection)


def test_a_commit_that_only_appends(connection: sqlite3.Connection) -> None:
    assert commits_of(connection) == Commits(to_log=True, quick=True)
    connection.execute("CREATE TEMP TABLE t (n)")
    assert commits_of(connection) == Commits(to_log=True, quick=True)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("PRAGMA synchronous = FULL", Commits(to_log=True)),
        ("PRAGMA wal_autocheckpoint = 1000", Commits(to_log=True)),
        ("PRAGMA journal_mode = TRUNCATE", Commits()),
        ("ATTACH ':memory:' AS other", Commits()),
    ],
)
def test_a_commit_that_does_more(
    connection: sqlite3.Connection, setting: str, expected: Commits
) -> None:
    connection.execute(setting)
    assert commits_of(connection) == expected
