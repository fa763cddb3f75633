"""Alembic on the writer engine: ``pip install 'sa-sqlite-pool[alembic]'``.

::

    await upgrade(db, "head", config="alembic.ini")  # in the application

    from sa_sqlite_pool.migrations import run_env  # in env.py
    from app.models import Base

    run_env(target_metadata=Base.metadata)
"""

try:
    import alembic as _alembic  # noqa: F401
except ImportError as _error:
    raise ImportError(
        "sa_sqlite_pool.migrations needs Alembic: pip install 'sa-sqlite-pool[alembic]'"
    ) from _error

from .commands import check, current, downgrade, stamp, upgrade
from .environment import run_env
from .guard import MigrationError

__all__ = ["MigrationError", "check", "current", "downgrade", "run_env", "stamp", "upgrade"]
