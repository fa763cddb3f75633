"""Use EXPLAIN to find out what a statement writes if its text does not show it.

The byte code of a statement begins with an ``OP_Transaction`` for each database that it uses, which
says whether it writes there (https://www.sqlite.org/opcode.html#Transaction);
``sqlite3_stmt_readonly()`` relies on the same. ``EXPLAIN`` compiles the statement, and so connects
its virtual tables, but executes nothing.

Writes of a *function* in the statement are not in its byte code. The authorizer reports them once
the function has tried them.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple, final

from .authorizer import Access, Authorizer
from .inspection import ask, rows
from .statements import Kind
from .tokens import first_word, without_leading_semicolons

_TEMP = 1  # the number of the database "temp", in any connection

_DML = frozenset({"INSERT", "REPLACE", "UPDATE", "DELETE", "WITH"})
_UPKEEP = frozenset({"ANALYZE", "REINDEX"})


class Finding(NamedTuple):
    """What SQLite reports about a statement.

    ``kind`` is READ, WRITE, UPKEEP, TEMP_DML or TEMP_DDL; ``databases`` are the numbers of the
    databases that it writes. ``connects`` is True if compiling alone tried to write, as happens
    once when a virtual table is connected, or if there are virtual tables that were not known
    before.
    """

    kind: Kind
    databases: frozenset[int] = frozenset()
    connects: bool = False


_examinations = itertools.count()


def examine(connection: Any, authorizer: Authorizer, sql: str, parameters: Any) -> Finding | None:
    """Return what SQLite reports about ``sql``. Call this in the connection's thread.

    Return None if SQLite cannot compile it at present: executing it raises the same error again.
    """
    authorizer.attempted, known = None, authorizer.shadows
    try:
        with authorizer.aside():
            authorizer.shadows = shadow_tables(connection)
        program = _program(connection, authorizer, sql, parameters)
    except Exception:  # of any driver module
        return None
    written = frozenset(step[2] for step in program if step[1] == "Transaction" and step[3])
    connects = authorizer.attempted is not None or authorizer.shadows != known
    return Finding(_kind(sql, written), written, connects)


def compile_error(
    connection: Any, authorizer: Authorizer, sql: str, parameters: Any
) -> Exception | None:
    """Return the error with which SQLite refuses to compile ``sql``; None if it compiles it."""
    try:
        _program(connection, authorizer, sql, parameters)
    except Exception as error:  # of any driver module
        return error
    return None


def _program(
    connection: Any, authorizer: Authorizer, sql: str, parameters: Any
) -> list[tuple[Any, ...]]:
    # The text differs each time, so that it is compiled now. sqlite3 caches compiled statements,
    # and SQLite reads freed memory when EXPLAIN lists a program that is older than the schema
    # (P4_TABLE in ``sqlite3VdbeDisplayP4()`` of its vdbeaux.c), because no step recompiles it.
    explain = f"EXPLAIN /* {next(_examinations)} */ {without_leading_semicolons(sql)}"
    with authorizer.allowing(Access.EXAMINED):
        return rows(connection, explain, parameters)


def nulls_for(parameters: Any) -> Any:
    """Return as many NULLs as ``parameters``, to examine a statement before it is executed.

    The application's adapters, which may warn or fail, are then called once, as on a stock engine.
    """
    if isinstance(parameters, Mapping):
        return _NULLS
    return (None,) * len(parameters)


@final
class _Nulls(dict[str, None]):
    """A mapping that returns NULL for each name and stores none."""

    def __missing__(self, name: str) -> None:
        return None


_NULLS = _Nulls()


def learn_shadow_tables(connection: Any, authorizer: Authorizer) -> None:
    """Tell the authorizer the shadow tables, for statements that are compiled after examination.

    They are looked up once for each version of the schema. Call this in the connection's thread.
    """
    with authorizer.aside():
        version = ask(connection, "schema_version"), authorizer.attached
        if version != authorizer.shadows_of:
            authorizer.shadows, authorizer.shadows_of = shadow_tables(connection), version


def shadow_tables(connection: Any) -> frozenset[tuple[str, str]]:
    """Return the schemas and names, in lower case, of the tables that hold the nodes of R-trees.

    R-tree compiles its writes to them when it is connected. It always has all three
    (https://www.sqlite.org/rtree.html#creating_an_r_tree_index); a table whose name merely looks
    like that of a shadow table belongs to the application.
    """
    found: set[tuple[str, str]] = set()
    for _, schema, _ in rows(connection, "PRAGMA database_list"):
        table = f'"{schema}".sqlite_master'.replace('"temp".sqlite_master', "sqlite_temp_master")
        tables = dict(rows(connection, _TABLES.format(table=table)))
        for name in (name for name, virtual in tables.items() if virtual):
            of_tree = {f"{name}_{suffix}" for suffix in ("node", "parent", "rowid")}
            if of_tree <= tables.keys():
                found.update((schema.lower(), one) for one in of_tree)
    return frozenset(found)


_TABLES = "SELECT lower(name), sql LIKE 'CREATE VIRTUAL TABLE%' FROM {table} WHERE type = 'table'"


def _kind(sql: str, written: frozenset[int]) -> Kind:
    if not written:
        return Kind.READ
    if written != {_TEMP}:
        return Kind.UPKEEP if first_word(sql) in _UPKEEP else Kind.WRITE
    return Kind.TEMP_DML if first_word(sql) in _DML else Kind.TEMP_DDL
