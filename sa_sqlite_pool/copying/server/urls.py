"""URLs as they are typed, or handed out by a hosting provider: corrected, or refused with a reason.

No message has a password: where one cannot be told apart, all before the last @ is left out.
"""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from importlib.util import find_spec

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from ...errors import ConfigurationError

DRIVERS = ("asyncpg", "psycopg")

_PORTS = range(1, 65536)

# SQLAlchemy's own, which it takes out of the URL for asyncpg.
_OWN_OPTIONS = frozenset(
    {"async_creator_fn", "prepared_statement_cache_size", "prepared_statement_name_func"}
)
_QUOTED = "in a password, write %40 for @, %3A for :, %2F for / and %25 for %"


def parse_target(text: str) -> URL:
    """Return the URL, with a driver that is installed if it names none, and options that it takes.

    Raise :class:`~sa_sqlite_pool.ConfigurationError` if nothing can be made of it.
    """
    text = re.sub(r"^postgres(?=[:+])", "postgresql", text)  # as some providers write it
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ConfigurationError(
            f"{_masked(text)!r} is no URL such as postgresql://user@host:5432/name; {_QUOTED}"
        ) from None
    if "@" in (url.host or ""):
        raise ConfigurationError(f"{_masked(text)!r} has an @ too many; {_QUOTED}")
    if url.get_backend_name() != "postgresql":
        raise ConfigurationError(f"{url!r} is not PostgreSQL's")
    if url.port is not None and url.port not in _PORTS:
        raise ConfigurationError(f"{url!r} has no port from {_PORTS[0]} to {_PORTS[-1]}")
    if url.drivername == "postgresql":
        driver = next(filter(find_spec, DRIVERS), DRIVERS[0])
        url = url.set(drivername=f"postgresql+{driver}")
    if url.get_driver_name() not in DRIVERS:
        raise ConfigurationError(
            f"{url.get_driver_name()} is none of the drivers {', '.join(DRIVERS)}"
        )
    return _for_asyncpg(url) if url.get_driver_name() == "asyncpg" else url


def _for_asyncpg(url: URL) -> URL:
    """Return the URL with libpq's ``sslmode`` by asyncpg's name; refuse what would raise later."""
    if "sslmode" in url.query:
        mode = url.query["sslmode"]
        url = url.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})
    if find_spec("asyncpg") is None:
        return url
    known = {*inspect.signature(import_module("asyncpg").connect).parameters} | _OWN_OPTIONS
    if unknown := sorted(url.query.keys() - known):
        raise ConfigurationError(
            f"asyncpg has no option {', '.join(unknown)}: leave it out of the URL, or use "
            "postgresql+psycopg://, which takes those of libpq"
        )
    return url


def _masked(text: str) -> str:
    text = re.sub(r"^([a-z0-9+]+://)?.*@", r"\1***@", text, flags=re.IGNORECASE | re.DOTALL)
    return re.sub(r"(password=)[^&]*", r"\1***", text)
