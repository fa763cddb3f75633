"""The owners of the work of a read and a write, in figures that are the same on every machine."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from benchmarks import instructions
from benchmarks.databases import files, items
from benchmarks.instructions import OWNERS, count
from benchmarks.loads import one_row_writes
from benchmarks.ways import catalogue
from benchmarks.ways.contenders import Contender

_TIMES = 3


def of_reads(contender: Contender, path: Path) -> Counter[str]:
    files.create(path, items.fill)
    return count(contender, path, items.read, writes=False, times=_TIMES).by_owner


def of_writes(contender: Contender, path: Path) -> Counter[str]:
    files.create(path, one_row_writes.fill)
    return count(contender, path, one_row_writes.write, writes=True, times=_TIMES).by_owner


def test_a_read_is_less_work_than_stocks(tmp_path: Path) -> None:
    """No work of aiosqlite, which hops to a thread, remains."""
    stock = of_reads(catalogue.stock, tmp_path / "stock.db")
    ours = of_reads(catalogue.both_engines, tmp_path / "ours.db")
    assert ours.total() < 0.8 * stock.total()
    assert ours["asyncio"] < 0.2 * stock["asyncio"]
    assert (stock["aiosqlite"] > 0, ours["aiosqlite"]) == (True, 0)
    assert (stock["sa_sqlite_pool"], ours["sa_sqlite_pool"] > 0) == (0, True)


def test_a_write_is_less_work_than_stocks(tmp_path: Path) -> None:
    """This holds although it keeps order with other processes."""
    stock = of_writes(catalogue.stock, tmp_path / "stock.db")
    ours = of_writes(catalogue.both_engines, tmp_path / "ours.db")
    assert ours.total() < 0.9 * stock.total()
    assert ours["aiosqlite"] == 0


def test_what_does_not_hop_is_sqlalchemys_own(tmp_path: Path) -> None:
    """The benchmark itself is not counted."""
    found = of_reads(catalogue.synchronous, tmp_path / "one.db")
    assert found["sqlalchemy"] > 0.8 * found.total()
    assert [name for name in OWNERS if found[name]] == ["sqlalchemy"]
    assert "benchmarks" not in found


def test_twice_as_many_are_twice_as_much(tmp_path: Path) -> None:
    path = tmp_path / "one.db"
    files.create(path, items.fill)
    once, twice = (
        count(catalogue.synchronous, path, items.read, writes=False, times=times)
        for times in (2, 4)
    )
    assert twice.by_owner.total() == 2 * once.by_owner.total()
    assert twice.calls == 2 * once.calls


def test_whoever_traced_before_goes_on(tmp_path: Path) -> None:
    """This may be a debugger or a coverage tool."""
    before = sys.gettrace(), threading.gettrace()
    of_reads(catalogue.synchronous, tmp_path / "one.db")
    assert (sys.gettrace(), threading.gettrace()) == before


def test_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """It prints a row for each way."""
    monkeypatch.setattr(instructions, "READING", (catalogue.synchronous, catalogue.both_engines))
    monkeypatch.setattr(instructions, "WRITING", (catalogue.synchronous,))
    app = typer.Typer()
    app.command()(instructions.main)
    result = CliRunner().invoke(app, ["--times", "1"])
    assert result.exit_code == 0, result.output
    assert result.output.count("synchronous") == 2
    assert "SQLiteDatabase, Core" in result.output
