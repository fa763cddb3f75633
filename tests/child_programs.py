"""The programs of tests' child processes. The fork server imports this, and so the package."""

from __future__ import annotations

import aiosqlite  # noqa: F401 - what a dialect imports only when an engine is made
import sqlalchemy.dialects.sqlite.aiosqlite  # noqa: F401

import tests.closures.programs
import tests.commanding
import tests.doctor.patients
import tests.kills.process
import tests.programs
import tests.startup
import tests.writers  # noqa: F401
