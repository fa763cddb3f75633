"""Replicas that show no new commits, and a bank whose clients read their balance."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import FastAPI
from pydantic import BaseModel
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from examples.local_postgresql import PostgreSQL
from sa_sqlite_pool.integrations.freshness import FreshnessMiddleware
from sa_sqlite_pool.servers.database import ServerDatabase
from tests.postgresql import App, until
from tests.servers.models import Account, create_accounts


class Balance(BaseModel):
    """A response: the balance, and the port of the server that was queried."""

    balance: int
    port: int


@asynccontextmanager
async def paused(*replicas: PostgreSQL) -> AsyncIterator[None]:
    """Pause replay on replicas until the block ends."""
    try:
        for replica in replicas:
            replica.sql("SELECT pg_wal_replay_pause()")
            await until(lambda it=replica: _state(it) == "paused")  # type: ignore[misc]
        yield
    finally:
        for replica in replicas:
            replica.sql("SELECT pg_wal_replay_resume()")


def _state(replica: PostgreSQL) -> str:
    return replica.sql("SELECT pg_get_wal_replay_pause_state()")


@asynccontextmanager
async def opened(app: App, accounts: int = 1, **options: Any) -> AsyncIterator[ServerDatabase]:
    """Open a database with accounts whose balance is 0, also on the replicas."""
    async with app.open(**options) as db:
        await create_accounts(db, accounts)
        await until(app.cluster.caught_up)
        yield db


async def deposit(db: Any, amount: int, account: int = 1) -> None:
    async with db.write() as session:
        (await session.get_one(Account, account)).balance += amount


async def balance(session: AsyncSession, account: int = 1) -> Balance:
    port = text("current_setting('port')::int")
    row = (await session.execute(select(Account.balance, port).filter_by(id=account))).one()
    return Balance(balance=row[0], port=row[1])


def bank(db: ServerDatabase, **options: Any) -> FastAPI:
    """Return the bank with the middleware, to which ``options`` are passed."""
    app = bank_without(db)
    app.add_middleware(FreshnessMiddleware, db=db, **options)
    return app


def bank_without(db: ServerDatabase) -> FastAPI:
    """Return an application with accounts, without the middleware."""
    app = FastAPI()

    @app.post("/{account}/deposit")
    async def take(account: int, amount: int = 1) -> None:
        await deposit(db, amount, account)

    @app.get("/{account}")
    async def show(account: int) -> Balance:
        async with db.read() as session:
            return await balance(session, account)

    return app


def client_of(app: Any, scheme: str = "http", *, raises: bool = False) -> httpx.AsyncClient:
    """Return a client with its own cookies; with ``raises``, it re-raises application errors."""
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=raises)
    return httpx.AsyncClient(transport=transport, base_url=f"{scheme}://test")


async def asked(client: httpx.AsyncClient, account: int = 1, **options: Any) -> Balance:
    return Balance.model_validate_json((await client.get(f"/{account}", **options)).content)
