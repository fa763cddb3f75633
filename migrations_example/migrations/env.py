"""Alembic on the writer engine: all revisions in one transaction, and no child row lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from logging.config import fileConfig
from typing import Any

from alembic import context
from alembic.util import CommandError
from models import Base
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from sa_sqlite_pool import WriterPool

MOST_ROWS_NAMED = 10

# Alembic takes SQLite's DDL for non-transactional, because of Python's sqlite3. With this package
# it is not, and `transactional_ddl` says so: a failing revision leaves nothing behind.
OPTIONS: dict[str, Any] = {
    "target_metadata": Base.metadata,
    "render_as_batch": True,  # for `alembic revision --autogenerate`
    "compare_server_default": True,
    "transactional_ddl": True,
    "transaction_per_migration": False,
}


def main() -> None:
    """Called by every `alembic` command that needs the database, or its dialect."""
    config = context.config
    if config.config_file_name is not None:
        fileConfig(config.config_file_name, disable_existing_loggers=False)
    url = config.get_main_option("sqlalchemy.url")
    assert url is not None
    if context.is_offline_mode():
        print_sql(url)
    else:
        asyncio.run(run_online(url))


async def run_online(url: str) -> None:
    """Run the command on the one connection that may write."""
    engine = create_async_engine(url, poolclass=WriterPool)
    try:
        async with engine.connect() as connection:  # waits for the write turn of the file
            await connection.run_sync(migrate)
    finally:
        await engine.dispose()


def migrate(connection: Connection) -> None:
    """Run all revisions or none."""
    applied: list[Any] = []
    with foreign_keys_off(connection):
        context.configure(
            connection=connection,
            on_version_apply=lambda **kw: applied.append(kw["step"]),
            **OPTIONS,
        )
        with context.begin_transaction():
            # Alembic's first question is a PRAGMA, which opens no transaction. Several workers
            # that start at once must ask it one after the other, so the lock is taken before.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            context.run_migrations()
            if applied:  # `alembic current` and `alembic check` also come here
                refuse_violations(connection)


@contextmanager
def foreign_keys_off(connection: Connection) -> Iterator[None]:
    """Keep the child rows while a batch migration drops and replaces their parent table.

    "If foreign key constraints are enabled, a DROP TABLE command performs an implicit DELETE FROM
    command before removing the table from the database schema", and ON DELETE CASCADE passes it on
    to the children: https://www.sqlite.org/lang_droptable.html
    """
    set_foreign_keys(connection, "OFF")
    try:
        yield
    finally:
        set_foreign_keys(connection, "ON")


def set_foreign_keys(connection: Connection, state: str) -> None:
    """Call it outside a transaction: "This pragma is a no-op within a transaction".

    https://www.sqlite.org/pragma.html#pragma_foreign_keys
    """
    connection.exec_driver_sql(f"PRAGMA foreign_keys = {state}")
    # SQLAlchemy counts the PRAGMA as the begin of a transaction. Alembic would take part in that
    # one and leave the COMMIT to us. SQLite has none open, so nothing is sent here.
    connection.commit()


def refuse_violations(connection: Connection) -> None:
    """Raise, and thereby roll back, where a row refers to none: nobody looked while they were off.

    https://www.sqlite.org/pragma.html#pragma_foreign_key_check
    """
    rows = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    if not rows:
        return
    named = [
        f"{table} (rowid {rowid}) refers to no row of {parent}"
        for table, rowid, parent, _ in rows[:MOST_ROWS_NAMED]
    ]
    if len(rows) > MOST_ROWS_NAMED:
        named.append(f"and {len(rows) - MOST_ROWS_NAMED} more")
    raise CommandError(
        f"rolled back, the database is as it was: foreign keys are violated {len(rows)} times "
        f"at the end of the migration: {'; '.join(named)}. Delete or mend these rows in a revision"
    )


def print_sql(url: str) -> None:
    """Print what a migration would execute (`--sql`), for the sqlite3 shell."""
    context.configure(url=url, literal_binds=True, dialect_opts={"paramstyle": "named"}, **OPTIONS)
    context.execute("PRAGMA foreign_keys = OFF")
    with context.begin_transaction():
        context.run_migrations()
        context.execute("PRAGMA foreign_key_check")
    context.execute("PRAGMA foreign_keys = ON")


main()
