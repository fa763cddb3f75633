"""FastAPI: the end of a dependency's session."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import BackgroundTasks, FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from starlette._utils import is_async_callable

from sa_sqlite_pool import SessionEndedError, SQLiteDatabase
from sa_sqlite_pool.integrations.fastapi import lifespan, read_session, write_session
from tests.helpers import Item, create_items, turn_of, until_free


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
    """A client that has received the answer finds the row."""
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
    """FastAPI(lifespan=lifespan(db)) opens the database and closes it."""
    db = SQLiteDatabase(path)
    async with lifespan(db)(FastAPI()):
        assert "open" in repr(db)
    assert "closed" in repr(db)


# -- background tasks ----------------------------------------------------------------------------


def added(session: Session, number: int) -> None:
    session.add(Item(id=number))


@pytest.mark.parametrize("way", ["run_write", "run_write_core", "block"])
async def test_a_background_task_has_a_session_of_its_own(
    db: SQLiteDatabase, path: Path, way: str
) -> None:
    """``tasks.add_task(db.run_write, …)``, or a block in it, runs after the endpoint's commit."""
    await create_items(db.writer_engine)
    app, writer = FastAPI(), write_session(db)

    async def in_a_block(number: int) -> None:
        async with db.write() as session:
            assert await session.get(Item, 20) is not None
            session.add(Item(id=number))

    @app.post("/")
    async def add(tasks: BackgroundTasks, session: AsyncSession = writer) -> None:
        session.add(Item(id=20))
        if way == "run_write":
            tasks.add_task(db.run_write, added, 21)
        elif way == "run_write_core":
            tasks.add_task(db.run_write_core, lambda c: c.execute(insert(Item).values(id=21)) and 0)
        else:
            tasks.add_task(in_a_block, 21)

    await post(app)
    async with db.read() as session:
        assert await session.get(Item, 21) is not None
    await until_free(path)


async def test_what_runs_functions_is_known_to_be_awaited(db: SQLiteDatabase) -> None:
    """Starlette recognizes these functions; it would run others in a thread, and not await them."""
    for method in (db.run_read, db.run_read_core, db.run_write, db.run_write_core):
        assert is_async_callable(method)


@pytest.mark.parametrize("make", [write_session, read_session])
async def test_the_session_of_the_endpoint_has_ended_by_then(
    db: SQLiteDatabase, path: Path, make: Callable[[SQLiteDatabase], Any]
) -> None:
    """The background task gets an error that says so, and the next request is served at once."""
    await create_items(db.writer_engine)
    app, given = FastAPI(), make(db)
    told: list[str] = []

    async def audit(session: AsyncSession) -> None:
        with pytest.raises(SessionEndedError, match="in a background task") as caught:
            session.add(Item(id=21))
            await session.flush()
        told.append(str(caught.value))

    @app.post("/")
    async def add(tasks: BackgroundTasks, session: AsyncSession = given) -> None:
        await session.get(Item, 1)
        tasks.add_task(audit, session)

    for count in (1, 2):
        await post(app)
        assert len(told) == count
        assert turn_of(path).holder is None


async def post(app: FastAPI) -> None:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.post("/")).status_code == 200


async def test_sessions_of_the_applications_class(path: Path) -> None:
    """The dependencies provide sessions of the database's class."""

    class Own(AsyncSession):
        pass

    async with SQLiteDatabase(path, session_class=Own) as db:
        await create_items(db.writer_engine)
        app, reader, writer = FastAPI(), read_session(db), write_session(db)

        @app.post("/")
        async def add(one: Any = reader, other: Any = writer) -> None:
            assert isinstance(one, Own)
            assert isinstance(other, Own)

        await post(app)
