"""One object for each database file of the process: its write turn, readers, log and pools.

All engines, event loops and threads that use the file share it. It is looked up by the file's real
path. Only its users refer to it: the pools, and the turn, which refers back. So it lives as long as
any of its parts is used. In a child process after ``fork()`` each part begins anew by itself.
"""

from __future__ import annotations

import weakref
from typing import Protocol, final

from .files.location import Location
from .files.neighbours import describe_writer
from .mutex import new_lock
from .system.forks import renew_after_fork
from .system.weak_objects import WeakObjects
from .turn.snapshots import Snapshots
from .turn.write_turn import WriteTurn
from .wal.keeper import WalKeeper


class OfFile(Protocol):
    """The interface of a pool to other pools on the same file."""

    @property
    def in_use(self) -> bool:
        """True if a task has a connection, or opens one."""

    def close_at_rest(self) -> None:
        """Close the connections that are at rest, in this thread."""


@final
class DatabaseFile:
    """What all engines of the process share on one database. :func:`database_file` returns it.

    ``file`` is its real path, None in memory. ``snapshots`` are the read transactions on it, and
    ``pools`` the pools that have connections to it.
    """

    def __init__(self, location: Location) -> None:
        self.file = location.file
        self.turn = WriteTurn(
            location.identity, location.label, describe_writer=self._writer, turn_of=self._turn_of
        )
        self.snapshots = Snapshots()
        self.pools: WeakObjects[OfFile] = WeakObjects()
        self._keeper: WalKeeper | None = None

    def __repr__(self) -> str:
        return f"<DatabaseFile {self.turn.name}, {len(self.snapshots)} reading, {self.turn!r}>"

    def keeper(self, location: Location) -> WalKeeper:
        """Return the keeper of its log, which opens the file at ``location`` of the first call.

        Call it only if there is a write-ahead log, in a file that this process may write.
        """
        with _registry.mutex:
            if self._keeper is None:
                self._keeper = WalKeeper(location, self.turn, self.snapshots)
            return self._keeper

    def _writer(self) -> str | None:
        return None if self.file is None else describe_writer(self.file)

    def _turn_of(self, path: str) -> WriteTurn:
        return database_file(Location(path)).turn


@final
class _Registry:
    """The files in use, by their identity, under a mutex."""

    def __init__(self) -> None:
        self.files: weakref.WeakValueDictionary[str, DatabaseFile] = weakref.WeakValueDictionary()
        self.renew_in_child()
        renew_after_fork(self)

    def renew_in_child(self) -> None:
        self.mutex = new_lock()  # a thread of the parent process may have held it


_registry = _Registry()


def database_file(location: Location) -> DatabaseFile:
    """Return the object of the file at ``location``: the same one each time, while it is in use.

    Keep a reference, to it or to its turn.
    """
    identity = location.identity
    with _registry.mutex:
        found = _registry.files.get(identity)
        if found is None:
            found = _registry.files[identity] = DatabaseFile(location)
        return found
