"""``copy_to()``: an SQLite database goes to PostgreSQL."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from typing import Any, final

from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ..database import SQLiteDatabase
from ..errors import ConfigurationError, CopyError
from ..execution.connection_thread import ConnectionThread
from .checking import check
from .report import CopiedTable, CopyReport, MisfitsError, Phase, Progress
from .source import snapshot
from .tables import Plan, TablePlan, plan_copy, wanted_tables
from .target import Target, refuse_collations, refuse_rows
from .transfer import Incoming, Outgoing
from .wire import Wire, is_drivers, wire_of


async def copy_to(
    db: SQLiteDatabase,
    engine: AsyncEngine,
    metadata: MetaData,
    *,
    progress: Progress | None = None,
    dry_run: bool = False,
) -> CopyReport:
    """Copy all rows of the tables of ``metadata`` from ``db`` to the PostgreSQL of ``engine``.

    :param db: the SQLite database, open; it may be written to meanwhile, and what is copied is its
        state at the beginning
    :param engine: of ``create_async_engine``, with the driver asyncpg or psycopg
    :param metadata: of the application's models; its tables are created where they are missing, and
        have to be empty where they are not
    :param progress: called in the event loop as ``progress(phase, done, total)``; the phases are
        ``"snapshot"``, in pages, ``"check"``, ``"copy"`` and ``"verify"``, in rows, and
        ``"finish"``, in indexes and the like
    :param dry_run: only check, and report what would be copied

    First every value is checked: raise :class:`~sa_sqlite_pool.MisfitsError` with all that do not
    fit, and copy nothing. Then everything happens in one transaction: tables, rows, indexes,
    foreign keys, sequences, statistics, Alembic's version. All rows are read back and compared
    before the COMMIT.

    Raise :class:`~sa_sqlite_pool.CopyError` if tables have rows on the server, are missing in the
    file, or do not come back as they were sent, and SQLAlchemy's ``DBAPIError`` if the server
    refuses a statement. Then, and after a cancellation, the server is as it was.

    Memory does not grow with the file: some blocks of rows are in it at any time. A copy of the
    file is made beside it for the time, and removed whatever happens.
    """
    if progress is not None and not callable(progress):
        raise ConfigurationError(
            "progress must be a function of the phase, what is done and the total, not "
            f"{progress!r}"
        )
    if not isinstance(metadata, MetaData):
        raise ConfigurationError(f"metadata must be a MetaData, not {metadata!r}")
    copy = _Copy(engine, metadata, progress)
    return await copy.run(db, dry_run=dry_run)


@final
class _Copy:
    """One copy."""

    def __init__(self, engine: AsyncEngine, metadata: MetaData, progress: Progress | None) -> None:
        self._engine = engine
        self._metadata = metadata
        self._progress = progress
        self._wire: Wire = wire_of(engine.dialect)
        self._seconds: dict[str, float] = {}

    async def run(self, db: SQLiteDatabase, *, dry_run: bool) -> CopyReport:
        async with self._transaction() as connection:
            # Before the long part; for rows it is looked again when the tables are locked.
            tables = wanted_tables(self._metadata)
            await connection.run_sync(refuse_collations, tables)
            await connection.run_sync(refuse_rows, tables)
        began = time.monotonic()
        async with snapshot(db, lambda *at: self._tell(Phase.SNAPSHOT, *at)) as worker:
            self._seconds[Phase.SNAPSHOT.value] = time.monotonic() - began
            dialect = self._engine.dialect
            plan = await worker.run(lambda raw: plan_copy(raw, self._metadata, dialect))
            await self._check(worker, plan)
            if dry_run:
                there = [CopiedTable(table.name, table.rows) for table in plan.tables]
                return self._report(plan, there, dry_run=True)
            return self._report(plan, await self._copy(worker, plan))

    async def _check(self, worker: ConnectionThread, plan: Plan) -> None:
        with self._timed(Phase.CHECK):
            misfits = await check(worker, plan, self._teller(Phase.CHECK, plan.rows))
        if misfits:
            tables = [CopiedTable(table.name, table.rows) for table in plan.tables]
            raise MisfitsError(self._report(plan, tables, misfits=misfits))

    async def _copy(self, worker: ConnectionThread, plan: Plan) -> list[CopiedTable]:
        async with self._transaction() as connection:
            target = await connection.run_sync(Target, plan, self._metadata)
            await connection.run_sync(lambda _: target.prepare())
            driver = (await connection.get_raw_connection()).driver_connection
            with self._timed(Phase.COPY):
                sent, tables = await self._send(worker, plan, driver)
            with self._timed(Phase.FINISH):
                await self._finish(connection, target)
            with self._timed(Phase.VERIFY):
                await self._verify(worker, sent, target, driver)
        return tables

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        """Begin a transaction; also where the engine's own mode is autocommit."""
        async with AsyncExitStack() as opened:
            with _explained(f"connecting to {self._engine.url!r}"):
                connection = await opened.enter_async_context(self._engine.connect())
            await connection.execution_options(isolation_level="READ COMMITTED")
            async with connection.begin():
                try:
                    yield connection
                except asyncio.CancelledError:
                    # In the middle of a COPY, psycopg's connection takes no ROLLBACK: the server
                    # rolls back when the connection is gone.
                    await connection.invalidate()
                    raise

    async def _send(
        self, worker: ConnectionThread, plan: Plan, driver: Any
    ) -> tuple[list[tuple[TablePlan, Outgoing]], list[CopiedTable]]:
        sent, tables, done = [], [], 0
        for table in plan.tables:
            began = time.monotonic()
            outgoing = Outgoing(worker, table, self._teller(Phase.COPY, plan.rows, done))
            names = [column.name for column in table.columns]
            with _explained(f"copying {table.name}"):
                async with aclosing(outgoing.blocks()) as blocks:
                    await self._wire.send(driver, table.table, names, blocks)
            rows = outgoing.digest.rows
            done += rows
            sent.append((table, outgoing))
            tables.append(CopiedTable(table.name, rows, time.monotonic() - began))
        return sent, tables

    async def _finish(self, connection: AsyncConnection, target: Target) -> None:
        steps = target.finish()
        for done, step in enumerate(steps):
            self._tell(Phase.FINISH, done, len(steps))
            await connection.run_sync(step)

    async def _verify(
        self,
        worker: ConnectionThread,
        sent: list[tuple[TablePlan, Outgoing]],
        target: Target,
        driver: Any,
    ) -> None:
        total, done = sum(outgoing.digest.rows for _, outgoing in sent), 0
        for table, outgoing in sent:
            incoming = Incoming(worker, table, self._teller(Phase.VERIFY, total, done))
            with _explained(f"reading {table.name} back"):
                await self._wire.receive(driver, target.query(table), incoming.take)
                await incoming.end()
            if incoming.digest != outgoing.digest:
                raise CopyError(
                    f"{table.name} did not come back as it was sent: {outgoing.digest.rows:,} rows "
                    f"were sent, {incoming.digest.rows:,} are there, and their values differ; "
                    "nothing was copied. Is there a trigger, or a column of another type?"
                )
            done += outgoing.digest.rows

    # -- what is told ---------------------------------------------------------------------------

    def _report(self, plan: Plan, tables: list[CopiedTable], **further: Any) -> CopyReport:
        return CopyReport(tables, self._seconds, plan.warnings, plan.revisions, **further)

    def _tell(self, phase: Phase, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress(phase.value, done, total)

    def _teller(self, phase: Phase, total: int, before: int = 0) -> Any:
        return lambda done: self._tell(phase, before + done, total)

    @contextmanager
    def _timed(self, phase: Phase) -> Iterator[None]:
        began = time.monotonic()
        yield
        self._seconds[phase.value] = time.monotonic() - began


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Raise a driver's own errors, which are none of SQLAlchemy's, as :class:`CopyError`."""
    try:
        yield
    except Exception as error:
        if not is_drivers(error):
            raise
        reason = " ".join(str(error).split())
        raise CopyError(f"{what} failed, and nothing was copied: {reason}") from error
