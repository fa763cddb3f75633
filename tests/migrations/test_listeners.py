"""Listeners and options that begin transactions: child rows stay, whatever began one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
from alembic import command, op
from sqlalchemy import Connection, Engine, event, select
from sqlalchemy.exc import OperationalError

from sa_sqlite_pool import ConfigurationError, SQLiteDatabase
from sa_sqlite_pool.driver.adapter import SQLiteConnection
from sa_sqlite_pool.migrations import MigrationError, current, transaction, upgrade
from tests.migrations.scripts import ENV, MODELS, REBUILD, Scripts, hooks

# -- listeners of applications ------------------------------------------------------------------


def executes(*statements: str) -> Callable[..., None]:
    """Return a listener for the pool's events."""

    def listener(dbapi_connection: Any, *_: Any) -> None:
        cursor = dbapi_connection.cursor()
        for statement in statements:
            cursor.execute(statement)
        cursor.close()

    return listener


def no_begin_of_the_driver(dbapi_connection: Any, _: Any) -> None:
    dbapi_connection.isolation_level = None


def transaction_at_checkout(dbapi_connection: Any, *_: Any) -> None:
    if not dbapi_connection.in_transaction:
        executes("BEGIN", "SELECT * FROM parents")(dbapi_connection)


def begins(sql: str) -> Callable[[Connection], None]:
    def listener(connection: Connection) -> None:
        for statement in sql.split(";"):
            connection.exec_driver_sql(statement)

    return listener


def ping(connection: Connection, *_: Any) -> None:
    connection.scalar(select(1))


Listener = tuple[str, Callable[..., None]]

LISTENERS: dict[str, list[Listener]] = {
    "a SELECT at connect": [("connect", executes("SELECT 1"))],
    "foreign keys on at connect": [("connect", executes("PRAGMA foreign_keys=ON"))],
    "foreign keys on at checkout": [("checkout", executes("PRAGMA foreign_keys=ON"))],
    "a SELECT at checkout": [("checkout", executes("SELECT count(*) FROM sqlite_master"))],
    "a write at checkout": [
        ("checkout", executes("CREATE TABLE IF NOT EXISTS log (n)", "INSERT INTO log VALUES (1)"))
    ],
    "a transaction at checkout": [("checkout", transaction_at_checkout)],
    "SQLAlchemy's recipe": [("connect", no_begin_of_the_driver), ("begin", begins("BEGIN"))],
    "the recipe by halves": [("begin", begins("BEGIN"))],
    "the other half": [("connect", no_begin_of_the_driver)],
    "the recipe with a lock": [
        ("connect", no_begin_of_the_driver),
        ("begin", begins("BEGIN IMMEDIATE")),
    ],
    "foreign keys on at each begin": [("begin", begins("PRAGMA foreign_keys=ON;BEGIN"))],
    "a SELECT after BEGIN": [("begin", begins("BEGIN;SELECT * FROM parents"))],
    "a ping at engine_connect": [("engine_connect", ping)],
    "a question after the end": [("rollback", ping), ("commit", ping)],
}
OPTIONS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "pool_pre_ping": {"pool_pre_ping": True},
    "AUTOCOMMIT": {"isolation_level": "AUTOCOMMIT"},
    "the driver's autocommit": {"connect_args": {"isolation_level": None}},
}
if sys.version_info >= (3, 12):
    OPTIONS["PEP 249's transactions"] = {"connect_args": {"autocommit": False}}


def listen(engine: Engine, listeners: list[Listener]) -> None:
    for name, listener in listeners:
        event.listen(engine, name, listener)


async def children_stay(scripts: Scripts, db: SQLiteDatabase) -> None:
    """Check that a migration, and one that fails, keep children, and the foreign_keys setting."""
    children = scripts.query("SELECT * FROM children")
    assert len(children) == 30
    foreign_keys = await enforced(db)
    await upgrade(db, scripts.add(REBUILD), config=scripts.config)
    assert scripts.query("SELECT * FROM children") == children
    assert await current(db, config=scripts.config) == ("0002",)
    assert await enforced(db) == foreign_keys
    scripts.add("op.execute('CREATE TABLE half (id)')\n1 / 0")
    with pytest.raises(ZeroDivisionError):
        await upgrade(db, "head", config=scripts.config)
    assert not scripts.query("SELECT * FROM sqlite_master WHERE name = 'half'")
    assert await enforced(db) == foreign_keys


