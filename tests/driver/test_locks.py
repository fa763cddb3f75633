"""Which errors tell of a lock that somebody else holds."""

from __future__ import annotations

import sqlite3

import pytest

from sa_sqlite_pool.driver.locks import may_pass


def test_a_lock() -> None:
    """As Python 3.10 tells of it, without a code."""
    assert may_pass(sqlite3.OperationalError("database is locked"), in_transaction=False)


@pytest.mark.parametrize("kind", [sqlite3.IntegrityError, sqlite3.DatabaseError])
def test_the_words_of_an_application(kind: type[sqlite3.Error]) -> None:
    """RAISE(ABORT, 'the account is locked') of a trigger does not pass by waiting."""
    assert not may_pass(kind("the account is locked"), in_transaction=False)
