"""A tracer wraps sqlite3.connect(), so a connection may be anything that acts like one."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import event, text

from .doors import FACADE, Application, Door, outside


class Counting(sqlite3.Connection):
    """A connection of the application's own class."""

    count = 0

    def execute(self, *args: Any) -> sqlite3.Cursor:
        Counting.count += 1
        return super().execute(*args)


class Proxy:
    """A proxy in Python, which is no ``sqlite3.Connection``."""

    def __init__(self, wrapped: sqlite3.Connection) -> None:
        object.__setattr__(self, "_wrapped", wrapped)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._wrapped, name, value)


def _bare(connection: sqlite3.Connection) -> Any:
    return Proxy(connection)


def _wrapt(connection: sqlite3.Connection) -> Any:
    return pytest.importorskip("wrapt").ObjectProxy(connection)


@pytest.fixture(params=["bare", "wrapt", "opentelemetry"])
def traced(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Wrap ``sqlite3.connect`` while the test runs."""
    if request.param == "opentelemetry":
        module = pytest.importorskip("opentelemetry.instrumentation.sqlite3")
        instrumentor = module.SQLite3Instrumentor()
        instrumentor.instrument()
        yield
        instrumentor.uninstrument()
        return
    wrap: Callable[[sqlite3.Connection], Any] = _bare if request.param == "bare" else _wrapt
    real = sqlite3.connect

    def connect(*args: Any, **kw: Any) -> Any:
        return wrap(real(*args, **kw))

    monkeypatch.setattr(sqlite3, "connect", connect)
    monkeypatch.setattr("sqlite3.dbapi2.connect", connect)
    yield


async def use(app: Application) -> None:
    """Perform an application's usual operations on a database."""
    await app.write("CREATE TABLE t (id INTEGER PRIMARY KEY, x)")
    for number in range(5):
        async with app.transaction() as session:
            await session.execute(text("INSERT INTO t (x) VALUES (:x)"), {"x": number})
        async with app.session() as session:
            assert await session.scalar(text("SELECT count(*) FROM t")) == number + 1
    async with app.transaction() as session:
        many = [{"x": number} for number in range(5)]
        await session.execute(text("INSERT INTO t (x) VALUES (:x)"), many)
        await session.rollback()
    async with app.reader.connect() as connection:
        result = await connection.stream(text("SELECT x FROM t"))
        assert [row.x async for row in result] == [0, 1, 2, 3, 4]


async def test_an_application_is_traced(door: Door, traced: None) -> None:
    """It opens, writes, reads, streams and closes as without a tracer."""
    app = await door.open()
    await use(app)
    await app.close()


async def test_functions_and_listeners_are_traced(door: Door, traced: None) -> None:
    """A listener that creates a function and sets a PRAGMA works on a wrapped connection."""

    def listen(engine: Any) -> None:
        @event.listens_for(engine.sync_engine, "connect")
        def connect(connection: Any, _: Any) -> None:
            connection.create_function("twice", 1, lambda x: 2 * x)
            connection.execute("PRAGMA foreign_keys = ON")

    app = await door.open(listen=listen)
    await use(app)
    assert await app.value("SELECT twice(21)") == 42


@pytest.mark.parametrize("door", [FACADE], indirect=True)
async def test_functions_backups_and_checkpoints_are_traced(door: Door, traced: None) -> None:
    """Operations of the facade besides sessions are included."""
    app = await door.open()
    await use(app)
    insert = "INSERT INTO t (x) VALUES (9)"
    await app.db.run_write_core(lambda connection: connection.execute(text(insert)))
    await app.db.run_write(lambda session: session.execute(text(insert)))
    ask = text("SELECT count(*) FROM t")
    assert await app.db.run_read_core(lambda connection: connection.scalar(ask)) == 7
    copy = app.path.with_name("copy.db")
    await app.db.backup(copy)
    await app.db.checkpoint("truncate")
    await app.close()
    with outside(copy) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone()[0] == 7


async def test_a_class_of_the_applications_own(door: Door) -> None:
    """connect_args={"factory": …} is sqlite3's own option for a custom class."""
    Counting.count = 0
    app = await door.open(connect_args={"factory": Counting})
    await use(app)
    async with app.writer.connect() as connection:
        raw: Any = (await connection.get_raw_connection()).driver_connection
        assert isinstance(raw._conn, Counting)
