"""Which tables are copied: those of the models, beside those of the file."""

from __future__ import annotations

import sqlite3
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from sqlalchemy import Column, Dialect, MetaData, Table
from sqlalchemy.exc import NoReferenceError
from sqlalchemy.schema import sort_tables_and_constraints

from ..errors import CopyError
from .columns.base import Codec
from .columns.choosing import codec_of
from .source import quoted

ALEMBIC = "alembic_version"


@dataclass(frozen=True)
class CopiedColumn:
    """A column, and how its values go over."""

    name: str
    codec: Codec
    nullable: bool


@dataclass(frozen=True)
class TablePlan:
    """A table of the models, and its rows in the file.

    ``high_water`` is the largest id that SQLite's AUTOINCREMENT has given, rows that were deleted
    since included; None without AUTOINCREMENT.
    """

    table: Table
    columns: Sequence[CopiedColumn]
    rows: int
    high_water: int | None

    @property
    def name(self) -> str:
        """The name of the table, for messages."""
        return str(self.table.fullname)

    @cached_property
    def key(self) -> dict[str, int]:
        """The columns that name a row, and their places in a row that :attr:`select` gives."""
        places = {column.name: place for place, column in enumerate(self.columns)}
        names = [column.name for column in self.table.primary_key if column.name in places]
        return {name: places[name] for name in names} or {"rowid": len(self.columns)}

    @cached_property
    def select(self) -> str:
        """The query for all rows; with their rowids if the table has no primary key."""
        names = [quoted(column.name) for column in self.columns]
        if "rowid" in self.key and len(self.columns) in self.key.values():
            names.append("rowid")
        return f"SELECT {', '.join(names)} FROM {quoted(self.table.name)}"  # noqa: S608 - quoted


@dataclass(frozen=True)
class Plan:
    """All tables, parents first as far as there is an order. See :class:`.CopyReport`."""

    tables: Sequence[TablePlan]
    warnings: Sequence[str]
    revisions: Sequence[str]

    @property
    def rows(self) -> int:
        """The rows of all tables."""
        return sum(table.rows for table in self.tables)


def with_existing(plan: Plan, not_null: Container[tuple[Table, str]], warnings: list[str]) -> Plan:
    """Return the plan with what is known of tables on the server: columns that take no NULL."""

    def strict(table: TablePlan, column: CopiedColumn) -> CopiedColumn:
        there = (table.table, column.name) in not_null
        return replace(column, nullable=column.nullable and not there)

    tables = [
        replace(table, columns=[strict(table, column) for column in table.columns])
        for table in plan.tables
    ]
    return replace(plan, tables=tables, warnings=[*plan.warnings, *warnings])


def plan_copy(connection: sqlite3.Connection, metadata: MetaData, dialect: Dialect) -> Plan:
    """Compare the file with the models. Raise :class:`CopyError` if something is missing there."""
    found = _names(connection, "SELECT name FROM sqlite_master WHERE type = 'table'")
    wanted = wanted_tables(metadata)
    if missing := [table.name for table in wanted if table.name.lower() not in found]:
        raise CopyError(
            f"tables of the models are missing in the file: {', '.join(missing)}; create them "
            "there (alembic upgrade head), or leave them out of the metadata"
        )
    warnings = []
    named = {table.name.lower() for table in wanted}
    others = [name for low, name in found.items() if _is_left_out(low, named)]
    if others:
        warnings.append(
            f"tables that the models do not name are not copied: {', '.join(sorted(others))}"
        )
    high = _high_water(connection, found)
    tables = []
    for table in wanted:
        columns, left = _columns(connection, table, dialect)
        if left:
            names = ", ".join(f"{table.name}.{name}" for name in left)
            warnings.append(f"columns that the models do not name are not copied: {names}")
        warnings.extend(_padded(connection, table, columns))
        query = f"SELECT count(*) FROM {quoted(table.name)}"  # noqa: S608 - quoted
        (rows,) = connection.execute(query).fetchone()
        tables.append(TablePlan(table, columns, rows, high.get(table.name.lower())))
    revisions: list[str] = []
    if ALEMBIC in found:
        query = f"SELECT version_num FROM {ALEMBIC}"  # noqa: S608 - a constant
        revisions = [str(revision) for (revision,) in connection.execute(query)]
    return Plan(tables, warnings, revisions)


def wanted_tables(metadata: MetaData) -> list[Table]:
    """Return the tables that are copied, parents first; Alembic's own is stamped instead."""
    # In circles there is no order, which nothing here needs; sorted_tables would warn.
    by_name = sorted(metadata.tables.values(), key=lambda table: table.key)
    try:
        ordered = sort_tables_and_constraints(by_name)  # type: ignore[no-untyped-call]
    except NoReferenceError as error:
        raise CopyError(f"{error}: import the models that have it") from error
    tables = [table for table, _ in ordered if table is not None and table.name != ALEMBIC]
    if not tables:
        raise CopyError("the metadata has no tables: import the models before it is used")
    seen: dict[str, Table] = {}
    for table in tables:
        other = seen.setdefault(table.name.lower(), table)
        if other is not table:
            raise CopyError(f"{other.fullname} and {table.fullname} are one table in the file")
    return tables


def _is_left_out(name: str, named: Iterable[str]) -> bool:
    return name not in named and name != ALEMBIC and not name.startswith("sqlite_")


def _columns(
    connection: sqlite3.Connection, table: Table, dialect: Dialect
) -> tuple[list[CopiedColumn], list[str]]:
    """Return the columns that are copied, and the names of those that the models do not name."""
    # Not by the SELECT itself: SQLite takes an unknown name in double quotes for a string.
    query = "SELECT name FROM pragma_table_xinfo(?)"
    found = _names(connection, query, table.name)
    wanted = [column for column in table.columns if column.computed is None]
    if missing := [column.name for column in wanted if column.name.lower() not in found]:
        raise CopyError(
            f"columns of {table.name} are missing in the file: {', '.join(missing)}; add them "
            "there (alembic upgrade head)"
        )
    named = {column.name.lower() for column in table.columns}
    left = [name for low, name in found.items() if low not in named]
    return [_copied(column, dialect) for column in wanted], left


def _padded(
    connection: sqlite3.Connection, table: Table, columns: Sequence[CopiedColumn]
) -> Iterator[str]:
    """Yield a warning for each column that gives other texts back on PostgreSQL than here."""
    for column in columns:
        length = column.codec.padded_to
        if length is None:
            continue
        name = quoted(column.name)
        query = f"SELECT 1 FROM {quoted(table.name)} WHERE length({name}) < {length} LIMIT 1"  # noqa: S608
        if connection.execute(query).fetchone() is not None:
            yield (
                f"{table.name}.{column.name} is CHAR({length}) and has shorter texts, which "
                f"PostgreSQL fills with spaces: make it String({length}) in the models"
            )


def _copied(column: Column[Any], dialect: Dialect) -> CopiedColumn:
    nullable = bool(column.nullable) and not column.primary_key
    return CopiedColumn(column.name, codec_of(column, dialect), nullable)


def _names(connection: sqlite3.Connection, query: str, *values: str) -> dict[str, str]:
    """Return names as they are, by their lower case: SQLite does not tell them apart."""
    return {str(name).lower(): str(name) for (name,) in connection.execute(query, values)}


def _high_water(connection: sqlite3.Connection, found: dict[str, str]) -> dict[str, int]:
    if "sqlite_sequence" not in found:
        return {}
    query = "SELECT name, seq FROM sqlite_sequence"
    return {name.lower(): seq for name, seq in connection.execute(query) if isinstance(seq, int)}
