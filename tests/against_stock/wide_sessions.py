"""The steps of a wide program with a session."""

from __future__ import annotations

from sqlalchemy import func, insert, inspect, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, joinedload, selectinload

from .operations import Block, Step, rows
from .wide_models import Letter, Manager, Person, Team

_EAGER = [selectinload(Person.letters), selectinload(Person.teams)]


def _key(block: Block) -> int:
    return block.rng.randrange(1, 7)


def state(one: object) -> str:
    found = inspect(one)
    names = ("transient", "pending", "persistent", "deleted", "detached")
    return next(name for name in names if getattr(found, name))


def new_person(block: Block) -> Person:
    rng = block.rng
    name = rng.choice([None, f"n{rng.randrange(5)}"])
    letters = [Letter(text=f"t{rng.randrange(3)}") for _ in range(rng.randrange(3))]
    kind = rng.choice([Person, Manager])
    return kind(name=name, letters=letters, teams=[Team() for _ in range(rng.randrange(2))])


async def write_first(session: AsyncSession) -> None:
    await session.execute(text("UPDATE anchors SET n = n WHERE id = 1"))


async def add(session: AsyncSession, block: Block) -> object:
    person = new_person(block)
    session.add(person)
    if block.rng.random() < 0.5:
        return None
    try:
        await session.flush()
    finally:
        told = state(person)
    return told, person.id, person.version, person.name


async def add_all(session: AsyncSession, block: Block) -> object:
    some = [new_person(block) for _ in range(3)]
    session.add_all(some)
    return len(session.new)


async def change(session: AsyncSession, block: Block) -> object:
    person = await session.get(Person, _key(block), options=_EAGER)
    if person is None:
        return None
    person.name = f"n{block.rng.randrange(5)}"
    if block.rng.random() < 0.5:
        person.letters = person.letters[1:]
    if block.rng.random() < 0.3:
        person.teams.append(Team(label="new"))
    return person.kind, person.version, session.is_modified(person)


async def stale(session: AsyncSession, block: Block) -> object:
    """A version that does not match any more: StaleDataError."""
    person = await session.get(Person, _key(block))
    if person is None:
        return None
    raised = text("UPDATE people SET version = version + 1 WHERE id = :id")
    await session.execute(raised, {"id": person.id})
    person.name = None if person.name else "stale"
    await session.flush()
    return person.version


async def remove(session: AsyncSession, block: Block) -> object:
    person = await session.get(Person, _key(block), options=_EAGER)
    if person is not None:
        await session.delete(person)
        return state(person), len(session.deleted)
    return None


async def merge(session: AsyncSession, block: Block) -> object:
    letters = [Letter(id=_key(block), text="merged")]
    merged = await session.merge(Person(id=_key(block), name="m", letters=letters))
    return state(merged), merged.version


async def refresh(session: AsyncSession, block: Block) -> object:
    person = await session.get(Person, _key(block))
    if person is None:
        return None
    names = block.rng.choice([None, ["name"], ["letters"]])
    await session.refresh(person, attribute_names=names)
    return person.name


async def expire(session: AsyncSession, block: Block) -> object:
    person = await session.get(Person, _key(block))
    if person is None:
        return None
    session.expire(person) if block.rng.random() < 0.5 else session.expire_all()
    return await session.run_sync(lambda _: (person.name, len(person.letters)))


async def outside_greenlet(session: AsyncSession, block: Block) -> object:
    """A lazy load outside a greenlet: MissingGreenlet."""
    person = await session.get(Person, _key(block))
    if person is None:
        return None
    session.expire(person)
    return person.name


async def expunge(session: AsyncSession, block: Block) -> object:
    person = await session.get(Person, _key(block))
    if person is None:
        return None
    session.expunge(person)
    return state(person), person in session


async def load(session: AsyncSession, block: Block) -> object:
    option = block.rng.choice([joinedload, selectinload])
    query = select(Person).options(option(Person.letters), option(Person.teams))
    query = query.order_by(Person.id).execution_options(populate_existing=True)
    found = (await session.scalars(query)).unique().all()
    return [
        (one.id, one.name, one.version, [letter.text for letter in one.letters], len(one.teams))
        for one in found
    ]


async def get_one(session: AsyncSession, block: Block) -> object:
    return (await session.get_one(Manager, _key(block))).budget


