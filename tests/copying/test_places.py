"""The place of the rows and their encoding: settings of the engine, and odd names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, ForeignKey, Index, Integer, MetaData, String, Table, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from sa_sqlite_pool import MisfitsError, SQLiteDatabase, copy_to
from tests.copying.files import copied, engine_of, make_file, misfits_in, rows_in, rows_of
from tests.postgresql import App

TEXT = "Grüße €"

plain = MetaData()
texts = Table("t", plain, Column("id", Integer, primary_key=True), Column("s", String))


def file_of(tmp_path: Path) -> Path:
    return make_file(tmp_path / "app.db", plain, {texts: [{"id": 1, "s": TEXT}]})


async def copy_with(engine: AsyncEngine, path: Path, models: MetaData = plain) -> None:
    async with SQLiteDatabase(path) as db:
        await copy_to(db, engine, models)


async def test_another_encoding_of_the_client(app: App, tmp_path: Path) -> None:
    """The database sets it: texts are copied unchanged, and the engine's connection keeps it."""
    app.sql(f"ALTER DATABASE {app.database} SET client_encoding TO 'LATIN1'")
    async with engine_of(app, pool_size=1, max_overflow=0) as engine:
        async with engine.connect() as connection:
            before = await connection.scalar(text("SHOW client_encoding"))
        await copy_with(engine, file_of(tmp_path))
        async with engine.connect() as connection:
            assert await connection.scalar(text("SHOW client_encoding")) == before
            assert await connection.scalar(text("SELECT 'ü' || length('üü')")) == "ü2"
    assert app.sql("SELECT encode(convert_to(s, 'UTF8'), 'hex') FROM t") == TEXT.encode().hex()


async def test_the_encoding_in_a_url(app: App, tmp_path: Path) -> None:
    """Psycopg accepts it there."""
    if app.driver != "psycopg":
        pytest.skip("asyncpg has UTF-8 alone")
    engine = create_async_engine(app.url(client_encoding="latin1"))
    await copy_with(engine, file_of(tmp_path))
    await engine.dispose()
    assert await rows_of(app, texts) == [(1, TEXT)]


LIMITS = ("statement_timeout", "idle_in_transaction_session_timeout", "transaction_timeout")
REFUSE_LIMITS = """
CREATE TABLE t (id SERIAL PRIMARY KEY, s VARCHAR);
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF EXISTS (SELECT FROM pg_settings WHERE name = ANY (TG_ARGV) AND setting <> '0')
    THEN RAISE 'a limit'; END IF;
    RETURN NEW; END $$;
"""


async def test_limits_of_the_database(app: App, tmp_path: Path) -> None:
    """The server's limits do not apply to a copy, and the engine's connections keep them."""
    known = app.sql(f"SELECT name FROM pg_settings WHERE name IN {LIMITS}").split()
    for name in known:
        app.sql(f"ALTER DATABASE {app.database} SET {name} = '1h'")
    arguments = ", ".join(f"'{name}'" for name in known)
    app.sql(
        f"{REFUSE_LIMITS}CREATE TRIGGER refuse BEFORE INSERT ON t FOR EACH ROW "
        f"EXECUTE FUNCTION refuse({arguments})"
    )
    async with engine_of(app, pool_size=1, max_overflow=0) as engine:
        await copy_with(engine, file_of(tmp_path))
        async with engine.connect() as connection:
            for name in known:
                assert await connection.scalar(text(f"SHOW {name}")) == "1h"
            with pytest.raises(DBAPIError, match="a limit"):
                await connection.execute(texts.insert().values(s="new"))


@pytest.mark.parametrize("there", [False, True])
async def test_a_schema_of_the_engine(app: App, tmp_path: Path, there: bool) -> None:
    """With ``schema_translate_map``, the application finds the rows where it looks for them."""
    app.sql('CREATE SCHEMA "a%Tenant"; CREATE TABLE t (id BIGSERIAL PRIMARY KEY, s VARCHAR)')
    options: dict[str, Any] = {"execution_options": {"schema_translate_map": {None: "a%Tenant"}}}
    async with engine_of(app, **options) as engine:
        if there:
            async with engine.begin() as connection:
                await connection.run_sync(plain.create_all)
        await copy_with(engine, file_of(tmp_path))
        async with engine.connect() as connection:
            assert (await connection.execute(texts.select())).all() == [(1, TEXT)]
            new = (await connection.execute(texts.insert().values(s="new"))).inserted_primary_key
        assert new == (2,)
    assert app.sql("SELECT count(*) FROM public.t") == "0"


odd = MetaData()
percents = Table(
    "50% ",
    odd,
    Column("id%", Integer, primary_key=True),
    Column("a%s", String, server_default="100%"),
    Column("%%", ForeignKey("50% .id%", name="to 100%")),
    Index("ix 5%s", "a%s"),
)


@pytest.mark.parametrize("there", [False, True])
async def test_names_with_percents(app: App, tmp_path: Path, there: bool) -> None:
    """Tables, columns, keys and indexes may have them, whatever the driver does with them."""
    rows = [{"id%": 1, "a%s": "5%", "%%": None}, {"id%": 2, "a%s": "%s", "%%": 1}]
    path = make_file(tmp_path / "app.db", odd, {percents: rows})
    if there:
        async with engine_of(app) as engine, engine.begin() as connection:
            await connection.run_sync(odd.create_all)
    await copied(path, app, odd)
    assert await rows_of(app, percents) == rows_in(path, percents)
    assert app.sql("SELECT conname FROM pg_constraint WHERE contype = 'f'") == "to 100%"
    assert app.sql("SELECT count(*) FROM pg_indexes WHERE indexname = 'ix 5%s'") == "1"
    assert app.sql("""SELECT nextval('"50% _id%_seq"')""") == "3"


async def test_what_is_there_is_compared_where_it_is(app: App, tmp_path: Path) -> None:
    """The comparison uses the engine's schema, not another one, and supports odd names."""
    app.sql('CREATE SCHEMA "a%T"; CREATE TABLE "a%T".t (id INT PRIMARY KEY, s VARCHAR(1))')
    app.sql("CREATE TABLE t (id INT PRIMARY KEY, s VARCHAR)")
    options: dict[str, Any] = {"execution_options": {"schema_translate_map": {None: "a%T"}}}
    async with engine_of(app, **options) as engine:
        with pytest.raises(MisfitsError) as caught:
            await copy_with(engine, file_of(tmp_path))
    (group,) = caught.value.report.misfits
    assert (group.place, group.kind) == ("t.s", "schema")

    app.sql('CREATE TABLE "50% " ("id%" INT PRIMARY KEY, "a%s" VARCHAR(1), "%%" INT)')
    path = make_file(tmp_path / "odd.db", odd, {percents: []})
    (group,) = await misfits_in(path, app, odd, dry_run=False)
    assert (group.place, group.kind) == ("50% .a%s", "schema")
