"""What is known of the costs of a text."""

from __future__ import annotations

import pytest

from sa_sqlite_pool.execution.costs import Costs


@pytest.fixture
def costs() -> Costs:
    return Costs(3)


def in_thread(costs: Costs, *runs: bool, text: str = "SELECT 1") -> None:
    for short in runs:
        costs.ran_in_thread(text, short=short)


def short(costs: Costs, text: str = "SELECT 1", *, writes: bool = False) -> bool:
    return costs.short(text, writes=writes)


def runs_until_short(costs: Costs) -> int:
    """How many short runs in the thread it takes."""
    runs = 0
    while not short(costs):
        in_thread(costs, True)
        runs += 1
    return runs


def test_an_unknown_text_is_not_short(costs: Costs) -> None:
    assert not short(costs)


def test_a_read_is_known_after_one_run(costs: Costs) -> None:
    in_thread(costs, True)
    assert short(costs)
    assert not short(costs, "SELECT 2")


def test_a_long_run_is_not_forgotten_at_once(costs: Costs) -> None:
    in_thread(costs, True, False)
    assert not short(costs)


def test_a_write_has_to_be_short_three_times_in_a_row(costs: Costs) -> None:
    in_thread(costs, True, True, False, True, True)
    assert not short(costs, writes=True)
    in_thread(costs, True)
    assert short(costs, writes=True)


def test_what_was_long_inline_goes_to_the_thread_longer_each_time(costs: Costs) -> None:
    in_thread(costs, True)
    expected = []
    for _ in range(10):
        costs.ran_inline("SELECT 1", short=False)
        expected.append(runs_until_short(costs))
    assert expected == [8, 16, 32, 64, 128, 256, 512, 1024, 1024, 1024]


def test_long_runs_in_the_thread_shorten_the_penalty_too(costs: Costs) -> None:
    """But what was long last is not short."""
    in_thread(costs, True)
    costs.ran_inline("SELECT 1", short=False)
    in_thread(costs, *[False] * 8)
    assert not short(costs)
    in_thread(costs, True)
    assert short(costs)


def test_many_short_runs_are_a_new_beginning(costs: Costs) -> None:
    in_thread(costs, True)
    for _ in range(3):
        costs.ran_inline("SELECT 1", short=False)
        runs_until_short(costs)
    for _ in range(32 * 100):
        costs.ran_inline("SELECT 1", short=True)
    costs.ran_inline("SELECT 1", short=False)
    assert runs_until_short(costs) == 8


def test_the_table_is_bounded(costs: Costs) -> None:
    """The text that came first is unknown again."""
    for number in range(4):
        in_thread(costs, True, text=f"SELECT {number}")
    assert [short(costs, f"SELECT {number}") for number in range(4)] == [False, True, True, True]
    costs.ran_inline("SELECT 0", short=False)  # it ran while it was known
    in_thread(costs, True, text="SELECT 0")
    assert short(costs, "SELECT 0")


def test_steps_are_as_long_as_the_last_time(costs: Costs) -> None:
    for long in (True, False):
        costs.ran_in_thread("SELECT 1", short=False, steps_are_long=long)
        assert costs.steps_are_long("SELECT 1") is long
