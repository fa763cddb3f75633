"""What a pool shares with all others of the process on the same database file."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

from ..driver.opening import Opening
from ..files.neighbours import describe_writer
from ..settings import Role
from ..transactions.rules import Rules
from ..turn.snapshots import Snapshots, snapshots_of
from ..turn.write_turn import WriteTurn, write_turn
from ..wal.keeper import WalKeeper, wal_keeper


class OnFile:
    """The write turn and the keeper of the log of a file, and the rules that follow from them."""

    role: ClassVar[Role]
    _opening: Opening

    @property
    def file(self) -> str | None:
        """The real path of the database; None in memory."""
        return self._opening.location.file

    def _turn(self) -> WriteTurn | None:
        """The turn of those who write; None where nobody can."""
        return None if self.role is Role.READER else self._turn_of_file()

    @property
    def keeper(self) -> WalKeeper | None:
        """Who keeps the log of the file small; None where there is none to keep."""
        return self._log_keeper if self._opening.has_log else None

    @cached_property
    def _log_keeper(self) -> WalKeeper:
        keeper = wal_keeper(self._opening.location, self._turn_of_file())
        if self.role is not Role.READER:
            keeper.serve(self._opening.settings)
        return keeper

    def _let_go_of_log(self) -> None:
        """Keep no log open that went with the last connection: its space would not come free."""
        keeper: WalKeeper | None = vars(self).get("_log_keeper")
        if keeper is not None:
            keeper.lookout.size()

    @cached_property
    def _readers_in_the_way(self) -> Snapshots | None:
        """Those whom a commit waits for, where there is no log."""
        if not self._opening.has_rollback_journal:
            return None
        return snapshots_of(self._opening.location.identity)

    def _rules(self) -> Rules:
        settings, keeper = self._opening.settings, self.keeper
        snapshots = self._readers_in_the_way if keeper is None else keeper.snapshots
        return Rules(
            role=self.role,
            label=self._opening.location.label,
            turn=self._turn(),
            write_timeout=settings.write_timeout,
            read_timeout=settings.read_timeout,
            statement_timeout=settings.statement_timeout,
            owner=self._opening,
            snapshots=None if self.role is Role.WRITER else snapshots,
            log=None if self.role is Role.READER else keeper,
            file=self._opening.location.file,
            readers_in_the_way=self._readers_in_the_way,
            doubtful=self._opening.site.doubtful,
            opened_read_only=self._opening.opens_read_only,
        )

    def _turn_of_file(self) -> WriteTurn:
        location = self._opening.location
        turn, file = write_turn(location.identity, location.label), location.file
        if file is not None:
            turn.describe_writer = lambda: describe_writer(file)
        if self._opening.shares_turn:
            turn.share()
        return turn
