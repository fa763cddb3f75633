"""Fair writers, free readers and warm connections for SQLAlchemy asyncio on SQLite."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .backup.restoring import restore
from .compat.installation import install, uninstall
from .database import SQLiteDatabase
from .errors import (
    AwaitableError,
    ClosureError,
    CommitUnknownError,
    ConfigurationError,
    CopyError,
    DamagedDatabaseError,
    DatabaseClosedError,
    DatabaseInUseError,
    DatabaseNotUsableError,
    ForbiddenWriteError,
    NotADatabaseError,
    OpenReadError,
    OwnLockError,
    PoolTimeout,
    ReadLockTimeout,
    ReadTimeout,
    SessionEndedError,
    SnapshotTooOldError,
    StaleReadError,
    StatementTimeout,
    TransactionLostError,
    TurnAlreadyHeldError,
    WriteTimeout,
)
from .freshness import Seen
from .pools.impl import ReaderPool, SQLitePool, WriterPool
from .pools.statistics import statistics
from .prepared.read import PreparedRead
from .sessions.drop_in import async_engine_from_config, create_async_engine, reuse_greenlets
from .sessions.maker import routing_sessionmaker
from .sessions.routing import RoutedAsyncSession, RoutedSession
from .settings import WalSettings
from .stats.database import DatabaseStatistics, FunctionsStatistics
from .stats.engines import (
    ConnectionsStatistics,
    EngineStatistics,
    StatementsStatistics,
    TextStatistics,
    TransactionsStatistics,
)
from .stats.lines import Holder, TurnStatistics, Waits
from .stats.log import (
    Checkpoint,
    CheckpointMode,
    CheckpointOutcome,
    CheckpointsStatistics,
    GapsStatistics,
    ReaderStatistics,
    WalStatistics,
)

if TYPE_CHECKING:
    from .copying.api import copy_to
    from .copying.misfits import Misfit, Misfits
    from .copying.report import CopiedTable, CopyReport, MisfitsError
    from .servers.database import ServerDatabase
    from .stats.servers import ServerDatabaseStatistics, ServerStatistics

# To type checkers these are SQLAlchemy's own classes, so that a function annotated with one name
# accepts what was created by the other, and the facade's sessions. As subclasses they would differ:
# `async_sessionmaker` is invariant, and engines are declared to return SQLAlchemy's connections.
if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import (
        AsyncConnection,
        AsyncEngine,
        AsyncSession,
        async_scoped_session,
        async_sessionmaker,
    )
else:
    from .sessions.drop_in import (
        AsyncConnection,
        AsyncEngine,
        AsyncSession,
        async_scoped_session,
        async_sessionmaker,
    )

__all__ = [
    "AsyncConnection",
    "AsyncEngine",
    "AsyncSession",
    "AwaitableError",
    "Checkpoint",
    "CheckpointMode",
    "CheckpointOutcome",
    "CheckpointsStatistics",
    "ClosureError",
    "CommitUnknownError",
    "ConfigurationError",
    "ConnectionsStatistics",
    "CopiedTable",
    "CopyError",
    "CopyReport",
    "DamagedDatabaseError",
    "DatabaseClosedError",
    "DatabaseInUseError",
    "DatabaseNotUsableError",
    "DatabaseStatistics",
    "EngineStatistics",
    "ForbiddenWriteError",
    "FunctionsStatistics",
    "GapsStatistics",
    "Holder",
    "Misfit",
    "Misfits",
    "MisfitsError",
    "NotADatabaseError",
    "OpenReadError",
    "OwnLockError",
    "PoolTimeout",
    "PreparedRead",
    "ReadLockTimeout",
    "ReadTimeout",
    "ReaderPool",
    "ReaderStatistics",
    "RoutedAsyncSession",
    "RoutedSession",
    "SQLiteDatabase",
    "SQLitePool",
    "Seen",
    "ServerDatabase",
    "ServerDatabaseStatistics",
    "ServerStatistics",
    "SessionEndedError",
    "SnapshotTooOldError",
    "StaleReadError",
    "StatementTimeout",
    "StatementsStatistics",
    "TextStatistics",
    "TransactionLostError",
    "TransactionsStatistics",
    "TurnAlreadyHeldError",
    "TurnStatistics",
    "Waits",
    "WalSettings",
    "WalStatistics",
    "WriteTimeout",
    "WriterPool",
    "async_engine_from_config",
    "async_scoped_session",
    "async_sessionmaker",
    "copy_to",
    "create_async_engine",
    "install",
    "restore",
    "reuse_greenlets",
    "routing_sessionmaker",
    "statistics",
    "uninstall",
]

__version__ = "0.1.0"

# Names that only programs on PostgreSQL use, and their modules, which are imported at first use.
# SQLAlchemy's PostgreSQL dialects alone take as long to import as half of this package.
_ON_SERVERS = {
    "CopiedTable": "copying.report",
    "CopyReport": "copying.report",
    "Misfit": "copying.misfits",
    "Misfits": "copying.misfits",
    "MisfitsError": "copying.report",
    "ServerDatabase": "servers.database",
    "ServerDatabaseStatistics": "stats.servers",
    "ServerStatistics": "stats.servers",
    "copy_to": "copying.api",
}

if not TYPE_CHECKING:  # otherwise a type checker would accept any name as one of this module

    def __getattr__(name: str) -> Any:
        """Import ``name`` if it is one of ``_ON_SERVERS`` (PEP 562)."""
        if name not in _ON_SERVERS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f".{_ON_SERVERS[name]}", __name__), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_ON_SERVERS})
