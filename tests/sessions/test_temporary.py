"""Temp tables of an auto session: they belong to its reader's connection, and take no turn."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import (
    Column,
    DDLElement,
    ForeignKey,
    Integer,
    MetaData,
    Table,
    TextClause,
    delete,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import InvalidRequestError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.schema import CreateIndex, CreateTable, DropTable, Index

from sa_sqlite_pool import (
    OpenReadError,
    ReaderPool,
    SQLiteDatabase,
    WriterPool,
    routing_sessionmaker,
)
from sa_sqlite_pool.sessions.temp_tables import Target, target_of, target_of_text
from tests.conftest import MakeEngine
from tests.helpers import Item, create_items, turn_of
from tests.sessions.beside import Heard, Maker

chosen = Table(
    "chosen", MetaData(), Column("id", Integer, primary_key=True), prefixes=["TEMPORARY"]
)


pytestmark = pytest.mark.sqlite


class Scratch(DeclarativeBase):
    pass


class Chosen(Scratch):
    __tablename__ = "chosen"
    id: Mapped[int] = mapped_column(primary_key=True)


# -- the target of a statement ---------------------------------------------------------------------

TARGETS: dict[str, Target | None] = {
    "CREATE TEMP TABLE a (b)": Target("CREATE", "a", True),
    "create temporary table if not exists A (b)": Target("CREATE", "a", True),
    "/* why */ CREATE -- so\n TEMP TABLE temp.a AS SELECT 1": Target("CREATE", "a", True),
    "CREATE TABLE temp.a (b)": Target("CREATE", "a", True),
    'CREATE TABLE "temp"."a ""b" (b)': Target("CREATE", 'a "b', True),
    "CREATE TEMP VIEW [a b] AS SELECT 1": Target("CREATE", "a b", True),
    "CREATE TEMP TRIGGER a AFTER INSERT ON b BEGIN SELECT 1; END": Target("CREATE", "a", True, "b"),
    'CREATE TRIGGER a BEFORE UPDATE OF "on" ON b BEGIN SELECT 1; END': Target(
        "CREATE", "a", False, "b"
    ),
    "CREATE TRIGGER a AFTER INSERT ON temp.b BEGIN SELECT 1; END": Target("CREATE", "a", True, "b"),
    "CREATE TRIGGER a AFTER INSERT ON main.b BEGIN SELECT 1; END": Target("CREATE", "a", False),
    "ANALYZE a": Target("ANALYZE", "a", False),
    "ANALYZE temp": Target("ANALYZE", "temp", True),
    "REINDEX temp.a": Target("REINDEX", "a", True),
    "ANALYZE main.a": None,
    "ANALYZE": None,
    "CREATE VIRTUAL TABLE temp.a USING fts5(b)": Target("CREATE", "a", True),
    "CREATE UNIQUE INDEX temp.i ON a (b)": Target("CREATE", "i", True, "a"),
    "CREATE INDEX i ON `a` (b)": Target("CREATE", "i", False, "a"),
    "CREATE TABLE a (b)": Target("CREATE", "a", False),
    "CREATE TABLE main.a (b)": None,
    "INSERT INTO a VALUES (1)": Target("INSERT", "a", False),
    "INSERT OR IGNORE INTO temp.a (b) SELECT 1": Target("INSERT", "a", True),
    "REPLACE INTO a VALUES (1)": Target("REPLACE", "a", False),
    "UPDATE OR IGNORE a SET b = 1": Target("UPDATE", "a", False),
    "DELETE FROM a": Target("DELETE", "a", False),
    "DELETE FROM main.a": None,
    "WITH x AS (DELETE FROM y RETURNING 1) INSERT INTO a SELECT * FROM x": Target(
        "INSERT", "a", False
    ),
    "WITH x AS (SELECT 1) SELECT * FROM x": None,
    "DROP TABLE IF EXISTS temp.a": Target("DROP", "a", True),
    "DROP INDEX i": Target("DROP", "i", False),
    "ALTER TABLE a ADD COLUMN c": Target("ALTER", "a", False),
    'ALTER TABLE temp.a RENAME TO "B"': Target("ALTER", "a", True, new_name="b"),
    "ALTER TABLE a RENAME COLUMN b TO c": Target("ALTER", "a", False),
    "ALTER TABLE a RENAME b TO c": Target("ALTER", "a", False),
    "DROP": None,
    "CREATE TEMP": None,
    "INSERT": None,
    "": None,
    "VACUUM": None,
    "SELECT 1": None,
}


@pytest.mark.parametrize("sql", TARGETS)
def test_what_a_text_is_about(sql: str) -> None:
    """It is parsed like in SQLite: quoted names, comments, WITH, and explicit schemas."""
    assert target_of_text(sql) == TARGETS[sql]


@pytest.mark.parametrize(
    ("clause", "expected"),
    [
        (CreateTable(chosen), Target("CREATE", "chosen", True)),
        (DropTable(chosen), Target("DROP", "chosen", False)),
        (CreateIndex(Index("i", chosen.c.id)), Target("CREATE", "i", False, "chosen")),
        (insert(chosen), Target("INSERT", "chosen", False)),
        (update(chosen), Target("UPDATE", "chosen", False)),
        (delete(chosen), Target("DELETE", "chosen", False)),
        (
            text("DELETE FROM chosen RETURNING id").columns(chosen.c.id),
            Target("DELETE", "chosen", False),
        ),
        (insert(Table("x", MetaData(), schema="temp")), Target("INSERT", "x", True)),
        (insert(Table("x", MetaData(), schema="other")), None),
        (select(chosen), None),
        (None, None),
        (object(), None),
    ],
)
def test_what_a_construct_is_about(clause: object, expected: Target | None) -> None:
    """DDL is judged by the text that is sent, DML by its table."""
    assert target_of(clause, sqlite.dialect()) == expected


def test_ddl_that_cannot_be_compiled_is_about_nothing() -> None:
    """It fails when it is executed."""

    class Unknown(DDLElement):
        pass

    dangling = Table("a", MetaData(), Column("b", ForeignKey("c.d")))
    for clause in (Unknown(), CreateTable(dangling)):
        assert target_of(clause, sqlite.dialect()) is None


# -- in a session ----------------------------------------------------------------------------------


async def test_a_scratch_table_takes_no_turn(maker: Maker, heard: Heard, path: Path) -> None:
    """It is created, filled, indexed, joined and dropped beside a writer, in one snapshot."""
    async with maker(role="writer") as other, maker() as session:
        await other.execute(update(Item).values(amount=1))
        await session.execute(text("CREATE TEMP TABLE chosen (id INTEGER PRIMARY KEY)"))
        await session.execute(text("CREATE INDEX by_id ON chosen (id)"))
        await session.execute(text("INSERT INTO chosen SELECT id FROM items WHERE id > 1"))
        await session.execute(text("ANALYZE chosen"))
        await session.execute(
            text("CREATE TRIGGER small AFTER UPDATE ON chosen BEGIN SELECT 1; END")
        )
        await session.execute(text("UPDATE chosen SET id = id + 10"))
        await session.execute(text("DELETE FROM chosen WHERE id = 13"))
        await session.execute(text("CREATE TEMP VIEW seen AS SELECT id FROM chosen"))
        assert list(await session.scalars(text("SELECT id FROM seen"))) == [12]
        await session.execute(text("DROP VIEW seen"))
        await session.execute(text("DROP INDEX by_id"))
        await session.execute(text("DROP TABLE temp.chosen"))
        assert turn_of(path).waiting == 0
        assert heard.of("writer") == ["begin", "UPDATE"]


async def test_a_new_name(maker: Maker, heard: Heard) -> None:
    """From then on the table has the new name, and one with the old name is another table."""
    async with maker() as session:
        await session.execute(text("CREATE TEMP TABLE items (id INTEGER PRIMARY KEY)"))
        await session.execute(text("ALTER TABLE items RENAME TO chosen"))
        await session.execute(text("INSERT INTO chosen VALUES (7)"))
        assert list(await session.scalars(text("SELECT id FROM chosen"))) == [7]
        assert heard.of("writer") == []
        await session.execute(text("INSERT INTO items (id, amount) VALUES (9, 9)"))
        assert heard[-1] == "writer: INSERT"


async def test_constructs_and_mapped_classes(maker: Maker, heard: Heard) -> None:
    """DDL with prefixes, DML, bulk DML of the ORM and a flush find the table where it is."""
    async with maker() as session:
        await session.execute(CreateTable(chosen))
        await session.execute(insert(chosen), [{"id": 1}, {"id": 2}])
        await session.execute(insert(Chosen), [{"id": 3}])
        session.add(Chosen(id=4))
        await session.flush()
        async with session.begin_nested():
            await session.execute(update(chosen).where(chosen.c.id == 1).values(id=5))
        rows = select(Item.id).join(chosen, chosen.c.id == Item.id)
        assert list(await session.scalars(rows)) == [2, 3]
        await session.execute(delete(Chosen).where(Chosen.id == 2))
        assert list(await session.scalars(rows)) == [3]
        await session.execute(DropTable(chosen))
        assert heard.of("writer") == []


async def test_it_ends_with_the_transaction(maker: Maker) -> None:
    """The next session that uses the connection finds nothing of it."""
    for _ in range(3):
        async with maker() as session:
            await session.execute(CreateTable(chosen))
            await session.execute(insert(chosen), [{"id": 1}])
            await session.commit()
            with pytest.raises(OperationalError, match="no such table: chosen"):
                await session.execute(select(chosen))


async def test_what_is_no_temp_table_goes_to_the_writer(maker: Maker, heard: Heard) -> None:
    """This holds beside a temp table, too, and for any name."""
    async with maker() as session:
        await session.execute(CreateTable(chosen))
        await session.execute(text("INSERT INTO items (id, amount) VALUES (9, 9)"))
        assert heard[-1] == "writer: INSERT"
    async with maker() as session:
        await session.execute(text("CREATE TABLE chosen (id INTEGER PRIMARY KEY)"))
        await session.execute(insert(chosen), [{"id": 1}])
        assert heard.of("writer")[-2:] == ["CREATE", "INSERT"]


async def test_created_after_the_first_write_it_is_the_writers(maker: Maker, heard: Heard) -> None:
    """So is everything else then, and it can be filled with the session's own writes."""
    async with maker() as session:
        await session.execute(update(Item).values(amount=2))
        await session.execute(CreateTable(chosen))
        await session.execute(text("INSERT INTO chosen SELECT id FROM items WHERE amount = 2"))
        assert len((await session.scalars(select(chosen))).all()) == 3
        await session.rollback()
        assert heard.of("reader") == []


