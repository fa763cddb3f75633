"""What a pool of servers knows of a connection that is checked out."""

from __future__ import annotations

from typing import final

from sqlalchemy.pool import ConnectionPoolEntry

from ...turn.permit import Permit
from .drivers import Driver


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
