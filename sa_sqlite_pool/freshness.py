"""Read your own writes: what tasks have written or read, as a token for later readers.

A replica shows commits of the primary after a delay. A token states the position up to which a
later read has to see. On SQLite a read sees every commit that finished before it began, so no token
is needed.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Hashable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from contextvars import ContextVar, Token
from typing import TypeAlias, final

from .errors import ConfigurationError

Position: TypeAlias = int
"""A place in a primary's write-ahead log, in bytes: PostgreSQL's ``pg_lsn``."""

_TOKEN = re.compile("([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")


def parse_token(token: str) -> Position:
    """Return the position of a token; raise :class:`~sa_sqlite_pool.ConfigurationError`."""
    if (found := _TOKEN.fullmatch(token)) is None:
        raise ConfigurationError(
            f"{token!r} is not a freshness token; pass one that `seen.token` returned, such as "
            "'0/3000148', or None"
        )
    high, low = found.groups()
    return int(high, 16) << 32 | int(low, 16)


def token_of(position: Position) -> str | None:
    """Return the token of a position, as PostgreSQL writes it; None for 0."""
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}" if position else None


BEYOND_ALL: Position = (1 << 64) - 1
"""The position that only the primary is certain to show."""


@final
class Seen:
    """What the tasks of a ``fresh()`` block have written and read.

    All tasks that are started in the block share it. Their later reads show everything up to
    ``position``, and everything they have read before. ``read_from`` contains the sources whose
    reads may be newer than ``position``, each with the number of its last read. ``unconfirmed`` is
    True if no server may ever reach ``position``: the application passed it, or it stands for a
    commit whose outcome is unknown. ``notes`` counts how often a position was recorded.
    """

    __slots__ = ("_reads", "_settle", "notes", "position", "read_from", "unconfirmed")

    def __init__(
        self, token: str | None = None, settle: Callable[[Seen], Awaitable[None]] | None = None
    ) -> None:
        self.position: Position = 0 if token is None else parse_token(token)
        self.read_from: dict[Hashable, int] = {}
        self.unconfirmed: bool = token is not None
        self.notes: int = 0
        self._reads = 0
        self._settle = settle

    def __repr__(self) -> str:
        return f"<Seen {self.token}>"

    @property
    def token(self) -> str | None:
        """The token to pass on; None if nothing has to be seen, as always on SQLite.

        It covers all writes of the block, and the reads after :meth:`settle`, which is called at
        the end of the block.
        """
        return token_of(self.position)

    async def settle(self) -> None:
        """Query the positions of the servers that were read from, so that ``token`` covers reads.

        Sends one short query to each of them, and none on SQLite. If a server does not respond,
        or after a cancellation, the token is one that only the primary shows; no error is raised.
        """
        if self._settle is None or not self.read_from:
            return
        try:
            await self._settle(self)
        except BaseException:
            self.give_up()
            raise

    def give_up(self) -> None:
        """If ``token`` lacks reads, make it one that only the primary shows, without a query."""
        if self.read_from:
            self.note_position(BEYOND_ALL, dict(self.read_from))

    def join(self, other: Seen) -> None:
        """Make later reads show what ``other`` requires, which has seen only its own token."""
        if other.position:
            self.note_position(other.position, {})
            self.unconfirmed = self.unconfirmed or other.unconfirmed

    # -- for the pools --------------------------------------------------------------------------

    def note_read(self, source: Hashable) -> None:
        """Record that a read of ``source`` begins or has ended."""
        self._reads += 1
        self.read_from[source] = self._reads

    def note_position(self, position: Position, covered: Mapping[Hashable, int]) -> None:
        """Make later reads show everything up to ``position``.

        ``covered`` is a copy of ``read_from`` from before ``position`` was queried: ``position``
        covers these reads, but not those that have ended since.
        """
        self.notes += 1
        self.position = max(self.position, position)
        self.unconfirmed = self.unconfirmed or position == BEYOND_ALL
        for source, number in covered.items():
            if self.read_from.get(source) == number:
                del self.read_from[source]

    def correct(self, position: Position, as_of: int) -> None:
        """Lower the required position to ``position``, since the primary has no more.

        Does nothing if one was recorded since ``notes`` was ``as_of``: it may be of a later commit.
        """
        if self.notes == as_of:
            self.position = min(self.position, position)
            self.unconfirmed = False


# By the object that owns the engines. A mapping is replaced, never changed, since tasks share it.
_seen: ContextVar[Mapping[object, Seen]] = ContextVar("sa_sqlite_pool_seen", default={})  # noqa: B039


def seen_by(owner: object) -> Seen | None:
    """Return the :class:`Seen` of the running task's block of ``owner``; None outside a block."""
    return _seen.get().get(owner)


@final
class FreshBlock(AbstractAsyncContextManager[Seen, None]):
    """The context of ``db.fresh()``: a :class:`Seen` for the tasks in it.

    A nested block shares the outer block's: a write in the inner block is a write in both.
    """

    def __init__(self, owner: object, seen: Seen) -> None:
        self._owner = owner
        self._seen = seen
        self._before: Token[Mapping[object, Seen]] | None = None

    async def __aenter__(self) -> Seen:
        if (outer := seen_by(self._owner)) is not None:
            outer.join(self._seen)
            self._seen = outer
        else:
            self._before = _seen.set({**_seen.get(), self._owner: self._seen})
        return self._seen

    async def __aexit__(
        self, _type: object, error: BaseException | None, _traceback: object
    ) -> None:
        if self._before is not None:
            with suppress(ValueError):  # a different context, in which the block was not entered
                _seen.reset(self._before)
        if error is None or isinstance(error, Exception):
            await self._seen.settle()
        else:  # cancelled: querying the servers would delay the end
            self._seen.give_up()
