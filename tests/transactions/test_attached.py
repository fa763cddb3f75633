"""Files that are attached to a connection that writes: their locks and turns."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sa_sqlite_pool import WriteTimeout
from sa_sqlite_pool.settings import Role
from sa_sqlite_pool.sqlite.authorizer import Authorizer
from sa_sqlite_pool.transactions import attached as module
from sa_sqlite_pool.transactions.attached import AttachedFiles, begin_and_lock_main
from sa_sqlite_pool.transactions.locks import Patience
from sa_sqlite_pool.turn.write_turn import WriteTurn
from tests.helpers import cancelled_after, turn_of, until_waiting

from .rules import rules_of

RULES = rules_of(Role.AUTO, write_timeout=0.05, read_timeout=0.05)


class Files:
    """A connection to ``app.db`` to which ``a.db`` and ``z.db`` are attached in any order."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.connection = sqlite3.connect(directory / "app.db", isolation_level=None, timeout=0)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.authorizer = Authorizer()
        self.connection.set_authorizer(self.authorizer)
        self.attached = AttachedFiles(self.authorizer)
        self.turns: dict[str, WriteTurn] = {}

    def attach(self, name: str, schema: str = "") -> None:
        self.connection.execute("ATTACH ? AS ?", (str(self.directory / name), schema or name[0]))
        self.attached.learn(self.connection)

    def turn(self, name: str) -> WriteTurn:
        return self.turns.setdefault(name, turn_of(self.directory / name))

    def held(self) -> list[str]:
        return sorted(name for name, turn in self.turns.items() if turn.holder is not None)

    async def take(self, *databases: int, seconds: float = 30) -> None:
        patience = Patience(RULES, None, writing=True, seconds=seconds)
        rules = replace(RULES, turn=self.turn("app.db"))
        await self.attached.take_turns(frozenset(databases), rules, patience)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    files = Files(Path(os.path.realpath(tmp_path)))
    for name in ("a.db", "app.db", "z.db"):
        files.turn(name)
    yield files
    files.attached.give_back()
    files.connection.close()


def test_what_is_attached_is_learned(files: Files) -> None:
    """This is repeated whenever a file was attached or detached, in any way."""
    attached = files.attached
    assert not attached.any
    assert not attached.out_of_date
    files.connection.execute("ATTACH 'file::memory:' AS memory")
    assert attached.out_of_date
    files.attach("z.db")
    assert attached.any
    assert attached.numbers == {3}  # a database in memory has no turn
    files.attach("a.db")
    assert attached.numbers == {3, 4}
    files.connection.execute("DETACH z")
    assert attached.out_of_date
    attached.learn(files.connection)
    assert attached.numbers == {3}


def test_what_could_not_be_learned_is_out_of_date(files: Files) -> None:
    """A cancellation may interrupt it."""
    files.connection.execute("ATTACH '' AS scratch")

    class Stopped:
        def cursor(self) -> Any:
            raise sqlite3.OperationalError("interrupted")

    with pytest.raises(sqlite3.OperationalError):
        files.attached.learn(Stopped())
    assert files.attached.out_of_date


def test_a_file_that_is_attached_twice(files: Files, tmp_path: Path) -> None:
    """The file may be main itself or another one, even by a link."""
    files.attach("a.db")
    assert files.attached.own_file_twice is None
    (tmp_path / "link.db").symlink_to(tmp_path / "app.db")
    files.attach("link.db", "again")
    assert files.attached.own_file_twice == "again"


async def test_the_turns_of_what_is_written_are_taken(files: Files) -> None:
    """They are acquired in the order of their paths, not of attachment; each once, main's not."""
    files.attach("z.db")
    files.attach("a.db")
    order: list[str] = []
    for name in ("a.db", "z.db"):
        turn = files.turn(name)
        acquire = turn.acquire

        async def noted(*args: Any, name: str = name, acquire: Any = acquire, **kw: Any) -> Any:
            order.append(name)
            return await acquire(*args, **kw)

        turn.acquire = noted  # type: ignore[method-assign]
    await files.take(0, 1)
    assert files.held() == []
    await files.take(2, 3)
    await files.take(3)
    assert order == ["a.db", "z.db"]
    assert files.held() == ["a.db", "z.db"]
    files.attached.give_back()
    assert files.held() == []


async def test_waiting_for_a_turn_ends(files: Files) -> None:
    """The error has the caller's time limit and the holder; acquired turns are kept."""
    files.attach("a.db")
    files.attach("z.db")
    permit = await files.turn("z.db").acquire(1)
    waiting = asyncio.create_task(files.take(2, 3, seconds=0.05))
    with pytest.raises(WriteTimeout, match=r"waited 0\.05 s to write to z\.db; the turn has"):
        await waiting
    assert files.held() == ["a.db", "z.db"]
    files.attached.give_back()
    assert files.held() == ["z.db"]
    files.turn("z.db").release(permit)


@pytest.mark.parametrize("steps", range(5))
async def test_a_cancelled_wait_leaves_no_turn_taken(files: Files, steps: int) -> None:
    """The exceptions are turns acquired before, which are held until the transaction ends."""
    files.attach("a.db")
    files.attach("z.db")
    permit = await files.turn("z.db").acquire(1)
    waiting = asyncio.create_task(cancelled_after(files.take(2, 3), steps, 1))
    await asyncio.sleep(0)
    assert await waiting
    await until_waiting(0, files.turn("z.db"))
    files.turn("z.db").release(permit)
    assert "z.db" not in files.held()
    files.attached.give_back()
    assert files.held() == []


