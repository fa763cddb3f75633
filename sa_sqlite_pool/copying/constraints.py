"""What several rows are needed for: orphans, and duplicates of what PostgreSQL holds unique.

SQLite's own enforcement is not enough to go by: foreign keys may have been off, a constraint of the
models may not be in the file, and NOCASE compares otherwise than PostgreSQL.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Column, ForeignKeyConstraint, Table, UniqueConstraint
from sqlalchemy.exc import SQLAlchemyError

from .columns.base import Kind, Problem
from .columns.choosing import SQLITE
from .misfits import Collector
from .source import quoted
from .tables import Plan, TablePlan


@dataclass(frozen=True)
class RowsQuery:
    """A query whose rows are misfits: the key of each, and then the values of ``columns``."""

    plan: TablePlan
    columns: Sequence[str]
    problem: Problem
    sql: str

    def run(self, connection: sqlite3.Connection, misfits: Collector) -> None:
        """Execute the query, and add what it finds."""
        key = list(self.plan.key)
        column = ", ".join(self.columns)
        for row in connection.execute(self.sql):
            values = row[len(key) :]
            found = values[0] if len(values) == 1 else values
            named = dict(zip(key, row, strict=False))
            misfits.add(self.plan.name, column, named, found, self.problem)


def queries(connection: sqlite3.Connection, plan: Plan) -> Iterator[RowsQuery]:
    """Return the queries for all that the models' constraints forbid, and the file's do not."""
    names = {table.table for table in plan.tables}
    for table in plan.tables:
        enforced = list(_enforced(connection, table.table))
        for columns, where in _unique(table.table):
            wanted = {column.name.lower() for column in columns}
            if not any(known <= wanted for known in enforced):
                yield _duplicates(table, columns, where)
        for key in table.table.foreign_key_constraints:
            if key.referred_table in names:
                yield _orphans(table, key, key.referred_table)


def _enforced(connection: sqlite3.Connection, table: Table) -> Iterator[set[str]]:
    """Return columns, in lower case, that are unique in the file itself, by any collation."""
    query = "SELECT name, pk, upper(type) FROM pragma_table_info(?) WHERE pk > 0"
    key = connection.execute(query, [table.name]).fetchall()
    if [(pk, type_) for _, pk, type_ in key] == [(1, "INTEGER")]:  # the rowid, without an index
        yield {key[0][0].lower()}
    query = 'SELECT name FROM pragma_index_list(?) WHERE "unique" AND NOT partial'
    for (index,) in connection.execute(query, [table.name]).fetchall():
        columns = connection.execute("SELECT name FROM pragma_index_info(?)", [index]).fetchall()
        if all(name is not None for (name,) in columns):
            yield {name.lower() for (name,) in columns}


def _unique(table: Table) -> Iterator[tuple[list[Column[object]], str]]:
    """Return the columns that are unique together, and the condition of a partial index."""
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


def _duplicates(plan: TablePlan, columns: list[Column[object]], where: str) -> RowsQuery:
    table, names = quoted(plan.table.name), [column.name for column in columns]
    # The rows after the first of each group. Equal as PostgreSQL compares: byte by byte.
    values = ", ".join(f"{quoted(name)} COLLATE BINARY" for name in names)
    known = " AND ".join(f"{quoted(name)} IS NOT NULL" for name in names)
    twice = (
        f"SELECT {values} FROM {table} WHERE {known}{where} "  # noqa: S608 - all are quoted
        f"GROUP BY {values} HAVING count(*) > 1"
    )
    left = f"({values})"
    sql = (
        f"SELECT {_key(plan)}, {', '.join(map(quoted, names))} FROM {table} "  # noqa: S608
        f"WHERE {left} IN ({twice}){where} ORDER BY {values}"
    )
    problem = Problem(Kind.DUPLICATE, f"{', '.join(names)} will be unique, and this is there twice")
    return RowsQuery(plan, names, problem, sql)


def _orphans(plan: TablePlan, key: ForeignKeyConstraint, parent: Table) -> RowsQuery:
    names = [element.parent.name for element in key.elements]
    others = [element.column.name for element in key.elements]
    pairs = list(zip(names, others, strict=True))
    on = " AND ".join(
        f"child.{quoted(name)} = parent.{quoted(other)} COLLATE BINARY" for name, other in pairs
    )
    known = " AND ".join(f"child.{quoted(name)} IS NOT NULL" for name in names)
    sql = (
        f"SELECT {_key(plan, 'child.')}, {', '.join(f'child.{quoted(name)}' for name in names)} "  # noqa: S608
        f"FROM {quoted(plan.table.name)} AS child LEFT JOIN {quoted(parent.name)} AS parent "
        f"ON {on} WHERE {known} AND parent.{quoted(others[0])} IS NULL"
    )
    problem = Problem(Kind.ORPHAN, f"{parent.name} has no row with this {', '.join(others)}")
    return RowsQuery(plan, names, problem, sql)


def _key(plan: TablePlan, prefix: str = "") -> str:
    return ", ".join(
        f"{prefix}{quoted(name) if name in plan.table.columns else name}" for name in plan.key
    )
