"""run_read() and run_write(): the same programs as plain functions in one hop."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from sa_sqlite_pool import ForbiddenWriteError

from .doors import FACADE, Application, Door, at_once, is_locked, outside
from .listeners import BEFORE, executing
from .parameters import first
from .test_busy_timeout import tried_again
from .test_first_statement import FIRST
from .test_functions_that_write import with_functions
from .test_temp_tables import SCRATCH
from .test_virtual_tables import READS, Expected, expected

__all__ = ["expected"]

pytestmark = pytest.mark.parametrize("door", [FACADE], indirect=True)
CREATE = "CREATE TABLE account (id INTEGER PRIMARY KEY, amount INTEGER)"


def executes(*statements: str) -> Any:
    """Return a function that executes the statements."""

    def function(connection: Connection) -> list[tuple[Any, ...]]:
        for statement in statements:
            result = connection.exec_driver_sql(statement)
            rows = [tuple(row) for row in result] if result.returns_rows else []
        return rows

    return function


@pytest.mark.parametrize("sql", first(9, FIRST))
async def test_the_lock_is_held_from_the_first_statement(door: Door, sql: str) -> None:
    """A function that writes has SQLite's lock from its first statement on, whatever it is."""
    if sql.startswith("BEGIN"):
        return  # a transaction of its own is refused there
    app = await door.open()
    await app.write(CREATE)

    def function(connection: Connection) -> bool:
        connection.exec_driver_sql(sql)
        return is_locked(app.path)

    assert await app.db.run_write_core(function)
    assert not is_locked(app.path)


async def test_migrating_by_user_version(door: Door) -> None:
    """Functions read user_version, migrate and set it: the second one finds it done."""
    app = await door.open()
    await app.write(CREATE, "INSERT INTO account VALUES (1, 100)")

    def migrate(connection: Connection) -> None:
        if connection.exec_driver_sql("PRAGMA user_version").scalar_one() < 1:
            connection.exec_driver_sql("UPDATE account SET amount = amount * 100")
            connection.exec_driver_sql("PRAGMA user_version = 1")

    await asyncio.gather(*(app.db.run_write_core(migrate) for _ in range(5)))
    assert await app.value("SELECT amount FROM account") == 10_000


async def test_virtual_tables(door: Door, expected: Expected, subtests: pytest.Subtests) -> None:
    """They are read as by plain sqlite3, even while another task writes."""
    app = await door.open()
    for name, rows in expected.items():
        with subtests.test(name):
            assert await app.db.run_read_core(executes(READS[name])) == rows
    async with app.writer.connect() as writer:
        await writer.execute(text("INSERT INTO busy VALUES (1)"))
        for name, rows in expected.items():
            assert await at_once(app.db.run_read_core(executes(READS[name]))) == rows, name


async def test_temp_tables(door: Door) -> None:
    """They are scratch space for functions that only read."""
    app = await door.open()
    await app.write("CREATE TABLE t (id INTEGER PRIMARY KEY, x)", "INSERT INTO t (x) VALUES (1)")
    for _ in range(2):
        await app.db.run_read_core(executes(*SCRATCH))
        await app.db.run_write_core(executes(*SCRATCH))


@pytest.mark.parametrize("function", ["init_meta", "note"])
async def test_a_reader_says_that_it_cannot_write(door: Door, function: str) -> None:
    """A SELECT of a function that writes is refused by name, even if it ignores errors."""
    app = await door.open(listen=with_functions)
    await app.write("CREATE TABLE meta (k, v)")
    with pytest.raises(DBAPIError) as caught:
        await app.db.run_read_core(executes(f"SELECT {function}()"))
    assert isinstance(caught.value.orig, ForbiddenWriteError)
    assert await app.db.run_write_core(executes("SELECT init_meta()")) == [(1,)]
    assert await app.value("SELECT count(*) FROM meta") == 1


async def test_rows_of_returning_that_are_not_read(door: Door) -> None:
    """Unread rows of INSERT … RETURNING are no obstacle, or are reported at once."""
    app = await door.open(own={"write_timeout": 30.0})
    await app.write(CREATE)

    def function(connection: Connection) -> int:
        options = {"yield_per": 1}
        insert = text("INSERT INTO account (amount) VALUES (1), (2), (3) RETURNING id")
        result = connection.execute(insert, execution_options=options)
        return int(next(iter(result)).id)

    try:
        assert await at_once(app.db.run_write_core(function)) == 1
    except DBAPIError as error:
        assert "RETURNING" in str(error)  # noqa: PT017
    else:
        assert await app.value("SELECT count(*) FROM account") == 3
    await at_once(app.write("INSERT INTO account (amount) VALUES (4)"))


async def test_get_or_create_in_a_savepoint(door: Door) -> None:
    """The application's own IntegrityError is raised, and earlier writes are kept."""
    app = await door.open()
    await app.write("CREATE TABLE tags (name UNIQUE)", "INSERT INTO tags VALUES ('red')")

    def work(session: Any) -> None:
        session.execute(text("SELECT * FROM tags"))
        with pytest.raises(IntegrityError), session.begin_nested():
            session.execute(text("INSERT INTO tags VALUES ('red')"))
        session.execute(text("INSERT INTO tags VALUES ('blue')"))

    await app.db.run_write(work)
    assert await app.value("SELECT count(*) FROM tags") == 2


@pytest.mark.parametrize(("listen", "options"), first(5, BEFORE.values(), BEFORE))
async def test_after_pings_and_listeners(door: Door, listen: Any, options: dict[str, Any]) -> None:
    """Functions write and read if something runs before them on the connection."""
    app = await door.open(listen=listen, **options)
    await app.write(CREATE)
    for count in (1, 2):
        await app.db.run_write_core(executes("INSERT INTO account (amount) VALUES (1)"))
        assert await app.db.run_read_core(executes("SELECT count(*) FROM account")) == [(count,)]


async def test_the_loop_goes_on_while_another_program_writes(door: Door) -> None:
    """A listener's PRAGMA busy_timeout does not block the loop here, either."""
    listen = executing("PRAGMA busy_timeout = 1500")
    app = await door.open(listen=listen, own={"write_timeout": 2.0})
    await app.write(CREATE)
    insert = executes("INSERT INTO account (amount) VALUES (1)")
    for _ in range(20):
        await app.db.run_write_core(insert)
    with outside(app.path) as other:
        other.execute("BEGIN IMMEDIATE")
        assert await tried_again(app.db.run_write_core(insert), other)


async def test_many_at_the_same_time(door: Door) -> None:
    """Functions, sessions and engines run side by side, and each is executed once."""
    app = await door.open()
    await app.write(CREATE)
    insert = "INSERT INTO account (amount) VALUES (1)"
    threads: set[int] = set()

    def function(connection: Connection) -> None:
        threads.add(threading.get_ident())
        connection.exec_driver_sql(insert)

    async def work(app: Application) -> None:
        await app.db.run_write_core(function)
        await app.write(insert)
        async with app.transaction() as session:
            await session.execute(text(insert))

    await asyncio.gather(*(work(app) for _ in range(5)))
    assert await app.value("SELECT count(*) FROM account") == 15
