"""The three pools: SQLitePool for all work, WriterPool for writes, ReaderPool for reads."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from ..errors import ConfigurationError, ReadTimeout
from ..settings import SWAP_IN_PRAGMAS, ConnectionSettings, Role, check_count
from ..transactions.locks import write_patience
from ..turn.fair_semaphore import FairSemaphore
from ..turn.permit import Permit
from ..turn.waits import WaitedFor
from ..turn.write_turn import Place, WriteTurn, place_in_line
from .base import FairPool

DEFAULT_READERS = 4


class SQLitePool(FairPool):
    """``create_async_engine("sqlite+aiosqlite:///app.db", poolclass=SQLitePool)``

    Connections read without a long transaction, as those of the stock driver do. The first write
    acquires the file's write turn and sends BEGIN IMMEDIATE; both end at COMMIT or ROLLBACK.
    ``execution_options(sqlite_role="writer")`` acquires the turn at the first statement of any
    kind; ``sqlite_role="reader"`` reads from one snapshot and refuses to write.

    The file is switched to WAL with ``synchronous=NORMAL``. Foreign keys are left as the
    application has set them; ``pragmas={"foreign_keys": True}`` enforces them.

    All options of SQLAlchemy's ``QueuePool`` apply; :class:`~sa_sqlite_pool.pools.base.FairPool`
    describes the others. Pass them to ``create_async_engine``.
    """

    role = Role.AUTO
    default_pragmas = SWAP_IN_PRAGMAS


class WriterPool(FairPool):
    """A pool of one connection; its checkout includes the write turn of the file.

    ``create_async_engine(url, poolclass=WriterPool)``. All engines on a file share one line, so a
    wait for the connection is a wait for the turn, and all work on the connection runs within the
    turn of the process: transactions (BEGIN IMMEDIATE), AUTOCOMMIT, VACUUM, migrations, the raw
    driver connection. The turn between processes is acquired together with SQLite's lock; the raw
    driver connection acquires that lock on its own. A checkout waits at most ``pool_timeout`` (by
    default ``write_timeout``) seconds and then raises :class:`~sa_sqlite_pool.WriteTimeout`; None
    means no limit.

    Return the connection as soon as the transaction has ended; sessions do so automatically.
    """

    role = Role.WRITER
    _of_file = (*FairPool._of_file, "_line")

    def __init__(
        self,
        creator: Callable[..., Any],
        pool_size: int = 1,
        max_overflow: int = 0,
        **kw: Any,
    ) -> None:
        if (pool_size, max_overflow) != (1, 0):
            raise ConfigurationError(
                "a WriterPool has exactly one connection, since SQLite allows one writer; "
                "omit pool_size and max_overflow"
            )
        super().__init__(creator, pool_size=1, max_overflow=0, **kw)

    @property
    def turn(self) -> WriteTurn:
        """The write turn of the file, shared with every engine on it."""
        return self.database_file.turn

    def stand_in_line(self) -> Place:
        """Return a place in line for this connection, for a task that sets ``place_in_line``."""
        return self.turn.stand_in_line(self._connector)

    def _default_timeout(self, settings: ConnectionSettings) -> float:
        return settings.write_timeout

    @cached_property
    def _line(self) -> FairSemaphore:
        return self.turn.line

    async def _acquire(self, waited: float) -> Permit:
        if place := place_in_line.get():
            return await place.wait()
        patience = write_patience.get()
        seconds = self._timeout if patience is None else patience
        permit = await self.turn.wait_in_line(
            seconds, self._connector, waited=waited, watch=self._connector.wait_watch
        )
        if seconds is None:  # a wait without a limit does not count against write_timeout
            permit.seconds_waited = 0.0
        return permit


class ReaderPool(FairPool):
    """A pool of a few connections that cannot write; each transaction reads from one snapshot.

    ``create_async_engine(url, poolclass=ReaderPool, pool_size=4)``. If all connections are checked
    out, a checkout waits in order of arrival, at most ``pool_timeout`` (by default
    ``read_timeout``) seconds, and then raises :class:`~sa_sqlite_pool.ReadTimeout`; None means no
    limit.

    The file is opened with ``mode=ro``, and SQLite's authorizer refuses what that mode still allows
    (ATTACH, VACUUM INTO, settings of the file). Temp tables are allowed.
    """

    role = Role.READER
    timeout_error = ReadTimeout
    waited_for = WaitedFor.READER
    limits = "pool_size or pool_timeout (readers or read_timeout of SQLiteDatabase)"

    def __init__(
        self,
        creator: Callable[..., Any],
        pool_size: int = DEFAULT_READERS,
        max_overflow: int = 0,
        **kw: Any,
    ) -> None:
        check_count("the number of readers", pool_size)
        super().__init__(creator, pool_size=pool_size, max_overflow=max_overflow, **kw)
