"""The live page: access to it, and the requests that it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, HTTPException
from fastapi.responses import JSONResponse
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount

from sa_sqlite_pool import ConfigurationError, SQLiteDatabase
from sa_sqlite_pool.integrations.live import LivePage, live_page
from tests.test_docs import blocks

FILES = ["", "page.css", "page.js", "panels.js", "charts.js", "elements.js", "icon.svg"]
PATHS = [*FILES, "feed", "nothing", "../secret"]


def client_of(page: LivePage) -> httpx.AsyncClient:
    """Return a client of an application that mounts the page at /sqlite."""
    app = Starlette(routes=[Mount("/sqlite", page)])
    return client_of_app(app)


def client_of_app(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test")


def everybody(_request: Request) -> bool:
    return True


@pytest.fixture
async def client(db: SQLiteDatabase) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(live_page(db, allow=everybody)) as client:
        yield client


# -- allow= --------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"allow": None}, {"allow": True}])
async def test_it_is_not_made_without_an_answer(db: SQLiteDatabase, options: Any) -> None:
    """``allow=`` must say which requests may see the page; the error shows how."""
    with pytest.raises(ConfigurationError, match=r"needs allow=.*allow=lambda request: "):
        live_page(db, **options)


@pytest.mark.parametrize("file", PATHS)
async def test_a_denied_request_learns_nothing(db: SQLiteDatabase, file: str) -> None:
    """Each path answers 403, even one that does not exist, with the same few bytes."""
    async with client_of(live_page(db, allow=lambda _request: False)) as client:
        answer = await client.get(f"/sqlite/{file}" if file != "../secret" else "/sqlite/%2e%2e/x")
    assert (answer.status_code, answer.text) == (403, "Forbidden")
    assert answer.headers["cache-control"] == "no-store"
    assert "app.db" not in str(answer.headers)


async def test_other_methods_are_denied_as_well(db: SQLiteDatabase) -> None:
    """``allow=`` is called before anything else."""
    async with client_of(live_page(db, allow=lambda _request: False)) as client:
        assert (await client.post("/sqlite/")).status_code == 403


async def test_what_is_asked_is_the_request(db: SQLiteDatabase) -> None:
    """A plain function sees headers, the session and the client."""

    def with_token(request: Request) -> bool:
        return request.headers.get("authorization") == "Bearer open"

    async with client_of(live_page(db, allow=with_token)) as client:
        assert (await client.get("/sqlite/")).status_code == 403
        headers = {"authorization": "Bearer open"}
        assert (await client.get("/sqlite/", headers=headers)).status_code == 200


async def test_an_async_function_is_awaited(db: SQLiteDatabase) -> None:
    """It may query a database, for example this one."""

    async def from_database(request: Request) -> bool:
        async with db.read() as session:
            return bool(await session.connection()) and request.query_params.get("as") == "admin"

    async with client_of(live_page(db, allow=from_database)) as client:
        assert (await client.get("/sqlite/")).status_code == 403
        assert (await client.get("/sqlite/?as=admin")).status_code == 200


@pytest.mark.parametrize("answer", [None, "no", 1, everybody])
async def test_an_answer_that_is_no_bool_is_no_permission(db: SQLiteDatabase, answer: Any) -> None:
    """``request.user.is_admin`` as a method is true; the error names it instead of trusting it."""
    async with client_of(live_page(db, allow=lambda _request: answer)) as client:
        with pytest.raises(ConfigurationError, match=r"allow= of live_page\(\) returned .*bool"):
            await client.get("/sqlite/")


def to_the_login(_request: Request) -> bool:
    raise HTTPException(303, headers={"location": "/login"})


async def test_its_http_exception_is_the_answer(db: SQLiteDatabase) -> None:
    """This holds even if no application surrounds the page."""
    page = live_page(db, allow=to_the_login)
    for client, path in [(client_of(page), "/sqlite/feed"), (client_of_app(page), "/feed")]:
        async with client:
            answer = await client.get(path)
            assert (answer.status_code, answer.headers["location"]) == (303, "/login")


class NotSignedInError(Exception):
    pass


@pytest.mark.parametrize("error", [NotSignedInError(), HTTPException(403)])
async def test_its_exceptions_go_to_the_application(db: SQLiteDatabase, error: Exception) -> None:
    """The application may have handlers for them."""

    def refuse(_request: Request) -> bool:
        raise error

    async def tell(_request: Request, _error: Any) -> JSONResponse:
        return JSONResponse({"detail": "sign in"}, 401)

    app = FastAPI(exception_handlers={type(error): tell})
    app.mount("/sqlite", live_page(db, allow=refuse))
    async with client_of_app(app) as client:
        answer = await client.get("/sqlite/")
        assert (answer.status_code, answer.json()) == (401, {"detail": "sign in"})


# -- what it does not do -------------------------------------------------------------------------


@pytest.mark.parametrize("file", [*FILES, "feed"])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_it_is_only_looked_at(client: httpx.AsyncClient, file: str, method: str) -> None:
    """Only GET is allowed, and HEAD, which is GET without a body."""
    assert (await client.request(method, f"/sqlite/{file}")).status_code == 405


@pytest.mark.parametrize("file", FILES)
async def test_it_asks_no_other_host(client: httpx.AsyncClient, file: str) -> None:
    """Each file's headers say so; no file names another host or contains inline code."""
    answer = await client.get(f"/sqlite/{file}")
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"].split("; ")
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert all("unsafe" not in part and "http" not in part for part in policy)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert not any(name.startswith("access-control-") for name in answer.headers)
    assert "://" not in answer.text.replace("http://www.w3.org/2000/svg", "")


