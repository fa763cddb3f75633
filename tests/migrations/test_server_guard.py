"""On PostgreSQL, too, no revision can end the transaction of a migration half way."""

from __future__ import annotations

import pytest
from alembic import command
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine

from sa_sqlite_pool import SQLiteDatabase, TurnAlreadyHeldError
from sa_sqlite_pool.migrations import MigrationError, current, downgrade, upgrade
from sa_sqlite_pool.servers.primary import PrimaryPool
from sa_sqlite_pool.servers.turn import TURN_KEY
from tests.migrations.scripts import Scripts, hooks
from tests.postgresql import App

TABLES = "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_stat_user_tables"
AT_FIRST = "alembic_version children parents"
HALF = "op.execute('CREATE TABLE half (id INTEGER)')\n"
REST = "\nop.execute('CREATE TABLE rest (id INTEGER)')"
CONCURRENTLY = (
    "with op.get_context().autocommit_block():\n"
    "    op.execute('CREATE INDEX CONCURRENTLY ix_n ON parents (n)')\n"
)
SESSION = "from sqlalchemy.orm import Session\nsession = Session(bind=op.get_bind())\n"

# Ways to end the transaction that are refused before they take effect.
ENDS = {
    "commit": "op.get_bind().commit()",
    "rollback": "op.get_bind().rollback()",
    "COMMIT": "op.execute('COMMIT')",
    "end": "op.execute(' /* it is */ end transaction')",
    "ROLLBACK": "op.get_bind().exec_driver_sql('ROLLBACK')",
    "chain": "op.get_bind().execute(sa.text('COMMIT AND CHAIN'))",
    "several": "op.execute('COMMIT; BEGIN')",
    "close": "with op.get_bind() as connection: pass",
    "session": f"{SESSION}session.execute(sa.text('SELECT 1'))\nsession.rollback()",
    "swallowed": "try: op.get_bind().commit()\nexcept Exception: pass",
    "swallowed text": "try: op.execute('COMMIT')\nexcept Exception: pass",
}

# Below SQLAlchemy: the preceding work is committed, or not.
BENEATH = {
    "commit": "op.get_bind().connection.dbapi_connection.commit()",
    "rollback": "op.get_bind().connection.dbapi_connection.rollback()",
    "of the driver": "from sqlalchemy.util import await_only\n"
    "await_only(op.get_bind().connection.driver_connection.execute('COMMIT'))",
    "another begun": "from sqlalchemy.util import await_only\n"
    "driver = op.get_bind().connection.driver_connection\n"
    "await_only(driver.execute('COMMIT'))\nawait_only(driver.execute('BEGIN'))",
}


@pytest.mark.parametrize("way", ENDS)
async def test_the_transaction_cannot_be_ended(scripts: Scripts, app: App, way: str) -> None:
    """Each attempt raises an error, and nothing of the whole command persists."""
    engine = create_async_engine(app.url())
    await upgrade(engine, "0001", config=scripts.ini)
    scripts.add("op.execute('CREATE TABLE before_it (id INTEGER)')")
    scripts.add(f"{HALF}{ENDS[way]}{REST}")
    scripts.add("op.execute('CREATE TABLE after_it (id INTEGER)')")
    with pytest.raises(MigrationError, match=r"the database is as it was.*autocommit_block"):
        await upgrade(engine, "head", config=scripts.ini)
    assert app.sql(TABLES) == AT_FIRST
    assert await current(engine, config=scripts.ini) == ("0001",)
    await engine.dispose()


@pytest.mark.parametrize("way", ["commit", "rollback"])
async def test_nor_by_the_last_line_of_the_last_revision(
    scripts: Scripts, app: App, way: str
) -> None:
    scripts.add("pass", f"{HALF}{ENDS[way]}")
    async with app.open() as db:
        await upgrade(db, "head", config=scripts.ini)
        with pytest.raises(MigrationError, match="the database is as it was"):
            await downgrade(db, "0001", config=scripts.ini)
        assert app.sql(TABLES) == AT_FIRST
        assert await current(db, config=scripts.ini) == ("0002",)


@pytest.mark.parametrize("last", ["", REST])
@pytest.mark.parametrize("way", BENEATH)
async def test_an_end_on_the_drivers_connection(
    scripts: Scripts, app: App, way: str, last: str
) -> None:
    """It cannot be undone, but it is no success, and no statement follows it."""
    scripts.add(f"{HALF}{BENEATH[way]}{last}")
    async with app.open() as db:
        with pytest.raises(MigrationError, match="may have been committed"):
            await upgrade(db, "head", config=scripts.ini)
        committed = way != "rollback"
        assert app.sql(TABLES) == ("alembic_version children half parents" if committed else "")
        assert await current(db, config=scripts.ini) == (("0001",) if committed else ())


