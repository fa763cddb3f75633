"""The plugin for ``?plugin=sa_sqlite_pool``: SQLitePool by URL alone."""

from __future__ import annotations

from typing import Any

from sqlalchemy.engine import URL, CreateEnginePlugin

from .impl import SQLitePool


def with_default_pool(options: dict[str, Any]) -> None:
    """Set ``poolclass=SQLitePool`` in the arguments of an engine if they name no pool."""
    if options.get("pool") is None and options.get("poolclass") is None:
        options["poolclass"] = SQLitePool


class SQLitePoolPlugin(CreateEnginePlugin):
    """Registered in the entry point group ``sqlalchemy.plugins``.

    Sets ``poolclass=SQLitePool`` if the application names no pool of its own.
    """

    def __init__(self, url: URL, kwargs: dict[str, Any]) -> None:
        super().__init__(url, kwargs)
        with_default_pool(kwargs)

    def update_url(self, url: URL) -> URL:
        """Return the URL unchanged: the plugin has no parameters in it."""
        return url
