"""Door 3: the facade."""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
from pathlib import Path

import pytest
from pydantic import AnyUrl, SecretStr
from sqlalchemy import URL, func, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from sa_sqlite_pool import (
    ConfigurationError,
    DatabaseClosedError,
    ReadTimeout,
    SQLiteDatabase,
    TurnAlreadyHeldError,
    WriteTimeout,
)
from tests.helpers import Item, create_items, driver, files_beside, turn_of, until_waiting


@pytest.fixture
async def items(db: SQLiteDatabase) -> SQLiteDatabase:
    await create_items(db.writer_engine)
    return db


async def test_write_commits_and_read_sees_it(items: SQLiteDatabase) -> None:
    """The example of the README works."""
    async with items.write() as session:
        session.add(Item(id=10, amount=10))
    async with items.read() as session:
        assert (await session.get_one(Item, 10)).amount == 10


async def test_write_rolls_back_on_an_error(items: SQLiteDatabase) -> None:
    """A block that raises leaves nothing behind, and the turn is free."""
    with pytest.raises(ZeroDivisionError):
        async with items.write() as session:
            session.add(Item(id=10))
            await session.flush()
            raise ZeroDivisionError
    async with items.write() as session:
        assert await session.get(Item, 10) is None


async def test_write_begins_immediate(items: SQLiteDatabase, path: Path) -> None:
    """Serialized writes: even a SELECT acquires the lock, so the data that was read stays true."""
    async with items.write() as session:
        await session.get(Item, 1)
        other = sqlite3.connect(path, timeout=0, isolation_level=None)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        other.close()


async def test_objects_stay_usable_after_the_block(items: SQLiteDatabase) -> None:
    """expire_on_commit is off: no MissingGreenlet on attribute access."""
    async with items.write() as session:
        item = await session.get_one(Item, 1)
    assert item.amount == 0


async def test_the_sessionmaker_is_routed(items: SQLiteDatabase) -> None:
    """db.sessionmaker is door 2."""
    async with items.sessionmaker() as session:
        (await session.get_one(Item, 1)).amount = 3
        await session.commit()
    async with items.sessionmaker(role="reader") as session:
        assert (await session.get_one(Item, 1)).amount == 3


async def test_writers_line_up_and_readers_do_not(items: SQLiteDatabase, path: Path) -> None:
    """Fifty tasks increment a number: no update is lost, none fails, and readers continue."""

    async def increase() -> None:
        async with items.write() as session:
            item = await session.get_one(Item, 1)
            item.amount += 1

    tasks = [asyncio.create_task(increase()) for _ in range(50)]
    async with items.write() as session:
        await session.get_one(Item, 1)
        await until_waiting(50, turn_of(path))
        async with items.read() as reading:
            assert (await reading.get_one(Item, 1)).amount == 0
    await asyncio.gather(*tasks)
    async with items.read() as session:
        assert (await session.get_one(Item, 1)).amount == 50


async def test_a_write_inside_a_write_is_refused_at_once(items: SQLiteDatabase) -> None:
    """The same task would wait for itself."""
    async with items.write() as session:
        await session.get(Item, 1)
        with pytest.raises(TurnAlreadyHeldError, match="end its transaction first"):
            async with items.write() as inner:
                await inner.get(Item, 1)


async def test_the_write_time_out_names_the_holder(path: Path) -> None:
    """Clear waits: the message names the task that holds the turn, and its line."""
    entered, done = asyncio.Event(), asyncio.Event()
    async with SQLiteDatabase(path, write_timeout=0.02) as db:
        await create_items(db.writer_engine)

        async def hold() -> None:
            async with db.write() as session:
                await session.get(Item, 1)
                entered.set()
                await done.wait()

        holder = asyncio.create_task(hold(), name="import-42")
        await entered.wait()
        with pytest.raises(
            WriteTimeout, match=r"waited 0\.02 s .*task 'import-42' \(now at test_database\.py:\d+"
        ):
            async with db.write() as session:
                await session.get(Item, 1)
        done.set()
        await holder


async def test_the_read_time_out_names_the_holders(path: Path) -> None:
    """Clear waits for readers: the message names the tasks that hold them."""
    async with SQLiteDatabase(path, readers=1, read_timeout=0.02) as db:
        await create_items(db.writer_engine)
        async with db.read() as session:
            await session.get(Item, 1)
            with pytest.raises(
                ReadTimeout, match=r"one of the 1 connections .*task 'Task-"
            ) as error:
                async with db.read() as second:
                    await second.get(Item, 1)
            assert "readers or read_timeout of SQLiteDatabase" in str(error.value)


async def test_warm_connections_are_kept(items: SQLiteDatabase) -> None:
    """The same connections serve one session after the other."""
    seen = set()
    for _ in range(5):
        async with items.read() as session:
            seen.add(await driver(await session.connection()))
    assert len(seen) == 1


# -- life cycle ---------------------------------------------------------------------------------


