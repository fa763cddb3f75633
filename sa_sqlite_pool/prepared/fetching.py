"""Fetch only as many rows as a result needs: the rest are not even computed."""

from __future__ import annotations

import sqlite3

from ..execution.replies import Execute, Parameters, Reply, calls_driver


def _execute_for(count: int) -> Execute:
    @calls_driver
    def execute(connection: sqlite3.Connection, sql: str, parameters: Parameters) -> Reply:
        cursor = connection.cursor()
        try:
            cursor.execute(sql, parameters)
            return Reply(cursor.fetchmany(count), cursor.description, -1, None)
        finally:
            cursor.close()

    return execute


execute_for_one = _execute_for(1)
"""Execute a statement and fetch its first row."""

execute_for_two = _execute_for(2)
"""Execute a statement and fetch two rows, enough to distinguish one row from several."""
