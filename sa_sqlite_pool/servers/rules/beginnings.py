"""BEGIN is sent as the transaction begins, before what the application does with the driver.

SQLAlchemy's adapter of asyncpg sends it with the first statement of its own. What was done on the
driver's connection before, a COPY, would be outside of the transaction: it would stay when that is
rolled back, be there twice when ``run_write()`` runs the function again, and be written on a reader
whose server is the primary. It costs no round trip: it is the one that the first statement would
have had. psycopg begins by itself.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine

from ..drivers.choosing import driver_of
from ..endings import replace
from ..limits.running import Running
from ..pool import pool_of


def begin_at_once(engine: Engine) -> None:
    """Have each transaction of ``engine`` begin on the server as it begins in SQLAlchemy.

    BEGIN has the ``statement_timeout`` of the database.
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
