"""The versions of SQLite that can lose commits when a log restarts.

"If there are two or more database connections to the same file, and two or more of them write or
checkpoint at the same instant", SQLite 3.7.0 to 3.51.2 may lose commits
(https://www.sqlite.org/wal.html#walresetbug): a checkpoint reads where the log ends, another
process finds that everything has been moved and restarts the log, and the checkpoint then marks the
first frames of the new log as moved, although they are not.

A checkpoint of this package loses no commits, because none can happen while it runs; see
:mod:`~.one_checkpoint`. A checkpoint of a program that does not know the package can lose some.
"""

from __future__ import annotations

_FIRST_WITH_WAL = (3, 7, 0)
_FIXED = (3, 51, 3)
_FIXED_BRANCHES = {(3, 50): 7, (3, 44): 6}

FIXED_VERSIONS = "3.51.3, 3.50.7 or 3.44.6"


def has_reset_bug(version: tuple[int, ...]) -> bool:
    """Return whether SQLite ``version``, such as ``sqlite3.sqlite_version_info``, has the bug."""
    if not _FIRST_WITH_WAL <= version < _FIXED:
        return False
    fixed_patch = _FIXED_BRANCHES.get((version[0], version[1]))
    return fixed_patch is None or version[2] < fixed_patch
