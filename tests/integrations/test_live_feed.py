"""The feed of the live page, over real HTTP: its content, and when no sampler runs."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.routing import Mount

from sa_sqlite_pool import SQLiteDatabase, SQLitePool
from sa_sqlite_pool.integrations.live import LivePage, feed, live_page
from sa_sqlite_pool.integrations.live.feed import Feed, Sampler
from sa_sqlite_pool.stats.database import DatabaseStatistics
from tests.helpers import UPDATE_FIRST, create_items, until

from .serving import Event, events, serve


def everybody(_request: Request) -> bool:
    return True


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a sample every 50 ms."""
    monkeypatch.setattr(feed, "INTERVAL_SECONDS", 0.05)
    monkeypatch.setattr(feed, "IDLE_SECONDS", 0.1)


def mounted(watched: Any) -> Starlette:
    return Starlette(routes=[Mount("/sqlite", live_page(watched, allow=everybody))])


@asynccontextmanager
async def watching(
    client: httpx.AsyncClient, after: str = "", **headers: str
) -> AsyncIterator[AsyncIterator[Event]]:
    """Yield the events of one viewer."""
    query = {"after": after} if after else {}
    async with client.stream("GET", "/sqlite/feed", params=query, headers=headers) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-accel-buffering"] == "no"
        yield events(response)


async def first(viewer: AsyncIterator[Event], holds: Callable[[Event], object]) -> Event:
    """Return the first event for which ``holds`` is true."""
    async for event in viewer:
        if holds(event):
            return event
    raise AssertionError("the stream has ended")


async def test_the_holder_of_the_turn_and_its_line(db: SQLiteDatabase) -> None:
    """The task, the application's line and SQL are shown, with the number of waiting tasks."""
    await create_items(db.writer_engine)
    async with serve(mounted(db)) as (client, _), db.write() as session:
        await session.execute(UPDATE_FIRST)
        other = asyncio.create_task(db.run_write(lambda s: s.execute(UPDATE_FIRST) and None))
        async with watching(client) as viewer:
            event = await first(viewer, lambda event: event.now["turn"]["waiting"] == 1)
        await session.commit()
        await other
    holder = event.now["turn"]["holder"]
    assert holder["sql"] == str(UPDATE_FIRST)
    assert holder["now_at"].startswith("test_live_feed.py:")
    assert event.now["engines"][1]["holders"]


async def test_rates_are_those_of_the_interval(db: SQLiteDatabase) -> None:
    """Commits and statements per second are shown from the second sample on."""
    await create_items(db.writer_engine)
    async with serve(mounted(db)) as (client, _), watching(client) as viewer:
        begun = await anext(viewer)
        assert begun.points == []
        await db.run_write(lambda session: session.execute(UPDATE_FIRST) and None)
        event = await first(viewer, lambda event: event.points and event.points[0]["commits"])
    point = event.points[0]
    assert point["inline"] + point["in_thread"] > 0
    assert point["wal_bytes"] > 0
    assert point["rollbacks"] == 0


async def test_the_log(db: SQLiteDatabase) -> None:
    """Its size, its limits and the last checkpoint are shown."""
    await create_items(db.writer_engine)
    await db.checkpoint()
    async with serve(mounted(db)) as (client, _), watching(client) as viewer:
        wal = (await anext(viewer)).now["wal"]
    assert wal["size"] > 0
    assert wal["limit"] > wal["soft_limit"] > 0
    assert wal["last_checkpoint"]["outcome"] == "moved_all"


async def test_statements_of_all_engines_in_one_list(db: SQLiteDatabase) -> None:
    """Each has its engine; the engines themselves list none, to limit the size."""
    await create_items(db.writer_engine)
    async with db.read() as session:
        await session.execute(text("SELECT count(*) FROM items"))
    async with serve(mounted(db)) as (client, _), watching(client) as viewer:
        now = (await anext(viewer)).now
    found = {(one["role"], one["sql"]): one for one in now["slowest"]}
    assert found["reader", "SELECT count(*) FROM items"]["runs"] == 1
    assert any(role == "writer" for role, _ in found)
    assert all(engine["statements"]["slowest"] == [] for engine in now["engines"])


