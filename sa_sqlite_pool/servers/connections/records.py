"""What a pool of servers knows of its connections, by SQLAlchemy's records of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from sqlalchemy.pool import ConnectionPoolEntry, Pool, PoolProxiedConnection

from ...compat.pool_records import Record, give_back_lost, has_proxy
from ...turn.permit import Permit, is_own
from ..drivers.answers import AnswerLimit
from ..drivers.interface import Driver
from .failures import in_setting_up
from .server import Server

_SERVER = "sa_sqlite_pool_server"


@final
class ServerRecord(Record):
    """A record of a pool, without a connection, of one that will be to a server."""

    def __init__(self, pool: Pool, server: Server) -> None:
        super().__init__(pool, connect=False)
        self.server = server
        self._dialect: Any = pool._dialect
        self._is_new = False
        self._opened: Any = None  # and not set up yet

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
        self._is_new, self._opened = True, opened
        self.info[_SERVER] = self.server

    def end_setting_up(self, driver: Driver) -> None:
        """Commit what listeners have begun on a new connection, so that what they have set stays.

        Nor could the driver change how transactions begin within one.
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
    """Return the server that a record's connection is to."""
    assert isinstance(record, ServerRecord)
    return record.server


def server_behind(proxied: PoolProxiedConnection) -> Server | None:
    """Return the server of a connection that is checked out, set up by SQLAlchemy, or detached."""
    if (record := record_of(proxied)) is not None:
        return server_of(record)
    found: Server | None = proxied.info.get(_SERVER)
    return found


def record_of(proxied: PoolProxiedConnection) -> ServerRecord:
    """Return the record of a connection that is checked out, and was not detached."""
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


@final
class CheckedOut:
    """The connections of an engine that are checked out. ``dispose()`` leaves them as they are.

    So the pool that it puts in the place of another knows them, too, and both give back here.
    ``permits`` are those of connections that are checked out or being opened for it, ``held`` are
    the former. ``refusal()`` is raised in all checkouts, None while they are welcome.
    ``on_last_return()`` is called when nothing is checked out any more. ``begun`` is the number of
    checkouts that have begun so far.
    """

    def __init__(self, refusal: Callable[[], Exception] | None = None) -> None:
        self.permits: dict[ConnectionPoolEntry, Permit] = {}
        self.held: dict[ConnectionPoolEntry, Held] = {}
        self.refusal = refusal
        self.begun = 0
        self.on_last_return: Callable[[], None] | None = None

    def begin(self, record: ServerRecord, permit: Permit) -> None:
        """Note a record that is about to be checked out."""
        self.permits[record] = permit
        self.begun = record.number = self.begun + 1

    def give_back_lost(self, begun: int) -> None:
        """Undo what an error has kept from being handed out, of what this task began to check out.

        ``begun`` had begun before that.
        """
        lost = [
            record
            for record, permit in list(self.permits.items())
            if is_own(permit) and not has_proxy(record)
        ]
        give_back_lost(lost, begun)

    def has_returned(self) -> None:
        """Tell that a connection was given back, or could not be opened."""
        if not self.permits and self.on_last_return is not None:
            self.on_last_return()
