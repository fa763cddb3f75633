"""The rows of a table on their way to the server, and back.

What is sent and what is read back are compared by a hash that does not depend on the order: the sum
of the hashes of all lines. The hash is Python's own for strings, SipHash, with this process's key.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from typing import final

from ..execution.connection_thread import ConnectionThread
from .columns.base import NULL, Codec
from .source import Row, Rows, columns_of
from .tables import TablePlan

_PART_BYTES = 1024 * 1024
_HASHES = 2**128


@final
class Digest:
    """The number of lines, and a hash of them that does not depend on their order."""

    def __init__(self, plan: TablePlan) -> None:
        self.rows = 0
        self._sum = 0
        self._codecs = [column.codec for column in plan.columns]
        self._sent_otherwise = any(codec.has_forms for codec in self._codecs)
        self._read_otherwise = any(codec.read_form for codec in self._codecs)

    def _add(self, lines: Sequence[str]) -> None:
        self.rows += len(lines)
        self._sum = (self._sum + sum(map(hash, lines))) % _HASHES

    def add_sent(self, rows: list[Row], texts: list[list[str]], lines: list[str]) -> None:
        """Add rows that are sent; ``lines`` are composed of the columns ``texts``."""
        if self._sent_otherwise:
            columns = [
                codec.forms(values) if codec.has_forms else known
                for codec, values, known in zip(self._codecs, columns_of(rows), texts, strict=True)
            ]
            lines = list(map("\t".join, zip(*columns, strict=True)))
        self._add(lines)

    def add_read(self, text: str) -> None:
        """Add whole lines that the server has sent."""
        lines = text.split("\n")
        lines.pop()  # what follows the last newline
        if self._read_otherwise and lines:
            columns = zip(*(line.split("\t") for line in lines), strict=True)
            forms = map(_read_forms, self._codecs, columns)
            lines = list(map("\t".join, zip(*forms, strict=True)))
        self._add(lines)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Digest):
            return NotImplemented
        return (self.rows, self._sum) == (other.rows, other._sum)

    __hash__ = None  # type: ignore[assignment]


def _read_forms(codec: Codec, texts: Iterable[str]) -> Iterable[str]:
    form = codec.read_form
    return texts if form is None else [t if t == NULL else form(t) for t in texts]


@final
class Outgoing:
    """The rows of one table in the format of COPY, one block ahead of what is being sent."""

    def __init__(
        self, worker: ConnectionThread, plan: TablePlan, progress: Callable[[int], object]
    ) -> None:
        self.digest = Digest(plan)
        self.source: Rows | None = None
        self._worker = worker
        self._plan = plan
        self._progress = progress

    async def blocks(self) -> AsyncGenerator[bytes, None]:
        """Yield the blocks, in parts of a megabyte."""
        coming = self._worker.run(self._step)
        while block := await coming:
            coming = self._worker.run(self._step)
            # A server accepts no message of more than a gigabyte, however long a row is.
            for start in range(0, len(block), _PART_BYTES):
                yield block[start : start + _PART_BYTES]
            self._progress(self.digest.rows)

    def _step(self, connection: sqlite3.Connection) -> bytes:
        """Return the next block, or nothing at the end. It runs in the thread."""
        if self.source is None:
            self.source = Rows(connection, self._plan.select_copied)
        rows = self.source.next()
        if not rows:
            return b""
        columns = [
            list(column.codec.texts(values))
            for column, values in zip(self._plan.columns, columns_of(rows), strict=True)
        ]
        lines = list(map("\t".join, zip(*columns, strict=True)))
        self.digest.add_sent(rows, columns, lines)
        lines.append("")
        return "\n".join(lines).encode()


@final
class Incoming:
    """The rows of one table as the server returns them, hashed in the thread."""

    def __init__(
        self, worker: ConnectionThread, plan: TablePlan, progress: Callable[[int], object]
    ) -> None:
        self.digest = Digest(plan)
        self._worker = worker
        self._progress = progress
        self._parts: list[bytes] = []
        self._size = 0
        self._running: Awaitable[None] | None = None

    async def take(self, data: bytes) -> None:
        """Accept a part of any size."""
        self._parts.append(data)
        self._size += len(data)
        if self._size >= _PART_BYTES:
            await self._hash()

    async def end(self) -> None:
        """Wait until everything is hashed."""
        await self._hash()
        await self._hashed()

    async def _hash(self) -> None:
        whole, newline, rest = b"".join(self._parts).rpartition(b"\n")
        self._parts, self._size = [rest], len(rest)
        await self._hashed()
        text = whole + newline
        self._running = self._worker.run(lambda _: self.digest.add_read(text.decode()))

    async def _hashed(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            await running
            self._progress(self.digest.rows)
