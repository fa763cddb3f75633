"""FastAPI's dependencies and lifespan work with a ServerDatabase as they do with SQLite."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import BackgroundTasks, FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from sqlalchemy import text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from sa_sqlite_pool import SessionEndedError
from sa_sqlite_pool.integrations.fastapi import lifespan, read_session, write_session
from sa_sqlite_pool.servers.database import ServerDatabase
from tests.integrations.lagging import client_of, deposit, opened
from tests.integrations.serving import serve
from tests.postgresql import App
from tests.servers.models import Account


def shop(db: ServerDatabase) -> FastAPI:
    app, reader, writer = FastAPI(lifespan=lifespan(db)), read_session(db), write_session(db)

    @app.post("/{amount}")
    async def take(amount: int, session: AsyncSession = writer) -> None:
        await session.execute(update(Account).values(balance=amount))
        if amount < 0:
            raise HTTPException(409)

    @app.get("/server")
    async def server(session: AsyncSession = reader) -> int:
        return await session.scalar(text("SELECT current_setting('port')::int")) or 0

    @app.get("/written")
    async def written(session: AsyncSession = reader) -> None:
        await session.execute(text("CREATE TABLE t ()"))

    @app.get("/stream")
    async def stream(session: AsyncSession = reader, other: AsyncSession = writer) -> Any:
        async def body() -> Any:
            yield str([e.pool.checkedout() for e in (db.reader_engine, db.writer_engine)])  # type: ignore[attr-defined]

        for one in (session, other):
            await one.get_one(Account, 1)
        return StreamingResponse(body())

    return app


async def balance_of(db: ServerDatabase) -> int:
    async with db.write() as session:
        return (await session.get_one(Account, 1)).balance


async def test_sessions_of_dependencies(app: App) -> None:
    """Writes are committed before the response, an HTTPException rolls back, a reader reads."""
    async with opened(app) as db, client_of(shop(db)) as client:
        assert (await client.post("/7")).status_code == 200
        assert await balance_of(db) == 7
        assert (await client.post("/-1")).status_code == 409
        assert await balance_of(db) == 7
        assert (await client.get("/server")).json() in {
            replica.port for replica in app.cluster.replicas
        }
        assert (await client.get("/stream")).text == "[0, 0]"


async def test_a_reader_cannot_write(app: App) -> None:
    """The reader's session is read-only on a replica, and, if there is none, on the primary."""
    for replicas in (app.replica_urls, []):
        async with app.open(replicas=replicas) as db:
            with pytest.raises(DBAPIError, match="read-only transaction"):
                async with client_of(shop(db), raises=True) as client:
                    await client.get("/written")


async def test_the_session_has_ended_in_a_background_task(app: App) -> None:
    """The task gets an error; in a session of its own, it writes after the endpoint's commit."""
    async with opened(app) as db:
        served, writer = FastAPI(), write_session(db)

        async def later(session: AsyncSession) -> None:
            with pytest.raises(SessionEndedError, match="in a background task"):
                await session.execute(text("SELECT 1"))
            await deposit(db, 1)

        @served.post("/")
        async def take(tasks: BackgroundTasks, session: AsyncSession = writer) -> None:
            await session.execute(update(Account).values(balance=7))
            tasks.add_task(later, session)

        async with client_of(served) as client:
            await client.post("/")
        assert await balance_of(db) == 8


async def test_the_lifespan(app: App) -> None:
    """The database is open while the application runs, and closed after it."""
    db = app.open()
    async with serve(shop(db)) as (client, _):
        assert (await client.get("/server")).status_code == 200
        assert "open" in repr(db)
    assert "closed" in repr(db)
