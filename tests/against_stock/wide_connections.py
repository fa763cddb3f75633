"""The steps of a wide program on a connection.

What ``operations.py`` leaves out, because it differs by promise, is left out here, too. A CTE that
writes is preceded by another write, because ``sqlite3`` does not recognize it as a write.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, literal, select, text, update
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from .operations import Block, Step, raw_of, rows
from .wide_models import anchors, items, owned, pairs, strict


def described(result: Any) -> object:
    """Return what SQLAlchemy's result tells of a statement."""
    keys = list(result.keys()) if result.returns_rows else None
    found = rows(result)
    key = result.inserted_primary_key if result.context.isinsert and not keys else None
    return keys, found, None if key is None else tuple(key)


def one_item(block: Block) -> dict[str, object]:
    rng = block.rng
    values: dict[str, object] = {"amount": rng.randrange(100), "code": f"c{rng.randrange(9)}"}
    if rng.random() < 0.3:
        values["id"] = rng.randrange(1, 9)
    return values


async def write_first(connection: AsyncConnection) -> None:
    await connection.execute(update(anchors).where(anchors.c.id == 1).values(n=anchors.c.n))


async def insert_one(connection: AsyncConnection, block: Block) -> object:
    statement: Any = insert(items).values(one_item(block) | {"body": {"a": [1]}, "image": b"\0x"})
    if block.rng.random() < 0.5:
        statement = statement.returning(items.c.id, items.c.twofold, items.c.day, items.c.body)
    return described(await connection.execute(statement))


async def upsert(connection: AsyncConnection, block: Block) -> object:
    statement: Any = insert(items).values(one_item(block))
    new = statement.excluded
    statement = block.rng.choice(
        [
            statement.on_conflict_do_nothing(),
            statement.on_conflict_do_nothing(index_elements=["code"]),
            statement.on_conflict_do_update(
                index_elements=["code"],
                set_={"amount": items.c.amount + new.amount},
                where=items.c.amount < 60,
            ),
        ]
    )
    if block.rng.random() < 0.5:
        statement = statement.returning(items.c.code, items.c.amount)
    return described(await connection.execute(statement))


async def insert_many(connection: AsyncConnection, block: Block) -> object:
    """An error in the middle of an ``executemany`` leaves the rows before it, in a transaction."""
    some = [
        {"amount": block.rng.randrange(60 if block.autocommit else 92)}
        for _ in range(block.rng.randrange(1, 6))
    ]
    return rows(await connection.execute(insert(items), some))


async def insert_many_returning(connection: AsyncConnection, block: Block) -> object:
    some = [{"n": block.rng.randrange(9)} for _ in range(block.rng.randrange(1, 8))]
    ordered = block.rng.random() < 0.5
    statement = insert(strict).returning(strict.c.id, strict.c.n, sort_by_parameter_order=ordered)
    options = {"insertmanyvalues_page_size": block.rng.choice([1, 2, 1000])}
    result = await connection.execute(statement, some, execution_options=options)
    return sorted(tuple(row) for row in result.all())


async def insert_strictly(connection: AsyncConnection, block: Block) -> object:
    value = block.rng.choice([1, "two", None, 2.5, b"three"])
    return rows(await connection.execute(text("INSERT INTO strict (n) VALUES (:n)"), {"n": value}))


async def insert_pair(connection: AsyncConnection, block: Block) -> object:
    some = [{"a": block.rng.randrange(4), "b": "x", "n": 1} for _ in range(2)]
    if block.autocommit:
        del some[1]
    statement = insert(pairs)
    if block.rng.random() < 0.5:
        statement = statement.on_conflict_do_update(set_={"n": pairs.c.n + 1})
    return rows(await connection.execute(statement, some))


async def update_many(connection: AsyncConnection, block: Block) -> object:
    some = [{"k": block.rng.randrange(1, 9), "m": block.rng.randrange(80)} for _ in range(3)]
    statement = update(items).where(items.c.id == bindparam("k")).values(amount=bindparam("m"))
    return rows(await connection.execute(statement, some))


async def update_from(connection: AsyncConnection, block: Block) -> object:
    statement = update(items).values(amount=strict.c.n).where(items.c.id == strict.c.id)
    if block.rng.random() < 0.5:
        statement = statement.returning(items.c.id)
    return described(await connection.execute(statement))


async def delete_some(connection: AsyncConnection, block: Block) -> object:
    table = block.rng.choice([items, strict, pairs, owned, anchors])
    key = next(iter(table.primary_key))
    statement: Any = delete(table).where(key == block.rng.randrange(1, 9))
    if block.rng.random() < 0.5:
        statement = statement.returning(*table.primary_key)
    return described(await connection.execute(statement))


