"""The shop's web application; which engine serves it is read from the environment."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.integrations.live import live_page

from .endpoints import router
from .stores import EngineKind, open_store

DATABASE_VARIABLE = "SHOP_DATABASE"
ENGINE_VARIABLE = "SHOP_ENGINE"
LIVE_PATH = "/sqlite"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the application needs to know before it starts."""

    database: Path
    engine: EngineKind

    @classmethod
    def from_environment(cls) -> Settings:
        """Read both variables; KeyError or ValueError where one is missing or wrong."""
        return cls(Path(os.environ[DATABASE_VARIABLE]), EngineKind(os.environ[ENGINE_VARIABLE]))

    def to_environment(self) -> dict[str, str]:
        """The variables that give these settings to another process."""
        return {DATABASE_VARIABLE: str(self.database), ENGINE_VARIABLE: self.engine.value}


def create_app() -> FastAPI:
    """The application, its store open from start to end."""
    settings = Settings.from_environment()
    store = open_store(settings.engine, settings.database)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await store.open()
        app.state.store = store
        try:
            yield
        finally:
            await store.close()

    app = FastAPI(title="shop", lifespan=lifespan)
    app.state.engine = settings.engine.value
    app.include_router(router)
    if isinstance(store, SQLiteDatabase):
        app.mount(LIVE_PATH, live_page(store, allow=_on_this_machine))
    app.add_exception_handler(SQLAlchemyError, _database_unavailable)
    return app


def _on_this_machine(request: Request) -> bool:
    """From this machine, and by its name: another name may be a trap set for the browser."""
    ours = request.url.hostname in {"127.0.0.1", "localhost"}
    return ours and request.client is not None and request.client.host == "127.0.0.1"


async def _database_unavailable(_request: Request, error: Exception) -> JSONResponse:
    """503 with the database's own words, so that the load client can count the reasons."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    reason = str(cause).splitlines()[0]
    return JSONResponse({"detail": f"{type(cause).__name__}: {reason}"}, status_code=503)
