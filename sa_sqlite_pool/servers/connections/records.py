"""What a server pool knows about its connections, kept in SQLAlchemy's connection records."""

from __future__ import annotations

from typing import Any, final

from sqlalchemy.pool import ConnectionPoolEntry, Pool, PoolProxiedConnection

from ...compat.pool_records import Record
from ..drivers.answers import AnswerLimit
from ..drivers.interface import Driver
from .failures import in_setting_up
from .server import Server

_SERVER = "sa_sqlite_pool_server"


@final
class ServerRecord(Record):
    """A connection record for a server, created without a connection.

    ``received`` tells whether the task that checks it out has received its connection.
    """

    received = False

    def __init__(self, pool: Pool, server: Server) -> None:
        super().__init__(pool, connect=False)
        self.server = server
        self._dialect: Any = pool._dialect
        self._is_new = False
        self._opened: Any = None  # but not set up yet

    def get_connection(self) -> Any:
        """Return the connection; open it and set it up first if there is none.

        Raise the driver's ``OperationalError``, naming the server, if it is closed meanwhile.
        """
        try:
            return super().get_connection()
        except Exception as error:
            raise self._of_setting_up(error)  # noqa: B904
        finally:
            self._opened = None

    def note_new(self, opened: Any) -> None:
        """Record that the connection has just been opened."""
        self._is_new, self._opened = True, opened
        self.info[_SERVER] = self.server

    def end_setting_up(self, driver: Driver) -> None:
        """Commit what listeners have begun on a new connection, so that their settings persist.

        Besides, the driver cannot change how transactions begin while one is open.
        """
        if not self._is_new:
            return
        self._is_new = False
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
        raised = in_setting_up(self._dialect, self.server.name, self._opened, error)
        if raised is None:
            return error
        raised.__cause__ = error
        return raised


def server_of(record: ConnectionPoolEntry) -> Server:
    """Return the server to which a record connects."""
    assert isinstance(record, ServerRecord)
    return record.server


def server_behind(proxied: PoolProxiedConnection) -> Server | None:
    """Return the server of a connection: checked out, being set up by SQLAlchemy, or detached."""
    if (record := record_of(proxied)) is not None:
        return server_of(record)
    found: Server | None = proxied.info.get(_SERVER)
    return found


def record_of(proxied: PoolProxiedConnection) -> ServerRecord:
    """Return the record of a connection that is checked out and not detached."""
    return getattr(proxied, "_connection_record", None)  # type: ignore[return-value]