async def test_the_turn_between_processes_is_given_back_too(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the turn between processes cannot be entered, the permit is not kept."""
    files.attach("z.db")
    turn = files.turn("z.db")

    async def refuse(*_: object, **__: object) -> None:
        raise LookupError

    monkeypatch.setattr(turn, "enter", refuse)
    with pytest.raises(LookupError):
        await files.take(2)
    assert files.held() == []


def is_locked(path: Path) -> bool:
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
        try:
            other.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            return True
        other.execute("ROLLBACK")
        return False


@pytest.mark.parametrize(
    "schema",
    [
        "",
        "CREATE TABLE items (id)",
        'create table "odd "" name" (id) WITHOUT ROWID'.replace("(id)", "(id PRIMARY KEY)"),
        "CREATE VIRTUAL TABLE search USING fts5(body)",
        "CREATE TABLE items (id); CREATE TRIGGER t BEFORE DELETE ON items BEGIN SELECT foo(); END;",
        "CREATE TABLE items (id); CREATE TEMP TABLE items (id);",
    ],
)
def test_main_is_locked_and_nothing_else(files: Files, schema: str) -> None:
    """The lock is acquired without a change, whatever tables exist, and without an authorizer."""
    files.connection.executescript(schema)
    files.attach("a.db")
    files.connection.execute("CREATE TABLE a.others (id)")
    files.authorizer.application = lambda *_: sqlite3.SQLITE_DENY
    begin_and_lock_main(files.connection, files.authorizer)
    files.authorizer.application = None
    assert files.connection.in_transaction
    assert is_locked(files.directory / "app.db")
    assert not is_locked(files.directory / "a.db")
    version = files.connection.execute("PRAGMA user_version").fetchone()
    files.connection.execute("ROLLBACK")
    assert files.connection.execute("PRAGMA user_version").fetchone() == version


@pytest.mark.parametrize(("schema", "written"), [("", True), ("CREATE TABLE items (id)", False)])
def test_nothing_is_written_where_there_is_a_table(
    files: Files, schema: str, written: bool
) -> None:
    """A COMMIT of such a transaction leaves the log unchanged."""
    files.connection.executescript(f"CREATE TABLE gone (id); DROP TABLE gone; {schema}")
    log = files.directory / "app.db-wal"
    before = log.stat().st_size
    begin_and_lock_main(files.connection, files.authorizer)
    files.connection.execute("COMMIT")
    assert (log.stat().st_size > before) is written


async def test_a_reader_takes_no_turn(files: Files) -> None:
    """Nor does it wait for one, even for uncompiled statements, which might write anything."""
    files.attach("a.db")
    permit = await files.turn("a.db").acquire(1)
    rules = rules_of(Role.READER, write_timeout=0.05, read_timeout=0.05)
    await files.attached.take_turns(frozenset({2}), rules, Patience(rules, None, writing=False))
    assert files.attached.held == []
    files.turn("a.db").release(permit)


@pytest.mark.parametrize("shared", [False, True])
async def test_other_processes_line_up_where_they_do_for_main(files: Files, shared: bool) -> None:
    """The engine's ``file_turn`` applies to all files that it writes."""
    files.attach("a.db")
    if shared:
        files.turn("app.db").share()
    rules = replace(RULES, turn=files.turn("app.db"))
    patience = Patience(rules, None, writing=True, seconds=30)
    await files.attached.take_turns(frozenset({2}), rules, patience)
    assert files.turn("a.db").shared is shared


@pytest.mark.parametrize("schema", ["", "CREATE TABLE items (id)"])
def test_a_lock_in_the_way_of_main(files: Files, schema: str) -> None:
    """The error is raised, and no transaction stays open."""
    files.connection.executescript(schema)
    with closing(sqlite3.connect(files.directory / "app.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match="database is locked"):
            begin_and_lock_main(files.connection, files.authorizer)
    assert not files.connection.in_transaction


async def test_a_large_log_of_an_attached_file_is_moved(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is checkpointed after COMMIT, in its turn; a log of moderate size is left alone."""
    files.attach("a.db")
    files.connection.execute("PRAGMA a.journal_mode = WAL")
    files.connection.execute("PRAGMA wal_autocheckpoint = 0")
    files.connection.execute("CREATE TABLE a.others (id)")
    await files.take(2)
    database = files.directory / "a.db"
    before = database.stat().st_size
    files.attached.look_at_logs(files.connection)
    assert database.stat().st_size == before
    monkeypatch.setattr(module, "_LARGE_LOG", 100)
    files.authorizer.application = lambda *_: sqlite3.SQLITE_DENY
    files.attached.look_at_logs(files.connection)
    assert database.stat().st_size > before


async def test_what_is_committed_stays_so_though_the_log_cannot_be_moved(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cursor of the application is still reading there: "database table is locked"."""
    monkeypatch.setattr(module, "_LARGE_LOG", 100)
    files.attach("a.db")
    files.connection.execute("PRAGMA a.journal_mode = WAL")
    files.connection.execute("CREATE TABLE a.others (id)")
    files.connection.execute("INSERT INTO a.others VALUES (1), (2)")
    await files.take(2)
    cursor = files.connection.execute("SELECT * FROM a.others")
    cursor.fetchone()
    with pytest.raises(sqlite3.OperationalError):
        files.connection.execute("PRAGMA a.wal_checkpoint")
    files.attached.look_at_logs(files.connection)
    (files.directory / "a.db-wal").unlink()
    files.attached.look_at_logs(files.connection)
    cursor.close()
