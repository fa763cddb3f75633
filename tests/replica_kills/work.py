"""One session that reads, then writes, and its reported outcome."""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from tests.campaigns import OnPurpose
from tests.cancellations.oracle import Fate

from .killer import Victim

_ROWS = select(func.generate_series(1, 3000))
_WRITE = text("INSERT INTO entries (token, part) VALUES (:token, :part)")

WRITES_ALWAYS_WORK = "a write, its COMMIT, ROLLBACK and close() do not fail: {}"


@dataclass
class Story:
    """The outcome of the transaction ``token``, with a number of ``parts``.

    ``fate`` is the outcome reported to the application. ``failed_reads`` counts caught errors.
    """

    token: str
    parts: int = 0
    fate: Fate = Fate.ROLLED_BACK
    failed_reads: int = 0
    undone: int = 0


class Work:
    """A session's reads and writes, drawn at random."""

    def __init__(self, story: Story, rng: Random) -> None:
        self.story = story
        self._rng = rng
        self._streams: list[Any] = []

    async def read_first(self, session: AsyncSession) -> Victim | None:
        """Start to read; return the connection, or None if the first read has failed.

        The read may get a connection at rest that was killed before.
        """
        try:
            return await Victim.of(session)
        except Exception:
            self.story.failed_reads += 1
            await self._must(session.rollback())
            return None

    async def go_on(self, session: AsyncSession) -> None:
        """Read more, write, and end, while the connection of the reads is killed."""
        for _ in range(self._rng.randrange(4)):
            await self._read(session)
        if self._rng.random() < 0.1:  # a session that only reads
            await self._must(getattr(session, self._rng.choice(["commit", "rollback", "close"]))())
            return
        for _ in range(self._rng.randint(1, 3)):
            await self._write(session)
            if self._rng.random() < 0.3:
                await self._read_own(session)
        await self._end(session)
        await self._read_on()

    async def _read(self, session: AsyncSession) -> None:
        try:
            if self._rng.random() < 0.3:
                stream = await session.stream(_ROWS)
                self._streams.append(stream)
                await stream.fetchmany(self._rng.randint(1, 40))
            else:
                await session.scalar(text("SELECT count(*) FROM entries"))
        except Exception:
            self.story.failed_reads += 1

    async def _read_on(self) -> None:
        for stream in self._streams:
            with suppress(Exception):
                await stream.all()

    async def _write(self, session: AsyncSession) -> None:
        """Insert a part, sometimes in a savepoint, which is sometimes rolled back."""
        if self._rng.random() < 0.5:
            await self._must(self._insert(session))
            self.story.parts += 1
        elif self._rng.random() < 0.5:
            async with session.begin_nested():
                await self._must(self._insert(session))
            self.story.parts += 1
        else:
            with suppress(OnPurpose):
                async with session.begin_nested():
                    await self._must(self._insert(session))
                    raise OnPurpose
            self.story.undone += 1

    async def _insert(self, session: AsyncSession) -> None:
        values = {"token": self.story.token, "part": self.story.parts}
        await session.execute(_WRITE, values)

    async def _read_own(self, session: AsyncSession) -> None:
        """Check that uncommitted writes are read where they are, on the primary."""
        sql = text("SELECT count(*) FROM entries WHERE token = :token")
        found = await self._must(session.scalar(sql, {"token": self.story.token}))
        assert found == self.story.parts, f"{self.story} reads {found} parts of its own"

    async def _end(self, session: AsyncSession) -> None:
        if self._rng.random() < 0.7:
            self.story.fate = Fate.UNKNOWN
            await self._must(session.commit())
            self.story.fate = Fate.ACKNOWLEDGED
        else:
            await self._must(session.rollback())

    async def _must(self, call: Awaitable[Any]) -> Any:
        try:
            return await call
        except Exception as error:
            raise AssertionError(WRITES_ALWAYS_WORK.format(repr(error))) from error
