"""Large rows are sent in parts, and refused if they are too large for PostgreSQL."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, LargeBinary, MetaData, String, Table
from sqlalchemy.dialects import postgresql

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.copying import long_rows
from sa_sqlite_pool.copying.source import snapshot
from sa_sqlite_pool.copying.tables import plan_copy
from sa_sqlite_pool.copying.transfer import Outgoing
from tests.copying.files import copied, misfits_in, rows_in, rows_of
from tests.copying.test_lost import MEGABYTE, blobs, file_of, metadata
from tests.postgresql import App

lined = MetaData()
Table(
    *("lines", lined, Column("id", Integer, primary_key=True)),
    *(Column("s", String), Column("b", LargeBinary)),
)
LINES: list[tuple[str | None, bytes | None]] = [
    *(("x" * 900, None), ("x" * 1100, None), ("€" * 300, None), ("€" * 350, None)),
    *(("\n" * 500, None), ("\n" * 510, b"abc"), (None, bytes(500)), ("abc", bytes(512))),
    *((None, None), ("", b"")),
]


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16"])
async def test_rows_beyond_a_gigabyte(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    """They are listed before anything is sent, by longest column; the limit here is 1,024 bytes."""
    monkeypatch.setattr(long_rows, "LINE_BYTES", 1024)
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection, connection:
        connection.execute(f"PRAGMA encoding = '{encoding}'")
        connection.execute("CREATE TABLE lines (id INTEGER PRIMARY KEY, s TEXT, b BLOB)")
        connection.executemany("INSERT INTO lines (s, b) VALUES (?, ?)", LINES)
    found = {
        (group.place, group.kind): [one.key["id"] for one in group.first]
        for group in await misfits_in(tmp_path / "app.db", app, lined)
    }
    assert found == {("lines.s", "too-long"): [2, 4, 6], ("lines.b", "too-long"): [8]}


async def test_large_rows_are_sent_in_parts(tmp_path: Path) -> None:
    """No message to the server is larger than a megabyte; the parts contain all data."""
    path = file_of(tmp_path, 3, 3 * MEGABYTE)
    async with SQLiteDatabase(path) as db, snapshot(db, lambda done, total: None) as worker:
        dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
        (plan,) = (await worker.run(lambda raw: plan_copy(raw, metadata, dialect))).tables
        parts = [part async for part in Outgoing(worker, plan, lambda done: None).blocks()]
    assert max(map(len, parts)) == MEGABYTE
    wanted = [f"{id_}\t\\\\x{value.hex()}\n" for id_, value in rows_in(path, blobs)]
    assert b"".join(parts) == "".join(wanted).encode()


async def test_large_rows(app: App, tmp_path: Path) -> None:
    """They are copied, including all parts."""
    path = file_of(tmp_path, 3, 3 * MEGABYTE)
    await copied(path, app, metadata)
    assert await rows_of(app, blobs) == rows_in(path, blobs)