async def test_what_is_undone_stays_undone(scripts: Scripts, app: App) -> None:
    """The next COMMIT on the caller's own connection includes nothing of it."""
    scripts.add(f"{HALF}op.get_bind().commit()")
    engine = create_async_engine(app.url())

    def by_hand(connection: Connection) -> None:
        config = scripts.config
        config.attributes["connection"] = connection
        with pytest.raises(MigrationError):
            command.upgrade(config, "head")
        connection.exec_driver_sql("CREATE TABLE own (id INTEGER)")
        connection.commit()
        connection.exec_driver_sql("COMMIT")  # refused only in a migration

    async with engine.connect() as connection:
        await connection.run_sync(by_hand)
    await engine.dispose()
    assert app.sql(TABLES) == "own"


async def test_what_ends_nothing(scripts: Scripts, app: App) -> None:
    """Savepoints, sessions, batches, procedural blocks and words in comments are allowed."""
    scripts.add(
        "with op.get_bind().begin_nested():\n"
        "    op.execute('CREATE TABLE kept (id INTEGER)')\n"
        "nested = op.get_bind().begin_nested()\n"
        "op.execute('CREATE TABLE dropped (id INTEGER)')\n"
        "nested.rollback()\n"
        "for sql in 'SAVEPOINT a', 'CREATE TABLE gone (i INT)', 'ROLLBACK TO a', 'RELEASE a':\n"
        "    op.execute(sql)\n"
        f"{SESSION}"
        "session.execute(sa.text('INSERT INTO parents VALUES (1, 1)'))\n"
        "session.commit()\n"
        "with session.begin(): session.execute(sa.text('INSERT INTO parents VALUES (2, 2)'))\n"
        "session.close()\n"
        "op.execute('DO $$ BEGIN PERFORM 1; END $$; ' if op.get_bind().dialect.driver == 'asyncpg' "
        "else 'DO $$ BEGIN PERFORM 1; END $$; SELECT 2; ')\n"
        "op.execute('/* COMMIT */ COMMENT ON TABLE kept IS $$ROLLBACK; COMMIT$$')\n"
        "with op.batch_alter_table('parents', recreate='auto') as batch:\n"
        "    batch.add_column(sa.Column('m', sa.Integer))"
    )
    async with app.open() as db:
        await upgrade(db, "head", config=scripts.ini)
        assert await current(db, config=scripts.ini) == ("0002",)
    assert app.sql(TABLES) == "alembic_version children kept parents"
    assert app.sql("SELECT count(*) FROM parents") == "2"


@pytest.mark.parametrize("server", [False, True])
async def test_a_session_in_a_revision(
    scripts: Scripts, app: App, db: SQLiteDatabase, server: bool
) -> None:
    """Its commit() is deferred to the migration, on both databases."""
    scripts.add(
        f"{SESSION}session.execute(sa.text('INSERT INTO parents VALUES (1, 1)'))\nsession.commit()"
    )
    scripts.add("1 / 0")
    async with app.open() as of_server:
        chosen = of_server if server else db
        with pytest.raises(ZeroDivisionError):
            await upgrade(chosen, "head", config=scripts.ini)
        assert await current(chosen, config=scripts.ini) == ()
        await upgrade(chosen, "0002", config=scripts.ini)
        async with chosen.write() as session:
            rows = await session.connection()
            assert (await rows.exec_driver_sql("SELECT id FROM parents")).all() == [(1,)]


@pytest.mark.parametrize("server", [False, True])
async def test_a_flush_that_fails(
    scripts: Scripts, app: App, db: SQLiteDatabase, server: bool
) -> None:
    """Its error is not hidden by the refusal of the rollback that follows it."""
    scripts.add(
        "from sqlalchemy.orm import Session, declarative_base\n"
        "Base = declarative_base()\n"
        "class Parent(Base):\n"
        "    __tablename__ = 'parents'\n"
        "    id = sa.Column(sa.Integer, primary_key=True)\n"
        "session = Session(bind=op.get_bind())\n"
        "op.execute('INSERT INTO parents VALUES (1, 1)')\n"
        "session.add(Parent(id=1))\n"
        "session.flush()"
    )
    async with app.open() as of_server:
        chosen = of_server if server else db
        with pytest.raises(IntegrityError):
            await upgrade(chosen, "head", config=scripts.ini)
        assert await current(chosen, config=scripts.ini) == ()


# -- autocommit_block() --------------------------------------------------------------------------


