"""The refusals of routed sessions: at construction, and of writes on a reader of PostgreSQL."""

from __future__ import annotations

from typing import NoReturn

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, OperationalError

from ..errors import ConfigurationError, ForbiddenWriteError
from ..pools.base import FairPool
from ..postgresql.sqlstate import READ_ONLY_TRANSACTION, sqlstate_of

# -- at construction ----------------------------------------------------------------------------


def twophase_refused() -> ConfigurationError:
    return ConfigurationError(
        "twophase=True is not available in routed sessions: reads on one engine and writes on "
        "another cannot be prepared as one transaction; leave it out, or use a stock "
        "async_sessionmaker for transactions across several databases"
    )


def assert_staleness_can_be_told(writer: Engine, reader: Engine) -> None:
    """Raise :class:`~sa_sqlite_pool.ConfigurationError` if ``refuse_stale_writes`` would not work.

    A pool of this package can tell whether its file has new commits; a server does not report it.
    """
    if writer is reader:
        raise ConfigurationError(
            "refuse_stale_writes needs a reader engine separate from the writer engine: reads and "
            'writes on one connection are governed by its isolation level; use role="writer" '
            "instead"
        )
    if not isinstance(reader.pool, FairPool):
        name = reader.dialect.name
        ways = (
            "or use poolclass=ReaderPool for the reader engine"
            if name == "sqlite"
            else f'and read what a write depends on with role="writer", under {name}\'s own '
            "isolation levels"
        )
        raise ConfigurationError(
            "refuse_stale_writes needs this package's pools, which can tell whether anything was "
            f"committed since a read; leave it out, {ways}"
        )


# -- by a reader --------------------------------------------------------------------------------


def is_refused_write(error: Exception) -> bool:
    """Return whether a reader of PostgreSQL refused a statement that readers must not execute."""
    return sqlstate_of(error) == READ_ONLY_TRANSACTION or isinstance(
        _of_driver(error), ForbiddenWriteError
    )


def raise_forbidden_write(error: Exception, way_out: str) -> NoReturn:
    """Raise the error that a reader of SQLite raises for a write, or ``error`` if it is one.

    :param way_out: the advice at the end of the message
    """
    reason = _of_driver(error)
    if way_out in str(reason):
        raise error
    if isinstance(reason, ForbiddenWriteError):  # raised by a ServerDatabase: it names the server
        what = str(reason).removesuffix(f"; {USE_A_WRITER}")
    else:
        what = f"a reader cannot change a database: {reason_of(reason)}"
    forbidden = ForbiddenWriteError(f"{what}; {way_out}")
    vars(forbidden)["sqlstate"] = READ_ONLY_TRANSACTION
    if not isinstance(error, DBAPIError):
        raise OperationalError(None, None, forbidden) from error
    raise OperationalError(
        error.statement,
        error.params,
        forbidden,
        hide_parameters=error.hide_parameters,
        ismulti=error.ismulti,
    ) from error


def reason_of(error: BaseException | None) -> str:
    """Return the server's message, without the lines that locate the error in a server's function.

    SQLAlchemy's error for asyncpg includes the type of asyncpg's error in its message.
    """
    return str((error and error.__cause__) or error).strip().partition("\n")[0]


def _of_driver(error: Exception) -> BaseException | None:
    # SQLAlchemy does not wrap errors that asyncpg raises while the rows of a stream are fetched.
    return error.orig if isinstance(error, DBAPIError) else error


USE_A_WRITER = "use a writer session or the writer engine"
BEGIN_AS_WRITER = (
    "this session has already read in this transaction, from a snapshot that the writer does not "
    'have, so the statement is not sent to the writer automatically: use role="writer" from the '
    "start"
)
