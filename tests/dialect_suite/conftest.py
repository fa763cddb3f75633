"""SQLAlchemy's pytest plugin, configured to open every engine of the suite through the same door.

`tests/test_dialect_suite.py` starts pytest in this directory; the plugin takes over the whole run,
so the project's own run never uses this file.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, make_url

pytest.register_assert_rewrite("sqlalchemy.testing.assertions")

from sqlalchemy.testing import config  # noqa: E402
from sqlalchemy.testing.plugin import pytestplugin  # noqa: E402
from sqlalchemy.testing.plugin.pytestplugin import *  # noqa: E402, F403

POOLS_SEEN: set[str] = set()


@event.listens_for(Engine, "engine_connect")
def note_pool(connection: Connection) -> None:
    """Record the pool of each connection that a test opens."""
    POOLS_SEEN.add(type(connection.engine.pool).__name__)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Start as the plugin does; then make the engines of single tests use `?plugin=`, too.

    The suite makes those engines from `config.db.url`, and `create_engine()` takes the `plugin`
    out of the URL that the engine keeps.
    """
    query = make_url(session.config.option.dburi[0]).query
    pytestplugin.pytest_sessionstart(session)
    config.db.url = config.db.url.set(query=query)


@pytest.fixture(scope="session", autouse=True)
def report_pools(record_testsuite_property: Any) -> Iterator[None]:
    """Add the pools that were used to the JUnit report."""
    yield
    record_testsuite_property("pools", " ".join(sorted(POOLS_SEEN)))
