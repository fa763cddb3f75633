"""Door 1: one engine for everything."""

from __future__ import annotations

from ..settings import SWAP_IN_PRAGMAS, Role
from .base import FairPool


class SQLitePool(FairPool):
    """``create_async_engine("sqlite+aiosqlite:///app.db", poolclass=SQLitePool)``

    Connections read without a long transaction, as the stock driver's do. The first statement
    that writes takes the write turn of the file and begins IMMEDIATE; both end at commit or
    rollback. ``execution_options(sqlite_role="writer")`` takes the turn with the first statement,
    whatever it is; ``sqlite_role="reader"`` gives one snapshot and refuses to write.

    The file is switched to WAL with ``synchronous=NORMAL``. Foreign keys are left as the
    application has them; ``pragmas={"foreign_keys": True}`` enforces them.

    Every option of SQLAlchemy's ``QueuePool`` applies. The others are described at
    :class:`~sa_sqlite_pool.pools.base.FairPool`; they go to ``create_async_engine`` as they are.
    """

    role = Role.AUTO
    default_pragmas = SWAP_IN_PRAGMAS
