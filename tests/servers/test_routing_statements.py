"""Statements that use the writer if the reader is a replica: the corpus, executed."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from types import FrameType
from typing import Any

import pytest
from sqlalchemy import Sequence, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from sa_sqlite_pool.postgresql.acting import text_acts
from tests.postgresql import until

from .models import Account
from .routed import Routed
from .statements import (
    ACTING,
    ACTING_CONSTRUCTS,
    INNOCENT,
    INNOCENT_CONSTRUCTS,
    SCHEMA,
    SEVERAL,
)

# Locks of applications, not of replay. Reads hold an AccessShareLock.
_LOCKS = """
SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE backend_type = 'client backend' AND datname = 'routed'
    AND (locktype = 'advisory' OR (locktype = 'relation' AND mode <> 'AccessShareLock'))
"""


@asynccontextmanager
async def asking(routed: Routed) -> AsyncIterator[AsyncConnection]:
    """Yield a connection to the replica that queries its locks."""
    engine = create_async_engine(routed.app.url(routed.replica), isolation_level="AUTOCOMMIT")
    try:
        async with engine.connect() as connection:
            yield connection
    finally:
        await engine.dispose()


async def test_what_acts_acts_on_the_primary_alone(routed: Routed) -> None:
    """No statement of the corpus, text or construct, leaves a lock or a setting on the replica."""
    routed.app.sql(SCHEMA)
    await routed.caught_up()
    wrong = []
    async with asking(routed) as replica:
        for statement in [*map(_as_text, [*ACTING, *SEVERAL]), *ACTING_CONSTRUCTS]:
            routed.went.clear()
            async with routed.maker() as session:
                with suppress(DBAPIError):  # the primary refuses some of them for other reasons
                    await session.execute(statement)
                if set(routed.went) != {"writer"} or await replica.scalar(text(_LOCKS)):
                    wrong.append(statement)
    assert list(map(str, wrong)) == []


async def test_what_is_innocent_is_read_on_the_replica(routed: Routed) -> None:
    """The same words in strings, comments and names do not prevent reads on the replica."""
    routed.app.sql(SCHEMA)
    await routed.caught_up()
    wrong = []
    for statement in [*map(_as_text, INNOCENT), *INNOCENT_CONSTRUCTS]:
        routed.went.clear()
        async with routed.maker() as session:
            await session.execute(statement)
        if set(routed.went) != {"reader"}:
            wrong.append(statement)
    assert list(map(str, wrong)) == []


def _as_text(sql: str) -> Any:
    # SQLAlchemy would take this for a parameter.
    return text(sql.replace("[:", r"[\:"))


async def test_effects_are_the_primarys(routed: Routed) -> None:
    """Locks, settings and sequence numbers are on the server of the session's writes."""
    routed.app.sql(SCHEMA)
    await routed.caught_up()
    held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4242"
    async with routed.maker() as session:
        assert await session.scalar(select(Account.balance)) == 10
        await session.execute(text("SELECT pg_advisory_xact_lock(4242)"))
        await session.execute(text("SELECT set_config('app.tenant', '7', true)"))
        assert routed.app.sql(held) == "1"
        assert routed.app.sql(held, routed.replica) == "0"
        assert await session.scalar(text("SELECT current_setting('app.tenant')")) == "7"
        assert await session.scalar(Sequence("numbers")) == 1
        assert await session.scalar(text("SELECT currval('numbers')")) == 1
    assert routed.app.sql("SELECT last_value FROM numbers") == "1"


async def test_news_are_the_primarys(routed: Routed) -> None:
    """A notification reaches its listeners, which are possible only on the primary."""
    asyncpg = pytest.importorskip("asyncpg")
    url = routed.app.cluster.primary.url(database=routed.app.database)
    listener = await asyncpg.connect(
        host=url.host, port=url.port, user=url.username, database="routed"
    )
    heard: list[str] = []
    try:
        await listener.add_listener("channel", lambda *args: heard.append(args[-1]))
        async with routed.maker() as session:
            await session.scalar(select(Account.balance))
            await session.execute(text("SELECT pg_notify('channel', 'news')"))
            await session.commit()
        await until(lambda: heard == ["news"])
    finally:
        await listener.close()


# -- as text alone ------------------------------------------------------------------------------


@pytest.mark.parametrize("sql", [*ACTING, *SEVERAL])
def test_texts_that_act(sql: str) -> None:
    """They act within a long text, too."""
    assert text_acts(sql)
    assert text_acts(sql + " " * 5000)
    assert text_acts(f"/* {'a' * 5000} */ {sql}")


@pytest.mark.parametrize("sql", INNOCENT)
def test_innocent_texts(sql: str) -> None:
    """They are innocent within a long text, too."""
    assert not text_acts(sql)
    assert not text_acts(f"/* {'a' * 5000} */ {sql}")


LONG = "SELECT * FROM words WHERE id IN ({})"


def test_long_texts() -> None:
    """A text is searched up to a limit, and parsed up to a lower one; beyond, it may act."""
    many = ", ".join(map(str, range(10_000)))
    assert not text_acts(LONG.format(many))
    assert text_acts(LONG.format(many + ", 0" * 10_000))
    assert not text_acts(LONG.format("'for'"))
    assert text_acts(LONG.format(f"'for', {many}"))
    assert text_acts(f"{LONG.format(many)} FOR UPDATE")


def test_texts_are_judged_in_bounded_time() -> None:
    """The interpreter executes only a few lines for each character, whatever the text contains."""
    evil = [
        *("(with " * 1300, "(update " * 1000, "for " * 2000, "((" * 4000, "/*" * 4000),
        *("E'\\'" * 1500, "E'a'\n" * 1500, "$a$ $b$" * 1000, "'" * 8001, ": :" * 2000),
    ]
    for text_ in evil:
        assert _lines(lambda sql=f"SELECT nextval, {text_}": text_acts(sql)) < 400_000, text_[:9]  # type: ignore[misc]


def _lines(call: Callable[[], object]) -> int:
    count = 0

    def trace(_frame: FrameType, _event: str, _arg: object) -> Any:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count