async def test_several_databases_and_engines(
    db: SQLiteDatabase, make_engine: Callable[..., AsyncEngine], tmp_path: Path
) -> None:
    """Each is shown by its name, in the given order."""
    engine = make_engine(SQLitePool, f"sqlite+aiosqlite:///{tmp_path / 'jobs.db'}")
    watched = {"shop": db, "jobs": engine, "sync": engine.sync_engine}
    async with serve(mounted(watched)) as (client, _), watching(client) as viewer:
        found = (await anext(viewer)).data["databases"]
    assert [one["name"] for one in found] == ["shop", "jobs", "sync"]
    assert [one["now"]["name"] for one in found] == ["app.db", "jobs.db", "jobs.db"]


async def test_a_database_that_is_not_open(path: Path) -> None:
    """Its problem is shown before open() and after close(), and its state in between."""
    db = SQLiteDatabase(path)
    async with serve(mounted(db)) as (client, _), watching(client) as viewer:
        before = await anext(viewer)
        async with db:
            await first(viewer, lambda event: event.data["databases"][0]["problem"] is None)
        after = await first(viewer, lambda event: event.data["databases"][0]["problem"])
    assert "app.db is not open" in before.data["databases"][0]["problem"]
    assert "app.db was closed" in after.data["databases"][0]["problem"]
    assert after.now == {}


