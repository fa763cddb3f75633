"""What prepare() refuses, with the remedy, and what it accepts; what calls refuse."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    Connection,
    Executable,
    bindparam,
    delete,
    func,
    insert,
    lambda_stmt,
    literal,
    select,
    text,
    union_all,
    update,
)
from sqlalchemy.exc import ArgumentError, StatementError
from sqlalchemy.orm import Bundle, aliased
from sqlalchemy.schema import CreateTable

from sa_sqlite_pool import (
    ClosureError,
    ConfigurationError,
    DatabaseClosedError,
    PreparedRead,
    SQLiteDatabase,
)
from tests.helpers import Base, Item

_BY_ID = select(Item.id, Item.amount).where(Item.id == bindparam("id"))
_ITEMS = Base.metadata.tables["items"]
_READ = select(Item.id)

REFUSED: list[tuple[Any, str]] = [
    (select(Item), r"Item is an entity.*name columns, as in select\(Item.id, Item.name\)"),
    (select(Item.id, aliased(Item, name="other")), "other is an entity"),
    (select(Bundle("pair", Item.id, Item.amount)), "pair is an entity"),
    (union_all(select(Item), select(Item)), "Item is an entity"),
    (select(Item).from_statement(text("SELECT * FROM items")), "give the inner statement"),
    (insert(Item).values(id=7), r"this Insert writes.*db.write\(\)"),
    (update(Item).values(amount=7), "this Update writes"),
    (delete(Item).returning(Item.id), "this Delete writes"),
    (CreateTable(_ITEMS), "CreateTable is not a statement that reads"),
    (select(insert(_ITEMS).values(id=7).returning(_ITEMS.c.id).cte()), "this Select writes"),
    (_READ.add_cte(delete(_ITEMS).cte()), "this Select writes"),
    (_READ.with_for_update(), "locks"),
    (select(func.changes()), "is not known to be read-only"),
    (text("INSERT INTO items (id) VALUES (7)"), "this TextClause writes"),
    (text("DELETE FROM items RETURNING id").columns(Item.id), "this TextualSelect writes"),
    (text("PRAGMA user_version = 7"), "this TextClause writes"),
    (text("BEGIN"), "this TextClause writes"),
    (lambda_stmt(lambda: select(Item.id)), "a lambda: give the statement that it returns"),
    (_READ.where(lambda: Item.id == 7), "a lambda inside"),
    (_READ.execution_options(yield_per=10), r"yield_per.*session.stream\(\)"),
    (_READ.execution_options(stream_results=True), "stream_results"),
    ("SELECT 1", "str is not a statement"),
    (func.now(), r"give a select\(\), a union of them, or a text\(\)"),
    (Item, "is not a statement"),
]


@pytest.mark.parametrize(("statement", "message"), REFUSED, ids=[one for _, one in REFUSED])
async def test_refused_at_once(db: SQLiteDatabase, statement: Any, message: str) -> None:
    """prepare() itself raises an ArgumentError that says what to do."""
    with pytest.raises(ConfigurationError, match=message) as raised:
        db.prepare(statement)
    assert isinstance(raised.value, ArgumentError)


INNOCENT: list[Executable] = [
    select(Item.id, Item.amount),
    select(aliased(Item).id),
    select(_ITEMS),
    select(func.count(Item.id)).select_from(Item),
    select(literal("DELETE FROM items")),
    union_all(select(Item.id), select(Item.amount)),
    text("SELECT 'for update', 1 AS \"insert\""),
    _READ.execution_options(statement_timeout=5, yield_per=None),
]


@pytest.mark.parametrize("statement", INNOCENT, ids=str)
async def test_what_reads_is_let_pass(db: SQLiteDatabase, statement: Executable) -> None:
    """Columns of entities, and texts that look like writes, are accepted."""
    assert await db.prepare(statement).all()


async def test_parameters_that_the_statement_does_not_have(db: SQLiteDatabase) -> None:
    """An ArgumentError lists the existing ones; SQLAlchemy would ignore unknown ones."""
    read = db.prepare(select(Item.id).where(Item.id == bindparam("id", 1)))
    for _ in range(3):
        assert await read.scalars() == [1]
        with pytest.raises(ArgumentError, match="no parameter di; it has: id"):
            await read.scalars(di=2)
        with pytest.raises(ArgumentError, match="no parameter other"):
            await read.one(id=2, other=3)
    with pytest.raises(ArgumentError, match="it has: none"):
        await db.prepare(select(Item.id)).one(id=2)


async def test_parameters_that_a_list_does_not_have(db: SQLiteDatabase) -> None:
    """The same applies if the text is generated for each call."""
    read = db.prepare(select(Item.id).where(Item.id.in_(bindparam("ids"))))
    for _ in range(4):
        assert await read.scalars(ids=[1, 2]) == [1, 2]
        with pytest.raises(ArgumentError, match="no parameter id; it has: ids"):
            await read.scalars(ids=[1, 2], id=3)


async def test_parameters_that_are_missing(db: SQLiteDatabase) -> None:
    """SQLAlchemy's StatementError names the missing one."""
    read = db.prepare(_BY_ID)
    for _ in range(3):
        await read.one(id=1)
        with pytest.raises(StatementError, match="value is required for bind parameter 'id'"):
            await read.one()


async def test_a_default_that_the_same_parameter_has_elsewhere(db: SQLiteDatabase) -> None:
    """It is missing nevertheless, as in SQLAlchemy."""
    between = Item.id >= bindparam("id"), Item.id <= bindparam("id", 3)
    read = db.prepare(select(Item.id).where(*between))
    for _ in range(3):
        assert await read.scalars(id=2) == [2]
        with pytest.raises(StatementError, match="value is required"):
            await read.scalars()


async def test_parameters_of_any_name(db: SQLiteDatabase) -> None:
    """The names may be ``self``, and others that are no identifiers in Python."""
    read: PreparedRead = db.prepare(select(bindparam("self"), bindparam("a b:c")))
    for _ in range(3):
        assert tuple(await read.one(**{"self": 1, "a b:c": 2})) == (1, 2)


async def test_closed_and_not_open(path: Path) -> None:
    """prepare() works before open(); calls are refused before open() and after close()."""
    db = SQLiteDatabase(path)
    read = db.prepare(text("SELECT 1"))
    with pytest.raises(DatabaseClosedError, match="open"):
        await read.scalar()
    async with db:
        for _ in range(3):
            assert await read.scalar() == 1
    with pytest.raises(DatabaseClosedError, match="closed"):
        await read.scalar()


async def test_inside_a_closure(db: SQLiteDatabase) -> None:
    """It is refused, as at the other doors, in any loop."""
    read = db.prepare(_BY_ID)

    def function(_: Connection) -> None:
        asyncio.run(read.one(id=1))

    for _ in range(3):
        assert (await read.one(id=1)).id == 1
        with pytest.raises(ClosureError, match="would wait for itself"):
            await db.run_read_core(function)


async def test_repr(db: SQLiteDatabase) -> None:
    """The repr is a status line: the statement and its parameters."""
    assert repr(db.prepare(_BY_ID)) == (
        "<PreparedRead SELECT items.id, items.amount FROM items WHERE items.id = ?, parameters: id>"
    )
    assert repr(db.prepare(text("SELECT 1"))) == "<PreparedRead SELECT 1, parameters: none>"
