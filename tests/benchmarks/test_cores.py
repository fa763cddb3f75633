"""A run on one core uses only that core, as does everything that it starts."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
import typer

from benchmarks.measuring.cores import limited, named, parse

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="no os.sched_setaffinity()")

_COUNT = "import os; print(len(os.sched_getaffinity(0)))"


def there() -> int:
    """Return the number of cores that the calling thread may use."""
    assert sys.platform == "linux"
    return len(os.sched_getaffinity(0))


def in_a_process() -> int:
    done = subprocess.run([sys.executable, "-c", _COUNT], capture_output=True, check=True)
    return int(done.stdout)


class Waiting(threading.Thread):
    """Looks up, when told to, how many cores it may use."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.found = 0

    def run(self) -> None:
        self.go.wait()
        self.found = there()


def test_one_core_for_all_that_runs() -> None:
    """Existing and new threads are limited, and processes; afterwards, the limit is gone."""
    before, old, new, late = there(), Waiting(), Waiting(), Waiting()
    old.start()
    late.start()
    with limited(1):
        new.start()
        for thread in (old, new):
            thread.go.set()
            thread.join()
        assert (there(), old.found, new.found, in_a_process()) == (1, 1, 1, 1)
    late.go.set()
    late.join()
    assert there() == late.found == in_a_process() == before


def test_an_error_leaves_no_limit_behind() -> None:
    before = there()
    with pytest.raises(ZeroDivisionError), limited(1):
        _ = 1 / 0
    assert there() == before


def test_all_cores_is_no_limit() -> None:
    before = there()
    with limited(None):
        assert there() == before


def test_what_the_command_takes() -> None:
    """It takes a number of available cores, or "all"; otherwise, its error names the problem."""
    assert (parse("all"), parse("1")) == (None, 1)
    for wrong in ("0", "-1", "one", "1.5", ""):
        with pytest.raises(typer.BadParameter, match="neither a number of cores nor 'all'"):
            parse(wrong)
    with pytest.raises(typer.BadParameter, match=f"more than this process may use: {there()}"):
        parse(str(there() + 1))


def test_where_nothing_can_be_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """All cores are accepted; anything else is refused with the way out."""
    monkeypatch.setattr(sys, "platform", "darwin")
    assert parse("all") is None
    with pytest.raises(typer.BadParameter, match=r"no os\.sched_setaffinity.*leave --cores out"):
        parse("1")


def test_names() -> None:
    assert [named(cores) for cores in (None, 1, 2)] == ["all cores", "one core", "2 cores"]
