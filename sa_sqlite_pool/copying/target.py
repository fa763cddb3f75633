"""The tables on PostgreSQL: created or found empty, and made complete around the rows.

Everything is in the transaction of the copy. "PostgreSQL … the ability to perform DDL changes in a
transaction" leaves nothing of a copy that fails; a sequence is set by RESTART, since "in contrast
to a setval call, a RESTART operation on a sequence is transactional"
(https://www.postgresql.org/docs/current/sql-altersequence.html).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, final

from sqlalchemy import Connection, MetaData, Table, bindparam, text
from sqlalchemy import Sequence as DBSequence

from ..errors import CopyError
from .server.refusals import refused
from .tables import ALEMBIC, Plan, TablePlan

# The time zone and the styles of what is read back; limits that are not meant for a copy.
_SETTINGS = {
    "timezone": "UTC",
    "datestyle": "ISO, YMD",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "lock_timeout": "10s",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}

_FOREIGN_KEYS = text(
    "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint "
    "WHERE conrelid = to_regclass(:table) AND contype = 'f' AND conparentid = 0 ORDER BY conname"
)
_INDEXES = text(
    "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index "
    "WHERE indrelid = to_regclass(:table) AND NOT EXISTS (SELECT FROM pg_constraint "
    "WHERE conindid = indexrelid AND contype IN ('p', 'u', 'x')) ORDER BY 1"
)
_ALEMBIC_TABLE = (
    f"CREATE TABLE IF NOT EXISTS {ALEMBIC} (version_num VARCHAR(32) NOT NULL, "
    f"CONSTRAINT {ALEMBIC}_pkc PRIMARY KEY (version_num))"
)


def settle(connection: Connection) -> None:
    """Set the parameters of the server for this transaction."""
    for name, value in _SETTINGS.items():
        connection.execute(_as_it_is(f"SET LOCAL {name} = '{value}'"))


def refuse_rows(connection: Connection, tables: Iterable[Table]) -> None:
    """Raise :class:`CopyError` if one of the tables is there and has rows."""
    filled = [
        table.fullname
        for table in tables
        if _exists(connection, _name(connection, table))
        and _first(connection, f"SELECT EXISTS (SELECT FROM {_name(connection, table)})")  # noqa: S608
    ]
    if filled:
        raise CopyError(
            f"these tables have rows on the server already: {', '.join(filled)}; a copy goes into "
            "an empty database: use a new one (createdb), or empty them (TRUNCATE) if nothing in "
            "them is needed"
        )


def refuse_collations(connection: Connection, tables: Iterable[Table]) -> None:
    """Raise :class:`CopyError` if a column names a collation that the server does not have."""
    query = text("SELECT count(*) FROM pg_collation WHERE collname = :name")
    for table in tables:
        for column in table.columns:
            name = getattr(column.type.dialect_impl(connection.dialect), "collation", None)
            if name and not connection.scalar(query, {"name": name}):
                raise CopyError(
                    f"{table.fullname}.{column.name} has the collation {name}, which is not there "
                    "on PostgreSQL; give it to SQLite alone: String().with_variant("
                    f"String(collation={name!r}), 'sqlite')"
                )


@final
class Target:
    """The tables of a plan, on a connection in the transaction of the copy."""

    def __init__(self, connection: Connection, plan: Plan, metadata: MetaData) -> None:
        self._connection = connection
        self._plan = plan
        self._metadata = metadata
        self._names = {table.name: _name(connection, table.table) for table in plan.tables}
        # What each statement does, and the statement.
        self._indexes: list[tuple[str, str]] = []
        self._foreign_keys: list[tuple[str, str]] = []

    # -- before the rows ------------------------------------------------------------------------

    def prepare(self) -> None:
        """Create the tables that are missing; leave foreign keys and indexes for later.

        Tables that are there, from Alembic say, have to be empty, and are used as they are; only
        their foreign keys are dropped until the rows are there.
        """
        there = [table for table in self._plan.tables if self._exists(table)]
        if there:
            names = ", ".join(self._names[table.name] for table in there)
            self._execute(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE")
        refuse_rows(self._connection, [table.table for table in there])
        self._check_revisions()
        tables = [table.table for table in self._plan.tables]
        with refused("creating the tables"):
            self._metadata.create_all(self._connection, tables=tables)
        for table in self._plan.tables:
            self._set_aside_foreign_keys(table)
        for table in self._plan.tables:
            if table not in there:
                self._set_aside_indexes(table)

    def _check_revisions(self) -> None:
        if not self._plan.revisions or not _exists(self._connection, ALEMBIC):
            return
        found = self._revisions()
        if found and set(found) != set(self._plan.revisions):
            raise CopyError(
                f"the file is at Alembic's revision {', '.join(self._plan.revisions)} and the "
                f"server at {', '.join(found)}: upgrade the one that is behind"
            )

    def _revisions(self) -> list[str]:
        query = text(f"SELECT version_num FROM {ALEMBIC}")  # noqa: S608 - a constant
        return [str(revision) for revision in self._connection.scalars(query)]

    def _set_aside_foreign_keys(self, table: TablePlan) -> None:
        quote = self._connection.dialect.identifier_preparer.quote_identifier
        name = self._names[table.name]
        for key, definition in self._rows(_FOREIGN_KEYS, table):
            self._execute(f"ALTER TABLE {name} DROP CONSTRAINT {quote(key)}")
            add = f"ALTER TABLE {name} ADD CONSTRAINT {quote(key)} {definition}"
            self._foreign_keys.append((f"adding the foreign key {key} of {table.name}", add))

    def _set_aside_indexes(self, table: TablePlan) -> None:
        for index, definition in self._rows(_INDEXES, table):
            self._execute(f"DROP INDEX {index}")
            self._indexes.append((f"creating the index {index} of {table.name}", definition))

    def query(self, table: TablePlan) -> str:
        """Return the query that reads the rows back."""
        quote = self._connection.dialect.identifier_preparer.quote_identifier
        columns = ", ".join(column.codec.expression(quote(column.name)) for column in table.columns)
        return f"SELECT {columns} FROM {self._names[table.name]}"  # noqa: S608 - all are quoted

    # -- after the rows -------------------------------------------------------------------------

    def finish(self) -> Sequence[Callable[[Connection], None]]:
        """Return the steps that make the tables complete, to be called in turn."""
        steps: list[Callable[[Connection], None]] = [
            *(self._step(what, sql) for what, sql in [*self._indexes, *self._foreign_keys]),
            *(self._restart(table) for table in self._plan.tables),
            *(self._step(f"ANALYZE of {name}", f"ANALYZE {name}") for name in self._names.values()),
        ]
        if self._plan.revisions:
            steps.append(self._stamp)
        return steps

    def _step(self, what: str, sql: str) -> Callable[[Connection], None]:
        def step(_: Connection) -> None:
            with refused(what):
                self._execute(sql)

        return step

    def _restart(self, table: TablePlan) -> Callable[[Connection], None]:
        def step(_: Connection) -> None:
            with refused(f"setting the sequences of {table.name}"):
                self._restart_sequences(table)

        return step

    def _restart_sequences(self, table: TablePlan) -> None:
        """Set the sequences of a table past its largest values, and what SQLite has given."""
        for column, sequence in self._sequences(table):
            name = self._connection.dialect.identifier_preparer.quote_identifier(column)
            largest = self._first(f"SELECT max({name}) FROM {self._names[table.name]}")  # noqa: S608
            high = [largest, table.high_water if column in table.table.primary_key else None]
            used = max((value for value in high if value is not None), default=None)
            next_ = self._first(f"SELECT last_value + is_called::int FROM {sequence}")  # noqa: S608
            if used is not None and used >= next_:
                self._execute(f"ALTER SEQUENCE {sequence} RESTART WITH {used + 1}")

    def _sequences(self, table: TablePlan) -> Iterable[tuple[str, str]]:
        owned = text("SELECT pg_get_serial_sequence(:table, :column)")
        for column in table.table.columns:
            names = {"table": self._names[table.name], "column": column.name}
            if (sequence := self._connection.scalar(owned, names)) is not None:
                yield column.name, str(sequence)
            elif isinstance(column.default, DBSequence):
                preparer = self._connection.dialect.identifier_preparer
                yield column.name, preparer.format_sequence(column.default)

    def _stamp(self, _: Connection) -> None:
        self._execute(_ALEMBIC_TABLE)
        if not self._revisions():
            insert = text(f"INSERT INTO {ALEMBIC} VALUES (:revision)")  # noqa: S608 - a constant
            rows = [{"revision": revision} for revision in self._plan.revisions]
            self._connection.execute(insert, rows)

    # -- SQL ------------------------------------------------------------------------------------

    def _execute(self, sql: str) -> None:
        self._connection.execute(_as_it_is(sql))

    def _first(self, sql: str) -> Any:
        return _first(self._connection, sql)

    def _rows(self, query: Any, table: TablePlan) -> list[tuple[str, str]]:
        found = self._connection.execute(query, {"table": self._names[table.name]})
        return [(str(name), str(definition)) for name, definition in found]

    def _exists(self, table: TablePlan) -> bool:
        return _exists(self._connection, self._names[table.name])


def _as_it_is(sql: str) -> Any:
    # A colon in a definition is no parameter.
    return text(sql.replace("\\", "\\\\").replace(":", "\\:"))


def _first(connection: Connection, sql: str) -> Any:
    return connection.scalar(_as_it_is(sql))


def _name(connection: Connection, table: Table) -> str:
    return connection.dialect.identifier_preparer.format_table(table)


def _exists(connection: Connection, name: str) -> bool:
    query = text("SELECT to_regclass(:name) IS NOT NULL").bindparams(bindparam("name", name))
    return bool(connection.scalar(query))
