"""Which foreign keys COMMIT finds violated when functions or a schema defer them unusually."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from sa_sqlite_pool import SQLiteDatabase
from tests.closures.test_group_commit import adopt, children
from tests.closures.work import Sent, add, added, in_line
from tests.helpers import create_items

PLAIN = "create table children (id integer primary key, item integer references items (id)%s)"
DEFER = "PRAGMA defer_foreign_keys = ON"


def defers_and_fails(connection: Connection) -> None:
    connection.execute(text(DEFER))
    raise ZeroDivisionError


def defers_beneath(connection: Connection) -> None:
    driver: Any = connection.connection.driver_connection
    driver.execute(DEFER)


def defers_beneath_and_fails(connection: Connection) -> None:
    defers_beneath(connection)
    raise ZeroDivisionError


def makes_them_deferred(connection: Connection) -> None:
    driver: Any = connection.connection.driver_connection
    driver.execute("DROP TABLE children")
    driver.execute(PLAIN % " deferrable initially deferred")
    adopt(connection, 1)


@pytest.mark.parametrize(
    "defer",
    [defers_and_fails, defers_beneath, defers_beneath_and_fails, makes_them_deferred],
)
async def test_what_a_function_leaves_deferred(
    db: SQLiteDatabase, path: Path, defer: Callable[[Connection], None]
) -> None:
    """SQLite keeps them deferred after ROLLBACK TO; the next function to violate one fails."""
    await db.run_write_core(lambda c: c.execute(text(PLAIN % "")))
    results = await in_line(
        *(db, path),
        partial(db.run_write_core, adopt, 1),
        partial(db.run_write_core, defer),
        *(partial(db.run_write_core, adopt, item) for item in (77, 2)),
    )
    assert (results[0], results[3]) == (1, 2)
    assert isinstance(results[2], IntegrityError)
    assert await children(db) == [1, 2]


@pytest.mark.parametrize("sensitive", [False, True])
async def test_deferred_in_lower_case(path: Path, sensitive: bool) -> None:
    """The schema is kept as the application has written it, however LIKE compares."""
    async with SQLiteDatabase(path, pragmas={"case_sensitive_like": sensitive}) as db:
        await create_items(db.writer_engine)
        await db.run_write_core(lambda c: c.execute(text(PLAIN % " deferrable initially deferred")))
        results = await in_line(
            *(db, path), *(partial(db.run_write_core, adopt, item) for item in (1, 77, 2))
        )
        assert (results[0], results[2]) == (1, 2)
        assert isinstance(results[1], IntegrityError)
        assert await children(db) == [1, 2]


async def test_a_failure_alone_ends_no_group(db: SQLiteDatabase, path: Path, sent: Sent) -> None:
    """Functions that defer nothing share one COMMIT, even after one of them has failed."""

    def fails(_: Connection) -> None:
        raise ZeroDivisionError

    await in_line(
        *(db, path),
        partial(db.run_write_core, add, 10),
        partial(db.run_write_core, fails),
        partial(db.run_write_core, add, 11),
    )
    assert await added(db) == [10, 11]
    assert sent.starting("COMMIT") == 1
