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

from .endpoints import router
from .stores import EngineKind, open_store

DATABASE_VARIABLE = "SHOP_DATABASE"
ENGINE_VARIABLE = "SHOP_ENGINE"


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

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        store = open_store(settings.engine, settings.database)
        await store.open()
        app.state.store = store
        try:
            yield
        finally:
            await store.close()

    app = FastAPI(title="shop", lifespan=lifespan)
    app.state.engine = settings.engine.value
    app.include_router(router)
    app.add_exception_handler(SQLAlchemyError, _database_unavailable)
    return app


async def _database_unavailable(_request: Request, error: Exception) -> JSONResponse:
    """503 with the database's own words, so that the load client can count the reasons."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    reason = str(cause).splitlines()[0]
    return JSONResponse({"detail": f"{type(cause).__name__}: {reason}"}, status_code=503)
