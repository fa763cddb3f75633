"""Each volatile function of the server is in one list: it acts, it queries, or it is internal.

A new function of a later server makes this fail: look it up, and add it to a list, or to
``sa_sqlite_pool/postgresql/functions.py``.
"""

from __future__ import annotations

import re

from sa_sqlite_pool.postgresql.functions import ACTING, ACTING_PREFIXES, function_acts
from tests.postgresql import Cluster


def names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# The result describes the server or connection that is queried; nothing is changed.
OF_THIS_SERVER = names(
    """
    current_query pg_blocking_pids pg_control_checkpoint pg_control_init pg_control_recovery
    pg_control_system pg_current_logfile pg_get_backend_memory_contexts
    pg_get_multixact_members pg_get_shmem_allocations pg_get_wal_replay_pause_state
    pg_get_wal_resource_managers pg_hba_file_rules pg_ident_file_mappings pg_is_in_recovery
    pg_is_wal_replay_paused pg_isolation_test_session_is_blocked pg_jit_available
    pg_last_committed_xact pg_last_wal_receive_lsn pg_last_wal_replay_lsn
    pg_last_xact_replay_timestamp pg_lock_status pg_ls_archive_statusdir pg_ls_dir
    pg_ls_logdir pg_ls_logicalmapdir pg_ls_logicalsnapdir pg_ls_replslotdir pg_ls_tmpdir
    pg_ls_waldir pg_notification_queue_usage pg_prepared_xact pg_read_binary_file
    pg_read_file pg_read_file_old pg_replication_origin_progress
    pg_safe_snapshot_blocking_pids pg_show_all_file_settings
    pg_show_replication_origin_status pg_stat_file pg_stat_have_stats
    pg_xact_commit_timestamp pg_xact_commit_timestamp_origin pg_xact_status txid_status
    """
)
OF_THIS_SERVER_PREFIXES = ("pg_stat_get_",)

# The result may differ each time; nothing is changed, and any server's result is as good.
HARMLESS = names(
    """
    amvalidate array_sample array_shuffle bernoulli clock_timestamp currtid2 gen_random_uuid
    pg_collation_actual_version pg_database_collation_actual_version pg_database_size
    pg_indexes_size pg_partition_ancestors pg_partition_tree pg_relation_size
    pg_sequence_last_value pg_sleep pg_sleep_for pg_sleep_until pg_table_size
    pg_tablespace_size pg_total_relation_size random random_normal system timeofday
    """
)

# SQL cannot call these.
INTERNAL = re.compile(r".*(?:handler|_validator)$|dsnowball_")

_VOLATILE = """
SELECT DISTINCT proname FROM pg_proc
WHERE provolatile = 'v' AND pronamespace = 'pg_catalog'::regnamespace
    AND prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
"""


def volatile(cluster: Cluster) -> set[str]:
    return set(cluster.primary.sql(_VOLATILE).split())


def kinds(name: str) -> list[str]:
    """Return the lists that contain a function."""
    lists = {
        "acting": function_acts(name),
        "of this server": name in OF_THIS_SERVER or name.startswith(OF_THIS_SERVER_PREFIXES),
        "harmless": name in HARMLESS,
        "internal": INTERNAL.match(name) is not None,
    }
    return [kind for kind, has in lists.items() if has]


def test_each_volatile_function_is_in_one_list(cluster: Cluster) -> None:
    """No function is missing, and none is in two lists."""
    assert {name: kinds(name) for name in volatile(cluster) if len(kinds(name)) != 1} == {}


# PostgreSQL's extensions, and functions that are newer than 16.
NOT_IN_EVERY_SERVER = (
    *("dblink", "pg_file_", "pg_stat_statements_reset", "postgres_fdw_disconnect"),
    *("pg_clear_", "pg_restore_", "pg_set_", "pg_sync_replication_slots"),
)


def test_what_acts_is_there(cluster: Cluster) -> None:
    """Each name or prefix is that of a function: none is misspelt."""
    known = cluster.primary.sql("SELECT proname FROM pg_proc").split()
    strange = {
        name
        for name in (*ACTING, *ACTING_PREFIXES)
        if not any(one.startswith(name) for one in known)
    }
    assert {name for name in strange if not name.startswith(NOT_IN_EVERY_SERVER)} == set()


def test_stable_functions_that_act(cluster: Cluster) -> None:
    """Of those that a server does not call volatile, these assign a number to the transaction."""
    stable = cluster.primary.sql(
        "SELECT DISTINCT proname FROM pg_proc "
        "WHERE provolatile <> 'v' AND pronamespace = 'pg_catalog'::regnamespace"
    ).split()
    assert {name for name in stable if function_acts(name)} == {
        *("pg_current_xact_id", "txid_current", "ts_rewrite"),
    }
