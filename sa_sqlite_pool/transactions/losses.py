"""Transactions that end other than by their commit or rollback."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import TransactionLostError
from ..execution.connection_thread import ConnectionThread
from ..stats.counts import ConnectionCounts


class Losses:
    """A record that SQLite, or this package, has ended a transaction; later statements raise.

    The base class of :class:`~.transaction.TransactionState`. ``lost_by`` is the reason why SQLite
    itself has ended the transaction, until the rollback is called. ``too_old()`` creates the error
    for a transaction that was ended early, until its end is known. ``counts`` are the counters of
    the connection.
    """

    __slots__ = ("_counts", "_ended_here", "lost_by", "too_old", "worker")

    def __init__(self, worker: ConnectionThread, counts: ConnectionCounts) -> None:
        self.worker = worker
        self._counts = counts
        self.lost_by: str | None = None
        self.too_old: Callable[[], Exception] | None = None
        self._ended_here = False  # briefly ended by the package

    @property
    def lost(self) -> bool:
        """True if SQLite itself has ended it, and :meth:`rollback` has not been called yet."""
        return self.lost_by is not None

    def assert_not_lost(self) -> None:
        """Refuse the rest of a transaction that SQLite has ended: it would be autocommitted."""
        if self.lost_by is not None:
            raise self._transaction_lost()

    def assert_going_on(self) -> None:
        """Refuse the rest of a transaction that SQLite has ended, or that was ended early."""
        if self.lost_by is not None:
            raise self._transaction_lost()
        self.assert_not_too_old()

    def take_loss(self) -> TransactionLostError | None:
        """Return, once, the error for a transaction that SQLite has ended; None if it has not."""
        return None if self.lost_by is None else self._take_loss()

    def _take_loss(self) -> TransactionLostError:
        lost, self.lost_by = self._transaction_lost(), None
        return lost

    def note_loss(self, was_open: bool, error: Exception) -> None:
        """Record, after an error, whether SQLite has ended a transaction that was open."""
        if self._ended_here:
            return
        if was_open and not self.worker.in_transaction and not self.worker.closed:
            out_of = "out of memory" if isinstance(error, MemoryError) else ""
            self.lost_by = str(error) or out_of or "the statement was stopped"
            self._counts.lost += 1

    def _transaction_lost(self) -> TransactionLostError:
        return TransactionLostError(
            f"SQLite has rolled back this transaction on its own ({self.lost_by}); none of its "
            "changes are kept: call rollback() and start again"
        )

    def assert_not_too_old(self) -> None:
        """Raise the error for a transaction that was ended early, if it was."""
        if self.too_old is not None:
            raise self.too_old() from None
