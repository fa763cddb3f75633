"""What customers can do. Nothing here knows which engine provides the sessions."""

from __future__ import annotations

import platform
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, cast

import sqlalchemy
from fastapi import APIRouter, Depends, HTTPException, Query, Request
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import joinedload

from .about import describe
from .models import Order, OrderLine, Product
from .orders import OutOfStockError, UnknownProductError, place_order
from .schemas import About, OrderIn, OrderOut, ProductPage, ProductSummary, Reads
from .stores import Store

PAGE_SIZE = 20
LAST_CHARACTER = "\U0010ffff"

router = APIRouter()


async def get_store(request: Request) -> Store:
    """The store that the lifespan opened."""
    return cast("Store", request.app.state.store)


OpenStore = Annotated[Store, Depends(get_store)]


async def read_session(store: OpenStore) -> AsyncIterator[AsyncSession]:
    """One read session a request."""
    async with store.read() as session:
        yield session


# scope="function": the session goes back when the endpoint returns. FastAPI's default keeps it
# until the answer has been sent, as long as the slowest customer's connection takes.
ReadSession = Annotated[AsyncSession, Depends(read_session, scope="function")]


@router.get("/health")
async def health() -> dict[str, str]:
    """Whether the server answers; asks nothing of the database."""
    return {"status": "ok"}


@router.get("/about")
async def about(request: Request, store: OpenStore) -> About:
    """What runs here. Asked in a write session: `synchronous` matters to whoever commits."""
    async with store.write() as session:
        database = await describe(session)
    return About(
        engine=request.app.state.engine,
        database=database,
        python=platform.python_version(),
        sqlalchemy=sqlalchemy.__version__,
    )


@router.get("/reads")
async def reads(request: Request) -> Reads:
    """Which servers were read from; asks nothing of the database."""
    return cast("Reads", request.app.state.reads)


@router.get("/products", response_model=list[ProductSummary])
async def browse(
    session: ReadSession, page: Annotated[int, Query(ge=1, le=1_000)] = 1
) -> Sequence[Product]:
    """One page of the catalogue, by name."""
    query = select(Product).order_by(Product.name, Product.id)
    found = await session.scalars(query.limit(PAGE_SIZE).offset((page - 1) * PAGE_SIZE))
    return found.all()


@router.get("/products/{product_id}", response_model=ProductPage)
async def product_page(session: ReadSession, product_id: int) -> Product:
    """One product."""
    product = await session.get(Product, product_id)
    if product is None:
        raise HTTPException(404, "no such product")
    return product


@router.get("/search", response_model=list[ProductSummary])
async def search(
    session: ReadSession, q: Annotated[str, Query(min_length=1, max_length=100)]
) -> Sequence[Product]:
    """Products whose name starts with `q`: a range of the name's index, wildcards unknown."""
    query = select(Product).where(Product.name.between(q, q + LAST_CHARACTER))
    found = await session.scalars(query.order_by(Product.name, Product.id).limit(PAGE_SIZE))
    return found.all()


@router.get("/orders/{order_id}", response_model=OrderOut)
async def order_page(session: ReadSession, order_id: int) -> Order:
    """One order with its lines and their products, in one statement."""
    with_lines = joinedload(Order.lines).joinedload(OrderLine.product)
    order = await session.get(Order, order_id, options=[with_lines])
    if order is None:
        raise HTTPException(404, "no such order")
    return order


@router.post("/orders", status_code=201, response_model=OrderOut)
async def take_order(store: OpenStore, wanted: OrderIn) -> Order:
    """Take an order; the answer leaves after COMMIT has returned.

    The session is opened here, not by a dependency: those are solved before the body is checked,
    and an invalid order should not wait for the right to write.
    """
    try:
        async with store.write() as session:
            return await place_order(session, wanted)
    except UnknownProductError as error:
        raise HTTPException(404, str(error)) from error
    except OutOfStockError as error:
        raise HTTPException(409, str(error)) from error
