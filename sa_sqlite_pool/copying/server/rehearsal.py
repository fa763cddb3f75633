"""Create everything in the models on the server without rows, to be rolled back.

Only PostgreSQL knows which DDL it accepts. Each table, index and foreign key is tried in its own
savepoint, so that one run reports everything that the server refuses.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, final

from sqlalchemy import Connection, Index, MetaData, Table, exc, text
from sqlalchemy.schema import ForeignKeyConstraint
from sqlalchemy.sql.ddl import SchemaGenerator

from ...errors import CopyError
from ...postgresql.sqlstate import sqlstate_of
from ..misfits import Collector
from .refusals import INSUFFICIENT_PRIVILEGE, place_in, refusal
from .rights import without_a_type

# SQLAlchemy's own default: True in 2.0, and an enum since.
_CHECK_FIRST = inspect.signature(MetaData.create_all).parameters["checkfirst"].default

# "Syntax error or access rule violation", features, schemas, and values of DEFAULT and CHECK.
# Also what cannot run in a transaction: CREATE INDEX CONCURRENTLY.
_OF_THE_MODELS = ("42", "0A", "3F", "22", "23", "54", "25001")

COPY_KEY = int.from_bytes(b"sa_copy_", "big")
"""The key of the advisory lock of a copy, in its target database."""

_SERVER = text("SELECT pg_is_in_recovery(), current_setting('server_encoding'), current_database()")


def refuse_server(connection: Connection) -> None:
    """Raise :class:`CopyError` for a replica, or a database that cannot store all characters."""
    replica, encoding, database = connection.execute(_SERVER).one()
    where = repr(connection.engine.url)
    if replica:
        raise CopyError(f"{where} is a replica, which accepts no writes: use the primary's URL")
    if encoding != "UTF8":
        raise CopyError(
            f"the database {database} has the encoding {encoding}, which cannot represent all "
            "characters of SQLite's texts: create one with UTF8 (createdb --encoding=UTF8 "
            "--template=template0)"
        )


def refuse_other_copies(connection: Connection) -> None:
    """Raise :class:`CopyError` while another copy into the database is in progress.

    If two created the same tables, one would wait for the other, and fail on the other's tables.
    """
    taken = connection.scalar(text(f"SELECT pg_try_advisory_xact_lock({COPY_KEY})"))
    if not taken:
        raise CopyError(
            f"another copy into {connection.engine.url!r} is running: wait until it ends, or copy "
            "into another database"
        )


def rehearse(
    connection: Connection, metadata: MetaData, tables: Sequence[Table], misfits: Collector
) -> None:
    """Create whatever the server lacks of the tables; add to ``misfits`` what it refuses."""
    rehearsal = _Rehearsal(connection, tables, misfits)
    try:
        rehearsal.traverse_single(metadata)
    except exc.CompileError:
        # An enum without a name, which is created before all tables, and reported for its column.
        if not rehearsal.lacks_types:
            raise


@final
class _Rehearsal(SchemaGenerator):
    """``create_all()``, with a savepoint around each statement that may fail."""

    def __init__(self, connection: Connection, tables: Sequence[Table], misfits: Collector) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            connection.dialect, connection, checkfirst=_CHECK_FIRST, tables=tables
        )
        self._misfits = misfits
        self._failed = {table for table in tables if any(without_a_type(connection, table))}
        self.lacks_types = bool(self._failed)

    def _can_create_table(self, table: Table) -> bool:
        if table in self._failed:  # reported elsewhere
            return False
        try:
            return bool(super()._can_create_table(table))  # type: ignore[no-untyped-call]
        except exc.IdentifierError as error:
            self._failed.add(table)
            self._misfits.add_schema(table.fullname, "", "its name", _reason(error))
            return False

    def visit_table(  # type: ignore[override]
        self,
        table: Table,
        create_ok: bool = False,
        include_foreign_key_constraints: Any = None,
        **kw: Any,
    ) -> None:
        keys = include_foreign_key_constraints
        if self._failed and keys is not None:  # the error is reported for the parent alone
            keys = [key for key in keys if self._parent_is_there(key)]
        with self._tried(table):
            super().visit_table(  # type: ignore[no-untyped-call]
                table, create_ok=create_ok, include_foreign_key_constraints=keys, **kw
            )

    def visit_index(self, index: Index, create_ok: bool = False) -> None:
        assert index.table is not None
        with self._tried(index.table, str(index.name)):
            super().visit_index(index, create_ok=create_ok)  # type: ignore[no-untyped-call]

    def visit_foreign_key_constraint(self, constraint: ForeignKeyConstraint) -> None:
        table = constraint.table
        if table in self._failed or not self._parent_is_there(constraint):
            return
        name = str(constraint.name or ", ".join(constraint.column_keys))
        with self._tried(table, name):
            super().visit_foreign_key_constraint(constraint)  # type: ignore[no-untyped-call]

    def _parent_is_there(self, key: ForeignKeyConstraint) -> bool:
        return key.referred_table not in self._failed

    @contextmanager
    def _tried(self, table: Table, name: str = "") -> Iterator[None]:
        try:
            with self.connection.begin_nested():
                yield
        except exc.SQLAlchemyError as error:
            if not _is_of_the_models(error):
                raise
            if not name:
                self._failed.add(table)
            where = place_in(error) or f"CREATE TABLE {table.fullname}"
            self._misfits.add_schema(table.fullname, name, where, _reason(error))


def _reason(error: exc.SQLAlchemyError) -> str:
    reason = refusal(error) or " ".join(str(error).split())
    return f"{reason}: give it a shorter name" if isinstance(error, exc.IdentifierError) else reason


def _is_of_the_models(error: exc.SQLAlchemyError) -> bool:
    if not isinstance(error, exc.DBAPIError):
        return isinstance(error, (exc.CompileError, exc.IdentifierError))
    state = sqlstate_of(error) or ""
    return state.startswith(_OF_THE_MODELS) and state != INSUFFICIENT_PRIVILEGE
