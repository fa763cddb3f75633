"""Rows that are too long for PostgreSQL, in the text format of COPY."""

from __future__ import annotations

import sqlite3
from typing import Any

from ..sqlite.tokens import quoted
from .columns.base import ESCAPES, Kind, Problem
from .misfits import Collector
from .source import Rows, read_any_text, read_texts
from .tables import Plan, TablePlan

# PostgreSQL's MaxAllocSize, a gigabyte, less what the server reads at once.
LINE_BYTES = 2**30 - 128 * 1024
"""The longest row that COPY accepts."""

_TOO_LONG = "PostgreSQL accepts rows of up to 1 GB, and each byte of a blob counts twice"


def refuse_long_lines(connection: sqlite3.Connection, plan: Plan, misfits: Collector) -> None:
    """Add the rows that are too long for a line of COPY, each under its longest column.

    It runs in the thread. Only a file of half the length has such rows: none is more than doubled.
    """
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    if pages * page_bytes < LINE_BYTES // 2:
        return
    read_any_text(connection)
    try:
        for table in plan.tables:
            _refuse_long_lines(connection, table, misfits)
    finally:
        read_texts(connection)


def _refuse_long_lines(
    connection: sqlite3.Connection, table: TablePlan, misfits: Collector
) -> None:
    # A character has up to four bytes.
    lengths = [f"coalesce(length({quoted(column.name)}), 0)" for column in table.columns]
    source = Rows(connection, f"{table.select} WHERE {' + '.join(lengths)} > {LINE_BYTES // 4}")
    while rows := source.next():
        for row in rows:
            sizes = [_sent_bytes(value) for value in row[: len(table.columns)]]
            if sum(sizes) > LINE_BYTES:
                place = sizes.index(max(sizes))
                column, problem = table.columns[place].name, Problem(Kind.TOO_LONG, _TOO_LONG)
                misfits.add(table.name, column, table.key_of(row), row[place], problem)


def _sent_bytes(value: Any) -> int:
    """Return approximately how many bytes of a line a value takes."""
    if isinstance(value, bytes):
        return 2 * len(value)
    if isinstance(value, str):
        size = len(value) if value.isascii() else len(value.encode("utf-8", "surrogateescape"))
        return size + sum(value.count(character) for character, _ in ESCAPES)
    return len(str(value))
