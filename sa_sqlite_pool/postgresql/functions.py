"""PostgreSQL's functions that do more than read.

They change something on the server or in their connection, or return what their own connection has
changed. Sections are those of https://www.postgresql.org/docs/16/functions.html, unless stated
otherwise; ``tests/servers/test_routing_functions.py`` checks each that a server calls volatile.
"""

from __future__ import annotations

ACTING = frozenset(
    {
        # 9.3 random numbers: the seed belongs to the connection
        "setseed",
        # 9.13 text search, 9.15 XML: they execute a statement that is given as text
        *("ts_rewrite", "ts_stat"),
        *("cursor_to_xml", "cursor_to_xmlschema"),
        *("query_to_xml", "query_to_xml_and_xmlschema", "query_to_xmlschema"),
        # 9.17 sequences
        *("currval", "lastval", "nextval", "pg_nextoid", "setval"),
        # 9.26.8 transaction ids: reading one assigns it
        *("pg_current_xact_id", "txid_current"),
        # 9.27.1 settings; 9.27.2 signals
        *("pg_cancel_backend", "pg_log_backend_memory_contexts", "pg_reload_conf"),
        *("pg_rotate_logfile", "pg_rotate_logfile_old", "pg_terminate_backend", "set_config"),
        # 9.27.3 backups: a replica has no log of its own
        *("pg_backup_start", "pg_backup_stop", "pg_create_restore_point"),
        *("pg_current_wal_flush_lsn", "pg_current_wal_insert_lsn", "pg_current_wal_lsn"),
        *("pg_log_standby_snapshot", "pg_switch_wal"),
        # 9.27.4 recovery; 9.27.5 snapshots
        *("pg_export_snapshot", "pg_promote", "pg_wal_replay_pause", "pg_wal_replay_resume"),
        # 9.27.7 collations; 9.27.8 indexes
        *("pg_import_system_collations", "brin_desummarize_range", "brin_summarize_new_values"),
        *("brin_summarize_range", "gin_clean_pending_list"),
        # the statement NOTIFY; 35.4 large objects
        *("loread", "lowrite", "pg_notify"),
        # 38.17 extensions; src/include/catalog/pg_proc.dat
        *("pg_extension_config_dump", "pg_stop_making_pinned_objects"),
        # PostgreSQL's own extensions: pg_stat_statements, adminpack, postgres_fdw
        *("pg_stat_statements_reset", "pg_file_rename", "pg_file_sync", "pg_file_unlink"),
        *("pg_file_write", "postgres_fdw_disconnect", "postgres_fdw_disconnect_all"),
    }
)

ACTING_PREFIXES = (
    "binary_upgrade_",
    "dblink",
    "lo_",
    # 9.27.10 advisory locks
    *("pg_advisory_", "pg_try_advisory_"),
    # 9.27.6 replication
    *("pg_copy_logical_", "pg_copy_physical_", "pg_create_logical_", "pg_create_physical_"),
    *("pg_drop_replication_slot", "pg_logical_", "pg_replication_origin_advance"),
    *("pg_replication_origin_create", "pg_replication_origin_drop"),
    *("pg_replication_origin_session_", "pg_replication_origin_xact_"),
    *("pg_replication_slot_advance", "pg_sync_replication_slots"),
    # 28.2 statistics, including the connection's own; since 18 they can be set
    *("pg_stat_clear_", "pg_stat_force_", "pg_stat_reset"),
    *("pg_clear_", "pg_restore_", "pg_set_"),
)


def function_acts(name: str) -> bool:
    """Return whether a call of a function does more than read. Its schema does not matter."""
    name = name.lower()
    return name in ACTING or name.startswith(ACTING_PREFIXES)
