"""The file that is copied: customers and their activity, with columns of all common types."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Enum,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
    Uuid,
    create_engine,
)
from sqlalchemy.schema import CreateTable

metadata = MetaData()
customers = Table(
    "customers",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("token", Uuid, unique=True),
    Column("name", String(100), index=True),
    Column("since", DateTime),
    Column("active", Boolean),
)
events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("customer_id", ForeignKey("customers.id"), index=True, nullable=False),
    Column("kind", Enum("view", "order", "return", name="kind")),
    Column("at", DateTime, index=True),
    Column("amount", Numeric(12, 2)),
    Column("weight", Float),
    Column("payload", JSON),
    Column("note", Text),
    Column("picture", LargeBinary),
)

_BATCH = 10_000
_START = datetime(2020, 1, 1)
_WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "lazy", "dogs\tünder\nfive", "wizards"]


def fill(path: Path, rows: int) -> None:
    """Create the file with ``rows`` rows in total, of which one in eleven is a customer."""
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        for table in metadata.sorted_tables:
            connection.execute(CreateTable(table))
    number = rows // 11
    random = Random(1)
    with closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA synchronous = OFF")
        _insert(file, "customers", 5, _customers(random, number))
        _insert(file, "events", 9, _events(random, rows - number, number))
    with engine.begin() as connection:
        for table in metadata.sorted_tables:
            for index in table.indexes:
                index.create(connection)
    engine.dispose()


def _insert(
    connection: sqlite3.Connection, table: str, width: int, rows: Iterator[tuple[Any, ...]]
) -> None:
    marks = ", ".join("?" * width)
    with connection:
        connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)


def _customers(random: Random, number: int) -> Iterator[tuple[Any, ...]]:
    for i in range(1, number + 1):
        token = f"{random.getrandbits(128):032x}"
        yield i, token, f"Customer {i}", f"{_START + timedelta(minutes=i)}.000000", i % 2


def _events(random: Random, number: int, customers: int) -> Iterator[tuple[Any, ...]]:
    notes = [" ".join(random.choices(_WORDS, k=30)) for _ in range(997)]
    payloads = [
        json.dumps({"page": f"/products/{i}", "seconds": i / 7, "tags": _WORDS[:3]})
        for i in range(991)
    ]
    picture = random.randbytes(48)
    for i in range(1, number + 1):
        yield (
            i,
            random.randrange(customers) + 1,
            ("view", "order", "return")[i % 3],
            f"{_START + timedelta(seconds=i)}.{i % 1_000_000:06d}",
            round(random.random() * 1000, 2),
            None if i % 5 == 0 else random.random(),
            payloads[i % 991],
            notes[i % 997],
            picture if i % 2 else None,
        )
