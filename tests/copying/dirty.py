"""A file with one of each fault, in tables that SQLite allows to be filled regardless of types."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import (
    JSON,
    REAL,
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Double,
    Enum,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    String,
    Table,
    Text,
    Time,
    UniqueConstraint,
    Uuid,
)

metadata = MetaData()
parents = Table("parents", metadata, Column("id", Integer, primary_key=True))
dirty = Table(
    "dirty",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("text", Text),
    Column("short", String(5)),
    Column("flag", Boolean),
    Column("small", SmallInteger),
    Column("number", Integer),
    Column("double", Double),
    Column("real", REAL),
    Column("price", Numeric(6, 2)),
    Column("at", DateTime),
    Column("day", Date),
    Column("clock", Time),
    Column("document", JSON),
    Column("colour", Enum("red", "blue", name="colour")),
    Column("token", Uuid),
    Column("data", LargeBinary),
    Column("wanted", Integer, nullable=False),
    Column("parent_id", ForeignKey("parents.id")),
    Column("code", String, unique=True),
    Column("first", String),
    Column("second", String),
    Column("active", Boolean),
    Column("seat", Integer),
    UniqueConstraint("first", "second", name="one_pair"),
    Index("one_active", "seat", unique=True, postgresql_where=Column("active").is_(True)),
)
keyless = Table("keyless", metadata, Column("name", String(3)))

# The column, a value in SQL, and the kind of fault that is reported.
FAULTS = (
    ("text", "'a' || char(0) || 'b'", "nul"),
    ("text", "CAST(x'61ff62' AS TEXT)", "utf-8"),
    ("text", "x'00ff'", "wrong-type"),
    ("short", "'sixsix'", "too-long"),
    ("flag", "2", "boolean"),
    ("flag", "'true'", "boolean"),
    ("small", "40000", "range"),
    ("number", "3000000000", "range"),
    ("number", "-3000000000", "range"),
    ("number", "'many'", "wrong-type"),
    ("number", "1.5", "wrong-type"),
    ("double", "'heavy'", "wrong-type"),
    ("double", "9007199254740993", "precision"),
    ("real", "0.1", "precision"),
    ("price", "'dear'", "wrong-type"),
    ("price", "12345.0", "range"),
    ("price", "9e999", "range"),
    ("price", "1.005", "places"),
    ("at", "'2024-01-01 10:00:00+02:00'", "zone"),
    ("at", "'yesterday'", "unreadable"),
    ("at", "1704067200", "wrong-type"),
    ("day", "'2024-02-30'", "unreadable"),
    ("clock", "'25:00:00'", "unreadable"),
    ("document", "'{\"a\": }'", "json"),
    ("document", "'[NaN]'", "json"),
    ("document", "'\"\\ud800\"'", "json"),
    ("document", '\'{"a": "\\u0000"}\'', "json-nul"),
    ("colour", "'green'", "enum"),
    ("token", "'xyz'", "unreadable"),
    ("data", "'text'", "wrong-type"),
    ("wanted", "NULL", "null"),
    ("parent_id", "77", "orphan"),
)

# Values that fit, although they look odd.
FITTING = (
    ("text", "''"),
    ("short", "'fivé€'"),
    ("flag", "1"),
    ("small", "-32768"),
    ("number", "2147483647"),
    ("double", "3"),
    ("real", "0.5"),
    ("price", "0.1 + 0.2"),
    ("price", "0.1 + 0.2 - 0.3"),
    ("price", "9999.99"),
    ("at", "'2024-01-01 10:00:00'"),
    ("at", "'2024-01-01T10:00'"),
    ("document", "'\"\\\\u0000\"'"),
    ("document", "'\"\\ud83d\\ude00\"'"),
    ("document", "5"),
    ("token", "'00000000-0000-0000-0000-0000000000AB'"),
    ("data", "x''"),
    ("parent_id", "NULL"),
)


def make_dirty(path: Path, *, faults: bool = True) -> dict[tuple[str, str], list[int]]:
    """Create the file; return the ids of the rows with faults, by column and kind."""
    wanted: dict[tuple[str, str], list[int]] = {}
    columns = ", ".join(f'"{column.name}"' for column in dirty.columns)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE parents (id INTEGER PRIMARY KEY)")
        connection.execute(f"CREATE TABLE dirty ({columns})")
        connection.execute("CREATE TABLE keyless (name)")
        for number, (column, value) in enumerate(FITTING, 1):
            _insert(connection, number, column, value)
        if faults:
            for number, (column, value, kind) in enumerate(FAULTS, 1001):
                _insert(connection, number, column, value)
                wanted.setdefault((column, kind), []).append(number)
            wanted |= _insert_duplicates(connection)
            connection.execute("INSERT INTO keyless VALUES ('abc'), ('long')")
    return wanted


def _insert(connection: sqlite3.Connection, number: int, column: str, value: str) -> None:
    needed = "" if column == "wanted" else ", wanted"
    values = f"{number}, {value}" + ("" if column == "wanted" else ", 1")
    connection.execute(f"INSERT INTO dirty (id, {column}{needed}) VALUES ({values})")


def _insert_duplicates(connection: sqlite3.Connection) -> dict[tuple[str, str], list[int]]:
    insert = "INSERT INTO dirty (id, wanted, code, first, second, active, seat) VALUES "
    connection.execute(
        insert + "(2001, 1, 'x', 'a', 'b', 1, 7), (2002, 1, 'x', 'a', 'b', 1, 7), "
        "(2003, 1, 'X', 'a', NULL, 0, 7), (2004, 1, NULL, 'a', NULL, 0, 7), "
        "(2005, 1, NULL, 'c', 'b', NULL, NULL), (2005, 1, NULL, 'd', 'b', NULL, NULL), "
        "(NULL, 1, NULL, 'e', 'e', NULL, NULL)"
    )
    return {
        ("code", "duplicate"): [2001, 2002],
        ("first, second", "duplicate"): [2001, 2002],
        ("seat", "duplicate"): [2001, 2002],
        ("id", "duplicate"): [2005, 2005],
        ("id", "null"): [None],  # type: ignore[list-item]
    }
