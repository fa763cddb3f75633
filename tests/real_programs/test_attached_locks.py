"""A transaction locks the attached files that it may write, and no others, and never itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tests.helpers import turn_of, until_waiting

from .doors import OURS, SWAP_IN, Application, Door, at_once, is_locked, outside
from .listeners import executing

without_stock = pytest.mark.parametrize("door", OURS, indirect=True)


async def both(door: Door) -> tuple[Application, Application]:
    """Return an engine on main.db that attaches other.db, and one on other.db."""
    other = door.path.with_name("other.db")
    writes_other = await door.open(path=other)
    await writes_other.write("CREATE TABLE o (x)")
    app = await door.open(listen=executing(f"ATTACH '{other}' AS other"))
    await app.write("CREATE TABLE m (x)")
    return app, writes_other


async def test_beside_a_writer_of_the_attached_file(door: Door) -> None:
    """The main file is written while another engine holds the attached file's turn."""
    app, other = await both(door)
    async with other.writer.connect() as busy:
        await busy.execute(text("INSERT INTO o VALUES (1)"))
        await at_once(app.write("INSERT INTO m VALUES (1)"))
        await busy.commit()
    assert await app.value("SELECT count(*) FROM m") == 1


async def test_beside_another_program_on_the_attached_file(door: Door) -> None:
    """The same applies while another program holds its lock."""
    app, other = await both(door)
    with outside(other.path) as program:
        program.execute("BEGIN IMMEDIATE")
        await at_once(app.write("INSERT INTO m VALUES (1)"))
        program.execute("ROLLBACK")


async def test_what_is_only_read_is_not_locked(door: Door) -> None:
    """A transaction that reads the attached file and writes the main one locks the main one."""
    app, other = await both(door)
    async with app.writer.connect() as connection:
        await connection.execute(text("INSERT INTO m SELECT count(*) FROM other.o"))
        assert is_locked(app.path)
        assert not is_locked(other.path)
        await connection.rollback()


@without_stock
async def test_the_turn_of_the_attached_file(door: Door) -> None:
    """A task that writes to the attached file waits for its turn, and then succeeds."""
    app, other = await both(door)
    async with other.writer.connect() as busy:
        await busy.execute(text("INSERT INTO o VALUES (1)"))
        task = asyncio.create_task(app.write("INSERT INTO other.o VALUES (2)"))
        await until_waiting(1, turn_of(other.path))
        assert not task.done()
        await busy.commit()
    await task
    assert await other.value("SELECT count(*) FROM o") == 2


@without_stock
async def test_many_writers_of_both(door: Door) -> None:
    """Writers of one, the other and both run one after the other, and all succeed."""
    app, other = await both(door)

    async def work(number: int) -> None:
        await app.write("INSERT INTO m VALUES (1)", "INSERT INTO other.o VALUES (1)")
        await other.write("INSERT INTO o VALUES (1)")
        await app.write("INSERT INTO other.o VALUES (1)", "INSERT INTO m VALUES (1)")

    for number in range(5):
        await work(number)
    assert await app.value("SELECT count(*) FROM m") == 10
    assert await app.value("SELECT count(*) FROM other.o") == 15


@without_stock
async def test_two_files_that_attach_each_other(door: Door) -> None:
    """Each engine writes to the other's file, one after the other."""
    main, other = door.path, door.path.with_name("other.db")
    with outside(main) as one, outside(other) as two:
        for connection in (one, two):
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("CREATE TABLE t (x)")
    first = await door.open(listen=executing(f"ATTACH '{other}' AS other"))
    second = await door.open(path=other, listen=executing(f"ATTACH '{main}' AS other"))

    async def work(app: Application) -> None:
        await app.write("INSERT INTO t VALUES (1)", "INSERT INTO other.t VALUES (1)")

    for app in (first, second) * 2:
        await work(app)
    assert await first.value("SELECT count(*) FROM t") == 4
    assert await second.value("SELECT count(*) FROM t") == 4


@pytest.mark.parametrize("where", ["listener", "session"])
async def test_the_own_file_under_a_second_name(door: Door, where: str) -> None:
    """It is no outsider: it is written by either name, or refused at once, as by SQLite."""
    attach = f"ATTACH '{door.path}' AS again"
    listen = executing(attach) if where == "listener" else None
    app = await door.open(listen=listen)

    async def write(statement: str) -> None:
        async with app.writer.connect() as connection:
            if where == "session":
                await connection.execute(text(attach))
            await connection.execute(text(statement))
            await connection.commit()
            await connection.rollback()
            if where == "session":
                await connection.execute(text("DETACH again"))

    await at_once(write("CREATE TABLE again.a (id INTEGER PRIMARY KEY)"))
    await at_once(write("CREATE TABLE b (id INTEGER PRIMARY KEY)"))
    await at_once(write("INSERT INTO again.a VALUES (1)"))
    await at_once(write("INSERT INTO a VALUES (2)"))
    assert await app.value("SELECT count(*) FROM a") == 2
    assert await app.value("SELECT count(*) FROM again.a" if listen else "SELECT 2") == 2


async def test_the_own_file_by_both_names_in_one_transaction(door: Door) -> None:
    """SQLite cannot lock a file against itself: the error is raised at once, without a wait."""
    app = await door.open()

    async def write() -> None:
        async with app.writer.connect() as connection:
            await connection.execute(text(f"ATTACH '{door.path}' AS again"))
            await connection.execute(text("INSERT INTO a VALUES (1)"))
            await connection.execute(text("INSERT INTO again.a VALUES (2)"))

    await app.write("CREATE TABLE a (x)")
    if door.stock:
        return  # it waits for itself until its busy timeout has expired
    with pytest.raises(DBAPIError, match=r"locked|again"):
        await at_once(write())
    await at_once(app.write("INSERT INTO a VALUES (3)"))


@pytest.mark.parametrize("door", [SWAP_IN], indirect=True)
async def test_a_link_to_the_own_file(door: Door, path: Path) -> None:
    """A symbolic link denotes the same file."""
    link = path.with_name("link.db")
    app = await door.open()
    await app.write("CREATE TABLE a (x)")
    link.symlink_to(path)
    async with app.writer.connect() as connection:
        await connection.execute(text(f"ATTACH '{link}' AS again"))
        await at_once(_insert(connection, "INSERT INTO again.a VALUES (1)"))
        await connection.commit()


async def _insert(connection: object, statement: str) -> None:
    await connection.execute(text(statement))  # type: ignore[attr-defined]
