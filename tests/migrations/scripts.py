"""Alembic script directories, as in a project."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from alembic import command
from alembic.config import Config

ROOT = Path(__file__).parents[2]

# Hooks that a test's revisions call by name: revisions are loaded from files, in its process.
hooks: dict[str, Callable[[], object]] = {}

MODELS = """
import sqlalchemy as sa

metadata = sa.MetaData()
id = sa.Column("id", sa.Integer, primary_key=True)
parents = sa.Table("parents", metadata, id, sa.Column("n", sa.Integer))
id = sa.Column("id", sa.Integer, primary_key=True)
parent_id = sa.Column("parent_id", sa.ForeignKey("parents.id", ondelete="CASCADE"))
sa.Table("children", metadata, id, parent_id)
"""
ENV = """
from sa_sqlite_pool.migrations import run_env

run_env(target_metadata=metadata)
"""
CREATE = """
op.execute("CREATE TABLE parents (id INTEGER NOT NULL PRIMARY KEY, n INTEGER)")
op.execute(
    "CREATE TABLE children (id INTEGER NOT NULL PRIMARY KEY, parent_id INTEGER, "
    "FOREIGN KEY(parent_id) REFERENCES parents (id) ON DELETE CASCADE)"
)
"""
REBUILD = """
with op.batch_alter_table("parents", recreate="always") as batch:
    batch.alter_column("n", existing_type=sa.Integer(), server_default="0")
"""
TEMPLATE = '''"""${message}"""
import sqlalchemy as sa
from alembic import op
revision, down_revision = ${repr(up_revision)}, ${repr(down_revision)}
def upgrade():
    ${upgrades if upgrades else "pass"}
def downgrade():
    ${downgrades if downgrades else "pass"}
'''

Rows = list[tuple[Any, ...]]


class Printed(NamedTuple):
    """The output of a command."""

    out: str
    err: str


@dataclass
class Scripts:
    """An Alembic project in its own directory, which contains the database ``app.db``."""

    directory: Path
    count: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.versions.mkdir(parents=True)
        (self.directory / "scripts" / "script.py.mako").write_text(TEMPLATE)
        self.write_env(MODELS + ENV)
        self.write_ini()

    def write_env(self, source: str) -> None:
        (self.directory / "scripts" / "env.py").write_text(source)

    def write_ini(self, url: str = "sqlite+aiosqlite:///%(here)s/app.db", more: str = "") -> None:
        lines = ["[alembic]", "script_location = %(here)s/scripts", "path_separator = os"]
        if url:
            lines.append(f"sqlalchemy.url = {url}")
        self.ini.write_text("\n".join(lines) + "\n" + more)

    def add(self, upgrade: str, downgrade: str = "pass") -> str:
        """Add a revision after the last one, and return its name: 0001, 0002, …"""
        self.count += 1
        name, before = f"{self.count:04}", f"{self.count - 1:04}" if self.count > 1 else None
        (self.versions / f"{name}.py").write_text(
            "import sqlalchemy as sa\n"
            "from alembic import op\n"
            "from tests.migrations.scripts import hooks\n"
            f"revision, down_revision = {name!r}, {before!r}\n"
            f"def upgrade():\n{_indented(upgrade)}\ndef downgrade():\n{_indented(downgrade)}\n"
        )
        return name

    @contextmanager
    def gate(self) -> Iterator[Callable[[], object]]:
        """Add a revision in which another process blocks until the yielded function is called."""
        gate = self.directory / "gate"
        os.mkfifo(gate)
        self.add("with open('gate') as gate: gate.readline()")
        with open(gate, "r+b", buffering=0) as ours:  # so the FIFO always has a writer
            yield lambda: ours.write(b"go on\n")

    @property
    def ini(self) -> Path:
        return self.directory / "alembic.ini"

    @property
    def versions(self) -> Path:
        return self.directory / "scripts" / "versions"

    @property
    def config(self) -> Config:
        return Config(str(self.ini))

    @property
    def database(self) -> Path:
        return self.directory / "app.db"

    # -- commands ---------------------------------------------------------------------------------

    def alembic(self, *arguments: str, fails: bool = False) -> Printed:
        return finish(self.start("-m", "alembic", *arguments), fails=fails)

    def migrate(self, revision: str) -> None:
        """Do the same as ``alembic upgrade``, without a separate process."""
        command.upgrade(self.config, revision)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.directory,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    # -- the database, as a program without this package sees it ----------------------------------

    def query(self, sql: str) -> Rows:
        with closing(sqlite3.connect(self.database)) as connection, connection:
            return connection.execute(sql).fetchall()

    def fill(self, parents: int, children: int) -> None:
        """Insert rows for revision 0001."""
        with closing(sqlite3.connect(self.database)) as connection, connection:
            connection.executemany(
                "INSERT INTO parents VALUES (?, ?)", [(n, n) for n in range(parents)]
            )
            connection.executemany(
                "INSERT INTO children VALUES (?, ?)", [(n, n % parents) for n in range(children)]
            )

    def state(self) -> tuple[Rows, ...]:
        """Return the whole content of the database."""
        tables = self.query("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
        schema = self.query("SELECT name, sql FROM sqlite_master ORDER BY name")
        return schema, *(self.query(f"SELECT * FROM {table}") for (table,) in tables)


def wait_inside(inside: threading.Event, leave: threading.Event) -> None:
    """Signal, as a hook, that the revision has been reached, and wait."""
    inside.set()
    assert leave.wait(30)


def _indented(body: str) -> str:
    return textwrap.indent(body.strip("\n"), "    ")


def finish(process: subprocess.Popen[str], *, fails: bool = False) -> Printed:
    with process:
        try:
            printed = Printed(*process.communicate(timeout=60))
        finally:
            process.kill()
    assert (process.returncode != 0) is fails, printed.out + printed.err
    return printed
