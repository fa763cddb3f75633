"""ASGI middleware: a client reads what it has written, whichever replica its requests read from.

For FastAPI and Starlette ``app.add_middleware(FreshnessMiddleware, db=db)``, for other frameworks
``app = FreshnessMiddleware(app, db=db)``. It needs no framework.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AbstractAsyncContextManager
from http.cookies import CookieError, SimpleCookie
from typing import Any, Protocol, TypeAlias, final

from ..errors import ConfigurationError
from ..freshness import Seen, parse_token

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]

DEFAULT_SECONDS = 600


class _Database(Protocol):
    def fresh(self, token: str | None = None) -> AbstractAsyncContextManager[Seen]: ...


@final
class FreshnessMiddleware:
    """Runs each HTTP request in a ``db.fresh()`` block, with the token of the client's last one.

    The token comes in the header or, without one, in the cookie, and goes back in both when it has
    grown. It says how far the primary was, and nothing of the data: a client that changes it reads
    from the primary, or from replicas as they are. On SQLite there is no token, and nothing is set.

    :param db: a :class:`~sa_sqlite_pool.ServerDatabase` or :class:`~sa_sqlite_pool.SQLiteDatabase`
    :param cookie: the cookie's name; None for no cookie
    :param header: the header's name, for clients that keep no cookies; None for none
    :param seconds: how long a browser keeps the cookie: longer than replicas ever lag
    """

    def __init__(
        self,
        app: App,
        db: _Database,
        *,
        cookie: str | None = "seen",
        header: str | None = "x-seen",
        seconds: int = DEFAULT_SECONDS,
    ) -> None:
        self._app = app
        self._db = db
        self._cookie = cookie
        self._header = None if header is None else header.lower().encode("latin-1")
        self._seconds = seconds

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        token = self._token_of(scope)

        async def send_with_token(message: Message) -> None:
            if message["type"] == "http.response.start":
                await seen.settle()
                if seen.token not in {None, token}:
                    message["headers"] = [*message.get("headers", ()), *self._headers(scope, seen)]
            await send(message)

        async with self._db.fresh(token) as seen:
            await self._app(scope, receive, send_with_token)

    def _token_of(self, scope: Message) -> str | None:
        """Return the token of a request; None if it has none, or one that is damaged."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        given = headers.get(self._header) if self._header is not None else None
        found = None if given is None else given.decode("latin-1")
        if found is None and self._cookie is not None:
            cookies: SimpleCookie = SimpleCookie()
            try:
                cookies.load(headers.get(b"cookie", b"").decode("latin-1"))
            except CookieError:
                return None
            found = cookies[self._cookie].value if self._cookie in cookies else None
        try:
            parse_token(found or "")
        except ConfigurationError:
            return None
        return found

    def _headers(self, scope: Message, seen: Seen) -> list[tuple[bytes, bytes]]:
        token = str(seen.token)
        found = []
        if self._header is not None:
            found.append((self._header, token.encode("ascii")))
        if self._cookie is not None:
            cookies: SimpleCookie = SimpleCookie()
            cookies[self._cookie] = token
            morsel = cookies[self._cookie]
            morsel["path"], morsel["max-age"], morsel["samesite"] = "/", self._seconds, "lax"
            morsel["httponly"] = True
            if scope.get("scheme") == "https":
                morsel["secure"] = True
            found.append((b"set-cookie", cookies.output(header="").strip().encode("ascii")))
        return found
