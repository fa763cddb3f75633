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
)
DDL = (
    "CREATE TABLE IF NOT EXISTS others (i UNIQUE)",
    "CREATE TABLE others (i)",
    "DROP TABLE IF EXISTS others",
    "CREATE INDEX IF NOT EXISTS by_parent ON children (parent_id)",
    "DROP INDEX IF EXISTS by_parent",
    "ALTER TABLE children ADD COLUMN c{id} TEXT",
    "CREATE VIEW IF NOT EXISTS counted AS SELECT count(*) FROM parents",
    "CREATE TRIGGER IF NOT EXISTS added AFTER INSERT ON children "
    "BEGIN UPDATE parents SET number = number + 1 WHERE id = new.parent_id; END",
)


def filled(rng: random.Random, sql: str) -> str:
    """Return the statement with values, drawn from so few that they collide."""
    values = {"id": rng.randrange(1, 8), "number": rng.randrange(100), "name": rng.randrange(6)}
    return sql.format(**values)


def statement(rng: random.Random) -> str:
    return filled(rng, rng.choice(rng.choice((READS, WRITES, ODD))))
