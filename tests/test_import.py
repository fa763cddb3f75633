"""``import sa_sqlite_pool`` imports only what programs on SQLite use."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sa_sqlite_pool

ON_SERVERS = ("sa_sqlite_pool.servers", "sa_sqlite_pool.copying", "sqlalchemy.dialects.postgresql")
EXTRAS = (
    "alembic",
    "asyncpg",
    "fastapi",
    "opentelemetry",
    "prometheus_client",
    "psycopg",
    "rich",
    "starlette",
    "typer",
)


def imported_by(program: str) -> set[str]:
    """Return the names of all modules that a new process has imported after ``program``."""
    told = subprocess.run(
        [sys.executable, "-c", f"import sys\n{program}\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(sa_sqlite_pool.__file__).parents[1],
    )
    return set(told.stdout.split())


def within(modules: set[str], *packages: str) -> set[str]:
    """Return the ``modules`` that are one of ``packages``, or inside one."""
    return {name for name in modules for one in packages if f"{name}.".startswith(f"{one}.")}


def test_no_server_and_no_extra() -> None:
    """SQLAlchemy's PostgreSQL dialects take as long to import as half the package."""
    modules = imported_by("import sa_sqlite_pool")
    assert within(modules, "sa_sqlite_pool.database")
    assert within(modules, *ON_SERVERS, *EXTRAS) == set()


def test_no_server_with_fastapi() -> None:
    """The dependencies accept both kinds of database, and import only the one in use."""
    pytest.importorskip("fastapi")
    modules = imported_by("import sa_sqlite_pool.integrations.fastapi")
    assert within(modules, "fastapi")
    assert within(modules, *ON_SERVERS) == set()


def test_the_server_when_it_is_asked_for() -> None:
    modules = imported_by("from sa_sqlite_pool import ServerDatabase, copy_to")
    for package in ON_SERVERS:
        assert within(modules, package)


def test_all_names_are_there() -> None:
    """All names are in ``dir()`` and are attributes, whether already imported or not."""
    assert set(sa_sqlite_pool.__all__) <= set(dir(sa_sqlite_pool))
    for name in sa_sqlite_pool.__all__:
        value = getattr(sa_sqlite_pool, name)
        assert value is getattr(sa_sqlite_pool, name)
    with pytest.raises(AttributeError, match="module 'sa_sqlite_pool' has no attribute 'nothing'"):
        # mypy finds it, too; it would not if it considered __getattr__().
        sa_sqlite_pool.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_a_type_checker_is_told_where_they_are() -> None:
    """The imports under TYPE_CHECKING are those that ``__getattr__`` executes."""
    tree = ast.parse(Path(sa_sqlite_pool.__file__).read_text())
    checked = next(node for node in tree.body if isinstance(node, ast.If))
    told = {
        alias.name: node.module
        for node in checked.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert told == sa_sqlite_pool._ON_SERVERS
