"""A connection's right to write, from BEGIN to the end of its transaction."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any, final

from ..execution.jobs import Job
from ..settings import Role
from ..turn.file_turn import FileLockRequest
from ..turn.permit import Permit
from ..turn.write_turn import WriteTurn
from .locks import Patience
from .rules import Rules

Prepare = Callable[[], "Job[Any]"]
"""Makes the job of the statement that the turn is for; the thread that gets the turn may run it."""


@final
class Writing:
    """Takes the write turn, and gives it back.

    ``permit`` is the turn within the process: on a swap-in connection it is held for a transaction;
    a writer's is its checkout's, and not kept here. ``claim`` is the file turn, between processes;
    it is held as long as SQLite's lock is.
    """

    __slots__ = ("_rules", "_since", "claim", "permit")

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.permit: Permit | None = None
        self.claim: FileLockRequest | None = None
        self._since = 0.0

    @property
    def begun(self) -> bool:
        return self.claim is not None

    def begin_nowait(self) -> bool:
        """Begin if that needs neither a wait nor a permit."""
        turn = self._rules.turn
        if turn is not None and self._rules.role is Role.WRITER and not turn.courtesy.owed:
            self._begin(turn.enter_nowait())
        return self.begun

    async def begin(
        self, patience: Patience, checkout: Permit | None, prepare: Prepare | None
    ) -> Job[Any] | None:
        """Wait for the turn. A cancellation leaves nothing taken.

        If another process has it, the thread that waits for it runs at once the job that
        ``prepare`` makes. Return that job if it was run, for the caller to await.
        """
        if self._rules.role is Role.WRITER:
            waited = 0.0
            if checkout is not None:  # the checkout's wait counts, once
                waited, checkout.seconds_waited = checkout.seconds_waited, 0.0
            return await self._enter(patience.seconds, waited, prepare)
        turn = self._rules.turn
        assert turn is not None
        permit = await turn.acquire(patience.seconds_left, self._rules.owner)
        self.permit = permit
        if checkout is not None:
            permit.recall = checkout.recall
        try:
            waited = patience.seconds - patience.seconds_left
            return await self._enter(patience.seconds, waited, prepare)
        except BaseException:
            if not self.begun:
                self.end()
            raise

    async def _enter(
        self, timeout: float, waited: float, prepare: Prepare | None
    ) -> Job[Any] | None:
        turn = self._rules.turn
        assert turn is not None
        owes = turn.courtesy.owed > 0
        claim = turn.enter_nowait()
        if claim is None and prepare is not None and not owes:
            return await self._enter_at_once(turn, timeout, waited, prepare)
        if claim is None:
            claim = await turn.enter(timeout, self._rules.owner, waited=waited)
        await self._pause(claim)
        self._begin(claim)
        return None

    async def _enter_at_once(
        self, turn: WriteTurn, timeout: float, waited: float, prepare: Prepare
    ) -> Job[Any] | None:
        job = prepare()
        try:
            claim = await turn.enter(
                *(timeout, self._rules.owner),
                waited=waited,
                work=lambda claim: self._run(claim, job),
            )
        except BaseException:
            if not job.drop():  # cancelled while it runs
                job.cancel()
                with contextlib.suppress(BaseException):
                    await job
            raise
        if not job.drop():
            return job
        self._begin(claim)
        return None

    async def _pause(self, claim: FileLockRequest) -> None:
        assert self._rules.turn is not None
        try:
            await self._rules.turn.courtesy.pause()
        except BaseException:
            claim.release()
            raise

    def _run(self, claim: FileLockRequest, job: Job[Any]) -> None:
        """Run the job in the thread that has waited for the turn."""
        self._begin(claim)
        job()
        if job.drop():  # the task was cancelled a moment before
            self.leave_file()

    def _begin(self, claim: FileLockRequest | None) -> None:
        self.claim, self._since = claim, time.monotonic()

    def others_had_lock(self, seconds: float) -> None:
        """Record that SQLite's lock was tried in vain for ``seconds``."""
        if self._rules.turn is not None:
            self._rules.turn.courtesy.wait(seconds)
        self._since = time.monotonic()

    def leave_file(self) -> None:
        """Release the file turn: SQLite's lock is free. Runs in the connection's thread."""
        claim, self.claim = self.claim, None
        if claim is not None and self._rules.turn is not None:
            self._rules.turn.courtesy.hold(time.monotonic() - self._since)
            claim.release()

    def end(self) -> None:
        """Give the turn back at the end of the transaction. Callable from any thread."""
        if self.claim is not None:
            self.leave_file()
        if self.permit is not None:
            permit, self.permit = self.permit, None
            if permit is not None and self._rules.turn is not None:
                self._rules.turn.release(permit)