async def test_nothing_is_put_in_as_markup(client: httpx.AsyncClient) -> None:
    """SQL and names of tasks are inserted as text."""
    for path in FILES:
        content = (await client.get(f"/sqlite/{path}")).text
        for name in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert name not in content


async def test_what_is_not_there(client: httpx.AsyncClient) -> None:
    """A missing path is a 404, and no file of the package is served."""
    for path in ("nothing", "app.py", "../app.py", "%2e%2e/app.py"):
        assert (await client.get(f"/sqlite/{path}")).status_code == 404


async def test_head_of_the_feed_ends(client: httpx.AsyncClient) -> None:
    """The response has no body, so no stream begins."""
    answer = await client.head("/sqlite/feed")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert "live page" not in {task.get_name() for task in asyncio.all_tasks()}


async def test_there_is_no_websocket(db: SQLiteDatabase) -> None:
    """It is closed at once, without a message."""
    sent: list[Any] = []

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/feed", "headers": [], "query_string": b""}
    await live_page(db, allow=everybody)(scope, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]


# -- what it shows -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: "app.db", "shows an SQLiteDatabase, or an AsyncEngine .* not 'app.db'"),
        (dict, "needs a database"),
        (lambda: {1: None}, "name of a database on the live page is text, not 1"),
        (lambda: {"a": None}, "shows an SQLiteDatabase.* not None"),
        (lambda: create_async_engine("sqlite+aiosqlite://"), "requires an engine created with"),
    ],
)
def test_what_has_no_statistics_is_refused(make: Callable[[], Any], message: str) -> None:
    """It is refused at once, not only when the page is opened."""
    with pytest.raises(ConfigurationError, match=message):
        live_page(make(), allow=everybody)


# -- docs/live_page.md ---------------------------------------------------------------------------


async def test_the_example_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on the page, an admin's cookie opens it, and no other."""
    monkeypatch.chdir(tmp_path)
    example: dict[str, Any] = {}
    exec(blocks("live_page.md", "python")[0], example)
    async with example["db"] as db:
        async with db.write() as session:
            await session.execute(text("CREATE TABLE sign_ins (token TEXT, is_admin INTEGER)"))
            await session.execute(text("INSERT INTO sign_ins VALUES ('a', 1), ('b', 0)"))
        async with client_of_app(example["app"]) as client:
            for cookie, status in [("token=a", 200), ("token=b", 403), ("", 403)]:
                answer = await client.get("/sqlite/", headers={"cookie": cookie})
                assert answer.status_code == status
            answer = await client.get("/sqlite", headers={"cookie": "token=a"})
            assert (answer.status_code, answer.headers["location"]) == (307, "http://test/sqlite/")
