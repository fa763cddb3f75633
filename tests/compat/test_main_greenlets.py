"""Main greenlets of threads: kept until their threads end, so greenlet never searches for them."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from greenlet import getcurrent, greenlet
from sqlalchemy.ext.asyncio import create_async_engine

from sa_sqlite_pool import SQLiteDatabase, SQLitePool
from sa_sqlite_pool.compat import main_greenlets
from sa_sqlite_pool.compat.greenlets import greenlet_spawn
from sa_sqlite_pool.compat.main_greenlets import keep_main_greenlet
from tests.helpers import until

Began = Callable[[], object]


def run(began: Began) -> None:
    """Run a thread that calls ``began()``, and in which a greenlet has run."""

    def main() -> None:
        began()
        greenlet(lambda: None).switch()

    thread = threading.Thread(target=main)
    thread.start()
    thread.join()


async def test_greenlet_looks_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It searches all objects of the process if there is one reference, but not with two."""
    looked: list[Any] = []
    get_referrers = gc.get_referrers

    def noting(*objects: Any) -> list[Any]:
        looked.extend(objects)
        return get_referrers(*objects)

    monkeypatch.setattr(gc, "get_referrers", noting)
    kept: list[greenlet] = []
    run(keep_main_greenlet)
    run(lambda: kept.append(getcurrent()))  # the control, which is cleaned up after it
    await until(lambda: bool(looked))
    assert looked == kept


def test_of_threads_that_have_ended_few_are_kept() -> None:
    """A program that opens and closes databases all day keeps only a limited number."""
    for _ in range(main_greenlets._MOST_ENDED + 10):
        run(keep_main_greenlet)
    ended = [thread for thread in main_greenlets._kept if not thread.is_alive()]
    assert len(ended) <= main_greenlets._MOST_ENDED + 1


def test_once_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that opens many connections is kept once."""
    monkeypatch.setattr(main_greenlets, "_kept", {})

    def opens_three() -> None:
        for _ in range(3):
            keep_main_greenlet()

    run(opens_three)
    assert len(main_greenlets._kept) == 1


async def use_swap_in(path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}", poolclass=SQLitePool)
    async with engine.connect():
        pass
    await engine.dispose()


async def use_facade(path: Path) -> None:
    async with SQLiteDatabase(path) as db, db.read():
        pass


async def use_own_greenlets(_path: Path) -> None:
    await greenlet_spawn(int)


@pytest.mark.parametrize("use", [use_swap_in, use_facade, use_own_greenlets])
def test_a_thread_that_runs_an_event_loop(
    path: Path, monkeypatch: pytest.MonkeyPatch, use: Callable[[Path], Coroutine[Any, Any, None]]
) -> None:
    """Errors of the application keep its main greenlet, as in any other thread."""
    kept: dict[threading.Thread, tuple[greenlet, greenlet]] = {}
    monkeypatch.setattr(main_greenlets, "_kept", kept)
    found: list[greenlet] = []

    def main() -> None:
        found.append(getcurrent())
        asyncio.run(use(path))

    thread = threading.Thread(target=main)
    thread.start()
    thread.join()
    assert kept[thread] == (found[0], found[0])


def test_in_a_greenlet_it_is_the_threads_own() -> None:
    found: list[greenlet] = []

    def main() -> None:
        found.append(getcurrent())
        greenlet(keep_main_greenlet).switch()

    thread = threading.Thread(target=main)
    thread.start()
    thread.join()
    assert main_greenlets._kept[thread] == (found[0], found[0])
