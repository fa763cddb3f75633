"""What is on the server in place of the models' tables, and what the role may do with it.

This is known, and reported, before any rows are copied: a copy drops and adds foreign keys, and
sets sequences, which only the owner may do; and something other than a table accepts no rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sqlalchemy import Connection, Table, text, types
from sqlalchemy.exc import CompileError

from ..columns.choosing import bare
from ..misfits import Collector
from ..names import place_of

# https://www.postgresql.org/docs/current/catalog-pg-class.html
_NO_TABLES = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}

_PLACE = text(
    """
SELECT relkind::text, pg_get_userbyid(relowner), pg_has_role(relowner, 'USAGE'),
    has_table_privilege(oid, 'INSERT'),
    EXISTS (SELECT FROM pg_constraint WHERE conrelid = pg_class.oid AND contype = 'f'),
    EXISTS (SELECT FROM pg_depend WHERE refclassid = 'pg_class'::regclass
        AND refobjid = pg_class.oid AND deptype IN ('a', 'i')
        AND classid = 'pg_class'::regclass AND EXISTS
        (SELECT FROM pg_class sequence WHERE sequence.oid = objid AND relkind = 'S'))
FROM pg_class WHERE oid = to_regclass(:table)
"""
)
_LABELS = text("SELECT enumlabel FROM pg_enum WHERE enumtypid = to_regtype(:type)")


def is_usable(
    connection: Connection, table: Table, misfits: Collector, warnings: list[str]
) -> bool:
    """Return whether the place of a table contains a table, or nothing.

    Add to ``misfits`` anything else, and what only the owner of the table may do; add warnings.
    """
    place = {"table": place_of(connection, table).sql}
    found = connection.execute(_PLACE, place).one_or_none()
    if found is None:
        return True
    kind, owner, owns, may_insert, has_keys, has_sequences = found
    if kind in _NO_TABLES:
        misfits.add_schema(
            table.fullname,
            "",
            f"{_NO_TABLES[kind]} on the server",
            "drop it there, or give it another name",
        )
        return False
    needs = [
        *(["drops and adds its foreign keys"] if has_keys else []),
        *(["sets its sequence"] if has_sequences else []),
    ]
    if needs and not owns:
        misfits.add_schema(
            table.fullname,
            "",
            f"the role {owner} owns it",
            f"a copy {' and '.join(needs)}, which only the owner may do: use the URL of that "
            "role, or change the owner (ALTER TABLE … OWNER TO …)",
        )
    elif not may_insert:
        warnings.append(
            f"the role of the URL may not write to {table.fullname}: GRANT ALL ON TABLE … TO …"
        )
    return True


def compare_enums(connection: Connection, tables: Iterable[Table], misfits: Collector) -> None:
    """Add to ``misfits`` the labels of the models' enums that the server's enums do not have."""
    dialect = connection.dialect
    for table in tables:
        for column in table.columns:
            enum = bare(column.type.dialect_impl(dialect))
            if not isinstance(enum, types.Enum):
                continue
            try:
                name = column.type.compile(dialect=dialect)
            except CompileError:  # reported elsewhere
                continue
            there = set(connection.scalars(_LABELS, {"type": name}))
            missing = [label for label in enum.enums if there and label not in there]
            if missing:
                labels = ", ".join(map(repr, missing))
                misfits.add_schema(
                    table.fullname,
                    column.name,
                    f"the enum {name} on the server does not have {labels}",
                    "add it there (ALTER TYPE … ADD VALUE)",
                )


def without_a_type(connection: Connection, table: Table) -> Iterator[tuple[str, str, str]]:
    """Yield the columns for which PostgreSQL has no type: the name, the type, and the reason."""
    for column in table.columns:
        try:
            column.type.compile(dialect=connection.dialect)
        except CompileError as error:
            reason = " ".join(str(error).split()).rstrip(".")
            if isinstance(column.type, types.NullType):
                reason, advice = "it has no type", "give it one"
            elif isinstance(column.type, types.Enum):
                advice = "Enum(..., name=…)"
            else:
                advice = "give it one that PostgreSQL has: with_variant(…, 'postgresql')"
            yield column.name, repr(column.type), f"{reason}: {advice}"
