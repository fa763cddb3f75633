"""The space that a database occupies, and the settings that slow down a large one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from ..settings import DEFAULT_PRAGMAS
from ..sqlite.inspection import ask, rows
from .findings import Figures, Finding, Severity, Subject, size_text

_MIB = 1024 * 1024

MUCH_FREE = 4 * _MIB
LARGE = 100 * _MIB
"""The size in bytes from which a database is large."""

_FREE_SHARE = 4
_CACHED_SHARE = 100
_USUAL_PAGE = 4096
_KIB = 1024


def figures_of(connection: sqlite3.Connection, *, journal_mode: str) -> Figures:
    """Return the sizes that SQLite reports."""
    page_size = int(ask(connection, "page_size"))
    # "the suggested cache size … is stored in the database file", in pages:
    # https://www.sqlite.org/pragma.html#pragma_default_cache_size. If the file suggests none, a
    # connection has SQLite's own default, which is in KiB and therefore negative.
    stored = max(0, int(ask(connection, "cache_size")))
    return Figures(
        journal_mode,
        page_size,
        pages=int(ask(connection, "page_count")),
        free_pages=int(ask(connection, "freelist_count")),
        cache_bytes=stored * page_size if stored else None,
    )


def check_space(
    connection: sqlite3.Connection, subject: Subject, figures: Figures
) -> Iterator[Finding]:
    yield from _check_free_pages(subject, figures)
    yield from _check_page_size(subject, figures)
    yield from _check_cache(subject, figures)
    yield from _check_statistics(connection, subject, figures)


def _check_free_pages(subject: Subject, figures: Figures) -> Iterator[Finding]:
    free = figures.free_pages * figures.page_size
    if free >= MUCH_FREE and figures.free_pages * _FREE_SHARE >= figures.pages:
        share = 100 * figures.free_pages // figures.pages
        yield Finding(
            "free-pages",
            Severity.INFO,
            f"{share} % of the file, {size_text(free)}, are free pages: later rows will fill "
            "them, but the file does not shrink by itself",
            subject.sql("VACUUM"),
        )


def _check_page_size(subject: Subject, figures: Figures) -> Iterator[Finding]:
    if figures.size >= LARGE and figures.page_size < _USUAL_PAGE:
        yield Finding(
            "page-size",
            Severity.INFO,
            f"the page size is {figures.page_size} bytes, in a database of "
            f"{size_text(figures.size)}: with pages of {_USUAL_PAGE} there are fewer to read and "
            "to keep track of",
            subject.sql(
                f"PRAGMA journal_mode = DELETE; PRAGMA page_size = {_USUAL_PAGE}; VACUUM; "
                "PRAGMA journal_mode = WAL"
            ),
        )


def _check_cache(subject: Subject, figures: Figures) -> Iterator[Finding]:
    own = figures.cache_bytes
    cache = -int(DEFAULT_PRAGMAS["cache_size"]) * _KIB if own is None else own
    if figures.size < LARGE or cache * _CACHED_SHARE >= figures.size:
        return
    if own is not None:
        yield Finding(
            "cache-size",
            Severity.WARNING,
            f"the file itself gives each connection a cache of {size_text(own)}, for a database "
            f"of {size_text(figures.size)}",
            subject.sql("PRAGMA default_cache_size = 0"),
        )
        return
    yield Finding(
        "cache-size",
        Severity.INFO,
        f"the database has {size_text(figures.size)}, and a connection of this package caches "
        f"{size_text(cache)} of it",
        f'pragmas={{"cache_size": {-figures.size // _CACHED_SHARE // _KIB}}} of SQLiteDatabase '
        f"or create_async_engine(), which is {size_text(figures.size // _CACHED_SHARE)} for each "
        "connection",
    )


def _check_statistics(
    connection: sqlite3.Connection, subject: Subject, figures: Figures
) -> Iterator[Finding]:
    if figures.size < LARGE:
        return
    names = {name for (name,) in rows(connection, "SELECT name FROM sqlite_master")}
    has_index = rows(connection, "SELECT 1 FROM sqlite_master WHERE type = 'index' LIMIT 1")
    if has_index and not (
        "sqlite_stat1" in names and rows(connection, "SELECT 1 FROM sqlite_stat1 LIMIT 1")
    ):
        yield Finding(
            "no-statistics",
            Severity.INFO,
            f"ANALYZE was never run on a database of {size_text(figures.size)}: SQLite guesses "
            "which index is the best",
            subject.sql("ANALYZE"),
        )
