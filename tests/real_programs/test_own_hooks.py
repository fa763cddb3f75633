"""An authorizer, a progress handler and a trace callback of the application stay in force."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import await_only

from .doors import Application, Door, is_locked
from .listeners import in_the_driver


def authorizer(
    action: int, first: str | None, _second: str | None, _database: str | None, _source: str | None
) -> int:
    """Keep the rows of the audit trail."""
    if action == sqlite3.SQLITE_DELETE and first == "audit":
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK


def hide(
    action: int, _first: str | None, second: str | None, _database: str | None, _source: str | None
) -> int:
    """Make a column read as NULL."""
    hidden = action == sqlite3.SQLITE_READ and second == "what"
    return sqlite3.SQLITE_IGNORE if hidden else sqlite3.SQLITE_OK


def _by_run_async(function: Any) -> dict[str, Any]:
    return {"listen": in_the_driver(lambda driver: driver.set_authorizer(function))}


def _by_await(function: Any) -> dict[str, Any]:
    def listen(engine: AsyncEngine) -> None:
        @event.listens_for(engine.sync_engine, "connect")
        def connect(connection: Any, _record: Any) -> None:
            await_only(connection.driver_connection.set_authorizer(function))

    return {"listen": listen}


def _on_connect(function: Any) -> dict[str, Any]:
    return {"on_connect": lambda connection: connection.set_authorizer(function)}


def _at_checkout(function: Any) -> dict[str, Any]:
    set_it = in_the_driver(lambda driver: driver.set_authorizer(function), on="checkout")
    return {"listen": set_it}


Way = Callable[[Any], dict[str, Any]]
WAYS = {
    "run_async": _by_run_async,
    "await_only": _by_await,
    "on_connect": _on_connect,
    "checkout": _at_checkout,
}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


async def with_audit(app: Application) -> Application:
    await app.write(
        "CREATE TABLE audit (id INTEGER PRIMARY KEY, what)",
        "INSERT INTO audit (what) VALUES ('a'), ('b')",
    )
    return app


async def must_not_delete(app: Application) -> None:
    with pytest.raises(DBAPIError, match=r"not authorized|prohibited|denied"):
        async with app.transaction() as session:
            await session.execute(text("DELETE FROM audit"))
    assert await app.value("SELECT count(*) FROM audit") == 2


@ways
async def test_what_it_denies_is_denied(door: Door, way: Way) -> None:
    """It is denied as on stock, the first time and after other uses of the connection."""
    app = await with_audit(await door.open(**way(authorizer)))
    await must_not_delete(app)
    await app.write("INSERT INTO audit VALUES (3, 'c')", "UPDATE audit SET what = 'd' WHERE id = 3")
    await app.write("CREATE TABLE t (x)", "INSERT INTO t VALUES (1)", "DELETE FROM t")
    with pytest.raises(DBAPIError):
        await app.write("DELETE FROM audit WHERE id = 3")
    assert await app.value("SELECT count(*) FROM audit") == 3


@ways
async def test_what_it_ignores_is_null(door: Door, way: Way) -> None:
    """SQLITE_IGNORE reads as NULL, on readers, too."""
    app = await with_audit(await door.open(**way(hide)))
    assert await app.rows("SELECT what FROM audit") == [(None,), (None,)]
    async with app.session() as session:
        assert (await session.scalars(text("SELECT what FROM audit"))).all() == [None, None]


@ways
async def test_the_turn_is_taken_all_the_same(door: Door, way: Way) -> None:
    """Permitted writes happen in the turn and under the lock."""
    app = await with_audit(await door.open(**way(authorizer)))
    async with app.writer.connect() as connection:
        await connection.execute(text("INSERT INTO audit (what) VALUES ('c')"))
        assert is_locked(app.path)
        await connection.rollback()
    assert await app.value("SELECT count(*) FROM audit") == 2


@ways
async def test_a_statement_hidden_in_a_select(door: Door, way: Way) -> None:
    """A CTE that inserts is judged by both, and acquires the lock."""
    app = await with_audit(await door.open(**way(authorizer)))
    async with app.writer.connect() as connection:
        sql = "WITH a(b) AS (SELECT 'x') INSERT INTO audit (what) SELECT b FROM a"
        await connection.execute(text(sql))
        assert door.stock or is_locked(app.path)  # stock sends no BEGIN before WITH
        await connection.commit()
    assert await app.value("SELECT count(*) FROM audit") == 3


def _takes_none() -> bool:
    with closing(sqlite3.connect(":memory:")) as connection:
        try:
            connection.set_authorizer(None)
            connection.execute("SELECT 1")
        except (TypeError, sqlite3.Error):
            return False
    return True


needs_none = pytest.mark.skipif(not _takes_none(), reason="Python 3.11 can take it away")


@needs_none
async def test_set_later_and_taken_away(door: Door) -> None:
    """It is set on the raw connection in the middle, and None removes it."""
    app = await with_audit(await door.open())
    async with app.writer.connect() as connection:
        raw: Any = (await connection.get_raw_connection()).driver_connection
        await connection.execute(text("UPDATE audit SET what = 'c'"))
        await raw.set_authorizer(authorizer)
        with pytest.raises(DBAPIError):
            await connection.execute(text("DELETE FROM audit"))
        await connection.rollback()
        with pytest.raises(DBAPIError):
            await connection.execute(text("DELETE FROM audit WHERE id = 1"))
        await connection.rollback()
        await raw.set_authorizer(None)
        await connection.execute(text("DELETE FROM audit"))
        assert is_locked(app.path)
        await connection.commit()
    assert await app.value("SELECT count(*) FROM audit") == 0


@needs_none
async def test_taking_away_ones_own_leaves_the_rules(door: Door) -> None:
    """After set_authorizer(None), writes are still in the turn, and a reader still cannot write."""
    take_away = in_the_driver(lambda driver: driver.set_authorizer(None))
    app = await with_audit(await door.open(listen=take_away))
    async with app.writer.connect() as connection:
        await connection.execute(text("DELETE FROM audit"))
        assert is_locked(app.path)
        await connection.rollback()
    if app.reader is not app.writer:
        with pytest.raises(DBAPIError, match="reader"):
            async with app.reader.connect() as connection:
                await connection.execute(text("DELETE FROM audit"))
    assert await app.value("SELECT count(*) FROM audit") == 2


async def test_an_error_in_it_is_raised(door: Door) -> None:
    """An authorizer that raises denies the action, and the application can continue."""

    def fails(action: int, *_: Any) -> int:
        if action == sqlite3.SQLITE_DELETE:
            raise ValueError("mine")
        return sqlite3.SQLITE_OK

    app = await with_audit(await door.open(**_by_run_async(fails)))
    with pytest.raises(DBAPIError):
        await app.write("DELETE FROM audit")
    assert await app.value("SELECT count(*) FROM audit") == 2


async def test_a_progress_handler_is_called(door: Door) -> None:
    """It is called while statements run, before and after others have stopped them."""
    calls: list[int] = []

    def count() -> int:
        calls.append(1)
        return 0

    app = await door.open(
        listen=in_the_driver(lambda driver: driver.set_progress_handler(count, 100))
    )
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 5000) "
    for _ in range(3):
        before = len(calls)
        assert await app.value(endless + "SELECT count(*) FROM n") == 5000
        assert len(calls) > before
    if app.database is not None:
        before = len(calls)
        ask = text(endless + "SELECT max(i) FROM n")
        await app.db.run_read_core(lambda connection: connection.scalar(ask))
        assert len(calls) > before
        before = len(calls)
        await app.value(endless + "SELECT min(i) FROM n")
        assert len(calls) > before


async def test_a_progress_handler_stops_a_statement(door: Door) -> None:
    """The statement is interrupted, and the connection works afterwards."""
    stop = [False]
    app = await door.open(
        listen=in_the_driver(lambda driver: driver.set_progress_handler(lambda: stop[0], 100))
    )
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    stop[0] = True
    with pytest.raises(DBAPIError, match="interrupted"):
        await app.rows(endless)
    stop[0] = False
    assert await app.value("SELECT 1") == 1


async def test_a_trace_callback_is_called(door: Door) -> None:
    """It receives the application's statements."""
    seen: list[str] = []
    app = await door.open(
        listen=in_the_driver(lambda driver: driver.set_trace_callback(seen.append))
    )
    await app.write("CREATE TABLE t (x)", "INSERT INTO t VALUES (1)")
    async with app.session() as session:
        await session.execute(text("SELECT 'in a session'"))
    assert any("INSERT INTO t" in sql for sql in seen)
    assert any("in a session" in sql for sql in seen)
