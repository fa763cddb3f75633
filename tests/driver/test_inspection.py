"""What a connection has that others do not."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sa_sqlite_pool.driver.inspection import (
    Commits,
    commits_of,
    has_own_collations,
    own_functions,
)


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    """In WAL mode, as the package opens it: commits only write to the log."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for setting in ("journal_mode = WAL", "synchronous = NORMAL", "wal_autocheckpoint = 0"):
            connection.execute(f"PRAGMA {setting}")
        yield connection


def test_functions(connection: sqlite3.Connection) -> None:
    """Those that were registered, also in the place of a built-in one."""
    before = own_functions(connection)  # of extensions that are compiled in, such as FTS5
    assert before is not None
    assert not before & {"mine", "lower", "most"}
    connection.create_function("Mine", 1, str)
    connection.create_function("lower", 1, str.lower)
    connection.create_aggregate("most", 1, object)  # type: ignore[arg-type]
    assert own_functions(connection) == before | {"mine", "lower", "most"}


def test_an_sqlite_that_does_not_tell(connection: sqlite3.Connection) -> None:
    class Old:
        def execute(self, _: str) -> sqlite3.Cursor:
            return connection.execute("SELECT 1 WHERE 0")

    assert own_functions(Old()) is None  # type: ignore[arg-type]


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
