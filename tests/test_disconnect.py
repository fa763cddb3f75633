"""An HTTP client disconnects half way: nothing is left behind in the database or the pools.

uvicorn runs in a thread, with real sockets. A request reports its progress on ``reached``.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import queue
import socket
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from sqlalchemy import select, text
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.responses import Response

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.integrations.fastapi import lifespan, read_session, write_session
from tests.helpers import Base, Item, turn_of

ROWS = 20_000
SECONDS = 30.0
AT_ONCE = 10.0
LIMITS = {"anyio": anyio.move_on_after, "asyncio": getattr(asyncio, "timeout", None)}

_ENDLESS = "WITH RECURSIVE n(i) AS (SELECT started() UNION ALL SELECT i + 1 FROM n)"
ENDLESS_READ = text(f"{_ENDLESS} SELECT count(*) FROM n")
ENDLESS_WRITE = text(f"INSERT INTO items (amount) {_ENDLESS} SELECT count(*) FROM n")


class Site:
    """The application, its database, and a record of events."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.port = 0
        self.opened = 0
        self.reached: queue.Queue[str] = queue.Queue()
        self.when_started: Callable[[], object] = bool  # in the thread of an endless statement
        self.db = SQLiteDatabase(path, readers=2, on_connect=self._on_connect)
        self.app = FastAPI(lifespan=lifespan(self.db))
        wrapped = FastAPI()  # with a middleware between the stream and the client
        wrapped.add_middleware(BaseHTTPMiddleware, dispatch=_pass_on)
        for app in (self.app, wrapped):
            self._add_streams(app)
        self.app.mount("/wrapped", wrapped)
        self._add_slow_statements()
        self._add_time_limits()
        self._add_ordinary()

    def _on_connect(self, connection: sqlite3.Connection) -> None:
        self.opened += 1
        connection.create_function("started", 0, self._started)

    def _started(self) -> int:
        self.reached.put("statement")
        self.when_started()
        return 1

    async def _rows(self, session: Any) -> AsyncIterator[str]:
        rows = select(Item).order_by(Item.id).execution_options(yield_per=100)  # not all at once
        async for item in await session.stream_scalars(rows):
            yield f"{item.id} {'.' * 1000}\n"

    def _add_streams(self, app: FastAPI) -> None:
        async def streamed() -> AsyncIterator[str]:
            try:
                async with self.db.read() as session:
                    async for line in self._rows(session):
                        yield line
            finally:
                self.reached.put("end")

        async def fetched() -> AsyncIterator[str]:
            try:
                async with self.db.read() as session:
                    for item in await session.scalars(select(Item)):
                        yield f"{item.id} {'.' * 1000}\n"
                        await session.scalar(text("SELECT 1"))
            finally:
                self.reached.put("end")

        async def written() -> AsyncIterator[str]:
            try:
                async with self.db.write() as session:
                    session.add(Item(id=ROWS + 1, amount=1))
                    await session.flush()
                    async for line in self._rows(session):
                        yield line
            finally:
                self.reached.put("end")

        @app.get("/stream/{what}")
        async def stream(what: str) -> StreamingResponse:
            bodies = {"streamed": streamed, "fetched": fetched, "written": written}
            return StreamingResponse(bodies[what](), media_type="text/plain")

    def _add_slow_statements(self) -> None:
        reader, writer = read_session(self.db), write_session(self.db)

        @self.app.get("/watched/read")
        async def watched_read(request: Request, session: Any = reader) -> None:
            await self._until_gone(request, lambda: session.execute(ENDLESS_READ))

        @self.app.get("/watched/write")
        async def watched_write(request: Request, session: Any = writer) -> None:
            session.add(Item(id=ROWS + 1, amount=1))
            await session.flush()
            await self._until_gone(request, lambda: session.execute(ENDLESS_WRITE))

        @self.app.get("/grouped/{what}")
        async def grouped(what: str, request: Request) -> None:
            opened = self.db.read if what == "read" else self.db.write
            statement = ENDLESS_READ if what == "read" else ENDLESS_WRITE

            async def work() -> None:
                async with opened() as session:
                    await session.execute(statement)

            await self._until_gone(request, work)

    async def _until_gone(self, request: Request, work: Callable[[], Awaitable[Any]]) -> None:
        """Run ``work`` until the client disconnects, like applications that watch for it."""
        try:
            async with anyio.create_task_group() as group:

                async def watch() -> None:
                    while (await request.receive())["type"] != "http.disconnect":
                        pass
                    group.cancel_scope.cancel()

                group.start_soon(watch)
                await work()
        finally:
            self.reached.put("end")

    def _add_time_limits(self) -> None:
        @self.app.get("/limited/{how}")
        async def limited(how: str) -> str:
            limit: Any = LIMITS[how]
            loop = asyncio.get_running_loop()
            with contextlib.suppress(TimeoutError):
                async with _either(limit(None)) as scope, self.db.write() as session:
                    session.add(Item(id=ROWS + 1, amount=1))
                    await session.flush()
                    self.when_started = lambda: loop.call_soon_threadsafe(_time_is_over, scope)
                    await session.execute(ENDLESS_WRITE)
            self.reached.put("end")
            return "over"

    def _add_ordinary(self) -> None:
        @self.app.get("/next")
        async def following() -> list[int]:
            async with self.db.write() as session:
                await session.execute(text("UPDATE items SET amount = amount + 1 WHERE id = 1"))
            counts = []
            for _ in range(2):  # each reader
                async with self.db.read() as session, self.db.read() as other:
                    for one in (session, other):
                        counts.append(await one.scalar(text("SELECT count(*) FROM items")))
            return counts

        @self.app.get("/collect")
        async def collect() -> None:
            gc.collect()

        @self.app.get("/state")
        async def state() -> dict[str, object]:
            readers: Any = self.db.reader_engine.pool
            writers: Any = self.db.writer_engine.pool
            return {
                "readers out": readers.checkedout(),
                "writers out": writers.checkedout(),
                "turn": str(turn_of(self.path).holder),
                "waiting": turn_of(self.path).waiting + readers.waiting,
                "opened": self.opened,
            }