async def write_in_a_cte(connection: AsyncConnection, block: Block) -> object:
    await write_first(connection)
    source = select(literal(block.rng.randrange(1, 9)).label("k")).cte("source")
    statement: Any = block.rng.choice(
        [
            delete(items).where(items.c.id.in_(select(source.c.k))),
            update(items).where(items.c.id.in_(select(source.c.k))).values(amount=1),
            text("WITH s(k) AS (VALUES (77)) INSERT INTO strict (n) SELECT k FROM s RETURNING n"),
        ]
    )
    return rows(await connection.execute(statement))


async def own(connection: AsyncConnection, block: Block) -> object:
    """A deferred key is checked at COMMIT; an immediate one by the statement."""
    values = block.rng.choice([{"owner": block.rng.randrange(4)}, {"strictly": 1}])
    return described(await connection.execute(insert(owned).values(values)))


async def insert_anchor(connection: AsyncConnection, block: Block) -> object:
    statement = insert(anchors).values(id=block.rng.randrange(4), n=0).on_conflict_do_nothing()
    return described(await connection.execute(statement))


async def set_pragma(connection: AsyncConnection, block: Block) -> object:
    """PRAGMAs between two transactions."""
    await (connection.commit() if block.rng.random() < 0.5 else connection.rollback())
    block.savepoints.clear()
    value = block.rng.choice(["ON", "OFF"])
    name = block.rng.choice(
        ["foreign_keys", "recursive_triggers", "case_sensitive_like", "ignore_check_constraints"]
    )
    return rows(await connection.exec_driver_sql(block.say(f"PRAGMA {name} = {value}")))


async def set_pragma_within(connection: AsyncConnection, block: Block) -> object:
    """PRAGMAs that take effect in a transaction."""
    await write_first(connection)
    sql = block.rng.choice(
        [
            "PRAGMA defer_foreign_keys = ON",
            "PRAGMA recursive_triggers = ON",
            "PRAGMA case_sensitive_like = ON",
            f"PRAGMA user_version = {block.rng.randrange(99)}",
            "PRAGMA ignore_check_constraints = OFF",
        ]
    )
    return rows(await connection.exec_driver_sql(block.say(sql)))


async def tell_pragmas(connection: AsyncConnection, block: Block) -> object:
    name = block.rng.choice(
        ["foreign_keys", "defer_foreign_keys", "recursive_triggers", "user_version"]
    )
    return rows(await connection.exec_driver_sql(block.say(f"PRAGMA {name}")))


async def select_some(connection: AsyncConnection, block: Block) -> object:
    statement: Any = block.rng.choice(
        [
            select(items).order_by(items.c.id),
            select(func.count()).select_from(items.join(strict, items.c.id == strict.c.id)),
            select(func.refuse(items.c.id)),
            select(items.c.code).order_by(items.c.code.collate("reversed")),
            select(items.c.code).where(items.c.code.like("C%")).order_by(items.c.id),
            select(items.c.code.in_(["c1", "c2"])),
            text("SELECT :a || :b AS ab, :a").bindparams(a="x", b="y"),
            select(pairs).where(pairs.c.n == bindparam("missing")),
            text("SELECT day, price FROM items ORDER BY id").columns(items.c.day, items.c.price),
        ]
    )
    result = await connection.execute(statement)
    way = block.rng.choice(["all", "mappings", "scalars", "first", "one", "one_or_none", "scalar"])
    if way in {"mappings", "scalars"}:
        return list(getattr(result, way)().all())
    found = getattr(result, way)()
    return way, list(result.keys()) if not result.closed else None, found


async def driver_sql(connection: AsyncConnection, block: Block) -> object:
    statements: list[tuple[str, Any]] = [
        ("SELECT ?, ?", (1, "b")),
        ("SELECT :a", {"a": 4}),
        ("SELECT ?", (1, 2)),
        ("SELECT ?", ("\ud800",)),
        ("SELECT ?", (object,)),
        ("SELECT ?", (2**70,)),
        ("INSERT INTO strict (n) VALUES (?)", (4,)),
        ("INSERT INTO strict (n) VALUES (?)", [(4,), (5,)]),
        ("SELECT refuse(?)", (3,)),
        ("UPDATE items SET amount = refuse(id)", ()),
        ("INSERT INTO items (id) VALUES (?), (?)", (1, 1)),
    ]
    sql, parameters = block.rng.choice(statements)
    return rows(await connection.exec_driver_sql(block.say(sql), parameters))


async def savepoint_names(connection: AsyncConnection, block: Block) -> object:
    """Savepoints that end out of order."""
    await write_first(connection)
    outer = await connection.begin_nested()
    await insert_one(connection, block)
    inner = await connection.begin_nested()
    try:
        await insert_anchor(connection, block)
        await (outer.rollback() if block.rng.random() < 0.5 else outer.commit())
        return inner.is_active, connection.in_nested_transaction()
    finally:
        if block.rng.random() < 0.5:
            await inner.rollback()
        if outer.is_active:
            await outer.rollback()


