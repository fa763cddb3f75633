"""How backups and restores report their progress."""

from __future__ import annotations

import asyncio
import contextvars
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from sa_sqlite_pool import ConfigurationError, SQLiteDatabase, restore
from sa_sqlite_pool.backup import page_copy, restoring
from sa_sqlite_pool.backup.copy_job import CopyJob
from tests.backup import ledger
from tests.helpers import files_beside

whose: contextvars.ContextVar[str] = contextvars.ContextVar("whose", default="nobody's")


async def test_progress(db: SQLiteDatabase, copy: Path) -> None:
    """The callback runs in the loop and the caller's context; the last call reports the total."""
    calls: list[tuple[int, int]] = []
    loop = asyncio.get_running_loop()
    whose.set("caller's")

    def progress(copied: int, total: int) -> None:
        assert whose.get() == "caller's"
        assert asyncio.get_running_loop() is loop
        calls.append((copied, total))

    await db.backup(copy, progress=progress, pages_per_step=100)
    totals = {total for _, total in calls}
    assert totals == {copy.stat().st_size // 4096}
    assert [copied for copied, _ in calls] == sorted({copied for copied, _ in calls})
    assert calls[-1][0] == calls[-1][1]
    assert len(calls) > 1


async def test_progress_may_be_print(
    db: SQLiteDatabase, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``progress=print`` works as documented."""
    await db.backup(copy, progress=print)
    pages = copy.stat().st_size // 4096
    assert capsys.readouterr().out.splitlines()[-1] == f"{pages} {pages}"


async def test_progress_does_not_pile_up(db: SQLiteDatabase, copy: Path) -> None:
    """A loop that was busy gets only the latest report, once."""
    calls: list[int] = []
    inside = threading.Event()
    original = page_copy._copy

    def spied(source: Any, target: Any, pages: int, worker: Any, step: page_copy.Step) -> None:
        original(source, target, pages, worker, step)
        inside.set()

    def progress(copied: int, total: int) -> None:
        calls.append(copied)
        assert inside.wait(30)  # the loop is blocked until all steps are done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_copy, "_copy", spied)
        await db.backup(copy, progress=progress, pages_per_step=1)
    assert len(calls) == 2
    assert calls[-1] == copy.stat().st_size // 4096


@pytest.mark.parametrize("at", ["first", "last"])
async def test_progress_raises(db: SQLiteDatabase, copy: Path, at: str) -> None:
    """The backup ends, the caller gets the same error object, and no file is left behind."""
    error = OSError("the pipe is broken")

    def progress(copied: int, total: int) -> None:
        if at == "first" or copied == total:
            raise error

    await db.backup(copy)
    older = copy.read_bytes()
    await ledger.post(db, random.Random(1))
    with pytest.raises(OSError, match="the pipe is broken") as raised:
        await db.backup(copy, progress=progress, pages_per_step=20)
    assert raised.value is error
    assert files_beside(copy) == {"copy.db"}
    assert copy.read_bytes() == older
    assert len(db._keeper.snapshots) == 0  # type: ignore[union-attr]


async def test_progress_raises_once(db: SQLiteDatabase, copy: Path) -> None:
    """It is not called again, although the next step may already be done."""
    calls: list[int] = []
    raised = threading.Event()
    original = page_copy._copy

    def spied(source: Any, target: Any, pages: int, worker: Any, step: page_copy.Step) -> None:
        def each(copied: int, total: int) -> None:
            step(copied, total)
            assert raised.wait(30)
            step(copied + 1, total)

        original(source, target, pages, worker, each)

    def progress(copied: int, total: int) -> None:
        calls.append(copied)
        raised.set()
        raise ValueError(copied)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_copy, "_copy", spied)
        with pytest.raises(ValueError, match="20"):
            await db.backup(copy, progress=progress, pages_per_step=20)
    assert calls == [20]


@pytest.mark.parametrize("over", ["a database", "none"])
async def test_progress_of_a_restore(
    db: SQLiteDatabase, copy: Path, tmp_path: Path, over: str
) -> None:
    """As in a backup, the callback runs in the loop, and the last call reports the total."""
    await db.backup(copy)
    target = tmp_path / "restored.db"
    if over == "a database":
        await db.backup(target)
    calls: list[tuple[int, int]] = []

    def progress(copied: int, total: int) -> None:
        asyncio.get_running_loop()
        calls.append((copied, total))

    await restore(copy, target, progress=progress)
    pages = copy.stat().st_size // 4096
    assert calls[-1] == (pages, pages)
    assert ledger.entries(target) == ledger.entries(copy)


@pytest.mark.parametrize("over", ["a database", "none"])
async def test_progress_that_fails_ends_a_restore(
    db: SQLiteDatabase, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, over: str
) -> None:
    """Its error reaches the caller, and the old content stays, or no file is created."""
    await db.backup(copy)
    monkeypatch.setattr(restoring, "DEFAULT_PAGES_PER_STEP", 1)
    stopped = threading.Event()
    steps, stop = page_copy._copy, CopyJob.stop

    def waits(source: Any, target: Any, pages: int, worker: Any, step: page_copy.Step) -> None:
        def each(copied: int, total: int) -> None:
            step(copied, total)
            stopped.wait(30)

        steps(source, target, pages, worker, each)

    def then_go_on(self: CopyJob, error: Exception) -> None:
        stop(self, error)
        stopped.set()

    monkeypatch.setattr(page_copy, "_copy", waits)
    monkeypatch.setattr(CopyJob, "stop", then_go_on)
    target = tmp_path / "restored.db"
    if over == "a database":
        target.write_bytes(copy.read_bytes())
        before = target.read_bytes()

    def progress(copied: int, total: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await restore(copy, target, progress=progress)
    assert files_beside(target) >= {"app.db"}
    if over == "a database":
        assert target.read_bytes() == before
    else:
        assert not target.exists()
    assert not Path(f"{target}.unfinished").exists()


async def test_a_progress_that_is_none(copy: Path, tmp_path: Path) -> None:
    """It is refused before any file is examined."""
    with pytest.raises(ConfigurationError, match="progress must be a function"):
        await restore(copy, tmp_path / "restored.db", progress=7)  # type: ignore[arg-type]
