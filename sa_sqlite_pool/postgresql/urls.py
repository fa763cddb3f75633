"""PostgreSQL URLs as users type them, or as hosting providers supply them.

They are corrected, or refused with a reason. No message contains a password: where it cannot be
told apart, everything before the last @ is left out.
"""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from importlib.util import find_spec

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from ..errors import ConfigurationError
from ..settings import wrong_type_of_url

_DRIVERS = {"asyncpg": "asyncpg", "psycopg": "psycopg", "psycopg_async": "psycopg"}
"""Names of drivers in a URL, and their packages; the first that is installed is the default."""

_PORTS = range(1, 65536)

# SQLAlchemy's own options, which it removes from the URL for asyncpg.
_OWN_OPTIONS = frozenset(
    {"async_creator_fn", "prepared_statement_cache_size", "prepared_statement_name_func"}
)
_QUOTED = "in a password, write %40 for @, %3A for :, %2F for / and %25 for %"


def server_url(url: str | URL, *, what: str = "the URL", default_driver: str | None = None) -> URL:
    """Return the URL, with a driver that is installed, and with options that the driver accepts.

    A URL without a driver, as hosting providers supply it (``postgres://…``), gets
    ``default_driver``, or one that is installed. Raise :class:`~sa_sqlite_pool.ConfigurationError`
    if the URL cannot be used; ``what`` names it in the message.
    """
    parsed = _parsed(url)
    if "@" in (parsed.host or ""):
        raise ConfigurationError(f"{_masked(str(url))!r} has one @ too many; {_QUOTED}")
    if parsed.get_backend_name() != "postgresql":
        raise ConfigurationError(
            f"{what} {parsed!r} is not a PostgreSQL URL, the only kind supported here; for "
            "other servers use routing_sessionmaker() with engines of your own"
        )
    if parsed.port is not None and parsed.port not in _PORTS:
        between = f"between {_PORTS[0]} and {_PORTS[-1]}"
        raise ConfigurationError(f"{parsed!r} has a port that is not {between}")
    if parsed.drivername == "postgresql":
        driver = default_driver or next(filter(find_spec, _DRIVERS), "asyncpg")
        parsed = parsed.set(drivername=f"postgresql+{driver}")
    package = _package_of(what, parsed)
    if find_spec(package) is None:
        raise ConfigurationError(
            f"{package} is not installed: pip install 'sa-sqlite-pool[{package}]'"
        )
    return _for_asyncpg(parsed) if package == "asyncpg" else parsed


def _parsed(url: str | URL) -> URL:
    if isinstance(url, URL):
        return url
    if not isinstance(url, str):
        raise wrong_type_of_url(url, "a string or a sqlalchemy.URL")
    try:
        # Some providers write "postgres".
        return make_url(re.sub(r"^postgres(?=[:+])", "postgresql", url))
    except (ArgumentError, ValueError):
        raise ConfigurationError(
            f"{_masked(url)!r} is not a URL such as postgresql://user@host:5432/name; {_QUOTED}"
        ) from None


def _package_of(what: str, url: URL) -> str:
    name = url.drivername.partition("+")[2]
    package = _DRIVERS.get(name)
    if package is None:
        try:
            # It may be the application's own dialect over one of the drivers.
            package = _DRIVERS.get(url.get_dialect().driver)
        except ArgumentError:  # there is no dialect of that name
            package = None
    if package is None:
        raise ConfigurationError(
            f"{what} has the driver {name}, which is not supported here: use "
            "postgresql+asyncpg or postgresql+psycopg"
        )
    return package


def _for_asyncpg(url: URL) -> URL:
    """Return the URL with libpq's ``sslmode`` renamed for asyncpg; refuse what would fail later."""
    if "sslmode" in url.query:
        mode = url.query["sslmode"]
        url = url.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})
    known = {*inspect.signature(import_module("asyncpg").connect).parameters} | _OWN_OPTIONS
    if unknown := sorted(url.query.keys() - known):
        raise ConfigurationError(
            f"asyncpg has no option {', '.join(unknown)}: leave it out of the URL, or use "
            "postgresql+psycopg://, which accepts those of libpq"
        )
    return url


def _masked(text: str) -> str:
    text = re.sub(r"^([a-z0-9+]+://)?.*@", r"\1***@", text, flags=re.IGNORECASE | re.DOTALL)
    return re.sub(r"(password=)[^&]*", r"\1***", text)
