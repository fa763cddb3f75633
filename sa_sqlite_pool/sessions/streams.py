"""The streams on a session's reader connections, where its driver does not know them."""

from __future__ import annotations

from typing import Any, final
from weakref import WeakKeyDictionary, ref

from sqlalchemy import Connection

from ..compat.sqlalchemy_core import connection_of_stream, is_open_stream


@final
class OpenStreams:
    """The results of a session that are read row by row, by their connections.

    A result that the application has dropped is not read any more.
    """

    def __init__(self) -> None:
        self._results: WeakKeyDictionary[Connection, list[ref[Any]]] = WeakKeyDictionary()

    def note(self, result: Any) -> None:
        """Note the result of a statement."""
        if (connection := connection_of_stream(result)) is not None:
            self._results.setdefault(connection, []).append(ref(result))

    def on(self, connection: Connection) -> bool:
        """Return whether a stream on ``connection`` has rows to be read still."""
        if connection.closed or connection.invalidated:
            return False
        return any(map(_is_open, self._results.get(connection, ())))


def _is_open(reference: ref[Any]) -> bool:
    result = reference()
    return result is not None and is_open_stream(result)
