"""The environment that all contenders of a run share: versions, machine, file system."""

from __future__ import annotations

import os
import platform
import sqlite3
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Environment:
    """The environment, recorded once. ``load_average`` covers the minute before: other load shows.

    ``beside`` is the number of busy processes that were started beside the runs.
    """

    sqlite: str
    python: str
    sqlalchemy: str
    aiosqlite: str
    aiosqlitepool: str
    apsw: str
    sa_sqlite_pool: str
    system: str
    cpus: int
    load_average: float | None
    file_system: str
    event_loop: str = "asyncio"
    beside: int = 0

    @classmethod
    def of(cls, directory: Path, event_loop: str = "asyncio", beside: int = 0) -> Environment:
        """Return the environment of databases in ``directory``."""
        return cls(
            sqlite=sqlite3.sqlite_version,
            python=f"{platform.python_implementation()} {platform.python_version()}",
            sqlalchemy=version("sqlalchemy"),
            aiosqlite=version("aiosqlite"),
            aiosqlitepool=version("aiosqlitepool"),
            apsw=version("apsw"),
            sa_sqlite_pool=version("sa-sqlite-pool"),
            system=f"{platform.system()} {platform.machine()}",
            cpus=_cpus(),
            load_average=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            file_system=_file_system(directory),
            event_loop=event_loop,
            beside=beside,
        )


def _cpus() -> int:
    """Return the number of cores that this process may use, if the system reports it."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _file_system(directory: Path) -> str:
    """Return the type of the file system, such as ext4; "unknown" if there is no /proc."""
    mounts = Path("/proc/self/mountinfo")
    if not mounts.exists():
        return "unknown"
    resolved = directory.resolve()
    found = dict(_mount(line) for line in mounts.read_text().splitlines())
    places = (resolved, *resolved.parents)
    return next((found[place] for place in places if place in found), "unknown")


def _mount(line: str) -> tuple[Path, str]:
    # https://docs.kernel.org/filesystems/proc.html: "36 35 98:0 /mnt1 /mnt2 rw … - ext3 /dev/root"
    fields = line.split()
    return Path(fields[4]), fields[fields.index("-") + 1]