async def enforced(db: SQLiteDatabase) -> object:
    """Return the setting of the writer's connection, below SQLAlchemy and its listeners."""
    async with db.writer_engine.connect() as connection:
        return await connection.run_sync(
            lambda connection: (
                (driver := connection.connection.dbapi_connection)
                and driver.execute("PRAGMA foreign_keys").fetchone()
            )
        )


BOTH = [
    *[(name, "nothing") for name in LISTENERS],
    *[(name, "pool_pre_ping") for name in LISTENERS if "begin" in name or "recipe" in name],
    *[(None, name) for name in OPTIONS],
    *[("SQLAlchemy's recipe", name) for name in OPTIONS if "autocommit" in name.lower()],
]


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(("listeners", "options"), BOTH)
async def test_children_stay(scripts: Scripts, options: str, listeners: str | None) -> None:
    """Rows stay, whichever listener uses the connection before, at the begin, or at the end."""
    async with SQLiteDatabase(scripts.database, **OPTIONS[options]) as db:
        if listeners is not None:
            listen(db.writer_engine.sync_engine, LISTENERS[listeners])
            await db.writer_engine.dispose()  # for listeners of `connect`
        await children_stay(scripts, db)


LISTENING_ENV = """
from sqlalchemy import Engine, event, select

@event.listens_for(Engine, "engine_connect")
def ping(connection):
    connection.scalar(select(1))

@event.listens_for(Engine, "connect")
def do_connect(dbapi_connection, _):
    dbapi_connection.isolation_level = None
    dbapi_connection.execute("PRAGMA foreign_keys=ON")

@event.listens_for(Engine, "begin")
def do_begin(connection):
    connection.exec_driver_sql("BEGIN")
"""


def test_children_stay_by_the_command(scripts: Scripts) -> None:
    """The application's models may add listeners for all engines, and its ini file a ping."""
    scripts.write_ini(more="sqlalchemy.pool_pre_ping = true\n")
    scripts.write_env(MODELS + LISTENING_ENV + ENV)
    scripts.alembic("upgrade", "0001")
    scripts.fill(parents=3, children=30)
    scripts.add(REBUILD)
    scripts.alembic("upgrade", "head")
    assert scripts.query("SELECT count(*) FROM children") == [(30,)]
    scripts.add("op.execute('DELETE FROM parents')")
    assert "violated 30 times" in scripts.alembic("upgrade", "head", fails=True).out


async def handed_over(scripts: Scripts, db: SQLiteDatabase, before: str = "") -> None:
    """Run Alembic's own recipe on a connection of the application."""
    async with db.writer_engine.connect() as connection:
        if before:
            await connection.exec_driver_sql(before)

        def by_hand(sync: Connection) -> None:
            config = scripts.config
            config.attributes["connection"] = sync
            command.upgrade(config, "head")

        await connection.run_sync(by_hand)


async def test_children_stay_on_a_connection_handed_over(
    scripts: Scripts, filled: SQLiteDatabase
) -> None:
    """SQLAlchemy does not know about a transaction that a listener has begun there."""
    scripts.add(REBUILD)
    for name in "a transaction at checkout", "the recipe by halves":
        listen(filled.writer_engine.sync_engine, LISTENERS[name])
    await handed_over(scripts, filled)
    assert scripts.query("SELECT count(*) FROM children") == [(30,)]
    assert await enforced(filled) == (1,)


async def test_a_transaction_of_the_application_is_its_own(
    scripts: Scripts, filled: SQLiteDatabase
) -> None:
    """A transaction known to SQLAlchemy is refused, not committed; a listener may have begun it."""
    with pytest.raises(ConfigurationError, match=r"connection.rollback\(\).* listener"):
        await handed_over(scripts, filled, "DELETE FROM parents")
    assert scripts.query("SELECT count(*) FROM children") == [(30,)]
    listen(filled.writer_engine.sync_engine, LISTENERS["a ping at engine_connect"])
    with pytest.raises(ConfigurationError, match=r"connection.rollback\(\).* listener"):
        await handed_over(scripts, filled)


