"""Guarantees of a ``fresh()`` block, whatever its tasks do concurrently."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy.util import await_only

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.freshness import BEYOND_ALL, FreshBlock, Position, Seen, parse_token, token_of
from tests.postgresql import App
from tests.servers.models import Account, create_accounts


async def test_a_commit_while_a_position_is_corrected(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that no server has reached is lowered; a commit made meanwhile stays in the token.

    Read: the token is beyond all | Another task of the block
    the primary is at 100         |
                                  | COMMIT at 120
    lowers the token, to 120      |
    """
    committed: list[Position] = []

    async def write() -> None:
        async with db.write() as session:
            (await session.get_one(Account, 1)).balance = 7
        committed.append(parse_token(app.sql("SELECT pg_current_wal_flush_lsn()")))

    async with app.open() as db:
        await create_accounts(db)
        pool: Any = db.reader_engine.pool
        ask = pool._ask

        def ask_while_another_writes(*arguments: Any) -> int:
            position: int = ask(*arguments)
            if len(arguments) > 1 and not committed:  # the position it will be lowered to is known
                await_only(asyncio.create_task(write()))
            return position

        monkeypatch.setattr(pool, "_ask", ask_while_another_writes)
        async with db.fresh(token_of(BEYOND_ALL)) as seen:
            async with db.read() as session:
                await session.get_one(Account, 1)
            assert seen.position >= committed[0]
            async with db.read() as session:
                assert (await session.get_one(Account, 1)).balance == 7
            assert committed[0] <= seen.position < BEYOND_ALL


async def test_a_block_that_ends_in_another_context() -> None:
    """A dependency or a fixture may enter it in one task and exit it in another."""
    settled: list[Seen] = []

    async def settle(seen: Seen) -> None:
        settled.append(seen)

    seen = Seen(settle=settle)
    block = FreshBlock(object(), seen)
    loop = asyncio.get_running_loop()
    await loop.create_task(block.__aenter__())
    seen.note_read("a replica")
    await loop.create_task(block.__aexit__(None, None, None))
    assert settled == [seen]


async def test_on_sqlite_it_does_nothing(db: SQLiteDatabase) -> None:
    """The token is None, and a token that is passed in is ignored."""
    async with db.fresh("of another database") as seen, db.read():
        pass
    assert seen.token is None


@pytest.mark.parametrize("ends", ["the block", "settle()"])
async def test_a_cancellation_while_servers_are_asked(ends: str) -> None:
    """The token does not cover the reads: it is one that only the primary satisfies."""

    async def ask(_seen: Seen) -> None:
        raise asyncio.CancelledError

    seen = Seen(settle=ask)
    with pytest.raises(asyncio.CancelledError):
        if ends == "settle()":
            seen.note_read("a replica")
            await seen.settle()
        else:
            async with FreshBlock(object(), seen):
                seen.note_read("a replica")
    assert seen.position == BEYOND_ALL
    assert not seen.read_from
