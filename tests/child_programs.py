"""What the children of tests run. The fork server imports it, and the package with it."""

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
