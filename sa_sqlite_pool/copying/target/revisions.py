"""Alembic's version on the server, compared with the file's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, text

from ...errors import CopyError
from ..tables import ALEMBIC
from .statements import execute, exists

_LENGTH = (
    32  # in Alembic's own table: its own revision names are shorter, an application's may not be
)
_WIDE = 255

# "atttypmod … the maximum length", and four; -1 without a limit.
_TAKES = text(
    "SELECT atttypmod - 4 FROM pg_attribute WHERE attrelid = to_regclass(:table) "
    "AND attname = 'version_num' AND atttypmod > 4"
)
# CREATE TABLE IF NOT EXISTS needs the privilege to create even if the table exists.
_MAY_STAMP = text(
    """
SELECT has_schema_privilege(current_schema(), 'CREATE') AND (to_regclass(:table) IS NULL
    OR has_table_privilege(to_regclass(:table), 'SELECT')
    AND has_table_privilege(to_regclass(:table), 'INSERT'))
"""
)


class Revisions(NamedTuple):
    """The revisions of the server, and the length of the longest name that its table accepts.

    Without the privilege to write them (``may_stamp``), nothing is known about them.
    """

    names: Sequence[str] = ()
    takes: int | None = None
    may_stamp: bool = True


def revisions_there(connection: Connection) -> Revisions:
    """Return what Alembic's table contains, if there is one."""
    if not connection.scalar(_MAY_STAMP, {"table": ALEMBIC}):
        return Revisions(may_stamp=False)
    if not exists(connection, ALEMBIC):
        return Revisions()
    found = connection.scalars(text(f"SELECT version_num FROM {ALEMBIC}"))  # noqa: S608 - a constant
    return Revisions([*map(str, found)], connection.scalar(_TAKES, {"table": ALEMBIC}))


def refuse_other_revisions(revisions: Sequence[str], there: Revisions) -> None:
    """Raise :class:`CopyError` if the server is at another revision, or cannot store the file's."""
    if not revisions:
        return
    if not there.may_stamp:
        raise CopyError(
            f"the file is at Alembic's revision {', '.join(revisions)}, and the role of the URL "
            f"may not write that to {ALEMBIC} on the server: GRANT CREATE ON SCHEMA … TO …, and "
            f"GRANT SELECT, INSERT ON {ALEMBIC} TO … if it exists"
        )
    if there.names and set(there.names) != set(revisions):
        raise CopyError(
            f"the file is at Alembic's revision {', '.join(revisions)} and the server at "
            f"{', '.join(there.names)}: upgrade the one that is behind"
        )
    longest = max(revisions, key=len)
    if there.takes is not None and len(longest) > there.takes:
        raise CopyError(
            f"Alembic's revision {longest} has {len(longest)} characters, and the table {ALEMBIC} "
            f"on the server accepts {there.takes}: "
            f"ALTER TABLE {ALEMBIC} ALTER version_num TYPE VARCHAR({_WIDE})"
        )


def stamp(connection: Connection, revisions: Sequence[str]) -> None:
    """Stamp the server with the file's revisions; create Alembic's table as Alembic does."""
    length = _LENGTH if max(map(len, revisions)) <= _LENGTH else _WIDE
    execute(
        connection,
        f"CREATE TABLE IF NOT EXISTS {ALEMBIC} (version_num VARCHAR({length}) NOT NULL, "
        f"CONSTRAINT {ALEMBIC}_pkc PRIMARY KEY (version_num))",
    )
    if not revisions_there(connection).names:
        insert = text(f"INSERT INTO {ALEMBIC} VALUES (:revision)")  # noqa: S608 - a constant
        connection.execute(insert, [{"revision": revision} for revision in revisions])
