"""Processes are killed while others write; ``python -m tests.kills`` runs longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cancellations.oracle import Fate
from tests.checkpoints.journal import Entry
from tests.children import needs_fork_server
from tests.kills.diary import Diary, Story, read_diary
from tests.kills.figures import Life, longest_silence, longest_transaction, longest_wait
from tests.kills.run import run

SECONDS = 5.0
PROCESSES = 3
HELD_UP_MS = 4_000  # most of the run; `make test-kills` is stricter, on an idle machine


@needs_fork_server
def test_nothing_acknowledged_is_lost_and_nobody_is_held_up(tmp_path: Path) -> None:
    """The run raises if anything is lost; kills hit processes that wrote, and ones that waited."""
    result = run(tmp_path, seconds=SECONDS, processes=PROCESSES, seed=1)
    print(result)  # noqa: T201 - for pytest -s
    assert max(result.longest_silence_ms, result.longest_transaction_ms) < HELD_UP_MS
    assert min(result.acknowledged, result.rolled_back) > 10
    assert result.killed > 5
    assert min(result.killed_holding, result.killed_waiting) > 0


# -- diaries and figures -------------------------------------------------------------------------


def entry(token: str, fate: Fate = Fate.UNKNOWN) -> Entry:
    return Entry(token, parts=1, counter=5, fate=fate)


@pytest.fixture
def diary(tmp_path: Path) -> Path:
    return tmp_path / "p1.diary"


def test_a_diary_tells_how_far_each_transaction_came(diary: Path) -> None:
    """It records committed and rolled back transactions, and those in their turn and in line."""
    book = Diary(diary)
    committed, doomed, holding, _ = (
        book.asks(1, 5),
        book.asks_doomed(1, 5),
        book.asks(1, 5),
        book.asks(1, 5),
    )
    for one in (committed, doomed, holding):
        book.holds(one)
    book.acknowledge(committed)
    book.over(doomed)
    book.close()
    stories = read_diary(diary)
    assert [story.entry for story in stories] == [
        entry("p1-1", Fate.ACKNOWLEDGED),
        entry("p1-2", Fate.ROLLED_BACK),
        entry("p1-3"),
        entry("p1-4"),
    ]
    assert [story.committed for story in stories] == [True, False, False, False]
    came = [(story.held is not None, story.over is not None) for story in stories]
    assert came == [(True, True), (True, True), (True, False), (False, False)]


def test_a_diary_whose_last_line_is_torn(diary: Path) -> None:
    """An entry that was being written when the process was killed does not count."""
    book = Diary(diary)
    book.acknowledge(book.asks(1, 5))
    book.close()
    diary.write_text(diary.read_text()[:-1])
    [story] = read_diary(diary)
    assert (story.entry, story.over) == (entry("p1-1"), None)


def test_a_kill_hits_who_holds_and_who_waits() -> None:
    """This is derived from the diary; processes that were not killed do not count."""
    done = Story(entry("p1-1", Fate.ACKNOWLEDGED), 1.0, 1.1, 1.2)
    holding, waiting = Story(entry("p1-2"), 1.0, 1.3), Story(entry("p1-3"), 1.0)
    hit = [
        (life.killed_holding, life.killed_waiting)
        for stories in ([done], [done, holding], [waiting], [holding, waiting])
        for life in (Life(0.0, 2.0, stories),)
    ]
    assert hit == [(False, False), (True, False), (False, True), (True, True)]
    alive = Life(0.0, None, [holding, waiting])
    assert (alive.killed_holding, alive.killed_waiting) == (False, False)


def test_silence_counts_commits_of_all() -> None:
    """It is measured from the start, between commits, and to the end, rollbacks included."""
    lives = [
        Life(0.0, None, [Story(entry("p1-1", Fate.ACKNOWLEDGED), 1.0, 1.5, 2.0)]),
        Life(0.0, None, [Story(entry("p2-1", Fate.ACKNOWLEDGED), 1.0, 1.5, 5.0)]),
        Life(0.0, None, [Story(entry("p3-1", Fate.ROLLED_BACK), 1.0, 1.5, 3.5)]),
    ]
    assert longest_silence(lives, since=1.5, until=6.0) == 3.0
    assert longest_silence(lives, since=-4.0, until=6.0) == 6.0
    assert longest_silence(lives, since=1.5, until=12.0) == 7.0
    assert longest_silence([], since=1.0, until=2.0) == 1.0


def test_waits_of_the_killed_count_until_then() -> None:
    """A process that never gets its turn is not overlooked because it was killed."""
    done = Story(entry("p1-1", Fate.ACKNOWLEDGED), 1.0, 1.1, 1.2)
    lives = [Life(0.0, 4.0, [done, Story(entry("p1-2"), 1.0)]), Life(0.0, None, [done])]
    assert longest_wait(lives) == longest_transaction(lives) == 3.0
