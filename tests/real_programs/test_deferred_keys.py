"""Foreign keys that are checked at COMMIT, for one transaction."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from .doors import Application, Door, is_locked

DEFER = "PRAGMA defer_foreign_keys = ON"


async def opened(door: Door) -> Application:
    app = await door.open(on_connect=lambda raw: raw.execute("PRAGMA foreign_keys = ON"))
    await app.write(
        "CREATE TABLE parent (id INTEGER PRIMARY KEY)",
        "CREATE TABLE child (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parent)",
    )
    return app


async def test_children_before_their_parents(changing: Door) -> None:
    """The PRAGMA applies to the writes after it, even as the first statement."""
    app = await opened(changing)
    async with app.enter() as connection:
        await connection.execute(text(DEFER))
        await connection.execute(text("INSERT INTO child VALUES (1, 7)"))
        await connection.execute(text("INSERT INTO parent VALUES (7)"))
        await connection.commit()
    assert await app.value("SELECT count(*) FROM child") == 1


async def test_it_is_in_force_until_the_end(changing: Door) -> None:
    """COMMIT checks them, and the next transaction's are checked immediately again."""
    app = await opened(changing)
    async with app.enter() as connection:
        await connection.execute(text(DEFER))
        await connection.execute(text("INSERT INTO child VALUES (1, 7)"))
        with pytest.raises(IntegrityError):
            await connection.commit()
        await connection.rollback()
    async with app.enter() as connection:
        with pytest.raises(IntegrityError):
            await connection.execute(text("INSERT INTO child VALUES (1, 7)"))
        await connection.rollback()
    assert not is_locked(app.path)


async def test_within_a_savepoint(changing: Door) -> None:
    """The same applies after a savepoint; stock has no transaction around that."""
    app = await opened(changing)
    if changing.stock:
        return
    async with app.enter() as connection:
        async with connection.begin_nested():
            await connection.execute(text(DEFER))
            await connection.execute(text("INSERT INTO child VALUES (1, 7)"))
        await connection.execute(text("INSERT INTO parent VALUES (7)"))
        await connection.commit()
    assert await app.value("SELECT count(*) FROM child") == 1


async def test_asking_takes_no_turn(door: Door) -> None:
    """Whether they are deferred is only a query, which locks nothing."""
    app = await opened(door)
    async with app.reader.connect() as connection:
        await connection.execute(text("PRAGMA defer_foreign_keys"))
        assert not is_locked(app.path)
