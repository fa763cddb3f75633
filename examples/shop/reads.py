"""Which servers a database reads from."""

from __future__ import annotations

from sqlalchemy import Connection, event

from sa_sqlite_pool import ServerDatabase
from sa_sqlite_pool.servers.connections.records import server_behind

from .schemas import Reads
from .stores import Store


def count_reads(store: Store) -> Reads:
    """Count the transactions that read, from now on; all zero without servers."""
    reads = Reads()

    def count(connection: Connection) -> None:
        server = server_behind(connection.connection)
        if server is None or server.is_primary:
            reads.primary += 1
        else:
            reads.replicas += 1

    if isinstance(store, ServerDatabase):
        event.listen(store.reader_engine.sync_engine, "begin", count)
    return reads
