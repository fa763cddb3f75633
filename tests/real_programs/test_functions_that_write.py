"""A SELECT of a function that writes, as in extensions, some of which ignore errors."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import OperationalError

from sa_sqlite_pool import ForbiddenWriteError

from .doors import ENGINES, FACADE, READERS, Door, is_locked, outside
from .listeners import in_the_driver


def add_functions(connection: sqlite3.Connection) -> None:
    """Add two functions that write; on failure, one returns 0 and the other raises."""

    def note() -> int:
        connection.execute("INSERT INTO meta VALUES ('key', 1)")
        return 1

    def init_meta() -> int:
        try:
            connection.execute("CREATE TABLE IF NOT EXISTS meta (k, v)")
            note()
        except sqlite3.Error:
            return 0
        return 1

    connection.create_function("init_meta", 0, init_meta)
    connection.create_function("note", 0, note)


with_functions = in_the_driver(lambda driver: driver._execute(add_functions, driver._conn))


async def test_it_writes(changing: Door) -> None:
    """The row is present after commit(), or the caller gets the reason."""
    app = await changing.open(listen=with_functions)
    try:
        async with app.enter() as connection:
            said = (await connection.execute(select(func.init_meta()))).scalar_one()
            await connection.commit()
    except OperationalError as error:
        # An auto session takes a SELECT for a read, and a reader refuses to write.
        assert changing.kind in {ENGINES, FACADE}
        assert isinstance(error.orig, ForbiddenWriteError)  # noqa: PT017
    else:
        assert said == 1
        assert await app.value("SELECT count(*) FROM meta") == 1


async def test_rollback_undoes_it(changing: Door) -> None:
    """The function's write belongs to the transaction."""
    app = await changing.open(listen=with_functions)
    await app.write("CREATE TABLE meta (k, v)")
    try:
        async with app.enter() as connection:
            await connection.execute(text("SELECT note()"))
            await connection.rollback()
    except OperationalError as error:
        assert changing.kind in {ENGINES, FACADE}
        assert isinstance(error.orig, ForbiddenWriteError)  # noqa: PT017
    assert await app.value("SELECT count(*) FROM meta") == 0


async def test_the_lock_is_held_until_the_end(changing: Door) -> None:
    """Other programs cannot write between the function and the commit."""
    app = await changing.open(listen=with_functions)
    await app.write("CREATE TABLE meta (k, v)")
    try:
        async with app.enter() as connection:
            await connection.execute(text("SELECT init_meta()"))
            assert is_locked(app.path)
            await connection.commit()
    except OperationalError as error:
        assert changing.kind in {ENGINES, FACADE}
        assert isinstance(error.orig, ForbiddenWriteError)  # noqa: PT017
    assert not is_locked(app.path)


async def test_a_statement_that_the_function_has_prepared_before(door: Door) -> None:
    """SQLite does not ask again about compiled SQL; it is in the transaction nevertheless."""
    app = await door.open(listen=with_functions)
    await app.write("CREATE TABLE meta (k, v)")
    await app.write(
        "INSERT INTO meta VALUES ('k', 0)", "SELECT note()"
    )  # sqlite3 keeps the function's statement in its cache
    for _ in range(2):
        async with app.writer.connect() as connection:
            await connection.execute(text("SELECT note()"))
            assert is_locked(app.path)
            await connection.rollback()
            assert not is_locked(app.path)
    assert await app.value("SELECT count(*) FROM meta") == 2
    async with app.writer.connect() as connection:
        await connection.execute(text("SELECT note()"))
        await connection.commit()
    assert await app.value("SELECT count(*) FROM meta") == 3


@pytest.mark.parametrize("reading", READERS, indirect=True, ids="-".join)
@pytest.mark.parametrize("function", ["init_meta", "note"])
async def test_a_reader_says_that_it_cannot(reading: Door, function: str) -> None:
    """The error names the write, even if the function returns 0 and raises nothing."""
    app = await reading.open(listen=with_functions)
    await app.write("CREATE TABLE meta (k, v)")
    with pytest.raises(OperationalError) as caught:
        async with app.enter() as connection:
            await connection.execute(text(f"SELECT {function}()"))
    assert isinstance(caught.value.orig, ForbiddenWriteError)
    assert await app.value("SELECT count(*) FROM meta") == 0


async def test_what_only_reads_is_innocent(reading: Door) -> None:
    """A function that reads through its own connection takes no turn and is not refused."""

    def add(connection: Any) -> None:
        count = "SELECT count(*) FROM meta"
        connection.create_function("size", 0, lambda: connection.execute(count).fetchone()[0])

    app = await reading.open(
        listen=in_the_driver(lambda driver: driver._execute(add, driver._conn))
    )
    await app.write("CREATE TABLE meta (k, v)", "INSERT INTO meta VALUES ('a', 1)")
    with outside(app.path) as other:
        other.execute("BEGIN IMMEDIATE")
        async with app.enter() as connection:
            for _ in range(2):
                assert (await connection.execute(text("SELECT size()"))).scalar_one() == 1
        other.execute("ROLLBACK")


FTS4 = [
    "CREATE VIRTUAL TABLE docs USING fts4(body)",
    *(f"INSERT INTO docs VALUES ('number {number}')" for number in range(3)),
]
SEGMENTS = "SELECT count(*) FROM docs_segdir"


async def test_a_full_text_table_is_optimized_by_select(door: Door) -> None:
    """SELECT optimize(…) merges the segments of an fts4 table."""
    app = await door.open()
    for statement in FTS4:
        await app.write(statement)
    assert await app.value(SEGMENTS) == 3
    async with app.writer.connect() as connection:
        await connection.execute(text("SELECT optimize(docs) FROM docs LIMIT 1"))
        await connection.rollback()
    if not door.stock:  # which begins no transaction for a SELECT, so it cannot be undone
        assert await app.value(SEGMENTS) == 3
    async with app.writer.connect() as connection:
        await connection.execute(text("SELECT optimize(docs) FROM docs LIMIT 1"))
        await connection.commit()
    assert await app.value(SEGMENTS) == 1


@pytest.mark.parametrize("reading", READERS, indirect=True, ids="-".join)
async def test_a_reader_does_not_optimize(reading: Door) -> None:
    """The error says so, and the segments are unchanged."""
    app = await reading.open()
    for statement in FTS4:
        await app.write(statement)
    with pytest.raises(OperationalError) as caught:
        async with app.enter() as connection:
            await connection.execute(text("SELECT optimize(docs) FROM docs LIMIT 1"))
    assert isinstance(caught.value.orig, ForbiddenWriteError)
    assert await app.value(SEGMENTS) == 3
