"""Main greenlets of threads: kept until these have ended, and looked for by greenlet never."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest
from greenlet import getcurrent, greenlet

from sa_sqlite_pool.compat import main_greenlets
from sa_sqlite_pool.compat.main_greenlets import keep_main_greenlet
from tests.helpers import until

Began = Callable[[], object]


def run(began: Began) -> None:
    """A thread in which a greenlet has run."""

    def main() -> None:
        began()
        greenlet(lambda: None).switch()

    thread = threading.Thread(target=main)
    thread.start()
    thread.join()


async def test_greenlet_looks_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes through all objects of the process where there is one reference, and not for two."""
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
    """A program that opens and closes databases all day keeps no more than these."""
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
