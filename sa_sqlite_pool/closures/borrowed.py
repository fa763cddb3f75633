"""A driver connection that is borrowed from a checkout, as SQLAlchemy expects it from a pool."""

from __future__ import annotations

from typing import Any

from sqlalchemy.engine import AdaptedConnection
from sqlalchemy.pool import PoolProxiedConnection

from ..compat.greenlets import greenlet_spawn
from ..driver.executor import Executor


class BorrowedConnection(AdaptedConnection):
    """A driver connection that is its own pool proxy.

    :param executor: the executor of the borrowed connection
    :param proxied: the pool's proxy for that connection
    """

    __slots__ = ("_executor", "_proxied")

    def __init__(self, executor: Executor, proxied: PoolProxiedConnection) -> None:
        self._executor = executor
        self._proxied = proxied

    @property
    def dbapi(self) -> Any:
        return self._proxied.dbapi_connection.dbapi  # type: ignore[union-attr]

    @property
    def dbapi_connection(self) -> BorrowedConnection:
        return self

    @property
    def info(self) -> Any:
        return self._proxied.info

    @property
    def record_info(self) -> Any:
        return self._proxied.record_info

    @property
    def _connection_record(self) -> Any:
        """The record in which SQLAlchemy notes options to reset at check-in."""
        return self._proxied._connection_record

    @property
    def is_detached(self) -> bool:
        return False

    @property
    def long_read(self) -> bool:
        return self._executor.transaction.long

    @long_read.setter
    def long_read(self, value: bool) -> None:
        self._executor.transaction.long = value

    def close(self) -> None:
        """Do nothing: the connection is borrowed."""

    def _close_special(self, transaction_reset: bool = False) -> None:
        """Do nothing; SQLAlchemy's ``Connection`` calls this in place of :meth:`close`."""


async def give_back(proxied: PoolProxiedConnection, executor: Executor) -> None:
    """Check the connection in; if its thread still uses it, once the thread has finished.

    If its last function was let go while it was running, the pool resets nothing: the connection is
    then discarded, unless it is as it was opened.
    """
    if not proxied.is_valid:  # it was recalled, since its loop is closed
        return
    if executor.worker.at_rest and not executor.transaction.cancelled:
        await greenlet_spawn(proxied.close)
    else:
        executor.transaction.cancelled = True
        proxied.invalidate()
