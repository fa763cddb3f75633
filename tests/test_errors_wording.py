"""The wording of messages."""

from __future__ import annotations

from uuid import UUID

import pytest
from sqlalchemy import MetaData
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool

from sa_sqlite_pool.errors import a_type


@pytest.mark.parametrize(
    ("thing", "named"),
    [
        (object(), "an object"),
        (1, "an int"),
        (UUID(int=0), "a UUID"),
        (MetaData(), "a MetaData"),
        (None, "a NoneType"),
        (AsyncAdaptedQueuePool.__new__(AsyncAdaptedQueuePool), "an AsyncAdaptedQueuePool"),
        (NullPool.__new__(NullPool), "a NullPool"),
    ],
)
def test_types_have_their_article(thing: object, named: str) -> None:
    assert a_type(thing) == named