async def nested_block(connection: AsyncConnection, block: Block) -> object:
    await write_first(connection)
    try:
        async with connection.begin_nested():
            await insert_one(connection, block)
            async with connection.begin_nested():
                await insert_many(connection, block)
                if block.rng.random() < 0.5:
                    raise LookupError("as expected")
    except LookupError:
        return "rolled back"
    return "released"


async def stream_part(connection: AsyncConnection, block: Block) -> object:
    """A stream is read in part, over a commit, and closed or not."""
    options = block.rng.choice([{}, {"yield_per": 2}, {"max_row_buffer": 1}])
    statement = select(items.c.id, items.c.amount).order_by(items.c.id)
    async with connection.stream_scalars(statement, execution_options=options) as result:
        found = await result.fetchmany(1)
        if block.rng.random() < 0.3:
            await connection.commit()
            block.savepoints.clear()
        if block.rng.random() < 0.5:
            found += await result.fetchmany(2)
    return found


async def stream_to_its_end(connection: AsyncConnection, block: Block) -> object:
    result = await connection.stream(select(items.c.id).order_by(items.c.id))
    way = block.rng.choice(["all", "mappings", "scalars", "first", "one_or_none", "unique"])
    if way in {"mappings", "scalars", "unique"}:
        return [one async for one in getattr(result, way)()]
    return await getattr(result, way)()


async def cursor_beside(connection: AsyncConnection, block: Block) -> object:
    """A cursor of the raw connection, read before and after SQLAlchemy's statement."""
    raw = await raw_of(connection)
    cursor = await raw.execute("SELECT id FROM items ORDER BY id")
    found = [await cursor.fetchone()]
    await insert_anchor(connection, block)
    found.append(await cursor.fetchone())
    await cursor.close()
    return found


async def register_late(connection: AsyncConnection, block: Block) -> object:
    raw = await raw_of(connection)
    add = block.rng.randrange(4)
    await raw.create_function("late", 1, lambda value: value + add)
    return rows(await connection.execute(text("SELECT late(3)")))


async def options_of(connection: AsyncConnection, block: Block) -> object:
    level = block.rng.choice(["AUTOCOMMIT", "SERIALIZABLE", "READ UNCOMMITTED", "NONSENSE"])
    if block.rng.random() < 0.5:
        await connection.rollback()
        block.savepoints.clear()
    changed = await connection.execution_options(isolation_level=level)
    block.autocommit = level == "AUTOCOMMIT"
    sync = changed.sync_connection
    return await changed.get_isolation_level(), sync and sync.default_isolation_level


async def statement_level(connection: AsyncConnection, block: Block) -> object:
    """SQLAlchemy refuses an isolation level of a statement."""
    options = {"isolation_level": "AUTOCOMMIT"}
    return rows(await connection.execute(select(1), execution_options=options))


async def in_sync(connection: AsyncConnection, block: Block) -> object:
    def use(sync: Connection) -> object:
        with sync.begin_nested() if sync.in_transaction() else sync.begin():
            sync.execute(update(anchors).values(n=anchors.c.n + 1))
            if fails:
                raise LookupError("as expected")
        return sync.in_transaction(), sync.info, sync.connection.is_valid

    fails = block.rng.random() < 0.3
    await write_first(connection)
    return await connection.run_sync(use)


async def begin_twice(connection: AsyncConnection, block: Block) -> object:
    if connection.in_transaction() and block.rng.random() < 0.7:
        await connection.rollback()
        block.savepoints.clear()
    transaction = await connection.begin()
    await insert_anchor(connection, block)
    for _ in range(block.rng.randrange(1, 3)):
        await getattr(transaction, block.rng.choice(["commit", "rollback", "close"]))()
    return transaction.is_active, transaction.is_valid


async def close_twice(connection: AsyncConnection, _: Block) -> object:
    await connection.close()
    await connection.close()
    return connection.closed, connection.invalidated


async def tell(connection: AsyncConnection, _: Block) -> object:
    raw = await connection.get_raw_connection()
    return raw.is_valid, raw.is_detached, connection.in_transaction(), connection.invalidated


ON_CONNECTIONS: list[Step] = [
    *[insert_one, upsert, insert_many, insert_many_returning, insert_strictly, insert_pair] * 2,
    *[update_many, update_from, delete_some, write_in_a_cte, own, insert_anchor] * 2,
    *[set_pragma, set_pragma_within, tell_pragmas, select_some, select_some, driver_sql] * 2,
    *[savepoint_names, nested_block, stream_part, stream_to_its_end, cursor_beside],
    *[register_late, options_of, statement_level, in_sync, begin_twice, tell, close_twice],
]
