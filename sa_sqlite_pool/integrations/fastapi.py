"""Sessions as FastAPI dependencies, and the database in the application's lifespan.

::

    db = SQLiteDatabase("sqlite+aiosqlite:///app.db")
    app = FastAPI(lifespan=lifespan(db))
    Reader = Annotated[AsyncSession, read_session(db)]
    Writer = Annotated[AsyncSession, write_session(db)]

The sessions end when the endpoint function returns (``scope="function"``), before the response is
sent: a client that receives a response knows that the commit is done, a failed commit is an error
response instead of a silent loss, and a response that streams for minutes holds no connection.
FastAPI's default is the reverse: https://fastapi.tiangolo.com/tutorial/dependencies/
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy.ext.asyncio import AsyncSession

from ..database import SQLiteDatabase
from ..extras import imports_of_extra

with imports_of_extra("fastapi", __name__):
    from fastapi import Depends, FastAPI

if TYPE_CHECKING:
    from ..servers.database import ServerDatabase

    Database: TypeAlias = SQLiteDatabase | ServerDatabase
else:  # avoids importing what only programs on PostgreSQL use
    Database = Any


def read_session(db: Database) -> Any:
    """Return a dependency that provides the endpoint with a session of ``db.read()``."""
    return Depends(_generator(db.read), scope="function")


def write_session(db: Database) -> Any:
    """Return a dependency that provides the endpoint with a session of ``db.write()``.

    The endpoint's return commits it; any exception, ``HTTPException`` included, rolls it back.
    """
    return Depends(_generator(db.write), scope="function")


def lifespan(
    db: Database,
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Return a lifespan that keeps the database open: ``FastAPI(lifespan=lifespan(db))``."""

    @asynccontextmanager
    async def open_while_running(_app: FastAPI) -> AsyncIterator[None]:
        async with db:
            yield

    return open_while_running


def _generator(
    session: Callable[[], AbstractAsyncContextManager[AsyncSession]],
) -> Callable[[], AsyncIterator[AsyncSession]]:
    # FastAPI needs a generator function; it would pass on a context manager without entering it.
    async def dependency() -> AsyncIterator[AsyncSession]:
        async with session() as opened:
            yield opened

    return dependency