async def test_the_life_of_a_database(path: Path) -> None:
    """NEW → OPEN → CLOSED → OPEN → CLOSED: each state that cannot serve says what to do."""
    db = SQLiteDatabase(path)
    assert repr(db) == "<SQLiteDatabase app.db new>"
    with pytest.raises(DatabaseClosedError, match=r"app\.db is not open; use `async with db:`"):
        async with db.read():
            pass
    assert await db.open() is db
    await db.open()
    assert repr(db) == "<SQLiteDatabase app.db open writer=idle waiting=0 readers=0/4>"
    await db.close()
    await db.close()
    assert repr(db) == "<SQLiteDatabase app.db closed>"
    with pytest.raises(DatabaseClosedError, match="was closed; open it again"):
        async with db.write():
            pass
    assert await db.open() is db
    assert repr(db) == "<SQLiteDatabase app.db open writer=idle waiting=0 readers=0/4>"
    await db.close()
    assert repr(db) == "<SQLiteDatabase app.db closed>"


async def test_the_repr_shows_who_is_busy(items: SQLiteDatabase) -> None:
    """The repr is a status line."""
    async with items.write() as writing, items.read() as reading:
        await writing.get(Item, 1)
        await reading.get(Item, 1)
        assert re.fullmatch(
            r"<SQLiteDatabase app\.db open writer=busy\(\d\.\ds\) waiting=0 readers=1/4>",
            repr(items),
        )


async def test_closing_leaves_the_database_alone(path: Path) -> None:
    """The last connection to close moves the log into the file and removes it."""
    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        async with db.read() as session:
            await session.get(Item, 1)
    assert files_beside(path) == {"app.db"}


async def test_in_memory(tmp_path: Path) -> None:
    """:memory: behaves like a file for both engines, and nothing remains after it is closed."""
    async with SQLiteDatabase(":memory:") as db:
        await create_items(db.writer_engine)
        async with db.read() as reading:
            assert await reading.scalar(select(func.count(Item.id))) == 3
            async with db.write() as writing:
                writing.add(Item(id=10))
        async with db.read() as reading:
            assert await reading.scalar(select(func.count(Item.id))) == 4
        file = Path(db.url.database or "")
        assert file.exists()
    assert not file.parent.exists()


# -- arguments ----------------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", ["url", "URL", "str", "Path"])
async def test_spellings_of_the_address(path: Path, spelling: str) -> None:
    """The address may be a URL string, a sqlalchemy.URL, a path as text, or a path object."""
    spellings: dict[str, str | URL | os.PathLike[str]] = {
        "url": f"sqlite+aiosqlite:///{path}",
        "URL": URL.create("sqlite+aiosqlite", database=str(path)),
        "str": str(path),
        "Path": path,
    }
    async with SQLiteDatabase(spellings[spelling]):
        assert path.exists()


async def test_engine_options_go_to_both_engines(path: Path) -> None:
    """echo, connect_args, json_serializer, pool_pre_ping, … are passed as to SQLAlchemy."""
    async with SQLiteDatabase(
        path,
        pool_pre_ping=True,
        json_serializer=lambda value: "null",
        connect_args={"cached_statements": 9},
        logging_name="mine",
        execution_options=None,
    ) as db:
        for engine in (db.writer_engine, db.reader_engine):
            assert engine.sync_engine.logging_name == "mine"
            assert engine.dialect._json_serializer is not None
            async with engine.connect() as connection:
                await connection.execute(text("SELECT 1"))


async def test_the_defaults_are_those_of_the_table(items: SQLiteDatabase) -> None:
    """docs/mechanisms_files.md lists the pragmas of each role."""
    expected = {
        "journal_mode": "wal",
        "synchronous": 1,
        "foreign_keys": 1,
        "cache_size": -16384,
        "temp_store": 2,
    }
    for engine in (items.writer_engine, items.reader_engine):
        async with engine.connect() as connection:
            found = {
                name: (await connection.execute(text(f"PRAGMA {name}"))).scalar_one()
                for name in expected
            }
        assert found == expected
    async with items.writer_engine.connect() as connection:
        limit = (await connection.execute(text("PRAGMA journal_size_limit"))).scalar_one()
    assert limit == 64 * 1024 * 1024


async def test_pragmas_are_laid_over_the_defaults(path: Path) -> None:
    """One pragma is changed, and the others keep their defaults."""
    pragmas: dict[str, str | int] = {"synchronous": "FULL", "cache_size": -999}
    async with SQLiteDatabase(path, pragmas=pragmas) as db, db.write() as session:
        assert await session.scalar(text("PRAGMA synchronous")) == 2
        assert await session.scalar(text("PRAGMA cache_size")) == -999
        assert await session.scalar(text("PRAGMA foreign_keys")) == 1


async def test_a_rollback_journal_by_choice(path: Path) -> None:
    """journal_mode=TRUNCATE, for file systems without shared memory, works."""
    async with SQLiteDatabase(path, pragmas={"journal_mode": "TRUNCATE"}) as db:
        await create_items(db.writer_engine)
        async with db.read() as session:
            assert await session.scalar(select(func.count(Item.id))) == 3
            assert await session.scalar(text("PRAGMA journal_mode")) in {"truncate", "delete"}


