"""Concurrent migrations: tasks, loops, databases, processes; and how long they wait."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import event, text

from sa_sqlite_pool import SQLiteDatabase, WriteTimeout
from sa_sqlite_pool.migrations import commands, current, upgrade
from tests.helpers import turn_of, until, until_waiting
from tests.migrations.scripts import CREATE, Scripts, finish, hooks, wait_inside
from tests.turn.locks import blocked, wait_until

# A revision that records each run, rolled back or not.
NOTED = "with open({!r}, 'a') as ran: ran.write('{}\\n')\nop.execute('CREATE TABLE ran_{} (id)')"


def noted(scripts: Scripts) -> list[str]:
    """Return the revisions that have run."""
    return (scripts.directory / "ran").read_text().split()


@pytest.fixture
def noting(scripts: Scripts) -> Scripts:
    """Provide three more revisions, which record that they run."""
    for number in ("0002", "0003", "0004"):
        scripts.add(NOTED.format(str(scripts.directory / "ran"), number, number))
    return scripts


@pytest.fixture
def other(tmp_path: Path) -> Scripts:
    """Provide a second project, with its own database."""
    scripts = Scripts(tmp_path / "other")
    scripts.add(CREATE)
    return scripts


@contextmanager
def stopped_revision(scripts: Scripts) -> Iterator[threading.Event]:
    """Add a revision that blocks until the block ends; the event is set once it runs."""
    inside, leave = threading.Event(), threading.Event()
    hooks["stop"] = lambda: wait_inside(inside, leave)
    scripts.add("hooks['stop']()")
    try:
        yield inside
    finally:
        leave.set()


@asynccontextmanager
async def held(db: SQLiteDatabase) -> AsyncIterator[None]:
    """Hold the write turn in another task, called ``holding``."""
    entered, leave = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with db.write() as session:
            await session.execute(text("SELECT 1"))
            entered.set()
            await leave.wait()

    holder = asyncio.create_task(hold(), name="holding")
    await entered.wait()
    try:
        yield
    finally:
        leave.set()
        await holder


async def write_times_out(db: SQLiteDatabase) -> str:
    with pytest.raises(WriteTimeout) as caught:
        async with db.write() as session:
            await session.execute(text("SELECT 1"))
    return str(caught.value)


# -- many at once -------------------------------------------------------------------------------


@pytest.mark.parametrize("door", ["facade", "engine"])
async def test_ten_tasks(noting: Scripts, db: SQLiteDatabase, door: str) -> None:
    """One migrates, nine wait and continue, none fails; each revision has run once."""
    target = db if door == "facade" else db.writer_engine
    await asyncio.gather(*(upgrade(target, "head", config=noting.ini) for _ in range(10)))
    assert noted(noting) == ["0002", "0003", "0004"]
    assert await current(db, config=noting.ini) == ("0004",)


WORKER = """
import asyncio, sys
from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.migrations import current, upgrade

async def main():
    print("ready", flush=True)
    sys.stdin.readline()
    async with SQLiteDatabase("app.db") as db:
        await upgrade(db, "head", config="alembic.ini")
        print(*await current(db, config="alembic.ini"))

asyncio.run(main())
"""


def test_ten_processes_on_a_new_file(noting: Scripts) -> None:
    """The same holds for processes: nine wait in line while one migrates."""
    with noting.gate() as let_go_on:
        workers = [noting.start("-c", WORKER) for _ in range(10)]
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        wait_until(lambda: blocked(noting.database) == 9)
        let_go_on()
        printed = [finish(worker) for worker in workers]
    assert [said.out for said in printed] == ["0005\n"] * 10
    assert noted(noting) == ["0002", "0003", "0004"]


async def test_two_databases_do_not_disturb_each_other(
    scripts: Scripts, other: Scripts, db: SQLiteDatabase
) -> None:
    """Alembic's `op` is global to the process: the second one waits, whatever its database."""
    async with SQLiteDatabase(other.database) as second:
        with stopped_revision(scripts) as inside:
            first = asyncio.create_task(upgrade(db, "head", config=scripts.ini))
            await until(inside.is_set)
            waiting = asyncio.create_task(upgrade(second, "head", config=other.ini))
            await until_waiting(1, commands._alembic)
            assert turn_of(other.database).holder is not None
        await asyncio.gather(first, waiting)
        assert await current(db, config=scripts.ini) == ("0002",)
        assert await current(second, config=other.ini) == ("0001",)


async def test_who_waits_for_its_turn_keeps_nobody_from_alembic(
    scripts: Scripts, other: Scripts, db: SQLiteDatabase
) -> None:
    """First the turn, then Alembic: a long write to one database delays no other's migration."""
    async with SQLiteDatabase(other.database) as second:
        async with held(db):
            waiting = asyncio.create_task(upgrade(db, "head", config=scripts.ini))
            await until_waiting(1, turn_of(scripts.database))
            await upgrade(second, "head", config=other.ini)
            assert not waiting.done()
        await waiting


