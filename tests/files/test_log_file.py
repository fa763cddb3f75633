"""The number of frames in a log, compared with SQLite's own count."""

from __future__ import annotations

import io
import os
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from sa_sqlite_pool.files import log_file
from sa_sqlite_pool.files.log_file import LogSize, measure

PAGE_SIZES = [2**power for power in range(9, 17)]
HEADER, FRAME_HEADER = 32, 24


class Log:
    """A database with a log, one connection that writes, and one that queries SQLite."""

    def __init__(self, path: Path, page_size: int = 4096) -> None:
        self.path, self.page_size = path, page_size
        self.log = Path(f"{path}-wal")
        self.writer, self.other = (
            sqlite3.connect(path, timeout=0, isolation_level=None) for _ in range(2)
        )
        self.writer.execute(f"PRAGMA page_size = {page_size}")
        self.writer.execute("PRAGMA journal_mode = WAL")
        self.writer.execute("PRAGMA synchronous = OFF")
        for connection in (self.writer, self.other):
            connection.execute("PRAGMA wal_autocheckpoint = 0")
        self.writer.execute("CREATE TABLE t (data BLOB)")

    def write(self, pages: int = 1) -> None:
        size = self.page_size * pages
        self.writer.execute("INSERT INTO t VALUES (randomblob(?))", [size])

    def frames(self) -> int:
        """Return SQLite's own number, after a passive checkpoint."""
        _, frames, _ = self.other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return int(frames)

    def measured(self) -> LogSize:
        return measure(str(self.log))

    def close(self) -> None:
        self.writer.close()
        self.other.close()


@pytest.fixture
def log(path: Path) -> Iterator[Log]:
    log = Log(path)
    yield log
    log.close()


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_frames_are_counted_as_sqlite_counts_them(path: Path, page_size: int) -> None:
    """The count holds while the log grows, and after a restart in a log that was larger before."""
    log = Log(path, page_size)
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM t").fetchone()  # keeps the log growing
    for pages in (1, 2, 3, 1, 20, 1, 1, 5):
        log.write(pages)
        found = log.measured()
        assert found.frames == log.frames()
        assert found.frame_size == FRAME_HEADER + page_size
        assert found.size == HEADER + found.used == log.log.stat().st_size
    first = log.measured()
    reader.execute("ROLLBACK")
    assert log.frames() == first.frames  # all of them are moved
    log.write()
    anew = log.measured()
    assert anew.frames == log.frames() < first.frames
    assert anew.salts != first.salts
    assert anew.size == first.size == log.log.stat().st_size
    assert anew.used == anew.frames * (FRAME_HEADER + page_size)
    reader.close()
    log.close()


