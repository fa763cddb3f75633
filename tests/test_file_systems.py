"""Databases on all kinds of file systems: actually mounted if this machine supports it."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from sa_sqlite_pool import (
    DatabaseNotUsableError,
    ReaderPool,
    SQLiteDatabase,
    SQLitePool,
    WriterPool,
)
from sa_sqlite_pool.files import site
from sa_sqlite_pool.system import mounts
from tests.conftest import MakeEngine
from tests.helpers import amounts, create_items, files_beside
from tests.mount_programs import CREATE, DOORS, make_log, use

ROOT = Path(__file__).parent.parent
# The process namespace ends a mount's server with the program.
NAMESPACES = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
AS_ROOT = [] if os.getuid() == 0 else ["--user", "--map-root-user"]
CANNOT_MOUNT = 77
TRUNCATE = {"journal_mode": "TRUNCATE"}


def run_mounted(directory: Path, mount: str, step: str, *arguments: object) -> Any:
    """Run a step of ``mount_programs`` after the shell commands ``mount``, in a mount namespace.

    Both run in ``directory``. Skip the test if this machine cannot mount that.
    """
    for command in ("unshare", *{"bindfs", "fuse-overlayfs"} & set(mount.split())):
        if shutil.which(command) is None:
            pytest.skip(f"needs {command}")
    script = f'cd "$0" && {{ {mount}; }} || exit {CANNOT_MOUNT}; cd "$1"; shift; "$@"'
    program = [sys.executable, "-m", "tests.mount_programs", step, *map(str, arguments)]
    done = subprocess.run(
        [*NAMESPACES, *AS_ROOT, "sh", "-c", script, str(directory), str(ROOT), *program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode == CANNOT_MOUNT or done.stderr.startswith("unshare:"):
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return the directory that is mounted elsewhere."""
    for name in ("source", "mounted", "work", "upper", "lower"):
        (tmp_path / name).mkdir()
    return tmp_path / "source"


@pytest.fixture
def mounted(source: Path) -> Path:
    """Return the mount point."""
    return source.parent / "mounted"


# -- FUSE, actually mounted ------------------------------------------------------------------------

BINDFS = "bindfs source mounted"


def test_wal_is_refused_on_fuse(source: Path, mounted: Path) -> None:
    """Every door names type, place, reason and remedies, and nothing is created."""
    result = run_mounted(source.parent, BINDFS, "open_by_every_door", mounted / "app.db", "WAL")
    for door in DOORS:
        answer = result["answers"][door]
        assert answer.startswith(f"DatabaseNotUsableError: {mounted}/app.db is on fuse, mounted at")
        assert "a FUSE program serves it" in answer
        assert "keep it on a local disk" in answer
        assert 'pragmas={"journal_mode": "TRUNCATE"}' in answer
    assert result["files"] == []
    assert result["said"] == []


def test_what_is_there_is_not_touched(source: Path, mounted: Path) -> None:
    """The files belong to a program without these checks: a database with a log."""
    make_log(str(source / "app.db"))
    before = {entry.name: entry.read_bytes() for entry in source.iterdir()}
    result = run_mounted(source.parent, BINDFS, "open_by_every_door", mounted / "app.db", "WAL")
    assert all("WAL is not reliable" in answer for answer in result["answers"].values())
    assert {entry.name: entry.read_bytes() for entry in source.iterdir()} == before


def test_a_rollback_journal_works_on_fuse(source: Path, mounted: Path) -> None:
    """The warning about the file system is logged once for all engines on the file."""
    step = ("open_by_every_door", mounted / "app.db", "TRUNCATE")
    result = run_mounted(source.parent, BINDFS, *step)
    modes = result["answers"]
    assert {modes[door] for door in ("facade", "swap-in", "writer")} == {"truncate"}
    assert modes["reader"] == "delete"  # each connection has its own mode; it writes no journal
    (said,) = result["said"]
    assert said.startswith(f"app.db is on fuse, mounted at {mounted}: a FUSE program serves it")
    assert "use it from one machine only" in said
    mode, rows, _ = run_mounted(
        source.parent, BINDFS, "write_and_read", mounted / "app.db", "PERSIST"
    )
    assert (mode, rows) == ("persist", 1)


def test_a_log_is_left_where_memory_cannot_be_shared(source: Path, mounted: Path) -> None:
    """SQLite cannot even read the file there; its mode is changed, and the log's rows are kept."""
    by_sqlite, mode, rows, files = run_mounted(
        source.parent,
        "bindfs -o direct_io source mounted",
        *("leave_wal", mounted / "app.db", source / "app.db"),
    )
    assert by_sqlite == "disk I/O error"
    assert (mode, rows) == ("truncate", 10)
    assert "app.db-wal" not in files