async def bulk_insert(session: AsyncSession, block: Block) -> object:
    some = [{"label": f"l{block.rng.randrange(3)}"} for _ in range(3)]
    result = await session.scalars(insert(Team).returning(Team), some)
    return [team.label for team in result]


async def bulk_update(session: AsyncSession, block: Block) -> object:
    how = block.rng.choice(["evaluate", "fetch", "auto", False])
    statement = update(Team).where(Team.id < 4).values(label="changed")
    options = {"synchronize_session": how}
    return rows(await session.execute(statement, execution_options=options))


async def bulk_by_key(session: AsyncSession, block: Block) -> object:
    some = [{"id": _key(block), "label": "key"}, {"id": _key(block), "label": "other"}]
    return (await session.execute(update(Team), some)) is not None


async def nested(session: AsyncSession, block: Block) -> object:
    await write_first(session)
    person = new_person(block)
    try:
        async with session.begin_nested() as savepoint:
            session.add(person)
            if block.rng.random() < 0.4:
                await session.flush()
                raise LookupError("as expected")
            if block.rng.random() < 0.3:
                await savepoint.rollback()
    except LookupError:
        return "failed", state(person), session.in_nested_transaction()
    return "ended", state(person), session.in_nested_transaction()


async def begin_block(session: AsyncSession, block: Block) -> object:
    if session.in_transaction() and block.rng.random() < 0.7:
        await session.commit()
        block.savepoints.clear()
    person = new_person(block)
    async with session.begin():
        session.add(person)
        if block.rng.random() < 0.3:
            await session.commit()
    return state(person)


async def commit(session: AsyncSession, block: Block) -> object:
    block.savepoints.clear()
    await session.commit()
    return session.in_transaction(), len(session.identity_map)


async def rollback(session: AsyncSession, block: Block) -> object:
    block.savepoints.clear()
    await session.rollback()
    return session.in_transaction(), len(session.new)


async def close(session: AsyncSession, block: Block) -> object:
    block.savepoints.clear()
    await getattr(session, block.rng.choice(["close", "reset", "close"]))()
    return len(session.new)


async def no_autoflush(session: AsyncSession, block: Block) -> object:
    with session.no_autoflush:
        session.add(new_person(block))
        count = await session.scalar(select(func.count(Person.id)))
    return count, await session.scalar(select(func.count(Person.id)))


async def stream(session: AsyncSession, block: Block) -> object:
    query = select(Person.name).order_by(Person.id)
    result = await session.stream_scalars(query, execution_options={"yield_per": 2})
    found = [*await result.fetchmany(block.rng.randrange(1, 3))]
    if block.rng.random() < 0.5:
        found += [one async for one in result]
    await result.close()
    return found


async def stream_objects(session: AsyncSession, block: Block) -> object:
    query = select(Person).options(selectinload(Person.letters)).order_by(Person.id)
    result = await session.stream(query.execution_options(yield_per=2))
    return [
        [(row[0].id, len(row[0].letters)) for row in part] async for part in result.partitions()
    ]


async def in_sync(session: AsyncSession, block: Block) -> object:
    def use(sync: Session) -> object:
        sync.add(new_person(block))
        found = sync.query(Person).order_by(Person.id.desc()).first()
        return None if found is None else [letter.text for letter in found.letters]

    return await session.run_sync(use)


async def awaitable(session: AsyncSession, block: Block) -> object:
    """An object in one session cannot be added to another."""
    person = await session.get(Person, _key(block))
    other = AsyncSession(session.bind)
    if person is not None:
        other.add(person)
    return None


async def connection_options(session: AsyncSession, block: Block) -> object:
    """The options of the connection have no effect, with a warning, in a transaction."""
    level = block.rng.choice(["AUTOCOMMIT", "SERIALIZABLE"])
    if block.rng.random() < 0.6:
        await session.rollback()
        block.savepoints.clear()
    await session.connection(execution_options={"isolation_level": level})
    return session.in_transaction()


ON_SESSIONS: list[Step] = [
    *[add, add_all, change, change, stale, remove, merge, refresh, expire, expunge, load] * 2,
    *[get_one, bulk_insert, bulk_update, bulk_by_key, nested, nested, begin_block] * 2,
    *[commit, commit, rollback, close, no_autoflush, stream, stream_objects, in_sync],
    *[awaitable, connection_options, outside_greenlet],
]
