"""Texts in whose place the package may send another one, or none: SQLite accepts them surely."""

from __future__ import annotations

import ctypes.util
import random
import sqlite3
from contextlib import closing

import pytest

from sa_sqlite_pool.sqlite.statements import Kind, classify, delimits, is_plain_pragma

# Errors of texts that SQLite has parsed.
WHEN_RUN = ("no such savepoint", "cannot commit", "cannot rollback", "cannot start")

TEXT = (
    "BEGIN DEFERRED IMMEDIATE EXCLUSIVE CONCURRENT TRANSACTION COMMIT END ROLLBACK TO SAVEPOINT "
    "RELEASE a A1 $a a$1 1 1a é \u017f select key on _ . ( @ # ? :x ; ;; 'a' \"a\" [a] `a` '' \"\" "
    "'''' 'a 'a'' [a x'00' -- /* /**/ /*x*/ /*/ / \x00 \xa0 \x0b \x0c \ufeff a\ufeff \ud800"
)
WORDS = [*TEXT.split(" "), "--\n", "-- ;\n"]
STARTS = ["BEGIN", "COMMIT", "END", "ROLLBACK", "ROLLBACK TO", "SAVEPOINT", "RELEASE"]


def is_accepted(sql: str) -> bool:
    """Return whether the driver and SQLite's parser accept the text."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        try:
            connection.execute(sql)
        except sqlite3.OperationalError as error:
            return any(map(str(error).__contains__, WHEN_RUN))
        except (sqlite3.Error, sqlite3.Warning, ValueError):
            return False
    return True


@pytest.mark.parametrize("seed", range(5))
def test_only_what_sqlite_accepts(seed: int) -> None:
    """Random texts, most of them wrong."""
    random_ = random.Random(seed)
    accepted = 0
    for _ in range(4_000):
        sql = random_.choice(["", " ", ";", "/**/", "\ufeff"]) + random_.choice(
            [*STARTS, "RELEASE"]
        )
        for _ in range(random_.randrange(5)):
            sql += random_.choice([" ", " ", "", "\n", "\t"]) + random_.choice(WORDS)
        if delimits(sql):
            accepted += 1
            assert is_accepted(sql), sql
    assert accepted > 200


@pytest.mark.parametrize(
    "sql",
    [
        *("BEGIN", "begin;", " ; BEGIN -- a", "BEGIN TRANSACTION", "BEGIN DEFERRED TRANSACTION a"),
        *("BEGIN IMMEDIATE", "\ufeffBEGIN EXCLUSIVE /* a */ ;", "BEGIN TRANSACTION 'a'"),
        *("COMMIT", "END TRANSACTION;", "ROLLBACK", "ROLLBACK TRANSACTION a", "COMMIT /* open"),
        *("SAVEPOINT a", "SAVEPOINT é", "SAVEPOINT'a'", 'SAVEPOINT "a b";', "SAVEPOINT savepoint"),
        *("RELEASE a", "RELEASE SAVEPOINT [a]", "RELEASE savepoint savepoint", "RELEASE release"),
        *("ROLLBACK TO a", "ROLLBACK TRANSACTION TO SAVEPOINT `a`", "rollback to begin"),
        *("COMMIT " + "/* a */ " * 3_000, "SAVEPOINT " + "a" * 50_000),
    ],
)
def test_what_is_recognized(sql: str) -> None:
    """A text that is not recognized would be sent within the transaction that it should begin."""
    assert delimits(sql)
    assert is_accepted(sql)


def keywords() -> list[str]:
    """Return SQLite's keywords: https://www.sqlite.org/c3ref/keyword_check.html"""
    name = ctypes.util.find_library("sqlite3")
    if name is None:
        pytest.skip("SQLite's library is part of the driver here")
    library = ctypes.CDLL(name)
    found, length = ctypes.c_char_p(), ctypes.c_int()
    names = []
    for number in range(library.sqlite3_keyword_count()):
        library.sqlite3_keyword_name(number, ctypes.byref(found), ctypes.byref(length))
        assert found.value is not None
        names.append(found.value[: length.value].decode())
    return names


def test_reserved_words() -> None:
    """SQLite accepts many of its keywords as a savepoint's name, and as a PRAGMA's value."""
    for word in keywords():
        savepoint, pragma = f"SAVEPOINT {word}", f"PRAGMA foreign_keys = {word}"
        assert delimits(savepoint) is is_accepted(savepoint), word
        assert is_plain_pragma(pragma) is is_accepted(pragma), word


@pytest.mark.parametrize(
    ("sql", "plain"),
    [
        ("PRAGMA optimize", True),
        ("PRAGMA main.optimize(0x10002);", True),
        ("pragma foreign_keys=on -- c", True),
        ("PRAGMA foreign_keys = 'on'", True),
        ("PRAGMA /* a */ synchronous ( 1 )", True),
        ("PRAGMA synchronous = -1", True),
        ("PRAGMA synchronous = 1.5", True),
        ("PRAGMA", False),
        ("PRAGMA optimize(", False),
        ("PRAGMA synchronous =", False),
        ("PRAGMA synchronous = 1x", False),
        ("PRAGMA synchronous = 1 0", False),
        ("PRAGMA synchronous = FULL x", False),
        ("PRAGMA synchronous = FULL;;", False),
        ("PRAGMA synchronous = select", False),
        ("PRAGMA synchronous = ?", False),
        ("PRAGMA synchronous = 'FULL", False),
        ("PRAGMA nosuch.synchronous = FULL", False),
    ],
)
def test_plain_pragmas(sql: str, plain: bool) -> None:
    assert is_plain_pragma(sql) is plain
    assert is_accepted(sql) is plain


def test_kinds_stay() -> None:
    """The kind of a text that is not well-formed is still that of its first words."""
    assert classify("COMMIT bogus") is Kind.END
    assert classify("BEGIN IMMEDIATE bogus") is Kind.BEGIN_WRITE
