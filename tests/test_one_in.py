"""``--one-in 4``: a short run of all tests, which omits none of them."""

from __future__ import annotations

from typing import Any

from tests.conftest import one_in

COUNTS = {"one": 1, "few": 3, "many": 40}


class Case:
    """The part of a ``pytest.Item`` that is used."""

    def __init__(self, nodeid: str) -> None:
        self.nodeid = nodeid


def chosen(seed: str) -> dict[str, list[str]]:
    """Return the cases that run, by test."""
    cases: list[Any] = [
        Case(f"test_all.py::{test}[{number}]") for test, n in COUNTS.items() for number in range(n)
    ]
    kept, left_out = one_in(4, cases, seed=seed)
    assert sorted(map(id, [*kept, *left_out])) == sorted(map(id, cases))
    return {test: [c.nodeid for c in kept if f"::{test}[" in c.nodeid] for test in COUNTS}


def test_each_test_has_a_case_that_runs() -> None:
    """A test with many cases runs a quarter of them."""
    counts = {test: len(cases) for test, cases in chosen("3.13").items()}
    assert counts == {"one": 1, "few": 1, "many": 10}


def test_versions_run_different_cases() -> None:
    """All stages together run more cases than each alone, and each stage always runs the same."""
    assert chosen("3.13") == chosen("3.13")
    assert len({tuple(chosen(str(version))["many"]) for version in range(20)}) == 4
