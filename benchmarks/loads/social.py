"""The load for which aiosqlitepool's README publishes figures: posts, their comments and likes.

There: 1.2 million users, 120,000 posts, 6 million comments, 12 million likes; 100 workers; a pool
of 100. A request reads one post with its author and the numbers of its comments and likes, with
one query that joins both. Here, the numbers of rows are scaled; a post has 50 comments and 100
likes at any scale, so the work of a request is the same.
"""

from __future__ import annotations

from functools import partial

from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    Integer,
    MetaData,
    Select,
    String,
    Table,
    UniqueConstraint,
    bindparam,
    func,
    select,
)

from ..ways import catalogue, drivers, engines
from ..ways.asynchronous import Connections, through
from ..ways.contenders import Concurrent, Contender, Part
from ..ways.steps import Run, Statement, Steps, check_rows
from .base import Load, Plan

CONNECTIONS = 100
POOL_OF_100 = f"{catalogue.POOLED}, {CONNECTIONS} connections"

_USERS, _POSTS = 1_200_000, 120_000
_COMMENTS_A_POST, _LIKES_A_POST = 50, 100
_LEAST_POSTS = 20
"""The smallest number of posts; there are ten times as many users."""

_METADATA = MetaData()
_USER = Table(
    "users",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column("name", String, nullable=False),
)
_POST = Table(
    "posts",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column("author_id", ForeignKey("users.id"), nullable=False, index=True),
    Column("title", String, nullable=False),
)
_COMMENT = Table(
    "comments",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column("post_id", ForeignKey("posts.id"), nullable=False, index=True),
    Column("author_id", ForeignKey("users.id"), nullable=False, index=True),
)
_LIKE = Table(
    "likes",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column("post_id", ForeignKey("posts.id"), nullable=False, index=True),
    Column("user_id", ForeignKey("users.id"), nullable=False, index=True),
    UniqueConstraint("post_id", "user_id"),
)

# The rows of a post are scattered over the table, as when comments arrive over time.
_NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n LIMIT :count) "
_FILL = (
    "INSERT INTO users SELECT i + 1, 'user ' || (i + 1) FROM n",
    "INSERT INTO posts SELECT i + 1, i * 7 % :users + 1, 'post ' || (i + 1) FROM n",
    "INSERT INTO comments SELECT i + 1, i % :posts + 1, i * 31 % :users + 1 FROM n",
    "INSERT INTO likes SELECT i + 1, i % :posts + 1, (i / :posts + i % :posts) % :users + 1 FROM n",
)


def _joined() -> Select[tuple[int, str, str, int, int]]:
    """Return the published query: each comment joins each like, so both counts are the product."""
    return (
        select(
            _POST.c.id,
            _POST.c.title,
            _USER.c.name,
            func.count(_COMMENT.c.id),
            func.count(_LIKE.c.id),
        )
        .join(_USER, _USER.c.id == _POST.c.author_id)
        .outerjoin(_COMMENT, _COMMENT.c.post_id == _POST.c.id)
        .outerjoin(_LIKE, _LIKE.c.post_id == _POST.c.id)
        .where(_POST.c.id == bindparam("key"))
        .group_by(_POST.c.id, _POST.c.title, _USER.c.name)
    )


def _counted() -> Select[tuple[int, str, str, int, int]]:
    """Return the query that such a page needs, which counts both separately."""
    comments = select(func.count()).where(_COMMENT.c.post_id == _POST.c.id)
    likes = select(func.count()).where(_LIKE.c.post_id == _POST.c.id)
    return (
        select(
            _POST.c.id,
            _POST.c.title,
            _USER.c.name,
            comments.scalar_subquery(),
            likes.scalar_subquery(),
        )
        .join(_USER, _USER.c.id == _POST.c.author_id)
        .where(_POST.c.id == bindparam("key"))
    )


_JOINED, _COUNTED = Statement.of(_joined()), Statement.of(_counted())


def _posts(plan: Plan) -> int:
    return max(_LEAST_POSTS, round(_POSTS * plan.scale))


def _users(plan: Plan) -> int:
    return _posts(plan) * _USERS // _POSTS


def _fill(plan: Plan, connection: Connection) -> None:
    _METADATA.create_all(connection)
    users, posts = _users(plan), _posts(plan)
    counts = (users, posts, posts * _COMMENTS_A_POST, posts * _LIKES_A_POST)
    for count, insert in zip(counts, _FILL, strict=True):
        # The driver accepts parameters that the statement does not use.
        connection.exec_driver_sql(
            _NUMBERS + insert, {"count": count, "users": users, "posts": posts}
        )


def _ask(statement: Statement, users: int, counts: tuple[int, int], key: int) -> Steps:
    author = (key - 1) * 7 % users + 1
    expected = (key, f"post {key}", f"user {author}", *counts)
    check_rows((yield Run(statement, {"key": key})), [expected])


_CONTENDERS: tuple[Contender, ...] = (
    catalogue.stock,
    Concurrent(
        f"stock, {CONNECTIONS} connections",
        through(Connections, engines.stock_with_large_pool(CONNECTIONS)),
    ),
    catalogue.readers,
    catalogue.swap_in,
    catalogue.both_engines,
    *catalogue.READING_CLOSURES,
    catalogue.synchronous,
    catalogue.in_threads,
    catalogue.aiosqlite_connect_each,
    catalogue.pooled,
    Concurrent(POOL_OF_100, drivers.pooled(CONNECTIONS)),
)


def joined(plan: Plan) -> list[Load]:
    """Return the load with the published query."""
    product = _COMMENTS_A_POST * _LIKES_A_POST
    return [_load(plan, "social", "comments and likes joined", _JOINED, (product, product))]


def counted(plan: Plan) -> list[Load]:
    """Return the load of the same page with a correct query, which is thirty times cheaper."""
    counts = (_COMMENTS_A_POST, _LIKES_A_POST)
    return [_load(plan, "social-counts", "comments and likes counted", _COUNTED, counts)]


def _load(plan: Plan, name: str, how: str, statement: Statement, counts: tuple[int, int]) -> Load:
    posts, users = _posts(plan), _users(plan)
    part = Part(
        name="requests",
        title=f"a post with its {how}; {posts:,} posts, {plan.scale:g} of those published",
        unit="q/s",
        tasks=CONNECTIONS,
        rows=posts,
        operation=partial(_ask, statement, users, counts),
    )
    return Load(name, (part,), partial(_fill, plan), _CONTENDERS, shared=True)
