"""The tables that are copied: those of the models, compared with those of the file."""

from __future__ import annotations

import sqlite3
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import Column, Dialect, MetaData, Table
from sqlalchemy.exc import NoReferenceError
from sqlalchemy.schema import sort_tables_and_constraints

from ..backup.foreign_schemas import add_collations, is_strange
from ..errors import CopyError
from ..sqlite.tokens import quoted
from .columns.base import Codec
from .columns.choosing import codec_of
from .names import clipped
from .source import folded

ALEMBIC = "alembic_version"

_SHADOWS = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'shadow'"


@dataclass(frozen=True)
class CopiedColumn:
    """A column, and how its values are copied."""

    name: str
    codec: Codec
    nullable: bool


@dataclass(frozen=True)
class TablePlan:
    """A table of the models, and its rows in the file.

    ``high_water`` is the largest id that SQLite's AUTOINCREMENT has assigned, including ids of rows
    that were deleted since; None without AUTOINCREMENT.
    """

    table: Table
    columns: Sequence[CopiedColumn]
    rows: int
    high_water: int | None
    own_key: Sequence[str]
    """The file's own key. It identifies a row if the models have no primary key."""

    @property
    def name(self) -> str:
        """The name of the table, for messages."""
        return str(self.table.fullname)

    @cached_property
    def key(self) -> dict[str, int]:
        """The columns that identify a row, and their indexes in the rows of :attr:`select`."""
        places = {column.name: place for place, column in enumerate(self.columns)}
        names = [column.name for column in self.table.primary_key if column.name in places]
        if names:
            return {name: places[name] for name in names}
        return {name: place for place, name in enumerate(self.own_key, len(self.columns))}

    def key_of(self, row: tuple[Any, ...]) -> dict[str, Any]:
        """Return the key of a row that :attr:`select` has returned."""
        return {name: row[place] for name, place in self.key.items()}

    @cached_property
    def select(self) -> str:
        """The query for all rows; with the file's own key if the models have no primary key."""
        return self._select(
            *(name for name, place in self.key.items() if place >= len(self.columns))
        )

    @cached_property
    def select_copied(self) -> str:
        """The query for all rows, with only the columns that are copied."""
        return self._select()

    def _select(self, *further: str) -> str:
        names = [*(column.name for column in self.columns), *further]
        return f"SELECT {', '.join(map(quoted, names))} FROM {quoted(self.table.name)}"  # noqa: S608 - quoted


@dataclass(frozen=True)
class Plan:
    """All tables, parents first as far as there is an order. See :class:`.CopyReport`."""

    tables: Sequence[TablePlan]
    warnings: Sequence[str]
    revisions: Sequence[str]

    @property
    def rows(self) -> int:
        """The number of rows in all tables."""
        return sum(table.rows for table in self.tables)


def plan_copy(
    connection: sqlite3.Connection,
    metadata: MetaData,
    dialect: Dialect,
    not_null: Container[tuple[Table, str]] = (),
) -> Plan:
    """Compare the file with the models. Raise :class:`CopyError` if the file lacks something.

    ``not_null`` are the columns that do not accept NULL on the server, whatever the models say.
    """
    add_collations(connection)
    found = _names(connection, "SELECT name FROM sqlite_master WHERE type = 'table'")
    wanted = wanted_tables(metadata)
    if missing := [table.name for table in wanted if folded(table.name) not in found]:
        raise CopyError(
            f"tables of the models are missing in the file: {', '.join(missing)}; create them "
            "there (alembic upgrade head), or leave them out of the metadata"
        )
    warnings = []
    named = {folded(table.name) for table in wanted}
    # The shadow tables of a virtual table are derived from its rows.
    shadows = _names(connection, _SHADOWS) if sqlite3.sqlite_version_info >= (3, 37) else {}
    others = [
        name for low, name in found.items() if _is_left_out(low, named) and low not in shadows
    ]
    if others:
        warnings.append(
            f"tables that the models do not name are not copied: {', '.join(sorted(others))}"
        )
    warnings.extend(_of_schemas(wanted))
    high = _high_water(connection, found)
    tables = []
    for table in wanted:
        found_columns, left = _columns(connection, table)
        columns = [_copied(column, dialect, not_null) for column in found_columns]
        if left:
            names = ", ".join(f"{table.name}.{name}" for name in left)
            warnings.append(f"columns that the models do not name are not copied: {names}")
        warnings.extend(_padded(connection, table, columns))
        query = f"SELECT count(*) FROM {quoted(table.name)}"  # noqa: S608 - quoted
        (rows,) = connection.execute(query).fetchone()
        own_key = _own_key(connection, table)
        tables.append(TablePlan(table, columns, rows, high.get(folded(table.name)), own_key))
        _refuse_unreadable(connection, tables[-1])
    revisions: list[str] = []
    if ALEMBIC in found:
        query = f"SELECT version_num FROM {ALEMBIC}"  # noqa: S608 - a constant
        revisions = [str(revision) for (revision,) in connection.execute(query)]
    return Plan(tables, warnings, revisions)


