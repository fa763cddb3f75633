"""Alembic on engines that reuse greenlets."""

from __future__ import annotations

from importlib.resources import files

import pytest

from sa_sqlite_pool import WriterPool, async_engine_from_config, create_async_engine
from sa_sqlite_pool.migrations import current, upgrade
from tests.migrations.scripts import MODELS, Scripts


def with_our_import() -> str:
    """Alembic's own template for asyncio, of which one import is changed."""
    template = files("alembic").joinpath("templates/async/env.py").read_text()
    theirs = "from sqlalchemy.ext.asyncio import async_engine_from_config"
    ours = "from sa_sqlite_pool import async_engine_from_config"
    assert theirs in template
    return MODELS + template.replace(theirs, ours).replace("    fileConfig", "    pass  # ")


def test_alembic_s_own_template(scripts: Scripts) -> None:
    """It asks for NullPool, and gets it."""
    scripts.write_env(with_our_import())
    scripts.alembic("upgrade", "head")
    assert scripts.alembic("current").out == "0001 (head)\n"
    scripts.fill(parents=2, children=4)
    scripts.alembic("downgrade", "base")
    assert scripts.query("SELECT * FROM alembic_version") == []


@pytest.mark.parametrize("from_config", [False, True])
async def test_this_package_s_commands(scripts: Scripts, from_config: bool) -> None:
    """``upgrade()`` with such an engine, in a running loop: on a WriterPool, as with any."""
    url = f"sqlite+aiosqlite:///{scripts.database}"
    if from_config:
        engine = async_engine_from_config({"sqlalchemy.url": url}, poolclass=WriterPool)
    else:
        engine = create_async_engine(url, poolclass=WriterPool)
    await upgrade(engine, "head", config=scripts.config)
    assert await current(engine, config=scripts.config) == ("0001",)
    await engine.dispose()
