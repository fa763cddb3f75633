"""A connection's right to write, from BEGIN to the end of its transaction."""

from __future__ import annotations

from typing import final

from ..settings import Role
from ..system.clock import time
from ..turn.file_requests import FileLockRequest
from ..turn.permit import Permit
from ..turn.whereabouts import caller
from .locks import Patience
from .rules import Rules


@final
class Writing:
    """The write turn of one connection: acquired and released here.

    ``turn_permit`` is the turn within the process: on a swap-in connection it is held for a
    transaction; a writer's is that of its checkout, and is not kept here. ``claim`` is the file
    turn, between processes; it is held as long as SQLite's lock is. Methods are given the
    ``permit`` of the connection's checkout.
    """

    __slots__ = ("_rules", "_since", "claim", "turn_permit")

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.turn_permit: Permit | None = None
        self.claim: FileLockRequest | None = None
        self._since = 0.0

    @property
    def begun(self) -> bool:
        return self.claim is not None

    def begin_nowait(self, permit: Permit | None) -> bool:
        """Begin if no wait is needed; return whether it has begun. In the task's greenlet.

        The process's turn may be held even if it has not: :meth:`begin` continues with it, and
        :meth:`end` releases it.
        """
        turn = self._rules.turn
        if turn.courtesy.met and turn.courtesy.owed:
            return False
        if self._rules.role is not Role.WRITER:
            turn_permit = turn.acquire_nowait()
            if turn_permit is None:
                return False
            self.turn_permit = turn_permit  # first: a signal handler may raise in the next call
            self._hold(turn_permit, permit)
            turn_permit.asked_at = caller()
        self.claim, self._since = turn.enter_nowait(), time.monotonic()
        return self.claim is not None

    async def begin(self, patience: Patience, permit: Permit | None) -> None:
        """Wait for the turn. A cancellation leaves nothing acquired."""
        if self._rules.role is Role.WRITER:
            waited = 0.0
            if permit is not None:  # the checkout's wait counts, but only once
                waited, permit.seconds_waited = permit.seconds_waited, 0.0
            await self._enter(patience.seconds, waited)
            return
        if self.turn_permit is None:
            turn_permit = self.turn_permit = await self._rules.turn.acquire(
                patience.seconds_left, self._rules.owner, watch=self._rules.wait_watch
            )
            self._hold(turn_permit, permit)
        try:
            await self._enter(patience.seconds, patience.seconds_gone)
        except BaseException:
            if self.claim is None:
                self.end()
            raise

    def _hold(self, turn_permit: Permit, permit: Permit | None) -> None:
        if permit is not None:
            turn_permit.recall = permit.recall

    async def _enter(self, timeout: float, waited: float) -> None:
        turn = self._rules.turn
        claim = await turn.enter(
            timeout, self._rules.owner, waited=waited, watch=self._rules.wait_watch
        )
        try:
            await turn.courtesy.pause()
        except BaseException:
            claim.release()
            raise
        self.claim, self._since = claim, time.monotonic()

    def others_had_lock(self, seconds: float) -> None:
        """Record that SQLite's lock was unavailable for ``seconds``."""
        if self._rules.role is not Role.READER:
            self._rules.turn.courtesy.pay_off(seconds)
        self._since = time.monotonic()

    def leave_file(self) -> None:
        """Release the file turn, once SQLite's lock is free. Runs in the connection's thread."""
        claim, self.claim = self.claim, None
        if claim is not None:
            if (courtesy := self._rules.turn.courtesy).met:
                courtesy.add_debt(time.monotonic() - self._since)
            claim.release()

    def end(self) -> None:
        """Release the turn at the end of the transaction. Callable from any thread."""
        if self.claim is not None:
            self.leave_file()
        if self.turn_permit is not None:
            turn_permit, self.turn_permit = self.turn_permit, None
            if turn_permit is not None:
                try:
                    self._rules.turn.release(turn_permit)
                except BaseException:  # from a signal handler: nothing else would release it
                    self._rules.turn.release(turn_permit)
                    raise
