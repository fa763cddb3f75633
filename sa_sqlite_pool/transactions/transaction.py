"""A transaction of one connection: what it holds, and how it ends."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from operator import methodcaller
from typing import Any, TypeVar, final

from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

from ..errors import OwnLockError
from ..execution.connection_thread import ConnectionThread
from ..sqlite.driver_errors import dbapi
from ..system.clock import let_others_run, time
from ..system.forks import rest
from ..turn.permit import Permit
from ..turn.snapshots import Snapshot
from .attached import AttachedFiles
from .changes import Changes, roll_back_schema
from .locks import Patience, may_pass, own_lock_error
from .losses import Losses
from .own_settings import SettingsAtEnd
from .placement import PlacementPolicy
from .rules import Rules
from .streams import TOO_OLD, OpenStream
from .writing import Writing

T = TypeVar("T")


@final
class TransactionState(Losses):
    """The state of one connection's consecutive transactions.

    What ends one, other than COMMIT and ROLLBACK, is in :class:`~.losses.Losses`.

    SQLite itself knows whether one is open. ``permit`` is that of the connection's checkout, None
    while it is at rest; the running SQL is recorded there for messages. ``wrote`` says that
    the open transaction ran more than reads; ``cancelled``, that a wait was cancelled.
    ``begun_by_text`` says that the application has sent its own BEGIN. ``savepoints`` are SAVEPOINT
    statements to be sent with the next BEGIN. ``begun_here`` says, while the raw connection is
    lent, that the open transaction was not begun there.

    ``snapshot`` is its entry in the file's read transactions, None if it needs none. ``streams``
    are the cursors that are open between statements, and keep their snapshot. ``long`` is True if
    the next transaction is declared long. ``at_end`` contains settings that are sent at its end.
    """

    __slots__ = (
        "__weakref__",
        "_authorizer",
        "_gone",
        "_policy",
        "_rules",
        "_used_at_end",
        "at_end",
        "attached",
        "begun_by_text",
        "begun_here",
        "cancelled",
        "changes",
        "long",
        "permit",
        "savepoints",
        "snapshot",
        "streams",
        "writing",
        "wrote",
    )

    def __init__(self, worker: ConnectionThread, policy: PlacementPolicy, rules: Rules) -> None:
        super().__init__(worker, policy.counts)
        self._policy = policy
        self._authorizer = policy.authorizer
        self._rules = rules
        self.permit: Permit | None = None
        self.cancelled = False
        self.wrote = False
        self.changes = Changes(policy.authorizer)
        self.attached = AttachedFiles(policy.authorizer)
        self.snapshot: Snapshot | None = None
        self.long = False
        self.streams: set[OpenStream] = set()
        self.writing = Writing(rules)
        self.savepoints: list[str] = []
        self.begun_here = False
        self.begun_by_text = False
        self.at_end = SettingsAtEnd()
        self._gone = False  # given up, and its transaction has ended
        self._used_at_end = -1  # the number of uses of the connection when the last one ended

    def wait_for(self, awaitable: Awaitable[T]) -> T:
        """Await like ``await_only``, and record a cancellation."""
        try:
            return await_only(awaitable)
        except asyncio.CancelledError:
            self.cancelled = True
            raise

    def run(self, function: Callable[[sqlite3.Connection], T], **options: Any) -> T:
        """Wait for ``function``, in a thread; see :meth:`.ConnectionThread.run`.

        Outside an SQLAlchemy greenlet, raise MissingGreenlet before anything is sent: otherwise it
        would run concurrently with the application's next steps.
        """
        if not in_greenlet():
            await_only(let_others_run())
        return self.wait_for(self.worker.run(function, **options))

    def note_slow(self, sql: str, seconds: float) -> None:
        """Log a statement that ran for a long time. In the thread where it ran."""
        rules = self._rules
        rules.slow_statements.report(rules.label, sql, seconds, self.permit)

    # -- its end --------------------------------------------------------------------------------

    def commit(self) -> None:
        """Commit the open transaction; see :meth:`SQLiteConnection.commit`."""
        if self.worker.ended is not None or self.lost_by is not None:
            self.worker.assert_usable()  # or a rollback meanwhile would look like a commit
            raise self._take_loss()
        try:
            self._end("COMMIT")
        except Exception as error:
            explained = self.own_lock(error)
            self.changes.forget_schema_changes()  # no warning: the error says enough
            self._end("ROLLBACK")
            if explained is None:
                raise
            raise explained from error

    def rollback(self) -> None:
        """Roll back the open transaction. Open streams stay usable where SQLite allows it."""
        self.lost_by = None
        worker = self.worker
        used = self._used_at_end != worker.uses or worker.lent
        holds = self.writing.claim is not None or self.snapshot is not None
        if used or holds or self.savepoints or self.too_old is not None:
            self._end("ROLLBACK")

    def see_what_is_open(self) -> None:
        """Ask SQLite, after other work that has not ended yet, whether a transaction is open."""
        if not self.worker.at_rest and in_greenlet():
            self.run(self.worker.note_open)

    def end_read(self) -> None:
        """End the read transaction; an open stream keeps the snapshot until the stream ends."""
        self._end("ROLLBACK")

    def begin_savepoints(self, connection: sqlite3.Connection) -> None:
        """Send the savepoints that precede the BEGIN. Runs in the thread."""
        savepoints, self.savepoints = self.savepoints, []
        for sql in savepoints:
            connection.execute(sql)

    def begin_for_raw(self, connection: sqlite3.Connection) -> None:
        """Send BEGIN and the savepoints, within which the raw connection is used without the turn.

        Runs in the thread.
        """
        self.begun_here = False
        if not connection.in_transaction:
            connection.execute("BEGIN")
        self.begin_savepoints(connection)
        self.worker.note_open(connection)

    def _end(self, sql: str) -> None:
        worker = self.worker
        self.too_old = None  # its end is known; another transaction follows
        self.begun_here = False
        if self.savepoints:
            self.savepoints.clear()
        connection = worker.idle_connection
        if connection is None:
            self.see_what_is_open()
            connection = worker.idle_connection
        if connection is None and sql == "COMMIT":
            worker.assert_usable()  # the application may have closed it
        if not (worker if connection is None else connection).in_transaction:
            if self.writing.claim is not None or self.snapshot is not None:
                self.after_work()
            if connection is not None:
                self._used_at_end = worker.uses
            return
        here = None if self._rules.waits_for_server else connection
        try:
            if (
                here is not None
                and not self.wrote
                and (self.writing.claim is None or self.has_only_read(here))
            ):  # SQLite only releases a lock and a snapshot: two microseconds
                worker.call_inline(_SEND[sql])
                self._counts.reads += 1
            else:
                self.note(sql)
                if here is not None and self._policy.end_is_inline(self._rules.keeper):
                    if sql == "COMMIT" and self._policy.always:
                        worker.assert_may_commit()
                    self._policy.end_inline(worker, self._end_and_look, sql)
                else:
                    connection = None  # another task may be using it after this
                    self._end_in_thread(sql)
            self._used_at_end = worker.uses
        finally:
            self.after_work(connection)

    def _end_in_thread(self, sql: str) -> None:
        patience = Patience(
            self._rules,
            self.permit,
            writing=True,
            commits=sql == "COMMIT",
            busy_seconds=self._policy.settings.busy_seconds,
        )

        def end(connection: sqlite3.Connection) -> None:
            try:
                if sql == "COMMIT":  # on the loop, a quiet keeper has already checked the file
                    self.worker.assert_may_commit()
                self._policy.end_in_thread(connection, self._end_and_look, sql)
            finally:
                self.worker.note_open(connection)

        while True:
            try:
                return self.run(
                    end,
                    text=sql,
                    interruptible=False,
                )
            except dbapi.OperationalError as error:
                # Without WAL, COMMIT waits for readers; the transaction stays open.
                if not may_pass(error, in_transaction=False):
                    raise
                self.wait_for(patience.wait(error))

    def _end_and_look(self, connection: sqlite3.Connection, sql: str) -> None:
        counts = self._counts
        if not connection.in_transaction:
            pass
        elif not self.wrote and self.has_only_read(connection):
            connection.execute(sql)
            counts.reads += 1
        elif sql == "COMMIT":
            began = time.perf_counter()
            connection.execute(sql)
            counts.committed(time.perf_counter() - began)
        else:
            if self.changes.schema and not (self.begun_by_text or self.changes.follow_dml):
                roll_back_schema(connection, self._authorizer, self._rules)
            else:
                connection.execute(sql)
            counts.rollbacks += 1
        self.changes.forget_schema_changes()
        if sql == "COMMIT":
            self.committed(connection)
        else:
            if self.at_end:
                self.at_end.send(connection, self._authorizer)
            self.writing.leave_file()

    def after_work(self, connection: sqlite3.Connection | None = None) -> None:
        """Release what an ended transaction held, if the connection is at rest and no job runs.

        ``connection`` is the one that the loop itself has used.
        """
        if self._gone:
            self.let_go()  # of a turn whose wait was under way when the connection was given up
        if connection is None or self.worker.ended is not None:
            connection = self.worker.connection_at_rest
        if connection is None:
            return  # after give_up(), the turn is released after the rollback
        if (permit := self.permit) is not None:
            permit.idle_since = time.monotonic()
        if self.too_old is not None:
            self._end_too_old()
        if not connection.in_transaction:
            self.wrote = self.begun_by_text = self._ended_here = False
            self.changes.as_begun, self.changes.first_sql = None, ""
            if self.at_end:  # SQLite has ended the transaction, or refused the PRAGMA
                self.at_end.clear()
                self.worker.spent = self.worker.spent or self._rules.file is not None
            self._policy.writes = 0
            if self.writing.claim or self.writing.turn_permit or self.attached.held:
                self.let_go()
            elif self.snapshot is not None and not self.streams:
                # _leave_snapshot(), inlined: each read runs this.
                snapshot, self.snapshot = self.snapshot, None
                self._rules.snapshots.end(snapshot)
            if (keeper := self._rules.keeper) is not None and keeper.due is not None:
                keeper.attend()

    def after_inline_read(self, connection: sqlite3.Connection) -> None:
        """Do the work of :meth:`after_work` after a read on the loop, which changes little."""
        if self._gone or self.worker.ended is not None or not connection.in_transaction:
            self.after_work()
        elif (permit := self.permit) is not None:
            permit.idle_since = time.monotonic()

    def gone(self) -> None:
        """Release everything after a given-up connection's transaction. From any thread."""
        # Thread       | Task
        # _gone = True | acquires the turn
        # let_go()     | if _gone: let_go()
        # Whichever runs last finds the turn.
        self._gone = True
        self.let_go()

    def let_go(self) -> None:
        """Release the turn and leave the snapshot, after the transaction's end."""
        if self.attached.held:
            self.attached.give_back()
        if self.writing.claim is not None or self.writing.turn_permit is not None:
            self.writing.end()
        if self.snapshot is not None:
            self._leave_snapshot()

    # -- its snapshot ---------------------------------------------------------------------------

    def begin_read(self) -> bool:
        """Register a snapshot unless there is one; False in a gap: wait for its end and retry."""
        rules = self._rules
        if not rules.enters_snapshots or self.permit is None or self.snapshot is not None:
            return True
        self.snapshot = rules.snapshots.begin(
            self.permit, long=self.long, end_early=self._end_early
        )
        return self.snapshot is not None

    def _leave_snapshot(self) -> None:
        """Leave the snapshot after the transaction's end, unless a stream keeps it."""
        if self.snapshot is not None and not self.streams:
            snapshot, self.snapshot = self.snapshot, None
            self._rules.snapshots.end(snapshot)

    def _end_early(self, snapshot: Snapshot, error: Callable[[], Exception]) -> None:
        if self.snapshot is snapshot:  # else it has ended normally in the meantime
            self.too_old = error
            self.worker.stop_job()
            self.after_work()

    def _end_too_old(self) -> None:
        """Roll back one that was ended early, on the loop, if the connection is at rest."""
        if not self.worker.may_run_inline:
            return
        with rest():
            for cursor in self.detach_streams(TOO_OLD, sqlite3.ProgrammingError):
                cursor.close()
            if self.worker.in_transaction:
                self.worker.connection.execute("ROLLBACK")

    def detach_streams(self, why: str, error: type[sqlite3.Error]) -> list[sqlite3.Cursor]:
        """Detach the open cursors, for the caller to close; later fetches raise ``error(why)``."""
        cursors = [stream.detach(why, error) for stream in list(self.streams)]
        return [cursor for cursor in cursors if cursor is not None]

    # -- what it has changed --------------------------------------------------------------------

    def note_begin(self, connection: sqlite3.Connection) -> None:
        """Record the beginning of a transaction. Runs in the thread."""
        self.changes.begin(connection)
        self._ended_here = False

    def has_only_read(self, connection: sqlite3.Connection) -> bool:
        """Return whether it has no rows, tables or savepoints to commit or lose.

        This covers statements here, functions in them, and the raw connection while it is lent.
        """
        if self.writing.claim is None and not self.worker.lent:
            return not self.wrote
        return not self.wrote and self.changes.nothing(connection)

    @property
    def in_the_way(self) -> bool:
        """True if the open transaction has written, and no stream is open beside it."""
        return self.wrote and self.worker.in_transaction and not self.streams

    def end_for_a_moment(self, connection: sqlite3.Connection) -> None:
        """End a transaction that has only read, for a statement outside of one. In the thread."""
        connection.execute("COMMIT")
        self._ended_here = True

    # -- the raw connection ---------------------------------------------------------------------

    @property
    def begun_raw(self) -> bool:
        """True if the open transaction was begun on the raw connection, and needs no turn."""
        return self.worker.in_transaction and not self.begun_here

    def see_who_began(self, was_open: bool) -> None:
        """Record where the open transaction began; ``was_open`` is the state before a statement."""
        is_open = self.worker.in_transaction
        self.begun_here = is_open and (self.begun_here or not was_open)

    def own_lock(self, error: Exception) -> OwnLockError | None:
        """Return the error to raise if the connection is in its own way; None if it is not."""
        looks = self.attached.any and self.worker.in_transaction
        twice = self.attached.own_file_twice if looks else None
        return own_lock_error(error, twice, [stream.sql for stream in self.streams])

    # -- the log --------------------------------------------------------------------------------

    def committed(self, connection: sqlite3.Connection) -> None:
        """Release the file turn, and check the logs. Runs in the thread after a commit.

        A checkpoint that cannot wait runs before that, since each runs in the turn. The turns of
        attached files are released later.
        """
        if self.at_end:
            self.at_end.send(connection, self._authorizer)
        keeper = self._rules.keeper
        size = None if keeper is None else keeper.relieve(connection)
        self.writing.leave_file()
        if keeper is not None:
            keeper.look(connection, size)
        if self.attached.held:
            self.attached.look_at_logs(connection)

    def look_at_log(self, connection: sqlite3.Connection) -> None:
        """Check the log after a commit, in the thread."""
        if self._rules.keeper is not None:
            self._rules.keeper.look(connection)

    # -- for messages ---------------------------------------------------------------------------

    def note(self, sql: str) -> None:
        """Record the SQL that runs now."""
        if (permit := self.permit) is not None:
            permit.last_sql, permit.idle_since = sql, None
        if (permit := self.writing.turn_permit) is not None:
            permit.last_sql, permit.idle_since = sql, None

    def permits_come_back(self) -> None:
        """Mark the permits as coming back: the task has finished, and a thread releases them."""
        for permit in (self.permit, self.writing.turn_permit):
            if permit is not None:
                permit.coming_back = True


# C functions, unlike lambdas: each read ends with one of them.
_SEND = {sql: methodcaller("execute", sql) for sql in ("COMMIT", "ROLLBACK")}
