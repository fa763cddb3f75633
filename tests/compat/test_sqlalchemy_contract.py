"""What the package relies on inside SQLAlchemy's engine and asyncio layers.

One test for each row of ``docs/compat.md``; those of the pool and the ORM are in other files.
They run on the oldest and the newest SQLAlchemy of both lines.
"""

from __future__ import annotations

import asyncio
import inspect
import types
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from greenlet import getcurrent, greenlet
from sqlalchemy import Connection, select, text, util
from sqlalchemy.exc import MissingGreenlet, StatementError
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    AsyncSessionTransaction,
    AsyncTransaction,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import SelectBase
from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import greenlet_spawn, in_greenlet

from sa_sqlite_pool.closures.thread_connection import ThreadConnection
from sa_sqlite_pool.sessions import lean
from sa_sqlite_pool.turn.whereabouts import _GENERATED, _NAMELESS
from tests.conftest import MakeEngine

BEFORE_21 = tuple(map(int, sqlalchemy.__version__.split(".")[:2])) < (2, 1)

# -- greenlets -------------------------------------------------------------------------------------


def test_any_greenlet_with_the_mark_may_await() -> None:
    """``await_only()`` passes the awaited object to the parent of a greenlet with the mark.

    ``compat/greenlets.py``: ``__sqlalchemy_greenlet_provider__``. Without it, each call would raise
    MissingGreenlet, and the package would fall back to SQLAlchemy's own greenlets.
    """

    class Marked(greenlet):  # type: ignore[misc]
        __sqlalchemy_greenlet_provider__ = True

    awaited = object()
    marked = Marked(lambda: (in_greenlet(), await_only(awaited)))  # type: ignore[arg-type]
    assert marked.switch() is awaited
    assert marked.switch("value") == (True, "value")


def test_an_error_is_thrown_into_it() -> None:
    """An error that is thrown in is raised where ``await_only()`` was called.

    ``compat/greenlets.py``: ``greenlet_spawn()``.
    """

    class Marked(greenlet):  # type: ignore[misc]
        __sqlalchemy_greenlet_provider__ = True

    def wait() -> str:
        with pytest.raises(LookupError, match="awaited"):
            await_only(object())  # type: ignore[call-overload,arg-type,unused-ignore]
        return "caught"

    marked = Marked(wait)
    marked.switch()
    assert marked.throw(LookupError("awaited")) == "caught"


async def test_a_greenlet_without_the_mark_may_not() -> None:
    """``in_greenlet()`` is false outside, where ``await_only()`` raises MissingGreenlet.

    ``driver/adapter.py`` and ``pools/``: ``close()`` waits only where waiting is possible.
    """
    assert not in_greenlet()
    assert greenlet(in_greenlet).switch() is False
    with pytest.raises(MissingGreenlet):
        await_only(asyncio.sleep(0))


async def test_greenlet_spawn() -> None:
    """``greenlet_spawn(fn, *args, _require_await=False, **kw)`` calls it in a new greenlet.

    ``compat/greenlets.py`` replaces it, with the same arguments.
    """
    own = getcurrent()

    def function(*args: object, **kw: object) -> object:
        assert getcurrent() is not own
        assert in_greenlet()
        return args, kw, await_only(asyncio.sleep(0, "slept"))

    found = await greenlet_spawn(function, 1, _require_await=True, a=2)
    assert found == ((1,), {"a": 2}, "slept")
    parameters = inspect.signature(greenlet_spawn).parameters
    assert parameters["_require_await"].kind is inspect.Parameter.KEYWORD_ONLY


# -- asyncio classes -------------------------------------------------------------------------------

REPLACED = [
    (AsyncTransaction, lean.LeanTransaction, {"start", "commit", "rollback"}),
    (AsyncConnection, lean.LeanConnection, {"start", "close", "execute", "commit", "run_sync"}),
    (AsyncEngine, lean.LeanEngine, {"dispose"}),
    (AsyncSessionTransaction, lean.LeanSessionTransaction, {"start", "commit", "rollback"}),
    (AsyncSession, lean.LeanSession, {"execute", "flush", "commit", "rollback", "close", "get"}),
]


