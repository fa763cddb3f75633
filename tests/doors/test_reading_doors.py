"""Forbidden writes: attempts to circumvent the rule, on every door that reads."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import (
    ForbiddenWriteError,
    ReaderPool,
    SQLiteDatabase,
    SQLitePool,
    WriterPool,
    routing_sessionmaker,
)
from tests.conftest import MakeEngine
from tests.doors.turns import outcome
from tests.helpers import create_items

LONG = "/*" + 17_000 * "x" + "*/"
WRITE = "INSERT INTO items (amount) VALUES (1)"

# Each is executed, whatever its outcome, followed by WRITE.
TRICKS = [
    [WRITE],
    [f"; ;-- c\n{WRITE}"],
    [f"\ufeff{WRITE}"],
    [f"{LONG} {WRITE}"],
    [f"/*/ SELECT */ {WRITE}"],
    ["WITH a AS (SELECT ') SELECT " + 17_000 * "x" + "') INSERT INTO items (amount) SELECT 1"],
    ["WITH replace AS (SELECT 1) INSERT INTO items (amount) SELECT 1"],
    ["EXPLAIN " + WRITE, "EXPLAIN QUERY PLAN " + WRITE],
    ["PRAGMA query_only = 0"],
    ["PRAGMA -- c\n query_only = 0"],
    ["PRAGMA /* c */ main./* c */query_only/**/(off)"],
    [f"{LONG} PRAGMA query_only = 0"],
    ["EXPLAIN PRAGMA query_only = 0"],
    ["EXPLAIN QUERY PLAN PRAGMA--\nquery_only = 0"],
    [f"EXPLAIN {LONG} PRAGMA query_only = 0"],
    ["PRAGMA writable_schema = 1", "UPDATE sqlite_master SET sql = ''"],
    ["BEGIN IMMEDIATE"],
    ["BEGIN", "BEGIN IMMEDIATE"],
    ["SAVEPOINT a", WRITE, "RELEASE a"],
    ["CREATE TEMP TABLE items (amount)", WRITE, "DROP TABLE temp.items"],
    ["CREATE TEMP VIEW v AS SELECT 1", "DROP VIEW v"],
    [
        "CREATE TEMP TABLE t (i)",
        "CREATE TEMP TRIGGER r AFTER INSERT ON t BEGIN DELETE FROM items; END",
        "INSERT INTO t VALUES (1)",
    ],
    ["VACUUM", f"{LONG} VACUUM"],
    ["VACUUM INTO '{directory}/copy.db'", f"{LONG} VACUUM INTO '{{directory}}/copy.db'"],
    ["VACUUM main INTO '{directory}/' || 'copy.db'"],
    [
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "PRAGMA main.wal_checkpoint",
        f"{LONG} PRAGMA wal_checkpoint",
    ],
    ["PRAGMA--\nwal_checkpoint(RESTART)", "SELECT * FROM pragma_wal_checkpoint"],
    ["PRAGMA journal_mode = DELETE", f"{LONG} PRAGMA journal_mode = DELETE"],
    ["PRAGMA -- c\n journal_mode(TRUNCATE)", "EXPLAIN PRAGMA journal_mode = OFF"],
    ["PRAGMA locking_mode = EXCLUSIVE", "PRAGMA main.locking_mode(EXCLUSIVE)"],
    ["PRAGMA user_version = 7", "PRAGMA main.application_id(7)", "PRAGMA schema_version = 99"],
    ["PRAGMA optimize", "SELECT * FROM pragma_optimize", "PRAGMA incremental_vacuum"],
    ["ANALYZE", "REINDEX", "ALTER TABLE items RENAME TO others"],
    ["SELECT writes()", "SELECT swallows()", "INSERT INTO items (amount) SELECT swallows()"],
    ["CREATE TEMP TABLE t (i)", "INSERT INTO t SELECT writes()", "INSERT INTO t SELECT swallows()"],
    [
        "SELECT unlocks()",
        "CREATE TEMP TABLE t AS SELECT unlocks() AS i",
        "INSERT INTO t SELECT unlocks()",
    ],
    ["PRAGMA auto_vacuum = FULL", "PRAGMA page_size = 512", "PRAGMA encoding = 'UTF-16'"],
]

# Each is executed, followed by a write to the attached file.
ATTACHES = [
    "ATTACH '{other}' AS o",
    "ATTACH DATABASE '{other}' AS \"o\"",
    "ATTACH 'file:{other}?mode=rwc' AS o",
    "ATTACH 'file:{other}?mode=ro&mode=rw' AS o",
    "ATTACH 'file:{other}?m%6fde=rwc' AS o",
    "ATTACH 'file:{other}?mode=rw#&mode=ro' AS o",
    "ATTACH 'file:' || '{other}' AS o",
    "-- c\nATTACH '{other}' /* AS x */ AS o -- c",
    "ATTACH '{other}' AS o KEY ''",
    LONG + "ATTACH '{other}' AS o",
    "EXPLAIN ATTACH '{other}' AS o",
    "ATTACH '{directory}/new.db' AS o",
    "ATTACH 'file:{directory}/new.db?mode=rwc' AS o",
    "ATTACH (SELECT attaches('{other}')) AS p",
    "SELECT attaches('{other}')",
    "CREATE TEMP TABLE t AS SELECT attaches('{other}') AS i",
]


def on_connect(connection: sqlite3.Connection) -> None:
    def executes(*statements: str) -> None:
        for sql in statements:
            connection.execute(sql)

    def swallows() -> int:
        with suppress(sqlite3.Error):
            executes(WRITE)
        return 1

    def unlocks() -> int:
        for sql in ("PRAGMA query_only = 0", WRITE, "DELETE FROM items"):
            with suppress(sqlite3.Error):
                executes(sql)
        return 1

    def attaches(file: str) -> str:
        with suppress(sqlite3.Error):
            connection.execute("ATTACH ? AS o", (file,))
        return ""

    connection.create_function("writes", 0, lambda: executes(WRITE))
    connection.create_function("swallows", 0, swallows)
    connection.create_function("unlocks", 0, unlocks)
    connection.create_function("attaches", 1, attaches)


class House:
    """A database that is read through one door, and files beside it. ``fingerprint`` covers all."""

    def __init__(self, path: Path, door: str, make_engine: MakeEngine) -> None:
        self.path, self.door, self.make_engine = path, door, make_engine
        self.other = path.parent / "other.db"
        with closing(sqlite3.connect(self.other)) as other:
            other.executescript("CREATE TABLE notes (id); INSERT INTO notes VALUES (1);")

    @property
    def fingerprint(self) -> dict[str, str]:
        found = {}
        for file in sorted(filter(Path.is_file, self.path.parent.iterdir())):  # no socket
            if not file.name.endswith(("-shm", "-turn", "-line")):
                found[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
        return found

    def fill_in(self, sql: str) -> str:
        return sql.replace("{other}", str(self.other)).replace("{directory}", str(self.path.parent))

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Callable[[str], Awaitable[Any]]]:
        """Yield a function that executes a statement as a reader and returns its outcome."""
        options: dict[str, Any] = {"on_connect": on_connect}
        if self.door in {"db.read()", "run_read", "reader_engine"}:
            async with SQLiteDatabase(self.path, **options) as db:
                if self.door == "run_read":
                    yield lambda sql: self._in_function(db, sql)
                elif self.door == "reader_engine":
                    async with db.reader_engine.connect() as connection:
                        yield lambda sql: outcome(connection, sql)
                else:
                    async with db.read() as session:
                        yield lambda sql: outcome(session, sql)
            return
        poolclass = ReaderPool if self.door in {"reader", "routed"} else SQLitePool
        engine = self.make_engine(poolclass, **options)
        if self.door == "routed":
            maker = routing_sessionmaker(writer=self.make_engine(WriterPool), reader=engine)
            async with maker(role="reader") as session:
                yield lambda sql: outcome(session, sql)
            return
        if self.door == "role":
            engine = engine.execution_options(sqlite_role="reader")
        elif self.door == "role, autocommit":
            engine = engine.execution_options(sqlite_role="reader", isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            yield lambda sql: outcome(connection, sql)

    async def _in_function(self, db: SQLiteDatabase, sql: str) -> Any:
        def run(connection: Any) -> Any:
            result = connection.execute(text(sql))
            return result.all() if result.returns_rows else None

        try:
            return await db.run_read_core(run)
        except Exception as error:
            return str(getattr(error, "orig", error))


DOORS = ["reader", "role", "role, autocommit", "routed", "db.read()", "run_read", "reader_engine"]


@pytest.fixture(params=DOORS)
async def house(request: pytest.FixtureRequest, path: Path, make_engine: MakeEngine) -> House:
    writer = make_engine(WriterPool)
    await create_items(writer)
    return House(path, request.param, make_engine)


def no_colon(sql: str) -> str:
    return sql.replace(":", r"\:")


@pytest.mark.parametrize("trick", TRICKS, ids=lambda trick: trick[0][:40].replace("x", ""))
async def test_no_file_changes(house: House, trick: list[str]) -> None:
    """Whatever was executed before, the final write is refused by name."""
    async with house.reading() as execute:
        await execute("SELECT 1 FROM items")
        before = house.fingerprint
        for sql in trick:
            await execute(no_colon(house.fill_in(sql)))
        assert "a reader of app.db cannot change a database" in str(await execute(WRITE))
        assert len(await execute("SELECT * FROM items")) == 3
        assert house.fingerprint == before


@pytest.mark.parametrize("attach", ATTACHES, ids=lambda sql: sql[:40].replace("x", ""))
async def test_no_attached_file_changes(house: House, attach: str) -> None:
    """Files are attached read-only or not at all, and none is created."""
    async with house.reading() as execute:
        await execute("SELECT 1 FROM items")
        before = house.fingerprint
        await execute(no_colon(house.fill_in(attach)))
        for sql in (
            "INSERT INTO o.notes VALUES (2)",
            "CREATE TABLE o.more (id)",
            "DROP TABLE o.notes",
            "PRAGMA o.user_version = 7",
            "VACUUM o",
        ):
            assert isinstance(await execute(sql), str)
        assert house.fingerprint == before


# -- the raw connection, and listeners -------------------------------------------------------------

MEMORY = "sqlite+aiosqlite:///file:/reading_doors?vfs=memdb&uri=true"


@pytest.fixture(params=["reader", "role", "memory"])
async def engine(request: pytest.FixtureRequest, make_engine: MakeEngine) -> AsyncEngine:
    url = MEMORY if request.param == "memory" else ""
    await create_items(make_engine(WriterPool, url=url))
    if request.param == "role":
        return make_engine(SQLitePool).execution_options(sqlite_role="reader")
    return make_engine(ReaderPool, url=url)


async def raw_outcome(raw: Any, sql: str) -> Any:
    try:
        return [tuple(row) for row in await raw.execute_fetchall(sql)]
    except sqlite3.Error as error:
        return str(error)


@pytest.mark.parametrize("first", [True, False])
async def test_on_the_raw_connection(engine: AsyncEngine, path: Path, first: bool) -> None:
    """A reader's ``driver_connection`` is read-only, too, before and after it has read."""
    async with engine.connect() as connection:
        if not first:
            await connection.execute(text("SELECT * FROM items"))
        raw = (await connection.get_raw_connection()).driver_connection
        for sql in (
            WRITE,
            "PRAGMA query_only = 0",
            WRITE,
            "PRAGMA query_only(no)",
            "CREATE TABLE more (id)",
            f"ATTACH '{path.parent}/new.db' AS new",
            f"VACUUM INTO '{path.parent}/new.db'",
        ):
            assert isinstance(await raw_outcome(raw, sql), str) or "query_only" in sql
        assert len(await raw_outcome(raw, "SELECT * FROM items")) == 3
        await raw_outcome(raw, "ROLLBACK")
    assert not (path.parent / "new.db").exists()
    async with engine.connect() as connection:
        assert "cannot change" in await outcome(connection, WRITE)
        assert len(await outcome(connection, "SELECT * FROM items")) == 3


