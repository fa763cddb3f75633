"""ASGI middleware: each client reads its own writes, whichever replica its requests read from.

With FastAPI and Starlette, use ``app.add_middleware(FreshnessMiddleware, db=db)``; with other
frameworks, or without one, ``app = FreshnessMiddleware(app, db=db)``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import AbstractAsyncContextManager
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
    """Runs each HTTP request in a ``db.fresh()`` block with the token of the client's last request.

    The request carries the token in a header or cookie; the response sets both if the token has
    changed. The token covers everything done before the response starts; later work, the body of a
    stream and background tasks, runs in the block, too. It contains the position of the primary and
    no data: a client that alters it reads from the primary, or from replicas in their current
    state. With SQLite, there is no token, and nothing is set.

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
                if seen.token is not None and seen.token != token:
                    own = self._headers(scope, seen.token)
                    message["headers"] = [*message.get("headers", ()), *own]
            await send(message)

        async with self._db.fresh(token) as seen:
            await self._app(scope, receive, send_with_token)

    def _token_of(self, scope: Message) -> str | None:
        """Return the token of a request: the furthest if there are several, None if there is none.

        Invalid tokens are ignored.
        """
        return max(filter(_is_token, self._given(scope)), key=parse_token, default=None)

    def _given(self, scope: Message) -> Iterator[str]:
        """Yield the values of the token header and token cookie in a request."""
        for name, value in scope["headers"]:
            text = value.decode("latin-1")
            if name == self._header:
                yield text
            elif name == b"cookie":  # with HTTP/2 there may be several
                yield from self._in_cookies(text)

    def _in_cookies(self, text: str) -> Iterator[str]:
        # http.cookies stops at malformed cookies, which other applications may have set.
        for cookie in text.split(";"):
            name, _, value = cookie.strip().partition("=")
            if name == self._cookie:
                yield value.strip('"')

    def _headers(self, scope: Message, token: str) -> Iterator[tuple[bytes, bytes]]:
        if self._header is not None:
            yield self._header, token.encode("ascii")
        if self._cookie is not None:
            # "/" needs no quotes: https://www.rfc-editor.org/rfc/rfc6265#section-4.1.1
            cookie = f"{self._cookie}={token}; Path=/; Max-Age={self._seconds}; HttpOnly"
            secure = "; Secure" if scope.get("scheme") == "https" else ""
            yield b"set-cookie", f"{cookie}; SameSite=Lax{secure}".encode("latin-1")


def _is_token(text: str) -> bool:
    try:
        parse_token(text)
    except ConfigurationError:
        return False
    return True
