"""ROLLBACK and the closing of connections, which end soon whatever the server does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine

from .drivers.answers import AnswerLimit
from .drivers.choosing import driver_of
from .drivers.interface import Driver
from .pool import ServerPool, pool_of


def limit_endings(engine: Engine) -> None:
    """Limit how long the dialect of ``engine`` waits for ROLLBACK and for closing: a moment."""
    dialect, driver = engine.dialect, driver_of(engine.dialect)
    if isinstance(engine.pool, ServerPool) and engine.pool.only_reads:
        replace(dialect, do_commit=_counted_commit(engine, dialect.do_commit))
    replace(
        dialect,
        do_rollback=_limited_rollback(engine, driver),
        do_close=_limited_end(engine, driver, dialect.do_close),
        do_terminate=_limited_end(engine, driver, dialect.do_terminate),
    )


def replace(dialect: object, **methods: Any) -> None:
    """Replace methods of one engine's dialect with functions."""
    for name, method in methods.items():
        setattr(dialect, name, method)


def _counted_commit(engine: Engine, commit: Callable[[Any], None]) -> Callable[[Any], None]:
    def do_commit(proxied: Any) -> None:
        commit(proxied)
        pool_of(engine, proxied).counts.committed(0.0)

    return do_commit


def _limited_rollback(engine: Engine, driver: Driver) -> Callable[[Any], None]:
    dialect: Any = engine.dialect
    rollback = dialect.do_rollback

    def do_rollback(proxied: Any) -> None:
        connection = getattr(proxied, "dbapi_connection", None)
        if connection is None or not driver.in_transaction(connection):
            rollback(proxied)
            return
        pool = pool_of(engine, proxied)
        is_checked_out = pool.has_checked_out(proxied)
        limit = AnswerLimit(driver, connection)
        try:
            with limit:
                rollback(proxied)
        except Exception as error:
            of_driver = isinstance(error, dialect.loaded_dbapi.Error)
            if not (of_driver or limit.passed or driver.is_broken(connection)):
                raise
            # Nothing is left to undo: a server rolls back when a connection is gone. An error here
            # would replace the one for which the transaction is rolled back, for example that a
            # replica itself has cancelled it in favour of what it replays.
            pool.counts.lost()
            pool.give_up(proxied, error, silent=limit.passed)
        else:
            if is_checked_out:
                pool.counts.rolled_back()
            if limit.passed:
                pool.give_up(proxied, None, silent=True)

    return do_rollback


def _limited_end(
    engine: Engine, driver: Driver, end: Callable[[Any], None]
) -> Callable[[Any], None]:
    def do_end(connection: Any) -> None:
        limit = AnswerLimit(driver, connection)
        try:
            with limit:
                end(connection)
        except Exception:
            if not limit.passed:
                raise
        finally:
            if limit.passed or driver.was_silent(connection):
                pool = engine.pool
                assert isinstance(pool, ServerPool)
                pool.note_silent(connection)

    return do_end
