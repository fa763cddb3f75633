"""Group commit: which calls share a COMMIT, in which order, and the outcome of each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

from sa_sqlite_pool import SQLiteDatabase, TransactionLostError
from sa_sqlite_pool.closures import shared_transaction
from sa_sqlite_pool.closures.group import Group
from sa_sqlite_pool.closures.line import Line
from tests.closures.work import Sent, add, add_and_fail, added, in_line
from tests.helpers import Item, driver
from tests.wal.facade import HARD, INSERT, SMALL, log_size


async def test_those_in_line_share_a_commit(db: SQLiteDatabase, path: Path, sent: Sent) -> None:
    """Ten calls that wait at the same time need one hop, BEGIN and COMMIT; each gets its result."""
    async with db.writer_engine.connect() as connection:
        worker = (await driver(connection)).worker
    before = worker.hops
    calls = [partial(db.run_write_core, add, key) for key in range(10, 20)]
    assert await in_line(db, path, *calls) == list(range(10, 20))
    assert (sent.starting("BEGIN"), sent.starting("COMMIT")) == (1, 1)
    assert worker.hops == before + 1
    assert await added(db) == list(range(10, 20))


async def test_sessions_and_connections_share_it(
    db: SQLiteDatabase, path: Path, sent: Sent
) -> None:
    """run_write() and run_write_core() wait in the same line."""

    def store(session: Session) -> None:
        session.add(Item(id=11))

    await in_line(
        *(db, path),
        partial(db.run_write_core, add, 10),
        partial(db.run_write, store),
    )
    assert await added(db) == [10, 11]
    assert sent.starting("COMMIT") == 1


async def test_switched_off(path: Path) -> None:
    """group_commit=False sends one COMMIT for each call."""
    sent = Sent()
    async with SQLiteDatabase(
        path, group_commit=False, on_connect=lambda c: c.set_trace_callback(sent.append)
    ) as db:
        await db.run_write_core(lambda c: c.execute(text("CREATE TABLE items (id, amount)")))
        sent.clear()
        await in_line(db, path, *(partial(db.run_write_core, add, key) for key in range(4)))
    assert sent.starting("COMMIT") == 4


@pytest.mark.parametrize("failing", [0, 1, 2])
async def test_one_fails_alone(db: SQLiteDatabase, path: Path, failing: int) -> None:
    """Whether it is the first, a middle or the last one, the others are committed."""
    functions: list[Callable[[Connection, int], int | None]] = [add, add, add]
    functions[failing] = add_and_fail
    calls = [partial(db.run_write_core, fn, 10 + place) for place, fn in enumerate(functions)]
    results = await in_line(db, path, *calls)
    assert isinstance(results.pop(failing), ZeroDivisionError)
    left = [key for key in (10, 11, 12) if key != 10 + failing]
    assert results == left
    assert await added(db) == left


async def test_all_fail(db: SQLiteDatabase, path: Path) -> None:
    """No call is left, so nothing is committed, and the turn is free."""
    calls = [partial(db.run_write_core, add_and_fail, key) for key in range(10, 13)]
    assert [type(error) for error in await in_line(db, path, *calls)] == 3 * [ZeroDivisionError]
    assert await added(db) == []


async def test_nobody_overtakes_a_session(db: SQLiteDatabase, path: Path) -> None:
    """Fair turns: functions, a session between them, and more functions run in this order.

    Line        | run_write()        | db.write()
    a, b        | 10, 11             |
    a, b; s     |                    | 12
    a, b; s; c  | 13                 |
    """
    order: list[int] = []

    def note(connection: Connection, key: int) -> None:
        order.append(add(connection, key))

    async def session() -> None:
        async with db.write() as session:
            session.add(Item(id=12))
            await session.flush()
            order.append(12)

    await in_line(
        *(db, path),
        partial(db.run_write_core, note, 10),
        partial(db.run_write_core, note, 11),
        session,
        partial(db.run_write_core, note, 13),
    )
    assert order == [10, 11, 12, 13]


async def test_order_within_one_lap_of_the_loop(db: SQLiteDatabase, path: Path) -> None:
    """The first request is served first, even if all come before the loop has examined any."""
    order: list[int] = []

    def note(connection: Connection, key: int) -> None:
        order.append(add(connection, key))

    async def session(key: int) -> None:
        async with db.write() as session:
            session.add(Item(id=key))
            await session.flush()
            order.append(key)

    await asyncio.gather(
        db.run_write_core(note, 10),
        session(11),
        db.run_write_core(note, 12),
        session(13),
    )
    assert order == [10, 11, 12, 13]


async def test_a_running_group_takes_those_who_come(
    db: SQLiteDatabase, path: Path, sent: Sent
) -> None:
    """A call made while a group runs shares its COMMIT, if no other request came before it."""

    def meanwhile(connection: Connection) -> int:
        asyncio.run_coroutine_threadsafe(begin_others(), loop).result(30)
        return add(connection, 10)

    async def begin_others() -> None:
        others.extend(asyncio.ensure_future(db.run_write_core(add, key)) for key in (11, 12))
        await asyncio.sleep(0)

    loop = asyncio.get_running_loop()
    others: list[asyncio.Future[int]] = []
    assert await db.run_write_core(meanwhile) == 10
    assert await asyncio.gather(*others) == [11, 12]
    assert await added(db) == [10, 11, 12]
    assert sent.starting("COMMIT") == 1


@pytest.mark.parametrize(("name", "value", "commits"), [("MOST_WORK", 2, 3), ("LONGEST", 0, 6)])
async def test_a_transaction_is_bounded(
    db: SQLiteDatabase,
    path: Path,
    sent: Sent,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: int,
    commits: int,
) -> None:
    """The number and the time are limited; remaining calls come next, before later ones."""
    name = "LONGEST_SECONDS" if name == "LONGEST" else name
    monkeypatch.setattr(shared_transaction, name, value)
    order: list[int] = []

    def note(connection: Connection, key: int) -> None:
        order.append(add(connection, key))

    async def session() -> None:
        async with db.write() as session:
            session.add(Item(id=16))
            await session.flush()
            order.append(16)

    calls = [partial(db.run_write_core, note, key) for key in range(10, 16)]
    await in_line(db, path, *calls, session)
    assert order == list(range(10, 17))
    assert sent.starting("COMMIT") == commits + 1


async def test_sqlite_rolls_all_back(db: SQLiteDatabase, path: Path) -> None:
    """If a conflict ends the transaction, all calls that shared it get an error, and none is
    acknowledged; a call that had not begun is committed."""

    def conflict(connection: Connection) -> None:
        connection.execute(text("INSERT OR ROLLBACK INTO items (id, amount) VALUES (1, 1)"))

    first, second, third, fourth = await in_line(
        *(db, path),
        partial(db.run_write_core, add, 10),
        partial(db.run_write_core, add, 11),
        partial(db.run_write_core, conflict),
        partial(db.run_write_core, add, 12),
    )
    for error in (first, second):
        assert isinstance(error, OperationalError)
        assert isinstance(error.orig, TransactionLostError)
    assert isinstance(third, IntegrityError)
    assert fourth == 12
    assert await added(db) == [12]


async def test_a_hidden_loss(db: SQLiteDatabase) -> None:
    """A function that hides the error which ended its transaction cannot continue alone."""

    def hide(connection: Connection) -> None:
        with pytest.raises(IntegrityError):
            connection.execute(text("INSERT OR ROLLBACK INTO items (id, amount) VALUES (1, 1)"))
        add(connection, 10)

    def hide_at_the_end(connection: Connection) -> None:
        with pytest.raises(IntegrityError):
            connection.execute(text("INSERT OR ROLLBACK INTO items (id, amount) VALUES (1, 1)"))

    for fn in (hide, hide_at_the_end):
        with pytest.raises((OperationalError, TransactionLostError), match="rolled back this"):
            await db.run_write_core(fn)
    assert await added(db) == []


async def test_no_room(db: SQLiteDatabase, path: Path) -> None:
    """A function that runs out of space fails alone if SQLite can undo its statement; when there is
    space again, it works."""

    def fill(connection: Connection) -> None:
        connection.execute(text("CREATE TABLE filling AS SELECT randomblob(200000) AS data"))

    def limit(connection: Connection, pages: int) -> None:
        connection.connection.driver_connection.execute(f"PRAGMA max_page_count = {pages}")  # type: ignore[union-attr]

    await db.run_write_core(limit, 10)
    results = await in_line(
        *(db, path),
        partial(db.run_write_core, add, 10),
        partial(db.run_write_core, fill),
        partial(db.run_write_core, add, 11),
    )
    assert isinstance(results[1], OperationalError)
    assert (results[0], results[2]) == (10, 11)
    assert await added(db) == [10, 11]
    await db.run_write_core(limit, 10_000)
    await db.run_write_core(fill)


DEFERRED = """CREATE TABLE children (
    id INTEGER PRIMARY KEY, item INTEGER REFERENCES items (id) DEFERRABLE INITIALLY DEFERRED
)"""


def adopt(connection: Connection, item: int) -> int:
    connection.execute(text("INSERT INTO children (item) VALUES (:item)"), {"item": item})
    return item


async def children(db: SQLiteDatabase) -> list[int]:
    query = text("SELECT item FROM children ORDER BY id")
    return await db.run_read_core(lambda c: list(c.execute(query).scalars()))


async def test_deferred_foreign_keys(db: SQLiteDatabase, path: Path) -> None:
    """They are checked at COMMIT: a call that violates one fails, and no other does."""
    await db.run_write_core(lambda c: c.execute(text(DEFERRED)))
    results = await in_line(
        *(db, path), *(partial(db.run_write_core, adopt, item) for item in (1, 77, 2, 88))
    )
    assert results[0] == 1
    assert results[2] == 2
    assert [type(results[i]) for i in (1, 3)] == [IntegrityError, IntegrityError]
    assert await children(db) == [1, 2]


async def test_deferred_by_the_function(db: SQLiteDatabase, path: Path) -> None:
    """The same applies if a function defers them, or creates such a table."""
    await db.run_write_core(
        lambda c: c.execute(
            text(
                "CREATE TABLE children (id INTEGER PRIMARY KEY, item INTEGER REFERENCES items (id))"
            )
        )
    )

    def defer(connection: Connection) -> None:
        connection.execute(text("PRAGMA defer_foreign_keys = ON"))
        adopt(connection, 77)

    def make_table(connection: Connection) -> None:
        connection.execute(text("DROP TABLE children"))
        connection.execute(text(DEFERRED))
        adopt(connection, 77)

    for fn in (defer, make_table):
        results = await in_line(
            *(db, path),
            partial(db.run_write_core, adopt, 1),
            partial(db.run_write_core, fn),
            partial(db.run_write_core, adopt, 2),
        )
        assert (results[0], results[2]) == (1, 2)
        assert isinstance(results[1], IntegrityError)
    assert await children(db) == [1, 2, 1, 2]


async def test_deferred_keys_of_a_table_made_by_others(db: SQLiteDatabase, path: Path) -> None:
    """They are looked up again when the schema has changed."""
    await db.run_write_core(adopt_nothing)
    async with db.write() as session:
        await session.execute(text(DEFERRED))
    results = await in_line(
        *(db, path), *(partial(db.run_write_core, adopt, item) for item in (1, 77, 2))
    )
    assert (results[0], results[2]) == (1, 2)
    assert isinstance(results[1], IntegrityError)


def adopt_nothing(connection: Connection) -> None:
    add(connection, 10)


async def test_nothing_to_commit(db: SQLiteDatabase, path: Path) -> None:
    """A function that never uses the database returns nevertheless."""
    assert await in_line(
        db, path, lambda: db.run_write(lambda _: 1), lambda: db.run_write(lambda _: 2)
    ) == [1, 2]


GROUP = 64 * 1024  # more than five of these rows take in the log


async def test_the_log_is_looked_at(path: Path) -> None:
    """Bounded WAL: even if only functions write, and many share each COMMIT. The pages of one
    transaction may be added to the limit, as always."""
    async with SQLiteDatabase(path, wal=SMALL) as db:
        await db.run_write_core(Connection.execute, text("CREATE TABLE t (data BLOB)"))
        for _ in range(30):
            await asyncio.gather(*(db.run_write_core(Connection.execute, INSERT) for _ in range(5)))
            assert log_size(path) <= 2 * HARD + GROUP
        await db.run_write_core(Connection.execute, INSERT)
        assert db.statistics().wal.last_checkpoint is not None  # type: ignore[union-attr]


@pytest.mark.parametrize(("owner", "method"), [(Line, "look_at"), (Group, "join")])
async def test_what_fails_as_it_comes_does_not_run(
    db: SQLiteDatabase, path: Path, monkeypatch: pytest.MonkeyPatch, owner: type, method: str
) -> None:
    """Its caller gets an error, for example at the end of its stack, or from a signal handler."""
    really = getattr(owner, method)

    def fail(*arguments: object) -> None:
        really(*arguments)
        raise RecursionError

    async def fails() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(owner, method, fail)
            await db.run_write_core(add, 20)

    others = [partial(db.run_write_core, add, 10)] if method == "join" else []
    *_, error = await in_line(db, path, *others, fails)
    assert isinstance(error, RecursionError)
    assert await added(db) == [10] * len(others)
    assert await db.run_write_core(add, 30) == 30
