"""Run all revisions of one command in one transaction, without losing child rows.

Alembic is configured and run here; other modules provide the connection.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NoReturn, final

from alembic import context
from alembic.runtime.migration import MigrationContext
from alembic.util import to_tuple
from sqlalchemy import URL, Connection
from sqlalchemy.exc import DBAPIError, OperationalError

from ..driver.adapter import SQLiteConnection
from ..sqlite.statements import Kind, classify
from ..sqlite.tokens import words
from .guard import Guard, MigrationError, refusal
from .servers import is_server

_MOST_ROWS_NAMED = 10

# Marks a transaction. "The defer_foreign_keys pragma is automatically switched off at each COMMIT
# or ROLLBACK", and while foreign keys are off, it has no other effect:
# https://www.sqlite.org/pragma.html#pragma_defer_foreign_keys
_MARK = "PRAGMA defer_foreign_keys = 1"

# Alembic assumes that SQLite's DDL is not transactional, because of Python's sqlite3. With this
# package it is, hence `transactional_ddl`: a failing revision leaves nothing behind.
_ONE_TRANSACTION: dict[str, Any] = {"transactional_ddl": True, "transaction_per_migration": False}


def migrate(connection: Connection, options: dict[str, Any]) -> None:
    """Run all requested revisions, or none.

    The connection must hold the write turn and have no transaction open.
    """
    applied: list[Any] = []

    def note(step: Any, **_: Any) -> None:
        if step.is_migration:  # not a stamp, which changes no rows
            applied.append(step)

    # A statement of a migration may copy a whole table: the application's limit does not apply.
    connection = connection.execution_options(statement_timeout=None)
    callbacks = (*to_tuple(options.get("on_version_apply"), default=()), note)
    with _foreign_keys_as_before(connection):
        more = {"connection": connection, "on_version_apply": callbacks}
        context.configure(**{**options, **more}, **_ONE_TRANSACTION)
        guard = SQLiteGuard(connection, context.get_context())
        with context.begin_transaction(), _undone_in_silence(connection):
            with guard.one_transaction():
                context.run_migrations()
            if applied:  # `alembic current` and `alembic check` also come here
                _refuse_violations(connection)


def end_what_listeners_began(connection: Connection) -> None:
    """Commit a transaction that ``engine_connect`` listeners have left open on a new connection.

    A listener that tests the connection, as in a recipe of SQLAlchemy's documentation, leaves the
    transaction of its statement open.
    """
    if connection.in_transaction():
        connection.commit()


def print_sql(url: URL, options: dict[str, Any]) -> None:
    """Print what a migration would execute (``--sql``)."""
    named = {"paramstyle": "named"}
    more = {"url": url, "literal_binds": True, "dialect_opts": named}
    context.configure(**{**options, **more}, **_ONE_TRANSACTION)
    if is_server(url):
        with context.begin_transaction():
            context.run_migrations()
        return
    context.get_context().autocommit_block = _refuse_autocommit  # type: ignore[method-assign]
    context.execute("PRAGMA foreign_keys = OFF")
    with context.begin_transaction():
        context.run_migrations()
        for statement in _ROLL_BACK_VIOLATIONS:
            context.execute(statement)
    context.execute("PRAGMA foreign_keys = ON")


# A script cannot raise. "When an applicable constraint violation occurs, the ROLLBACK resolution
# algorithm aborts the current SQL statement … and rolls back the current transaction":
# https://www.sqlite.org/lang_conflict.html. The COMMIT that follows then finds no transaction.
_ROLL_BACK_VIOLATIONS = (
    "PRAGMA foreign_key_check",  # lists the rows
    'CREATE TEMP TABLE violations (n CONSTRAINT "foreign keys are violated, so everything is '
    'rolled back" CHECK (n = 0))',
    "INSERT OR ROLLBACK INTO violations SELECT count(*) FROM pragma_foreign_key_check",
    "DROP TABLE violations",
)


def _refuse_autocommit() -> NoReturn:
    raise refusal("autocommit_block()", "nothing more is printed", SQLiteGuard.advice)


# -- begin and end of the transaction --------------------------------------------------------------


def _begin(connection: Connection) -> None:
    """Switch foreign keys off, and begin the transaction with SQLite's lock.

    SQLAlchemy has already begun its own transaction, so no ``begin`` event occurs between the two:
    its listeners may send BEGIN, as in SQLAlchemy's documentation. Alembic's first statement is a
    PRAGMA, which begins no transaction; workers that start at once must run it one at a time.
    """
    # Ends a transaction that a listener has begun: "This pragma is a no-op within a transaction".
    # https://www.sqlite.org/pragma.html#pragma_foreign_keys
    _raw(connection).commit()
    # "If foreign key constraints are enabled, a DROP TABLE command performs an implicit DELETE
    # FROM command before removing the table from the database schema", and ON DELETE CASCADE
    # propagates it to the children: https://www.sqlite.org/lang_droptable.html
    _set_foreign_keys(connection, 0)
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    connection.exec_driver_sql(_MARK)
    if _foreign_keys(connection):  # the setting cannot change until the transaction ends
        raise MigrationError(
            "refused; nothing was changed: foreign keys are still on after PRAGMA foreign_keys = "
            "0 outside a transaction, and rebuilding a table would delete its child rows. "
            "Something on the engine switches them on at each statement, or prevents switching "
            "them off (an event listener, an authorizer): migrate on an engine without it"
        )


def _foreign_keys(connection: Connection) -> int:
    """Return 1 if foreign keys are enforced; 0 if not, or if SQLite was built without them."""
    return int(connection.exec_driver_sql("PRAGMA foreign_keys").scalar() or 0)


def _set_foreign_keys(connection: Connection, state: int) -> None:
    connection.exec_driver_sql(f"PRAGMA foreign_keys = {state}")


@contextmanager
def _undone_in_silence(connection: Connection) -> Iterator[None]:
    """Log no schema changes that are undone because the block raises: the error says enough."""
    try:
        yield
    except BaseException:
        if not connection.invalidated:
            _raw(connection).executor.transaction.changes.forget_schema_changes()
        raise


@contextmanager
def _foreign_keys_as_before(connection: Connection) -> Iterator[None]:
    raw = _raw(connection)
    raw.commit()  # a transaction begun by a ping would make a listener's BEGIN fail
    before = _below(raw, "PRAGMA foreign_keys")
    try:
        yield
    finally:
        if not connection.invalidated:  # a cancellation does so: it is closed and not used again
            try:
                _end(connection, raw, before)
            except BaseException as error:
                connection.invalidate()
                # For example, the database is being closed: the commit stays, so it is no failure.
                if not isinstance(error, DBAPIError):
                    raise


def _end(connection: Connection, raw: SQLiteConnection, foreign_keys: Any) -> None:
    """Roll back and restore the foreign keys setting; invalidate the connection if that fails."""
    connection.rollback()
    # SQLAlchemy considers a refused COMMIT the end of the transaction, and sends no ROLLBACK.
    raw.rollback()
    if foreign_keys is None:  # SQLite was built without them
        return
    _below(raw, f"PRAGMA foreign_keys = {foreign_keys[0]}")
    if _below(raw, "PRAGMA foreign_keys") != foreign_keys:
        connection.invalidate()


def _below(raw: SQLiteConnection, sql: str) -> Any:
    """Return the row of ``sql``; run it beneath SQLAlchemy, which would send ``begin`` first."""
    try:
        return raw.execute(sql).fetchone()
    except sqlite3.Error as error:
        raise OperationalError(sql, None, error) from error


def _raw(connection: Connection) -> SQLiteConnection:
    raw = connection.connection.dbapi_connection
    assert isinstance(raw, SQLiteConnection)
    return raw


# -- foreign keys ----------------------------------------------------------------------------------


def _refuse_violations(connection: Connection) -> None:
    """Raise, and thereby roll back, if a foreign key is violated: they were not enforced while off.

    https://www.sqlite.org/pragma.html#pragma_foreign_key_check
    """
    try:
        rows = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    except OperationalError as error:
        if "foreign key mismatch" not in str(error.orig):
            raise
        raise MigrationError(
            f"rolled back; the database is as it was: {error.orig}, at the end of the migration: "
            "the key refers to columns that are not a key of their table, so SQLite cannot tell "
            "which rows violate it, and every write to these tables fails where foreign keys are "
            "on. Create a UNIQUE index on these columns in a revision, or drop the foreign key"
        ) from error
    if not rows:
        return
    named = [
        f"{table}{'' if rowid is None else f' (rowid {rowid})'} refers to no row of {parent}"
        for table, rowid, parent, _ in rows[:_MOST_ROWS_NAMED]
    ]
    if len(rows) > _MOST_ROWS_NAMED:
        named.append(f"and {len(rows) - _MOST_ROWS_NAMED} more")
    raise MigrationError(
        f"rolled back; the database is as it was: foreign keys are violated {len(rows)} times at "
        f"the end of the migration: {'; '.join(named)}. Delete or repair these rows in a revision"
    )


# -- one transaction -------------------------------------------------------------------------------


@final
class SQLiteGuard(Guard):
    """Also refuses ``autocommit_block()``. Foreign keys are off in its transaction."""

    advice = "(VACUUM, PRAGMA journal_mode) outside the migration, on the writer engine"

    def __init__(self, connection: Connection, alembic: MigrationContext) -> None:
        super().__init__(connection, alembic)
        self._listeners.append(("after_cursor_execute", self._marks_again))

    def _begin(self) -> None:
        _begin(self._connection)

    def _is_in_transaction(self) -> bool:
        raw = _raw(self._connection)
        return raw.in_transaction or raw.given_up or raw.executor.transaction.lost

    def _is_same_transaction(self) -> bool:
        marked = self._connection.exec_driver_sql("PRAGMA defer_foreign_keys").scalar()
        # None where SQLite was built without foreign keys.
        return marked != 0 and not _foreign_keys(self._connection)

    def _marks_again(self, _connection: Connection, _cursor: object, sql: str, *_: object) -> None:
        lowered = sql.lower()
        if self._watches and "defer_foreign_keys" in lowered and lowered != _MARK.lower():
            self._connection.exec_driver_sql(_MARK)

    def _ends(self, sql: str) -> bool:
        if classify(sql) is not Kind.END:
            return False
        first, *others = words(sql)
        return first in {"COMMIT", "END"} or (first == "ROLLBACK" and "TO" not in others)

    def _rolls_back(self, connection: Connection) -> None:
        _raw(connection).executor.transaction.changes.forget_schema_changes()
        super()._rolls_back(connection)

    def _autocommit_block(self, of_alembic: Callable[[], AbstractContextManager[None]]) -> NoReturn:
        self._refuse("autocommit_block()")
