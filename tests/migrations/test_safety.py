"""No child row is lost, nothing is left half done, and foreign keys are switched on again."""

from __future__ import annotations

import hashlib
import re

import pytest
from alembic import command
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.migrations import (
    MigrationError,
    check,
    current,
    downgrade,
    stamp,
    transaction,
    upgrade,
)
from tests.migrations.scripts import REBUILD, Scripts

CHILDREN = 100_000


def digest(scripts: Scripts) -> str:
    """Return a hash of all child rows."""
    rows = scripts.query("SELECT id, parent_id FROM children ORDER BY id")
    assert len(rows) in {0, CHILDREN}
    return hashlib.sha256(repr(rows).encode()).hexdigest()


async def foreign_keys(db: SQLiteDatabase) -> int:
    async with db.write() as session:
        return int((await session.execute(text("PRAGMA foreign_keys"))).scalar_one())


async def enforced(db: SQLiteDatabase) -> None:
    """Check that the writer works, and refuses an orphan."""
    with pytest.raises(IntegrityError, match="FOREIGN KEY constraint failed"):
        async with db.write() as session:
            await session.execute(text("INSERT INTO children VALUES (-1, -1)"))
    async with db.write() as session:
        await session.execute(text("INSERT INTO parents VALUES (1000, 1)"))


async def fails_whole(
    scripts: Scripts, db: SQLiteDatabase, error: type[Exception], match: str
) -> str:
    """Check that an upgrade fails and changes nothing; return its message."""
    before = scripts.state()
    with pytest.raises(error, match=match) as caught:
        await upgrade(db, "head", config=scripts.config)
    assert scripts.state() == before
    await enforced(db)
    return str(caught.value)


# -- children -----------------------------------------------------------------------------------


@pytest.fixture
def many(scripts: Scripts) -> Scripts:
    """Provide a hundred thousand children, and a revision that rebuilds their parents.

    There are few parents: without an index, SQLite scans all children for each of them.
    """
    scripts.migrate("0001")
    scripts.fill(parents=50, children=CHILDREN)
    scripts.add(REBUILD, REBUILD)
    return scripts


async def test_a_hundred_thousand_children_stay(many: Scripts) -> None:
    """Their parent is rebuilt, in both directions, and every row stays unchanged."""
    before = digest(many)
    async with SQLiteDatabase(many.database) as db:
        await upgrade(db, "head", config=many.config)
        assert digest(many) == before
        await downgrade(db, "-1", config=many.config)
        assert digest(many) == before
        await enforced(db)


