"""The address of a database as users specify it: a URL or a path."""

from __future__ import annotations

import os

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from ..errors import ConfigurationError
from ..settings import wrong_type_of_url
from .location import Location


def sqlite_url(address: str | URL | os.PathLike[str], *, needed_by: str, otherwise: str) -> URL:
    """Return the ``sqlite+aiosqlite`` URL of an address; raise :class:`ConfigurationError` if none.

    ``needed_by`` and ``otherwise`` are for the message: what needs the URL, and the alternative for
    users of other databases.
    """
    if isinstance(address, os.PathLike):
        return URL.create("sqlite+aiosqlite", database=os.fspath(address))
    if not isinstance(address, (str, URL)):
        raise wrong_type_of_url(address, "a string, a path or a sqlalchemy.URL")
    if isinstance(address, str) and "://" not in address:
        return URL.create("sqlite+aiosqlite", database=address)
    try:
        parsed = make_url(address)
    except ArgumentError as error:
        raise ConfigurationError(
            f"{address!r} is neither a path nor a URL such as sqlite+aiosqlite:///app.db"
        ) from error
    if parsed.drivername not in {"sqlite+aiosqlite", "sqlite"}:
        raise ConfigurationError(
            f"{needed_by} needs a sqlite+aiosqlite URL, not {parsed.drivername}; {otherwise}"
        )
    return parsed.set(drivername="sqlite+aiosqlite")


def parse_url(url: str | URL | os.PathLike[str]) -> URL:
    """Return the URL for a :class:`~sa_sqlite_pool.SQLiteDatabase`."""
    return sqlite_url(
        url,
        needed_by="SQLiteDatabase",
        otherwise="for PostgreSQL there is ServerDatabase; for other databases, create two engines "
        "and use routing_sessionmaker()",
    )


def locate(url: URL) -> Location:
    """Return the location at which the dialect would open ``url``."""
    arguments, parameters = url.get_dialect()().create_connect_args(url)
    return Location.parse(str(arguments[0]), uri=bool(parameters.get("uri")))
