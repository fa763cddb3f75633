"""``install()``: greenlets that are reused under SQLAlchemy's own classes."""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy.util
from greenlet import getcurrent
from sqlalchemy import event, text
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.util import concurrency

from sa_sqlite_pool import ConfigurationError, SQLitePool, install, uninstall
from sa_sqlite_pool.compat import greenlets
from sa_sqlite_pool.compat.greenlets import Spawned
from tests.conftest import MakeEngine
from tests.helpers import Item, amounts, create_items
from tests.sessions import other_database

PLACES = ["util", "util.concurrency", "ext.asyncio.engine", "ext.asyncio.session"]
PLACES.append("ext.asyncio.result")
THEIRS = concurrency.greenlet_spawn


def places() -> dict[str, Any]:
    return {name: importlib.import_module(f"sqlalchemy.{name}") for name in PLACES}


def found() -> set[Any]:
    return {module.greenlet_spawn for module in places().values()}


@pytest.fixture(autouse=True)
def not_installed() -> Iterator[None]:
    assert found() == {THEIRS}
    yield
    uninstall()
    assert found() == {THEIRS}


def greenlets_of(engine: Any) -> set[type]:
    """Return a set that collects the greenlet types of its statements and transactions."""
    ran_in: set[type] = set()
    for name in ("begin", "commit", "rollback", "before_cursor_execute"):
        event.listen(engine.sync_engine, name, lambda *_: ran_in.add(type(getcurrent())))
    return ran_in


async def test_engines_that_are_there_already(make_engine: MakeEngine) -> None:
    """It applies to this package's pools and SQLAlchemy's, from the next call to the last."""
    await create_items(make_engine())
    for engine in (make_engine(SQLitePool), make_engine()):
        await amounts(engine)
        for installed in (True, False):
            (install if installed else uninstall)()
            ran_in = greenlets_of(engine)
            await amounts(engine)
            async with AsyncSession(engine) as session, session.begin():
                await session.get(Item, 1)
                assert [row async for row in await session.stream(text("SELECT 1"))] == [(1,)]
            assert (ran_in == {Spawned}) is installed
            assert (Spawned in ran_in) is installed


async def test_another_database(path: Any) -> None:
    """It applies to all databases."""
    install()
    engine = create_async_engine(f"sqlite+{other_database.Dialect.driver}:///{path}")
    ran_in = greenlets_of(engine)
    await create_items(engine)
    assert await amounts(engine) == [0, 0, 0]
    assert ran_in == {Spawned}
    await engine.dispose()


def test_once_and_for_all() -> None:
    """Two calls are like one, and after ``uninstall()`` everything is as before."""
    uninstall()
    for _ in range(2):
        install()
        (ours,) = found()
        assert ours is not THEIRS
        install()
        assert found() == {ours}
        uninstall()
        assert found() == {THEIRS}
        uninstall()


def test_in_many_threads() -> None:
    """In any order, the final state is one of the two."""
    start = threading.Barrier(8)

    def work(number: int) -> None:
        start.wait(30)
        for _ in range(20):
            (install if number % 2 else uninstall)()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found()) == 1


