"""Which SQLite versions can lose commits when a log restarts."""

from __future__ import annotations

import pytest

from sa_sqlite_pool.wal.reset_bug import has_reset_bug


@pytest.mark.parametrize(
    ("version", "affected"),
    [
        ((3, 6, 23), False),
        ((3, 7, 0), True),
        ((3, 40, 1), True),
        ((3, 43, 9), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 44, 7), False),
        ((3, 45, 0), True),
        ((3, 45, 6), True),
        ((3, 49, 9), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 50, 8), False),
        ((3, 51, 0), True),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 52, 0), False),
        ((4, 0, 0), False),
    ],
)
def test_versions(version: tuple[int, int, int], affected: bool) -> None:
    """Affected are 3.7.0 to 3.51.2, without the fixed branches."""
    assert has_reset_bug(version) is affected
