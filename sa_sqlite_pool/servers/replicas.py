"""Connections that read: to the replicas, or to the primary while no replica can be used."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from sqlalchemy import Dialect
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import await_only

from ..errors import ReadTimeout
from ..freshness import BEYOND_ALL, Position, Seen, seen_by
from ..postgresql.sqlstate import SERIALIZATION_FAILURE
from ..reporting.events import ReplicaDown, ReplicaUp, log
from ..system.clock import loop_time, sleep
from ..turn.waits import WaitedFor
from .activity.catching_up import SECONDS_BETWEEN_QUESTIONS, Question, ask, wait_until_shown
from .activity.writers import WritersOut
from .connections.failures import is_of_server
from .connections.positions import position_of_commit, position_of_reads
from .connections.probing import Probes
from .connections.records import server_of
from .connections.server import Server
from .drivers.answers import SECONDS_TO_ANSWER
from .pool import ServerPool

DEFAULT_FRESHNESS_WAIT = 0.005


class ReplicaPool(ServerPool):
    """Connections that read. The last of ``servers`` is the primary.

    A checkout uses the replica with the fewest connections in use, of those that are up and show
    what the ``fresh()`` block around the task has to see. If none is known to, they are queried for
    ``freshness_wait`` seconds; after that, and while all are down, the checkout uses the primary.
    Within a block, checkouts stay on one replica, so that no read goes back in time.

    :param freshness_wait: how long to query replicas, in seconds
    :param writers_out: the connections to the primary that are checked out for writing
    """

    timeout_error = ReadTimeout
    waited_for = WaitedFor.READER
    option = "read_timeout or readers"
    only_reads = True

    def __init__(
        self,
        creator: Callable[..., Any],
        freshness_wait: float = DEFAULT_FRESHNESS_WAIT,
        writers_out: WritersOut | None = None,
        **kw: Any,
    ) -> None:
        super().__init__(creator, **kw)
        self._freshness_wait = freshness_wait
        self._writers_out = writers_out or WritersOut()
        self._probes = Probes()
        self._seen: dict[ConnectionPoolEntry, Seen] = {}

    @property
    def replicas(self) -> tuple[Server, ...]:
        """The servers that are replicas."""
        return self.servers[:-1]

    # -- where a checkout goes ------------------------------------------------------------------

    def _do_get(self) -> ConnectionPoolEntry:
        self._look_after()
        seen = seen_by(self._owner)
        if seen is None:
            return self._known(0) or self._take(self.primary)
        self._writers_out.look(seen, self.driver)
        record = self._fresh(seen)
        seen.note_read(server_of(record).source)
        self._seen[record] = seen
        return record

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        if (seen := self._seen.pop(record, None)) is not None:
            # Its snapshot may have been taken at any time since the checkout.
            seen.note_read(server_of(record).source)
        super()._do_return_conn(record)

    def _fresh(self, seen: Seen) -> ConnectionPoolEntry:
        """Return a connection that shows what ``seen`` requires."""
        before = next(iter(seen.read_from), None)
        if len(seen.read_from) > 1 or before not in {None, *self._sources()}:
            self._ask_primary(seen)
            before = None
        if (record := self._known(seen.position, before)) is not None:
            return record
        if before is not None:  # it is down now, or has to show more
            self._ask_primary(seen)
        if seen.position != BEYOND_ALL and (record := self._asked(seen.position)) is not None:
            return record
        record = self._take(self.primary)
        if seen.unconfirmed:
            self._correct(seen, record)
        return record

    def _sources(self) -> set[Hashable]:
        return {server.source for server in self.replicas if server.is_up}

    def _known(
        self, needed: Position, source: Hashable | None = None
    ) -> ConnectionPoolEntry | None:
        """Return a connection to a replica that is known to show ``needed``; None if none is.

        ``source`` is the only one that may be used, None for any. A replica that does not respond
        counts as down from now on.
        """
        for server in self._in_order():
            if not _will_do(server, needed, source):
                continue
            try:
                record = self._take(server)
            except Exception as error:
                self._note_failure(server, error)
                continue
            if _will_do(server, needed, source):
                return record
            self._do_return_conn(record)  # its connections have shown that it has restarted
        return None

    def _in_order(self) -> list[Server]:
        """Return the replicas that are up, the one with the fewest connections in use first."""
        up = [server for server in self.replicas if server.is_up]
        return sorted(up, key=lambda server: (server.line.waiting, server.in_use))

    def catch_up(self, server: Server, connection: Any, seen: Seen) -> None:
        """Wait until ``server``, to which an application has ``connection``, shows ``seen``.

        Nothing is sent if it is known to. Wait at most ``timeout`` seconds, then raise
        :class:`~sa_sqlite_pool.ReadTimeout`: the connection cannot switch to another server.
        """
        self._writers_out.look(seen, self.driver)
        if server.is_primary or (
            server.shows >= seen.position and seen.read_from.keys() <= {server.source}
        ):
            return
        if seen.unconfirmed or not seen.read_from.keys() <= {server.source}:
            covered, as_of = dict(seen.read_from), seen.notes
            position = self._position_at_once(self.primary) or self._asked_aside()
            if seen.unconfirmed:
                seen.correct(position, as_of)
            seen.note_position(position, covered)
        seen.note_read(server.source)
        if not self.driver.in_transaction(connection):
            wait_until_shown(self, server, seen.position, connection, connection)
        elif server.shows < seen.position:
            with self.opened_aside(server) as asking:
                wait_until_shown(self, server, seen.position, asking, connection)

    # -- positions of servers -------------------------------------------------------------------

    def _asked(self, needed: Position) -> ConnectionPoolEntry | None:
        """Query the replicas until one shows ``needed``; return None if none does in time.

        The queries run before BEGIN: a transaction would answer for its snapshot.
        """
        loop = asyncio.get_running_loop()
        end = loop_time(loop) + self._freshness_wait
        held: dict[Server, ConnectionPoolEntry] = {}
        try:
            while True:
                for server in self._in_order():
                    if self._shows(server, needed, held):
                        return held.pop(server)
                if loop_time(loop) >= end:
                    return None
                await_only(sleep(SECONDS_BETWEEN_QUESTIONS))
        finally:
            for record in held.values():
                self._do_return_conn(record)

    def _shows(
        self, server: Server, needed: Position, held: dict[Server, ConnectionPoolEntry]
    ) -> bool:
        """Return whether ``server`` shows ``needed``: query it on a held or a free connection."""
        try:
            if server not in held:
                permit = server.line.acquire_nowait()
                if permit is None:
                    return False
                held[server] = self._connected(server, permit)
        except Exception as error:
            self._note_failure(server, error)
            return False
        try:
            self._ask(held[server])
        except BaseException as error:
            held.pop(server)
            if not isinstance(error, Exception) or self.checked_out.refusal is not None:
                raise
            if getattr(error, "sqlstate", None) != SERIALIZATION_FAILURE:
                self._is_down(server, error)
            return False  # else it cancelled the query in favour of what it replays
        return server.shows >= needed

    def _ask(self, record: ConnectionPoolEntry, what: Question = position_of_reads) -> Position:
        """Query and record a server's position; on failure, return the record to the pool."""
        try:
            return ask(self, server_of(record), record.dbapi_connection, what)
        except BaseException as error:  # a cancellation, too: an answer may be on its way
            try:
                record.invalidate(error)
            finally:
                self._do_return_conn(record)
            raise

    def _ask_primary(self, seen: Seen) -> None:
        """Make later reads show what the primary shows now, and thus all that was read before."""
        covered = dict(seen.read_from)
        line = self.primary.line
        if line.locked() and line.held_by(asyncio.current_task()):
            # In line, the task might wait for itself, though a replica may show what it needs.
            position = self._asked_aside()
        else:
            record = self._take(self.primary)
            position = self._ask(record, position_of_commit)
            self._do_return_conn(record)
        seen.note_position(position, covered)

    def _asked_aside(self) -> Position:
        with self.opened_aside(self.primary) as asking:
            return ask(self, self.primary, asking, position_of_commit)

    def _correct(self, seen: Seen, record: ConnectionPoolEntry) -> None:
        """Lower a position that the primary has not reached: there is nothing more to see.

        It belongs to a commit that a promotion has lost, or to one whose outcome is not known.
        """
        as_of = seen.notes
        seen.correct(self._ask(record, position_of_commit), as_of)

    def settle(self, seen: Seen) -> None:
        """Make ``seen`` cover what was read: query each source; see :meth:`.Seen.settle`.

        Must run in a greenlet.
        """
        covered = dict(seen.read_from)
        try:
            position = self._position_of(covered)
        except Exception:
            position = BEYOND_ALL
        seen.note_position(position, covered)

    def _position_of(self, sources: Iterable[Hashable]) -> Position:
        """Return the highest position that reads of ``sources`` may show, without waiting in line.

        The work that holds the connections may take long, be this task's own, or need what this
        task does next. The primary has shown everything that any replica has; if it has no free
        connection either, later reads have to use the primary.
        """
        by_source = {one.source: one for one in self.replicas}
        servers = {by_source.get(source, self.primary) for source in sources}
        if self.primary not in servers:
            positions = [self._position_at_once(server) for server in servers]
            if None not in positions:
                return max(position for position in positions if position is not None)
        position = self._position_at_once(self.primary)
        return BEYOND_ALL if position is None else position

    def _position_at_once(self, server: Server) -> Position | None:
        """Return the position that reads of ``server`` may show; None if no connection is free."""
        permit = server.line.acquire_nowait()
        if permit is None:
            return None
        record = self._connected(server, permit)
        position = self._ask(record, position_of_commit if server.is_primary else position_of_reads)
        self._do_return_conn(record)
        return position

    # -- servers that are down ------------------------------------------------------------------

    async def stopped(self) -> None:
        """Wait until all probes of servers have ended, after :meth:`refuse`."""
        await self._probes.stopped()

    def open_replicas(self) -> None:
        """Open a connection to each replica, or to the primary if none. Must run in a greenlet."""
        for server in self.replicas or self.servers:
            try:
                record = self._take(server)
            except Exception as error:
                if server.is_primary:
                    raise
                self._note_failure(server, error)
            else:
                self._do_return_conn(record)
                if not server.is_up:  # it was down when the database was closed
                    self._is_back(server)

    def _note_failure(self, server: Server, error: Exception) -> None:
        """Record, in an ``except`` block, that a server does not respond; re-raise other errors.

        An application's listeners, for example, would raise theirs on any other server, too.
        """
        assert isinstance(self._dialect, Dialect)
        if self.checked_out.refusal is not None or not is_of_server(self._dialect, error):
            raise  # noqa: PLE0704
        self._is_down(server, error)

    def is_silent(self, server: Server) -> None:
        """Mark a replica as down: each read of it would wait in vain, so reads go elsewhere."""
        if not server.is_primary and self.checked_out.refusal is None:
            self._is_down(server, TimeoutError(f"no response within {SECONDS_TO_ANSWER:.0f} s"))

    def _is_down(self, server: Server, error: Exception) -> None:
        if server.note_down(error):
            log(
                ReplicaDown(database=self.primary.name, server=server.name, error=str(error)),
                "the replica %s does not respond (%s); reads go to the others, or to the primary, "
                "until it does",
                server.name,
                error,
            )
        self._look_after()

    def _look_after(self) -> None:
        for server in self.replicas:
            if not server.is_up and self.checked_out.refusal is None:
                self._probes.watch(server, self._probe)

    def _probe(self, server: Server) -> None:
        """Connect to a server that is down; raise if it does not respond.

        Must run in a greenlet.
        """
        permit = server.line.acquire_nowait()
        if permit is not None:
            assert isinstance(self._dialect, Dialect)
            try:
                record = self._connected(server, permit)
            except Exception as error:
                if is_of_server(self._dialect, error):
                    raise
                # It responds; the application's own checkouts will raise its listener's error.
            else:
                self._ask(record)  # it may be from before the outage
                self._do_return_conn(record)
            self._is_back(server)

    def _is_back(self, server: Server) -> None:
        server.outages.end()
        log(
            ReplicaUp(database=self.primary.name, server=server.name),
            "the replica %s responds again",
            server.name,
        )

    def _stop(self) -> None:
        self._probes.stop()

    def _own_options(self) -> dict[str, Any]:
        return {"freshness_wait": self._freshness_wait, "writers_out": self._writers_out}


def _will_do(server: Server, needed: Position, source: Hashable | None) -> bool:
    return server.shows >= needed and source in {None, server.source}
