"""One server: how to connect to it, its connections at rest, and what is known about it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from typing import Any, final

from sqlalchemy import URL, Dialect
from sqlalchemy.pool import ConnectionPoolEntry

from ...freshness import Position
from ...turn.fair_semaphore import FairSemaphore
from ..drivers.choosing import driver_of
from .failures import no_connection
from .openings import Openings
from .outages import Outages

PRIMARY = "primary"
"""The source of reads of the primary, through either engine."""


def hosts_of(url: URL) -> list[str]:
    """Return the hosts that a URL names, which drivers try one after the other."""
    named = url.host or url.query.get("host") or ()
    return [
        host for part in ([named] if isinstance(named, str) else named) for host in part.split(",")
    ]


def name_of(url: URL) -> str:
    """Return the name of a server for messages, without the password: ``db1:5432/app``."""
    host = ",".join(hosts_of(url)) or "local"
    port = "" if url.port is None else f":{url.port}"
    return f"{host}{port}/{url.database or ''}"


@final
class Server:
    """A server, and the connections of one engine to it.

    ``line`` grants the permits for connections, at most ``capacity`` at a time. ``shows`` is a
    position that reads of it are known to see; it only grows until the server restarts, which
    begins another of its ``lives``.

    :param outages: whether the server responds; both engines of a database share the object
    """

    def __init__(
        self,
        url: URL,
        capacity: int,
        connect_args: Mapping[str, Any],
        *,
        is_primary: bool,
        settings: Mapping[str, str],
        outages: Outages,
    ) -> None:
        self.url = url
        self.capacity = capacity
        self.is_primary = is_primary
        self.line = FairSemaphore(capacity)
        self.openings = Openings()
        self.at_rest: list[ConnectionPoolEntry] = []
        self.shows: Position = 0
        self.lives = 0
        self.outages = outages
        self.opened = 0
        self.checkouts = 0
        self.thrown_away = 0
        self._connect_args = connect_args
        self._settings = settings
        self._arguments: tuple[Sequence[Any], Mapping[str, Any]] | None = None

    def __repr__(self) -> str:
        state = "up" if self.is_up else "down"
        return (
            f"<Server {self.name} {state}, {self.in_use} of {self.capacity} checked out, "
            f"{len(self.at_rest)} at rest>"
        )

    @property
    def name(self) -> str:
        """The name of the server for messages: see :func:`name_of`."""
        return name_of(self.url)

    @property
    def is_up(self) -> bool:
        """Whether the server responded when it was last queried."""
        return self.outages.since is None

    @property
    def source(self) -> Hashable:
        """The source of reads of the server: within one life, they only go forward in time."""
        return PRIMARY if self.is_primary else (self, self.lives)

    @property
    def in_use(self) -> int:
        """The number of connections that are checked out, or being opened."""
        return self.line.held

    def connect(self, dialect: Dialect, record: ConnectionPoolEntry) -> Any:
        """Open a connection as ``create_engine()`` does; a ``do_connect`` listener may do so.

        Raise the driver's ``OperationalError`` if the server cannot be reached.
        """
        try:
            connection = self._connect(dialect, record)
        except Exception as error:
            raised = no_connection(dialect, self.name, error)
            if raised is None:
                raise
            if self.is_primary:  # for a replica, its pool decides
                self.note_down(raised)
            raise raised from error
        self.opened += 1
        if self.is_primary:
            self.outages.end()
        return connection

    def _connect(self, dialect: Dialect, record: ConnectionPoolEntry) -> Any:
        driver = driver_of(dialect)
        if self._arguments is None:
            positional, named = dialect.create_connect_args(self.url)
            given = driver.connect_arguments({**named, **self._connect_args}, self._settings)
            self._arguments = positional, given
        positional, named = list(self._arguments[0]), dict(self._arguments[1])
        for listener in dialect.dispatch.do_connect:
            connection = listener(dialect, record, positional, named)
            if connection is not None:
                return connection
        connect = named.get("async_creator_fn") or driver.connect(dialect)
        named["async_creator_fn"] = partial(self.openings.open, driver, connect)
        return dialect.connect(*positional, **named)

    def another(self, *, counts_on: bool) -> Server:
        """Return an object for the same server, with no connections.

        It is for a pool that shares nothing with the one that it replaces, except for the counters
        if ``counts_on`` is true.
        """
        new = Server(
            *(self.url, self.capacity, self._connect_args),
            is_primary=self.is_primary,
            settings=self._settings,
            outages=self.outages,
        )
        if counts_on:
            new.line.waits = self.line.waits
            new.opened, new.checkouts = self.opened, self.checkouts
            new.thrown_away = self.thrown_away
        return new

    def note_position(self, position: Position) -> None:
        """Record that reads of the server see everything up to ``position``."""
        self.shows = max(self.shows, position)

    def note_down(self, error: BaseException) -> bool:
        """Record that the server does not respond; return whether this outage is new."""
        self.forget_position()
        return self.outages.begin(error)

    def forget_position(self) -> None:
        """Forget what reads see, since the server may have restarted, or been replaced by another.

        After a crash, a replica accepts reads before it has replayed everything it had shown.
        """
        self.shows = 0
        self.lives += 1
