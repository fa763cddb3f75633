"""The publication of a database's statistics while the database is open."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from datetime import datetime, timezone
from typing import final

from ..stats.database import DatabaseStatistics
from ..system.forks import renew_after_fork
from . import addresses
from .documents import encode
from .server import Server

# Time for a thread that is sending a response; if it takes longer, it ends on its own afterwards.
_END_SECONDS = 0.2


_Take = Callable[[], DatabaseStatistics]


@final
class Publisher:
    """The publication of the result of ``statistics``, a method of a database, in another thread.

    It holds a weak reference to the database, and ends with :meth:`close`, with this object, or
    with the process. A child process does not publish a database that its parent has opened.
    """

    def __init__(self, statistics: _Take) -> None:
        self._statistics = weakref.WeakMethod(statistics)
        self._server: Server | None = None
        self._stop: weakref.finalize[[], Publisher] | None = None
        renew_after_fork(self)

    def open(self, file: str) -> None:
        """Start a thread that publishes on a socket beside ``file``, if the system supports it."""
        if self._server is not None or not addresses.supported:
            return
        since = datetime.now(timezone.utc)
        try:
            server = Server(file, functools.partial(_answer, self._statistics, since))
            server.start()
        except (OSError, RuntimeError):  # no more descriptors or threads
            return
        self._server, self._stop = server, weakref.finalize(self, server.stop)

    def close(self) -> None:
        """Stop publishing, and remove the socket."""
        server, self._server = self._server, None
        if server is not None and self._stop is not None:
            self._stop()
            server.join(_END_SECONDS)

    def renew_in_child(self) -> None:
        """Leave the socket to the parent process."""
        server, self._server = self._server, None
        if server is not None:
            server.abandon()


def _answer(statistics: weakref.WeakMethod[_Take], since: datetime) -> bytes:
    take = statistics()
    if take is None:
        return encode(since, None, "the database is no longer in use")
    try:
        return encode(since, take().as_dict())
    except Exception as error:  # it may be closed: report that; the next query may succeed
        return encode(since, None, f"{type(error).__name__}: {error}")
