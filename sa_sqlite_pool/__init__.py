"""Fair writers, free readers and warm connections for SQLAlchemy asyncio on SQLite."""

from .database import SQLiteDatabase
from .errors import (
    ConfigurationError,
    DatabaseClosedError,
    DatabaseNotUsableError,
    ForbiddenWriteError,
    NotADatabaseError,
    PoolTimeout,
    ReadTimeout,
    StaleReadError,
    StatementTimeout,
    TransactionLostError,
    TurnAlreadyHeldError,
    WriteTimeout,
)
from .pools.reader import ReaderPool
from .pools.swap_in import SQLitePool
from .pools.writer import WriterPool
from .sessions.routing import RoutedAsyncSession, RoutedSession, routing_sessionmaker

__all__ = [
    "ConfigurationError",
    "DatabaseClosedError",
    "DatabaseNotUsableError",
    "ForbiddenWriteError",
    "NotADatabaseError",
    "PoolTimeout",
    "ReadTimeout",
    "ReaderPool",
    "RoutedAsyncSession",
    "RoutedSession",
    "SQLiteDatabase",
    "SQLitePool",
    "StaleReadError",
    "StatementTimeout",
    "TransactionLostError",
    "TurnAlreadyHeldError",
    "WriteTimeout",
    "WriterPool",
    "routing_sessionmaker",
]

__version__ = "0.1.0"