def test_a_server_that_does_not_answer(source: Path, mounted: Path) -> None:
    """The event loop continues, and an error is raised after a time; later it works again.

    A program that ends meanwhile is not held up.
    """
    not_cached = "bindfs -o attr_timeout=0,entry_timeout=0 source mounted"
    result = run_mounted(source.parent, not_cached, "stopped_server", mounted / "app.db")
    (*refused, at_last, again), stood_still = result
    assert len(refused) == 2 * len(DOORS)
    for answer in (*refused, again):
        assert "app.db has not responded for 1.00 s; it seems to be on fuse, mounted at" in answer
    assert stood_still < 1.0  # the time that each of them waits
    assert at_last == 0


def test_fuse_overlayfs_is_a_local_disk(source: Path, mounted: Path) -> None:
    """Rootless containers use it: WAL works, without a warning."""
    mount = "fuse-overlayfs -o lowerdir=lower,upperdir=upper,workdir=work mounted"
    result = run_mounted(source.parent, mount, "write_and_read", mounted / "app.db", "WAL")
    assert result == ["wal", 1, []]


# -- the kernel's own file systems -----------------------------------------------------------------


@pytest.mark.parametrize(
    "mount",
    [
        "mount -t tmpfs tmpfs mounted",
        "mount -t tmpfs tmpfs work && mkdir work/upper work/work && mount -t overlay overlay "
        "-o lowerdir=lower,upperdir=work/upper,workdir=work/work mounted",
        "mount --bind source mounted",
    ],
    ids=["tmpfs", "overlay", "bind"],
)
def test_local_file_systems(source: Path, mounted: Path, mount: str) -> None:
    """WAL works, without a warning."""
    result = run_mounted(source.parent, mount, "write_and_read", mounted / "app.db", "WAL")
    assert result == ["wal", 1, []]


def test_a_file_that_is_mounted_by_itself(source: Path, mounted: Path) -> None:
    """As with `docker run -v app.db:/app.db`, its log would be elsewhere, which is logged."""
    (source / "app.db").touch()
    (mounted / "app.db").touch()
    mode, rows, said = run_mounted(
        source.parent,
        *("mount --bind source/app.db mounted/app.db", "write_and_read", mounted / "app.db", "WAL"),
    )
    assert (mode, rows) == ("wal", 1)
    (message,) = said
    assert message.startswith(f"app.db is mounted as a single file, at {mounted}/app.db")
    assert "mount its directory instead" in message


def test_mounts_over_mounts(source: Path, mounted: Path) -> None:
    """The kernel confirms each result: stacked, covered, nested, and with a space."""
    mount = (
        "mount -t tmpfs inner mounted && mkdir mounted/covered && "
        "mount -t tmpfs covered mounted/covered && "
        "mount -t tmpfs outer mounted && mkdir mounted/covered 'mounted/a b' && "
        "mount -t ramfs ramfs 'mounted/a b' && "
        "mount -t tmpfs one source && mount -t ramfs two source"
    )
    paths = [mounted, mounted / "covered", mounted / "a b", source]
    result = run_mounted(source.parent, mount, "mounts_of", *paths)
    assert result == [[True, "tmpfs"], [True, "tmpfs"], [True, "ramfs"], [True, "ramfs"]]


def test_a_read_only_mount(source: Path, mounted: Path) -> None:
    """The message says so; a copy that no process writes to can be read there."""
    with sqlite3.connect(source / "app.db") as connection:
        connection.execute(CREATE)
    connection.close()
    answers, said = run_mounted(
        source.parent,
        "mount --bind source mounted && mount -o remount,ro,bind mounted",
        *("open_copy", mounted / "app.db"),
    )
    *refused, swap_in, reader = answers
    for answer in refused:
        assert f"the directory {mounted} is mounted read-only (" in answer
        assert f"mounted at {mounted}), and SQLite keeps the log or journal beside" in answer
        assert (
            "mount it writable, or open a copy that is never written to, with ?uri=true" in answer
        )
    assert (swap_in, reader, said) == (0, 0, [])
    assert [entry.name for entry in source.iterdir()] == ["app.db"]


def test_a_read_only_file_system(source: Path, mounted: Path) -> None:
    """The same holds for a read-only file system, to which not even root can write."""
    result = run_mounted(
        source.parent,
        "mount -t tmpfs -o ro tmpfs mounted",
        *("open_by_every_door", mounted / "app.db", "TRUNCATE"),
    )
    for answer in result["answers"].values():
        assert f"is mounted read-only (tmpfs, mounted at {mounted})" in answer


def test_a_file_that_is_mounted_read_only(source: Path, mounted: Path) -> None:
    """The cause is the mount, and not the permissions."""
    (source / "app.db").touch()
    (mounted / "app.db").touch()
    result = run_mounted(
        source.parent,
        "mount --bind source/app.db mounted/app.db && mount -o remount,ro,bind mounted/app.db",
        *("open_by_every_door", mounted / "app.db", "WAL"),
    )
    for answer in result["answers"].values():
        assert "app.db is mounted read-only (" in answer
        assert "mount its directory writable, or open it with ?uri=true&mode=ro" in answer
    assert result["files"] == ["app.db"]


# -- what cannot be mounted here, from Linux's descriptions ----------------------------------------


