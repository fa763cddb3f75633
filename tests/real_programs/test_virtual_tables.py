"""Reading virtual tables (table-valued functions, full-text, R-tree, SQLite's own) is reading."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import func, select, text

from .doors import Application, Door, at_once, outside

SETUP = [
    "CREATE TABLE t (id INTEGER PRIMARY KEY, x REFERENCES t)",
    "CREATE INDEX by_x ON t (x)",
    "INSERT INTO t VALUES (1, 1), (2, 1)",
    "CREATE VIRTUAL TABLE three USING fts3(body)",
    "INSERT INTO three VALUES ('red and green'), ('blue')",
    "CREATE VIRTUAL TABLE four USING fts4(body)",
    "INSERT INTO four VALUES ('red and green'), ('blue')",
    "CREATE VIRTUAL TABLE terms USING fts4aux(four)",
    "CREATE VIRTUAL TABLE tokens USING fts3tokenize",
    "CREATE VIRTUAL TABLE five USING fts5(body)",
    "INSERT INTO five VALUES ('red and green'), ('blue')",
    "CREATE VIRTUAL TABLE outer5 USING fts5(x, content='t', content_rowid='id')",
    "INSERT INTO outer5 (outer5) VALUES ('rebuild')",
    "CREATE VIRTUAL TABLE vocabulary USING fts5vocab(five, 'row')",
    "CREATE VIRTUAL TABLE instances USING fts5vocab(five, 'instance')",
    "CREATE VIRTUAL TABLE boxes USING rtree(id, low, high)",
    "INSERT INTO boxes VALUES (1, 0, 1), (2, 5, 6)",
    "CREATE VIRTUAL TABLE whole USING rtree_i32(id, low, high, +note)",
    "INSERT INTO whole VALUES (1, 0, 1, 'a')",
    "CREATE VIRTUAL TABLE shapes USING geopoly(name)",
    "INSERT INTO shapes (name, _shape) VALUES ('a', '[[0,0],[1,0],[1,1],[0,0]]')",
    "CREATE TABLE busy (x)",
    "CREATE VIEW seen AS SELECT value FROM json_each('[1, 2]')",
]

READS = {
    "json_each": "SELECT value FROM json_each('[1, 2]')",
    "json_tree": "SELECT fullkey FROM json_tree('{\"a\": [1]}')",
    "json_each in a subquery": "SELECT id FROM t WHERE id IN (SELECT value FROM json_each('[1]'))",
    "json_each joined": "SELECT t.id, j.value FROM t, json_each('[' || t.id || ']') AS j",
    "json_each in a CTE": "WITH j AS (SELECT value FROM json_each('[1]')) SELECT * FROM j",
    "json_each in a view": "SELECT * FROM seen",
    "pragma_table_info": "SELECT name FROM pragma_table_info('t')",
    "pragma_table_xinfo": "SELECT name FROM pragma_table_xinfo('t')",
    "pragma_table_list": "SELECT count(*) > 3 FROM pragma_table_list",
    "pragma_index_list": "SELECT name FROM pragma_index_list('t')",
    "pragma_index_info": "SELECT name FROM pragma_index_info('by_x')",
    "pragma_foreign_key_list": "SELECT \"table\" FROM pragma_foreign_key_list('t')",
    "pragma_foreign_key_check": "SELECT * FROM pragma_foreign_key_check('t')",
    "pragma_database_list": "SELECT name FROM pragma_database_list WHERE seq = 0",
    "pragma_function_list": "SELECT count(*) > 5 FROM pragma_function_list",
    "pragma_module_list": "SELECT count(*) > 2 FROM pragma_module_list",
    "pragma_collation_list": "SELECT count(*) > 2 FROM pragma_collation_list",
    "pragma_compile_options": "SELECT count(*) > 2 FROM pragma_compile_options",
    "pragma_user_version": "SELECT * FROM pragma_user_version",
    "pragma_integrity_check": "SELECT * FROM pragma_integrity_check",
    "pragma of each": "SELECT m.name, p.name FROM sqlite_master m, pragma_table_info(m.name) p",
    "sqlite_schema": "SELECT count(*) > 5 FROM sqlite_schema",
    "sqlite_temp_master": "SELECT count(*) FROM sqlite_temp_master",
    "generate_series": "SELECT value FROM generate_series(1, 3)",
    "fts3": "SELECT snippet(three), offsets(three) FROM three WHERE three MATCH 'red'",
    "fts4": "SELECT hex(matchinfo(four)) FROM four WHERE body MATCH 'gre*'",
    "fts4 whole": "SELECT * FROM four",
    "fts4aux": "SELECT term, documents FROM terms",
    "fts3tokenize": "SELECT token FROM tokens WHERE input = 'one two'",
    "fts5": "SELECT rowid FROM five WHERE five MATCH 'red' ORDER BY rank",
    "fts5 functions": (
        "SELECT snippet(five, 0, '<', '>', '…', 5), highlight(five, 0, '<', '>') "
        "FROM five('green') ORDER BY bm25(five)"
    ),
    "fts5 of another table": "SELECT rowid, x FROM outer5 WHERE outer5 MATCH '1'",
    "fts5vocab": "SELECT term, doc FROM vocabulary",
    "fts5vocab instances": 'SELECT term, "offset" FROM instances',
    "rtree": "SELECT id FROM boxes WHERE low >= 0 AND high <= 2",
    "rtreecheck": "SELECT rtreecheck('boxes')",
    "rtree_i32": "SELECT id, note FROM whole WHERE low = 0",
    "geopoly": "SELECT name FROM shapes WHERE geopoly_overlap(_shape, '[[0,0],[2,0],[2,2],[0,0]]')",
    "dbstat": "SELECT count(*) > 3 FROM dbstat",
    "dbstat of one": "SELECT name FROM dbstat('main', 1) WHERE name = 't'",
    "sqlite_stmt": "SELECT count(*) > 0 FROM sqlite_stmt",
    "bytecode": "SELECT count(*) > 2 FROM bytecode('SELECT * FROM t')",
    "tables_used": "SELECT name FROM tables_used('SELECT x FROM t')",
    "sqlite_dbpage": "SELECT pgno FROM sqlite_dbpage LIMIT 1",
}


Expected = dict[str, list[tuple[object, ...]]]


@pytest.fixture
def expected(path: Path) -> Expected:
    """Return the result of plain ``sqlite3``, for everything that this SQLite was built with."""
    with outside(path) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        for statement in SETUP:
            _tolerantly(connection, statement)
    with outside(path) as connection:
        found = {name: _tolerantly(connection, sql) for name, sql in READS.items()}
    return {name: rows for name, rows in found.items() if rows is not None}


def _tolerantly(connection: sqlite3.Connection, sql: str) -> list[tuple[object, ...]] | None:
    try:
        return connection.execute(sql).fetchall()
    except sqlite3.OperationalError as error:
        if "no such" not in str(error):  # table, function, module: not compiled in
            raise
        return None


async def read(app: Application, name: str) -> list[tuple[object, ...]]:
    async with app.enter() as connection:
        return [tuple(row) for row in await connection.execute(text(READS[name]))]


async def test_all_kinds(reading: Door, expected: Expected, subtests: pytest.Subtests) -> None:
    """Each reads like plain sqlite3, the first time and again, in one connection."""
    app = await reading.open()
    for name, rows in expected.items():
        with subtests.test(name):
            assert await read(app, name) == rows
            assert await read(app, name) == rows


async def test_as_first_statement(
    reading: Door, expected: Expected, subtests: pytest.Subtests
) -> None:
    """Each is the first statement of a connection, upon which SQLite connects the virtual table."""
    for name, rows in expected.items():
        with subtests.test(name):
            app = await reading.open()
            assert await read(app, name) == rows
            await app.close()


async def test_beside_a_writer(reading: Door, expected: Expected) -> None:
    """Each waits neither while another task holds the turn, nor for an outside lock."""
    app = await reading.open()
    async with app.writer.connect() as writer:
        await writer.execute(text("INSERT INTO busy VALUES (1)"))
        for name, rows in expected.items():
            assert await at_once(read(app, name)) == rows, name


async def test_by_sqlalchemys_constructs(reading: Door) -> None:
    """table_valued() and similar constructs are reads, too."""
    app = await reading.open()
    each = func.json_each("[3]").table_valued("value")
    async with app.enter() as connection:
        assert (await connection.execute(select(each.c.value))).all() == [(3,)]
        tree = func.json_tree("[4]").table_valued("value", "type").alias("tree")
        assert len((await connection.execute(select(tree.c.type))).all()) == 2


CHANGES = {
    "fts4 optimize": "INSERT INTO four (four) VALUES ('optimize')",
    "fts5 rebuild": "INSERT INTO five (five) VALUES ('rebuild')",
    "fts5 rank": "INSERT INTO five (five, rank) VALUES ('rank', 'bm25(10.0)')",
    "fts5 insert": "INSERT INTO five VALUES ('more')",
    "fts5 delete": "DELETE FROM five",
    "rtree insert": "INSERT INTO boxes VALUES (3, 0, 1)",
    "rtree update": "UPDATE boxes SET low = 0 WHERE id = 2",
    "create": "CREATE VIRTUAL TABLE more USING fts5(body)",
    "drop": "DROP TABLE five",
}
