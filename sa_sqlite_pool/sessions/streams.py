"""The open streams on a session's reader connections, for drivers that do not track them."""

from __future__ import annotations

from typing import Any, final
from weakref import WeakKeyDictionary

from sqlalchemy import Connection

from ..compat.sqlalchemy_core import Stream, stream_of


@final
class OpenStreams:
    """The streaming results of a session, by connection."""

    def __init__(self) -> None:
        self._streams: WeakKeyDictionary[Connection, list[Stream]] = WeakKeyDictionary()

    def note(self, result: Any) -> None:
        """Register the result of a statement if it is a stream."""
        if (found := stream_of(result)) is not None:
            connection, stream = found
            still_open = [one for one in self._streams.get(connection, ()) if one.is_open]
            self._streams[connection] = [*still_open, stream]

    def on(self, connection: Connection) -> bool:
        """Return whether a stream on ``connection`` is still open."""
        return any(stream.is_open for stream in self._streams.get(connection, ()))
