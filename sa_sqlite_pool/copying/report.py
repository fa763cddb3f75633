"""What a copy reports: its progress, and its result."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..errors import CopyError
from .columns.base import Kind
from .misfits import Misfits, headline


class Phase(str, enum.Enum):
    """The phase that a copy is in."""

    SNAPSHOT = "snapshot"
    CHECK = "check"
    COPY = "copy"
    FINISH = "finish"
    VERIFY = "verify"


Progress = Callable[[str, int, int], object]
"""``progress(phase, done, total)``: in rows, but in pages for ``"snapshot"``."""


@dataclass(frozen=True, slots=True)
class CopiedTable:
    """One table: the number of its rows, and the seconds that they took; zero after a dry run."""

    name: str
    rows: int
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What was copied, or would be after a ``dry_run``.

    ``seconds`` has the duration of each phase. ``warnings`` are sentences about what is in the file
    and was not copied. ``revisions`` are the file's Alembic revisions, now also the server's.
    ``misfits`` is empty unless the copy was refused: see :class:`~sa_sqlite_pool.MisfitsError`.
    """

    tables: Sequence[CopiedTable]
    seconds: dict[str, float]
    warnings: Sequence[str] = ()
    revisions: Sequence[str] = ()
    misfits: Sequence[Misfits] = ()
    dry_run: bool = False

    @property
    def rows(self) -> int:
        """The number of rows in all tables."""
        return sum(table.rows for table in self.tables)


class MisfitsError(CopyError):
    """Values of the file do not fit into the tables of the models. Nothing was copied.

    Or PostgreSQL does not accept the models, or already has different tables. ``report.misfits``
    contains all of it by table, column and kind.
    """

    def __init__(self, report: CopyReport) -> None:
        self.report = report
        lines = [
            f"  {group.place}: {group.kind}, {group.total:,}; the first: {group.first[0]}"
            for group in report.misfits
        ]
        advice = "Correct them in the file, or widen the columns in the models:"
        if any(group.kind == Kind.SCHEMA.value for group in report.misfits):
            advice = "Correct the models, or the file:"
        text = f"{headline(report.misfits)}; nothing was copied. {advice}"
        super().__init__("\n".join([text, *lines]))

    def __reduce__(self) -> tuple[type[MisfitsError], tuple[CopyReport]]:
        return type(self), (self.report,)