@pytest.fixture
def on_nfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make ``path`` appear to be on a server."""
    listing = tmp_path.parent / f"{tmp_path.name}-mountinfo"
    listing.write_text(
        f"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:9 / {tmp_path} rw - nfs4 nas:/home rw\n"
    )
    monkeypatch.setattr(mounts, "_MOUNTINFO", listing)
    monkeypatch.setattr(site, "_warned", set())


@pytest.mark.parametrize("door", DOORS)
async def test_nfs(path: Path, on_nfs: None, door: str) -> None:
    """WAL is refused before any file is created, and TRUNCATE works; the default is WAL."""
    refusal = f"DatabaseNotUsableError: {path} is on nfs4, mounted at {path.parent}, where WAL"
    assert (await use(door, str(path), "SELECT 1")).startswith(refusal)
    assert files_beside(path) == set()
    assert await use(door, str(path), "SELECT 1", pragmas=TRUNCATE) == 1


async def test_a_link_that_leads_there(
    path: Path, on_nfs: None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The file's real location counts, and SQLite puts the log there, too."""
    link = tmp_path_factory.mktemp("local") / "app.db"
    link.symlink_to(path)
    assert "on nfs4, mounted at" in await use("swap-in", str(link), "SELECT 1")
    elsewhere = path.parent / "link.db"
    elsewhere.symlink_to(link.parent / "real.db")
    assert await use("swap-in", str(elsewhere), "SELECT 1") == 1


async def test_reads_of_a_copy_are_fine(path: Path, on_nfs: None) -> None:
    """There are no locks, and no warning."""
    with sqlite3.connect(path) as connection:
        connection.execute(CREATE)
    connection.close()
    query = "?uri=true&mode=ro&immutable=1"
    for door in ("swap-in", "reader"):
        assert await use(door, f"file:{path}", "SELECT count(*) FROM t", query=query) == 0
    assert site._warned == set()


async def test_the_warning_comes_once_a_file(
    path: Path, on_nfs: None, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not repeated for each engine or connection."""
    for name in ("app.db", "app.db", "other.db"):
        async with SQLiteDatabase(path.parent / name, pragmas=TRUNCATE) as db:
            await create_items(db.writer_engine, 0)
            assert await amounts(db.reader_engine) == []
    warnings = [record for record in caplog.records if record.name == "sa_sqlite_pool"]
    assert [record.levelno for record in warnings] == [logging.WARNING] * 2
    assert [record.getMessage().split()[0] for record in warnings] == ["app.db", "other.db"]


async def test_the_system_is_asked_once(
    path: Path, make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked once for an engine, not for each of its connections."""
    asked: list[str] = []

    def find(file: str) -> Any:
        asked.append(file)
        return mounts.find_mount(file)

    monkeypatch.setattr(site, "find_mount", find)
    monkeypatch.setattr(site, "find_at_hand", lambda path: None)  # as on a file server
    engine = make_engine(SQLitePool)
    await create_items(engine)
    async with engine.connect(), engine.connect(), engine.connect():
        pass
    await engine.dispose()  # it is opened again afterwards
    assert await amounts(engine) == [0, 0, 0]
    assert asked == [str(path)]


async def test_a_place_is_looked_at_again_after_a_refusal(
    path: Path, make_engine: MakeEngine, on_nfs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be mounted elsewhere by then; the same engine works, with its keeper."""
    engine = make_engine(WriterPool)
    with pytest.raises(OperationalError, match="WAL is not reliable") as caught:
        await create_items(engine)
    assert isinstance(caught.value.orig, DatabaseNotUsableError)
    monkeypatch.undo()
    await create_items(engine)
    pool = engine.pool
    assert isinstance(pool, WriterPool)
    assert pool.keeper is not None


async def test_ends_of_reads_leave_the_loop(
    path: Path, make_engine: MakeEngine, on_nfs: None
) -> None:
    """Releasing a lock is a request to the server: a hop, which a local disk does not need."""
    writer, reader = (make_engine(pool, pragmas=TRUNCATE) for pool in (WriterPool, ReaderPool))
    await create_items(writer)
    async with reader.connect() as connection:
        raw: Any = (await connection.get_raw_connection()).dbapi_connection
        await connection.exec_driver_sql("SELECT 1 FROM items")
        before = raw.worker.hops
        await connection.rollback()
        assert raw.worker.hops == before + 1


FORKED = """
import asyncio, os, sys
from concurrent.futures import Future
from sa_sqlite_pool.files.location import Location
from sa_sqlite_pool.files.site import Site

site = Site(Location(sys.argv[1]), "WAL")
site._looking = Future()  # as if a thread of this process were looking
child = os.fork()
if child == 0:
    asyncio.run(site.inspect(1.0))
    os._exit(0 if site.inspected else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no os.fork here")
def test_a_child_does_not_wait_for_its_parents_thread(path: Path) -> None:
    """It checks the place itself."""
    command = [sys.executable, "-c", FORKED, str(path)]
    assert subprocess.run(command, timeout=30, check=False, cwd=ROOT).returncode == 0
