"""Extensions of an engine's dialect: how connections are opened, and three execution options."""

from __future__ import annotations

from typing import Any

from sqlalchemy import event
from sqlalchemy.dialects.sqlite.base import SQLiteDialect
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.engine.characteristics import ConnectionCharacteristic

from ..driver.executor import Executor
from ..errors import ConfigurationError
from ..opening.connector import Connector
from ..settings import check_limit


def prepare_dialect(dialect: Any, connector: Connector) -> None:
    if getattr(dialect, "driver", None) != "aiosqlite":
        raise ConfigurationError(
            "this pool works only with sqlite+aiosqlite URLs and create_async_engine(), not with "
            f"{getattr(dialect, 'name', None)}+{getattr(dialect, 'driver', None)}; "
            "omit poolclass for other databases"
        )
    connector.listen(dialect)
    if type(dialect).get_isolation_level is SQLiteDialect.get_isolation_level:
        dialect.get_default_isolation_level = _default_isolation_level
    for name in ("do_execute", "do_executemany"):
        event.listen(dialect, name, _set_timeout)
    event.listen(dialect, "do_execute_no_params", _set_timeout_without_parameters)
    event.listen(dialect, "handle_error", _note_error)
    dialect.connection_characteristics = dialect.connection_characteristics.union(
        {"sqlite_role": RoleCharacteristic(), "sqlite_long_read": LongReadCharacteristic()}
    )


def _default_isolation_level(connection: Any) -> str:
    """Return the result of ``SQLiteDialect.get_isolation_level()``, for the first connection.

    That method sends a statement, which takes a hop.
    """
    return "READ UNCOMMITTED" if connection.reads_uncommitted() else "SERIALIZABLE"


def _set_timeout(cursor: Any, statement: str, parameters: Any, context: Any) -> None:
    """Apply the ``statement_timeout`` execution option of the statement, connection or engine."""
    if "statement_timeout" in context.execution_options:
        option = context.execution_options["statement_timeout"]
        cursor.timeout = check_limit("statement_timeout", option)


def _set_timeout_without_parameters(cursor: Any, statement: str, context: Any) -> None:
    _set_timeout(cursor, statement, None, context)


def _note_error(context: ExceptionContext) -> None:
    """Report SQLite's error to its connection, wherever the statement ran."""
    connection = context.connection
    if connection is None or connection.closed or connection.invalidated:
        return
    executor = getattr(connection.connection.dbapi_connection, "executor", None)
    if isinstance(executor, Executor):
        executor.worker.note_error(context.original_exception)


class RoleCharacteristic(ConnectionCharacteristic):
    """The ``sqlite_role`` execution option, modelled on PostgreSQL's ``postgresql_readonly``."""

    transactional = True

    def reset_characteristic(self, dialect: Any, dbapi_conn: Any) -> None:
        dbapi_conn.reset_role()

    def set_characteristic(self, dialect: Any, dbapi_conn: Any, value: Any) -> None:
        dbapi_conn.ask_for_role(value)

    def get_characteristic(self, dialect: Any, dbapi_conn: Any) -> Any:
        return dbapi_conn.role.value


class LongReadCharacteristic(ConnectionCharacteristic):
    """The ``sqlite_long_read`` execution option: read transactions are long on purpose."""

    def reset_characteristic(self, dialect: Any, dbapi_conn: Any) -> None:
        dbapi_conn.long_read = False

    def set_characteristic(self, dialect: Any, dbapi_conn: Any, value: Any) -> None:
        dbapi_conn.long_read = bool(value)

    def get_characteristic(self, dialect: Any, dbapi_conn: Any) -> Any:
        return dbapi_conn.long_read
