"""FastAPI: when the session of a dependency ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.integrations.fastapi import lifespan, read_session, write_session
from tests.helpers import Item, create_items, turn_of


@pytest.fixture
async def client(db: SQLiteDatabase, path: Path) -> AsyncIterator[httpx.AsyncClient]:
    await create_items(db.writer_engine)
    app = FastAPI()
    writer, reader = write_session(db), read_session(db)

    @app.post("/items/{item_id}")
    async def add(item_id: int, session: AsyncSession = writer) -> None:
        session.add(Item(id=item_id))
        await session.flush()
        if item_id == 13:
            raise HTTPException(409)

    @app.get("/stream")
    async def stream(session: AsyncSession = reader) -> StreamingResponse:
        await session.scalars(select(Item))

        async def body() -> AsyncIterator[str]:
            yield f"{db.reader_engine.pool.checkedout()} "  # type: ignore[attr-defined]
            yield f"{turn_of(path).holder}"

        return StreamingResponse(body())

    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def test_the_answer_comes_after_the_commit(
    client: httpx.AsyncClient, db: SQLiteDatabase
) -> None:
    """Who has the answer finds the row."""
    assert (await client.post("/items/10")).status_code == 200
    async with db.read() as session:
        assert await session.get(Item, 10) is not None


async def test_an_http_error_rolls_back(client: httpx.AsyncClient, db: SQLiteDatabase) -> None:
    """HTTPException is an exception."""
    assert (await client.post("/items/13")).status_code == 409
    async with db.read() as session:
        assert await session.get(Item, 13) is None


async def test_a_streaming_response_holds_no_connection(client: httpx.AsyncClient) -> None:
    """The session has ended when the body begins."""
    assert (await client.get("/stream")).text == "0 None"


async def test_the_lifespan_opens_and_closes(path: Path) -> None:
    """FastAPI(lifespan=lifespan(db))"""
    db = SQLiteDatabase(path)
    async with lifespan(db)(FastAPI()):
        assert "open" in repr(db)
    assert "closed" in repr(db)
