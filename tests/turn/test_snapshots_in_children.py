"""Read transactions, and a child process."""

from __future__ import annotations

import os
import warnings

import pytest

from sa_sqlite_pool.turn.snapshots import Snapshots
from tests.turn.snapshots import begun


async def test_a_child_process_begins_anew() -> None:
    """The parent's readers and gap are absent, and ending one of them has no effect."""
    snapshots = Snapshots()
    reader = begun(snapshots)
    with snapshots.gap(1000):
        snapshots.renew_in_child()
        assert (len(snapshots), snapshots.in_gap) == (0, False)
        mine = begun(snapshots)
        snapshots.end(reader)
        assert list(snapshots) == [mine]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no os.fork here")
async def test_a_fork() -> None:
    """The child has none of the parent's readers; the parent still does."""
    snapshots = Snapshots()
    reader = begun(snapshots)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        os._exit(len(snapshots))
    assert os.waitpid(pid, 0)[1] == 0
    assert list(snapshots) == [reader]
