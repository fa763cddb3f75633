"""What a statement writes, according to SQLite's EXPLAIN, and the table of the findings."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from sa_sqlite_pool.sqlite import examination
from sa_sqlite_pool.sqlite.authorizer import Access, Authorizer
from sa_sqlite_pool.sqlite.examination import Finding, examine, shadow_tables
from sa_sqlite_pool.sqlite.inspection import rows
from sa_sqlite_pool.sqlite.statements import Kind

MAIN, TEMP, OTHER = 0, 1, 2


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(
        """
        CREATE TABLE items (id INTEGER PRIMARY KEY, amount);
        CREATE VIEW shown AS SELECT id FROM items;
        CREATE TRIGGER instead INSTEAD OF INSERT ON shown
            BEGIN INSERT INTO items VALUES (9, 9); END;
        CREATE VIRTUAL TABLE search USING fts5(body);
        CREATE VIRTUAL TABLE boxes USING rtree(id, low, high);
        ATTACH ':memory:' AS other;
        CREATE TABLE other.others (id);
        CREATE TEMP TABLE own (i);
        CREATE TEMP VIEW own_view AS SELECT i FROM own;
        CREATE TEMP TRIGGER logs AFTER DELETE ON items BEGIN INSERT INTO own VALUES (1); END;
        CREATE TEMP TRIGGER reaches INSTEAD OF INSERT ON own_view
            BEGIN INSERT INTO items VALUES (7, 7); END;
        """
    )
    yield connection
    connection.close()


@pytest.fixture
def authorizer(connection: sqlite3.Connection) -> Authorizer:
    authorizer = Authorizer()
    connection.set_authorizer(authorizer)
    return authorizer


def contents(connection: sqlite3.Connection) -> list[object]:
    tables = ("sqlite_master", "sqlite_temp_master", "items", "others", "own")
    rows = [connection.execute(f"SELECT * FROM {table}").fetchall() for table in tables]
    return [connection.total_changes, *rows]


FOUND = {
    "SELECT * FROM items": (Kind.READ, set()),
    "SELECT * FROM search WHERE search MATCH 'x'": (Kind.READ, set()),
    "SELECT * FROM boxes, own": (Kind.READ, set()),
    "INSERT INTO items VALUES (1, 1)": (Kind.WRITE, {MAIN}),
    "; ;; -- first\n INSERT INTO items VALUES (1, 1)": (Kind.WRITE, {MAIN}),
    "INSERT INTO shown VALUES (1)": (Kind.WRITE, {MAIN}),
    "INSERT INTO search VALUES ('x')": (Kind.WRITE, {MAIN}),
    "INSERT INTO boxes VALUES (1, 2, 3)": (Kind.WRITE, {MAIN}),
    "CREATE TABLE more (id)": (Kind.WRITE, {MAIN}),
    "CREATE TABLE IF NOT EXISTS items (id)": (Kind.READ, set()),
    "DROP TABLE IF EXISTS nowhere": (Kind.READ, set()),
    "INSERT INTO other.others SELECT id FROM items": (Kind.WRITE, {OTHER}),
    "INSERT INTO others VALUES (1)": (Kind.WRITE, {OTHER}),
    "INSERT INTO own SELECT id FROM items": (Kind.TEMP_DML, {TEMP}),
    "WITH one(i) AS (SELECT 1) INSERT INTO own SELECT i FROM one": (Kind.TEMP_DML, {TEMP}),
    "REPLACE INTO own VALUES (1)": (Kind.TEMP_DML, {TEMP}),
    "UPDATE own SET i = 1": (Kind.TEMP_DML, {TEMP}),
    "DELETE FROM own": (Kind.TEMP_DML, {TEMP}),
    "DROP TABLE own": (Kind.TEMP_DDL, {TEMP}),
    "CREATE TABLE temp.more (id)": (Kind.TEMP_DDL, {TEMP}),
    "CREATE VIRTUAL TABLE temp.found USING fts5(body)": (Kind.TEMP_DDL, {TEMP}),
    "ALTER TABLE own ADD COLUMN j": (Kind.TEMP_DDL, {TEMP}),
    "DELETE FROM items": (Kind.WRITE, {MAIN, TEMP}),
    "INSERT INTO own_view VALUES (1)": (Kind.WRITE, {MAIN, TEMP}),
}


@pytest.mark.parametrize("sql", FOUND)
def test_what_a_statement_writes(
    connection: sqlite3.Connection, authorizer: Authorizer, sql: str
) -> None:
    """The finding lists the written databases, triggers included, and nothing is executed."""
    kind, databases = FOUND[sql]
    before = contents(connection)
    found = examine(connection, authorizer, sql, ())
    assert found is not None
    if found.databases != databases:  # INSTEAD OF on a temp view may lock temp as well
        assert found.databases - {TEMP} == databases - {TEMP}
    assert found.kind is kind
    assert contents(connection) == before


@pytest.mark.parametrize(
    ("sql", "parameters"),
    [
        ("INSERT INTO items VALUES (?, ?)", (1, 2)),
        ("INSERT INTO items VALUES (:id, :amount)", {"id": 1, "amount": b"x"}),
    ],
)
def test_with_its_parameters(
    connection: sqlite3.Connection, authorizer: Authorizer, sql: str, parameters: object
) -> None:
    """The parameters are bound, because ``sqlite3`` requires it."""
    assert examine(connection, authorizer, sql, parameters) == Finding(
        Kind.WRITE, frozenset({MAIN}), connects=True
    )


@pytest.mark.parametrize(
    "sql", ["SELEC 1", "INSERT INTO nowhere VALUES (1)", "INSERT INTO items VALUES (?)", ""]
)
def test_what_cannot_be_compiled(
    connection: sqlite3.Connection, authorizer: Authorizer, sql: str
) -> None:
    """Nothing is known about it, and its execution raises SQLite's error."""
    assert examine(connection, authorizer, sql, ()) is None
    assert authorizer.access is Access.ALL


