"""Alembic on engines that reuse greenlets."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from sa_sqlite_pool import WriterPool, async_engine_from_config, create_async_engine
from sa_sqlite_pool.migrations import current, upgrade
from tests.migrations.scripts import MODELS, Scripts

CONFIGURE = "target_metadata=target_metadata)"
PAGE = Path(__file__).parents[2] / "docs" / "migrations.md"


def with_our_import() -> str:
    """Return Alembic's own template for asyncio, with one import changed."""
    template = files("alembic").joinpath("templates/async/env.py").read_text()
    theirs = "from sqlalchemy.ext.asyncio import async_engine_from_config"
    ours = "from sa_sqlite_pool import async_engine_from_config"
    assert theirs in template
    return MODELS + template.replace(theirs, ours).replace("    fileConfig", "    pass  # ")


def test_alembic_s_own_template(scripts: Scripts) -> None:
    """It requests NullPool, and gets it."""
    scripts.write_env(with_our_import())
    scripts.alembic("upgrade", "head")
    assert scripts.alembic("current").out == "0001 (head)\n"
    scripts.fill(parents=2, children=4)
    scripts.alembic("downgrade", "base")
    assert scripts.query("SELECT * FROM alembic_version") == []


def on_our_pool(*, transactional_ddl: bool) -> str:
    """Return the same on the pool, with transactional DDL declared, or left to Alembic."""
    env = with_our_import()
    assert env.count(CONFIGURE) == 1
    assert "poolclass=pool.NullPool" in env
    env = env.replace("poolclass=pool.NullPool", "poolclass=SQLitePool")
    if transactional_ddl:
        assert "transactional_ddl=True)" in PAGE.read_text()
        env = env.replace(CONFIGURE, "target_metadata=target_metadata, transactional_ddl=True)")
    return "from sa_sqlite_pool import SQLitePool\n" + env


def test_the_template_on_our_pool(scripts: Scripts) -> None:
    """Revisions are committed one by one, and the log names a table that is never committed."""
    scripts.write_env(on_our_pool(transactional_ddl=False))
    said = scripts.alembic("ensure_version").err
    assert "CREATE TABLE alembic_version on app.db was rolled back" in said
    assert scripts.query("SELECT name FROM sqlite_master") == []
    scripts.add("op.execute('CREATE TABLE halves (x)'); op.execute('wrong')")
    scripts.alembic("upgrade", "head", fails=True)
    assert scripts.query("SELECT * FROM alembic_version") == [("0001",)]
    assert scripts.query("SELECT 1 FROM sqlite_master WHERE name = 'halves'") == []


def test_the_template_with_transactional_ddl(scripts: Scripts) -> None:
    """All revisions of a command are one transaction, and ``ensure_version`` is committed, too."""
    scripts.write_env(on_our_pool(transactional_ddl=True))
    assert "rolled back" not in scripts.alembic("ensure_version").err
    assert scripts.query("SELECT * FROM alembic_version") == []
    scripts.add("op.execute('wrong')")
    before = scripts.state()
    scripts.alembic("upgrade", "head", fails=True)
    assert scripts.state() == before
    scripts.alembic("upgrade", "0001")
    assert scripts.query("SELECT * FROM alembic_version") == [("0001",)]


@pytest.mark.parametrize("from_config", [False, True])
async def test_this_package_s_commands(scripts: Scripts, from_config: bool) -> None:
    """``upgrade()`` in a running loop works with such an engine on a WriterPool, as with any."""
    url = f"sqlite+aiosqlite:///{scripts.database}"
    if from_config:
        engine = async_engine_from_config({"sqlalchemy.url": url}, poolclass=WriterPool)
    else:
        engine = create_async_engine(url, poolclass=WriterPool)
    await upgrade(engine, "head", config=scripts.config)
    assert await current(engine, config=scripts.config) == ("0001",)
    await engine.dispose()