async def test_a_connection_that_was_lent_to_a_reader_writes_again(
    make_engine: MakeEngine,
) -> None:
    """The swap-in engine lends it again in another role."""
    engine = make_engine(SQLitePool, pool_size=1, max_overflow=0)
    await create_items(engine)
    async with engine.execution_options(sqlite_role="reader").connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        assert "readonly" in await raw_outcome(raw, WRITE)
    async with engine.connect() as connection:
        await connection.execute(text(f"ATTACH '' AS scratch; -- {WRITE}"))
        assert await outcome(connection, WRITE) is None
        raw = (await connection.get_raw_connection()).driver_connection
        assert await raw_outcome(raw, WRITE) == []
        await connection.commit()


@pytest.mark.parametrize("way", ["statement", "raw", "on_connect", "raw, then statement"])
async def test_what_a_listener_attaches_is_read_only_afterwards(
    make_engine: MakeEngine, path: Path, way: str
) -> None:
    """A listener may set up anything; afterwards the application has a reader."""
    await create_items(make_engine(WriterPool))
    house = House(path, "", make_engine)
    attach = f"ATTACH '{house.other}' AS o"
    options: dict[str, Any] = {}
    if way == "on_connect":
        options["on_connect"] = lambda connection: connection.execute(attach)
    engine = make_engine(ReaderPool, **options)

    @event.listens_for(engine.sync_engine, "connect")
    def listen(connection: Any, _record: Any) -> None:
        if way.startswith("raw"):
            connection.run_async(lambda raw: raw.execute(attach))
        if way.endswith("statement"):
            cursor = connection.cursor()
            cursor.execute(attach if way == "statement" else f"ATTACH '{house.other}' AS p")
            cursor.close()

    before = house.fingerprint
    for _ in range(2):
        async with engine.connect() as connection:
            assert await outcome(connection, "SELECT id FROM o.notes") == [(1,)]
            for sql in ("INSERT INTO o.notes VALUES (2)", "CREATE TABLE o.more (id)"):
                assert "cannot change a database" in await outcome(connection, sql)
            raw = (await connection.get_raw_connection()).driver_connection
            assert "readonly" in await raw_outcome(raw, "DELETE FROM o.notes")
    assert house.fingerprint["other.db"] == before["other.db"]


async def test_the_error_is_of_a_family_that_is_caught_already(engine: AsyncEngine) -> None:
    """It is a ``sqlite3.OperationalError`` within SQLAlchemy's."""
    async with engine.connect() as connection:
        with pytest.raises(Exception, match="use a writer session or the writer engine") as caught:
            await connection.execute(text(WRITE))
        assert isinstance(getattr(caught.value, "orig", None), ForbiddenWriteError)
        assert isinstance(getattr(caught.value, "orig", None), sqlite3.OperationalError)