async def _pass_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
    return await call_next(request)


def _time_is_over(scope: Any) -> None:
    now = asyncio.get_running_loop().time()
    if isinstance(scope, anyio.CancelScope):
        scope.deadline = now
    else:
        scope.reschedule(now)


class _either:  # noqa: N801 - used as a function
    """``async with`` around a context manager of either kind."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    async def __aenter__(self) -> Any:
        if hasattr(self._manager, "__aenter__"):
            return await self._manager.__aenter__()
        return self._manager.__enter__()

    async def __aexit__(self, *error: Any) -> Any:
        if hasattr(self._manager, "__aexit__"):
            return await self._manager.__aexit__(*error)
        return self._manager.__exit__(*error)


@pytest.fixture
def site(path: Path) -> Iterator[Site]:
    """Provide the application behind uvicorn, with all its connections open."""
    asyncio.run(_fill(path))
    site = Site(path)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    site.port = listening.getsockname()[1]
    config = uvicorn.Config(site.app, log_level="warning", timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    listening.listen()
    thread.start()
    try:
        assert get(site, "/next") == [ROWS] * 4
        yield site
    finally:
        server.should_exit = True
        thread.join(SECONDS)
        listening.close()
    assert not thread.is_alive()


async def _fill(path: Path) -> None:
    async with SQLiteDatabase(path) as db, db.write() as session:
        await (await session.connection()).run_sync(Base.metadata.create_all)
        items = [{"id": number + 1} for number in range(ROWS)]
        await session.execute(text("INSERT INTO items (id, amount) VALUES (:id, 0)"), items)


def get(site: Site, path: str) -> Any:
    return httpx.get(f"http://127.0.0.1:{site.port}{path}", timeout=SECONDS).json()


def leave(site: Site, path: str, after: str = "") -> None:
    """Request ``path``, and disconnect after the first row, or when a request signals it."""
    with closing(socket.create_connection(("127.0.0.1", site.port), timeout=SECONDS)) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        if after:
            assert site.reached.get(timeout=SECONDS) == after
        else:
            answer = b""
            while b"..." not in answer:  # the generator has begun; otherwise, it would never end
                more = client.recv(1000)
                assert more
                answer += more
    assert end_of(site) == "end"


def end_of(site: Site) -> str:
    """Wait for a request to end, while others continue.

    A response that is cancelled while it sends does not close its generator (Starlette 1.10), nor
    does the middleware around it: the garbage collector does, as soon as traffic triggers it.
    """
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(queue.Empty):
            return site.reached.get_nowait()
        get(site, "/collect")
    return "never"


def assert_nothing_is_left(site: Site, opened: int) -> None:
    """Check that the next request works at once, with no connection left out or opened."""
    since = time.monotonic()
    assert get(site, "/next") == [ROWS] * 4
    assert time.monotonic() - since < AT_ONCE
    assert get(site, "/state") == {
        "readers out": 0,
        "writers out": 0,
        "turn": "None",
        "waiting": 0,
        "opened": opened,
    }


@pytest.mark.parametrize("what", ["streamed", "fetched", "written"])
@pytest.mark.parametrize("place", ["", "/wrapped"])
@pytest.mark.filterwarnings("ignore:The garbage collector is trying:sqlalchemy.exc.SAWarning")
@pytest.mark.needs_thread
def test_in_the_middle_of_a_stream(site: Site, place: str, what: str) -> None:
    """The session lives in the generator, and closing that releases everything."""
    opened = get(site, "/state")["opened"]
    for _ in range(5):
        leave(site, f"{place}/stream/{what}")
    assert_nothing_is_left(site, opened)


@pytest.mark.parametrize("what", ["read", "write"])
@pytest.mark.parametrize("how", ["watched", "grouped"])
@pytest.mark.needs_thread
def test_in_the_middle_of_a_statement(site: Site, how: str, what: str) -> None:
    """The endpoint is cancelled by the task that watches for the end of the connection."""
    opened = get(site, "/state")["opened"]
    for _ in range(5):
        leave(site, f"/{how}/{what}", after="statement")
    assert_nothing_is_left(site, opened)


@pytest.mark.parametrize("how", ["anyio", "asyncio"])
@pytest.mark.parametrize("stays", [True, False])
def test_a_time_limit_around_a_write(site: Site, how: str, stays: bool) -> None:
    """The time expires in the middle of a statement, whether the client waits or is gone."""
    if how == "asyncio" and not hasattr(asyncio, "timeout"):
        pytest.skip("there is no asyncio.timeout here")
    opened = get(site, "/state")["opened"]
    for _ in range(5):
        if stays:
            assert get(site, f"/limited/{how}") == "over"
            assert [site.reached.get(), site.reached.get()] == ["statement", "end"]
        else:
            leave(site, f"/limited/{how}", after="statement")
    assert_nothing_is_left(site, opened)
