"""Functions passed to ``run_read()`` and ``run_write()`` may not end their transactions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from sa_sqlite_pool import ClosureError, ServerDatabase
from sa_sqlite_pool.servers.rules.functions import ends_or_begins
from tests.postgresql import App
from tests.servers.models import Account, create_accounts

INSERT = text("INSERT INTO accounts (id, balance) VALUES (:id, 0)")
GIVEN_UP = text("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$")
ENDED = r"run_write\(\) and run_read\(\) begin the transaction, and end it"
ROLLED_BACK = "the transaction was rolled back inside"


def _commit(target: Any) -> None:
    target.commit()


def _commit_connection(target: Any) -> None:
    (target.connection() if isinstance(target, Session) else target).commit()


def _begin_block(target: Any) -> None:
    target.execute(text("SELECT 1"))
    with target.get_transaction():
        pass


def _commit_text(target: Any) -> None:
    target.execute(text("/* all */ COMMIT"))


def _rollback_text(target: Any) -> None:
    target.execute(text("rollback"))


def _begin_text(target: Any) -> None:
    target.execute(text("START TRANSACTION"))


def _rollback(target: Any) -> None:
    target.rollback()
    target.execute(text("SELECT 1"))


def _rollback_at_its_end(target: Any) -> None:
    target.rollback()


def _close(target: Any) -> None:
    target.close()


def _commit_unnoticed(target: Any) -> None:
    with contextlib.suppress(ClosureError):
        target.commit()


ENDS = [
    *((end, ENDED) for end in (_commit, _commit_connection, _begin_block, _commit_unnoticed)),
    *((end, ENDED) for end in (_commit_text, _rollback_text, _begin_text)),
    *((end, ROLLED_BACK) for end in (_rollback, _rollback_at_its_end, _close)),
]


@pytest.mark.parametrize(("end", "message"), ENDS)
async def test_its_own_transaction(app: App, end: Callable[[Any], None], message: str) -> None:
    """None of the four kinds of functions may end it; nothing is kept, and the next call works."""

    def write(target: Any) -> None:
        target.execute(INSERT, {"id": 9})
        end(target)

    def read(target: Any) -> None:
        target.execute(text("SELECT 1"))
        end(target)

    async with app.open(replicas=[], readers=1) as db:
        await create_accounts(db)
        for run, fn in (
            (db.run_write, write),
            (db.run_write_core, write),
            (db.run_read, read),
            (db.run_read_core, read),
        ):
            with pytest.raises(ClosureError, match=message):
                await run(fn)
        assert await _accounts(db) == 1


async def test_nothing_is_written_twice(app: App) -> None:
    """A function that tries to commit half of its work commits nothing, and is not retried."""
    runs = 0

    def fn(session: Session) -> None:
        nonlocal runs
        runs += 1
        session.execute(INSERT, {"id": 9})
        session.commit()
        session.execute(GIVEN_UP)

    async with app.open(replicas=[], attempts=3) as db:
        await create_accounts(db)
        with pytest.raises(ClosureError, match=r"commit\(\): "):
            await db.run_write(fn)
        assert runs == 1
        assert await _accounts(db) == 1


async def test_autocommit(app: App) -> None:
    """It is refused, because each statement would be committed separately."""

    def fn(session: Session) -> None:
        session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        session.execute(INSERT, {"id": 9})

    async with app.open(replicas=[]) as db:
        await create_accounts(db)
        with pytest.raises(ClosureError, match="AUTOCOMMIT"):
            await db.run_write(fn)
        assert await _accounts(db) == 1


@pytest.mark.parametrize("door", ["run_write", "run_write_core"])
@pytest.mark.parametrize("by_driver", [False, True], ids=["adapter", "driver"])
async def test_the_drivers_commit(app: App, door: str, by_driver: bool) -> None:
    """It is noticed by the next statement, at the end, and before the function is retried."""

    def commit(target: Any, then: str | None) -> None:
        target.execute(INSERT, {"id": 9})
        connection = target.connection() if isinstance(target, Session) else target
        if by_driver:
            adapted: Any = connection.connection.dbapi_connection
            adapted.run_async(lambda driver: driver.execute("COMMIT"))
        else:
            connection.connection.commit()
        if then is not None:
            target.execute(text(then))

    async with app.open(replicas=[], attempts=3) as db:
        await create_accounts(db)
        for then in ("SELECT 1", None):
            with pytest.raises(ClosureError, match="of the driver's connection"):
                await getattr(db, door)(commit, then)
            assert await _accounts(db) == 2
            app.sql("DELETE FROM accounts WHERE id = 9")


async def test_savepoints_are_its_own(app: App) -> None:
    """It may release and roll back savepoints, also by text, and survives a failed flush in one."""

    def fn(session: Session) -> int:
        with session.begin_nested():
            session.add(Account(id=2))
        with pytest.raises(IntegrityError), session.begin_nested():
            session.add(Account(id=1))
            session.flush()
        session.begin_nested().rollback()
        session.execute(text("SAVEPOINT mine"))
        session.execute(text("ROLLBACK TO SAVEPOINT mine"))
        session.execute(text("RELEASE SAVEPOINT mine"))
        return int(session.scalar(text("SELECT count(*) FROM accounts")))

    def core(connection: Connection) -> None:
        with connection.begin_nested():
            connection.execute(INSERT, {"id": 3})
        connection.begin_nested().rollback()

    async with app.open(replicas=[]) as db:
        await create_accounts(db)
        assert await db.run_write(fn) == 2
        await db.run_read(lambda session: session.begin_nested().rollback())
        await db.run_write_core(core)
        assert await _accounts(db) == 3


async def test_the_error_of_a_flush_is_not_hidden(app: App) -> None:
    """SQLAlchemy rolls back after it; a function that continues all the same gets an error."""

    def fail(session: Session) -> None:
        session.add(Account(id=1))
        session.flush()

    def swallow(session: Session) -> None:
        with pytest.raises(IntegrityError):
            fail(session)

    async with app.open(replicas=[]) as db:
        await create_accounts(db)
        with pytest.raises(IntegrityError):
            await db.run_write(fail)
        with pytest.raises(ClosureError, match=ROLLED_BACK):
            await db.run_write(swallow)


@pytest.mark.parametrize("door", ["run_write", "run_write_core", "run_read", "run_read_core"])
async def test_a_function_runs_again(app: App, door: str) -> None:
    """It is retried if the server has rolled its transaction back, ``attempts`` times at most."""
    left = 2

    def fn(target: Any) -> str:
        nonlocal left
        target.execute(text("SELECT 1"))
        if left:
            left -= 1
            target.execute(GIVEN_UP)
        return "done"

    async with app.open(replicas=[], attempts=3) as db:
        assert await getattr(db, door)(fn) == "done"
        assert db.statistics().retried == 2
        left = 3
        with pytest.raises(DBAPIError):
            await getattr(db, door)(fn)


CASES = "SELECT CASE WHEN true THEN 1 END; SELECT 2;"


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("SELECT 1", False),
        ("SELECT 'COMMIT'; SELECT 2", False),
        ("UPDATE a SET b = 1; COMMIT; SELECT 1", True),
        ("END", True),
        ("ABORT", True),
        ("PREPARE TRANSACTION 'one'", True),
        ("PREPARE one AS SELECT 1", False),
        ("rollback to savepoint one", False),
        ("ROLLBACK TO one", False),
        ("CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END", False),
        (f"CREATE PROCEDURE p() BEGIN ATOMIC {CASES} END; SELECT 'COMMIT'", False),
        (f"CREATE PROCEDURE p() BEGIN ATOMIC {CASES} END; COMMIT", True),
        ("CREATE TABLE t (begin int, atomic int); INSERT INTO t VALUES (1, 2); COMMIT", True),
        (f"{'SELECT 1; ' * 1000}COMMIT", True),
        (f"/*{'*' * 5000}*/ COMMIT", True),
        (f"{'-' * 5000}\n{'/* */ -- ' * 500}\nCOMMIT", True),
        (f"{'-' * 5000}\n{'/* */ -- ' * 500}\nSELECT 1", False),
        (f"CREATE PROCEDURE p() BEGIN ATOMIC SELECT t.end FROM t; {CASES} END; SELECT 1", False),
        (f"CREATE PROCEDURE p() BEGIN ATOMIC SELECT 1 AS end; {CASES} END; SELECT 1", False),
        ("CREATE PROCEDURE p() BEGIN ATOMIC SELECT CASE WHEN b THEN 1. END; END; COMMIT", True),
        (f"SELECT '{'COMMIT; ' * 1000}'", False),
        ("SELECT CASE WHEN true THEN 1 END; SELECT 2", False),
        ("ROLLBACK TRANSACTION TO SAVEPOINT one", False),
        ("DO $$ BEGIN COMMIT; END $$", False),
        ("-- COMMIT\nSELECT 1", False),
    ],
)
def test_texts(sql: str, found: bool) -> None:
    """Texts that end or begin a transaction are told from those that only look similar."""
    assert ends_or_begins(sql) is found


async def _accounts(db: ServerDatabase) -> int:
    count = text("SELECT count(*) FROM accounts")
    return int(await db.run_read_core(lambda connection: connection.scalar(count)) or 0)
