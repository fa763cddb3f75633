"""The tables on PostgreSQL: created or found empty, and completed before and after the rows.

Everything is in the transaction of the copy. "PostgreSQL … the ability to perform DDL changes in a
transaction" leaves nothing of a copy that fails; a sequence is set by RESTART, since "in contrast
to a setval call, a RESTART operation on a sequence is transactional"
(https://www.postgresql.org/docs/current/sql-altersequence.html).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, final

from sqlalchemy import Connection, MetaData, Table, text

from ...errors import CopyError
from ..names import Place, place_of, quoted
from ..server.refusals import refused
from ..tables import Plan, TablePlan
from .revisions import refuse_other_revisions, revisions_there, stamp
from .sequences import restart
from .statements import execute, exists

_FOREIGN_KEYS = text(
    """
SELECT conname, pg_get_constraintdef(oid), quote_literal(obj_description(oid, 'pg_constraint'))
FROM pg_constraint
WHERE conrelid = to_regclass(:table) AND contype = 'f' AND conparentid = 0 ORDER BY conname
"""
)
_INDEXES = text(
    """
SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid), quote_ident(spcname),
    quote_literal(obj_description(indexrelid, 'pg_class'))
FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
LEFT JOIN pg_tablespace ON pg_tablespace.oid = reltablespace
WHERE indrelid = to_regclass(:table) AND NOT EXISTS
    (SELECT FROM pg_constraint WHERE conindid = indexrelid AND contype IN ('p', 'u', 'x'))
ORDER BY 1
"""
)


Step = tuple[str, Callable[[Connection], object]]
"""What a step does, as a noun phrase, and the step."""


_USED = (
    "these tables already have rows on the server: {}; a copy goes into an empty database: use a "
    "new one (createdb), or empty them (TRUNCATE) if nothing in them is needed"
)
SEEDED = (
    "these tables have rows as soon as they are created: {}; a copy adds those of the file: "
    "remove what the models execute after they are created (after_create)"
)


def refuse_rows(connection: Connection, tables: Iterable[Table], why: str = _USED) -> None:
    """Raise :class:`CopyError` if any of the tables exists with rows; ``why`` names them."""
    filled = [
        table.fullname
        for table in tables
        if exists(connection, name := place_of(connection, table).sql)
        and execute(connection, f"SELECT EXISTS (SELECT FROM {name})").scalar()  # noqa: S608
    ]
    if filled:
        raise CopyError(why.format(", ".join(filled)))


def refuse_collations(connection: Connection, tables: Iterable[Table]) -> None:
    """Raise :class:`CopyError` if a column names a collation that the server does not have."""
    query = text("SELECT count(*) FROM pg_collation WHERE collname = :name")
    for table in tables:
        for column in table.columns:
            name = getattr(column.type.dialect_impl(connection.dialect), "collation", None)
            if name and not connection.scalar(query, {"name": name}):
                raise CopyError(
                    f"{table.fullname}.{column.name} has the collation {name}, which PostgreSQL "
                    "does not have; use it only for SQLite: String().with_variant("
                    f"String(collation={name!r}), 'sqlite')"
                )


@final
class Target:
    """The tables of a plan, on a connection in the transaction of the copy."""

    def __init__(self, connection: Connection, plan: Plan, metadata: MetaData) -> None:
        self._connection = connection
        self._plan = plan
        self._metadata = metadata
        self._places = {table.name: place_of(connection, table.table) for table in plan.tables}
        self._names = {name: place.sql for name, place in self._places.items()}
        self.warnings: list[str] = []
        self._indexes: list[Step] = []
        self._foreign_keys: list[Step] = []

    # -- before the rows ------------------------------------------------------------------------

    def prepare(self) -> None:
        """Create the tables that are missing; leave foreign keys and indexes for later.

        Existing tables, for example from Alembic, have to be empty, and are used as they are; only
        their foreign keys are dropped until the rows have been copied.
        """
        there = [
            table
            for table in self._plan.tables
            if exists(self._connection, self._names[table.name])
        ]
        if there:
            names = ", ".join(self._names[table.name] for table in there)
            self._execute(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE")
        refuse_rows(self._connection, [table.table for table in there])
        refuse_other_revisions(self._plan.revisions, revisions_there(self._connection))
        tables = [table.table for table in self._plan.tables]
        with refused("creating the tables"):
            self._metadata.create_all(self._connection, tables=tables)
        for table in self._plan.tables:
            self._set_aside_foreign_keys(table)
        for table in self._plan.tables:
            if table not in there:
                self._set_aside_indexes(table)

    def _set_aside_foreign_keys(self, table: TablePlan) -> None:
        name = self._names[table.name]
        for key, definition, comment in self._rows(_FOREIGN_KEYS, table):
            self._execute(f"ALTER TABLE {name} DROP CONSTRAINT {quoted(key)}")
            sql = [f"ALTER TABLE {name} ADD CONSTRAINT {quoted(key)} {definition}"]
            if comment is not None:
                sql.append(f"COMMENT ON CONSTRAINT {quoted(key)} ON {name} IS {comment}")
            self._foreign_keys.append(_step(f"adding the foreign key {key} of {table.name}", *sql))

    def _set_aside_indexes(self, table: TablePlan) -> None:
        for index, definition, tablespace, comment in self._rows(_INDEXES, table):
            self._execute(f"DROP INDEX {index}")
            sql = [definition]
            if tablespace is not None:  # which the definition does not contain
                sql.append(f"ALTER INDEX {index} SET TABLESPACE {tablespace}")
            if comment is not None:
                sql.append(f"COMMENT ON INDEX {index} IS {comment}")
            self._indexes.append(_step(f"creating the index {index} of {table.name}", *sql))

    # -- the rows -------------------------------------------------------------------------------

    def place(self, table: TablePlan) -> Place:
        """Return where the table is."""
        return self._places[table.name]

    def query(self, table: TablePlan) -> str:
        """Return the query that reads the rows back."""
        columns = ", ".join(
            column.codec.expression(quoted(column.name)) for column in table.columns
        )
        return f"SELECT {columns} FROM {self._names[table.name]}"  # noqa: S608 - all are quoted

    # -- after the rows -------------------------------------------------------------------------

    def finish(self) -> Sequence[Step]:
        """Return the steps that complete the tables, to be called one after the other."""
        tables = self._plan.tables
        steps: list[Step] = [
            # Here, since they may change rows. "cannot ALTER TABLE … because it has pending trigger
            # events". What is deferred from now on is executed at once.
            _step("executing deferred constraints and triggers", "SET CONSTRAINTS ALL IMMEDIATE"),
            *self._indexes,
            *self._foreign_keys,
            *(
                (f"setting the sequences of {one.name}", partial(self._restart, one))
                for one in tables
            ),
            *(_step(f"ANALYZE of {name}", f"ANALYZE {name}") for name in self._names.values()),
        ]
        if revisions := self._plan.revisions:
            steps.append(("stamping Alembic's revision", partial(stamp, revisions=revisions)))
        return steps

    def _restart(self, table: TablePlan, connection: Connection) -> None:
        self.warnings.extend(restart(connection, table))

    # -- SQL ------------------------------------------------------------------------------------

    def _execute(self, sql: str) -> None:
        execute(self._connection, sql)

    def _rows(self, query: Any, table: TablePlan) -> list[Any]:
        return list(self._connection.execute(query, {"table": self._names[table.name]}))


def _step(what: str, *sql: str) -> Step:
    def execute_all(connection: Connection) -> None:
        for statement in sql:
            execute(connection, statement)

    return what, execute_all
