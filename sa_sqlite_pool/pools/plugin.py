"""The plugin for ``?plugin=sa_sqlite_pool``: the URL alone selects SQLitePool."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.engine import URL, CreateEnginePlugin

from .impl import SQLitePool


def names_pool(options: Mapping[str, Any]) -> bool:
    """Return whether the arguments of an engine name a pool."""
    return options.get("pool") is not None or options.get("poolclass") is not None


class SQLitePoolPlugin(CreateEnginePlugin):
    """The plugin that is registered in the entry point group ``sqlalchemy.plugins``.

    It sets ``poolclass=SQLitePool`` unless the application names a pool.
    """

    def __init__(self, url: URL, kwargs: dict[str, Any]) -> None:
        super().__init__(url, kwargs)
        if not names_pool(kwargs):
            kwargs["poolclass"] = SQLitePool

    def update_url(self, url: URL) -> URL:
        """Return the URL unchanged: it contains no parameters of the plugin."""
        return url
