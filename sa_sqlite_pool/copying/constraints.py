"""Checks that need several rows: orphans, and duplicates of what has to be unique on PostgreSQL.

SQLite's own enforcement cannot be relied on: foreign keys may have been off, a constraint of the
models may not be in the file, and NOCASE compares differently from PostgreSQL.

Values are compared as SQLite stores them. If a column has values that may be equal on PostgreSQL
although they differ here, such as UUIDs with and without hyphens, all its values are compared as
they would be sent, by a function in Python.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, final

from sqlalchemy import Column, ForeignKeyConstraint, Table, UniqueConstraint
from sqlalchemy.exc import SQLAlchemyError

from ..sqlite.tokens import quoted
from .columns.base import NULL, Codec, Kind, Problem
from .columns.choosing import SQLITE
from .columns.numbers import Numeric
from .misfits import Collector
from .source import folded
from .tables import Plan, TablePlan


@dataclass(frozen=True)
class RowsQuery:
    """A query whose rows are misfits: the key of each, and then the values of ``columns``.

    The query ``may_fail``, and is then left to the server, if a part of it is the application's and
    may be unknown to SQLite, or if the server computes a column that the file may not have.
    """

    plan: TablePlan
    columns: Sequence[str]
    problem: Problem
    sql: str
    may_fail: bool

    def run(self, connection: sqlite3.Connection, misfits: Collector) -> None:
        """Execute the query, and add the misfits that it finds."""
        key = list(self.plan.key)
        column = ", ".join(self.columns)
        try:
            for row in connection.execute(self.sql):
                values = row[len(key) :]
                found = values[0] if len(values) == 1 else values
                named = dict(zip(key, row, strict=False))
                misfits.add(self.plan.name, column, named, found, self.problem)
        except sqlite3.OperationalError as error:
            # A condition in PostgreSQL's SQL, such as "s = 'a'::text", is left to the server.
            if not self.may_fail or "interrupt" in str(error):
                raise


Varied = set[tuple[Table, str]]
"""Columns with values that may be equal on PostgreSQL although they differ here."""


def key_columns(table: Table) -> set[str]:
    """Return the names of the columns that are unique on PostgreSQL, or reference such columns."""
    unique = {column.name for columns, _ in _unique(table) for column in columns}
    keys = table.foreign_key_constraints
    return unique | {element.parent.name for key in keys for element in key.elements}


def queries(connection: sqlite3.Connection, plan: Plan, varied: Varied) -> Iterator[RowsQuery]:
    """Yield the queries for everything that the models' constraints forbid, but not the file's."""
    sent = _Sent(connection, plan)
    names = {table.table for table in plan.tables}
    for table in plan.tables:
        enforced = list(_enforced(connection, table.table))
        for columns, where in _unique(table.table):
            wanted = {folded(column.name) for column in columns}
            may_fail = bool(where) or not all(sent.knows(table.table, one.name) for one in columns)
            if any((table.table, column.name) in varied for column in columns):
                yield _duplicates(table, columns, where, sent.expression, may_fail)
            elif not any(known <= wanted for known in enforced):
                yield _duplicates(table, columns, where, _stored, may_fail)
        for key in table.table.foreign_key_constraints:
            parent = key.referred_table
            if parent not in names:
                continue
            ends = [(table.table, element.parent.name) for element in key.elements]
            ends += [(parent, element.column.name) for element in key.elements]
            expression = _stored if varied.isdisjoint(ends) else sent.expression
            may_fail = not all(sent.knows(*end) for end in ends)
            yield _orphans(table, key, parent, expression, may_fail)


Expression = Callable[[Table, str], str]

# Names from ``PRAGMA encoding``, which Python accepts: "UTF-8", "UTF-16le", "UTF-16be".
_WRONG_BYTES = {"UTF-8": "surrogateescape"}


def _named(table: Table, name: str) -> str:
    # Without the table, SQLite would read a column that does not exist as a string.
    return f"{quoted(table.name)}.{quoted(name)}"


def _stored(table: Table, name: str) -> str:
    return f"{_named(table, name)} COLLATE BINARY"


@final
class _Sent:
    """SQLite functions that return values as they would be sent; misfits remain unchanged."""

    def __init__(self, connection: sqlite3.Connection, plan: Plan) -> None:
        self._connection = connection
        self._codecs = {
            (table.table, column.name): column.codec
            for table in plan.tables
            for column in table.columns
        }
        self._names: dict[tuple[Table, str], str] = {}
        (encoding,) = connection.execute("PRAGMA encoding").fetchone()
        self._encoding = str(encoding)

    def knows(self, table: Table, name: str) -> bool:
        """Return whether a column is copied; the server computes the others."""
        return (table, name) in self._codecs

    def expression(self, table: Table, name: str) -> str:
        """Return the SQL for the values of a column, and register its function."""
        column = table, name
        if not self.knows(*column):
            return _stored(table, name)
        if column not in self._names:
            self._names[column] = f"sent_{len(self._names)}"
            function = partial(_as_sent, self._codecs[column], self._encoding)
            self._connection.create_function(self._names[column], 2, function)
        value = _named(table, name)
        # A text is passed as bytes, in the encoding of the file: they may be invalid in it, and
        # then the function would not be called.
        data = f"CASE typeof({value}) WHEN 'text' THEN CAST({value} AS BLOB) ELSE {value} END"
        return f"{self._names[column]}(typeof({value}), {data})"


def _as_sent(codec: Codec, encoding: str, kind: str, stored: Any) -> Any:
    if stored is None:
        return None
    try:
        value = stored
        if kind == "text":
            value = stored.decode(encoding, _WRONG_BYTES.get(encoding, "surrogatepass"))
        (form,) = codec.forms([value])
    except Exception:  # it does not fit, which is reported; a type may raise anything
        return stored
    if form == NULL:
        return None
    if isinstance(codec, Numeric) and "." in form:  # like an integer's, which it may reference
        form = form.rstrip("0").rstrip(".")
    return form.encode("utf-8", "surrogatepass")


def _enforced(connection: sqlite3.Connection, table: Table) -> Iterator[set[str]]:
    """Yield the sets of columns, as folded names, that are unique in the file by any collation."""
    query = "SELECT name, pk, upper(type) FROM pragma_table_info(?) WHERE pk > 0"
    key = connection.execute(query, [table.name]).fetchall()
    if [(pk, type_) for _, pk, type_ in key] == [(1, "INTEGER")]:  # the rowid, without an index
        yield {folded(key[0][0])}
    query = 'SELECT name FROM pragma_index_list(?) WHERE "unique" AND NOT partial'
    for (index,) in connection.execute(query, [table.name]).fetchall():
        columns = connection.execute("SELECT name FROM pragma_index_info(?)", [index]).fetchall()
        if all(name is not None for (name,) in columns):
            yield {folded(name) for (name,) in columns}


def _unique(table: Table) -> Iterator[tuple[list[Column[object]], str]]:
    """Yield the columns that are unique together, and the condition of a partial index."""
    for constraint in table.constraints:
        if isinstance(constraint, UniqueConstraint):
            yield list(constraint.columns), ""
    if len(table.primary_key.columns) > 0:
        yield list(table.primary_key.columns), ""
    for index in table.indexes:
        columns = list(index.columns)
        # An expression is left to PostgreSQL.
        if not index.unique or [*index.expressions] != columns:
            continue
        where = index.dialect_options["postgresql"]["where"]
        if where is None:
            yield columns, ""
            continue
        try:
            text = (
                where
                if isinstance(where, str)
                else where.compile(dialect=SQLITE, compile_kwargs={"literal_binds": True})
            )
        except SQLAlchemyError:  # not SQLite's language: left to PostgreSQL
            continue
        yield columns, f" AND ({text})"


def _duplicates(
    plan: TablePlan,
    columns: list[Column[object]],
    where: str,
    expression: Expression,
    may_fail: bool,
) -> RowsQuery:
    table, names = quoted(plan.table.name), [column.name for column in columns]
    found = [_named(plan.table, name) for name in names]
    # All rows of each group. They are compared as by PostgreSQL: byte by byte.
    values = ", ".join(expression(plan.table, name) for name in names)
    known = " AND ".join(f"{name} IS NOT NULL" for name in found)
    twice = (
        f"SELECT {values} FROM {table} WHERE {known}{where} "  # noqa: S608 - all are quoted
        f"GROUP BY {values} HAVING count(*) > 1"
    )
    order = ", ".join(_stored(plan.table, name) for name in plan.key)
    sql = (
        f"SELECT {_key(plan)}, {', '.join(found)} FROM {table} "  # noqa: S608
        f"WHERE ({values}) IN ({twice}){where} ORDER BY {values}, {order}"
    )
    why = f"{', '.join(names)} must be unique, and this value occurs more than once"
    problem = Problem(Kind.DUPLICATE, why)
    return RowsQuery(plan, names, problem, sql, may_fail)


def _orphans(
    plan: TablePlan,
    key: ForeignKeyConstraint,
    parent: Table,
    expression: Expression,
    may_fail: bool,
) -> RowsQuery:
    names = [element.parent.name for element in key.elements]
    others = [element.column.name for element in key.elements]
    found = [_named(plan.table, name) for name in names]
    child_values = [expression(plan.table, name) for name in names]
    parent_values = [expression(parent, name) for name in others]
    known = " AND ".join(f"{name} IS NOT NULL" for name in found)
    there = " AND ".join(f"{value} IS NOT NULL" for value in parent_values)
    sql = (
        f"SELECT {_key(plan)}, {', '.join(found)} FROM {quoted(plan.table.name)} "  # noqa: S608
        f"WHERE {known} AND ({', '.join(child_values)}) NOT IN "
        f"(SELECT {', '.join(parent_values)} FROM {quoted(parent.name)} WHERE {there})"
    )
    problem = Problem(Kind.ORPHAN, f"{parent.name} has no row with this {', '.join(others)}")
    return RowsQuery(plan, names, problem, sql, may_fail)


def _key(plan: TablePlan) -> str:
    return ", ".join(map(quoted, plan.key))
