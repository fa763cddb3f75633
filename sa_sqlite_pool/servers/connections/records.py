"""What a pool of servers knows of its connections, by SQLAlchemy's records of them."""

from __future__ import annotations

from typing import Any, final

from sqlalchemy.pool import ConnectionPoolEntry, Pool, PoolProxiedConnection

from ...compat.pool_records import Record
from ...turn.permit import Permit
from ..drivers.answers import AnswerLimit
from ..drivers.interface import Driver
from .failures import in_setting_up
from .server import Server

_SERVER = "sa_sqlite_pool_server"
_IS_NEW = "sa_sqlite_pool_is_new"


@final
class ServerRecord(Record):
    """A record of a pool, without a connection, of one that will be to a server."""

    def __init__(self, pool: Pool, server: Server) -> None:
        super().__init__(pool, connect=False)
        self._dialect: Any = pool._dialect
        self._opened: Any = None  # and not set up yet
        assert self.record_info is not None
        self.record_info[_SERVER] = server

    def get_connection(self) -> Any:
        """Return the connection, which is opened and set up first if there is none.

        Raise the driver's ``OperationalError``, which names the server, if it ends meanwhile.
        """
        try:
            return super().get_connection()
        except Exception as error:
            raise self._of_setting_up(error)  # noqa: B904
        finally:
            self._opened = None

    def note_new(self, opened: Any) -> None:
        """Note that its connection has just been opened."""
        assert self.record_info is not None
        self.record_info[_IS_NEW] = True
        self._opened = opened

    def end_setting_up(self, driver: Driver) -> None:
        """Commit what listeners have begun on a new connection, so that what they have set stays.

        Nor could the driver change how transactions begin within one.
        """
        assert self.record_info is not None
        if not self.record_info.pop(_IS_NEW, False):
            return
        connection: Any = self.dbapi_connection
        if driver.in_transaction(connection):
            self._opened = connection
            try:
                with AnswerLimit(driver, connection):
                    connection.commit()
            except Exception as error:
                raise self._of_setting_up(error)  # noqa: B904
            finally:
                self._opened = None

    def _of_setting_up(self, error: Exception) -> Exception:
        raised = in_setting_up(self._dialect, server_of(self).name, self._opened, error)
        if raised is None:
            return error
        raised.__cause__ = error
        return raised


def server_of(record: ConnectionPoolEntry) -> Server:
    """Return the server that a record's connection is to."""
    assert record.record_info is not None
    server: Server = record.record_info[_SERVER]
    return server


def record_of(proxied: PoolProxiedConnection) -> ServerRecord:
    """Return the record of a connection that is checked out."""
    return getattr(proxied, "_connection_record", None)  # type: ignore[return-value]


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
