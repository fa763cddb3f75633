"""What prepared reads lean on inside SQLAlchemy's Core: rows of ``docs/compat.md``.

``compat/sqlalchemy_core.py`` takes apart what a ``Connection`` does for each execution.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Connection,
    DateTime,
    Engine,
    Integer,
    Row,
    bindparam,
    create_engine,
    event,
    select,
    table,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import IteratorResult

from sa_sqlite_pool.compat import sqlalchemy_core

_T = table("t", Column("id", Integer), Column("at", DateTime))
_MOMENT = datetime.datetime(2024, 1, 2, 3, 4, 5)
_TEXT = "2024-01-02 03:04:05.000000"


@pytest.fixture
def engine() -> Iterator[Engine]:
    """Any engine: an application's, without a pool of this package."""
    engine = create_engine("sqlite://")
    yield engine
    engine.dispose()


def test_how_parameters_become_the_drivers() -> None:
    """Processors are found by a parameter's name, its place by ``positiontup``.

    What is written into the text for each execution anew is expanded into another text, names,
    values and processors.
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
    """From the metadata of a result, its processors and keys, and the driver's values."""
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
    """``_has_events`` of the engine, and what ``dispatch`` of its pool and its dialect has."""
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
    """Engine and pool ask their loggers, which are made with them."""
    assert not engine._should_log_info()
    assert not engine.pool._should_log_debug()
    with caplog.at_level(level, logger=f"sqlalchemy.{logger}"):
        assert engine._should_log_info() or engine.pool._should_log_debug()
        assert sqlalchemy_core.listens(engine)
