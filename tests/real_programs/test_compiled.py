"""A program that Nuitka has compiled to C, with the package, as bots and tools are shipped."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(importlib.util.find_spec("nuitka") is None, reason="of Nuitka"),
]

PROGRAM = """
import asyncio
import sys

import sqlalchemy.ext.asyncio
from sqlalchemy import func, insert, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import sa_sqlite_pool
from sa_sqlite_pool import SQLiteDatabase, SQLitePool


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    amount: Mapped[int]


COUNT = select(func.count()).select_from(Item)


async def write(db, amount):
    async with db.write() as session:
        session.add(Item(amount=amount))
    async with db.read() as session:
        return (await session.get(Item, 1)).amount


async def use_facade(path):
    async with SQLiteDatabase(path) as db:
        async with db.writer_engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with db.write() as session:
            session.add(Item(amount=42))
        assert await asyncio.gather(*(write(db, n) for n in range(9))) == [42] * 9
        await db.run_write(lambda session: session.add(Item(amount=1)))
        assert await db.run_read(lambda session: session.scalar(COUNT)) == 11
        assert await db.prepare(select(Item.id).where(Item.id == 1)).scalar() == 1
        async with db.write() as session:
            session.add(Item(amount=1))
            await session.flush()
            holder = db.statistics().turn.holder
            assert holder is not None and "program.py" in holder.now_at, holder


async def use_engine(engine):
    async with engine.begin() as connection:
        await connection.execute(insert(Item), {"amount": 1})
    async with engine.connect() as connection:
        async with connection.stream(select(Item.amount)) as rows:
            count = len([row async for row in rows])
    await engine.dispose()
    return count


async def main(path):
    await use_facade(path)
    url = f"sqlite+aiosqlite:///{path}"
    theirs = sqlalchemy.ext.asyncio.create_async_engine
    print(await use_engine(sa_sqlite_pool.create_async_engine(url)))
    print(await use_engine(theirs(url, poolclass=SQLitePool)))
    sa_sqlite_pool.install()
    print(await use_engine(theirs(url, poolclass=SQLitePool)))


asyncio.run(main(sys.argv[1]))
"""


def test_a_compiled_program(tmp_path: Path, path: Path) -> None:
    """Each door works, and messages name the program's file."""
    (tmp_path / "program.py").write_text(PROGRAM)
    compiling = [sys.executable, "-m", "nuitka", "--follow-import-to=sa_sqlite_pool", "--lto=no"]
    subprocess.run(
        [*compiling, "--assume-yes-for-downloads", "--output-filename=program.bin", "program.py"],
        cwd=tmp_path,
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=1800,
    )
    ran = subprocess.run(
        [tmp_path / "program.bin", path], check=False, capture_output=True, text=True, timeout=60
    )
    assert (ran.stdout, ran.stderr) == ("13\n14\n15\n", "")
