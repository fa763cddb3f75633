"""The state checks of SQLAlchemy's sessions, for methods that SQLAlchemy does not have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy.engine.util import TransactionalContext
from sqlalchemy.orm import Session
from sqlalchemy.orm.session import SessionTransactionState
from sqlalchemy.orm.state_changes import _StateChange, _StateChangeStates

F = TypeVar("F", bound=Callable[..., Any])


def takes_connection(method: F) -> F:
    """Make a method of a ``SessionTransaction`` raise where acquiring a connection would raise.

    That is in the wrong state, or in two tasks at once, as in ``_connection_for_bind()`` in
    SQLAlchemy's orm/session.py. The method sets ``_state`` to PROVISIONING_CONNECTION meanwhile.
    """
    return _StateChange.declare_states(
        (SessionTransactionState.ACTIVE,), _StateChangeStates.NO_CHANGE
    )(method)


def assert_block_is_open(session: Session) -> None:
    """Raise ``InvalidRequestError`` in a ``begin()`` block whose transaction has ended."""
    TransactionalContext._trans_ctx_check(session)


def may_roll_back(session: Session) -> bool:
    """Return whether there is anything to undo: not if a listener has failed after the COMMIT."""
    transaction = session.get_transaction()
    return transaction is not None and transaction._rollback_can_be_called()