@pytest.mark.parametrize(("theirs", "ours", "names"), REPLACED)
def test_methods_look_up_greenlet_spawn(theirs: Any, ours: Any, names: set[str]) -> None:
    """Coroutine methods call ``greenlet_spawn`` by its name in their module.

    ``compat/sqlalchemy_asyncio.py`` copies those that do, and leaves the others alone: a SQLAlchemy
    that calls it differently is slower, but correct. ``compat/installation.py`` replaces it there,
    unless it is another function, which is refused.
    """
    assert util.greenlet_spawn is greenlet_spawn
    assert greenlet_spawn.__module__.startswith("sqlalchemy.util.")
    for name in names:
        method = vars(theirs)[name]
        assert isinstance(method, types.FunctionType), name
        assert "greenlet_spawn" in method.__code__.co_names, name
        assert "greenlet_spawn" not in vars(ours)[name].__code__.co_names, name


async def test_the_class_of_an_engines_connections(path: Path) -> None:
    """``engine.connect()`` creates an ``engine._connection_cls``.

    ``sessions/lean.py``: connections of the facade. SQLAlchemy's own are slower, but correct.
    """

    class Own(AsyncConnection):
        """A different class."""

    class Engine(AsyncEngine):
        _connection_cls = Own

    engine = Engine(create_async_engine(f"sqlite+aiosqlite:///{path}").sync_engine)
    assert type(engine.connect()) is Own
    await engine.dispose()


async def test_a_connection_can_be_given_its_other_half(make_engine: MakeEngine) -> None:
    """``start()`` executes ``sync_connection = _assign_proxied(connection)``.

    ``sessions/lean.py``: ``engine.begin()`` connects and begins in one greenlet. ``_proxied`` is
    the synchronous connection, and raises an error before that.
    """
    engine = make_engine()
    connection = AsyncConnection(engine)
    assert connection.sync_connection is None
    synchronous = await greenlet_spawn(connection.sync_engine.connect)
    assert connection._assign_proxied(synchronous) is synchronous
    connection.sync_connection = synchronous
    assert connection._proxied is synchronous
    assert (await connection.execute(text("SELECT 1"))).scalar_one() == 1
    await connection.close()


async def test_begin_is_a_decorator_too(make_engine: MakeEngine) -> None:
    """``engine.begin()`` can decorate a coroutine function: each call gets a block of its own.

    ``sessions/lean.py``: ``_Begun`` is such a decorator, too, by SQLAlchemy's own code.
    """
    engine = make_engine()

    @engine.begin()
    async def work() -> str:
        return "done"

    assert await work() == "done"


async def test_the_proxy_of_a_connection(make_engine: MakeEngine) -> None:
    """``_retrieve_proxy_for_target()`` finds an asynchronous connection, or creates one.

    ``sessions/lean.py``: ``session.connection()``. SQLAlchemy's own is slower, but correct.
    """
    engine = make_engine()
    async with engine.connect() as connection:
        assert connection.sync_connection is not None
        found = AsyncConnection._retrieve_proxy_for_target(connection.sync_connection)
        assert found is connection
    async with AsyncSession(engine) as session:
        synchronous = await session.run_sync(lambda sync: sync.connection())
        made = lean.LeanConnection._retrieve_proxy_for_target(synchronous)
        assert type(made) is lean.LeanConnection
        assert made.sync_connection is synchronous
        assert await session.connection() is made


async def test_what_begins_a_session_with_its_transaction(make_engine: MakeEngine) -> None:
    """``async_sessionmaker.begin()`` calls ``session._maker_context_manager()``.

    ``sessions/lean.py``: the block ends without a task. SQLAlchemy's needs one.
    """

    class Own(AsyncSession):
        def _maker_context_manager(self) -> Any:
            return self

    maker = async_sessionmaker(make_engine(), class_=Own)
    async with maker.begin() as session:
        assert type(session) is Own


