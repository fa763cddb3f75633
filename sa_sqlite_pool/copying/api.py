"""``copy_to()``: copy an SQLite database to PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from typing import Any, final

from sqlalchemy import Connection, MetaData, Table
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncTransaction

from ..backup.copy_job import check_progress
from ..database import SQLiteDatabase
from ..errors import CommitUnknownError, ConfigurationError, CopyError, a_type
from ..execution.connection_thread import ConnectionThread
from ..reporting.events import CommitCancelled, log
from ..servers.connections.server import name_of
from ..servers.database import ServerDatabase
from ..servers.pool import ServerPool
from ..system.clock import time
from .checking import check
from .columns.expressions import refuse_expressions
from .long_rows import refuse_long_lines
from .misfits import Collector
from .report import CopiedTable, CopyReport, MisfitsError, Phase, Progress
from .server.existing import compare
from .server.refusals import connecting, is_unanswered, refused
from .server.rehearsal import refuse_other_copies, refuse_server, rehearse
from .source import snapshot
from .tables import Plan, TablePlan, plan_copy, wanted_tables
from .target.revisions import Revisions, refuse_other_revisions, revisions_there
from .target.sequences import refuse_marks
from .target.statements import set_parameters
from .target.tables import SEEDED, Target, refuse_collations, refuse_rows
from .transfer import Incoming, Outgoing
from .wire import Wire, wire_of


async def copy_to(
    db: SQLiteDatabase,
    engine: AsyncEngine | ServerDatabase,
    metadata: MetaData,
    *,
    progress: Progress | None = None,
    dry_run: bool = False,
) -> CopyReport:
    """Copy all rows of the tables of ``metadata`` from ``db`` to PostgreSQL through ``engine``.

    :param db: the open SQLite database; it may be written to meanwhile, but its state at the
        beginning is copied
    :param engine: an engine of ``create_async_engine``, with the driver asyncpg or psycopg; or an
        open :class:`~sa_sqlite_pool.ServerDatabase`, whose write turn the copy holds meanwhile
    :param metadata: the metadata of the application's models; tables that are missing on the
        server are created, and tables that exist there have to be empty
    :param progress: called in the event loop as ``progress(phase, done, total)``; the phases are
        ``"snapshot"``, in pages, ``"check"``, ``"copy"`` and ``"verify"``, in rows, and
        ``"finish"``, in indexes and similar steps
    :param dry_run: only check, and report what would be copied

    First, the tables, indexes and constraints of the models are created on the server without rows,
    and rolled back; existing tables are compared with the models; and every value is checked. If
    anything does not fit, raise :class:`~sa_sqlite_pool.MisfitsError` with all of it, and copy
    nothing. Then everything happens in one transaction: tables, rows, indexes, foreign keys,
    sequences, statistics, Alembic's version. All rows are read back and compared before the COMMIT.

    Raise :class:`~sa_sqlite_pool.CopyError` if the server cannot be reached, is a replica, or
    refuses a statement; the error of SQLAlchemy or the driver is its ``__cause__``. Raise it, too,
    if tables have rows on the server, are missing from the file, or are not read back as they were
    sent. After such an error or a cancellation, the server is unchanged, with two exceptions, in
    which that is not known: if the connection is lost before the answer to COMMIT arrives,
    :class:`~sa_sqlite_pool.CommitUnknownError` is raised; if a cancellation arrives at that point,
    ``commit_cancelled`` is logged.
    Errors of ``db`` itself are raised as by its other methods, and so are the time-outs of a
    :class:`~sa_sqlite_pool.ServerDatabase`.

    Memory use does not grow with the file: only some blocks of rows are in memory at any time. A
    copy of the file is kept beside it meanwhile, and removed whatever happens.
    """
    check_progress(progress, "the phase, what is done and the total")
    if not isinstance(metadata, MetaData):
        raise ConfigurationError(f"metadata must be a MetaData, not {metadata!r}")
    if not isinstance(db, SQLiteDatabase):
        raise ConfigurationError(f"db must be an SQLiteDatabase, not {_shown(db)}")
    copy = _Copy(_engine_of(engine), metadata, progress)
    try:
        return await copy.run(db, dry_run=dry_run)
    except _ProgressError as error:
        raise error.raised from None


def _engine_of(given: AsyncEngine | ServerDatabase) -> AsyncEngine:
    engine = given.writer_engine if isinstance(given, ServerDatabase) else given
    if not isinstance(engine, AsyncEngine):
        raise ConfigurationError(
            "engine must be an engine of create_async_engine(), or a ServerDatabase, not "
            f"{_shown(given)}"
        )
    return engine


def _shown(given: object) -> str:
    # Not its own text: a URL contains a password.
    return a_type(given)


class _ProgressError(Exception):
    """An error that ``progress`` has raised, so that it is not mistaken for one of the server."""

    def __init__(self, raised: Exception) -> None:
        super().__init__()
        self.raised = raised


@final
class _Copy:
    """One copy."""

    def __init__(self, engine: AsyncEngine, metadata: MetaData, progress: Progress | None) -> None:
        self._engine = engine
        self._metadata = metadata
        self._progress = progress
        self._wire: Wire = wire_of(engine.dialect)
        self._seconds: dict[str, float] = {}
        self._warnings: list[str] = []  # about the server; the plan has those about the file

    async def run(self, db: SQLiteDatabase, *, dry_run: bool) -> CopyReport:
        misfits = Collector()
        async with self._transaction(keeps=False) as connection:
            # Before the long part; rows are looked for again once the tables are locked.
            not_null, revisions = await connection.run_sync(self._rehearse, misfits)
        began = time.monotonic()
        async with snapshot(db, lambda *at: self._tell(Phase.SNAPSHOT, *at)) as worker:
            self._seconds[Phase.SNAPSHOT.value] = time.monotonic() - began
            dialect = self._engine.dialect
            plan = await worker.run(lambda raw: plan_copy(raw, self._metadata, dialect, not_null))
            refuse_other_revisions(plan.revisions, revisions)
            await self._check(worker, plan, misfits)
            if dry_run:
                return self._report(plan, dry_run=True)
            return self._report(plan, await self._copy(worker, plan))

    def _rehearse(
        self, connection: Connection, misfits: Collector
    ) -> tuple[set[tuple[Table, str]], Revisions]:
        """Create what is missing, and compare what exists; the caller rolls this back.

        Return the columns that do not accept NULL there, and Alembic's version.
        """
        tables = wanted_tables(self._metadata)
        refuse_server(connection)
        set_parameters(connection)
        refuse_other_copies(connection)
        refuse_collations(connection, tables)
        refuse_rows(connection, tables)
        refuse_expressions(tables, connection.dialect, misfits)
        not_null = compare(connection, tables, misfits, self._warnings)
        there = revisions_there(connection)
        rehearse(connection, self._metadata, tables, misfits)
        refuse_rows(connection, tables, SEEDED)
        return not_null, there

    async def _check(self, worker: ConnectionThread, plan: Plan, misfits: Collector) -> None:
        with self._timed(Phase.CHECK):
            await check(worker, plan, misfits, self._teller(Phase.CHECK, plan.rows))
            refuse_marks(plan, misfits)
            await worker.run(lambda raw: refuse_long_lines(raw, plan, misfits))
        if found := misfits.result():
            raise MisfitsError(self._report(plan, misfits=found))

    async def _copy(self, worker: ConnectionThread, plan: Plan) -> list[CopiedTable]:
        async with self._transaction() as connection:
            await connection.run_sync(set_parameters)
            await connection.run_sync(refuse_other_copies)
            target = await connection.run_sync(Target, plan, self._metadata)
            await connection.run_sync(lambda _: target.prepare())
            driver = (await connection.get_raw_connection()).driver_connection
            with self._timed(Phase.COPY):
                sent, tables = await self._send(worker, plan, target, driver)
            with self._timed(Phase.FINISH):
                await self._finish(connection, target)
            with self._timed(Phase.VERIFY):
                await self._verify(worker, sent, target, driver)
        self._warnings.extend(target.warnings)
        return tables

    @asynccontextmanager
    async def _transaction(self, *, keeps: bool = True) -> AsyncIterator[AsyncConnection]:
        """Begin a transaction, even if the engine's own mode is autocommit."""
        async with AsyncExitStack() as opened:
            with connecting(self._engine.url):
                connection = await opened.enter_async_context(self._engine.connect())
            opened.enter_context(refused("the copy"))
            await connection.execution_options(isolation_level="READ COMMITTED")
            async with connection.begin() as transaction:
                try:
                    yield connection
                except asyncio.CancelledError:
                    # In the middle of a COPY, psycopg's connection accepts no ROLLBACK, but the
                    # server rolls back when the connection is gone.
                    await connection.invalidate()
                    raise
                except Exception:
                    await _roll_back(connection, transaction)
                    raise
                if keeps:
                    await _commit(transaction, self._engine)
                else:
                    await transaction.rollback()

    async def _send(
        self, worker: ConnectionThread, plan: Plan, target: Target, driver: Any
    ) -> tuple[list[tuple[TablePlan, Outgoing]], list[CopiedTable]]:
        sent, tables, done = [], [], 0
        for table in plan.tables:
            began = time.monotonic()
            outgoing = Outgoing(worker, table, self._teller(Phase.COPY, plan.rows, done))
            names = [column.name for column in table.columns]
            with refused(f"copying {table.name}"):
                async with aclosing(outgoing.blocks()) as blocks:
                    await self._wire.send(driver, target.place(table), names, blocks)
            rows = outgoing.digest.rows
            done += rows
            sent.append((table, outgoing))
            tables.append(CopiedTable(table.name, rows, time.monotonic() - began))
        return sent, tables

    async def _finish(self, connection: AsyncConnection, target: Target) -> None:
        steps = target.finish()
        for done, (what, step) in enumerate(steps):
            self._tell(Phase.FINISH, done, len(steps))
            with refused(what):
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
            with refused(f"reading {table.name} back"):
                await self._wire.receive(driver, target.query(table), incoming.take)
                await incoming.end()
            if incoming.digest != outgoing.digest:
                raise CopyError(
                    f"{table.name} was not read back as it was sent: {outgoing.digest.rows:,} rows "
                    f"were sent, {incoming.digest.rows:,} are there, and their values differ; "
                    "nothing was copied. Is there a trigger, or a column of another type?"
                )
            done += outgoing.digest.rows

    # -- reports --------------------------------------------------------------------------------

    def _report(
        self, plan: Plan, copied: list[CopiedTable] | None = None, **further: Any
    ) -> CopyReport:
        tables = copied or [CopiedTable(table.name, table.rows) for table in plan.tables]
        warnings = [*plan.warnings, *self._warnings]
        return CopyReport(tables, self._seconds, warnings, plan.revisions, **further)

    def _tell(self, phase: Phase, done: int, total: int) -> None:
        if self._progress is None:
            return
        try:
            self._progress(phase.value, done, total)
        except Exception as error:
            raise _ProgressError(error) from error

    def _teller(self, phase: Phase, total: int, before: int = 0) -> Any:
        return lambda done: self._tell(phase, before + done, total)

    @contextmanager
    def _timed(self, phase: Phase) -> Iterator[None]:
        began = time.monotonic()
        yield
        self._seconds[phase.value] = time.monotonic() - began


async def _roll_back(connection: AsyncConnection, transaction: AsyncTransaction) -> None:
    """Roll back a transaction that has failed, without raising an error instead of its cause."""
    try:
        await transaction.rollback()
    except SQLAlchemyError:  # the connection is gone, and so is the transaction
        await connection.invalidate()


async def _commit(transaction: AsyncTransaction, engine: AsyncEngine) -> None:
    try:
        await transaction.commit()
    except asyncio.CancelledError:
        if not isinstance(engine.pool, ServerPool):  # which has logged it
            server = name_of(engine.url)
            log(
                CommitCancelled(database=server, server=server),
                "the COMMIT of a copy to %s was cancelled before its answer arrived: check there "
                "whether the tables have their rows; if not, copy again",
                server,
            )
        raise
    except DBAPIError as error:
        if isinstance(error, CommitUnknownError) or not is_unanswered(error):
            raise
        raise CommitUnknownError(
            "the connection was lost before the answer to COMMIT arrived: check on the server "
            "whether the tables are there; if not, copy again",
            error.orig,
        ) from error
