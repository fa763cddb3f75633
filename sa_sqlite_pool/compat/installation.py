"""Reused greenlets for SQLAlchemy's own asyncio classes, in a whole process."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Generator, Iterator
from types import FunctionType, ModuleType
from typing import Any, NoReturn, final

from sqlalchemy import __version__ as _sqlalchemy
from sqlalchemy.util import await_only

from ..errors import ConfigurationError
from ..mutex import new_lock
from .greenlets import greenlet_spawn

_NAME = "greenlet_spawn"
_HOME = "sqlalchemy.util.concurrency"
# The modules in which SQLAlchemy has the function under that name.
_USERS = (
    "sqlalchemy.util",
    "sqlalchemy.ext.asyncio.engine",
    "sqlalchemy.ext.asyncio.result",
    "sqlalchemy.ext.asyncio.session",
)


def same_by_another_name(function: Any) -> Callable[..., Any]:
    """Return a copy of a coroutine function: a different object that does the same."""
    if type(function) is FunctionType:
        copy = FunctionType(function.__code__, function.__globals__, function.__name__)
        copy.__kwdefaults__ = function.__kwdefaults__
        return functools.update_wrapper(copy, function)

    @functools.wraps(function)  # a function compiled to C, for example by Nuitka
    async def calling(*args: Any, **kwargs: Any) -> Any:
        return await function(*args, **kwargs)

    return calling


# Our function as an object that no other module refers to: uninstall() finds it by identity.
_ours = same_by_another_name(greenlet_spawn)


@final
class _Installation:
    """The only installation of the process."""

    def __init__(self) -> None:
        self._lock = new_lock()
        self._replaced: Callable[..., Any] | None = None  # None ⇔ not installed

    def install(self) -> None:
        with self._lock:
            if self._replaced is None:
                theirs = _expected_function()
                _replace(theirs, _ours)
                self._replaced = theirs

    def uninstall(self) -> None:
        with self._lock:
            if self._replaced is not None:
                _replace(_ours, self._replaced)
                self._replaced = None


_installation = _Installation()


def install() -> None:
    """Make SQLAlchemy's own asyncio classes reuse greenlets, in this process, for every database.

    For programs whose engines and sessions are created elsewhere; if you can change the imports,
    ``from sa_sqlite_pool import create_async_engine, async_sessionmaker, AsyncSession`` saves more.
    Call it when the program starts, from any thread, before or after engines are created: it
    affects each SQLAlchemy call that begins afterwards. Calling it again has no further effect.

    It replaces ``greenlet_spawn`` in each module that has it under that name, including SQLModel's.
    Its ``_require_await``, by which SQLAlchemy detects a driver that blocks the event loop, then
    has no effect. :func:`uninstall` undoes the replacement.

    Raises :class:`~sa_sqlite_pool.ConfigurationError`, and changes nothing, if SQLAlchemy does not
    have that function where it is expected, or if another library has already replaced it.
    """
    _installation.install()


def uninstall() -> None:
    """Undo :func:`install`; do nothing if it was not called.

    A replacement that another library has made since then stays.
    """
    _installation.uninstall()


def _replace(old: object, new: object) -> None:
    for names in _namespaces():
        if names.get(_NAME) is old:
            names[_NAME] = new


def _namespaces() -> Iterator[dict[str, Any]]:
    """Yield the namespace of each imported module without triggering lazy loading."""
    for module in list(sys.modules.values()):
        if issubclass(type(module), ModuleType):
            yield object.__getattribute__(module, "__dict__")


def _expected_function() -> Callable[..., Any]:
    """Return SQLAlchemy's function if ours can replace it; raise ``ConfigurationError`` if not."""
    home = importlib.import_module(_HOME)
    theirs: Any = getattr(home, _NAME, None)
    if theirs is None:
        _refuse(f"has no {_HOME}.{_NAME}")
    for user in _USERS:
        found = getattr(importlib.import_module(user), _NAME, None)
        if found is None:
            _refuse(f"has no {user}.{_NAME}")
        if found is not theirs:
            _refuse(
                f"has a different {_NAME} in {user} than in {_HOME}: some library has replaced it"
            )
    if not getattr(theirs, "__module__", "").startswith("sqlalchemy.util."):
        _refuse(f"has {theirs!r} as {_HOME}.{_NAME}: some library has replaced it")
    if not inspect.iscoroutinefunction(theirs) or not _takes_the_same(theirs):
        _refuse(f"has a {_NAME} with other arguments")
    if not _works():
        _refuse("does not let its functions await in reused greenlets")
    return theirs  # type: ignore[no-any-return]


def _refuse(reason: str) -> NoReturn:
    raise ConfigurationError(
        f"install() cannot be used here: SQLAlchemy {_sqlalchemy} {reason}; leave the call out, "
        "which costs only time"
    )


def _takes_the_same(theirs: Callable[..., Any]) -> bool:
    kinds, own = (
        [
            (one.kind, one.name)
            for one in inspect.signature(function).parameters.values()
            if one.name != "_to_end"  # for use by this package only
        ]
        for function in (theirs, greenlet_spawn)
    )
    return kinds[1:] == own[1:]  # the first is named differently, but never passed by name


class _Question:
    """The awaitable for the trial."""

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield self)


def _works() -> bool:
    """Return whether SQLAlchemy's ``await_only()`` works in our greenlets."""
    question = _Question()
    trial: Any = greenlet_spawn(await_only, question)
    try:
        if trial.send(None) is not question:
            return False
        trial.send("answer")
    except StopIteration as ended:
        return bool(ended.value == "answer")
    except Exception:
        return False
    finally:
        trial.close()
    return False
