"""The tables of the programs, and their statements."""

from __future__ import annotations

import random
import sqlite3

from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    pass


class Parent(Base):
    __tablename__ = "parents"

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int | None]
    name: Mapped[str | None] = mapped_column(unique=True)
    children: Mapped[list[Child]] = relationship(
        back_populates="parent", cascade="all, delete-orphan"
    )


class Child(Base):
    __tablename__ = "children"

    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("parents.id"))
    parent: Mapped[Parent | None] = relationship(back_populates="children")


def on_connect(connection: sqlite3.Connection, _record: object) -> None:
    """Register the functions that the statements call."""

    def fail() -> None:
        raise ValueError("as expected")

    connection.create_function("twice", 1, lambda value: value * 2)
    connection.create_function("fail", 0, fail)
    cursor = connection.cursor()
    for sql in OF_CONNECTION:
        cursor.execute(sql)
    cursor.close()


OF_CONNECTION = (
    "ATTACH ':memory:' AS other",
    "CREATE TABLE other.remote (i)",
    "CREATE TEMP TABLE scratch (i)",
)
OBJECTS = (
    "CREATE VIRTUAL TABLE notes USING fts5(body)",
    "CREATE VIRTUAL TABLE boxes USING rtree(id, low, high)",
    "CREATE TABLE plain (id INTEGER PRIMARY KEY, number) WITHOUT ROWID",
    "CREATE TABLE guarded (id)",
    "CREATE TRIGGER small BEFORE INSERT ON guarded WHEN new.id > 3 "
    "BEGIN SELECT raise(abort, 'too large'); END",
    "CREATE TRIGGER ignored BEFORE INSERT ON guarded WHEN new.id = 1 "
    "BEGIN SELECT raise(ignore); END",
    "CREATE VIEW seen AS SELECT id, number FROM parents",
    "CREATE TRIGGER inserted INSTEAD OF INSERT ON seen "
    "BEGIN INSERT INTO parents (id, number) VALUES (new.id, 77); END",
    "CREATE TRIGGER updated INSTEAD OF UPDATE ON seen "
    "BEGIN UPDATE parents SET number = new.number WHERE id = old.id; END",
)
READS = (
    "SELECT * FROM parents ORDER BY id",
    "SELECT count(*) FROM children",
    "SELECT p.id, c.id FROM parents p LEFT JOIN children c ON c.parent_id = p.id ORDER BY 1, 2",
    "WITH x AS (SELECT max(id) AS m FROM parents) SELECT m FROM x",
    "SELECT twice({id})",
    "SELECT changes(), total_changes(), last_insert_rowid()",
    "SELECT sql FROM sqlite_master ORDER BY name",
    "VALUES (1, 2), (3, 4)",
    "EXPLAIN QUERY PLAN SELECT * FROM parents",
    "PRAGMA table_info(parents)",
    "PRAGMA user_version",
    "-- a comment\nSELECT {id}",
    "SELECT value FROM json_each('[1, 2, {id}]')",
    "SELECT name FROM pragma_table_info('parents')",
    "SELECT row_number() OVER (ORDER BY id), id FROM parents",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 5) SELECT i FROM n",
    "SELECT body FROM notes WHERE notes MATCH 'n{name}'",
    "SELECT id FROM boxes WHERE low < {number}",
    "SELECT * FROM seen ORDER BY 1",
    "SELECT * FROM scratch",
    "SELECT * FROM other.remote",
    "SELECT name FROM sqlite_temp_master ORDER BY 1",
    "PRAGMA foreign_key_check",
    "PRAGMA integrity_check",
    "EXPLAIN QUERY PLAN INSERT INTO parents (number) VALUES (1)",
    "  \n\t SELECT {id} ;  ",
    "SELECT/**/1",
    "SELECT 'a;b' -- ;",
)
WRITES = (
    "INSERT INTO parents (number, name) VALUES ({number}, '{name}')",
    "INSERT INTO parents (id, number) VALUES ({id}, {number})",
    "INSERT INTO parents (number, name) VALUES ({number}, '{name}') RETURNING id, number",
    "INSERT OR IGNORE INTO parents (id, name) VALUES ({id}, '{name}')",
    "INSERT OR REPLACE INTO parents (id, name) VALUES ({id}, '{name}')",
    "INSERT INTO parents (id, number) VALUES ({id}, 1) "
    "ON CONFLICT (id) DO UPDATE SET number = excluded.number + 10 RETURNING *",
    "INSERT INTO parents (number) SELECT number + 100 FROM parents WHERE id < 3",
    "INSERT INTO parents (number) VALUES (twice({number}))",
    "INSERT INTO children (parent_id) VALUES ({id})",
    "UPDATE parents SET number = number + 1 WHERE id < {id}",
    "UPDATE parents SET name = '{name}' WHERE id = {id}",
    "UPDATE parents SET number = {number} WHERE id <= {id} RETURNING id",
    "DELETE FROM children WHERE parent_id = {id} RETURNING id",
    "DELETE FROM parents WHERE id = {id}",
    "/* a comment */ UPDATE parents SET number = 0 WHERE id = {id}",
    "INSERT INTO scratch VALUES ({number})",
    "UPDATE scratch SET i = i + 1",
    "DELETE FROM scratch",
    "INSERT INTO other.remote VALUES ({id})",
    "DELETE FROM other.remote",
    "INSERT INTO notes (body) VALUES ('n{name} x')",
    "DELETE FROM notes WHERE rowid = {id}",
    "INSERT INTO notes (notes) VALUES ('optimize')",
    "INSERT INTO boxes VALUES ({id}, {number}, {number} + 1)",
    "INSERT INTO plain VALUES ({id}, {number})",
    "INSERT INTO guarded VALUES ({id})",
    "INSERT INTO seen (id) VALUES ({id})",
    "UPDATE seen SET number = 4 WHERE id = {id}",
    "INSERT INTO parents (id) VALUES ({id}) ON CONFLICT DO NOTHING",
    "INSERT OR FAIL INTO parents (id) VALUES ({id}), (9)",
    "UPDATE OR IGNORE parents SET name = 'n1'",
    "UPDATE parents SET number = c.n FROM (SELECT count(*) AS n FROM children) AS c "
    "WHERE id = {id}",
    "INSERT INTO parents DEFAULT VALUES",
    "DELETE FROM parents",
)
ODD = (
    "SELEC 1",
    "SELECT * FROM nothing",
    "INSERT INTO nothing VALUES (1)",
    "SELECT fail()",
    "INSERT INTO parents (number) VALUES (fail())",
    "SELECT abs(-9223372036854775808)",
    "SELECT 1; SELECT 2",
    "SELECT ?",
    "",
    ";",
    "BEGIN",
    "BEGIN IMMEDIATE",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT s",
    "RELEASE s",
    "ROLLBACK TO s",
    "PRAGMA user_version = {id}",
    "PRAGMA cache_size = -500",
    "VACUUM",
    "ANALYZE",
    "REINDEX by_parent",
    "PRAGMA optimize",
    "PRAGMA defer_foreign_keys = ON",
    "PRAGMA recursive_triggers = ON",
    "PRAGMA application_id = {id}",
    "PRAGMA query_only",
    "PRAGMA nothing",
    'SAVEPOINT "a b"',
    'RELEASE "a b"',
    'ROLLBACK TO "a b"',
    "BEGIN EXCLUSIVE",
    "BEGIN DEFERRED",
    "END",
    "ATTACH '' AS empty",
    "DETACH empty",
    "SELECT load_extension('x')",
    "SELECT raise(abort, 'x')",
    "EXPLAIN",
    "\ufeffSELECT 1",
)
DDL = (
    "CREATE TABLE IF NOT EXISTS others (i UNIQUE)",
    "CREATE TABLE others (i)",
    "DROP TABLE IF EXISTS others",
    "CREATE INDEX IF NOT EXISTS by_parent ON children (parent_id)",
    "DROP INDEX IF EXISTS by_parent",
    "ALTER TABLE children ADD COLUMN c{id} TEXT",
    "CREATE VIEW IF NOT EXISTS counted AS SELECT count(*) FROM parents",
    "CREATE TEMP TABLE IF NOT EXISTS scratch (i)",
    "DROP TABLE IF EXISTS scratch",
    "CREATE TEMP VIEW IF NOT EXISTS short AS SELECT id FROM parents",
    "CREATE TEMP TRIGGER IF NOT EXISTS noted AFTER INSERT ON parents "
    "BEGIN UPDATE parents SET number = 5 WHERE id = new.id; END",
    "DROP TRIGGER IF EXISTS noted",
    "CREATE TABLE IF NOT EXISTS copied AS SELECT * FROM parents",
    "DROP TABLE IF EXISTS copied",
    "CREATE UNIQUE INDEX IF NOT EXISTS large ON parents (number) WHERE number > 90",
    "DROP INDEX IF EXISTS large",
    "CREATE TRIGGER IF NOT EXISTS added AFTER INSERT ON children "
    "BEGIN UPDATE parents SET number = number + 1 WHERE id = new.parent_id; END",
)


def filled(rng: random.Random, sql: str) -> str:
    """Return the statement with values, drawn from so few that they collide."""
    values = {"id": rng.randrange(1, 8), "number": rng.randrange(100), "name": rng.randrange(6)}
    return sql.format(**values)


def statement(rng: random.Random) -> str:
    return filled(rng, rng.choice(rng.choice((READS, WRITES, ODD))))
