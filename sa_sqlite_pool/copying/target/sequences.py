"""Sequences on the server, set past the values in the tables and those SQLite has assigned."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import NamedTuple

from sqlalchemy import Connection, text
from sqlalchemy import Sequence as DBSequence

from ..columns.base import Problem
from ..misfits import Collector
from ..names import clipped, place_of, quoted
from ..source import folded
from ..tables import Plan, TablePlan
from .statements import execute

# Those that a column owns (SERIAL, IDENTITY), and those that its default depends on.
_OF_COLUMNS = text(
    """
SELECT attname::text, to_regclass(pg_get_serial_sequence(:table, attname::text))::text
FROM pg_attribute WHERE attrelid = to_regclass(:table) AND attnum > 0 AND NOT attisdropped
UNION
SELECT attname::text, refobjid::regclass::text
FROM pg_attrdef JOIN pg_attribute ON attrelid = adrelid AND attnum = adnum
JOIN pg_depend ON classid = 'pg_attrdef'::regclass AND objid = pg_attrdef.oid
    AND refclassid = 'pg_class'::regclass
JOIN pg_class ON pg_class.oid = refobjid AND relkind = 'S'
WHERE adrelid = to_regclass(:table)
ORDER BY 1, 2
"""
)
_LIMITS = text(
    "SELECT seqincrement > 0, seqmax FROM pg_sequence WHERE seqrelid = to_regclass(:sequence)"
)


class _Numbered(NamedTuple):
    """A column, and the name of its sequence in SQL."""

    column: str
    sequence: str


def refuse_marks(plan: Plan, misfits: Collector) -> None:
    """Add AUTOINCREMENT marks that do not fit their columns, though no row has them any more."""
    for table in plan.tables:
        for column in table.columns:
            if not _has_mark(table, column.name):
                continue
            problem = column.codec.problem(table.high_water)
            if problem is not None:
                why = f"the largest id that AUTOINCREMENT has assigned: {problem.why}"
                known = Problem(problem.kind, why)
                misfits.add(table.name, column.name, {}, table.high_water, known)


def restart(connection: Connection, table: TablePlan) -> list[str]:
    """Set the sequences of a table past its largest values, and those that SQLite has assigned.

    Return warnings about sequences that have no number left, or could not be set.
    """
    name = place_of(connection, table.table).sql
    warnings = []
    for column, sequence in _sequences(connection, table, name):
        ascends, end = connection.execute(_LIMITS, {"sequence": sequence}).one()
        extreme = "max" if ascends else "min"
        used = execute(connection, f"SELECT {extreme}({quoted(column)}) FROM {name}").scalar()  # noqa: S608
        if ascends and (mark := table.high_water) is not None and _has_mark(table, column):
            used = mark if used is None else max(mark, used)
        if used is None:
            continue
        if isinstance(used, Decimal) and used == used.to_integral_value():  # of NUMERIC
            used = int(used)
        if not isinstance(used, int):
            warnings.append(
                f"the sequence {sequence} is in the default of {table.name}.{column}, which "
                "contains no numbers: set it past those that are in use (setval)"
            )
            continue
        next_ = execute(
            connection,
            f"SELECT last_value + is_called::int FROM {sequence}",  # noqa: S608
        ).scalar()
        if (used >= next_) if ascends else (used <= next_):
            _set(connection, sequence, used)
        if ascends and used == end:
            warnings.append(
                f"the largest {column} of {table.name}, {used}, is the last that the sequence "
                f"{sequence} can assign: give both a wider type before adding rows"
            )
    return warnings


def _has_mark(table: TablePlan, column: str) -> bool:
    """Return whether SQLite has assigned the numbers of a column, which is the file's own key."""
    return table.high_water is not None and folded(column) == folded(table.own_key[0])


def _set(connection: Connection, sequence: str, used: int) -> None:
    """Make a sequence continue after a number, even if that is its last.

    setval() alone survives a ROLLBACK; RESTART gives the sequence a new file, which does not.
    """
    execute(connection, f"ALTER SEQUENCE {sequence} RESTART WITH {used}")
    setval = text("SELECT setval(to_regclass(:sequence), :used, TRUE)")
    connection.execute(setval, {"sequence": sequence, "used": used})


def _sequences(connection: Connection, table: TablePlan, name: str) -> Iterator[_Numbered]:
    found = connection.execute(_OF_COLUMNS, {"table": name}).all()
    for column in table.table.columns:
        there = clipped(column.name)
        yield from (_Numbered(column.name, one) for at, one in found if at == there and one)
        if isinstance(column.default, DBSequence):
            yield _Numbered(column.name, place_of(connection, column.default).sql)
