"""Consecutive calls: when they share a checkout, and when a check-in comes between them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.closures import write_group
from tests.helpers import UPDATE_FIRST, until


def update(connection: Connection) -> None:
    connection.execute(UPDATE_FIRST)


def use_raw(connection: Connection) -> None:
    connection.connection.driver_connection  # noqa: B018


def checkouts(db: SQLiteDatabase) -> int:
    return db.statistics().engine("writer").connections.checkouts


async def in_a_row(db: SQLiteDatabase, *functions: Callable[[Connection], Any]) -> int:
    """Return how many checkouts they take when one task calls each immediately after the other."""
    before = checkouts(db)
    for function in functions:
        with contextlib.suppress(ZeroDivisionError):
            await db.run_write_core(function)
    return checkouts(db) - before


@pytest.mark.parametrize("first", [update, lambda _: 1 / 0, lambda _: None])
async def test_a_task_that_calls_again_at_once(
    db: SQLiteDatabase, first: Callable[[Connection], Any]
) -> None:
    """Its next call joins the same group: one checkout, as for many calls that wait together."""
    assert await in_a_row(db, first, update, update) == 1
    await until(lambda: not db.statistics().engine("writer").connections.on_loan)


async def test_after_the_raw_connection_was_used(db: SQLiteDatabase) -> None:
    """State that only a check-in resets is never left to the next call."""
    assert await in_a_row(db, use_raw, update) == 2


async def test_for_a_moment_only(db: SQLiteDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise pool_recycle and pool_pre_ping would have no effect."""
    monkeypatch.setattr(write_group, "_LONGEST_SECONDS", 0.0)
    assert await in_a_row(db, update, update, update) == 3


async def test_another_request_in_between(db: SQLiteDatabase) -> None:
    """It came first, so the next call follows it in another group."""
    order: list[str] = []

    def note(name: str) -> Callable[[Connection], None]:
        return lambda _: order.append(name)

    async def calls() -> None:
        await db.run_write_core(note("a"))
        await db.run_write_core(note("c"))

    async def block() -> None:
        async with db.write() as session:
            await session.execute(UPDATE_FIRST)
            order.append("b")

    await asyncio.gather(calls(), block())
    assert order == ["a", "b", "c"]
