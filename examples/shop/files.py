"""The shop on a SQLite file."""

from __future__ import annotations

import shutil
from pathlib import Path

from sqlalchemy import URL

from .app import Settings
from .books import Books, check_file
from .results import LoadResult
from .runs import Contender, Load
from .seed import Seeded
from .stores import EngineKind


def sqlite_file(kind: EngineKind, template: Path, seeded: Seeded, load: Load) -> Contender:
    """An engine on a copy of its own, so that all start from the same file."""
    database = Path(shutil.copyfile(template, template.with_name(f"{kind.value}.db")))

    def audit(told: LoadResult) -> Books:
        return check_file(database, seeded.orders, told)

    url = URL.create("sqlite+aiosqlite", database=str(database))
    return Contender(
        kind.value,
        Settings(url, kind),
        database.with_suffix(".log"),
        load,
        audit,
        may_fail=kind is EngineKind.STOCK,
    )
