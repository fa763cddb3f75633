"""SQL that would let a reader's transaction write if its server is the primary."""

from __future__ import annotations

import pytest
from sqlalchemy import insert, text
from sqlalchemy.exc import OperationalError

from sa_sqlite_pool import ForbiddenWriteError
from sa_sqlite_pool.servers.rules.read_only import makes_read_write
from tests.postgresql import App
from tests.servers.models import Account, create_accounts

REFUSED = [
    "SET TRANSACTION READ WRITE",
    "set /* now */ transaction isolation level serializable, Read  Write",
    "SET LOCAL transaction_read_only = off",
    'SET LOCAL "Transaction_Read_Only" = off',
    r'SET U&"transaction\005fread_only" = off',
    r"""SET U&"transaction!005fread_only" UESCAPE '!' TO off""",
    "SET \"transaction_read_only\" TO 'f'",
    "SET SESSION transaction_read_only=0",
    "SET transaction_read_only TO DEFAULT",
    "SET transaction_read_only = 00",
    'SET transaction_read_only TO "off"',
    "SET transaction_read_only = /* on */ off",
    "SET transaction_read_only TO $$off$$",
    "SET transaction_read_only TO E'off'",
    "SET transaction_read_only = on; SET transaction_read_only = off",
    "SELECT 1; SET TRANSACTION READ WRITE; INSERT INTO accounts VALUES (9, 0)",
    "BEGIN READ WRITE",
    "START TRANSACTION READ WRITE",
    "COMMIT; INSERT INTO accounts VALUES (9, 0)",
    "ROLLBACK AND NO CHAIN; INSERT INTO accounts VALUES (9, 0)",
]
INNOCENT = [
    "SET TRANSACTION READ ONLY",
    "SET LOCAL transaction_read_only = 'on'",
    "SET transaction_read_only = true",
    "SET transaction_read_only = true; SELECT 'transaction'",
    "SET LOCAL work_mem = '5MB'; SELECT 1",
    "SHOW transaction_read_only",
    'SET LOCAL "Transaction_Read_Only" = on',
    r"""SET LOCAL application_name = U&'d\0061t'""",
    r"""SELECT 1 AS U&"d\0061t" """,
    "SELECT current_setting('transaction_read_only')",
    "SELECT 'SET TRANSACTION READ WRITE'",
    "SELECT 1 -- SET TRANSACTION READ WRITE",
    "/* ; SET TRANSACTION READ WRITE */ SELECT 1",
    "SELECT '; SET TRANSACTION READ WRITE'",
    'SELECT 1 AS "read", 2 AS write',
    "SAVEPOINT one; SELECT 1; ROLLBACK TO SAVEPOINT one; SELECT 1",
    "SELECT 1;",
    # These apply to later transactions, whose BEGIN says READ ONLY all the same.
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
    "SET LOCAL default_transaction_read_only = off",
]


@pytest.mark.parametrize("sql", REFUSED)
def test_what_is_found(sql: str) -> None:
    assert makes_read_write(sql)


@pytest.mark.parametrize("sql", INNOCENT)
def test_what_is_not(sql: str) -> None:
    assert not makes_read_write(sql)


@pytest.mark.parametrize("replicas", [0, 1])
async def test_a_reader_stays_one(app: App, replicas: int) -> None:
    """It does so on each server, and after any earlier statements."""
    async with app.open(replicas=app.replica_urls[:replicas], readers=1) as db, db.fresh():
        await create_accounts(db)
        for sql in REFUSED:
            async with db.read() as session:
                with pytest.raises(OperationalError, match=r"a reader .* cannot change") as raised:
                    await session.execute(text(sql))
                assert isinstance(raised.value.orig, ForbiddenWriteError)
                assert await session.scalar(text("SHOW transaction_read_only")) == "on"
        for sql in INNOCENT:
            if app.driver == "asyncpg" and ";" in sql and sql[-1] != ";":
                continue  # it executes one statement at a time
            async with db.read() as session:
                await session.execute(text(sql))
                with pytest.raises(OperationalError, match=r"a reader .* cannot change"):
                    await session.execute(insert(Account).values(id=9))
        assert app.sql("SELECT count(*) FROM accounts") == "1"


async def test_what_the_server_refuses_by_itself(app: App) -> None:
    """The server refuses it after a query, in a function, and in a DO block."""
    async with app.open(replicas=[]) as db:
        for sql in (
            "SELECT set_config('transaction_read_only', 'off', true)",
            "DO $$ BEGIN SET TRANSACTION READ WRITE; END $$",
        ):
            async with db.read() as session:
                with pytest.raises(Exception, match="must be set before any query"):
                    await session.execute(text(sql))
