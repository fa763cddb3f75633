"""A statement while it is being executed."""

from __future__ import annotations

from typing import final

from ..execution.replies import Execute, Parameters
from ..transactions.facts import StatementFacts
from ..transactions.locks import Patience


@final
class Statement:
    """A text with its parameters, the facts about it, and the state of this run.

    ``execute(connection, sql, parameters)`` runs it; ``atomic`` (executemany) means all or nothing,
    even in AUTOCOMMIT: otherwise, another connection's lock could stop it half-way, and the next
    attempt would insert the first half again. ``inline``: on the loop, if nothing prevents that.

    ``timeout`` limits each run, in seconds: a run that meets a lock, or proves to write, has had no
    effect. The waits, since it ``began`` (monotonic seconds), have their own limit, ``patience``.
    ``examined`` is True once SQLite was asked what it writes; ``databases`` are the numbers of the
    written databases, as far as known. ``took_turn``: the write turn was acquired for it;
    ``turn_unused``: it could not be compiled then. ``tries_again``: it has failed and will be
    retried; until then, it keeps the turn and the snapshot.
    """

    # Class attributes for values that few statements need: each execution creates a statement.
    examined = False
    databases: frozenset[int] = frozenset()
    inline = False
    timeout: float | None = None
    began = 0.0
    patience: Patience | None = None
    took_turn = False
    turn_unused = False
    tries_again = False

    def __init__(
        self, facts: StatementFacts, parameters: Parameters, execute: Execute, *, atomic: bool
    ) -> None:
        self.facts = facts
        self.sql = facts.sql
        self.kind = facts.kind
        self.parameters = parameters
        self.execute = execute
        self.atomic = atomic
