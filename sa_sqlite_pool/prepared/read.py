"""A prepared read: one statement, compiled once, whose calls add little overhead to SQLite."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter, methodcaller
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar, final

from sqlalchemy import ClauseElement, Row, RowMapping
from sqlalchemy.engine import Result
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from ..closures.borrowed import give_back
from ..compat.greenlets import greenlet_spawn
from ..compat.sqlalchemy_core import Shape, compile_statement, hears_errors, listens
from ..driver.adapter import SQLiteConnection
from ..execution.loop_budget import LoopBudget
from ..execution.replies import Execute, Reply, execute_at_once
from ..settings import NOT_GIVEN, NotGiven, check_limit
from ..system.loop_state import of_running_loop
from ..turn.permit import shorten
from .fetching import execute_for_one, execute_for_two
from .parameters import Binder

if TYPE_CHECKING:
    import typing_extensions

    R_co = typing_extensions.TypeVar("R_co", default=Any, covariant=True)
else:  # the default is for type checkers alone; before Python 3.13 typing has none
    R_co = TypeVar("R_co", covariant=True)

T = TypeVar("T")
V = TypeVar("V")
V_co = TypeVar("V_co", covariant=True)


class _BeginsWith(Protocol[V_co]):
    """A row whose first column has the type ``V_co``, in SQLAlchemy 2.0 as in 2.1."""

    def _tuple(self) -> tuple[V_co, typing_extensions.Unpack[tuple[Any, ...]]]:
        """Return the row itself, as SQLAlchemy's rows do."""


_Parameters = Mapping[str, Any]
_Rows = Sequence[Sequence[Any]]

# Execution options that are honored here; a statement with any other is left to SQLAlchemy.
_HONORED_OPTIONS = frozenset({"statement_timeout"})


def _all(method: str) -> Callable[[Result[Any]], Any]:
    part = methodcaller(method)
    return lambda result: part(result).all()


_ONE: Final[Callable[[Result[Any]], Any]] = methodcaller("one")
_ONE_OR_NONE: Final[Callable[[Result[Any]], Any]] = methodcaller("one_or_none")
_FIRST: Final[Callable[[Result[Any]], Any]] = methodcaller("first")
_ALL: Final[Callable[[Result[Any]], Sequence[Any]]] = methodcaller("all")
_MAPPINGS: Final[Callable[[Result[Any]], Sequence[RowMapping]]] = _all("mappings")
_SCALAR: Final[Callable[[Result[Any]], Any]] = methodcaller("scalar")
_SCALAR_ONE: Final[Callable[[Result[Any]], Any]] = methodcaller("scalar_one")
_SCALAR_ONE_OR_NONE: Final[Callable[[Result[Any]], Any]] = methodcaller("scalar_one_or_none")
_SCALARS: Final[Callable[[Result[Any]], Sequence[Any]]] = _all("scalars")
_mapping: Final[Callable[[Row[Any]], RowMapping]] = attrgetter("_mapping")


