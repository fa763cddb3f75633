"""What a statement is, from its text."""

from __future__ import annotations

import sqlite3

import pytest

from sa_sqlite_pool.driver import statements
from sa_sqlite_pool.driver.statements import Kind, classify

CASES = {
    Kind.READ: [
        "SELECT 1",
        "  select * from items -- INSERT",
        "/* UPDATE */ SELECT 1",
        "VALUES (1)",
        "WITH a AS (SELECT 1) SELECT * FROM a",
        "WITH RECURSIVE a(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM a) SELECT n FROM a LIMIT 3",
        'WITH "insert" AS (SELECT \'DELETE\') SELECT * FROM "insert"',
        ";SELECT 1",
        "PRAGMA main.table_info('items')",
        'PRAGMA "main".table_xinfo("items")',
        "PRAGMA table_list",
        "pragma index_list(items)",
    ],
    Kind.EXPLAIN: ["EXPLAIN INSERT INTO items VALUES (1)", "explain query plan select 1"],
    Kind.WRITE: [
        "INSERT INTO items DEFAULT VALUES",
        "REPLACE INTO items VALUES (1)",
        "UPDATE items SET amount = 1 RETURNING id",
        "DELETE FROM items",
        "CREATE TABLE t (id)",
        "DROP TABLE t",
        "ALTER TABLE t RENAME TO u",
        "ANALYZE",
        "REINDEX",
        "WITH a AS (SELECT 1) INSERT INTO items SELECT * FROM a",
        "WITH a AS (SELECT (SELECT 1)) DELETE FROM items WHERE id IN a",
        "WITH a(x) AS NOT MATERIALIZED (SELECT 1) UPDATE items SET amount = 2",
        "FROBNICATE",
        "",
        "SELECTED",
    ],
    Kind.SAVEPOINT: ["SAVEPOINT a"],
    Kind.BEGIN: ["BEGIN", "begin deferred transaction"],
    Kind.BEGIN_WRITE: ["BEGIN IMMEDIATE", "begin exclusive transaction"],
    Kind.END: ["COMMIT", "END TRANSACTION", "ROLLBACK", "RELEASE a", "ROLLBACK TO SAVEPOINT a"],
    Kind.SETTING: [
        "PRAGMA foreign_keys=ON",
        "PRAGMA user_version",
        "PRAGMA journal_mode=WAL",
        "DETACH other",
    ],
    Kind.ATTACH: ["ATTACH 'x.db' AS x"],
    Kind.MAINTENANCE: [
        "VACUUM",
        "VACUUM INTO 'copy.db'",
        "PRAGMA user_version = 3",
        "PRAGMA main.application_id(7)",
        "PRAGMA wal_checkpoint",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "PRAGMA optimize",
        "EXPLAIN PRAGMA wal_checkpoint",
    ],
}


@pytest.mark.parametrize(
    ("sql", "kind"), [(sql, kind) for kind, texts in CASES.items() for sql in texts]
)
def test_kinds(sql: str, kind: Kind) -> None:
    """Comments, quotes, parentheses and WITH do not mislead."""
    assert classify(sql) is kind


def test_long_texts_are_not_remembered() -> None:
    """An INSERT of a thousand rows is judged by its first word and not kept in memory."""
    before = statements._remembered.cache_info().currsize
    assert classify("INSERT INTO items VALUES " + "(1), " * 5000 + "(1)") is Kind.WRITE
    assert statements._remembered.cache_info().currsize == before


def test_every_read_is_one_to_sqlite_as_well() -> None:
    """SQLite, asked by its authorizer, agrees that none of these writes."""
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, amount)")
    actions: set[int] = set()

    def note(action: int, *_: object) -> int:
        actions.add(action)
        return sqlite3.SQLITE_OK

    connection.set_authorizer(note)
    for sql in CASES[Kind.READ]:
        connection.execute(sql).fetchall()
    reads = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE}
    assert actions <= reads | {sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_PRAGMA}
    connection.close()
