"""Tables that already exist on the server, compared with those that the models would create.

Types are compared by the server's own names: a temporary table is created with the types of the
models. Nothing is left of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, Table, exc, text

from ..misfits import Collector
from ..names import clipped, place_of
from .refusals import refusal, said
from .rights import compare_enums, is_usable, without_a_type

_TEMPORARY = "sa_sqlite_pool_types"

# For a domain, its base type.
_COLUMNS = text(
    """
SELECT attname, CASE typtype WHEN 'd' THEN format_type(typbasetype, typtypmod)
        ELSE format_type(atttypid, atttypmod) END,
    attnotnull, atthasdef OR attidentity <> '' OR typdefault IS NOT NULL, attgenerated <> ''
FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid
WHERE attrelid = to_regclass(:table) AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
)
_MAY_COMPARE = text("SELECT has_database_privilege(current_database(), 'TEMPORARY')")


class _Column(NamedTuple):
    """A column on the server, and the server's name for its type."""

    name: str
    type: str
    not_null: bool
    has_default: bool
    is_generated: bool


def compare(
    connection: Connection, tables: Iterable[Table], misfits: Collector, warnings: list[str]
) -> set[tuple[Table, str]]:
    """Add the differences of the tables that already exist to ``misfits``; add warnings.

    Return the columns of these tables that do not accept NULL.
    """
    tables = [table for table in tables if is_usable(connection, table, misfits, warnings)]
    for table in tables:
        for column, type_, reason in without_a_type(connection, table):
            misfits.add_schema(table.fullname, column, type_, reason)
    compare_enums(connection, tables, misfits)
    there = [
        (table, found)
        for table in tables
        if (found := _columns(connection, place_of(connection, table).sql))
    ]
    may_compare = not there or bool(connection.scalar(_MAY_COMPARE))
    if not may_compare:
        warnings.insert(
            0,
            "the types of the columns on the server were not compared: for that the role "
            "needs the right to create temporary tables (GRANT TEMPORARY ON DATABASE)",
        )
    for table, found in there:
        can_compare = may_compare and not any(without_a_type(connection, table))
        wanted = _types(connection, table, misfits) if can_compare else {}
        _compare(table, found, wanted, misfits)
    return {(table, one.name) for table, found in there for one in found if one.not_null}


def _columns(connection: Connection, name: str) -> list[_Column]:
    return [_Column(*row) for row in connection.execute(_COLUMNS, {"table": name})]


def _types(connection: Connection, table: Table, misfits: Collector) -> dict[str, str]:
    """Return the server's names for the types of the models' columns, by column name."""
    quote = connection.dialect.identifier_preparer.quote
    point = connection.begin_nested()
    try:
        columns = ", ".join(
            f"{quote(column.name)} {column.type.compile(dialect=connection.dialect)}"
            for column in table.columns
        )
        connection.exec_driver_sql(f"CREATE TEMPORARY TABLE {_TEMPORARY} ({columns})")
        found = _columns(connection, f"pg_temp.{_TEMPORARY}")
    except exc.SQLAlchemyError as error:
        if isinstance(error, exc.DBAPIError) and refusal(error) is None:
            raise
        misfits.add_schema(table.fullname, "", "the types of its columns", said(error))
        return {}
    finally:
        point.rollback()
    return {column.name: column.type for column in found}


def _compare(
    table: Table, found: Sequence[_Column], wanted: dict[str, str], misfits: Collector
) -> None:
    def differs(column: str, what: str, why: str) -> None:
        misfits.add_schema(table.fullname, column, what, why)

    there = {column.name: column for column in found}
    for column in table.columns:
        name = column.name
        if (other := there.pop(clipped(name), None)) is None:
            differs(name, "no such column on the server", "add it there, or drop the table")
            continue
        if other.is_generated != (column.computed is not None):
            kind = "computed" if other.is_generated else "not computed"
            differs(name, f"{kind} on the server", "the models say otherwise")
        type_ = wanted.get(clipped(name))
        if type_ is not None and not _suits(other.type, type_):
            differs(name, f"{other.type} on the server", f"{type_} in the models")
    for other in there.values():
        if other.not_null and not other.has_default:
            differs(
                other.name,
                "NOT NULL without a default on the server",
                "the models do not have it: drop it there, or give it a default",
            )


def _suits(found: str, wanted: str) -> bool:
    """Return whether a type on the server accepts and returns all values of the models' type."""
    kind, sizes = _parts(found)
    other, least = _parts(wanted)
    if kind in _TEXTS and other in _TEXTS:
        return not sizes or (bool(least) and sizes >= least)
    for widening in _WIDENING:
        if kind in widening and other in widening:
            return widening.index(kind) >= widening.index(other)
    if kind == other == "numeric":
        return not sizes or (sizes[1:] == least[1:] and sizes >= least)
    return (kind, sizes) == (other, least)


def _parts(type_: str) -> tuple[str, list[int]]:
    """Return the name of a type, and the numbers in its parentheses."""
    sizes = re.search(r"\(([\d,]+)\)", type_)
    if sizes is None:
        return type_, []
    numbers = [int(number) for number in sizes[1].split(",")]
    name = type_.replace(sizes[0], "")
    if name.startswith("time") and numbers == [_MICROSECONDS]:
        numbers = []  # "the default precision", and the largest
    return name, numbers


_MICROSECONDS = 6
_TEXTS = frozenset({"character varying", "text", "citext"})
_WIDENING = (("smallint", "integer", "bigint"), ("real", "double precision"))
