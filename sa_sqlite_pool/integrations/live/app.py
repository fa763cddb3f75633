"""The live page as an ASGI application: access control and responses."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from functools import partial
from importlib.resources import files
from typing import Final, TypeAlias

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from ...database import SQLiteDatabase
from ...errors import ConfigurationError
from ...pools.statistics import statistics
from ..sources import Monitored
from .feed import Feed
from .history import TakesStatistics

Allow: TypeAlias = Callable[[Request], bool | Awaitable[bool]]

# No content from other origins, nothing inline, no embedding in a frame.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
# "This can be used to disable buffering of responses": nginx, X-Accel-Buffering.
# https://nginx.org/en/docs/http/ngx_http_proxy_module.html#proxy_buffering
_FEED_HEADERS: Final = {**_HEADERS, "X-Accel-Buffering": "no"}

_FILES: Final = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/charts.js": ("charts.js", "text/javascript"),
    "/elements.js": ("elements.js", "text/javascript"),
    "/panels.js": ("panels.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}

_ALLOW_NEEDED: Final = (
    "live_page() needs allow=, a function of the request that returns True if it may see the page, "
    "which shows SQL, names of tasks and lines of the application: allow=lambda request: "
    "request.client.host == '127.0.0.1' for this machine, or one that asks the application's "
    "session, such as allow=lambda request: request.user.is_admin"
)


def live_page(
    databases: Monitored | Mapping[str, Monitored], *, allow: Allow | None = None
) -> LivePage:
    """Return an ASGI application that shows the current activity of databases, read-only.

    ::

        app.mount("/sqlite", live_page(db, allow=may_see))
        app.mount("/sqlite", live_page({"shop": db, "jobs": engine}, allow=may_see))

    :param databases: an :class:`~sa_sqlite_pool.SQLiteDatabase`, which need not be open, or an
        ``AsyncEngine`` with a pool of this package, or a mapping of names on the page to several
    :param allow: a function of the ``starlette.requests.Request``, plain or ``async``, that returns
        True for requests that may see the page; all others receive a 403. An exception, such as
        ``HTTPException``, propagates to the application. The function is called for each file, and
        at least every ten seconds while a page is open. A plain function runs on the event loop

    Raise :class:`~sa_sqlite_pool.ConfigurationError` if ``allow`` is missing, or ``databases`` is
    anything else. The page loads nothing from elsewhere, and nothing runs while no page is open.
    """
    if not callable(allow):
        raise ConfigurationError(_ALLOW_NEEDED)
    return LivePage(Feed(_sources_of(databases)), allow)


def _sources_of(given: Monitored | Mapping[str, Monitored]) -> dict[str, TakesStatistics]:
    """Return the statistics function of each database by its name on the page, "" if unnamed."""
    named = given if isinstance(given, Mapping) else {"": given}
    if not named:
        raise ConfigurationError("live_page() needs a database: live_page(db, allow=...)")
    for name in named:
        if not isinstance(name, str):
            raise ConfigurationError(
                f"the name of a database on the live page is text, not {name!r}"
            )
    return {name: _source(one) for name, one in named.items()}


def _source(one: object) -> TakesStatistics:
    if isinstance(one, SQLiteDatabase):
        return one.statistics
    if isinstance(one, (AsyncEngine, Engine)):
        statistics(one)  # which refuses other pools
        return partial(statistics, one)
    raise ConfigurationError(
        "live_page() shows an SQLiteDatabase, or an AsyncEngine on a pool of this package, or a "
        f'dictionary of them by name ({{"shop": db, "jobs": engine}}), not {one!r}'
    )


class LivePage:
    """The ASGI application that :func:`live_page` returns."""

    def __init__(self, feed: Feed, allow: Allow) -> None:
        self._feed, self._allow = feed, allow
        routes = [Route(path, _file(*named)) for path, named in _FILES.items()]
        routes.append(Route("/feed", self._events))
        self._router = Router(routes, redirect_slashes=False)
        # Without an enclosing application, nothing else turns an HTTPException into a response.
        self._alone = ExceptionMiddleware(self._answer)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        within = "starlette.exception_handlers" in scope
        await (self._answer if within else self._alone)(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not await self._allowed(Request(scope, receive)):
            response = PlainTextResponse("Forbidden", 403, headers=_HEADERS)
            await response(scope, receive, send)
        else:
            await self._router(scope, receive, send)

    async def _allowed(self, request: Request) -> bool:
        allowed = self._allow(request)
        if inspect.isawaitable(allowed):
            allowed = await allowed
        if not isinstance(allowed, bool):  # a bound method that was not called is truthy, too
            raise ConfigurationError(f"allow= of live_page() returned {allowed!r}, not a bool")
        return allowed

    async def _events(self, request: Request) -> Response:
        if request.method == "HEAD":
            return Response(media_type="text/event-stream", headers=_FEED_HEADERS)
        last = request.query_params.get("after") or request.headers.get("Last-Event-ID")
        return _Events(self._feed, last)


class _Events(StreamingResponse):
    """The event stream of one viewer, which is closed however the response ends."""

    def __init__(self, feed: Feed, last: str | None) -> None:
        self._events = feed.sampler().events(last)
        super().__init__(self._events, media_type="text/event-stream", headers=_FEED_HEADERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._events):
            await super().__call__(scope, receive, send)


def _file(name: str, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    content = files(__package__).joinpath(name).read_bytes()

    async def answer(_request: Request) -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)

    return answer
