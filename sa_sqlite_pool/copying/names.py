"""Where tables and sequences are on the server, and how SQL names them."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, Sequence, Table
from sqlalchemy.dialects import postgresql

# Not the one of the engine's dialect: for psycopg it doubles each %, as statements with parameters
# require. text() does that itself, COPY has no parameters, and to_regclass() takes plain names.
_PREPARER = postgresql.dialect(paramstyle="named").identifier_preparer  # type: ignore[no-untyped-call]
_NAME_BYTES = 63  # of NAMEDATALEN, without the NUL at its end


class Place(NamedTuple):
    """The schema, None for the first of the search path, and the name; neither is quoted."""

    schema: str | None
    name: str

    @property
    def sql(self) -> str:
        """The name as it is written in SQL and for ``to_regclass()``."""
        name = _PREPARER.quote(self.name)
        return name if self.schema is None else f"{_PREPARER.quote_schema(self.schema)}.{name}"


def place_of(connection: Connection, thing: Table | Sequence) -> Place:
    """Return where a table or sequence of the models is, according to ``schema_translate_map``."""
    return Place(connection.schema_for_object(thing), thing.name)


def clipped(name: str) -> str:
    """Return a name as the server truncates it: SQLAlchemy allows more, as it counts characters."""
    return name.encode()[:_NAME_BYTES].decode(errors="ignore")


def quoted(name: str) -> str:
    """Return the name of a column or a constraint as it is written in SQL."""
    return _PREPARER.quote_identifier(name)
