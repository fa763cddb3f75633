"""The shop's web application; which engine serves it is read from the environment."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from sqlalchemy import URL, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from sa_sqlite_pool import ServerDatabase, SQLiteDatabase
from sa_sqlite_pool.integrations.freshness import FreshnessMiddleware
from sa_sqlite_pool.integrations.live import live_page

from .endpoints import router
from .reads import count_reads
from .stores import EngineKind, open_store

DATABASE_VARIABLE = "SHOP_DATABASE"
REPLICAS_VARIABLE = "SHOP_REPLICAS"
ENGINE_VARIABLE = "SHOP_ENGINE"
TOKENS_VARIABLE = "SHOP_TOKENS"
LIVE_PATH = "/sqlite"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the application needs to know before it starts.

    With `tokens` customers read what they have written, from whichever replica; it is for the
    package's databases only.
    """

    database: URL
    engine: EngineKind
    replicas: tuple[URL, ...] = ()
    tokens: bool = True

    @classmethod
    def from_environment(cls) -> Settings:
        """Read the variables; KeyError or ValueError where one is missing or wrong."""
        return cls(
            make_url(os.environ[DATABASE_VARIABLE]),
            EngineKind(os.environ[ENGINE_VARIABLE]),
            tuple(map(make_url, os.environ.get(REPLICAS_VARIABLE, "").split())),
            os.environ.get(TOKENS_VARIABLE, "on") == "on",
        )

    def to_environment(self) -> dict[str, str]:
        """The variables that give these settings to another process."""
        return {
            DATABASE_VARIABLE: _shown(self.database),
            ENGINE_VARIABLE: self.engine.value,
            REPLICAS_VARIABLE: " ".join(map(_shown, self.replicas)),
            TOKENS_VARIABLE: "on" if self.tokens else "off",
        }

    @property
    def has_live_page(self) -> bool:
        """Whether there is a page that shows what SQLite does."""
        is_sqlite = self.database.get_backend_name() == "sqlite"
        return is_sqlite and self.engine is EngineKind.SA_SQLITE_POOL


def _shown(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def create_app() -> FastAPI:
    """The application, its store open from start to end."""
    settings = Settings.from_environment()
    store = open_store(settings.engine, settings.database, settings.replicas)

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
    app.state.reads = count_reads(store)
    app.include_router(router)
    if settings.tokens and isinstance(store, (SQLiteDatabase, ServerDatabase)):
        app.add_middleware(FreshnessMiddleware, db=store)
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
