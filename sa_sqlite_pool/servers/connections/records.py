"""What a pool of servers knows of its connections, by SQLAlchemy's records of them."""

from __future__ import annotations

from typing import Any, final

from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from ...turn.permit import Permit
from .answers import AnswerLimit
from .drivers import Driver
from .server import Server

_SERVER = "sa_sqlite_pool_server"
_IS_NEW = "sa_sqlite_pool_is_new"


def of_server(record: ConnectionPoolEntry, server: Server) -> ConnectionPoolEntry:
    """Return a record, having noted which server its connection will be to."""
    assert record.record_info is not None
    record.record_info[_SERVER] = server
    return record


def server_of(record: ConnectionPoolEntry) -> Server:
    """Return the server that a record's connection is to."""
    assert record.record_info is not None
    server: Server = record.record_info[_SERVER]
    return server


def record_of(proxied: PoolProxiedConnection) -> ConnectionPoolEntry:
    """Return the record of a connection that is checked out."""
    return getattr(proxied, "_connection_record", None)  # type: ignore[return-value]


def note_new(record: ConnectionPoolEntry) -> None:
    """Note that the connection of a record has just been opened."""
    assert record.record_info is not None
    record.record_info[_IS_NEW] = True


def end_setting_up(record: ConnectionPoolEntry, driver: Driver) -> None:
    """Commit what listeners have begun on a new connection, so that what they have set stays.

    Nor could the driver change how transactions begin within one.
    """
    assert record.record_info is not None
    if record.record_info.pop(_IS_NEW, False):
        connection: Any = record.dbapi_connection
        if driver.in_transaction(connection):
            with AnswerLimit(driver, connection):
                connection.commit()


@final
class Held:
    """A connection that is checked out, and watched for transactions that are idle."""

    __slots__ = ("_driver", "_record", "permit", "warned")

    long_read = False

    def __init__(self, permit: Permit, record: ConnectionPoolEntry, driver: Driver) -> None:
        self.permit = permit
        self.warned = False
        self._record = record
        self._driver = driver

    @property
    def connection(self) -> Held | None:
        """Itself; None after the connection is given up."""
        return None if self._record.dbapi_connection is None else self

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction has begun and not ended."""
        return self._driver.in_transaction(self._record.dbapi_connection)