@pytest.mark.parametrize("own", [False, True])
async def test_an_autocommit_block(scripts: Scripts, app: App, own: bool) -> None:
    """The block runs without a transaction; then a new one begins, which holds the turn."""
    hooks["turn"] = lambda: turns.append(app.sql(locks))
    turns: list[str] = []
    locks = f"SELECT count(*) FROM pg_locks WHERE objid = {TURN_KEY & 0xFFFFFFFF}"
    scripts.add(f"{HALF}{CONCURRENTLY}hooks['turn']()", "op.drop_index('ix_n')")
    scripts.add("hooks['turn']()")
    engine = create_async_engine(app.url())
    async with app.open() as db:
        await upgrade(engine if own else db, "head", config=scripts.ini)
        assert await current(db, config=scripts.ini) == ("0003",)
    await engine.dispose()
    assert turns == ["1", "1"]
    assert app.sql("SELECT count(*) FROM pg_indexes WHERE indexname = 'ix_n'") == "1"


async def test_after_a_block_the_transaction_cannot_be_ended(scripts: Scripts, app: App) -> None:
    """The error does not claim that the database is as it was."""
    scripts.add(f"{HALF}{CONCURRENTLY}{REST}\nop.execute('END')")
    async with app.open() as db:
        with pytest.raises(MigrationError, match=r"rolled back to the last autocommit_block\(\)"):
            await upgrade(db, "head", config=scripts.ini)
        assert await current(db, config=scripts.ini) == ("0001",)
    assert app.sql(TABLES) == "alembic_version children half parents"


async def test_a_block_that_fails(scripts: Scripts, app: App) -> None:
    """A revision may catch the error and continue, in a transaction that cannot be ended."""
    scripts.add(
        "try:\n"
        "    with op.get_context().autocommit_block(): op.execute('SELECT 1 / 0')\n"
        "except sa.exc.DBAPIError: pass\n"
        f"{HALF}"
    )
    scripts.add(ENDS["commit"])
    async with app.open() as db:
        with pytest.raises(MigrationError, match="uses commit"):
            await upgrade(db, "head", config=scripts.ini)
        assert await current(db, config=scripts.ini) == ("0001",)
        await upgrade(db, "0002", config=scripts.ini)
    assert app.sql(TABLES) == "alembic_version children half parents"


async def test_a_block_after_an_end(scripts: Scripts, app: App) -> None:
    """An end below SQLAlchemy is noticed before more is committed."""
    scripts.add(f"{HALF}{BENEATH['another begun']}\n{CONCURRENTLY}")
    async with app.open() as db:
        with pytest.raises(MigrationError, match="may have been committed"):
            await upgrade(db, "head", config=scripts.ini)
    assert app.sql("SELECT count(*) FROM pg_indexes WHERE indexname = 'ix_n'") == "0"


def test_offline(scripts: Scripts, app: App) -> None:
    """The COMMIT of a block is printed."""
    url = app.url().render_as_string(hide_password=False).replace("%", "%%")
    scripts.write_ini(url)
    scripts.add(CONCURRENTLY)
    printed = scripts.alembic("upgrade", "head", "--sql").out
    assert printed.count("COMMIT;") == 2
    assert printed.index("COMMIT;") < printed.index("CONCURRENTLY") < printed.rindex("BEGIN;")


# -- inside a transaction ------------------------------------------------------------------------


@pytest.mark.parametrize("writes", ["in turn", "serializable"])
async def test_inside_a_write(scripts: Scripts, app: App, writes: str) -> None:
    """It would wait, until its time-out, for what the block has locked."""
    async with app.open(writes=writes, slow_wait_warning=None) as db:
        await upgrade(db, "head", config=scripts.ini)
        scripts.add("op.execute('ALTER TABLE parents ADD COLUMN m INTEGER')")
        async with db.write() as session:
            connection = await session.connection()
            await connection.exec_driver_sql("INSERT INTO parents VALUES (1, 1)")
            for chosen in (db, db.writer_engine):
                with pytest.raises(TurnAlreadyHeldError, match=r"this task"):
                    await upgrade(chosen, "head", config=scripts.ini, timeout=1)
        assert isinstance(pool := db.writer_engine.pool, PrimaryPool)
        assert pool.counts.self_deadlocks == 2
        await upgrade(db, "head", config=scripts.ini)
        assert await current(db, config=scripts.ini) == ("0002",)
    assert app.sql("SELECT count(*) FROM parents") == "1"


@pytest.mark.parametrize("writes", ["in turn", "serializable"])
async def test_in_a_block_that_has_not_begun(scripts: Scripts, app: App, writes: str) -> None:
    """Such a block has no transaction, as on SQLite, and reads take no turn."""
    async with app.open(writes=writes) as db:
        async with db.write() as session, db.read() as reading:
            await (await reading.connection()).exec_driver_sql("SELECT 1")
            await upgrade(db, "head", config=scripts.ini)
            await (await session.connection()).exec_driver_sql("INSERT INTO parents VALUES (1, 1)")
        assert app.sql("SELECT count(*) FROM parents") == "1"
