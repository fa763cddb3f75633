"""Clearer errors in place of errors of SQLite that do not explain enough."""

from __future__ import annotations

import sqlite3

from ..errors import ForbiddenWriteError, OwnLockError
from ..settings import Role
from ..sqlite.authorizer import Authorizer
from ..sqlite.driver_errors import is_read_only
from ..sqlite.statements import Kind, parse_pragma
from ..sqlite.tokens import first_word
from ..transactions.locks import is_lock
from ..transactions.rules import Rules
from ..transactions.transaction import TransactionState
from ..turn.permit import shorten
from .performing import Misjudged
from .statement import Statement


def explain(
    error: Exception,
    statement: Statement,
    role: Role,
    authorizer: Authorizer,
    rules: Rules,
    transaction: TransactionState,
) -> None:
    """Raise a clearer error than ``error``, if there is one.

    Raise :class:`.Misjudged` if the statement has to be executed in another way.
    """
    if isinstance(error, ForbiddenWriteError):
        return
    if role is Role.READER:
        if authorizer.denied and statement.kind.is_temp and not statement.examined:
            raise Misjudged from error
        if authorizer.denied or is_read_only(error):
            what = authorizer.denied or authorizer.attempted or shorten(statement.sql)
            raise rules.forbidden(what) from error
    elif authorizer.denied:
        raise Misjudged from error
    if statement.kind.may_change_settings:
        _explain_setting(error, statement, rules, transaction)
    if (own := transaction.own_lock(error)) is not None:
        raise own from error


def _explain_setting(
    error: Exception, statement: Statement, rules: Rules, transaction: TransactionState
) -> None:
    if first_word(statement.sql) == "DETACH":
        # "This statement will fail if SQLite is in the middle of a transaction":
        # https://www.sqlite.org/lang_detach.html
        if transaction.worker.in_transaction and "is locked" in str(error):
            raise OwnLockError(
                f"{error}: a file cannot be detached within a transaction; commit or roll back "
                "this one first"
            ) from error
    elif _leaves_wal(statement.sql) and is_lock(error):
        # To leave WAL mode, SQLite acquires the exclusive lock (``sqlite3PagerCloseWal()`` in its
        # pager.c). The connections of a pool stay open, so waiting does not help.
        raise _with_reason(
            error,
            f"the journal mode of {rules.label} can change only while no other connection is open, "
            "and the pools of this process keep theirs open; close its engines, and reopen it with "
            'pragmas={"journal_mode": …}',
        ) from error
    elif statement.kind is Kind.MAINTENANCE and transaction.in_the_way and _is_refused(error):
        raise _with_reason(
            error,
            "the open transaction has written (CREATE and DROP count) or has a savepoint; commit "
            "or roll back first",
        ) from error


def _is_refused(error: Exception) -> bool:
    """Return whether a transaction is in the way of VACUUM or a checkpoint, which are valid."""
    return "cannot VACUUM" in str(error) or "is locked" in str(error)


def _leaves_wal(sql: str) -> bool:
    pragma = parse_pragma(sql)
    return pragma is not None and pragma.name == "journal_mode" and pragma.value != "wal"


def _with_reason(error: Exception, reason: str) -> sqlite3.OperationalError:
    """Return the same error with a reason added, and with SQLite's error codes."""
    explained = sqlite3.OperationalError(f"{error}: {reason}")
    vars(explained).update(vars(error))
    return explained