def test_asking_changes_no_setting(connection: sqlite3.Connection, authorizer: Authorizer) -> None:
    """EXPLAIN PRAGMA foreign_keys = ON would change the setting."""
    assert examine(connection, authorizer, "PRAGMA foreign_keys = ON", ()) is None
    assert connection.execute("PRAGMA foreign_keys").fetchone() == (0,)
    assert examine(connection, authorizer, "PRAGMA table_info(items)", ()) is not None


def test_connecting_a_virtual_table_is_told(tmp_path_factory: pytest.TempPathFactory) -> None:
    """R-tree compiles its writes once, when it connects, and those writes were refused."""
    path = tmp_path_factory.mktemp("rtree") / "app.db"
    for _ in range(2):
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("CREATE VIRTUAL TABLE IF NOT EXISTS boxes USING rtree(id, low, high)")
        connection.close()
    connection, authorizer = sqlite3.connect(path, isolation_level=None), Authorizer()
    connection.set_authorizer(authorizer)
    first = examine(connection, authorizer, "SELECT * FROM boxes", ())
    again = examine(connection, authorizer, "SELECT * FROM boxes", ())
    assert first == Finding(Kind.READ, connects=True)
    assert again == Finding(Kind.READ)
    connection.close()


@pytest.mark.parametrize(
    ("tables", "known"),
    [
        (["CREATE VIRTUAL TABLE boxes USING rtree(id, low, high)"], True),
        (["CREATE VIRTUAL TABLE boxes USING fts5(body)"], False),
        (["CREATE TABLE boxes (id)", "CREATE TABLE boxes_parent (id)"], False),
    ],
)
def test_the_tables_of_an_r_tree(tables: list[str], known: bool) -> None:
    """A table that seems to belong to a virtual table may be the application's own."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for schema in ("main", "temp"):
        assert shadow_tables(connection) == frozenset()
        for sql in tables:
            connection.execute(sql.replace(" boxes", f" {schema}.boxes"))
        connection.execute(f"CREATE TABLE {schema}.boxes_history (id)")
        if not known:
            connection.execute(f"CREATE TABLE {schema}.boxes_node (id)")
        names = {(schema, f"boxes_{suffix}") for suffix in ("node", "parent", "rowid")}
        assert shadow_tables(connection) == (names if known else set())
        for name in [sql.split()[2 + ("VIRTUAL" in sql)] for sql in tables]:
            connection.execute(f"DROP TABLE {schema}.{name}")
    connection.close()


def test_a_lock_in_the_way(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Without WAL, a writer may lock the schema, and then nothing is known about the statement."""
    path = tmp_path_factory.mktemp("locked") / "app.db"
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("CREATE TABLE items (id)")
    writer.execute("BEGIN EXCLUSIVE")
    connection, authorizer = sqlite3.connect(path, isolation_level=None, timeout=0), Authorizer()
    connection.set_authorizer(authorizer)
    assert examine(connection, authorizer, "DELETE FROM items", ()) is None
    writer.execute("ROLLBACK")
    assert examine(connection, authorizer, "DELETE FROM items", ()) is not None
    connection.close()
    writer.close()


@pytest.mark.parametrize("factory", [bytes, lambda value: value.decode().upper()])
def test_whatever_the_application_makes_of_text(
    connection: sqlite3.Connection, authorizer: Authorizer, factory: object
) -> None:
    """``text_factory`` and ``row_factory`` apply to the application's rows only."""
    if factory is bytes:
        connection.text_factory = factory
    connection.row_factory = lambda cursor, row: dict(enumerate(row))
    found = examine(connection, authorizer, "INSERT INTO items VALUES (1, 1)", ())
    assert found is not None
    assert found.databases == {MAIN}


def test_each_examination_is_compiled_anew(
    connection: sqlite3.Connection, authorizer: Authorizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listing a program that is older than the schema would make SQLite read freed memory."""
    explained: list[str] = []

    def note(connection: sqlite3.Connection, sql: str, *parameters: Any) -> list[Any]:
        explained.extend([sql] if sql.startswith("EXPLAIN") else [])
        return rows(connection, sql, *parameters)

    monkeypatch.setattr(examination, "rows", note)
    for _ in range(3):
        connection.execute("CREATE TABLE passing (i)")
        assert examine(connection, authorizer, "INSERT INTO passing VALUES (1)", ()) is not None
        connection.execute("DROP TABLE passing")
    assert len(explained) == len(set(explained)) == 3
