"""One pass over all rows that reports every value that does not fit, before anything is copied."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, final

from ..execution.connection_thread import ConnectionThread
from .columns.base import READ_AS_NULL, Kind, Problem
from .constraints import Varied, key_columns, queries
from .misfits import Collector
from .source import Row, Rows, columns_of, is_not_utf8, read_any_text, read_texts
from .tables import CopiedColumn, Plan, TablePlan

_NULL = Problem(Kind.NOT_NULL, "the column is NOT NULL, or part of the primary key")


async def check(
    worker: ConnectionThread, plan: Plan, misfits: Collector, progress: Callable[[int], object]
) -> None:
    """Examine all rows of the snapshot; after each block, call ``progress`` with the number so far.

    A cancellation ends this between two blocks, or interrupts SQLite.
    """
    done, varied = 0, Varied()
    for table in plan.tables:
        examination = Examination(table, misfits, varied)
        while not examination.over:
            await worker.run(examination.step)
            progress(done + examination.rows)
        done += examination.rows
    await worker.run(lambda connection: _constraints(connection, plan, varied, misfits))


def _constraints(
    connection: sqlite3.Connection, plan: Plan, varied: Varied, misfits: Collector
) -> None:
    read_any_text(connection)
    try:
        for query in list(queries(connection, plan, varied)):
            query.run(connection, misfits)
    finally:
        read_texts(connection)


@final
class Examination:
    """The examination of one table's rows, a block at a time, in the thread of the connection.

    A block is examined a column at a time, by functions in C. Only if something is wrong in a
    column are its values examined one by one. If a text is not UTF-8, ``sqlite3`` returns no more
    rows: the table is then examined again from the beginning, with such texts as they are.
    """

    def __init__(self, plan: TablePlan, misfits: Collector, varied: Varied) -> None:
        self.rows = 0
        self.over = False
        self._plan = plan
        self._misfits = misfits
        self._varied = varied
        keys = key_columns(plan.table)
        self._keys = {column.name for column in plan.columns if column.name in keys}
        self._source: Rows | None = None

    def step(self, connection: sqlite3.Connection) -> None:
        """Examine the next block."""
        try:
            if self._source is None:
                self._source = Rows(connection, self._plan.select)
            rows = self._source.next()
        except sqlite3.OperationalError as error:
            if connection.text_factory is not str or not is_not_utf8(error):
                raise
            read_any_text(connection)
            self._misfits.forget(self._plan.name)
            self._source, self.rows = None, 0
            return
        self.rows += len(rows)
        if rows:
            self._examine(rows)
        else:
            self.over = True
            read_texts(connection)

    def _examine(self, rows: list[Row]) -> None:
        for column, values in zip(self._plan.columns, columns_of(rows), strict=False):
            known: Sequence[Any] = values
            if None in values:
                known = [value for value in values if value is not None]
            forbidden = len(known) < len(values) and not column.nullable
            if forbidden or not column.codec.all_fit(known):
                self._name(rows, column, values)
            if column.name in self._keys and not column.codec.are_plain(known):
                self._varied.add((self._plan.table, column.name))
                self._keys.remove(column.name)

    def _name(self, rows: list[Row], column: CopiedColumn, values: Sequence[Any]) -> None:
        for row, value in zip(rows, values, strict=True):
            if value is None:
                problem = None if column.nullable else _NULL
            else:
                problem = column.codec.problem(value)
                if problem is READ_AS_NULL and column.nullable:
                    problem = None
            if problem is not None:
                self._misfits.add(
                    self._plan.name, column.name, self._plan.key_of(row), value, problem
                )
