"""Fair writers, free readers and warm connections for SQLAlchemy asyncio on SQLite."""

from .database import SQLiteDatabase
from .driver.checkpoints import Checkpoint, CheckpointMode, CheckpointOutcome
from .errors import (
    AwaitableError,
    ClosureError,
    ConfigurationError,
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
from .pools.reader import ReaderPool
from .pools.swap_in import SQLitePool
from .pools.writer import WriterPool
from .restoring import restore
from .sessions.maker import routing_sessionmaker
from .sessions.routing import RoutedAsyncSession, RoutedSession
from .settings import WalSettings
from .statistics import DatabaseStatistics, ReaderStatistics, WalStatistics

__all__ = [
    "AwaitableError",
    "Checkpoint",
    "CheckpointMode",
    "CheckpointOutcome",
    "ClosureError",
    "ConfigurationError",
    "DamagedDatabaseError",
    "DatabaseClosedError",
    "DatabaseInUseError",
    "DatabaseNotUsableError",
    "DatabaseStatistics",
    "ForbiddenWriteError",
    "NotADatabaseError",
    "OpenReadError",
    "OwnLockError",
    "PoolTimeout",
    "ReadLockTimeout",
    "ReadTimeout",
    "ReaderPool",
    "ReaderStatistics",
    "RoutedAsyncSession",
    "RoutedSession",
    "SQLiteDatabase",
    "SQLitePool",
    "SessionEndedError",
    "SnapshotTooOldError",
    "StaleReadError",
    "StatementTimeout",
    "TransactionLostError",
    "TurnAlreadyHeldError",
    "WalSettings",
    "WalStatistics",
    "WriteTimeout",
    "WriterPool",
    "restore",
    "routing_sessionmaker",
]

__version__ = "0.1.0"