@pytest.mark.parametrize(
    "use",
    [
        select(chosen),
        text("SELECT * FROM Chosen"),
        text("SELECT id FROM chosen").columns(chosen.c.id),
        select(Item).join(chosen, chosen.c.id == Item.id),
        insert(chosen).values(id=2),
        text("INSERT INTO items (id, amount) SELECT id + 10, 0 FROM chosen"),
    ],
)
async def test_after_the_first_write_the_readers_is_out_of_reach(
    maker: Maker, heard: Heard, use: object
) -> None:
    """The error says so, as the reader would not see the writes; the table can be dropped."""
    async with maker() as session:
        await session.execute(CreateTable(chosen))
        await session.execute(insert(chosen), [{"id": 1}])
        await session.execute(update(Item).values(amount=2))
        with pytest.raises(InvalidRequestError, match=r"'chosen' belongs to the reader.*role="):
            await session.execute(use)  # type: ignore[call-overload]
        assert list(await session.scalars(select(Item.amount))) == [2, 2, 2]
        await session.execute(text("DROP TABLE chosen"))
        assert heard[-1] == "reader: DROP"
        await session.execute(CreateTable(chosen))
        await session.execute(insert(chosen), [{"id": 1}])
        assert heard[-1] == "writer: INSERT"


@pytest.mark.parametrize(
    "write",
    [
        text("INSERT INTO items (id, amount) SELECT id + 10, 0 FROM chosen"),
        text("DELETE FROM items WHERE id IN (SELECT id FROM items, chosen)"),
        text("WITH c AS (SELECT 1) UPDATE items SET amount = 0 WHERE id IN chosen"),
        text('UPDATE items SET amount = 0 FROM "chosen" WHERE 1'),
        delete(Item).where(Item.id.in_(select(chosen.c.id))),
        insert(Item).from_select(["id"], select(chosen.c.id + 10)),
    ],
)
async def test_the_first_write_does_not_see_it(maker: Maker, write: object) -> None:
    """The error says so, even if it shadows a table of that name; nothing is written."""
    async with maker() as session:
        await session.execute(CreateTable(chosen))
        await session.execute(insert(chosen), [{"id": 1}])
        with pytest.raises(InvalidRequestError, match=r"'chosen' belongs to the reader.*role="):
            await session.execute(write)  # type: ignore[call-overload]
        assert list(await session.scalars(select(chosen.c.id))) == [1]
        await session.execute(update(Item).values(amount=2))
        await session.commit()
        assert list(await session.scalars(select(Item.amount))) == [2, 2, 2]


