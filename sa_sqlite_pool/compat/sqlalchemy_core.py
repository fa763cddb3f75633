"""How SQLAlchemy compiles a statement and creates its rows, and whether anything listens to it.

The steps of each execution by a ``Connection``, with results that later executions can reuse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any, final
from weakref import ref

from sqlalchemy import ClauseElement, Connection, CursorResult, Engine, NestedTransaction, Row
from sqlalchemy.engine import Dialect, IteratorResult, Result
from sqlalchemy.pool import PoolProxiedConnection
from sqlalchemy.sql.compiler import SQLCompiler

Processor = Callable[[Any], Any]

_DEBUG, _INFO = 10, 20  # levels of logging, which only reporting/ imports


def compile_statement(statement: ClauseElement, dialect: Dialect) -> SQLCompiler:
    """Compile ``statement`` as ``Connection.execute()`` does, with the same warnings."""
    compiled = statement.compile(dialect=dialect)
    assert isinstance(compiled, SQLCompiler)
    return compiled


def bind_processors(compiled: SQLCompiler) -> Mapping[str, Processor]:
    """Return the functions that convert parameters for the driver, by parameter name."""
    processors: Any = compiled._bind_processors
    found: Mapping[str, Processor] = processors
    return found


def expand(
    compiled: SQLCompiler, parameters: MutableMapping[str, Any]
) -> tuple[str, tuple[Any, ...]]:
    """Return SQL and values for a statement whose text depends on its parameters: mostly ``IN``.

    ``parameters`` contains all of them, as returned by ``construct_params()``.
    """
    state = compiled._process_parameters_for_postcompile(parameters)
    processors: dict[str, Any] = {**compiled._bind_processors, **state.processors}
    values = {**parameters, **state.parameters}
    names = state.positiontup or ()
    return state.statement, tuple(
        processors[name](values[name]) if name in processors else values[name] for name in names
    )


def listens(engine: Engine) -> bool:
    """Return whether a listener or a log would observe a statement on ``engine``.

    One listener for ``do_execute`` is the package's own, from ``pools/dialect.py``.
    """
    pool, dialect = engine.pool, engine.dialect
    checkouts, statements = pool.dispatch, dialect.dispatch
    return bool(
        engine._has_events
        or getattr(Connection, "_has_events", False)  # listeners of the class
        or checkouts.checkout
        or checkouts.checkin
        or checkouts.reset
        or len(statements.do_execute) > 1
        or engine.logger.isEnabledFor(_INFO)
        or pool.logger.isEnabledFor(_DEBUG)
    )


def hears_errors(engine: Engine) -> bool:
    """Return whether any listener except that of ``pools/dialect.py`` would receive an error."""
    return len(engine.dialect.dispatch.handle_error) > 1


@final
class Shape:
    """The columns of a result, with which SQLAlchemy's own rows are created.

    ``description`` is the cursor's.
    """

    __slots__ = ("_keys", "_metadata", "_processors", "description")

    def __init__(self, result: CursorResult[Any]) -> None:
        metadata: Any = result._metadata
        self.description: Any = result.context.cursor.description
        self._processors: Any = metadata._effective_processors
        self._metadata = metadata
        self._keys = metadata._key_to_index

    def row(self, values: Sequence[Any]) -> Any:
        return Row(self._metadata, self._processors, self._keys, values)

    def rows(self, found: Sequence[Sequence[Any]]) -> list[Any]:
        metadata, processors, keys = self._metadata, self._processors, self._keys
        return [Row(metadata, processors, keys, values) for values in found]

    def result(self, found: Sequence[Sequence[Any]]) -> Result[Any]:
        """Return an SQLAlchemy result over the driver's rows."""
        return IteratorResult(self._metadata, iter(found))


@final
class Stream:
    """A result whose rows are fetched on demand through a server-side cursor.

    It does not keep the result alive: a result that the application has dropped is read no further.
    A result cannot be referenced weakly; its context can, and its state is in its dictionary.
    """

    __slots__ = ("_context", "_state")

    def __init__(self, raw: Any) -> None:
        self._context = ref(raw.context)
        self._state: Mapping[str, Any] = vars(raw)

    @property
    def is_open(self) -> bool:
        """True if there may be rows left to read, and something that may still read them."""
        return self._context() is not None and not self._state.get("_soft_closed", False)


def stream_of(result: Any) -> tuple[Connection, Stream] | None:
    """Return the connection and the stream of ``result``; None if it is not a stream.

    An ORM result has the cursor's result in ``raw``, and buffers the rows it has read from it.
    """
    if not isinstance(result, Result):  # scalar() may return an object of the application
        return None
    raw: Any = getattr(result, "raw", None) or result
    if not getattr(getattr(raw, "context", None), "_is_server_side", False):
        return None
    return raw.connection, Stream(raw)


def raw_connection(engine: Engine) -> PoolProxiedConnection:
    """Return a connection of the pool; what is raised is what ``engine.connect()`` raises."""
    dialect = engine.dialect
    try:
        return engine.raw_connection()
    except dialect.loaded_dbapi.Error as error:
        Connection._handle_dbapi_exception_noconnection(error, dialect, engine)
        raise


def undo_unreleased(savepoint: NestedTransaction) -> None:
    """Roll back to a savepoint whose RELEASE has failed; SQLAlchemy would send no statement."""
    connection = savepoint.connection
    savepoint.rollback()  # only for SQLAlchemy: the connection would refuse further statements
    connection.dialect.do_rollback_to_savepoint(connection, savepoint._savepoint)
