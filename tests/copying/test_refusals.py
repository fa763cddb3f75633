"""Servers that cannot be copied to, and wrong arguments: each error names the way out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from socket import socket
from typing import Any

import pytest
from sqlalchemy import URL, Column, Integer, MetaData, Table, event, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import create_async_engine

from sa_sqlite_pool import (
    CommitUnknownError,
    ConfigurationError,
    CopyError,
    SQLiteDatabase,
    copy_to,
)
from sa_sqlite_pool.copying.server.rehearsal import COPY_KEY
from tests.copying.files import copied, engine_of, make_file, rows_of, tables_on
from tests.postgresql import App

models = MetaData()
t = Table("t", models, Column("id", Integer, primary_key=True))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_file(tmp_path / "app.db", models, {t: [{"id": 1}]})


async def refused(path: Path, url: URL, *, dry_run: bool = True, **options: Any) -> CopyError:
    engine = create_async_engine(url, **options)
    try:
        async with SQLiteDatabase(path) as db:
            with pytest.raises(CopyError) as caught:
                await copy_to(db, engine, models, dry_run=dry_run)
    finally:
        await engine.dispose()
    return caught.value


# The change to the URL, and the advice.
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "host": ({"host": "nohost.invalid"}, "there is no host nohost.invalid: correct the URL; in a"),
    "port": ({"port": 1}, "nothing listens there: is the server running"),
    "high-port": ({"port": 99_999}, "correct the URL"),
    "database": ({"database": "missing"}, "create it: createdb missing"),
    "role": ({"username": "nobody_here"}, "correct the user and the password in the URL"),
    "option": ({"query": {"foo": "bar"}}, "correct the URL"),
}


@pytest.mark.parametrize("name", WRONG)
async def test_no_connection(app: App, path: Path, name: str) -> None:
    """The system's or driver's error is its cause; it shows the URL without a password."""
    change, advice = WRONG[name]
    error = await refused(path, app.url().set(password="secret", **change))
    assert f"connecting to postgresql+{app.driver}://" in str(error)
    assert advice in str(error)
    assert "secret" not in str(error)
    assert error.__cause__ is not None


async def test_no_answer(path: Path) -> None:
    """A frozen server is an example: the system accepts connections, and asyncpg times out."""
    pytest.importorskip("asyncpg")
    with socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        url = URL.create("postgresql+asyncpg", "u", host="127.0.0.1", port=port, database="x")
        error = await refused(path, url, connect_args={"timeout": 0.1})
    assert "the host does not respond: correct the URL, or check the firewall" in str(error)


async def test_no_socket(app: App, path: Path, tmp_path: Path) -> None:
    """The directory contains no socket."""
    url = URL.create(f"postgresql+{app.driver}", database="x", query={"host": str(tmp_path)})
    assert "there is no socket of a server" in str(await refused(path, url))


async def test_a_replica(app: App, path: Path) -> None:
    """It is recognised before the copy, and the error calls it a replica."""
    url = app.url(app.cluster.replicas[0])
    assert "is a replica, which accepts no writes: use the primary's URL" in str(
        await refused(path, url)
    )


async def test_an_encoding_with_few_characters(app: App, path: Path) -> None:
    """It is refused at once."""
    database = f"{app.database}_latin1"
    options = "ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
    app.sql(f"CREATE DATABASE {database} {options}")
    try:
        error = await refused(path, replace(app, database=database).url())
    finally:
        app.sql(f"DROP DATABASE {database}")
    assert "has the encoding LATIN1" in str(error)
    assert "createdb --encoding=UTF8" in str(error)


async def test_another_copy(app: App, path: Path) -> None:
    """Of two concurrent copies into a database, the second is refused, and works afterwards."""
    async with engine_of(app) as engine, engine.begin() as connection:
        await connection.execute(text(f"SELECT pg_advisory_xact_lock({COPY_KEY})"))
        assert "another copy into" in str(await refused(path, app.url(), dry_run=False))
    assert (await copied(path, app, models)).rows == 1


async def test_a_server_database(app: App, path: Path) -> None:
    """It can replace an engine: the copy uses its writer engine."""
    async with SQLiteDatabase(path) as db, app.open(replicas=()) as server:
        assert (await copy_to(db, server, models)).rows == 1


async def test_wrong_arguments(tmp_path: Path) -> None:
    """The error names them, without the password of a URL."""
    url: Any = "postgresql+asyncpg://u:secret@host/name"
    async with SQLiteDatabase(tmp_path / "app.db") as db:
        with pytest.raises(ConfigurationError, match=r"engine must be .*, not a str$"):
            await copy_to(db, url, models)
        with pytest.raises(ConfigurationError, match=r"db must be an SQLiteDatabase, not a str$"):
            await copy_to(url, db.writer_engine, models)


async def test_a_progress_with_an_error_of_a_database(app: App, path: Path) -> None:
    """It is the caller's own error, and is raised unchanged."""
    own = OperationalError("SELECT 1", None, Exception("of another database"))

    def progress(phase: str, done: int, total: int) -> None:
        if phase == "finish":
            raise own

    with pytest.raises(OperationalError) as caught:
        await copied(path, app, models, progress=progress)
    assert caught.value is own
    assert tables_on(app) == ""


async def test_a_commit_without_an_answer(app: App, path: Path) -> None:
    """The error does not claim that nothing was copied, because that is unknown."""
    end = (
        "SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    async with SQLiteDatabase(path) as db, engine_of(app) as engine:
        event.listen(engine.sync_engine, "commit", lambda _: app.sql(end))
        with pytest.raises(CommitUnknownError, match="check on the server"):
            await copy_to(db, engine, models)
    assert tables_on(app) == ""
    await copied(path, app, models)
    assert await rows_of(app, t) == [(1,)]