async def test_with_foreign_keys_on_it_is_refused(
    many: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite would silently empty the table, as it does with an `env.py` without run_env()."""
    before = digest(many)
    monkeypatch.setattr(transaction, "_set_foreign_keys", lambda *_: None)
    monkeypatch.setattr(transaction, "_foreign_keys", lambda _: 0)
    async with SQLiteDatabase(many.database) as db:
        with pytest.raises(IntegrityError, match="is refused: foreign keys are on"):
            await upgrade(db, "head", config=many.config)
        assert await current(db, config=many.config) == ("0001",)
    assert digest(many) == before


# -- foreign keys -------------------------------------------------------------------------------


async def test_foreign_keys_are_on_again(scripts: Scripts, filled: SQLiteDatabase) -> None:
    """They are on after success and after failure, on the connection that was used."""
    await upgrade(filled, scripts.add(REBUILD), config=scripts.config)
    await enforced(filled)
    scripts.add("1 / 0")
    with pytest.raises(ZeroDivisionError):
        await upgrade(filled, "head", config=scripts.config)
    assert await foreign_keys(filled) == 1


async def test_foreign_keys_that_were_off_stay_off(scripts: Scripts) -> None:
    """An application that does not enforce them is not forced to."""
    async with SQLiteDatabase(scripts.database, pragmas={"foreign_keys": False}) as db:
        await upgrade(db, "head", config=scripts.config)
        assert await foreign_keys(db) == 0


async def test_violations_are_named_and_rolled_back(
    scripts: Scripts, filled: SQLiteDatabase
) -> None:
    """Ten rows are listed with table, rowid and parent, and the number of others."""
    scripts.add("op.execute('DELETE FROM parents')")
    message = await fails_whole(scripts, filled, MigrationError, "rolled back")
    assert "violated 30 times" in message
    named = re.findall(r"children \(rowid (\d+)\) refers to no row of parents", message)
    assert named == [str(n) for n in range(10)]
    assert "; and 20 more. " in message


async def test_ten_violations_are_all(scripts: Scripts, filled: SQLiteDatabase) -> None:
    """The message does not add "and 0 more"."""
    scripts.add("op.execute('DELETE FROM parents WHERE id = 0')")
    with pytest.raises(MigrationError, match=r"violated 10 times") as caught:
        await upgrade(filled, "head", config=scripts.config)
    assert "more" not in str(caught.value)


async def test_a_row_without_a_rowid_is_named_by_its_table(
    scripts: Scripts, filled: SQLiteDatabase
) -> None:
    scripts.query("CREATE TABLE keys (id PRIMARY KEY REFERENCES parents(id)) WITHOUT ROWID")
    scripts.add("op.execute('INSERT INTO keys VALUES (77)')")
    message = await fails_whole(scripts, filled, MigrationError, "violated 1 times")
    assert ": keys refers to no row of parents. " in message


async def test_a_key_that_no_row_can_have(scripts: Scripts, filled: SQLiteDatabase) -> None:
    """SQLite cannot report which rows violate it; a revision that repairs the key succeeds."""
    scripts.query("CREATE TABLE words (word)")
    scripts.query("CREATE TABLE uses (word REFERENCES words (word))")
    scripts.add("op.execute('CREATE TABLE audits (id)')")
    message = await fails_whole(scripts, filled, MigrationError, "rolled back; the database is as")
    assert 'foreign key mismatch - "uses" referencing "words"' in message
    assert "Create a UNIQUE index on these columns" in message
    scripts.add("op.execute('CREATE UNIQUE INDEX ix_words ON words (word)')")
    await upgrade(filled, "head", config=scripts.config)


async def test_who_changes_no_rows_is_not_stopped_by_old_violations(
    scripts: Scripts, filled: SQLiteDatabase
) -> None:
    """An upgrade refuses them; current, check and stamp do not check them."""
    scripts.query("INSERT INTO children VALUES (100, 77)")
    assert await current(filled, config=scripts.config) == ("0001",)
    await check(filled, config=scripts.config)
    await upgrade(filled, "head", config=scripts.config)  # nothing to do
    await stamp(filled, "base", config=scripts.config)
    await stamp(filled, "0001", config=scripts.config)
    scripts.add("op.execute('CREATE TABLE audits (id)')")
    with pytest.raises(MigrationError, match=r"children \(rowid 100\)"):
        await upgrade(filled, "head", config=scripts.config)


async def test_an_on_version_apply_of_the_project(scripts: Scripts, filled: SQLiteDatabase) -> None:
    """It is called, and does not replace the check."""
    env = (scripts.directory / "scripts" / "env.py").read_text()
    seen = "lambda **kw: kw['ctx'].config.attributes['seen'].append(kw['step'].up_revision_id)"
    scripts.write_env(
        env.replace("metadata=metadata", f"metadata=metadata, on_version_apply={seen}")
    )
    config = scripts.config
    config.attributes["seen"] = seen_ids = list[str]()
    scripts.add("op.execute('DELETE FROM parents')")
    with pytest.raises(MigrationError, match="violated"):
        await upgrade(filled, "head", config=config)
    assert seen_ids == ["0002"]


# -- one transaction ----------------------------------------------------------------------------

ENDS = {
    "autocommit_block": "with op.get_context().autocommit_block(): op.execute('VACUUM')",
    "commit": "op.get_bind().commit()",
    "rollback": "op.get_bind().rollback()",
    "COMMIT": "op.execute('COMMIT')",
    "end": "op.execute(' /* it is */ end transaction')",
    "ROLLBACK": "op.execute('ROLLBACK')",
    "close": "with op.get_bind() as connection: pass",
    "swallowed": "try: op.get_bind().commit()\nexcept Exception: pass",
    "swallowed text": "try: op.execute('COMMIT')\nexcept Exception: pass",
    "swallowed close": "try: op.get_bind().close()\nexcept Exception: pass",
    "swallowed block": "try: op.get_context().autocommit_block()\nexcept Exception: pass",
}


@pytest.mark.parametrize("way", ENDS)
async def test_the_transaction_cannot_be_ended(
    scripts: Scripts, filled: SQLiteDatabase, way: str
) -> None:
    """Each attempt raises an error, and nothing persists, even if the revision continues."""
    scripts.add("op.execute('CREATE TABLE before_it (id)')")
    scripts.add(f"op.execute('CREATE TABLE half (id)')\n{ENDS[way]}\nop.execute('SELECT 1')")
    told = "all revisions of a command run in one transaction"
    await fails_whole(scripts, filled, MigrationError, told)


async def test_what_is_undone_is_not_warned_of(
    scripts: Scripts, filled: SQLiteDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    """A failing revision is expected to be undone; afterwards, warnings are logged again."""
    scripts.add("op.execute('CREATE TABLE half (id)')\nraise ValueError('mine')")
    await fails_whole(scripts, filled, ValueError, "mine")
    assert caplog.records == []
    async with filled.writer_engine.connect() as connection:
        await connection.execute(text("CREATE TABLE half (id)"))
    assert "CREATE TABLE half on app.db was rolled back" in caplog.text


async def test_savepoints_may_be_used(scripts: Scripts, filled: SQLiteDatabase) -> None:
    """``begin_nested()`` and savepoints in SQL are allowed: they do not end the transaction."""
    scripts.add(
        "with op.get_bind().begin_nested():\n"
        "    op.execute('CREATE TABLE kept (id)')\n"
        "nested = op.get_bind().begin_nested()\n"
        "op.execute('CREATE TABLE dropped (id)')\n"
        "nested.rollback()\n"
        "for sql in 'SAVEPOINT a', 'CREATE TABLE gone (id)', 'ROLLBACK TO a', 'RELEASE a':\n"
        "    op.execute(sql)"
    )
    await upgrade(filled, "head", config=scripts.config)
    tables = {name for (name,) in scripts.query("SELECT name FROM sqlite_master")}
    assert "kept" in tables
    assert not tables & {"dropped", "gone"}


async def test_the_commands_of_the_connection_may_end_it_afterwards(
    scripts: Scripts, db: SQLiteDatabase
) -> None:
    """What is refused during a migration is allowed on the same connection afterwards."""
    async with db.writer_engine.connect() as connection:

        def by_hand(sync: object) -> None:
            config = scripts.config
            config.attributes["connection"] = sync
            command.upgrade(config, "head")

        await connection.run_sync(by_hand)
        await connection.execute(text("INSERT INTO parents VALUES (1, 1)"))
        await connection.commit()
        await connection.exec_driver_sql("BEGIN IMMEDIATE")
        await connection.exec_driver_sql("COMMIT")
    assert scripts.query("SELECT id FROM parents") == [(1,)]


async def test_the_applications_statement_timeout_is_not_meant(scripts: Scripts) -> None:
    """A migration may copy a table for longer than a request may run."""
    long = "WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n LIMIT 300000)"
    scripts.add(f"op.execute('CREATE TABLE numbers AS {long} SELECT value FROM n')")
    async with SQLiteDatabase(scripts.database, statement_timeout=0.02) as db:
        await upgrade(db, "head", config=scripts.config)
    assert scripts.query("SELECT count(*) FROM numbers") == [(300_000,)]


async def test_a_foreign_key_that_is_deferred(scripts: Scripts, filled: SQLiteDatabase) -> None:
    """``PRAGMA defer_foreign_keys`` and similar settings do not affect the check."""
    scripts.add("op.execute('PRAGMA defer_foreign_keys = 1'); op.execute('DELETE FROM parents')")
    with pytest.raises(MigrationError, match="violated 30 times"):
        await upgrade(filled, "head", config=scripts.config)
    await enforced(filled)
