"""All ways, by their names in tables."""

from __future__ import annotations

from . import drivers, engines, facade, threads
from .asynchronous import Connections, Sessions, through
from .contenders import STOCK, SYNCHRONOUS, Concurrent, Contender, OneThread

READER, WRITER, SWAP_IN = "ReaderPool", "WriterPool", "SQLitePool"
DROP_IN, PREPARED = "SQLitePool, imports", "prepared read"
ENGINES, FACADE = "SQLiteDatabase, Core", "SQLiteDatabase"
RUN_READ, RUN_WRITE = "run_read", "run_write"
RUN_READ_CORE, RUN_WRITE_CORE = "run_read_core", "run_write_core"
STOCK_IMMEDIATE = "stock, BEGIN IMMEDIATE"
NULL_POOL, AS_IT_COMES = "stock, NullPool", "stock as it comes"
IN_THREADS = "asyncio.to_thread"
POOLED = "aiosqlitepool"

stock = Concurrent(STOCK, through(Connections, engines.stock))
stock_with_null_pool = Concurrent(NULL_POOL, through(Connections, engines.stock_with_null_pool))
stock_with_one_connection = Concurrent(
    "stock, one connection", through(Connections, engines.stock_with_one_connection)
)
stock_as_it_comes = Concurrent(
    AS_IT_COMES, through(Connections, engines.stock_as_it_comes), without_wal=True
)
stock_immediate = Concurrent(STOCK_IMMEDIATE, through(Connections, engines.stock_immediate))

readers = Concurrent(READER, through(Connections, engines.readers))
writer = Concurrent(WRITER, through(Connections, engines.writer))
swap_in = Concurrent(SWAP_IN, through(Connections, engines.swap_in))
swap_in_for_writers = Concurrent(SWAP_IN, through(Connections, engines.swap_in_for_writers))
drop_in = Concurrent(DROP_IN, through(Connections, engines.drop_in))
both_engines = Concurrent(ENGINES, facade.engines)
blocks = Concurrent(FACADE, facade.blocks)

_at_once = threads.through(threads.Connections)
_immediately = threads.through(threads.Connections, engines.synchronous_immediate)
_sessions_at_once = threads.through(threads.Sessions)

synchronous = OneThread(SYNCHRONOUS, _at_once)
synchronous_immediate = OneThread(SYNCHRONOUS, _immediately)
synchronous_with_null_pool = OneThread(
    "synchronous, NullPool",
    threads.through(threads.Connections, engines.synchronous_with_null_pool),
)
in_threads = Concurrent(IN_THREADS, threads.in_threads(_at_once))
in_threads_immediate = Concurrent(IN_THREADS, threads.in_threads(_immediately))

aiosqlite = Concurrent("aiosqlite", drivers.one_connection)
aiosqlite_connect_each = Concurrent("aiosqlite, connect each", drivers.connect_each_time)
pooled = Concurrent(POOLED, drivers.pooled())
apsw = Concurrent("apsw", drivers.of_apsw)

DRIVERS: tuple[Contender, ...] = (aiosqlite, aiosqlite_connect_each, pooled, apsw)

run_read = Concurrent(RUN_READ, facade.closures)
run_write = Concurrent(RUN_WRITE, facade.closures)
closures = Concurrent("closures", facade.closures)
core_closures = Concurrent("closures, Core", facade.core_closures)

READING_CLOSURES: tuple[Contender, ...] = (
    run_read,
    Concurrent(RUN_READ_CORE, facade.core_closures),
)
WRITING_CLOSURES: tuple[Contender, ...] = (
    run_write,
    Concurrent(RUN_WRITE_CORE, facade.core_closures),
)

prepared_reads = Concurrent(PREPARED, facade.prepared_reads)

READING: tuple[Contender, ...] = (
    stock,
    readers,
    swap_in,
    drop_in,
    both_engines,
    blocks,
    *READING_CLOSURES,
    synchronous,
    in_threads,
    *DRIVERS,
)
"""For reads in Core. Stock is first, and therefore the baseline of the others."""

WRITING: tuple[Contender, ...] = (
    stock,
    writer,
    swap_in,
    drop_in,
    both_engines,
    blocks,
    *WRITING_CLOSURES,
    synchronous,
    in_threads,
    *DRIVERS,
)
"""For writes in Core."""

OTHER_STOCK_POOLS: tuple[Contender, ...] = (
    stock_with_null_pool,
    stock_with_one_connection,
    stock_as_it_comes,
)

_stock_sessions = Concurrent(STOCK, through(Sessions, engines.stock))
_swap_in_sessions = Concurrent(SWAP_IN, through(Sessions, engines.swap_in))
_synchronous_sessions = OneThread(SYNCHRONOUS, _sessions_at_once)
_sessions_in_threads = Concurrent(IN_THREADS, threads.in_threads(_sessions_at_once))

GETTING: tuple[Contender, ...] = (
    _stock_sessions,
    Concurrent(READER, through(Sessions, engines.readers)),
    _swap_in_sessions,
    blocks,
    run_read,
    _synchronous_sessions,
    _sessions_in_threads,
)
"""For reads through ORM sessions."""

WRITING_SESSIONS: tuple[Contender, ...] = (
    _stock_sessions,
    Concurrent(WRITER, through(Sessions, engines.writer)),
    _swap_in_sessions,
    blocks,
    run_write,
    _synchronous_sessions,
    _sessions_in_threads,
)
"""For writes through ORM sessions."""
