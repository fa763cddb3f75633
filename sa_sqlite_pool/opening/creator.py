"""The creator of an engine's connections: SQLAlchemy's dialect, or the application's own.

And the arguments with which connections are opened.
"""

from __future__ import annotations

import inspect
import sqlite3
from collections.abc import Callable
from types import CodeType, SimpleNamespace
from typing import Any, final

import aiosqlite
from sqlalchemy.engine import AdaptedConnection
from sqlalchemy.util import await_only

from ..errors import ConfigurationError
from ..execution.connection_thread import ConnectionThread, connection_class
from ..execution.shared_thread import SharedThread
from ..files.images import with_images
from ..files.location import Location
from ..files.private_directory import is_private
from ..reporting.events import TimeoutNotUsed, log
from ..settings import DEFAULT_CACHED_STATEMENTS, LONGEST_SECONDS, ConnectionSettings
from ..sqlite.configuring import file_of
from ..sqlite.driver_errors import dbapi
from ..sqlite.isolation import check_connect_args
from ..sqlite.shared_hooks import sharing_hooks


@final
class Opened:
    """A connection that has been opened, but not set up yet."""

    __slots__ = ("raw", "worker")

    def __init__(self, stock: AdaptedConnection) -> None:
        self.raw: aiosqlite.Connection = stock.driver_connection
        self.worker: ConnectionThread | None = None

    def ask_for_file(self, shared: SharedThread) -> str | None:
        """Ask SQLite for the path of its file, in a greenlet; return None for one in memory."""

        def ask(connection: sqlite3.Connection) -> str | None:
            dbapi.learn(connection)
            return file_of(connection)

        return await_only(self._use(shared).run(ask))

    def _use(self, shared: SharedThread) -> ConnectionThread:
        if self.worker is None:
            self.worker = ConnectionThread(self.raw, threadsafe=False, shared=shared)
        return self.worker

    def give_up(self, shared: SharedThread) -> None:
        """Close the connection without waiting."""
        self._use(shared).give_up("it was never used", keep=False, done=lambda _: None)


@final
class Arguments:
    """The arguments of ``sqlite3.connect`` with which an engine's connections are opened.

    ``convert`` is True if converters are called; ``own_class`` is the class of connections on
    which nothing was registered, None if the application has its own class. ``timeout`` is
    SQLite's busy timeout in seconds, if the application has given one.
    """

    def __init__(self) -> None:
        self.cached_statements = DEFAULT_CACHED_STATEMENTS
        self.convert = False
        self.own_class: type[sqlite3.Connection] | None = None
        self.timeout: float | None = None
        self._timeout_said = False

    def complete(
        self, parameters: dict[str, Any], location: Location, settings: ConnectionSettings
    ) -> None:
        """Complete the arguments from the application and all listeners."""
        check_connect_args(parameters)
        self._take_timeout(parameters.pop("timeout", None), location, settings)
        parameters.setdefault("cached_statements", DEFAULT_CACHED_STATEMENTS)
        parameters.update(check_same_thread=False, timeout=0)
        self.cached_statements = int(parameters["cached_statements"])
        self.convert = bool(parameters.get("detect_types"))
        own = "factory" not in parameters
        base = parameters.get("factory", connection_class())
        if is_private(location.path):
            base = parameters["factory"] = with_images(base)
        if isinstance(base, type):
            parameters["factory"] = sharing_hooks(base)
        self.own_class = parameters["factory"] if own else None

    def _take_timeout(self, timeout: Any, location: Location, settings: ConnectionSettings) -> None:
        if timeout is None:
            return
        self.timeout = min(max(0.0, float(timeout)), LONGEST_SECONDS)  # what sqlite3 accepts
        waits = (settings.write_timeout, settings.read_timeout)
        given = settings.write_timeout_given or settings.read_timeout_given
        is_used = timeout in waits or (not given and self.timeout > max(waits))
        if is_used or self._timeout_said:
            return
        self._timeout_said = True
        log(
            TimeoutNotUsed(
                database=location.label,
                timeout=str(timeout),
                seconds_to_write=settings.write_timeout,
                seconds_to_read=settings.read_timeout,
            ),
            'connect_args={"timeout": %s} of %s is not used: this pool waits write_timeout=%s s '
            "for the right to write and for SQLite's lock, and read_timeout=%s s to read; pass "
            "those to create_async_engine() instead",
            *(timeout, location.label, *waits),
        )


@final
class Creator:
    """Calls the creator, as ``QueuePool`` does, and keeps one connection that was opened early."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.early: Opened | None = None
        self._early_info: dict[Any, Any] = {}
        self._call = call
        # The engine's own creator is recognized by its one argument, as in QueuePool.
        self.by_dialect = _takes_only_record(call)
        self._takes_record = self.by_dialect or _number_required(call) == 1

    def __repr__(self) -> str:
        return repr(self._call)

    def open(self, record: Any) -> Opened:
        """Return a new connection. This needs a greenlet."""
        stock: AdaptedConnection = self._call(record) if self._takes_record else self._call()
        if not isinstance(getattr(stock, "driver_connection", None), aiosqlite.Connection):
            raise ConfigurationError(
                f"{self!r}, or a do_connect listener, returned {stock!r}, but this pool needs "
                "SQLAlchemy's adapter of an aiosqlite connection: use async_creator= with a "
                "coroutine function that returns a connection from aiosqlite.connect(), or leave "
                "poolclass out"
            )
        return Opened(stock)

    def open_early(self, *, probing: bool = False) -> Opened:
        """Open a connection without a record of the pool; :meth:`take_early` returns it.

        ``do_connect`` listeners get a record that :func:`is_probe` recognizes if ``probing``.
        """
        if (early := self.early) is None:
            record = (_Probe if probing else SimpleNamespace)(info={}, record_info={})
            early, self._early_info = self.open(record), record.info
            self.early = early
        return early

    def take_early(self, record: Any) -> Opened | None:
        """Return the connection that was opened early, for ``record``, or None."""
        early, self.early = self.early, None
        if early is not None and record is not None:
            record.info.update(self._early_info)
        return early


class _Probe(SimpleNamespace):
    """The record of a call that only asks for the arguments of ``sqlite3.connect``."""


def is_probe(record: object) -> bool:
    """Return whether a connection with this ``record`` must not be opened."""
    return isinstance(record, _Probe)


_ANY_NUMBER = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS


def _takes_only_record(call: Callable[..., Any]) -> bool:
    """Return whether ``connection_record`` is its only argument, faster than ``inspect``."""
    code = getattr(call, "__code__", None)
    return (
        isinstance(code, CodeType)
        and code.co_varnames[: code.co_argcount + code.co_kwonlyargcount] == ("connection_record",)
        and not code.co_flags & _ANY_NUMBER
        and not hasattr(call, "__wrapped__")
    )


def _number_required(call: Callable[..., Any]) -> int:
    """Return how many positional arguments are required."""
    try:
        parameters = inspect.signature(call).parameters.values()
    except (TypeError, ValueError):  # some functions in C have no signature
        return 0
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is p.empty for p in parameters)
