"""What the package relies on inside SQLAlchemy's sessions: rows of ``docs/compat.md``.

``sessions/routing.py`` and ``sessions/transaction.py`` decide where a statement runs, and begin.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, select, update
from sqlalchemy.engine.util import TransactionalContext
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import Session, SessionTransaction, SessionTransactionOrigin
from sqlalchemy.orm.session import SessionTransactionState
from sqlalchemy.orm.state_changes import _StateChange, _StateChangeStates
from sqlalchemy.pool import NullPool

from tests.helpers import Base, Item


class Noted(Session):
    """A session that records which of its hooks were called."""

    def __init__(self, *args: Any, **kw: Any) -> None:
        self.calls: list[Any] = []
        super().__init__(*args, **kw)

    def _connection_for_bind(self, engine: Any, execution_options: Any = None, **kw: Any) -> Any:
        self.calls.append(("connection", self._flushing))
        return super()._connection_for_bind(engine, execution_options, **kw)

    def _autobegin_t(self, begin: bool = False) -> SessionTransaction:
        self.calls.append(("begin", begin, self._transaction is None))
        return super()._autobegin_t(begin)

    def _add_bind(self, key: Any, bind: Any) -> None:
        self.calls.append(("bind", key))
        super()._add_bind(key, bind)

    def _close_impl(self, invalidate: bool, is_reset: bool = False) -> None:
        self.calls.append(("close", invalidate, is_reset))
        super()._close_impl(invalidate, is_reset)

    def execute(self, statement: Any, params: Any = None, **kw: Any) -> Any:
        self.calls.append(("execute", kw.get("_add_event") is not None))
        return super().execute(statement, params, **kw)


@pytest.fixture
def engine(path: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


def test_a_statement_takes_its_connection_at_one_place(engine: Engine) -> None:
    """Statements and ``connection()`` call ``Session._connection_for_bind(engine, …)``.

    ``sessions/routing.py``: the result of ``get_bind()`` is used there, and nowhere else.
    """
    with Noted(engine) as session:
        session.execute(select(1))
        session.scalars(select(1))
        session.connection()
        assert session.calls.count(("connection", False)) == 3
        assert session.calls.count(("begin", False, True)) == 1


def test_a_flush_asks_the_transaction(engine: Engine) -> None:
    """A flush gets its connections from ``SessionTransaction._connection_for_bind(bind, options)``.

    ``sessions/transaction.py``: the first flush leaves the reader. ``_flushing`` is true then.
    """
    asked: list[Any] = []

    class Own(SessionTransaction):
        def _connection_for_bind(self, bind: Any, execution_options: Any) -> Any:
            asked.append((bind, self.session._flushing))
            return super()._connection_for_bind(bind, execution_options)

    class Routed(Session):
        def _autobegin_t(self, begin: bool = False) -> SessionTransaction:
            if self._transaction is None:
                return Own(self, SessionTransactionOrigin.AUTOBEGIN)
            return super()._autobegin_t(begin)

    with Routed(engine) as session:
        session.add(Item(amount=1))
        session.flush()
    assert asked
    assert set(asked) == {(engine, True)}


@pytest.mark.parametrize("begin", [False, True])
def test_a_transaction_of_our_own(begin: bool, engine: Engine) -> None:
    """``SessionTransaction(session, origin)`` becomes the session's transaction when it is created.

    ``sessions/routing.py``: ``_autobegin_t(begin)`` creates a ``RoutedTransaction``.
    """
    origin = SessionTransactionOrigin.BEGIN if begin else SessionTransactionOrigin.AUTOBEGIN
    session = Noted(engine)
    transaction = SessionTransaction(session, origin)
    assert session._transaction is transaction is session.get_transaction()
    assert transaction.is_active
    session.close()
    assert session._transaction is None
    if begin:
        session.begin()
        assert session.calls[-1] == ("begin", True, True)
        session.close()


def test_all_ends_come_by_one_place(engine: Engine) -> None:
    """``close()``, ``reset()`` and ``invalidate()`` call ``_close_impl(invalidate, is_reset)``.

    ``sessions/routing.py``: streams that were left open are closed with the session.
    """
    session = Noted(engine)
    session.close()
    session.reset()
    session.invalidate()
    assert session.calls == [
        *(("close", False, False), ("close", False, True), ("close", True, False)),
    ]


def test_all_binds_come_by_one_place(engine: Engine) -> None:
    """``binds=``, ``bind_mapper()`` and ``bind_table()`` call ``_add_bind(key, bind)``.

    ``sessions/routing.py`` notes whether the writer is bound by name, and then does not route it.
    """
    session = Noted(engine, binds={Item: engine})
    session.bind_mapper(Item, engine)
    table: Any = Item.__table__
    session.bind_table(table, engine)
    assert [name for name, _ in session.calls] == ["bind"] * 3


def test_all_statements_come_by_one_place(engine: Engine) -> None:
    """``execute()``, ``scalar()``, ``scalars()``, queries and loaders call ``_execute_internal()``.

    ``sessions/routing.py``: a statement that a replica refuses is retried there.
    """
    asked: list[str] = []

    class Asked(Session):
        def _execute_internal(self, statement: Any, params: Any = None, **kw: Any) -> Any:
            asked.append(str(statement)[:6])
            return super()._execute_internal(statement, params, **kw)

    with Asked(engine) as session:
        session.add(Item(id=1, amount=1))
        session.flush()
        session.execute(select(1))
        session.scalar(select(1))
        session.scalars(select(1))
        session.query(Item).all()
        session.expire_all()
        item = session.get(Item, 1)
        assert item is not None
        session.refresh(item)
        session.expire(item)
        assert item.amount == 1
    assert asked == ["SELECT"] * 7


def test_what_is_read_for_a_bulk_change(engine: Engine) -> None:
    """``synchronize_session="fetch"`` reads first, with ``execute(…, _add_event=…)``.

    ``sessions/routing.py`` sends that read to the target of the change. It happens only without
    RETURNING; otherwise, the change is the only statement.
    """
    bind = create_engine(engine.url, poolclass=NullPool)
    bind.dialect.update_returning = False
    with Noted(bind) as session:
        session.execute(
            update(Item).values(amount=1), execution_options={"synchronize_session": "fetch"}
        )
        assert session.calls.count(("execute", True)) == 1
    assert "_add_event" in inspect.signature(Session.execute).parameters


def test_a_session_in_a_block_that_has_ended(engine: Engine) -> None:
    """``TransactionalContext._trans_ctx_check(session)`` refuses only a block that has ended.

    ``compat/sqlalchemy_orm.py``: checked before a reader is acquired, as for SQLAlchemy's writer.
    """
    with Session(engine) as session:
        TransactionalContext._trans_ctx_check(session)
        with session.begin():
            TransactionalContext._trans_ctx_check(session)
            session.rollback()
            with pytest.raises(InvalidRequestError, match="context manager"):
                TransactionalContext._trans_ctx_check(session)


def test_states_are_declared(engine: Engine) -> None:
    """``_StateChange.declare_states`` guards a method, which is refused in the wrong state.

    ``sessions/transaction.py``: ``reader_connection()`` is as safe as SQLAlchemy's own methods, in
    the state PROVISIONING_CONNECTION meanwhile.
    """

    class Own(SessionTransaction):
        @_StateChange.declare_states(
            (SessionTransactionState.ACTIVE,), _StateChangeStates.NO_CHANGE
        )
        def take(self, again: bool) -> str:
            self._state = SessionTransactionState.PROVISIONING_CONNECTION
            try:
                return self.take(again=False) if again else "taken"
            finally:
                self._state = SessionTransactionState.ACTIVE

    transaction: Any = Own(Session(engine), SessionTransactionOrigin.BEGIN)
    assert transaction.take(again=False) == "taken"
    with pytest.raises(InvalidRequestError):
        transaction.take(again=True)
    assert transaction._state is SessionTransactionState.ACTIVE
    transaction.close()
    with pytest.raises(InvalidRequestError):
        transaction.take(again=False)


def test_how_a_transaction_ends() -> None:
    """``commit(_to_root=False)`` and ``close(invalidate=False)`` are the two ways to end it.

    ``sessions/transaction.py`` replaces both, with these arguments.
    """
    commit = inspect.signature(SessionTransaction.commit).parameters
    close = inspect.signature(SessionTransaction.close).parameters
    assert [(name, one.default) for name, one in commit.items()][1:] == [("_to_root", False)]
    assert [(name, one.default) for name, one in close.items()][1:] == [("invalidate", False)]


def test_what_is_to_be_flushed(engine: Engine) -> None:
    """``_is_clean()`` is False while a flush would send something: ``closures/api.py``."""
    with Session(engine) as session:
        assert session._is_clean()
        session.add(Item(id=1))
        assert not session._is_clean()
        session.flush()
        assert session._is_clean()
        item = session.get_one(Item, 1)
        item.amount = 7
        assert not session._is_clean()
        session.flush()
        session.delete(item)
        assert not session._is_clean()


def test_what_can_be_rolled_back() -> None:
    """An open transaction, or one whose COMMIT has failed, but not a committed one."""
    found: list[bool] = []
    engine = create_engine("sqlite://")
    with Session(engine) as session:
        session.execute(select(1))
        transaction = session.get_transaction()
        assert transaction is not None
        assert transaction._rollback_can_be_called()

        def look(_: object) -> None:
            found.append(transaction._rollback_can_be_called())

        event.listen(session, "after_commit", look)
        session.commit()
    assert found == [False]
    engine.dispose()
