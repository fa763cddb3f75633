"""The reader engine's pool."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import ReadTimeout
from ..settings import Role, check_count
from .base import FairPool

DEFAULT_READERS = 4


class ReaderPool(FairPool):
    """A few connections that read, each transaction one snapshot, and cannot write.

    ``create_async_engine(url, poolclass=ReaderPool, pool_size=4)``. Those that find all
    connections lent wait in order of arrival, at most ``pool_timeout`` (by default
    ``read_timeout``) seconds, and then get a :class:`~sa_sqlite_pool.ReadTimeout`; with None, they
    wait as long as it takes.

    The file is opened with ``mode=ro``, and what that lets through (ATTACH, VACUUM INTO, settings
    of the file) SQLite's authorizer refuses. Temp tables are allowed.
    """

    role = Role.READER
    timeout_error = ReadTimeout

    def __init__(
        self,
        creator: Callable[..., Any],
        pool_size: int = DEFAULT_READERS,
        max_overflow: int = 0,
        **kw: Any,
    ) -> None:
        check_count("the number of readers", pool_size)
        super().__init__(creator, pool_size=pool_size, max_overflow=max_overflow, **kw)
