"""One statement on its way to SQLite."""

from __future__ import annotations

from typing import final

from ..execution.replies import Execute, Parameters
from ..transactions.facts import StatementFacts
from ..transactions.locks import Patience, TimeLimit


@final
class Statement:
    """A text with its parameters, what is known of it (``facts``), and of this run of it.

    ``execute(connection, sql, parameters)`` runs it; ``atomic`` (executemany) all or nothing, also
    in AUTOCOMMIT: otherwise a lock held by another connection could stop it half way, and the next
    try would insert the first half again. ``inline``: on the loop, if nothing is in the way.

    ``limit`` is for the running; the waiting, since it ``began`` (monotonic seconds), has its own,
    ``patience``. ``examined`` says that SQLite was asked what it writes, and ``databases`` are the
    numbers of those, as far as they are known. ``took_turn`` says that the write turn was taken for
    it, and ``turn_unused``, that it could not be compiled then.
    """

    # What few statements need is the class's: there is a statement for each that is executed.
    examined = False
    databases: frozenset[int] = frozenset()
    inline = False
    limit: TimeLimit | None = None
    began = 0.0
    patience: Patience | None = None
    took_turn = False
    turn_unused = False

    def __init__(
        self, facts: StatementFacts, parameters: Parameters, execute: Execute, *, atomic: bool
    ) -> None:
        self.facts = facts
        self.sql = facts.sql
        self.kind = facts.kind
        self.parameters = parameters
        self.execute = execute
        self.atomic = atomic
