"""All revisions of one command in one transaction, and no child row lost.

Alembic is configured and run here; who connects, and when, is the business of others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from alembic import context
from alembic.util import CommandError, to_tuple
from sqlalchemy import URL, Connection, event
from sqlalchemy.exc import DBAPIError

from ..driver.statements import Kind, classify, words

_MOST_ROWS_NAMED = 10

# Alembic takes SQLite's DDL for non-transactional, because of Python's sqlite3. With this package
# it is not, and `transactional_ddl` says so: a failing revision leaves nothing behind.
_ONE_TRANSACTION: dict[str, Any] = {"transactional_ddl": True, "transaction_per_migration": False}


class MigrationError(CommandError):
    """A migration that would not be safe. It was rolled back: the database is as it was."""


def migrate(connection: Connection, options: dict[str, Any]) -> None:
    """Run what Alembic was asked for: all of it, or nothing.

    The connection has the write turn, and no transaction.
    """
    applied: list[Any] = []

    def note(step: Any, **_: Any) -> None:
        if step.is_migration:  # and no stamp, which changes no row
            applied.append(step)

    # A statement of a migration may copy a whole table: the application's limit is not meant.
    connection = connection.execution_options(statement_timeout=None)
    callbacks = (*to_tuple(options.get("on_version_apply"), default=()), note)
    with _foreign_keys_off(connection):
        _configure({**options, "connection": connection, "on_version_apply": callbacks})
        with context.begin_transaction(), _no_end_in_between(connection):
            # Alembic's first question is a PRAGMA, which opens no transaction. Workers that start
            # at once must ask it one after the other, so SQLite's lock is taken before.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            context.run_migrations()
            if applied:  # `alembic current` and `alembic check` also come here
                _refuse_violations(connection)


def print_sql(url: URL, options: dict[str, Any]) -> None:
    """Print what a migration would execute (``--sql``)."""
    named = {"paramstyle": "named"}
    _configure({**options, "url": url, "literal_binds": True, "dialect_opts": named})
    context.execute("PRAGMA foreign_keys = OFF")
    with context.begin_transaction():
        context.run_migrations()
        for statement in _ROLL_BACK_VIOLATIONS:
            context.execute(statement)
    context.execute("PRAGMA foreign_keys = ON")


# A script cannot raise. "When an applicable constraint violation occurs, the ROLLBACK resolution
# algorithm aborts the current SQL statement … and rolls back the current transaction":
# https://www.sqlite.org/lang_conflict.html. The COMMIT that follows finds no transaction then.
_ROLL_BACK_VIOLATIONS = (
    "PRAGMA foreign_key_check",  # names the rows
    'CREATE TEMP TABLE violations (n CONSTRAINT "foreign keys are violated, all is rolled back" '
    "CHECK (n = 0))",
    "INSERT OR ROLLBACK INTO violations SELECT count(*) FROM pragma_foreign_key_check",
    "DROP TABLE violations",
)


def _configure(options: dict[str, Any]) -> None:
    context.configure(**options, **_ONE_TRANSACTION)
    context.get_context().autocommit_block = _refuse_autocommit  # type: ignore[method-assign]


# -- foreign keys ----------------------------------------------------------------------------------


@contextmanager
def _foreign_keys_off(connection: Connection) -> Iterator[None]:
    """Keep the child rows while a batch migration drops and replaces their parent table.

    "If foreign key constraints are enabled, a DROP TABLE command performs an implicit DELETE FROM
    command before removing the table from the database schema", and ON DELETE CASCADE passes it on
    to the children: https://www.sqlite.org/lang_droptable.html
    """
    before = connection.exec_driver_sql("PRAGMA foreign_keys").scalar_one()
    _set_foreign_keys(connection, 0)
    try:
        yield
    finally:
        if not connection.invalidated:  # by a cancellation: it is closed, not used again
            try:
                _end_transaction(connection)
                _set_foreign_keys(connection, before)
            except DBAPIError:
                # The database is being closed, say. What is committed stays, and is no failure; and
                # nobody is to have this connection again.
                connection.invalidate()


def _set_foreign_keys(connection: Connection, state: int) -> None:
    """Call it outside a transaction: "This pragma is a no-op within a transaction".

    https://www.sqlite.org/pragma.html#pragma_foreign_keys
    """
    connection.exec_driver_sql(f"PRAGMA foreign_keys = {state}")
    # SQLAlchemy counts the PRAGMA as the begin of a transaction. Alembic would take part in that
    # one and leave the COMMIT to us. SQLite has none open, so nothing is sent here.
    connection.commit()


def _end_transaction(connection: Connection) -> None:
    connection.rollback()
    # SQLAlchemy takes a COMMIT that was refused for the end, and sends no ROLLBACK.
    raw = connection.connection.dbapi_connection
    assert raw is not None
    raw.rollback()


def _refuse_violations(connection: Connection) -> None:
    """Raise, and thereby roll back, where a row refers to none: nobody looked while they were off.

    https://www.sqlite.org/pragma.html#pragma_foreign_key_check
    """
    rows = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    if not rows:
        return
    named = [
        f"{table} (rowid {rowid}) refers to no row of {parent}"
        for table, rowid, parent, _ in rows[:_MOST_ROWS_NAMED]
    ]
    if len(rows) > _MOST_ROWS_NAMED:
        named.append(f"and {len(rows) - _MOST_ROWS_NAMED} more")
    raise MigrationError(
        f"rolled back, the database is as it was: foreign keys are violated {len(rows)} times "
        f"at the end of the migration: {'; '.join(named)}. Delete or mend these rows in a revision"
    )


# -- one transaction -------------------------------------------------------------------------------


@contextmanager
def _no_end_in_between(connection: Connection) -> Iterator[None]:
    """Refuse what would end the transaction half way, and begin another for the rest.

    The ROLLBACK after an error comes later, when nobody listens any more.
    """
    for name, listener in _LISTENERS.items():
        event.listen(connection, name, listener)
    # `with op.get_bind() as connection` would give back the connection, with foreign keys off.
    connection.close = _refuse_close  # type: ignore[method-assign]
    try:
        yield
    finally:
        del connection.close
        for name, listener in _LISTENERS.items():
            event.remove(connection, name, listener)


def _refuse_autocommit() -> NoReturn:
    _refuse("autocommit_block()")


def _refuse_commit(_connection: Connection) -> None:
    _refuse("commit()")


def _refuse_close() -> NoReturn:
    _refuse("close()")


def _refuse_rollback(_connection: Connection) -> None:
    _refuse("rollback()")


def _refuse_end(_connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
    if classify(statement) is Kind.END:
        first, *others = words(statement)
        if first in {"COMMIT", "END"} or (first == "ROLLBACK" and "TO" not in others):
            _refuse(first)


_LISTENERS: dict[str, Callable[..., None]] = {
    "commit": _refuse_commit,
    "rollback": _refuse_rollback,
    "before_cursor_execute": _refuse_end,
}


def _refuse(what: str) -> NoReturn:
    raise MigrationError(
        f"rolled back, the database is as it was: a revision calls for {what}, and all revisions "
        "of a command are one transaction, so that none is left half done; do what needs no "
        "transaction (VACUUM, PRAGMA journal_mode) outside the migration, on the writer engine"
    )