async def test_a_setting_that_does_not_come_back(
    scripts: Scripts, filled: SQLiteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection on which foreign keys stay off is never reused."""
    original = transaction._below

    def below(raw: SQLiteConnection, sql: str) -> Any:
        return None if sql == "PRAGMA foreign_keys = 1" else original(raw, sql)

    monkeypatch.setattr(transaction, "_below", below)
    await upgrade(filled, scripts.add(REBUILD), config=scripts.config)
    assert await enforced(filled) == (1,)


# -- refusals of unsafe cases -------------------------------------------------------------------


async def test_foreign_keys_that_stay_on(scripts: Scripts, filled: SQLiteDatabase) -> None:
    """A listener that switches them on at the last moment is refused, and nothing is lost."""
    scripts.add(REBUILD)
    before = scripts.state()

    def switch_on(_connection: Connection, cursor: Any, statement: str, *_: Any) -> None:
        if statement == "BEGIN IMMEDIATE":
            cursor.execute("PRAGMA foreign_keys = ON")

    engine = filled.writer_engine.sync_engine
    event.listen(engine, "before_cursor_execute", switch_on)
    with pytest.raises(MigrationError, match=r"refused.*foreign keys are still on.*listener"):
        await upgrade(filled, "head", config=scripts.config)
    assert scripts.state() == before
    assert await enforced(filled) == (1,)
    event.remove(engine, "before_cursor_execute", switch_on)
    await upgrade(filled, "head", config=scripts.config)
    assert scripts.query("SELECT count(*) FROM children") == [(30,)]


def _commit(raw: Any) -> None:
    raw.commit()


def _commit_and_begin(raw: Any) -> None:
    raw.commit()
    raw.execute("BEGIN IMMEDIATE")


def _rollback(raw: Any) -> None:
    raw.rollback()


def _switch_on(raw: Any) -> None:
    raw.commit()
    raw.execute("PRAGMA foreign_keys = ON")


def _script(raw: Any) -> None:
    raw.worker.connection.executescript("CREATE TABLE scripted (id)")


@pytest.mark.parametrize("recipe", [False, True])
@pytest.mark.parametrize("end", [_commit, _commit_and_begin, _rollback, _switch_on, _script])
async def test_an_end_beneath_sqlalchemy(
    scripts: Scripts, filled: SQLiteDatabase, end: Callable[[Any], None], *, recipe: bool
) -> None:
    """A revision that ends the transaction on the driver's connection is no success."""
    if recipe:
        listen(filled.writer_engine.sync_engine, LISTENERS["SQLAlchemy's recipe"])
        await filled.writer_engine.dispose()
    hooks["end"] = lambda: end(op.get_bind().connection.dbapi_connection)
    scripts.add("op.execute('CREATE TABLE before_it (id)')\nhooks['end']()")
    with pytest.raises(
        MigrationError, match=r"ended the transaction on the driver's connection.*op\.execute\(\)"
    ):
        await upgrade(filled, "head", config=scripts.config)
    assert await enforced(filled) == (1,)
    assert await current(filled, config=scripts.config) == ("0001",)


async def test_a_transaction_that_sqlite_has_ended(
    scripts: Scripts, filled: SQLiteDatabase
) -> None:
    """The revision is not blamed: the error says what SQLite did."""
    scripts.add(
        "try:\n    op.execute('INSERT OR ROLLBACK INTO parents VALUES (1, 1)')\n"
        "except sa.exc.IntegrityError:\n    pass\nop.execute('CREATE TABLE half (id)')"
    )
    before = scripts.state()
    with pytest.raises(OperationalError, match="has rolled back this transaction on its own"):
        await upgrade(filled, "head", config=scripts.config)
    assert scripts.state() == before


async def test_a_connection_that_is_taken_away(scripts: Scripts, filled: SQLiteDatabase) -> None:
    """The error gives the reason, such as the closing of the database, and blames no revision."""

    def take_away() -> None:
        driver: Any = op.get_bind().connection.dbapi_connection
        driver.give_up("it was taken away", keep=False)

    hooks["take away"] = take_away
    scripts.add("hooks['take away']()\nop.execute('CREATE TABLE half (id)')")
    with pytest.raises(OperationalError, match="it was taken away"):
        await upgrade(filled, "head", config=scripts.config)
    assert await current(filled, config=scripts.config) == ("0001",)


async def test_pragmas_of_a_revision(scripts: Scripts, filled: SQLiteDatabase) -> None:
    """Pragmas on foreign keys, written for other drivers, have no effect and raise no error."""
    pragmas = ["foreign_keys=OFF", "defer_foreign_keys = ON", "defer_foreign_keys=0"]
    off = "\n".join(f"op.execute('PRAGMA {pragma}')" for pragma in pragmas)
    scripts.add(f"{off}\n{REBUILD}\nop.execute('PRAGMA foreign_keys=ON')\n{off}")
    scripts.add(REBUILD)
    await upgrade(filled, "head", config=scripts.config)
    assert scripts.query("SELECT count(*) FROM children") == [(30,)]
    assert await enforced(filled) == (1,)
