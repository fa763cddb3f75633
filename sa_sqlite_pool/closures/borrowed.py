"""What SQLAlchemy asks of a connection from a pool, where it stays with its owner."""

from __future__ import annotations

from typing import Any

from sqlalchemy.engine import AdaptedConnection
from sqlalchemy.pool import PoolProxiedConnection

from ..driver.executor import Executor


class BorrowedConnection(AdaptedConnection):
    """A driver connection that is its own pool proxy.

    :param executor: of the connection that it is borrowed from
    :param fairy: that connection as it came from its pool
    """

    __slots__ = ("_executor", "_fairy")

    def __init__(self, executor: Executor, fairy: PoolProxiedConnection) -> None:
        self._executor = executor
        self._fairy = fairy

    @property
    def dbapi(self) -> Any:
        return self._fairy.dbapi_connection.dbapi  # type: ignore[union-attr]

    @property
    def dbapi_connection(self) -> BorrowedConnection:
        return self

    @property
    def info(self) -> Any:
        return self._fairy.info

    @property
    def record_info(self) -> Any:
        return self._fairy.record_info

    @property
    def _connection_record(self) -> Any:
        """Where SQLAlchemy notes which options are to be reset at the end of the checkout."""
        return self._fairy._connection_record

    @property
    def is_detached(self) -> bool:
        return False

    @property
    def long_read(self) -> bool:
        return self._executor.transaction.reading.long

    @long_read.setter
    def long_read(self, value: bool) -> None:
        self._executor.transaction.reading.long = value

    def close(self) -> None:
        """Nothing: it was lent."""

    def _close_special(self, transaction_reset: bool = False) -> None:
        """The same, as SQLAlchemy's ``Connection`` says it."""
