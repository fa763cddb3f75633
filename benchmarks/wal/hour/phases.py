"""The phases of the hour of ``benchmarks.wal_hour``."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Reader(enum.Enum):
    """The reader that keeps a snapshot for most of a phase."""

    OVERLAPPING = "four readers, 400 ms each, so that there is always one"
    FORGOTTEN = "one that should have ended long ago"
    REPORT = "one that was declared long"
    OUTSIDER = "one of another process"


@dataclass(frozen=True, slots=True)
class Phase:
    """A number of simulated minutes with the same activity.

    :param writes: one-row transactions per minute, evenly spread
    :param reads: short reads per minute, evenly spread
    :param imported: MiB imported during the phase, in transactions of 500 rows
    """

    label: str
    minutes: int
    writes: int = 0
    reads: int = 0
    imported: int = 0
    reader: Reader | None = None


HOUR = (
    Phase("quiet\nnight", 5, writes=12, reads=12),
    Phase("working day", 8, writes=300, reads=300),
    Phase("import", 4, writes=60, reads=60, imported=100),
    Phase("idle", 3),
    Phase("import beside\noverlapping\nreaders", 6, 60, 60, 200, Reader.OVERLAPPING),
    Phase("day", 3, writes=300, reads=300),
    Phase("import beside a\nforgotten reader", 8, 60, 60, 100, Reader.FORGOTTEN),
    Phase("day", 3, writes=300, reads=300),
    Phase("import beside a\nlong report", 7, 60, 60, 100, Reader.REPORT),
    Phase("idle", 3),
    Phase("import beside\nanother process\nthat reads", 7, 60, 60, 100, Reader.OUTSIDER),
    Phase("quiet\nnight", 3, writes=12, reads=12),
)
