"""Warnings about idle checkouts that hold something that other tasks wait for."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Iterator
from contextvars import Context
from typing import Protocol, final

from ..reporting.events import IdleTransaction, log
from ..system.clock import call_later, time
from ..turn.permit import Permit

# The least number of seconds between two checks.
_SHORTEST_WAIT = 0.01


class WatchedConnection(Protocol):
    """A connection; ``long_read`` is True if it is expected to be idle in a transaction."""

    @property
    def long_read(self) -> bool: ...

    @property
    def in_transaction(self) -> bool: ...


class WatchedCheckout(Protocol):
    """A checkout under a permit; ``warned`` is True once a warning about it was logged."""

    permit: Permit
    warned: bool

    @property
    def connection(self) -> WatchedConnection | None: ...


class WatchedCheckouts(Protocol):
    """The checkouts of a pool at the time of each check."""

    def __iter__(self) -> Iterator[WatchedCheckout]: ...

    def __len__(self) -> int: ...


@final
class IdleWatch:
    """Logs one warning per checkout when its transaction has been idle for ``seconds``.

    One timer on ``loop`` serves all checkouts, as long as there are any. ``holds_turn``: a checkout
    of this pool keeps other tasks from writing even without a transaction.
    """

    def __init__(
        self,
        checkouts: WatchedCheckouts,
        seconds: float | None,
        *,
        label: Callable[[], str],
        waiting: Callable[[], int],
        holds_turn: bool,
        product: str = "SQLite",
    ) -> None:
        self._checkouts = checkouts
        self._seconds = seconds
        self._label = label
        self._waiting = waiting
        self._holds_turn = holds_turn
        self._product = product
        self.loop: asyncio.AbstractEventLoop | None = None

    def checkout_began(self) -> None:
        if self._seconds is not None and (self.loop is None or self.loop.is_closed()):
            self._look_in(self._seconds)

    def renew_in_child(self) -> None:
        self.loop = None  # the parent's, which does not run here

    def _look_in(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        # A weak reference: the timer must not keep an unused pool alive.
        call_later(loop, max(seconds, _SHORTEST_WAIT), _look, weakref.ref(self), context=Context())
        self.loop = loop  # only now: the call may fail if the stack is nearly exhausted

    def look(self) -> None:
        """Warn about idle checkouts, and schedule the check when the next may be due."""
        self.loop = None
        assert self._seconds is not None
        watched = [checkout for checkout in self._checkouts if not checkout.warned]
        for checkout in watched:
            if self._seconds_idle(checkout) >= self._seconds:
                self._warn(checkout)
        if len(self._checkouts):
            longest = max(map(self._seconds_idle, (w for w in watched if not w.warned)), default=0)
            self._look_in(self._seconds - longest)

    def _seconds_idle(self, checkout: WatchedCheckout) -> float:
        since, connection = checkout.permit.idle_since, checkout.connection
        if since is None or connection is None:
            return 0.0
        if connection.long_read:  # long on purpose; the log's keeper reports it
            return 0.0
        pins = self._holds_turn or connection.in_transaction
        return time.monotonic() - since if pins else 0.0

    def _warn(self, checkout: WatchedCheckout) -> None:
        checkout.warned = True
        what = "the write turn" if self._holds_turn else "a transaction"
        permit, label = checkout.permit, self._label()
        seconds, waiting = self._seconds_idle(checkout), self._waiting()
        log(
            IdleTransaction(
                database=label,
                seconds_idle=seconds,
                has_turn=self._holds_turn,
                waiting=waiting,
                **permit.fields(),
            ),
            "%s: %s of %s has been idle for %.1f s, held by %s, requested at %s; "
            "%d more waiting in line; end it before awaiting anything else",
            self._product,
            what,
            label,
            seconds,
            permit.describe_holder(),
            permit.asked_at,
            waiting,
        )


def _look(reference: weakref.ref[IdleWatch]) -> None:
    watch = reference()
    if watch is not None:
        watch.look()
