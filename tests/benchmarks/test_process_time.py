"""Process time covers all threads of the process, and is given by operation."""

from __future__ import annotations

import threading
from time import process_time

import pytest

from benchmarks.measuring import clocks
from benchmarks.measuring.clocks import Meter, Tally, Usage
from benchmarks.report.results import Run, Summary
from benchmarks.ways.contenders import Measurement
from benchmarks.ways.settings import Settings

SETTINGS = Settings("pool", 1, 0, {}, "3.40.1")


def busy(seconds: float) -> None:
    """Use the processor."""
    until = process_time() + seconds
    while process_time() < until:
        pass


def test_threads_count() -> None:
    """Work of another thread that the event loop waits for counts for the process, too."""
    meter = Meter()
    meter.start()
    thread = threading.Thread(target=busy, args=(0.02,))
    thread.start()
    thread.join()
    usage = meter.usage([])
    assert usage.process_s >= 0.02
    assert usage.elapsed_s > 0


def test_only_what_came_after_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """All operations count, including failed ones."""
    elapsed, processed = iter([100.0, 102.0]), iter([7.0, 8.0])
    monkeypatch.setattr(clocks, "perf_counter", lambda: next(elapsed))
    monkeypatch.setattr(clocks, "process_time", lambda: next(processed))
    meter, tally = Meter(), Tally()
    meter.start()
    tally.latencies_s += [0.1, 0.2, 0.3, 0.4]
    assert meter.usage([tally, tally]) == Usage(process_s=1.0, elapsed_s=2.0, operations=8)


def run(contender: str, round_: int, usage: Usage | None) -> Run:
    tally = Tally()
    tally.latencies_s.append(1.0)
    measurement = Measurement(SETTINGS, 1.0, Tally(), tally, None, usage=usage)
    return Run.of(contender, round_, 0, measurement, None)


def test_by_operation_and_by_the_clock() -> None:
    """A run has both, and a round's ratio refers to synchronous SQLAlchemy in the same round."""
    ours = [run("ours", number, Usage(0.5 * (number + 1), 2.0, 1_000)) for number in range(3)]
    theirs = [run("synchronous", number, Usage(0.1, 1.0, 1_000)) for number in range(3)]
    assert [one.process_us for one in ours] == pytest.approx([500, 1_000, 1_500])
    assert [one.cores_used for one in ours] == pytest.approx([0.25, 0.5, 0.75])
    summary = Summary.of(ours, ours, theirs)
    assert summary.process_us is not None
    assert summary.process_us.median == pytest.approx(1_000)
    assert summary.process_ratio == pytest.approx(10)


def test_where_it_was_not_measured() -> None:
    """The figures are missing, not made up."""
    runs = [run("ours", 0, None)]
    summary = Summary.of(runs, runs, runs)
    assert (summary.process_us, summary.process_ratio, summary.cores_used) == (None, None, None)
