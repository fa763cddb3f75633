"""An error of a statement, in a block that handles another one: both are in the traceback."""

from __future__ import annotations

import sqlite3

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from sa_sqlite_pool import SQLitePool
from tests.conftest import MakeEngine


def translate(connection: Connection) -> None:
    try:
        connection.execute(text("SELECT nothing"))
    except OperationalError:
        raise LookupError("translated")  # noqa: B904


async def test_the_error_of_the_driver(make_engine: MakeEngine) -> None:
    """An error that the caller handles where it awaits does not replace it, either."""
    async with make_engine(SQLitePool).connect() as connection:
        with pytest.raises(LookupError, match="translated") as caught:
            try:
                raise OSError("an earlier attempt")
            except OSError:
                await connection.run_sync(translate)
    error = caught.value.__context__
    assert isinstance(error, OperationalError)
    assert isinstance(error.__context__, sqlite3.OperationalError)