@final
class PreparedRead(Generic[R_co]):
    """A statement that reads, compiled once; each call executes it in one snapshot of its own.

    ::

        by_id = db.prepare(select(Item.id, Item.name).where(Item.id == bindparam("id")))
        row = await by_id.one(id=7)

    Created by :meth:`SQLiteDatabase.prepare`. To type checkers its rows, ``R_co``, are those that
    SQLAlchemy returns for the statement. The methods take the parameters by name, and return
    the same as the method of that name of SQLAlchemy's ``Result``: SQLAlchemy's own rows, with the
    types of the columns. They also raise the same errors, and ``ArgumentError`` for a parameter
    that the statement does not have.

    A call that finds a reader at rest, and whose statement is known to be short, runs at once on
    the event loop, with neither a greenlet nor an SQLAlchemy ``Connection``. Otherwise it waits in
    line for a reader, and after ``read_timeout`` seconds raises
    :class:`~sa_sqlite_pool.ReadTimeout`. If anything listens to the reader engine (a tracer, a
    log), the statement is executed with ``reader_engine.connect()``, so that nothing is missed.

    A cancellation stops the statement and leaves nothing behind. Any number of tasks, event loops
    and threads may share the object. It may be created before the database is open; once that is
    closed, its methods raise :class:`~sa_sqlite_pool.DatabaseClosedError`.

    :param statement: a statement that has passed :func:`.check_statement`
    :param engine: the reader engine
    :param assert_usable: raises unless the caller may use the database now
    """

    __slots__ = (
        "__weakref__",
        "_assert_usable",
        "_binder",
        "_engine",
        "_honors_options",
        "_options",
        "_shape",
        "_statement",
        "_sync_engine",
        "_timeout",
    )

    def __init__(
        self, statement: ClauseElement, engine: AsyncEngine, assert_usable: Callable[[], None]
    ) -> None:
        self._statement: Any = statement
        self._engine = engine
        self._sync_engine = engine.sync_engine
        self._assert_usable = assert_usable
        self._binder = Binder(compile_statement(statement, self._sync_engine.dialect))
        self._shape: Shape | None = None  # known once SQLAlchemy has executed the statement
        self._options: Mapping[str, Any] | None = None  # the engine's, as last seen
        self._honors_options = False  # whether it honors all execution options of the statement
        self._timeout: float | NotGiven | None = NOT_GIVEN  # from these options

    def __repr__(self) -> str:
        asked = ", ".join(sorted(self._binder.names)) or "none"
        return f"<PreparedRead {shorten(self._binder.sql)}, parameters: {asked}>"

    # -- results --------------------------------------------------------------------------------

    async def one(self, /, **parameters: Any) -> R_co:
        """Return the only row; raise ``NoResultFound`` or ``MultipleResultsFound`` otherwise."""
        shape, rows = self._read_at_once(parameters, execute_for_two)
        if shape is not None and rows is not None and len(rows) == 1:
            return shape.row(rows[0])
        return await self._finish(parameters, execute_for_two, shape, rows, _ONE)

    async def one_or_none(self, /, **parameters: Any) -> R_co | None:
        """Return the only row, None if there is none; raise ``MultipleResultsFound`` for more."""
        shape, rows = self._read_at_once(parameters, execute_for_two)
        if shape is not None and rows is not None and len(rows) == 1:
            return shape.row(rows[0])
        return await self._finish(parameters, execute_for_two, shape, rows, _ONE_OR_NONE)

    async def first(self, /, **parameters: Any) -> R_co | None:
        """Return the first row, None if there is none. Further rows are not computed."""
        shape, rows = self._read_at_once(parameters, execute_for_one)
        if shape is not None and rows:
            return shape.row(rows[0])
        return await self._finish(parameters, execute_for_one, shape, rows, _FIRST)

    async def all(self, /, **parameters: Any) -> Sequence[R_co]:
        """Return all rows."""
        shape, rows = self._read_at_once(parameters, execute_at_once)
        if shape is not None and rows is not None:
            return shape.rows(rows)
        return await self._finish(parameters, execute_at_once, shape, rows, _ALL)

    async def mappings(self, /, **parameters: Any) -> Sequence[RowMapping]:
        """Return all rows as mappings from column names to values."""
        shape, rows = self._read_at_once(parameters, execute_at_once)
        if shape is not None and rows is not None:
            return [_mapping(row) for row in shape.rows(rows)]
        return await self._finish(parameters, execute_at_once, shape, rows, _MAPPINGS)

    async def scalar(self: PreparedRead[_BeginsWith[V]], /, **parameters: Any) -> V | None:
        """Return the first column of the first row, None if there is no row."""
        shape, rows = self._read_at_once(parameters, execute_for_one)
        if shape is not None and rows:
            return shape.row(rows[0])[0]
        return await self._finish(parameters, execute_for_one, shape, rows, _SCALAR)

    async def scalar_one(self: PreparedRead[_BeginsWith[V]], /, **parameters: Any) -> V:
        """Return the first column of the only row; raise what :meth:`one` raises."""
        shape, rows = self._read_at_once(parameters, execute_for_two)
        if shape is not None and rows is not None and len(rows) == 1:
            return shape.row(rows[0])[0]
        return await self._finish(parameters, execute_for_two, shape, rows, _SCALAR_ONE)

    async def scalar_one_or_none(
        self: PreparedRead[_BeginsWith[V]], /, **parameters: Any
    ) -> V | None:
        """Return the first column of the only row, None if there is none; raise for more."""
        shape, rows = self._read_at_once(parameters, execute_for_two)
        if shape is not None and rows is not None and len(rows) == 1:
            return shape.row(rows[0])[0]
        return await self._finish(parameters, execute_for_two, shape, rows, _SCALAR_ONE_OR_NONE)

    async def scalars(self: PreparedRead[_BeginsWith[V]], /, **parameters: Any) -> Sequence[V]:
        """Return the first column of all rows."""
        shape, rows = self._read_at_once(parameters, execute_at_once)
        return await self._finish(parameters, execute_at_once, shape, rows, _SCALARS)

    # -- the ways to read -----------------------------------------------------------------------

    def _read_at_once(
        self, parameters: _Parameters, execute: Execute
    ) -> tuple[Shape | None, _Rows | None]:
        """Read on the event loop, now; return the columns and the driver's rows.

        The rows are None if the loop has no room before its next iteration. The columns are None,
        too, if the statement has to be read in another way.
        """
        self._assert_usable()
        shape = self._shape
        pool: Any = self._sync_engine.pool
        if shape is None or not pool.reads_on_loop:
            return None, None
        budget = of_running_loop(LoopBudget)
        if not budget.enter_nowait():
            return shape, None
        return self._read_now(budget, shape, parameters, execute)

    def _read_now(
        self, budget: LoopBudget, shape: Shape, parameters: _Parameters, execute: Execute
    ) -> tuple[Shape | None, _Rows | None]:
        """Read on the event loop, whose budget has admitted the task."""
        if not self._is_unnoticed():
            self._shape = None  # so that the next call does not enter the budget for this
            return None, None
        try:
            sql, values = self._binder.bind(parameters)
        except Exception:  # SQLAlchemy's own error, in the next attempt, states the reason
            return None, None
        pool: Any = self._sync_engine.pool
        reply = pool.read_at_once(budget, sql, values, execute, self._timeout)
        if reply is None or reply.description != shape.description:
            return None, None
        return shape, reply.rows

    async def _finish(
        self,
        parameters: _Parameters,
        execute: Execute,
        shape: Shape | None,
        rows: _Rows | None,
        finish: Callable[[Result[Any]], T],
    ) -> T:
        """Return the result of the rows that were read at once, or read in another way."""
        if shape is not None and rows is None:
            budget = of_running_loop(LoopBudget)
            await budget.enter()
            shape, rows = self._read_now(budget, shape, parameters, execute)
        if rows is None:
            self._binder.assert_known(parameters)
            shape, rows = await self._read_in_line(parameters, execute)
        if shape is None or rows is None:
            return await self._read_by_sqlalchemy(parameters, finish)
        return finish(shape.result(rows))

    async def _read_in_line(
        self, parameters: _Parameters, execute: Execute
    ) -> tuple[Shape | None, _Rows | None]:
        """Wait for a reader, then read in a thread, or on the loop after all."""
        shape = self._shape
        if shape is None or not self._is_unnoticed() or hears_errors(self._sync_engine):
            return None, None
        try:
            sql, values = self._binder.bind(parameters)
        except Exception:
            return None, None
        try:
            reply = await self._check_out_and_read(sql, values, execute)
        except SQLAlchemyError:  # for example, the wait was too long
            raise
        except Exception:  # an error of SQLite, which SQLAlchemy reports in more detail
            return None, None
        if reply.description != shape.description:
            return None, None
        return shape, reply.rows

    async def _check_out_and_read(
        self, sql: str, values: tuple[Any, ...], execute: Execute
    ) -> Reply:
        proxied = await greenlet_spawn(self._sync_engine.raw_connection)
        connection = proxied.dbapi_connection
        assert isinstance(connection, SQLiteConnection)
        executor, timeout = connection.executor, self._timeout
        try:
            connection.isolation_level = None  # until its check-in: a single statement
            return await greenlet_spawn(
                *(executor.run_statement, sql, values, execute),
                timeout=executor.statement_timeout if isinstance(timeout, NotGiven) else timeout,
            )
        finally:
            await give_back(proxied, executor)

    async def _read_by_sqlalchemy(
        self, parameters: _Parameters, finish: Callable[[Result[Any]], T]
    ) -> T:
        """Execute the statement as usual, and store what SQLAlchemy knows about its columns."""
        async with self._engine.connect() as connection:
            result = await connection.execute(self._statement, dict(parameters) or None)
            if result.returns_rows and self._is_unnoticed():
                self._shape = Shape(result)
            return finish(result)

    def _is_unnoticed(self) -> bool:
        """Return whether execution by SQLAlchemy would do nothing that is not done here."""
        engine = self._sync_engine
        options = engine.get_execution_options()
        if options is not self._options:
            self._consider(options)
        return self._honors_options and not listens(engine)

    def _consider(self, options: Mapping[str, Any]) -> None:
        """Decide whether the execution options of engine and statement are honored here."""
        all_of_them = {**self._statement.get_execution_options(), **options}
        self._honors_options = all_of_them.keys() <= _HONORED_OPTIONS
        timeout = all_of_them.get("statement_timeout", NOT_GIVEN)
        if self._honors_options and not isinstance(timeout, NotGiven):
            self._honors_options = _is_limit(timeout)
        self._timeout, self._options = timeout, options


def _is_limit(seconds: Any) -> bool:
    """Return whether ``seconds`` is a valid limit; if not, execution by SQLAlchemy raises."""
    try:
        check_limit("statement_timeout", seconds)
    except ValueError:
        return False
    return True