async def test_a_failure_is_shown_and_logged_once(
    db: SQLiteDatabase, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Viewers continue, and the other databases are shown."""

    def fail() -> None:
        raise OSError("no such disk")

    broken = SQLiteDatabase(":memory:")
    monkeypatch.setattr(broken, "statistics", fail)
    both = {"broken": broken, "db": db}
    async with serve(mounted(both)) as (client, _), watching(client) as viewer:
        await anext(viewer)
        broken_one, other = (await anext(viewer)).data["databases"]
    assert broken_one["problem"] == "OSError: no such disk"
    assert other["problem"] is None
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


# -- one sampler ---------------------------------------------------------------------------------


@pytest.fixture
def taken(db: SQLiteDatabase, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by one with each sample."""
    taken: list[int] = []
    statistics = db.statistics

    def counted() -> Any:
        taken.append(1)
        return statistics()

    monkeypatch.setattr(db, "statistics", counted)
    return taken


async def test_viewers_share_the_samples(db: SQLiteDatabase, taken: list[int]) -> None:
    """There is one sample per interval for any number of viewers, with the same id for all."""
    app = mounted(db)
    async with serve(app) as (client, _), watching(client) as one, watching(client) as other:
        await anext(one)
        ids = {(await anext(one)).id for _ in range(3)}
        assert {(await first(other, lambda event: event.id in ids)).id} < ids
    assert len(taken) < 12


async def test_nothing_runs_without_a_viewer(
    db: SQLiteDatabase, taken: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No sample is taken before the first viewer; soon after the last, no task is left either."""
    samplers: list[Sampler] = []
    monkeypatch.setattr(Feed, "sampler", noting(Feed.sampler, samplers))
    async with serve(mounted(db)) as (client, _):
        assert (await client.get("/sqlite/")).status_code == 200
        assert taken == []
        async with watching(client) as viewer:
            await anext(viewer)
        (sampler,) = samplers
        await until(lambda: sampler.viewers == 0)
        await until(lambda: not sampler.running)
        count = len(taken)
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert "live page" not in names
        async with watching(client) as viewer:
            again = await anext(viewer)
            assert (len(taken), again.data["whole"], again.points) == (count + 1, True, [])


def noting(method: Callable[[Feed], Sampler], samplers: list[Sampler]) -> Callable[[Feed], Sampler]:
    def noted(self: Feed) -> Sampler:
        sampler = method(self)
        if sampler not in samplers:
            samplers.append(sampler)
        return sampler

    return noted


async def test_a_viewer_that_comes_later_sees_the_history(db: SQLiteDatabase) -> None:
    """It receives all previous points at once, and then one at a time."""
    async with serve(mounted(db)) as (client, _), watching(client) as viewer:
        for _ in range(4):
            await anext(viewer)
        async with watching(client) as later:
            whole, step = await anext(later), await anext(later)
    assert whole.data["whole"]
    assert len(whole.points) >= 3
    assert not step.data["whole"]
    assert len(step.points) == 1
    assert step.points[0]["at"] > whole.points[-1]["at"] - 0.1


@pytest.mark.parametrize("way", ["query", "header"])
async def test_a_stream_ends_and_goes_on_where_it_was(
    db: SQLiteDatabase, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Access is checked again for the next; no sample is missed, and none is sent twice."""
    monkeypatch.setattr(feed, "STREAM_SECONDS", 0.2)
    async with serve(mounted(db)) as (client, _):
        async with watching(client) as viewer:
            seen = [event async for event in viewer]
        assert [event.kind for event in seen][-2:] == ["message", "end"]
        last = seen[-2].id
        again = {"after": last} if way == "query" else {"Last-Event-ID": last}
        async with watching(client, **again) as viewer:
            event = await anext(viewer)
    series, _, number = last.partition("-")
    assert event.id == f"{series}-{int(number) + 1}"
    assert not event.data["whole"]


@pytest.mark.parametrize("last", ["", "x", "other-1", "{}-99", "{}-x", "{}-" + "9" * 9999])
async def test_an_id_that_is_not_known(db: SQLiteDatabase, last: str) -> None:
    """All known points are sent at once."""
    async with serve(mounted(db)) as (client, _), watching(client) as viewer:
        series = (await anext(viewer)).data["series"]
        async with watching(client, **{"Last-Event-ID": last.format(series)}) as other:
            assert (await anext(other)).data["whole"]


async def test_a_viewer_that_is_cancelled_has_left(db: SQLiteDatabase) -> None:
    """It may be cancelled at any await, even while it waits for the next sample."""
    sampler = Feed({"": db.statistics}).sampler()

    async def look() -> None:
        async with aclosing(sampler.events(None)) as stream:
            async for _ in stream:
                pass

    for steps in range(6):
        viewer = asyncio.create_task(look())
        for _ in range(steps):
            await asyncio.sleep(0)
        viewer.cancel()
        await asyncio.wait([viewer])
        assert sampler.viewers == 0
    await until(lambda: not sampler.running)


async def test_a_client_that_has_gone_has_left(db: SQLiteDatabase) -> None:
    """It has left as soon as the server says so, whatever still refers to the response."""
    shared = Feed({"": db.statistics})
    page = LivePage(shared, everybody)

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        if message.get("body"):
            assert shared.sampler().viewers == 1
            raise OSError("connection reset by peer")

    asgi = {"version": "3.0", "spec_version": "2.4"}
    scope = {"type": "http", "asgi": asgi, "method": "GET", "path": "/feed", "headers": []}
    with pytest.raises(ClientDisconnect) as caught:
        await page({**scope, "query_string": b"", "root_path": ""}, receive, send)
    assert caught.tb is not None
    assert shared.sampler().viewers == 0


def test_each_loop_has_a_sampler_of_its_own() -> None:
    """One loop after another serves the application, as in tests; no sampler is kept."""
    found: list[bytes] = []
    shared = Feed({"": lambda: DatabaseStatistics(name="app.db")})

    async def watch() -> None:
        async with aclosing(shared.sampler().events(None)) as stream:
            async for event in stream:
                found.append(event)

    async def look() -> None:  # ends while the viewer waits for the next sample
        found.clear()
        viewer = asyncio.create_task(watch())
        await until(lambda: len(found) == 4)
        assert not viewer.done()

    asyncio.run(look())
    asyncio.run(look())
    gc.collect()
    assert list(shared._samplers) == []
