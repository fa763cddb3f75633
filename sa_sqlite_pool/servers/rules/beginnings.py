"""Send BEGIN when the transaction begins, before the application uses the driver's connection.

SQLAlchemy's adapter for asyncpg sends it with its own first statement. Earlier work on the driver's
connection, such as a COPY, would be outside of the transaction: it would remain after a rollback,
exist twice after ``run_write()`` has retried the function, and be written even by a reader whose
server is the primary. This adds no round trip, since the first statement would have needed it
anyway. psycopg begins transactions itself.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine

from ..drivers.choosing import driver_of
from ..endings import replace
from ..limits.running import Running
from ..pool import pool_of


def begin_at_once(engine: Engine) -> None:
    """Make each transaction of ``engine`` begin on the server when it begins in SQLAlchemy.

    The ``statement_timeout`` of the database applies to BEGIN.
    """
    dialect, driver = engine.dialect, driver_of(engine.dialect)
    begin = dialect.do_begin

    def do_begin(proxied: Any) -> None:
        begin(proxied)
        connection, pool = proxied.dbapi_connection, pool_of(engine, proxied)
        permit = pool.permit_of(proxied)
        if permit is None or connection.autocommit:
            return
        limit = pool.statement_timeout
        if limit is None:
            driver.begin(connection)
            return
        with Running(pool, permit, connection, "BEGIN", limit):
            driver.begin(connection)

    replace(dialect, do_begin=do_begin)
