"""Decide whether a statement does more than read, for a reader that is a PostgreSQL replica.

A replica refuses most of what writes (SQLSTATE 25006). What it does not refuse is worse: an
advisory lock is taken on the replica, where no other program looks, and a setting is one of a
connection that the next write does not use. So this is a list of what acts; a function that is not
in it, and that the replica refuses, is sent to the writer after that.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise

from .tokens import Token, tokens

LONGEST_READ = 65_536
"""Characters of a text that are examined; a longer one goes to the writer."""

_READS = frozenset({"explain", "select", "show", "table", "values", "with"})
_DML = frozenset({"delete", "insert", "merge", "update"})
_MAIN = frozenset({"select", "table", "values"}) | _DML

# Of https://www.postgresql.org/docs/16/functions.html and its sections: functions that change
# something on the server or in their connection, or that answer for what their own connection has
# changed.
ACTING = frozenset(
    {
        # 9.17 sequences
        *("currval", "lastval", "nextval", "setval"),
        # 9.27.1 settings; 9.27.2 signals
        *("pg_cancel_backend", "pg_log_backend_memory_contexts", "pg_reload_conf"),
        *("pg_rotate_logfile", "pg_terminate_backend", "set_config"),
        # 9.27.3 backups
        *("pg_backup_start", "pg_backup_stop", "pg_create_restore_point"),
        *("pg_current_wal_flush_lsn", "pg_current_wal_insert_lsn", "pg_current_wal_lsn"),
        *("pg_switch_wal", "pg_promote", "pg_wal_replay_pause", "pg_wal_replay_resume"),
        # 9.27.5 snapshots; 9.26.8 transaction ids
        *("pg_current_xact_id", "pg_export_snapshot", "txid_current"),
        # 9.27.8 and 9.27.9 indexes, files and collations
        *("brin_desummarize_range", "brin_summarize_new_values", "brin_summarize_range"),
        *("gin_clean_pending_list", "pg_import_system_collations", "pg_file_rename"),
        *("pg_file_sync", "pg_file_unlink", "pg_file_write", "pg_extension_config_dump"),
        # 9.15 XML of statements that are given as text; 54.2 statistics
        *("cursor_to_xml", "cursor_to_xmlschema", "database_to_xml", "query_to_xml"),
        *("query_to_xml_and_xmlschema", "query_to_xmlschema", "schema_to_xml", "table_to_xml"),
        "pg_stat_statements_reset",
        # LISTEN and NOTIFY
        "pg_notify",
        # 35.4 large objects
        *("loread", "lowrite"),
    }
)
_ACTING_PREFIXES = (
    *("binary_upgrade_", "dblink", "lo_", "pg_advisory_", "pg_copy_", "pg_create_"),
    *("pg_drop_replication_slot", "pg_logical_", "pg_replication_origin_"),
    *("pg_replication_slot_advance", "pg_stat_clear_", "pg_stat_force_", "pg_stat_reset"),
    *("pg_sync_replication_slots", "pg_try_advisory_"),
)


def function_acts(name: str) -> bool:
    """Return whether a call of this function does more than read."""
    name = name.lower()
    return name in ACTING or name.startswith(_ACTING_PREFIXES)


def text_acts(sql: str) -> bool:
    """Return whether SQL text does more than read. In bounded time, however long it is."""
    return len(sql) > LONGEST_READ or _statement_acts(sql)


@lru_cache(maxsize=4096)
def _statement_acts(sql: str) -> bool:
    found = list(tokens(sql))
    while found and found[-1].text == ";":
        found.pop()
    while found and found[0].text == "(":
        found.pop(0)
    first = found[0].text if found and found[0].kind == "word" else ""
    if first not in _READS or any(token.text == ";" for token in found if token.kind == "other"):
        return True
    if first == "explain":
        return _explain_acts(found[1:])
    if first == "with" and _main_verb(found) in _DML:
        return True
    return _part_acts(found)


def fragment_acts(sql: str) -> bool:
    """Return whether a piece of SQL within a SELECT does more than read."""
    return len(sql) > LONGEST_READ or _part_acts(list(tokens(sql)))


def _explain_acts(found: list[Token]) -> bool:
    """Return whether an EXPLAIN acts: one that runs its statement does what that does."""
    options = []
    if found and found[0].text == "(":
        while found and found[0].text != ")":
            options.append(found.pop(0).text)
        found = found[1:]
    while found and found[0].text in {"analyse", "analyze", "verbose"}:
        options.append(found.pop(0).text)
    if not {"analyse", "analyze"} & set(options):
        return _calls_what_acts(found)
    first = found[0].text if found else ""
    return first not in _READS | {"("} or _main_verb(found) in _DML or _part_acts(found)


def _main_verb(found: list[Token]) -> str:
    """Return the verb that comes after the members of a WITH, or the first of any statement."""
    depth = 0
    for token in found:
        if token.kind == "other":
            depth += {"(": 1, ")": -1}.get(token.text, 0)
        elif depth == 0 and token.kind == "word" and token.text in _MAIN:
            return token.text
    return ""


def _part_acts(found: list[Token]) -> bool:
    return _calls_what_acts(found) or any(
        token.text == "into"
        or (token.text == "for" and _locks(found[place + 1 : place + 4]))
        or (token.text in {"as", "materialized"} and _changes(found[place + 1 : place + 3]))
        for place, token in _words(found)
    )


def _words(found: list[Token]) -> Iterator[tuple[int, Token]]:
    return ((place, token) for place, token in enumerate(found) if token.kind == "word")


def _locks(after: list[Token]) -> bool:
    """Return whether FOR is followed by the name of a row lock; ``substring(a FOR 3)`` has none."""
    words = [token.text for token in after]
    return (
        words[:1] in (["update"], ["share"])
        or words[:3] == ["no", "key", "update"]
        or words[:2] == ["key", "share"]
    )


def _changes(after: list[Token]) -> bool:
    """Return whether a member of a WITH begins here that changes rows."""
    return len(after) > 1 and after[0].text == "(" and after[1].text in _DML


def _calls_what_acts(found: list[Token]) -> bool:
    return any(
        token.names and after.text == "(" and function_acts(token.text)
        for token, after in pairwise(found)
    )