def test_every_length_of_a_log_that_began_anew(log: Log) -> None:
    """The count holds for each new frame over the old ones, until the new log is larger."""
    for _ in range(20):
        log.write()
    old = log.measured()
    assert log.frames() == old.frames
    log.write()
    reader = sqlite3.connect(log.path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM t").fetchone()
    while log.measured().frames < old.frames + 3:
        log.write()
        found = log.measured()
        assert found.frames == log.frames()
        assert found.size == max(old.size, HEADER + found.used)
    reader.close()


def test_frames_of_a_transaction_that_was_rolled_back(log: Log) -> None:
    """Spilled frames count until they are overwritten: the count is never too low."""
    log.write()
    before = log.measured().frames
    log.writer.execute("PRAGMA cache_size = 5")
    log.writer.execute("BEGIN IMMEDIATE")
    for _ in range(50):
        log.write()
    spilled = log.measured().frames
    assert spilled > before + 20
    log.writer.execute("ROLLBACK")
    assert log.measured().frames == spilled
    assert log.frames() == before
    log.write()
    assert log.frames() <= log.measured().frames <= spilled


def test_a_log_that_ends_in_the_middle_of_a_frame(log: Log, tmp_path: Path) -> None:
    """As after a crash, only complete frames count."""
    for _ in range(10):
        log.write()
    whole = log.measured()
    content = log.log.read_bytes()
    torn = tmp_path / "torn"
    for frames in (0, 1, 5, whole.frames - 1):
        for more in (0, 1, FRAME_HEADER - 1, FRAME_HEADER, whole.frame_size - 1):
            size = HEADER + frames * whole.frame_size + more
            torn.write_bytes(content[:size])
            assert measure(str(torn)) == LogSize(size, frames, whole.frame_size, whole.salts)


def test_a_missing_file(tmp_path: Path) -> None:
    """Nothing is in use if the file is missing or cannot be read."""
    assert measure(str(tmp_path / "missing")) == LogSize() == (0, 0, 0, ())
    assert measure(str(tmp_path)) == LogSize()
    assert LogSize().used == 0


@pytest.mark.parametrize("size", [0, 1, HEADER - 1])
def test_a_file_without_a_whole_header(log: Log, tmp_path: Path, size: int) -> None:
    """The log is empty after a truncation, or torn after a crash."""
    torn = tmp_path / "torn"
    torn.write_bytes(log.log.read_bytes()[:size])
    assert measure(str(torn)) == LogSize(size)


def test_a_log_that_was_truncated(log: Log) -> None:
    """A log that SQLite itself has truncated contains no frames."""
    log.write()
    log.other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert log.measured() == LogSize(0)


@pytest.mark.parametrize("header", [b"\0" * HEADER, b"\xff" * HEADER, b"SQLite format 3\0" * 2])
def test_garbage(tmp_path: Path, header: bytes) -> None:
    """Garbage has a size, but no frames in use."""
    garbage = tmp_path / "garbage"
    garbage.write_bytes(header + header * 1000)
    assert measure(str(garbage)) == LogSize(HEADER * 1001)


def test_a_header_without_a_page_size(tmp_path: Path) -> None:
    """There is no frame without a page."""
    torn = tmp_path / "torn"
    torn.write_bytes(struct.pack(">I", 0x377F0682) + b"\0" * (HEADER - 4 + 10 * FRAME_HEADER))
    assert measure(str(torn)) == LogSize(HEADER + 10 * FRAME_HEADER)


def test_both_byte_orders_of_checksums(log: Log, tmp_path: Path) -> None:
    """The magic number indicates the byte order; frames are found in both."""
    log.write()
    content = log.log.read_bytes()
    for magic in (0x377F0682, 0x377F0683):
        other = tmp_path / f"{magic}"
        other.write_bytes(struct.pack(">I", magic) + content[4:])
        assert measure(str(other)) == log.measured()


def test_a_log_that_is_truncated_meanwhile(log: Log) -> None:
    """If another process truncates the log between two reads, the missing frames do not count."""
    for _ in range(10):
        log.write()

    class Truncated(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            found = super().read(-1 if size is None else size)
            os.truncate(log.log, HEADER + 10)
            return found

    with Truncated(log.log, "rb") as file:
        found = log_file._measure(file)
    assert found.frames == 0


def test_a_large_log_takes_few_reads(tmp_path: Path) -> None:
    """A bisection suffices for a file of 4 GiB, which is sparse and takes no space on the disk."""
    reads: list[int] = []

    class Counted(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            reads.append(-1 if size is None else size)
            return super().read(-1 if size is None else size)

    sparse = tmp_path / "sparse"
    salts = struct.pack(">2I", 7, 8)
    frame = FRAME_HEADER + 4096
    with sparse.open("wb") as file:
        file.write(struct.pack(">4I", 0x377F0682, 3007000, 4096, 1) + salts + b"\0" * 8)
        for number in range(1000):
            file.seek(HEADER + number * frame)
            file.write(b"\0" * 8 + salts + b"\0" * 8)
        file.truncate(2**32)
    with Counted(sparse, "rb") as counted:
        found = log_file._measure(counted)
    assert found.frames == 1000
    assert len(reads) <= 22
    assert max(reads) <= HEADER
