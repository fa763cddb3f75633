"""Hooks of a ``sqlite3`` connection that the application and this package share.

SQLite has one authorizer and one progress handler per connection, so the application's call of
``set_authorizer()`` would replace the package's, or the other way round. The connections that
SQLAlchemy's dialect opens are therefore of a subclass that keeps both.

A connection that the application opens itself (``async_creator``) is of another class, perhaps
from another module. There, the hook that is set last replaces the other.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import cache
from typing import Any

from .authorizer import Authorizer, AuthorizerCallback

ProgressHandler = Callable[[], "int | None"]

_NO_HANDLER: tuple[ProgressHandler | None, int] = (None, 0)


@cache
def sharing_hooks(base: type[sqlite3.Connection]) -> type[sqlite3.Connection]:
    """Return the subclass of ``base`` whose hooks the application and the package share."""

    class SharedConnection(base):  # type: ignore[misc, valid-type]
        """A ``sqlite3.Connection`` with the application's hooks alongside the package's."""

        _authorizer: Authorizer | None = None
        _own_authorizer: AuthorizerCallback | None = None
        _asked: AuthorizerCallback | None = None  # the package's, or its temporary replacement
        own_progress_handler: tuple[ProgressHandler | None, int] = _NO_HANDLER
        _watching: tuple[ProgressHandler | None, int] = _NO_HANDLER

        def set_authorizer(self, authorizer_callback: AuthorizerCallback | None) -> None:
            self._own_authorizer = authorizer_callback
            if self._authorizer is None:
                super().set_authorizer(authorizer_callback)
            else:
                self._authorizer.application = authorizer_callback
                super().set_authorizer(self._asked)

        def install_authorizer(self, authorizer: Authorizer) -> None:
            """Make SQLite call ``authorizer``, and recompile the statements compiled before."""
            if self._authorizer is None:
                self._authorizer = authorizer
                authorizer.application = self._own_authorizer
            self.ask_instead(authorizer)

        def ask_instead(self, authorizer: AuthorizerCallback) -> None:
            """Make SQLite call ``authorizer``, which calls ours, until another is installed."""
            self._asked = authorizer
            super().set_authorizer(authorizer)

        def ask_again(self) -> None:
            """Make SQLite recompile all statements and call the authorizer for them again."""
            super().set_authorizer(self._asked)

        def set_progress_handler(self, progress_handler: ProgressHandler | None, n: int) -> None:
            own = progress_handler is not None and n > 0
            self.own_progress_handler = (progress_handler, n) if own else _NO_HANDLER
            self.watch_progress(*self._watching)

        def watch_progress(self, handler: ProgressHandler | None, steps: int) -> None:
            """Set the package's handler alongside the application's; None removes it."""
            self._watching = (handler, steps)
            own, own_steps = self.own_progress_handler
            if handler is None:
                base.set_progress_handler(self, own, own_steps)
            elif own is None:
                base.set_progress_handler(self, handler, steps)
            else:
                base.set_progress_handler(self, _both(own, handler), min(own_steps, steps))

    return SharedConnection


def _both(first: ProgressHandler, second: ProgressHandler) -> ProgressHandler:
    """Return a progress handler that stops the statement if either of the two does."""
    return lambda: first() or second()


def install_authorizer(connection: Any, authorizer: Authorizer) -> None:
    """Make SQLite call ``authorizer``, even for statements that are compiled already."""
    install = getattr(connection, "install_authorizer", None)
    if install is None:
        connection.set_authorizer(authorizer)
    else:
        install(authorizer)


def ask_instead(connection: Any, authorizer: AuthorizerCallback) -> None:
    """Make SQLite call this callback instead, until the package's authorizer is reinstalled."""
    getattr(connection, "ask_instead", connection.set_authorizer)(authorizer)


def ask_again(connection: Any, authorizer: Authorizer) -> None:
    """Make SQLite call ``authorizer``, or its replacement, for statements compiled before."""
    again = getattr(connection, "ask_again", None)
    if again is None:
        connection.set_authorizer(authorizer)
    else:
        again()


def watch_progress(connection: Any, handler: ProgressHandler | None, steps: int) -> None:
    """Make SQLite call ``handler`` every ``steps`` instructions; None removes the handler."""
    watch = getattr(connection, "watch_progress", connection.set_progress_handler)
    watch(handler, steps)


def own_progress_handler(connection: Any) -> ProgressHandler | None:
    """Return the application's progress handler; None if it has none."""
    found: ProgressHandler | None = getattr(connection, "own_progress_handler", _NO_HANDLER)[0]
    return found
