"""Open streams of the live page do not delay the server when it stops."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.integrations.live import feed, live_page
from sa_sqlite_pool.integrations.live.feed import server_is_stopping

from .serving import events, serve

ROOT = Path(__file__).parents[2]
PROMPT_SECONDS = 5  # one second, and a margin for a busy machine


@pytest.fixture
def served(path: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run ``uvicorn tests.integrations.live_program:app`` as a shell does."""
    command = [sys.executable, "-m", "uvicorn", "tests.integrations.live_program:app", "--port=0"]
    server = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"LIVE_DATABASE": str(path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert server.stdout is not None
        lines = []
        for line in server.stdout:
            lines.append(line)
            if found := re.search(r"running on (http://[\d.:]+)", line):
                yield found[1], server
                break
        else:
            pytest.fail("".join(lines))
    finally:
        server.kill()
        server.communicate(timeout=60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_uvicorn(
    served: tuple[str, subprocess.Popen[str]], number: signal.Signals
) -> None:
    """It has two open streams, and no time limit for the shutdown; the database is closed, too."""
    url, server = served
    with (
        httpx.Client(base_url=url, trust_env=False, timeout=30) as client,
        client.stream("GET", "/sqlite/feed") as one,
        client.stream("GET", "/sqlite/feed"),
    ):
        lines = one.iter_lines()
        assert next(lines) == "retry: 1000"
        began = time.monotonic()
        server.send_signal(number)
        output, _ = server.communicate(timeout=60)
        assert time.monotonic() - began < PROMPT_SECONDS
        assert "event: end" in list(lines)
    assert "Application shutdown complete" in output
    assert "Traceback" not in output


async def test_should_exit_ends_the_streams(db: SQLiteDatabase) -> None:
    """The application stops its own server this way; each stream ends normally."""
    app = Starlette(routes=[Mount("/sqlite", live_page(db, allow=lambda _request: True))])
    async with serve(app) as (client, server), client.stream("GET", "/sqlite/feed") as response:
        stream = events(response)
        await anext(stream)
        await server.stop(seconds=PROMPT_SECONDS)
        assert [event.kind async for event in stream][-1] == "end"


async def test_middleware_around_it(db: SQLiteDatabase) -> None:
    """Middleware that compresses or inspects responses passes events, and the end, at once."""

    async def dispatch(request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)

    middleware = [Middleware(GZipMiddleware), Middleware(BaseHTTPMiddleware, dispatch=dispatch)]
    app = Starlette(
        routes=[Mount("/sqlite", live_page(db, allow=lambda _request: True))],
        middleware=middleware,
    )
    async with serve(app) as (client, server), client.stream("GET", "/sqlite/feed") as response:
        stream = events(response)
        assert (await anext(stream)).now["name"] == "app.db"
        await server.stop(seconds=PROMPT_SECONDS)
        assert [event.kind async for event in stream][-1] == "end"


async def test_a_server_whose_stop_is_not_noticed(
    db: SQLiteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server in a thread, for example, has no signal handler: it waits until streams end."""
    monkeypatch.setattr(feed, "server_is_stopping", lambda: False)
    monkeypatch.setattr(feed, "STREAM_SECONDS", 1.5)
    app = Starlette(routes=[Mount("/sqlite", live_page(db, allow=lambda _request: True))])
    async with serve(app) as (client, server), client.stream("GET", "/sqlite/feed") as response:
        stream = events(response)
        await anext(stream)
        await server.stop(seconds=PROMPT_SECONDS)
        assert [event.kind async for event in stream][-1] == "end"


async def test_a_stream_that_the_server_cancels(
    db: SQLiteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After uvicorn's ``timeout_graceful_shutdown``, no task of it remains, and nothing hangs."""
    monkeypatch.setattr(feed, "server_is_stopping", lambda: False)
    monkeypatch.setattr(feed, "IDLE_SECONDS", 0.1)
    app = Starlette(routes=[Mount("/sqlite", live_page(db, allow=lambda _request: True))])
    async with (
        serve(app, timeout_graceful_shutdown=1) as (client, server),
        client.stream("GET", "/sqlite/feed") as response,
    ):
        await anext(events(response))
        await server.stop(seconds=PROMPT_SECONDS)
    for task in asyncio.all_tasks():
        if task.get_name() == "live page":
            await asyncio.wait_for(task, PROMPT_SECONDS)


async def test_other_handlers_of_signals_are_no_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are a function, another object's method, or none; the same holds in a thread."""
    for handler in (signal.SIG_DFL, signal.default_int_handler, threading.Event().set):
        monkeypatch.setattr(signal, "getsignal", lambda _number, found=handler: found)
        assert not server_is_stopping()
        assert not await asyncio.to_thread(server_is_stopping)