@pytest.mark.skipif(BEFORE_21, reason="there is no get_async_bind()")
async def test_binds_are_translated(make_engine: MakeEngine) -> None:
    """``AsyncSession._translate_for_bind()`` turns an ``Engine`` into its ``AsyncEngine``.

    ``sessions/routing.py``, for ``get_async_bind()``. SQLAlchemy 2.0 has neither.
    """
    engine = make_engine()
    session: Any = AsyncSession(engine)
    assert session._translate_for_bind(engine.sync_engine) is engine
    await session.close()


def test_names_of_generated_functions() -> None:
    """Functions that SQLAlchemy generates have a file name with this beginning, or the module's.

    ``turn/whereabouts.py`` skips their frames. Otherwise, messages would name no line of the
    application.
    """
    found = set()
    for kind in (SelectBase, AsyncEngine, Connection, select(1).__class__):
        for member in vars(kind).values():
            if isinstance(member, types.FunctionType):
                found.add(member.__code__.co_filename)
    generated = {name for name in found if name.startswith("<")}
    assert generated
    assert all(name.startswith(_GENERATED) or name == _NAMELESS for name in generated)
    nameless = types.FunctionType(compile("1", _NAMELESS, "eval"), {})
    assert nameless.__code__.co_filename == _NAMELESS


# -- connections -----------------------------------------------------------------------------------


async def test_a_connection_over_a_pool_proxy_of_our_own(make_engine: MakeEngine) -> None:
    """``Connection(engine, proxy)`` uses no name of the proxy that the package's does not have.

    ``closures/borrowed.py``, ``closures/thread_connection.py``: another name would raise an
    AttributeError in the middle of ``run_write()``.
    """
    asked: set[str] = set()

    class Proxy:
        def __init__(self, real: Any) -> None:
            self.real = real

        def __getattr__(self, name: str) -> Any:
            asked.add(name)
            return getattr(self.real, name)

    def work(connection: Connection) -> None:
        proxy: Any = Proxy(connection.connection)
        inner = Connection(connection.engine, proxy)
        with inner.begin(), inner.begin_nested():
            inner.execute(text("SELECT 1")).all()
        with pytest.raises(StatementError):
            inner.execute(text("SELEC 1"))
        inner.rollback()
        inner.execution_options(isolation_level="AUTOCOMMIT")
        inner.begin()
        inner.close()

    async with make_engine().connect() as connection:
        await connection.run_sync(work)
    assert {name for name in asked if not hasattr(ThreadConnection, name)} == set()
    assert {"_close_special", "_connection_record", "dbapi_connection", "cursor"} <= asked


# -- statements ------------------------------------------------------------------------------------


def test_how_statements_tell_what_they_are() -> None:
    """``_for_update_arg`` is set if rows are locked, and ``is_dml`` is true of writes.

    ``sessions/reads.py``: statements that are not reads go to the writer. Without these attributes,
    the reader would refuse a statement that locks, or that writes in a WITH.
    """
    table = sqlalchemy.table("t", sqlalchemy.column("i"))
    assert getattr(select(table), "_for_update_arg", "none") is None
    assert getattr(select(table).with_for_update(), "_for_update_arg", None) is not None
    assert getattr(table.insert(), "is_dml", False)
    assert not getattr(select(table), "is_dml", False)
    assert isinstance(sqlalchemy.func.changes(), FunctionElement)
    assert [one.__visit_name__ for one in (table.insert(), table.update(), table.delete())] == [
        *("insert", "update", "delete"),
    ]


def test_the_message_of_an_error() -> None:
    """``str(error)`` is built from ``_message()``, without "(Background on this error …)".

    ``errors.py`` adds SQLite's own message. Without it, that half is missing.
    """

    class OwnError(StatementError):
        def _message(self) -> str:
            return f"{super()._message()} and more"

    assert str(OwnError("what", None, None, ValueError("cause"))) == "what and more"
