"""What asyncpg's connections cache of the schema, and drop when an engine changes it.

SQLAlchemy's dialect for asyncpg caches prepared statements and types until its engine executes
DDL; the two engines of a database have two dialects. psycopg caches neither.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Engine, ExceptionContext, event

from ..endings import replace

_CHANGED = "sa_sqlite_pool_changed_schema"


def share_schema_changes(writer: Engine, reader: Engine) -> None:
    """Make each engine drop what it has cached of the schema when the other engine changes it.

    It does so when the statement is executed, and again when its transaction is committed: reads in
    between are still prepared for the previous schema. A COMMIT that fails may have been executed.
    """
    dialects: tuple[Any, Any] = (writer.dialect, reader.dialect)
    forgets: list[Any] = [getattr(one, "_invalidate_schema_cache", None) for one in dialects]
    if None in forgets:
        return

    def forget() -> None:
        for one in forgets:
            one()

    commit = writer.dialect.do_commit

    def do_commit(proxied: Any) -> None:
        has_changed = (info := proxied.info) and info.pop(_CHANGED, False)
        try:
            commit(proxied)
        finally:
            if has_changed:
                forget()

    @event.listens_for(writer, "after_cursor_execute")
    def executed(connection: Connection, *arguments: Any) -> None:
        if arguments[3].isddl:
            connection.info[_CHANGED] = True
            forget()  # without a transaction, it is committed already

    @event.listens_for(writer, "handle_error")
    def failed(context: ExceptionContext) -> None:
        execution: Any = context.execution_context
        if execution is not None and execution.isddl:
            forget()  # without a transaction, it may be committed

    for dialect in dialects:
        replace(dialect, _invalidate_schema_cache=forget)
    replace(writer.dialect, do_commit=do_commit)
