"""What prepared reads and routed sessions rely on inside SQLAlchemy's Core: ``docs/compat.md``.

``compat/sqlalchemy_core.py`` performs the parts of a ``Connection``'s execution separately.
"""

from __future__ import annotations

import datetime
import gc
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Connection,
    DateTime,
    Engine,
    Integer,
    MetaData,
    Row,
    Table,
    TextClause,
    bindparam,
    column,
    create_engine,
    event,
    exc,
    func,
    inspect,
    select,
    table,
    text,
    values,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import IteratorResult
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.sql import visitors
from sqlalchemy.sql.ddl import SchemaGenerator
from sqlalchemy.sql.functions import FunctionElement

from sa_sqlite_pool.compat import sqlalchemy_core
from tests.helpers import Item, create_items

_T = table("t", Column("id", Integer), Column("at", DateTime))
_MOMENT = datetime.datetime(2024, 1, 2, 3, 4, 5)
_TEXT = "2024-01-02 03:04:05.000000"


@pytest.fixture
def engine() -> Iterator[Engine]:
    """Provide an application's engine, without a pool of this package."""
    engine = create_engine("sqlite://")
    yield engine
    engine.dispose()


def test_how_parameters_become_the_drivers() -> None:
    """Processors are found by a parameter's name, and its position by ``positiontup``.

    Parameters that are written into the text at each execution are expanded into another text,
    names, values and processors.
    """
    statement = select(_T.c.id).where(_T.c.at == bindparam("at"), _T.c.id == bindparam("id"))
    compiled: Any = sqlalchemy_core.compile_statement(statement, sqlite.dialect())
    assert compiled.positiontup == ["at", "id"]
    assert list(compiled._bind_processors) == ["at"]
    assert sqlalchemy_core.bind_processors(compiled)["at"](_MOMENT) == _TEXT
    assert set(compiled.bind_names.values()) == {"at", "id"}
    expanding = select(_T.c.id).where(_T.c.at.in_(bindparam("at")))
    compiled = sqlalchemy_core.compile_statement(expanding, sqlite.dialect())
    assert compiled.post_compile_params
    parameters = compiled.construct_params({"at": [_MOMENT, _MOMENT]}, escape_names=False)
    state = compiled._process_parameters_for_postcompile(parameters)
    assert state.statement.endswith("IN (?, ?)")
    assert state.positiontup == ["at_1", "at_2"]
    assert state.parameters["at_2"] == _MOMENT
    assert state.processors["at_2"](_MOMENT) == _TEXT


def test_how_rows_are_made(engine: Engine) -> None:
    """They are built from a result's metadata, processors and keys, and the driver's values."""
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE t (id, at)")
        connection.exec_driver_sql("INSERT INTO t VALUES (1, ?)", (_TEXT,))
        result: Any = connection.execute(select(_T))
        assert [one[0] for one in result.context.cursor.description] == ["id", "at"]
        expected, metadata = result.one(), result._metadata
    assert [one is None for one in metadata._effective_processors] == [True, False]
    made: Row[Any] = Row(
        metadata, metadata._effective_processors, metadata._key_to_index, (1, _TEXT)
    )
    assert made == expected == (1, _MOMENT)
    assert (made.at, made._mapping[_T.c.at]) == (_MOMENT, _MOMENT)
    assert made._mapping == {"id": 1, "at": _MOMENT}
    assert IteratorResult(metadata, iter([(1, _TEXT)])).one() == expected
    assert IteratorResult(metadata, iter([(1, _TEXT)])).scalars().all() == [1]


def test_how_listeners_are_known(engine: Engine) -> None:
    """``_has_events`` of the engine, and the ``dispatch`` of its pool and its dialect, tell."""
    pool, dialect = engine.pool, engine.dialect
    assert not engine._has_events
    for name in ("checkout", "checkin", "reset"):
        assert not getattr(pool.dispatch, name)
    assert len(dialect.dispatch.do_execute) == 0
    assert not sqlalchemy_core.listens(engine)

    def listener(*_: Any) -> None: ...

    for name in ("checkout", "checkin", "reset"):
        event.listen(pool, name, listener)
        assert getattr(pool.dispatch, name)
        assert sqlalchemy_core.listens(engine)
        event.remove(pool, name, listener)
    event.listen(engine, "do_execute", listener)
    assert len(dialect.dispatch.do_execute) == 1
    event.listen(Connection, "before_execute", listener)
    try:
        assert Connection._has_events
        assert sqlalchemy_core.listens(create_engine("sqlite://"))
    finally:
        event.remove(Connection, "before_execute", listener)
        Connection._has_events = False
    assert not sqlalchemy_core.hears_errors(engine)
    for _ in range(2):  # one is the package's own
        event.listen(engine, "handle_error", lambda context: None)
    assert sqlalchemy_core.hears_errors(engine)
    assert not engine._has_events
    event.listen(engine, "before_execute", listener)
    assert engine._has_events
    assert sqlalchemy_core.listens(engine)


