"""FreshnessMiddleware: the start of a response, the work after it, and other kinds of scopes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import BackgroundTasks, FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from starlette.middleware.base import BaseHTTPMiddleware

from sa_sqlite_pool.freshness import parse_token, seen_by
from sa_sqlite_pool.integrations.freshness import FreshnessMiddleware
from tests.integrations.lagging import (
    asked,
    balance,
    bank,
    bank_without,
    client_of,
    deposit,
    opened,
    paused,
)
from tests.postgresql import App


async def test_a_response_to_head_has_the_token(app: App) -> None:
    """A response without a body sets the same header and cookie as others."""
    async with opened(app) as db:
        served = bank(db)

        @served.head("/deposit")
        async def take() -> None:
            await deposit(db, 1)

        async with client_of(served) as client:
            answer = await client.head("/deposit")
            assert answer.content == b""
            async with paused(*app.cluster.replicas):
                assert (await asked(client, headers=answer.headers)).balance == 1


async def test_a_stream_is_in_the_block(app: App) -> None:
    """Its body sees the writes of the endpoint; the token is set when the response starts."""
    async with opened(app) as db:
        served = bank(db)

        @served.post("/stream")
        async def stream() -> StreamingResponse:
            await deposit(db, 1)

            async def body() -> AsyncIterator[str]:
                for _ in range(2):
                    async with db.read() as session:
                        yield f"{(await balance(session)).balance} "

            return StreamingResponse(body())

        async with paused(*app.cluster.replicas), client_of(served) as client:
            answer = await client.post("/stream")
            assert answer.text == "1 1 "
            assert (await asked(client)).balance == 1


@pytest.mark.parametrize("replicas", ["replicas", "none"])
async def test_a_stream_that_holds_the_last_connection(app: App, replicas: str) -> None:
    """The start of a response does not wait for the session that the response itself holds."""
    urls = app.replica_urls[:1] if replicas == "replicas" else []
    async with opened(app, readers=1, read_timeout=20, replicas=urls) as db:
        served = bank(db)

        @served.get("/stream/held")
        async def stream() -> StreamingResponse:
            async def body() -> AsyncIterator[str]:
                yield str((await balance(session)).balance)
                await block.__aexit__(None, None, None)

            block = db.read()
            session = await block.__aenter__()
            await balance(session)
            return StreamingResponse(body())

        async with client_of(served) as client:
            answer = await asyncio.wait_for(client.get("/stream/held"), 10)
            assert answer.text == "0"
            assert "x-seen" in answer.headers
            assert (await asked(client)).balance == 0


async def test_background_tasks_are_in_the_block(app: App) -> None:
    """They see the writes of the endpoint, and their own."""
    async with opened(app) as db:
        served, found = bank(db), list[int]()

        async def later() -> None:
            for _ in range(2):
                async with db.read() as session:
                    found.append((await balance(session)).balance)
                await deposit(db, 1)

        @served.post("/background")
        async def take(tasks: BackgroundTasks) -> None:
            await deposit(db, 1)
            tasks.add_task(later)

        async with paused(*app.cluster.replicas), client_of(served) as client:
            await client.post("/background")
            assert found == [1, 2]


async def test_an_exception(app: App) -> None:
    """It propagates; an error response that starts within the middleware has the token."""
    async with opened(app) as db:
        inner = FastAPI()

        @inner.post("/{status}")
        async def fail(status: int) -> None:
            await deposit(db, 1)
            raise HTTPException(status) if status != 500 else ZeroDivisionError

        served = FreshnessMiddleware(inner, db=db)
        async with client_of(served) as client:
            for status in (409, 500):
                answer = await client.post(f"/{status}")
                assert answer.status_code == status
                assert parse_token(answer.headers["x-seen"])
        with pytest.raises(ZeroDivisionError):
            await served(_request("POST", "/500"), _receive, _send_nothing)
        assert seen_by(db) is None


async def test_a_cancelled_request(app: App) -> None:
    """It leaves no connection checked out, and no block open."""
    async with opened(app) as db:
        reads = asyncio.Event()

        async def hang(_scope: Any, _receive: Any, _send: Any) -> None:
            async with db.read() as session:
                await balance(session)
                reads.set()
                await asyncio.Event().wait()

        served = FreshnessMiddleware(hang, db=db)
        task = asyncio.create_task(served(_request("GET", "/"), _receive, _send_nothing))
        await reads.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert "0 checked out" in db.reader_engine.pool.status()


@pytest.mark.parametrize("kind", ["websocket", "lifespan"])
async def test_other_scopes(app: App, kind: str) -> None:
    """A websocket and a lifespan are passed on unchanged, without a block."""
    db, passed = app.open(), list[tuple[Any, ...]]()

    async def inner(*arguments: Any) -> None:
        passed.append((*arguments, seen_by(db)))

    scope = {"type": kind, "headers": [(b"x-seen", b"0/1")]}
    await FreshnessMiddleware(inner, db=db)(scope, _receive, _send_nothing)
    assert passed == [(scope, _receive, _send_nothing, None)]


async def test_endpoints_in_other_tasks_and_threads(app: App) -> None:
    """Starlette's own middleware runs the endpoint in another task, which is in the block, too."""
    async with opened(app) as db:
        served = bank(db)

        async def passing(request: Any, call_next: Any) -> Any:
            return await call_next(request)

        @served.get("/seen/in/a/thread")
        def in_a_thread() -> bool:
            return seen_by(db) is not None

        inner = FastAPI()
        inner.add_middleware(BaseHTTPMiddleware, dispatch=passing)
        inner.mount("/", bank_without(db))
        outer = FreshnessMiddleware(inner, db=db)
        async with paused(*app.cluster.replicas), client_of(outer) as client:
            await client.post("/1/deposit")
            assert (await asked(client)).balance == 1
        async with client_of(served) as client:
            assert (await client.get("/seen/in/a/thread")).json() is True


async def test_two_databases(app: App) -> None:
    """Each has its own middleware and cookie: a commit in one does not affect the other."""
    async with opened(app) as db, app.open() as other:
        served = FreshnessMiddleware(bank(db), db=other, cookie="other", header=None)
        async with client_of(served) as client:
            assert list((await client.post("/1/deposit")).cookies) == ["seen"]


def _request(method: str, path: str) -> dict[str, Any]:
    return {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [],
        "query_string": b"",
        "scheme": "http",
    }


async def _receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send_nothing(_message: Any) -> None: ...
