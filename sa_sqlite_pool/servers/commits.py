"""Note where commits are in the primary's log, for the ``fresh()`` block around the task."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Dialect, Engine

from ..freshness import BEYOND_ALL, seen_by
from .drivers import Driver, driver_of
from .pool import ServerPool
from .positions import position_of_commit
from .server import PRIMARY


def note_commits(engine: Engine, owner: object) -> None:
    """Have the dialect of a writer's ``engine`` ask after each COMMIT where that is in the log.

    Only within a ``fresh()`` block of ``owner``. The question is the next thing after COMMIT has
    returned, on the same connection, so it does not depend on listeners of the application.
    """
    dialect, driver = engine.dialect, driver_of(engine.dialect)
    commit, rollback = dialect.do_commit, dialect.do_rollback

    def do_commit(proxied: Any) -> None:
        commit(proxied)
        _note_commit(driver, owner, engine, proxied)

    def do_rollback(proxied: Any) -> None:
        rollback(proxied)
        if (seen := seen_by(owner)) is not None:
            seen.note_read(PRIMARY)  # what it has read there

    _replace(dialect, do_commit=do_commit, do_rollback=do_rollback)


def _note_commit(driver: Driver, owner: object, engine: Engine, proxied: Any) -> None:
    seen = seen_by(owner)
    if seen is None:
        return
    covered = dict(seen.read_from)
    try:
        position = position_of_commit(driver, proxied.dbapi_connection)
    except Exception:  # it is committed all the same: to raise here would say that it is not
        position = BEYOND_ALL
        proxied.invalidate()
    else:
        pool = engine.pool
        assert isinstance(pool, ServerPool)
        pool.servers[-1].note_position(position)
    seen.note_position(position, covered)


def _replace(dialect: Dialect, **methods: Any) -> None:
    for name, method in methods.items():
        setattr(dialect, name, method)
