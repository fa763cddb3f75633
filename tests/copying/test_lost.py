"""Connections that end during a copy: the error that is raised, and that the copy ends."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, LargeBinary, MetaData, Table

from sa_sqlite_pool import CopyError
from tests.copying.files import copied, make_file, tables_on
from tests.postgresql import App, until

metadata = MetaData()
blobs = Table("blobs", metadata, Column("id", Integer, primary_key=True), Column("b", LargeBinary))
MEGABYTE = 1024 * 1024
COPYING = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
    "AND query LIKE 'COPY%FROM STDIN%'"
)


def file_of(tmp_path: Path, rows: int, size: int) -> Path:
    fill = (
        f"WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) "
        f"INSERT INTO blobs SELECT i, randomblob({size}) FROM n"
    )
    return make_file(tmp_path / "app.db", metadata, {}, fill)


@pytest.mark.parametrize("phase", ["copy", "verify"])
async def test_a_connection_that_ends(app: App, tmp_path: Path, phase: str) -> None:
    """The first error is raised, not that of the ROLLBACK, and another copy works."""
    path = file_of(tmp_path, 200, MEGABYTE // 10)  # more than the system's buffers hold
    ended: list[str] = []

    def progress(now: str, done: int, total: int) -> None:
        if now == phase and done and not ended:
            ended.append(
                app.sql(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )

    what = {"copy": "copying blobs", "verify": "reading blobs back"}[phase]
    with pytest.raises(CopyError, match=rf"^{what} failed, and nothing .*(connection|server)"):
        await copied(path, app, metadata, progress=progress)
    assert ended
    assert tables_on(app) == ""
    assert (await copied(path, app, metadata)).rows == 200


async def test_a_connection_that_ends_while_the_server_takes_nothing(
    app: App, tmp_path: Path
) -> None:
    """The driver waits for buffer space, and would wait for ever."""
    path = file_of(tmp_path, 60, MEGABYTE)
    stopped: list[int] = []
    sent: list[int] = []

    def progress(phase: str, done: int, total: int) -> None:
        if phase == "copy":
            sent.append(done)
            if not stopped:
                stopped.append(int(app.sql(COPYING)))
                os.kill(stopped[0], signal.SIGSTOP)

    copy = asyncio.ensure_future(copied(path, app, metadata, progress=progress))
    try:
        await until(lambda: bool(stopped))
        before = -1
        while before != len(sent):  # until the system's buffers are full
            before = len(sent)
            await until(lambda: laps_of_the_worker(10))
        app.sql(f"SELECT pg_terminate_backend({stopped[0]})")
    finally:
        os.kill(stopped[0], signal.SIGCONT)
    with pytest.raises(CopyError, match=r"^copying blobs failed, .*connection"):
        await asyncio.wait_for(copy, 20)
    assert len(sent) < 60
    assert tables_on(app) == ""


async def laps_of_the_worker(count: int) -> bool:
    for _ in range(count):
        await asyncio.to_thread(os.getpid)
    return True