@pytest.mark.parametrize(
    ("logger", "level"),
    [("engine.Engine", logging.INFO), ("pool.impl.SingletonThreadPool", logging.DEBUG)],
)
def test_how_logs_are_known(
    engine: Engine, caplog: pytest.LogCaptureFixture, logger: str, level: int
) -> None:
    """Engine and pool ask their loggers, which are created with them."""
    assert not engine.logger.isEnabledFor(logging.INFO)
    assert not engine.pool.logger.isEnabledFor(logging.DEBUG)
    with caplog.at_level(level, logger=f"sqlalchemy.{logger}"):
        of_engine = engine.logger.isEnabledFor(logging.INFO)
        assert of_engine or engine.pool.logger.isEnabledFor(logging.DEBUG)
        assert sqlalchemy_core.listens(engine)


@pytest.fixture
async def streaming(path: Path) -> AsyncIterator[AsyncEngine]:
    """Provide an engine with server-side cursors, and 5 items."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
    await create_items(engine, 5)
    yield engine
    await engine.dispose()


def _is_open(result: Any) -> bool | None:
    found = sqlalchemy_core.stream_of(result)
    return None if found is None else found[1].is_open


async def test_which_results_are_streams(streaming: AsyncEngine) -> None:
    """``_is_server_side`` of the context is true of streams, ``_soft_closed`` once they have ended.

    The latter is in the result's dictionary, which does not refer to the result. A result of the
    ORM has the cursor's result in ``raw``. A result does not support weak references, but its
    context does, and nothing else refers to that.
    """

    def streams(session: Session) -> None:
        for statement in (select(Item.id), select(Item)):
            result = session.execute(statement.execution_options(yield_per=2))
            connection, stream = sqlalchemy_core.stream_of(result) or (None, None)
            assert stream is not None
            assert connection is session.connection()
            result.fetchmany(2)
            assert stream.is_open
            assert len(result.all()) == 3
            assert not stream.is_open
            result = session.execute(statement.execution_options(yield_per=2))
            assert _is_open(result)
            result.close()
            assert _is_open(result) is False
            result = session.execute(statement.execution_options(yield_per=2))
            scalars = result.scalars()
            _, stream = sqlalchemy_core.stream_of(result) or (None, None)
            assert stream is not None
            del result
            assert next(scalars)
            assert stream.is_open
            del scalars
            gc.collect()
            assert not stream.is_open
        assert _is_open(session.execute(select(Item))) is None
        assert _is_open(session.scalar(select(Item))) is None

    async with AsyncSession(streaming) as session:
        await session.run_sync(streams)


def test_what_a_walk_through_a_statement_passes_by() -> None:
    """``visitors.iterate()`` skips these; ``sessions/reads.py`` examines them itself.

    ``_prefixes``, ``_suffixes`` and ``_statement_hints`` are pairs with a text, and ``_data`` of
    ``values()`` contains lists of rows.
    """
    chosen: Any = select(_T).prefix_with("a").suffix_with("b").with_statement_hint("c")
    assert [one.text for one, _ in chosen._prefixes] == ["a"]
    assert [one.text for one, _ in chosen._suffixes] == ["b"]
    assert [one for _, one in chosen._statement_hints] == ["c"]
    cte: Any = chosen.cte().prefix_with("d").suffix_with("e")
    assert [one.text for one, _ in (*cte._prefixes, *cte._suffixes)] == ["d", "e"]
    rows: Any = values(column("n", Integer), name="v").data([(func.now(),)])
    assert [value.name for part in rows._data for row in part for value in row] == ["now"]
    for statement in (chosen, select(cte), select(rows)):
        found = list(visitors.iterate(statement))
        assert not [one for one in found if isinstance(one, (TextClause, FunctionElement))]


def test_the_name_of_a_savepoint(engine: Engine) -> None:
    """A rollback to it by its name works after SQLAlchemy itself sends nothing for it any more."""
    with engine.connect() as connection:
        savepoint = connection.begin_nested()
        connection.execute(text("CREATE TABLE inner_one (id INTEGER)"))
        savepoint.rollback()
        savepoint = connection.begin_nested()
        connection.execute(text("CREATE TABLE inner_one (id INTEGER)"))
        engine.dialect.do_rollback_to_savepoint(connection, savepoint._savepoint)
        connection.execute(text("CREATE TABLE inner_one (id INTEGER)"))


def test_the_error_of_an_opening(tmp_path: Path) -> None:
    """It is the error of ``Engine.connect()``, and ``handle_error`` listeners see it."""
    engine = create_engine(f"sqlite:///{tmp_path / 'none' / 'app.db'}")
    seen: list[object] = []
    event.listen(engine, "handle_error", lambda context: seen.append(context.engine))
    with pytest.raises(exc.OperationalError) as raised:
        engine.connect()
    with pytest.raises(exc.OperationalError) as raised_here:
        sqlalchemy_core.raw_connection(engine)
    assert str(raised_here.value) == str(raised.value)
    assert seen == [engine, engine]


def test_what_is_asked_before_a_table_is_created(engine: Engine) -> None:
    """``create_all()`` asks for each table."""
    asked: list[str] = []

    class Asking(SchemaGenerator):
        def _can_create_table(self, table: Table) -> bool:
            asked.append(table.name)
            return False

    models = MetaData()
    Table("one", models, Column("id", Integer))
    Table("two", models, Column("id", Integer))
    with engine.connect() as connection:
        asking: Any = Asking(connection.dialect, connection)  # type: ignore[no-untyped-call]
        asking.traverse_single(models)
        assert not inspect(connection).has_table("one")
    assert asked == ["one", "two"]