def test_loops_in_threads(tmp_path: Path) -> None:
    """Four event loops, four databases, five rounds: each database gets its own revisions only."""
    projects = [Scripts(tmp_path / f"project{n}") for n in range(4)]
    for number, project in enumerate(projects):
        project.add(CREATE, "op.drop_table('children'); op.drop_table('parents')")
        project.add(f"op.execute('INSERT INTO parents VALUES ({number}, 0)')")
    errors: list[BaseException] = []

    async def migrate(project: Scripts) -> None:
        for _ in range(5):
            async with SQLiteDatabase(project.database) as db:
                await commands.downgrade(db, "base", config=project.ini)
                await upgrade(db, "head", config=project.ini)

    def run(project: Scripts) -> None:
        try:
            asyncio.run(migrate(project))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=[project]) for project in projects]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    found = [project.query("SELECT id FROM parents") for project in projects]
    assert found == [[(number,)] for number in range(4)]


# -- how long -----------------------------------------------------------------------------------


async def test_a_migration_waits_longer_than_a_write(scripts: Scripts) -> None:
    """``timeout`` limits it instead of ``write_timeout``, which applies again afterwards."""
    async with SQLiteDatabase(scripts.database, write_timeout=0.01) as db:
        await upgrade(db, "base", config=scripts.ini)  # nothing to wait for
        async with held(db):
            waiting = asyncio.create_task(upgrade(db, "head", config=scripts.ini))
            await until_waiting(1, turn_of(scripts.database))
            assert "waited 0.01 s" in await write_times_out(db)
            assert not waiting.done()
        await waiting
        assert await current(db, config=scripts.ini) == ("0001",)
        async with held(db):
            assert "waited 0.01 s" in await write_times_out(db)


async def test_the_patience_is_the_calls_alone(scripts: Scripts) -> None:
    """The task that has migrated waits for its writes as before."""
    async with SQLiteDatabase(scripts.database, write_timeout=0.01) as db:
        await upgrade(db, "head", config=scripts.ini)
        async with held(db):
            assert "waited 0.01 s" in await write_times_out(db)


async def test_the_time_out_names_the_holder(scripts: Scripts, db: SQLiteDatabase) -> None:
    """The message also says which time-out has expired."""
    async with held(db):
        with pytest.raises(WriteTimeout, match=r"waited 0\.02 s .*'holding'.*its own timeout"):
            await upgrade(db, "head", config=scripts.ini, timeout=0.02)
    await upgrade(db, "head", config=scripts.ini)


async def test_a_lock_of_another_program_is_waited_for_as_long(scripts: Scripts) -> None:
    """A worker that does not use this package may be migrating."""
    async with SQLiteDatabase(scripts.database, write_timeout=0.01) as db:
        asked = asyncio.Event()
        loop = asyncio.get_running_loop()

        def note(_conn: object, _cursor: object, statement: str, *_: object) -> None:
            if statement == "BEGIN IMMEDIATE":
                loop.call_soon_threadsafe(asked.set)

        event.listen(db.writer_engine.sync_engine, "before_cursor_execute", note)
        outsider = sqlite3.connect(scripts.database, isolation_level=None)
        outsider.execute("BEGIN IMMEDIATE")
        with pytest.raises(WriteTimeout, match=r"waited 0\.02 s .*SQLite's lock"):
            await upgrade(db, "head", config=scripts.ini, timeout=0.02)
        asked.clear()
        waiting = asyncio.create_task(upgrade(db, "head", config=scripts.ini))
        await asked.wait()
        assert "waited 0.01 s" in await write_times_out(db)
        assert not waiting.done()
        outsider.execute("COMMIT")
        outsider.close()
        await waiting


async def test_waiting_for_alembic_ends_too(
    scripts: Scripts, other: Scripts, db: SQLiteDatabase
) -> None:
    """By a time-out that names the migrating task, or by a cancellation; then the turn is free."""
    async with SQLiteDatabase(other.database) as second:
        with stopped_revision(scripts) as inside:
            first = asyncio.create_task(upgrade(db, "head", config=scripts.ini), name="first")
            await until(inside.is_set)
            with pytest.raises(WriteTimeout, match=r"waited 0\.02 s for Alembic.*task 'first'"):
                await upgrade(second, "head", config=other.ini, timeout=0.02)
            cancelled = asyncio.create_task(upgrade(second, "head", config=other.ini))
            await until_waiting(1, commands._alembic)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            assert commands._alembic.waiting == 0
            async with second.write() as session:
                await session.execute(text("CREATE TABLE free (id)"))
        await first
        await upgrade(second, "head", config=other.ini)