@pytest.mark.parametrize(
    "write",
    [
        text("UPDATE items SET amount = 7 WHERE 'FROM' <> 'chosen' -- FROM chosen"),
        text("INSERT INTO main.chosen SELECT id, 7 FROM items"),
        text("INSERT INTO copies (id, chosen) SELECT id, amount AS chosen FROM items"),
        text("UPDATE copies SET chosen = 7"),
    ],
)
async def test_what_only_has_its_name_is_written(maker: Maker, write: TextClause) -> None:
    """Columns, strings and tables of another schema are not temp tables."""
    async with maker() as session:
        await session.execute(text("CREATE TABLE copies (id INTEGER, chosen INTEGER)"))
        await session.execute(text("CREATE TABLE chosen (id INTEGER, amount INTEGER)"))
        await session.commit()
        await session.execute(CreateTable(chosen))
        await session.execute(write)
        await session.commit()


async def test_a_question_about_one_that_is_out_of_reach(maker: Maker, writer: AsyncEngine) -> None:
    """It is answered, and does not impede later statements."""
    async with maker() as session:
        await session.execute(CreateTable(chosen))
        await session.execute(update(Item).values(amount=2))
        assert session.get_bind(clause=select(chosen)) is writer.sync_engine
        await session.connection({"bind": writer.sync_engine})
        str(session.sync_session.query(Chosen))
        assert (await session.get_one(Item, 1)).amount == 2


