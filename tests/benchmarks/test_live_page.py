"""The cost of the live page is measured."""

from __future__ import annotations

from .calling import call


def test_a_short_run() -> None:
    """Each figure is printed."""
    done = call("--rounds", "1", "--seconds", "0.5", "--rate", "50", module="benchmarks.live_page")
    assert done.returncode == 0, done.stderr
    for name in ("a sample a second", "with one", "the page answers", "first event"):
        assert name in done.stdout