def wanted_tables(metadata: MetaData) -> list[Table]:
    """Return the tables that are copied, parents first; Alembic's own is stamped instead."""
    # Cycles have no order, and none is needed here; sorted_tables would warn.
    by_name = sorted(metadata.tables.values(), key=lambda table: table.key)
    try:
        ordered = sort_tables_and_constraints(by_name)  # type: ignore[no-untyped-call]
    except NoReferenceError as error:
        raise CopyError(f"{error}: import the models that define it") from error
    tables = [table for table, _ in ordered if table is not None and table.name != ALEMBIC]
    if not tables:
        raise CopyError("the metadata has no tables: import the models before it is used")
    seen: dict[str, Table] = {}
    for table in tables:
        other = seen.setdefault(folded(table.name), table)
        if other is not table:
            raise CopyError(f"{other.fullname} and {table.fullname} are the same table in the file")
    return tables


def _is_left_out(name: str, named: Iterable[str]) -> bool:
    return name not in named and name != ALEMBIC and not name.startswith("sqlite_")


def _columns(connection: sqlite3.Connection, table: Table) -> tuple[list[Column[Any]], list[str]]:
    """Return the columns that are copied, and the names of those that the models do not name."""
    # Not by the SELECT itself: SQLite reads an unknown name in double quotes as a string.
    query = "SELECT name FROM pragma_table_xinfo(?)"
    found = _names(connection, query, table.name)
    hidden = _names(connection, f"{query} WHERE hidden = 1", table.name)  # of a virtual table
    wanted = [column for column in table.columns if column.computed is None]
    if missing := [column.name for column in wanted if folded(column.name) not in found]:
        raise CopyError(
            f"columns of {table.name} are missing in the file: {', '.join(missing)}; add them "
            "there (alembic upgrade head)"
        )
    named = {folded(column.name) for column in table.columns} | hidden.keys()
    left = [name for low, name in found.items() if low not in named]
    return wanted, left


def _of_schemas(tables: Iterable[Table]) -> Iterator[str]:
    """Yield a warning if models have a schema: another file attached by that name is not read."""
    names = [
        f"{table.fullname} from {table.name}"
        for table in tables
        if table.schema not in {None, "main"}
    ]
    if names:
        yield (
            "the models have schemas, and a copy reads one file, without those that the "
            "application has attached (ATTACH); these are copied from the file itself: "
            f"{', '.join(names)}"
        )


def _own_key(connection: sqlite3.Connection, table: Table) -> Sequence[str]:
    """Return the names that identify a row in SQLite: the file's primary key, or its rowid."""
    query = "SELECT name, pk FROM pragma_table_xinfo(?) ORDER BY pk"
    columns = connection.execute(query, [table.name]).fetchall()
    if key := [str(name) for name, pk in columns if pk > 0]:
        return key
    taken = {folded(str(name)) for name, _ in columns}
    # "If a table contains a user defined column named "rowid", "oid" or "_rowid_", then that name
    # always refers the explicitly declared column" (https://www.sqlite.org/rowidtable.html).
    rowids = [name for name in ("rowid", "_rowid_", "oid") if name not in taken]
    return rowids[:1] or [str(name) for name, _ in columns]


def _refuse_unreadable(connection: sqlite3.Connection, plan: TablePlan) -> None:
    try:
        connection.execute(f"{plan.select} LIMIT 0").fetchone()
    except sqlite3.OperationalError as error:
        if not is_strange(error):
            raise
        raise CopyError(
            f"{plan.name} cannot be read without what the application adds to its connections "
            f"({error}): a copy has only what SQLite itself has. If it computes a column, make "
            "that Computed in the models, or STORED in the file"
        ) from error


def _padded(
    connection: sqlite3.Connection, table: Table, columns: Sequence[CopiedColumn]
) -> Iterator[str]:
    """Yield a warning for each column that returns different texts on PostgreSQL than here."""
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


def _copied(
    column: Column[Any], dialect: Dialect, not_null: Container[tuple[Table, str]]
) -> CopiedColumn:
    forbidden = column.primary_key or (column.table, clipped(column.name)) in not_null
    return CopiedColumn(
        column.name, codec_of(column, dialect), bool(column.nullable and not forbidden)
    )


def _names(connection: sqlite3.Connection, query: str, *values: str) -> dict[str, str]:
    """Return the names that a query finds, by the form in which SQLite compares them."""
    return {folded(str(name)): str(name) for (name,) in connection.execute(query, values)}


def _high_water(connection: sqlite3.Connection, found: dict[str, str]) -> dict[str, int]:
    if "sqlite_sequence" not in found:
        return {}
    query = "SELECT name, seq FROM sqlite_sequence"
    return {folded(name): seq for name, seq in connection.execute(query) if isinstance(seq, int)}