async def test_foreign_keys_are_enforced(items: SQLiteDatabase) -> None:
    """They are off by default in SQLite, but on here."""
    async with items.write() as session:
        await session.execute(text("CREATE TABLE p (id INTEGER PRIMARY KEY)"))
        await session.execute(text("CREATE TABLE c (p REFERENCES p)"))
    with pytest.raises(Exception, match="FOREIGN KEY constraint failed"):
        async with items.write() as session:
            await session.execute(text("INSERT INTO c VALUES (1)"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"url": "postgresql+asyncpg://localhost/app"}, "there is ServerDatabase"),
        ({"url": "nonsense://"}, "needs a sqlite\\+aiosqlite URL"),
        ({"url": "://"}, "neither a path nor a URL"),
        ({"url": None}, "type NoneType; it must be a string, a path or a sqlalchemy.URL"),
        ({"url": SecretStr("sqlite+aiosqlite:///app.db")}, "pass what its get_secret_value"),
        ({"url": AnyUrl("sqlite+aiosqlite:///app.db")}, "type AnyUrl; .* pass str\\(\\) of it"),
        ({"readers": 0}, "readers must be a whole number of at least 1"),
        ({"readers": "many"}, "readers must be a whole number"),
        ({"write_timeout": -1}, "write_timeout must be a number of seconds"),
        ({"read_timeout": "soon"}, "read_timeout must be a number of seconds"),
        ({"on_connect": "PRAGMA x"}, "on_connect must be a function"),
        ({"on_connect": asyncio.sleep}, "on_connect must be a plain function"),
        ({"pragmas": {"jurnal_mode": "WAL"}}, "did you mean 'journal_mode'"),
        ({"pragmas": {1: "WAL"}}, "unknown pragma 1"),
        ({"pragmas": {"synchronous": "²"}}, "synchronous must be one of OFF, NORMAL"),
        ({"pragmas": {"synchronous": "MAYBE"}}, "synchronous must be one of OFF, NORMAL"),
        ({"pragmas": {"cache_size": "big"}}, "cache_size must be a whole number"),
        ({"pragmas": {"journal_size_limit": -7}}, "at least -1"),
        ({"pragmas": {"busy_timeout": 5}}, "set write_timeout and read_timeout instead"),
        ({"pragmas": {"journal_mode": "OFF"}}, "journal_mode must be one of"),
        ({"pragmas": {"foreign_keys": "maybe"}}, "foreign_keys must be True or False"),
        ({"pragmas": "journal_mode=WAL"}, "pragmas must be a mapping"),
        ({"pool_size": 5}, "SQLiteDatabase chooses its pools"),
        ({"execution_options": {"sqlite_role": "writer"}}, "the engines of SQLiteDatabase have"),
    ],
)
def test_wrong_arguments_are_refused_at_construction(
    path: Path, arguments: dict[str, object], message: str
) -> None:
    """The error says what to do, and is raised before any file is touched."""
    arguments = {"url": str(path), **arguments}
    with pytest.raises(ConfigurationError, match=message):
        SQLiteDatabase(**arguments)  # type: ignore[arg-type]
    assert files_beside(path) == set()


async def test_unknown_engine_options_are_sqlalchemys_to_refuse(path: Path) -> None:
    """A misspelt option is not ignored."""
    with pytest.raises(TypeError, match="ehco"):
        SQLiteDatabase(path, ehco=True)


# -- files that cannot be used -------------------------------------------------------------------


async def cannot_open(address: Path, message: str) -> None:
    before = sorted(address.parent.iterdir()) if address.parent.exists() else []
    with pytest.raises(Exception, match=message) as caught:
        await SQLiteDatabase(address).open()
    assert isinstance(caught.value, OperationalError) or "not an SQLite" in str(caught.value)
    after = sorted(address.parent.iterdir()) if address.parent.exists() else []
    assert after == before


async def test_a_directory(tmp_path: Path) -> None:
    """The error says that the path is a directory."""
    await cannot_open(tmp_path, "is a directory; give the path of a file in it")


async def test_a_missing_directory(tmp_path: Path) -> None:
    """The error names the missing directory, and nothing is created."""
    await cannot_open(tmp_path / "missing" / "app.db", "missing does not exist; create it")


async def test_a_special_file() -> None:
    """A device is no database."""
    await cannot_open(Path("/dev/null"), "is not a regular file")


async def test_a_file_that_is_no_database(path: Path) -> None:
    """The file is left unchanged."""
    path.write_bytes(content := b"a letter to my bank, 1200 words long\n" * 100)
    await cannot_open(path, "app.db is not an SQLite database .*it was not changed")
    assert path.read_bytes() == content


async def test_the_database_can_be_opened_once_the_cause_is_gone(tmp_path: Path) -> None:
    """A failed open leaves the object usable."""
    db = SQLiteDatabase(tmp_path / "later" / "app.db")
    with pytest.raises(OperationalError):
        await db.open()
    (tmp_path / "later").mkdir()
    async with db, db.read() as session:
        assert isinstance(session, AsyncSession)
