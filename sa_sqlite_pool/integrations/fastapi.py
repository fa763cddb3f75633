"""Sessions as FastAPI dependencies, and the database in the application's lifespan.

::

    db = SQLiteDatabase("sqlite+aiosqlite:///app.db")
    app = FastAPI(lifespan=lifespan(db))
    Reader = Annotated[AsyncSession, read_session(db)]
    Writer = Annotated[AsyncSession, write_session(db)]

The sessions end when the endpoint's function returns (``scope="function"``), before the response
is sent: a client that gets its answer knows that the commit is done, a failing commit is an error
response and not a silent loss, and a response that streams for minutes holds no connection.
FastAPI's default is the other way round: https://fastapi.tiangolo.com/tutorial/dependencies/
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI
from sqlalchemy.ext.asyncio import AsyncSession

from ..database import SQLiteDatabase


def read_session(db: SQLiteDatabase) -> Any:
    """A dependency that gives the endpoint ``db.read()``'s session."""
    return Depends(_generator(db.read), scope="function")


def write_session(db: SQLiteDatabase) -> Any:
    """A dependency that gives the endpoint ``db.write()``'s session.

    Committed when the endpoint returns; rolled back when it raises, ``HTTPException`` included.
    """
    return Depends(_generator(db.write), scope="function")


def lifespan(
    db: SQLiteDatabase,
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """``FastAPI(lifespan=lifespan(db))``: the database is open while the application runs."""

    @asynccontextmanager
    async def open_while_running(_app: FastAPI) -> AsyncIterator[None]:
        async with db:
            yield

    return open_while_running


def _generator(
    session: Callable[[], AbstractAsyncContextManager[AsyncSession]],
) -> Callable[[], AsyncIterator[AsyncSession]]:
    # FastAPI wants a generator function; a context manager it would hand over unopened.
    async def dependency() -> AsyncIterator[AsyncSession]:
        async with session() as opened:
            yield opened

    return dependency
