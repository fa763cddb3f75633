"""Further databases by ATTACH: in listeners, in on_connect=, in sessions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, insert, inspect, select, text
from sqlalchemy.exc import DBAPIError

from sa_sqlite_pool import ForbiddenWriteError

from .doors import ENGINES, READERS, WRITES, Application, Door, is_locked, outside
from .listeners import executing, in_the_driver

metadata = MetaData()
item = Table(
    "item",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String),
    schema="tenant",
)


@pytest.fixture
def other(path: Path) -> Path:
    """Create another database in WAL mode."""
    other = path.with_name("other.db")
    with outside(other) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT)")
    return other


def attach(other: Path) -> str:
    return f"ATTACH DATABASE '{other}' AS tenant"


async def open_with(door: Door, how: str, other: Path, **options: Any) -> Application:
    statement = attach(other)
    if how == "listener":
        return await door.open(listen=executing(statement), **options)
    if how == "driver":
        return await door.open(
            listen=in_the_driver(lambda driver: driver.execute(statement)), **options
        )
    return await door.open(
        on_connect=lambda connection: connection.execute(statement).close(), **options
    )


ways = pytest.mark.parametrize("how", ["listener", "driver", "on_connect"])


@ways
async def test_tables_with_a_schema(door: Door, other: Path, how: str) -> None:
    """They are created, written, read and inspected, and the rows are in the other file."""
    app = await open_with(door, how, other)
    async with app.writer.begin() as connection:
        await connection.run_sync(metadata.create_all)
    async with app.transaction() as session:
        await session.execute(insert(item).values(name="a"))
    async with app.session() as session:
        assert (await session.execute(select(item.c.name))).all() == [("a",)]
    async with app.reader.connect() as reader:
        names = await reader.run_sync(lambda conn: inspect(conn).get_table_names(schema="tenant"))
        assert names == ["item"]
    with outside(other) as plain:
        assert plain.execute("SELECT name FROM item").fetchall() == [("a",)]


@ways
async def test_a_schema_by_translation(door: Door, other: Path, how: str) -> None:
    """schema_translate_map leads to the attached database."""
    app = await open_with(door, how, other)
    table = Table("item", MetaData(), Column("id", Integer), Column("name", String))
    engine = app.writer.execution_options(schema_translate_map={None: "tenant"})
    async with engine.begin() as connection:
        await connection.execute(insert(table).values(name="a"))
    engine = app.reader.execution_options(schema_translate_map={None: "tenant"})
    async with engine.connect() as connection:
        assert (await connection.execute(select(table.c.name))).all() == [("a",)]


@ways
async def test_one_transaction_over_both(door: Door, other: Path, how: str) -> None:
    """A rollback undoes the changes in both files."""
    app = await open_with(door, how, other)
    await app.write("CREATE TABLE t (x)")
    for end, count in (("rollback", 0), ("commit", 1)):
        async with app.writer.connect() as connection:
            await connection.execute(text("INSERT INTO t VALUES (1)"))
            await connection.execute(insert(item).values(name="a"))
            await getattr(connection, end)()
        assert await app.value("SELECT count(*) FROM t") == count
        assert await app.value("SELECT count(*) FROM tenant.item") == count


@ways
@pytest.mark.parametrize(
    "reading", [way for way in READERS if way[1] != "auto"], indirect=True, ids="-".join
)
async def test_a_reader_does_not_write_to_it(reading: Door, other: Path, how: str) -> None:
    """Statements of a reader change no file, including the attached one."""
    app = await open_with(reading, how, other)
    for statement in (
        "INSERT INTO tenant.item (name) VALUES ('a')",
        "CREATE TABLE tenant.more (x)",
        "PRAGMA tenant.user_version = 3",
    ):
        with pytest.raises(DBAPIError) as caught:
            async with app.enter() as connection:
                await connection.execute(text(statement))
        assert isinstance(caught.value.orig, ForbiddenWriteError)
    with outside(other) as plain:
        assert plain.execute("SELECT count(*) FROM item").fetchone() == (0,)
        assert plain.execute("SELECT name FROM sqlite_master").fetchall() == [("item",)]


@pytest.mark.parametrize(
    "changing",
    [way for way in WRITES if way[1] not in {"auto", "write"}],
    indirect=True,
    ids="-".join,
)
async def test_in_a_session(changing: Door, other: Path) -> None:
    """ATTACH, work in one transaction, and DETACH work, and again in the next session."""
    app = await changing.open()
    for count in range(2):
        async with app.enter() as connection:
            await connection.execute(text(attach(other)))
            await connection.execute(insert(item).values(name="a"))
            await connection.commit()
            asked = await connection.execute(text("SELECT count(*) FROM tenant.item"))
            assert asked.scalar_one() == count + 1
            await connection.rollback()
            await connection.execute(text("DETACH DATABASE tenant"))


@pytest.mark.parametrize(
    "reading", [way for way in READERS if way[1] != "auto"], indirect=True, ids="-".join
)
async def test_a_reader_that_attaches_in_a_session(reading: Door, other: Path) -> None:
    """It can read there, or the refusal names the option that attaches the file."""
    app = await reading.open()
    try:
        async with app.enter() as connection:
            await connection.execute(text(attach(other)))
            assert (await connection.execute(text("SELECT * FROM tenant.item"))).all() == []
    except DBAPIError as error:
        assert isinstance(error.orig, ForbiddenWriteError)  # noqa: PT017
        assert "on_connect" in str(error)  # noqa: PT017


@ways
async def test_a_database_in_memory(door: Door, path: Path, how: str) -> None:
    """A private one of the connection serves as scratch space, without a lock."""
    app = await open_with(door, how, Path(":memory:"))
    async with app.writer.connect() as connection:
        await connection.execute(text("CREATE TABLE tenant.scratch (x)"))
        await connection.execute(text("INSERT INTO tenant.scratch VALUES (1)"))
        await connection.commit()
        asked = await connection.execute(text("SELECT count(*) FROM tenant.scratch"))
        assert asked.scalar_one() == 1
    assert not is_locked(app.path)


async def test_read_only(door: Door, other: Path) -> None:
    """A file that is attached with mode=ro is read, and writing to it fails."""
    with outside(other) as plain:
        plain.execute("INSERT INTO item (name) VALUES ('a')")
    app = await door.open(
        path=door.path, listen=executing(f"ATTACH DATABASE 'file:{other}?mode=ro' AS tenant"),
        connect_args={"uri": True},
    )  # fmt: skip
    assert await app.value("SELECT name FROM tenant.item") == "a"
    with pytest.raises(DBAPIError, match="readonly"):
        await app.write("INSERT INTO tenant.item (name) VALUES ('b')")
    await app.write("CREATE TABLE t (x)", "INSERT INTO t SELECT name FROM tenant.item")
    assert await app.value("SELECT x FROM t") == "a"


@pytest.mark.parametrize("door", [ENGINES], indirect=True)
async def test_a_listener_of_a_reader_that_would_write(door: Door, other: Path) -> None:
    """A listener that also writes to a file on a reader is refused, and the error says so."""
    insert = executing(attach(other), "INSERT INTO tenant.item (name) VALUES ('a')", commits=True)
    with pytest.raises(DBAPIError) as caught:
        app = await door.open(listen=insert)
        await app.rows("SELECT 1")
    assert isinstance(caught.value.orig, ForbiddenWriteError)
    assert "INSERT item" in str(caught.value)
