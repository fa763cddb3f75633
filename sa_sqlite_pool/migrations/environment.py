"""The function for ``env.py``, with a connection that is handed over or under the command."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from logging.config import fileConfig
from typing import Any

from alembic import context
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, Connection, MetaData, NullPool
from sqlalchemy.ext.asyncio import AsyncEngine, async_engine_from_config

from ..errors import ConfigurationError, WriteTimeout
from ..files.urls import sqlite_url
from ..pools.impl import WriterPool
from ..postgresql.urls import server_url
from ..transactions.locks import write_patience
from .servers import is_server, migrate_on_server
from .transaction import end_what_listeners_began, migrate, print_sql

# How many seconds to wait while another worker migrates.
DEFAULT_TIMEOUT = 300.0

# Keys of `Config.attributes`. The first is Alembic's own convention; the second records that env.py
# has called run_env(), and the third is the number of seconds to wait for a server's turn.
CONNECTION = "connection"
CALLED = "sa_sqlite_pool.run_env"
SECONDS = "sa_sqlite_pool.seconds"

_CONNECTS = "run_env() opens its own connection, to sqlalchemy.url or to what upgrade() was given"
_ONE = "all revisions of a command run in one transaction, so that none is left half done"
_COMMANDS = "the command determines that"
_REFUSED = {
    "connection": _CONNECTS,
    "url": _CONNECTS,
    "dialect": _CONNECTS,
    "dialect_name": _CONNECTS,
    "dialect_opts": _CONNECTS,
    "transactional_ddl": _ONE,
    "transaction_per_migration": _ONE,
    "as_sql": f"{_COMMANDS}: `alembic upgrade head --sql`",
    "literal_binds": "--sql needs it, and nothing else may use it",
    "starting_rev": f"{_COMMANDS}: `alembic upgrade 0001:0003 --sql`",
    "destination_rev": _COMMANDS,
    "purge": f"{_COMMANDS}: `alembic stamp --purge`",
    "dont_mutate": _COMMANDS,
    "fn": _COMMANDS,
    "script": _COMMANDS,
}


def run_env(*, target_metadata: MetaData | Sequence[MetaData] | None, **options: Any) -> None:
    """Do everything that ``env.py`` must do, for every Alembic command.

    ::

        from sa_sqlite_pool.migrations import run_env
        from app.models import Base

        run_env(target_metadata=Base.metadata)

    Under :func:`~sa_sqlite_pool.migrations.upgrade` and similar functions, it uses the connection
    that they hand over, and under pytest-alembic the engine of its fixture. Under the ``alembic``
    command, it creates a writer engine for ``sqlalchemy.url``, waits at most 300 seconds for the
    turn, and configures logging from the ini file. With ``--sql``, it prints the statements. With a
    PostgreSQL URL, it does the same as Alembic's own template.

    :param target_metadata: the intended schema, for ``--autogenerate`` and ``check``
    :param options: for Alembic's ``context.configure()``: ``include_object``, ``compare_type``, …
        ``render_as_batch`` defaults to True

    Raise :class:`~sa_sqlite_pool.ConfigurationError` for options that would lift a guarantee, and
    if this is called in a running event loop without a connection.
    """
    config = _config()
    config.attributes[CALLED] = True
    options = {"render_as_batch": True, **options, "target_metadata": target_metadata}
    with _short_errors(config):
        _check(options)
        handed_over = config.attributes.get(CONNECTION)
        if handed_over is None:
            _set_up_logging(config)
        if context.is_offline_mode():
            print_sql(_url(config), options)
        elif isinstance(handed_over, AsyncEngine):
            _assert_no_loop()
            if not isinstance(handed_over.pool, WriterPool):  # a server's pool belongs to one loop
                raise _wrong(handed_over)
            asyncio.run(_migrate_on(handed_over, options))
        elif handed_over is not None:
            seconds = config.attributes.get(SECONDS, DEFAULT_TIMEOUT)
            _migrate(_checked(handed_over), options, seconds)
        else:
            _assert_no_loop()
            asyncio.run(_connect_and_migrate(config, options))


async def _connect_and_migrate(config: Config, options: dict[str, Any]) -> None:
    section, url = config.get_section(config.config_ini_section, {}), _url(config)
    engine = async_engine_from_config(
        {**section, "sqlalchemy.url": url}, poolclass=NullPool if is_server(url) else WriterPool
    )
    try:
        await _migrate_on(engine, options)
    finally:
        await engine.dispose()


async def _migrate_on(engine: AsyncEngine, options: dict[str, Any]) -> None:
    write_patience.set(DEFAULT_TIMEOUT)
    async with engine.connect() as connection:  # waits for the write turn of the file
        await connection.run_sync(end_what_listeners_began)
        await connection.run_sync(_migrate, options, DEFAULT_TIMEOUT)


def _migrate(connection: Connection, options: dict[str, Any], seconds: float) -> None:
    if is_server(connection.engine.url):
        migrate_on_server(connection, options, seconds)
    else:
        migrate(connection, options)


# -- configuration and connection ------------------------------------------------------------------


def _config() -> Config:
    try:
        return context.config
    except AttributeError:
        raise ConfigurationError(
            "run_env() is for env.py, which Alembic runs: call `alembic upgrade head` or "
            "`await upgrade(db, 'head', config=...)`"
        ) from None


def _check(options: dict[str, Any]) -> None:
    for name in _REFUSED.keys() & options.keys():
        raise ConfigurationError(f"leave {name} out of run_env(): {_REFUSED[name]}")


def _url(config: Config) -> URL:
    url = config.get_alembic_option("sqlalchemy.url")
    if not url:
        raise ConfigurationError(
            f"there is no sqlalchemy.url in {config.config_file_name or 'the configuration'}; add "
            "one such as sqlite+aiosqlite:///app.db, or migrate with `await upgrade(db, 'head', "
            "config=...)`"
        )
    if url.startswith("postgres"):
        return server_url(url)
    return sqlite_url(
        url,
        needed_by="run_env()",
        otherwise="a PostgreSQL URL works, too; for other databases, use Alembic's own template",
    )


def _wrong(handed_over: object) -> ConfigurationError:
    return ConfigurationError(
        f"config.attributes['{CONNECTION}'] must be a sqlalchemy.Connection of an engine with "
        "poolclass=WriterPool or of a PostgreSQL engine, or an AsyncEngine with "
        f"poolclass=WriterPool, not {handed_over!r}; `await upgrade(db, 'head', config=...)` "
        "hands over a connection"
    )


def _checked(connection: Any) -> Connection:
    if not isinstance(connection, Connection) or not (
        isinstance(connection.engine.pool, WriterPool) or is_server(connection.engine.url)
    ):
        raise _wrong(connection)
    if connection.in_transaction():
        raise ConfigurationError(
            f"config.attributes['{CONNECTION}'] has an open transaction, in which foreign keys "
            "cannot be switched off; use engine.connect() instead of engine.begin(), call "
            "connection.rollback() or commit() first if a statement or an engine_connect listener "
            "began it, or call `await upgrade(db, 'head', config=...)`"
        )
    return connection


def _assert_no_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise ConfigurationError(
        "an event loop is running here, and Alembic's commands are synchronous: instead of "
        "command.upgrade(config, 'head') call `await upgrade(db, 'head', config=config)` from "
        "sa_sqlite_pool.migrations, and likewise for downgrade, stamp, current and check"
    )


# -- for the command -------------------------------------------------------------------------------


def _set_up_logging(config: Config) -> None:
    """Configure logging from the ini file, but not in an application, which has its own setup."""
    by_command = config.cmd_opts is not None
    if by_command and config.config_file_name and config.file_config.has_section("loggers"):
        fileConfig(config.config_file_name, disable_existing_loggers=False)


@contextmanager
def _short_errors(config: Config) -> Iterator[None]:
    """Raise errors as ``CommandError`` under the command, which prints it without a traceback."""
    try:
        yield
    except (ConfigurationError, WriteTimeout) as error:
        if config.cmd_opts is None:
            raise
        raise CommandError(str(error)) from error
