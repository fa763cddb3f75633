"""Settings are measured under all loads, and are in effect when they are measured."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from benchmarks.pragmas import measuring as pragmas
from sa_sqlite_pool import SQLiteDatabase

from .calling import call


def test_each_setting_runs_each_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pragmas, "_READS", 10)
    monkeypatch.setattr(pragmas, "_in_a_process", pragmas.run)
    figures = pragmas.measure([1], rounds=1)
    assert [(one.load, one.setting) for one in figures] == [
        (load, setting) for load in pragmas.LOADS for setting in pragmas.SETTINGS
    ]
    assert all(one.cost.cpu > 0 and one.cost.memory > 0 for one in figures)
    assert {one.ratio for one in figures if one.setting == next(iter(pragmas.SETTINGS))} == {1}


@pytest.mark.parametrize("setting", pragmas.SETTINGS)
def test_a_setting_is_set(tmp_path: Path, setting: str) -> None:
    """This holds if SQLite supports it: the largest mapping is a compile-time option."""
    path = tmp_path / "1.db"
    pragmas.fill(path, 1)

    async def told(name: str) -> int:
        async with SQLiteDatabase(path, pragmas=pragmas.SETTINGS[setting]) as db:
            found: int = await db.run_read_core(
                lambda connection: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            )
            return found

    assert asyncio.run(told("temp_store")) == (1 if "FILE" in setting else 2)
    assert (asyncio.run(told("mmap_size")) > 0) == ("mmap_size" in setting)


def test_the_command_says_what_it_measures() -> None:
    done = call("--help", module="benchmarks.pragmas")
    assert done.returncode == 0, done.stderr
    assert "--mebibytes" in done.stdout
