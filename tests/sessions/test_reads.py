"""Which statements only read, however long they are."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest
from sqlalchemy import (
    delete,
    func,
    insert,
    lambda_stmt,
    literal,
    literal_column,
    select,
    text,
    union_all,
    update,
)
from sqlalchemy.orm import aliased
from sqlalchemy.schema import CreateTable
from sqlalchemy.sql.functions import FunctionElement

from sa_sqlite_pool.sessions.reads import only_reads, text_only_reads
from tests.helpers import Base, Item

chosen = select(Item.id).where(Item.amount == 0).cte("chosen")


moved = delete(Item).where(Item.id == 1).returning(Item.id).cte("moved")


class Nameless(FunctionElement[int]):
    """A function as applications define them, for ``@compiles``."""


READS = [
    select(Item),
    select(func.count()).select_from(Item),
    select(Item).where(Item.id.in_(select(chosen.c.id))),
    union_all(select(Item.id), select(Item.amount)),
    select(Item).from_statement(text("SELECT * FROM items")),
    text("SELECT 1"),
    text("SELECT id FROM items").columns(Item.id),
    text("WITH a AS (SELECT 1) SELECT * FROM a"),
    text("EXPLAIN QUERY PLAN SELECT 1"),
    func.count(literal(1)),
    select(aliased(Item)),
    select(literal_column("'FOR UPDATE'")),
    select(Nameless()),
    text("SELECT changes FROM items"),
    select(text("changes"), literal_column("total_changes")).select_from(Item),
    lambda_stmt(lambda: select(Item.id)) + (lambda found: found.where(Item.id == 1)),
    lambda_stmt(lambda: select(Item).from_statement(text("SELECT * FROM items"))),
]


WRITES = [
    insert(Item).values(id=20),
    update(Item).values(amount=1),
    delete(Item),
    insert(Item).values(id=20).returning(Item),
    select(Item).with_for_update(),
    select(Item).where(Item.id.in_(select(Item.id).with_for_update())),
    select(moved.c.id),
    select(literal(1)).add_cte(moved),
    select(Item).from_statement(update(Item).values(amount=1).returning(Item)),
    text("INSERT INTO items (id, amount) VALUES (20, 0)"),
    text("WITH a AS (SELECT 20 AS id) INSERT INTO items (id, amount) SELECT id, 0 FROM a"),
    text("WITH a AS (DELETE FROM items RETURNING id) SELECT * FROM a"),
    text("SELECT * FROM items FOR UPDATE"),
    text("SELECT * INTO other FROM items"),
    select(func.last_insert_rowid()),
    select(Item.id).where(Item.amount == func.Changes()),
    func.total_changes(),
    select(text("last_insert_rowid()")),
    select(literal_column("changes ()")),
    lambda_stmt(lambda: select(Item).with_for_update()),
    lambda_stmt(lambda: insert(Item).values(id=20)),
    lambda_stmt(lambda: select(Item)) + (lambda found: found.with_for_update()),
    text("SELECT last_insert_rowid()"),
    text("select Changes ( ) FROM items"),
    text("SELECT total_changes/* here */()"),
    text('SELECT "changes"() FROM items'),
    text("PRAGMA user_version = 3"),
    text("UPDATE items SET amount = 1 RETURNING id").columns(Item.id),
    CreateTable(Base.metadata.tables["items"], if_not_exists=True),
    None,
    object(),
]


NO_QUESTIONS = [
    text("SELECT id FROM items -- as last_insert_rowid() does"),
    text("SELECT id /* changes( */ FROM items"),
    text("SELECT 'changes()', changes FROM items"),
    select(text("'what total_changes() says'")),
    select(literal_column("'changes()'")),
    select(Item).where(text("id IN (SELECT id FROM changes) AND 1 IN (2)")),
]


@pytest.mark.parametrize("clause", NO_QUESTIONS)
def test_words_in_quotes_and_comments_call_nothing(clause: object) -> None:
    """A statement with such words may read data of the reader, such as a temp table."""
    assert only_reads(clause)


@pytest.mark.parametrize("clause", READS)
def test_reads_are_known(clause: object) -> None:
    """A statement that only reads may be sent to the reader."""
    assert only_reads(clause)


@pytest.mark.parametrize("clause", WRITES)
def test_everything_else_is_a_write(clause: object) -> None:
    """Statements that write, lock, or are unknown may not, least of all an INSERT after a CTE."""
    assert not only_reads(clause)


def test_quoted_words_do_not_mislead() -> None:
    """Only words outside quotes count."""
    assert text_only_reads("SELECT 'FOR UPDATE', \"into\" FROM items")


LONG = ", ".join(map(str, range(100_000)))


LITERAL = "x" * 5_000_000


LONG_TEXTS = {
    f"SELECT count(*) FROM items WHERE id IN ({LONG})": True,
    f"SELECT length('{LITERAL}') FROM items": False,
    f"SELECT * FROM items WHERE id IN ({LONG}) FOR UPDATE": False,
    f"SELECT * FROM items WHERE id IN ({LONG}) FOR UPDATE /* traced */": False,
    f"SELECT * INTO other FROM items WHERE id IN ({LONG})": False,
    f"SELECT id FROM items WHERE id IN ({LONG}) INTO OUTFILE 'other'": False,
    f"WITH a AS (SELECT '{LITERAL}' AS b) INSERT INTO t (x) SELECT length(b) FROM a": False,
    f"WITH a AS (SELECT '{LITERAL}' AS b) SELECT length(b) FROM a": False,
    f"INSERT INTO items (id) VALUES ({LONG})": False,
    f"/* {LITERAL} */ SELECT id FROM items": False,
    f"DELETE FROM items WHERE id IN (SELECT id FROM items WHERE id IN ({LONG}))": False,
}


@pytest.mark.parametrize("sql", LONG_TEXTS, ids=lambda sql: f"{sql[:30]}…{sql[-20:]}")
def test_a_long_text_is_judged_by_its_ends(sql: str) -> None:
    """If the ends do not decide, the statement is sent to the writer."""
    assert text_only_reads(sql) is LONG_TEXTS[sql]


def test_a_long_text_is_judged_in_bounded_time() -> None:
    """No more of it is examined than of a short one: the interpreter does as much work."""

    def instructions(sql: str) -> int:
        count = 0

        def trace(_frame: FrameType, _event: str, _arg: object) -> Any:
            nonlocal count
            count += 1
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            text_only_reads(sql)
        finally:
            sys.settrace(before)
        return count

    few, many = (",".join(map(str, range(count))) for count in (3_000, 300_000))
    sql = "SELECT * FROM items WHERE id IN ({})"
    assert instructions(sql.format(many)) < 1.1 * instructions(sql.format(few))
