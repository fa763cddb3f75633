"""A file with faults: every fault is listed, and nothing is copied."""

from __future__ import annotations

import pickle
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sa_sqlite_pool import MisfitsError
from sa_sqlite_pool.copying.misfits import EXAMPLES
from tests.copying.dirty import dirty, make_dirty, metadata
from tests.copying.files import copied, rows_of, tables_on
from tests.postgresql import App


async def refused(path: Path, app: App) -> MisfitsError:
    with pytest.raises(MisfitsError) as caught:
        await copied(path, app, metadata)
    return caught.value


async def test_each_fault_is_named(app: App, tmp_path: Path) -> None:
    """Exactly the faults are listed, with table, column, kind and key; the server stays empty."""
    wanted = make_dirty(tmp_path / "app.db")
    error = await refused(tmp_path / "app.db", app)
    found = {
        (group.column, group.kind): [misfit.key["id"] for misfit in group.first]
        for group in error.report.misfits
        if group.table == "dirty"
    }
    assert found == wanted
    assert all(group.total == len(group.first) for group in error.report.misfits)
    assert tables_on(app) == ""


async def test_a_row_without_a_key_is_named_by_its_rowid(app: App, tmp_path: Path) -> None:
    """SQLite's own shell finds the row by it."""
    make_dirty(tmp_path / "app.db")
    error = await refused(tmp_path / "app.db", app)
    (group,) = [group for group in error.report.misfits if group.table == "keyless"]
    assert [(misfit.key, misfit.found) for misfit in group.first] == [({"rowid": 2}, "'long'")]


async def test_what_only_looks_odd_is_copied(app: App, tmp_path: Path) -> None:
    """No value is refused that PostgreSQL can store as the application reads it."""
    make_dirty(tmp_path / "app.db", faults=False)
    report = await copied(tmp_path / "app.db", app, metadata)
    rows = await rows_of(app, dirty)
    assert len(rows) == report.rows
    place = list(dirty.columns.keys()).index("price")
    assert [str(row[place]) for row in rows if row[place] is not None] == [
        *("0.30", "0.00", "9999.99")
    ]


async def test_of_many_the_first_are_named(app: App, tmp_path: Path) -> None:
    """All are counted, but few are kept, so memory use is that of a file without faults."""
    make_dirty(tmp_path / "app.db", faults=False)
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection, connection:
        rows = [(number, "x" * number) for number in range(100, 1100)]
        connection.executemany("INSERT INTO dirty (id, short, wanted) VALUES (?, ?, 1)", rows)
    (group,) = (await refused(tmp_path / "app.db", app)).report.misfits
    assert (group.total, len(group.first)) == (1000, EXAMPLES)
    assert str(group.first[0]).startswith(f"id=100: '{'x' * 60}'… (100 in all): longer than 5")


async def test_the_error_says_it_all(app: App, tmp_path: Path) -> None:
    """It has one line for each kind and column, and can be passed between processes."""
    make_dirty(tmp_path / "app.db")
    error = await refused(tmp_path / "app.db", app)
    assert str(error).startswith("values that do not fit: 42; nothing was copied")
    assert "  dirty.flag: boolean, 2; the first: id=1005: 2: neither 0 nor 1" in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
