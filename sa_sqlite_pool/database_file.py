"""One object for each database file of the process: its write turn, readers, log and pools.

All engines, event loops and threads that use the file share it. It is looked up by the file's real
path. Only its users refer to it: the pools, and the turn, which refers back. So it lives as long as
any of its parts is in use. In a child process after ``fork()``, each part resets itself.
"""

from __future__ import annotations

import weakref
from typing import ClassVar, Protocol, final

from .files.location import Location
from .files.neighbours import describe_writer
from .mutex import new_lock
from .settings import Role
from .system.forks import renew_after_fork
from .system.weak_objects import WeakObjects
from .turn.snapshots import Snapshots
from .turn.write_turn import WriteTurn
from .wal.keeper import WalKeeper


class OfFile(Protocol):
    """The interface of a pool to other pools on the same file."""

    role: ClassVar[Role]

    @property
    def in_use(self) -> bool:
        """True if a task has a connection checked out, or is opening one."""

    def close_at_rest(self) -> None:
        """Close the connections that are at rest, in this thread."""

    def retire(self) -> None:
        """Close each connection that is checked out when it is returned."""

    def lends(self) -> bool:
        """Return whether a connection is checked out."""


@final
class DatabaseFile:
    """The state that all engines of the process share for one database; see :func:`database_file`.

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
        """Return the keeper of its log, which opens the file at the first call's ``location``.

        Call this only if there is a write-ahead log, in a file that this process may write.
        """
        with _registry.mutex:
            if self._keeper is None:
                self._keeper = WalKeeper(location, self.turn, self.snapshots)
            return self._keeper

    def close_at_rest(self) -> None:
        """Close the connections of all pools that are at rest, readers first.

        A reader that is closed last leaves the log as it is.
        """
        for pool in sorted(self.pools, key=lambda pool: pool.role is not Role.READER):
            pool.close_at_rest()

    def leave_log(self) -> None:
        """Close all connections, if all of them are at rest: a writer has to be the last."""
        if not any(pool.lends() for pool in self.pools):
            self.close_at_rest()

    def retire(self) -> None:
        """Close all connections, those that are checked out when they are returned."""
        for pool in self.pools:
            pool.retire()
        self.close_at_rest()

    def _writer(self) -> str | None:
        return None if self.file is None else describe_writer(self.file)

    def _turn_of(self, path: str) -> WriteTurn:
        return database_file(Location(path)).turn


@final
class _Registry:
    """The files in use, by identity, protected by a mutex."""

    def __init__(self) -> None:
        self.files: weakref.WeakValueDictionary[str, DatabaseFile] = weakref.WeakValueDictionary()
        self.renew_in_child()
        renew_after_fork(self)

    def renew_in_child(self) -> None:
        self.mutex = new_lock()  # a thread of the parent process may have held it


_registry = _Registry()


def database_file(location: Location) -> DatabaseFile:
    """Return the object for the file at ``location``: the same one each time while it is in use.

    Keep a reference to it or to its turn.
    """
    identity = location.identity
    with _registry.mutex:
        found = _registry.files.get(identity)
        if found is None:
            found = _registry.files[identity] = DatabaseFile(location)
        return found