async def test_a_question_creates_nothing(maker: Maker, heard: Heard) -> None:
    """A table that was only asked about does not exist."""
    async with maker() as session:
        session.get_bind(clause=CreateTable(chosen))
        await session.scalars(select(Item))
        with pytest.raises(OperationalError, match="no such table"):
            await session.execute(insert(chosen), [{"id": 1}])
        assert heard[-1] == "writer: INSERT"


async def test_without_wal_it_stands_in_the_way_of_the_commit(make_engine: MakeEngine) -> None:
    """Its transaction must not end, or it would be lost, so the COMMIT would wait for itself."""
    options = {"pragmas": {"journal_mode": "TRUNCATE"}}
    writer = make_engine(WriterPool, **options)
    await create_items(writer)
    maker = routing_sessionmaker(writer=writer, reader=make_engine(ReaderPool, **options))
    async with maker() as session:
        await session.execute(CreateTable(chosen))
        await session.execute(text("INSERT INTO chosen SELECT id FROM items"))
        await session.execute(update(Item).values(amount=2))
        with pytest.raises(OpenReadError, match="the temp table 'chosen'"):
            await session.commit()
        await session.execute(DropTable(chosen))
        await session.commit()
        assert list(await session.scalars(select(Item.amount))) == [2, 2, 2]


async def test_other_engines_have_temp_tables_where_they_write(path: Path) -> None:
    """A replica accepts none, and how another pool's reader would act is unknown."""
    writer = create_async_engine(f"sqlite+aiosqlite:///{path}")
    reader = create_async_engine(f"sqlite+aiosqlite:///{path}")
    try:
        heard = Heard().watch(writer=writer, reader=reader)
        async with routing_sessionmaker(writer=writer, reader=reader)() as session:
            await session.execute(CreateTable(chosen))
            await session.execute(insert(chosen), [{"id": 1}])
            assert len((await session.scalars(select(chosen))).all()) == 1
            await session.rollback()
        assert heard.of("reader") == []
    finally:
        await writer.dispose()
        await reader.dispose()


async def test_roles_keep_theirs(db: SQLiteDatabase) -> None:
    """``db.read()`` and ``db.write()`` have their own temp tables."""
    await create_items(db.writer_engine)
    for block in (db.read, db.write):
        async with block() as session:
            await session.execute(CreateTable(chosen))
            await session.execute(text("INSERT INTO chosen SELECT id FROM items"))
            assert len((await session.scalars(select(chosen))).all()) == 3
            await session.execute(DropTable(chosen))