def test_other_modules_have_it_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules that imported it before, as SQLModel does, or import it meanwhile, are updated."""
    before, meanwhile = types.ModuleType("before_it"), types.ModuleType("meanwhile")
    own = types.ModuleType("own")
    for module in (before, meanwhile, own):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    no_module: Any = object()
    monkeypatch.setitem(sys.modules, "no_module", no_module)
    before.greenlet_spawn = THEIRS  # type: ignore[attr-defined]
    own.greenlet_spawn = own  # type: ignore[attr-defined]
    install()
    (ours,) = found()
    assert vars(before)["greenlet_spawn"] is ours
    meanwhile.greenlet_spawn = ours  # type: ignore[attr-defined]
    uninstall()
    assert vars(before)["greenlet_spawn"] is vars(meanwhile)["greenlet_spawn"] is THEIRS
    assert vars(own)["greenlet_spawn"] is own
    assert greenlets.greenlet_spawn is not THEIRS


async def test_calls_that_are_on_their_way() -> None:
    """They end in the greenlet in which they began."""
    gate = asyncio.Event()

    def wait() -> type:
        before = getcurrent()
        sqlalchemy.util.await_only(gate.wait())
        assert getcurrent() is before
        return type(before)

    running = [asyncio.ensure_future(concurrency.greenlet_spawn(wait))]
    await asyncio.sleep(0)
    install()
    running.append(asyncio.ensure_future(concurrency.greenlet_spawn(wait)))
    await asyncio.sleep(0)
    uninstall()
    gate.set()
    first, second = await asyncio.gather(*running)
    assert second is Spawned
    assert first is not Spawned


# -- where it does not fit -------------------------------------------------------------------------


async def another(fn: Any, *args: Any, _require_await: bool = False, **kwargs: Any) -> Any:
    """Represents a replacement by another library."""


async def fewer_arguments(fn: Any, *args: Any, **kwargs: Any) -> Any:
    """Represents a function of a future SQLAlchemy."""


def no_coroutine(fn: Any, *args: Any, _require_await: bool = False, **kwargs: Any) -> Any:
    """Represents a function of a future SQLAlchemy."""


def gone(patch: pytest.MonkeyPatch) -> None:
    patch.delattr(concurrency, "greenlet_spawn")


def gone_from_a_user(patch: pytest.MonkeyPatch) -> None:
    patch.delattr(places()["ext.asyncio.result"], "greenlet_spawn")


def replaced_in_a_user(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(places()["ext.asyncio.session"], "greenlet_spawn", another)


def everywhere(function: Any, module: str = "sqlalchemy.util.concurrency") -> Any:
    def put(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(function, "__module__", module)
        for place in places().values():
            patch.setattr(place, "greenlet_spawn", function)

    return put


def no_mark(patch: pytest.MonkeyPatch) -> None:
    patch.delattr(Spawned, "__sqlalchemy_greenlet_provider__")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (gone, r"has no sqlalchemy\.util\.concurrency\.greenlet_spawn"),
        (gone_from_a_user, r"has no sqlalchemy\.ext\.asyncio\.result\.greenlet_spawn"),
        (replaced_in_a_user, r"different greenlet_spawn in sqlalchemy\.ext\.asyncio\.session"),
        (everywhere(another, "tracer"), "some library has replaced it"),
        (everywhere(fewer_arguments), "with other arguments"),
        (everywhere(no_coroutine), "with other arguments"),
        (no_mark, "does not let its functions await"),
    ],
)
def test_it_is_refused(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], None], reason: str
) -> None:
    """One sentence says what was found instead, and nothing is changed."""
    with monkeypatch.context() as patch:
        change(patch)
        before = {name: vars(module).get("greenlet_spawn") for name, module in places().items()}
        with pytest.raises(ConfigurationError, match=reason) as raised:
            install()
        after = {name: vars(module).get("greenlet_spawn") for name, module in places().items()}
        assert after == before
        assert isinstance(raised.value, ArgumentError)
        assert sqlalchemy.__version__ in str(raised.value)
        uninstall()
    install()


def test_what_others_put_over_it_stays() -> None:
    """``uninstall()`` removes only its own function."""
    install()
    engine = places()["ext.asyncio.engine"]
    engine.greenlet_spawn = another
    uninstall()
    assert found() == {THEIRS, another}
    engine.greenlet_spawn = THEIRS


PROGRAM = """
import sys
import sa_sqlite_pool
sa_sqlite_pool.install()
import sqlalchemy.ext.asyncio.session as session
from sqlmodel.ext.asyncio import session as sqlmodel
assert sqlmodel.greenlet_spawn is session.greenlet_spawn
assert sqlmodel.greenlet_spawn.__module__ == "sa_sqlite_pool.compat.greenlets"
sa_sqlite_pool.uninstall()
assert sqlmodel.greenlet_spawn is session.greenlet_spawn
assert sqlmodel.greenlet_spawn.__module__.startswith("sqlalchemy.")
"""


def test_sqlmodel_imported_afterwards() -> None:
    pytest.importorskip("sqlmodel")
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=60)
