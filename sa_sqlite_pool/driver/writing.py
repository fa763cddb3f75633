"""A connection's right to write, from the BEGIN to the end of its transaction."""

from __future__ import annotations

from typing import final

from ..settings import Role
from ..turn.file_turn import Claim
from ..turn.permit import Permit
from .locks import Patience
from .rules import Rules


@final
class Writing:
    """Takes the write turn, and gives it back.

    ``permit`` is the turn within the process: on a swap-in connection it comes and goes with the
    transaction; a writer's is its loan, and not kept here. The file, between processes, is held as
    long as SQLite's lock is.
    """

    __slots__ = ("_claim", "_rules", "permit")

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.permit: Permit | None = None
        self._claim: Claim | None = None

    @property
    def begun(self) -> bool:
        return self._claim is not None

    def begin_nowait(self) -> bool:
        """Begin if that needs no waiting, and no permit."""
        turn = self._rules.turn
        if turn is not None and self._rules.role is Role.WRITER:
            self._claim = turn.enter_nowait()
        return self.begun

    async def begin(self, patience: Patience, loan: Permit | None) -> None:
        """Wait for the turn. A cancellation leaves nothing taken."""
        if self._rules.role is Role.WRITER:
            waited = 0.0
            if loan is not None:  # the checkout is a part of the wait, once
                waited, loan.seconds_waited = loan.seconds_waited, 0.0
            await self._enter(patience.seconds, waited)
            return
        turn = self._rules.turn
        assert turn is not None
        permit = await turn.acquire(patience.seconds_left, self._rules.owner)
        try:
            await self._enter(patience.seconds, patience.seconds - patience.seconds_left)
        except BaseException:
            turn.release(permit)
            raise
        self.permit = permit
        if loan is not None:
            permit.recall = loan.recall

    async def _enter(self, timeout: float, waited: float) -> None:
        turn = self._rules.turn
        assert turn is not None
        self._claim = await turn.enter(timeout, self._rules.owner, waited=waited)

    def leave_file(self) -> None:
        """Let other processes write: SQLite's lock is free. In the connection's thread."""
        claim, self._claim = self._claim, None
        if claim is not None:
            claim.give_back()

    def end(self) -> None:
        """The transaction has ended. From any thread."""
        self.leave_file()
        permit, self.permit = self.permit, None
        if permit is not None and self._rules.turn is not None:
            self._rules.turn.release(permit)
