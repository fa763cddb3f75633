"""Counters read by another thread while they change: they only grow."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest

from sa_sqlite_pool.stats import wait_counter
from sa_sqlite_pool.stats.counts import ConnectionCounts, EngineCounts, Runs
from sa_sqlite_pool.stats.wait_counter import WaitCounter
from tests.stats.test_counts import Owner


class Meanwhile(dict[str, Runs]):
    """Runs by text; another thread reads the statistics during each change."""

    def __init__(self, runs: dict[str, Runs], look: Callable[[], object]) -> None:
        super().__init__(runs)
        self._looker = threading.Thread(target=look)

    def pop(self, *args: Any) -> Any:
        found = super().pop(*args)
        self.meanwhile()
        return found

    def meanwhile(self) -> None:
        self._looker.start()
        self._looker.join(0.1)  # it may have to wait for the end of the change

    def __del__(self) -> None:
        self._looker.join()


@pytest.mark.parametrize("back", [False, True])
def test_a_text_whose_facts_are_dropped(back: bool) -> None:
    """No run is missed, not even when the facts of a text return."""
    engine, owner, seen = EngineCounts(), Owner(), []
    counts = engine.new_connection(owner)
    counts.of("SELECT 1").ran_in_thread(0.5)
    if back:
        counts.drop("SELECT 1")
    changed = "slow" if back else "by_text"
    meanwhile = Meanwhile(
        getattr(counts, changed), lambda: seen.append(engine.statements().in_thread)
    )
    setattr(counts, changed, meanwhile)
    (counts.of if back else counts.drop)("SELECT 1")
    meanwhile._looker.join()
    assert seen == [1]


def test_a_connection_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread's snapshot adds it up, and it is counted once."""
    engine, owner = EngineCounts(), Owner()
    engine.new_connection(owner).of("SELECT 1").ran_in_thread(0.5)
    add_up = ConnectionCounts.all_runs
    lookers: list[threading.Thread] = []

    def meanwhile(counts: ConnectionCounts) -> list[tuple[str | None, Runs]]:
        if not lookers:  # within the first snapshot, after its list of connections is created
            lookers.append(threading.Thread(target=engine.statements))
            owners.clear()
            gc.collect()
            lookers[0].start()
            lookers[0].join(0.1)
        return add_up(counts)

    owners = [owner]
    del owner
    monkeypatch.setattr(ConnectionCounts, "all_runs", meanwhile)
    assert engine.statements().in_thread == 1
    lookers[0].join()


def test_a_wait_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait is added to the histogram at the moment when it is counted."""
    waits, seen = WaitCounter(), []

    def meanwhile(*args: Any) -> int:
        seen.append(waits.snapshot())
        return 0

    monkeypatch.setattr(wait_counter, "bisect_left", meanwhile)
    waits.ended(0.5)
    for found in (*seen, waits.snapshot()):
        assert sum(found.histogram) == found.waited
