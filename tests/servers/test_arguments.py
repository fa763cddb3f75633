"""Arguments of ``ServerDatabase``: URLs without a driver, and no options that only SQLite has."""

from __future__ import annotations

import inspect
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
from pydantic import PostgresDsn, SecretStr
from sqlalchemy.exc import MissingGreenlet

from sa_sqlite_pool import ConfigurationError, ServerDatabase, SQLiteDatabase
from sa_sqlite_pool.postgresql import urls
from sa_sqlite_pool.postgresql.urls import server_url
from sa_sqlite_pool.servers.rules.arguments import OF_SQLITE, parse_replica

PAGE = Path(__file__).parents[2] / "docs" / "servers.md"


def options(of: type) -> set[str]:
    return set(inspect.signature(of).parameters)


def methods(of: type) -> set[str]:
    return {name for name in dir(of) if not name.startswith("_")}


def test_the_page_names_what_is_sqlites_alone() -> None:
    """The table lists all methods and options that ``ServerDatabase`` lacks, and no others."""
    rows = PAGE.read_text().partition("| of `SQLiteDatabase` |")[2].partition("\n\n")[0]
    first = [row.split("|")[1] for row in rows.splitlines()[2:]]
    named = set(re.findall(r"`(?:db\.)?(\w+)(?:\(\))?`", " ".join(first)))
    alone = options(SQLiteDatabase) - options(ServerDatabase)
    assert alone == OF_SQLITE
    assert named == alone | (methods(SQLiteDatabase) - methods(ServerDatabase))


@pytest.mark.parametrize("option", sorted(OF_SQLITE))
def test_an_option_of_sqlite(option: str) -> None:
    """The error names the class that has the option; no server is contacted."""
    given: dict[str, Any] = {option: None}
    with pytest.raises(ConfigurationError, match=f"{option}: only for SQLiteDatabase"):
        ServerDatabase("postgresql+asyncpg://primary/app", **given)


def only(monkeypatch: pytest.MonkeyPatch, *installed: str) -> None:
    """Simulate that only these drivers are installed."""
    monkeypatch.setattr(urls, "find_spec", lambda name: object() if name in installed else None)


@pytest.mark.parametrize("kind", [SecretStr, PostgresDsn])
def test_a_url_of_another_type(kind: Any) -> None:
    """Settings of pydantic have such fields; the error does not tell the password."""
    url = kind("postgresql://app:hunter2@primary/app")
    for arguments in ((url,), ("postgresql://app@primary/app", url)):
        with pytest.raises(ConfigurationError, match=f"type {kind.__name__};") as caught:
            ServerDatabase(arguments[0], replicas=arguments[1:])
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_a_url_without_a_driver(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    """It gets the driver that is installed; a replica's URL gets the primary's driver."""
    for installed in (["psycopg"], ["asyncpg"], ["asyncpg", "psycopg"]):
        only(monkeypatch, *installed)
        url = server_url(f"{scheme}://app:secret@primary:5433/app?sslmode=require")
        assert url.drivername == f"postgresql+{installed[0]}"
        option = "ssl" if installed[0] == "asyncpg" else "sslmode"
        assert (url.password, url.port, url.query) == ("secret", 5433, {option: "require"})
    only(monkeypatch, "asyncpg", "psycopg")
    primary = server_url("postgresql+psycopg://primary/app")
    assert parse_replica(f"{scheme}://replica/app", primary).drivername == "postgresql+psycopg"


def test_a_facade_of_a_url_without_a_driver() -> None:
    """Both engines use the driver that is installed."""
    pytest.importorskip("asyncpg")
    db = ServerDatabase("postgres://primary/app", replicas=["postgresql://replica/app"])
    assert db.url.drivername == "postgresql+asyncpg"
    assert {db.writer_engine.driver, db.reader_engine.driver} == {"asyncpg"}


def test_a_driver_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra to install, which is asyncpg's for a URL without a driver."""
    only(monkeypatch)
    for url, driver in (
        ("postgresql+psycopg://primary/app", "psycopg"),
        ("postgresql+psycopg_async://primary/app", "psycopg"),
        ("postgresql+asyncpg://primary/app", "asyncpg"),
        ("postgres://primary/app", "asyncpg"),
    ):
        with pytest.raises(ConfigurationError, match=rf"pip install 'sa-sqlite-pool\[{driver}\]'"):
            ServerDatabase(url)


@pytest.mark.parametrize("driver", ["psycopg2", "pg8000", "nothing"])
def test_another_driver(driver: str) -> None:
    """The error names it before any of its modules is imported."""
    with pytest.raises(ConfigurationError, match=f"driver {driver}, which is not supported here"):
        ServerDatabase(f"postgresql+{driver}://primary/app")


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_a_connection_where_no_loop_runs(driver: str) -> None:
    """SQLAlchemy's error is raised, as from its own pool: create_all() in a module's import."""
    pytest.importorskip(driver)
    url = f"postgresql+{driver}://127.0.0.1:1/app"
    db = ServerDatabase(url, replicas=[url])
    for engine in (db.writer_engine, db.reader_engine):
        with pytest.raises(MissingGreenlet), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a coroutine is not awaited
            engine.sync_engine.connect()
