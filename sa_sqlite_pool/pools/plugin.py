"""``?plugin=sa_sqlite_pool``: the swap-in pool by URL alone."""

from __future__ import annotations

from typing import Any

from sqlalchemy.engine import URL, CreateEnginePlugin

from .impl import SQLitePool


class SQLitePoolPlugin(CreateEnginePlugin):
    """Registered in the entry point group ``sqlalchemy.plugins``.

    Sets ``poolclass=SQLitePool`` where the application names no pool of its own.
    """

    def __init__(self, url: URL, kwargs: dict[str, Any]) -> None:
        super().__init__(url, kwargs)
        if kwargs.get("pool") is None and kwargs.get("poolclass") is None:
            kwargs["poolclass"] = SQLitePool

    def update_url(self, url: URL) -> URL:
        """Nothing of the URL is this plugin's alone."""
        return url
