"""Alembic on the writer engine: ``pip install 'sa-sqlite-pool[alembic]'``.

::

    await upgrade(db, "head", config="alembic.ini")  # in the application

    from sa_sqlite_pool.migrations import run_env  # in env.py
    from app.models import Base

    run_env(target_metadata=Base.metadata)
"""

from ..extras import imports_of_extra as _imports_of_extra

with _imports_of_extra("alembic", __name__):
    import alembic as _alembic  # noqa: F401

from .commands import check, current, downgrade, stamp, upgrade
from .environment import run_env
from .guard import MigrationError

__all__ = ["MigrationError", "check", "current", "downgrade", "run_env", "stamp", "upgrade"]
