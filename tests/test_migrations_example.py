"""The Alembic project in ``migrations_example``, run from the outside as a user would."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.importorskip("alembic")

EXAMPLE = Path(__file__).parents[1] / "migrations_example"
CUSTOMERS, ORDERS, LINES = 50, 2_000, 4_000
CHILD_ROWS = {
    "orders": "SELECT id, customer_id, placed_at FROM orders ORDER BY id",
    "order_lines": "SELECT * FROM order_lines ORDER BY id",
}

Rows = list[tuple[Any, ...]]


class Printed(NamedTuple):
    """The output of a command."""

    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Project:
    """A copy of the example, in its own directory."""

    directory: Path

    @classmethod
    def copied(cls, source: Path, directory: Path, *ignored: str) -> Project:
        ignore = shutil.ignore_patterns("__pycache__", *ignored)
        return cls(Path(shutil.copytree(source, directory, ignore=ignore)))

    # -- commands ---------------------------------------------------------------------------------

    def alembic(self, *arguments: str) -> Printed:
        return finish(self.start("-m", "alembic", *arguments))

    def failing_alembic(self, *arguments: str) -> Printed:
        return finish(self.start("-m", "alembic", *arguments), fails=True)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.directory,
            env={**os.environ, "PYTHONPATH": str(EXAMPLE.parent), "PYTHONWARNINGS": "error"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    # -- the database, as a program without this package sees it ----------------------------------

    @contextmanager
    def opened(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.directory / "example.db")) as connection, connection:
            yield connection

    def query(self, sql: str) -> Rows:
        with self.opened() as connection:
            return connection.execute(sql).fetchall()

    def revision(self) -> Rows:
        return self.query("SELECT version_num FROM alembic_version")

    def schema(self) -> dict[str, str]:
        """Return the SQL of each table and index, without spaces and quotes that a rename adds."""
        rows = self.query("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
        return {name: " ".join(sql.replace('"', "").split()) for name, sql in rows}

    def child_rows(self) -> dict[str, Rows]:
        return {table: self.query(sql) for table, sql in CHILD_ROWS.items()}

    # -- the files --------------------------------------------------------------------------------

    def replace(self, file: str, old: str, new: str) -> None:
        path = self.directory / file
        source = path.read_text()
        assert source.count(old) == 1, f"{file} does not say {old!r} exactly once"
        path.write_text(source.replace(old, new))

    def add_revision(self, upgrade: str) -> None:
        """Add revision 0004, which executes the statements of ``upgrade``."""
        (self.directory / "migrations" / "versions" / "0004_added.py").write_text(
            "from alembic import op\n"
            "revision, down_revision = '0004', '0003'\n"
            "def upgrade():\n"
            f"    for statement in {upgrade.split(';')!r}:\n"
            "        op.execute(statement)\n"
        )


def finish(process: subprocess.Popen[str], *, fails: bool = False) -> Printed:
    with process:
        try:
            printed = Printed(*process.communicate(timeout=60))
        finally:
            process.kill()
    assert (process.returncode != 0) is fails, printed.err
    return printed


def up_to(last: int) -> range:
    return range(1, last + 1)


def fill(connection: sqlite3.Connection) -> None:
    """Insert a few thousand rows, as in revision 0001; every other credit limit is unknown."""
    connection.executemany(
        "INSERT INTO customers VALUES (?, ?, ?, ?)",
        [(n, f"name {n}", f"{n}@example.org", n if n % 2 else None) for n in up_to(CUSTOMERS)],
    )
    connection.executemany(
        "INSERT INTO orders (id, customer_id) VALUES (?, ?)",
        [(n, n % CUSTOMERS + 1) for n in up_to(ORDERS)],
    )
    connection.executemany(
        "INSERT INTO order_lines VALUES (?, ?, ?, ?, ?)",  # the last order has none
        [(n, n % (ORDERS - 1) + 1, f"product {n}", n % 3 + 1, n) for n in up_to(LINES)],
    )


@pytest.fixture
def empty(tmp_path: Path) -> Project:
    """Provide the example without a database."""
    return Project.copied(EXAMPLE, tmp_path / "project", "example.db*")


@pytest.fixture(scope="module")
def filled_once(tmp_path_factory: pytest.TempPathFactory) -> Project:
    directory = tmp_path_factory.mktemp("filled") / "project"
    project = Project.copied(EXAMPLE, directory, "example.db*")
    project.alembic("upgrade", "0001")
    with project.opened() as connection:
        fill(connection)
    return project


@pytest.fixture
def filled(filled_once: Project, tmp_path: Path) -> Project:
    """Provide the example at revision 0001, with rows in all tables."""
    return Project.copied(filled_once.directory, tmp_path / "project")


@pytest.fixture(scope="module")
def upgraded(filled_once: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Provide the same rows at head. The tests share the project, and do not change it."""
    directory = tmp_path_factory.mktemp("upgraded") / "project"
    project = Project.copied(filled_once.directory, directory)
    project.alembic("upgrade", "head")
    return project


# -- up and down ----------------------------------------------------------------------------------


def test_an_empty_file_becomes_what_the_models_say(empty: Project) -> None:
    """`alembic check` finds no drift after `upgrade head`, and would find a column too many."""
    empty.alembic("upgrade", "head")
    assert empty.revision() == [("0003",)]
    assert "No new upgrade operations detected" in empty.alembic("check").out

    column = "    quantity: Mapped[int]\n"
    empty.replace("models.py", column, column + column.replace("quantity", "weight_grams"))
    assert "weight_grams" in empty.failing_alembic("check").err


def test_rebuilding_the_parent_keeps_every_child_row(
    filled_once: Project, upgraded: Project
) -> None:
    """`upgrade head` replaces the parent table of thousands of rows, and loses none."""
    before = filled_once.child_rows()
    assert [len(rows) for rows in before.values()] == [ORDERS, LINES]
    assert upgraded.child_rows() == before
    assert upgraded.query("PRAGMA foreign_key_check") == []
    assert upgraded.query("PRAGMA integrity_check") == [("ok",)]


def test_the_revisions_do_what_they_say(upgraded: Project) -> None:
    """At head, credit limits are set and not negative, and totals are the sums of the lines."""
    limits = upgraded.query("SELECT id, credit_limit_cents FROM customers ORDER BY id")
    assert limits == [(n, n if n % 2 else 0) for n in up_to(CUSTOMERS)]
    for refused in ("NULL", "-1"):
        with pytest.raises(sqlite3.IntegrityError, match="credit_limit"):
            upgraded.query(f"UPDATE customers SET credit_limit_cents = {refused}")

    totals = dict.fromkeys(up_to(ORDERS), 0)
    for _, order, _, quantity, unit_price in upgraded.child_rows()["order_lines"]:
        totals[order] += quantity * unit_price
    assert totals[ORDERS] == 0
    assert dict(upgraded.query("SELECT id, total_cents FROM orders")) == totals


def test_every_downgrade_works(filled_once: Project, upgraded: Project, tmp_path: Path) -> None:
    """Downgrades restore the tables of 0001 with all child rows, and then the empty base."""
    project = Project.copied(upgraded.directory, tmp_path / "project")

    project.alembic("downgrade", "0001")
    assert project.schema() == filled_once.schema() != upgraded.schema()
    assert project.child_rows() == filled_once.child_rows()
    assert project.query("PRAGMA foreign_key_check") == []

    project.alembic("downgrade", "base")
    assert list(project.schema()) == ["alembic_version"]
    assert project.revision() == []


def test_offline_sql_makes_the_same_database(filled: Project, upgraded: Project) -> None:
    """`upgrade --sql` prints a script that any SQLite client can run, batch mode included."""
    script = filled.alembic("upgrade", "0001:head", "--sql").out
    with filled.opened() as connection:
        connection.execute("PRAGMA foreign_keys = ON")  # the script itself must handle this
        connection.executescript(script)

    assert filled.schema() == upgraded.schema()
    assert filled.child_rows() == upgraded.child_rows()
    assert filled.revision() == upgraded.revision()


# -- the protection -------------------------------------------------------------------------------


# The equivalent of Alembic's own template, on the same engine.
UNPROTECTED = """
import asyncio
from alembic import context
from models import Base
from sqlalchemy.ext.asyncio import create_async_engine
from sa_sqlite_pool import WriterPool

def migrate(connection):
    context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()

async def main():
    url = context.config.get_main_option("sqlalchemy.url")
    engine = create_async_engine(url, poolclass=WriterPool)
    async with engine.connect() as connection:
        await connection.run_sync(migrate)
        await connection.commit()
    await engine.dispose()

asyncio.run(main())
"""


def test_without_the_protection_it_is_refused(filled: Project) -> None:
    """With foreign keys left on, SQLite would silently empty the child tables."""
    (filled.directory / "migrations" / "env.py").write_text(UNPROTECTED)
    before = filled.schema(), filled.child_rows(), filled.revision()

    printed = filled.failing_alembic("upgrade", "head")

    assert "is refused: foreign keys are on" in printed.err
    assert (filled.schema(), filled.child_rows(), filled.revision()) == before


def test_a_violation_rolls_everything_back_and_is_named(filled: Project) -> None:
    """A migration that orphans rows fails and names them; schema and rows are as they were."""
    before = filled.schema(), filled.child_rows(), filled.revision()
    orphans = filled.query("SELECT id FROM orders WHERE customer_id = 7 ORDER BY id")
    filled.add_revision("CREATE TABLE audits (id INTEGER); DELETE FROM customers WHERE id = 7")

    printed = filled.failing_alembic("upgrade", "head")

    assert f"foreign keys are violated {len(orphans)} times" in printed.err
    assert f"orders (rowid {orphans[0][0]}) refers to no row of customers" in printed.err
    assert f"and {len(orphans) - 10} more" in printed.err
    assert "Traceback" not in printed.err
    assert (filled.schema(), filled.child_rows(), filled.revision()) == before


# -- concurrent processes -------------------------------------------------------------------------


def test_several_workers_may_migrate_at_once(empty: Project) -> None:
    """Of three processes that upgrade the same file, one does the work and none fails."""
    workers = [empty.start("-m", "alembic", "upgrade", "head") for _ in range(3)]

    revisions_run = [finish(worker).err.count("Running upgrade") for worker in workers]

    assert sorted(revisions_run) == [0, 0, 3]
    assert empty.revision() == [("0003",)]


def digests(project: Project) -> dict[str, str]:
    """Return a hash of all child rows, for each table."""
    rows = project.child_rows()
    assert sum(map(len, rows.values())) > 100_000
    return {name: hashlib.sha256(repr(all_).encode()).hexdigest() for name, all_ in rows.items()}


def test_the_two_commands_of_the_readme(empty: Project) -> None:
    """The first creates an old database with 100,000 child rows; the application upgrades it."""
    finish(empty.start("-m", "fill"))
    assert empty.revision() == [("0001",)]
    before = digests(empty)

    printed = finish(empty.start("-m", "app")).out

    assert "at 0001, upgraded to 0003 in" in printed
    assert "Ada has ordered for 26.50" in printed
    assert empty.revision() == [("0003",)]
    empty.query("DELETE FROM order_lines WHERE order_id > 34000")
    empty.query("DELETE FROM orders WHERE id > 34000")
    assert digests(empty) == before
    assert "remove example.db* first" in finish(empty.start("-m", "fill"), fails=True).err
    assert "at 0003, upgraded to 0003 in" in finish(empty.start("-m", "app")).out


def test_the_commands_of_the_readme_are_these(empty: Project) -> None:
    """There are two commands for a fresh machine, and two of Alembic's."""
    readme = (empty.directory / "README.md").read_text()
    commands = [line for line in readme.splitlines() if line.startswith("python -m ")]
    assert commands[:2] == ["python -m fill", "python -m app"]
    empty.alembic("upgrade", "head")
    for command in commands[2:]:
        finish(empty.start(*command.split()[1:]))
    assert empty.revision() == []


def test_applications_may_start_at_once(empty: Project) -> None:
    """Of several workers of a new installation, each one works."""
    workers = [empty.start("-m", "app") for _ in range(3)]
    for worker in workers:
        assert "upgraded to 0003" in finish(worker).out
    assert empty.query("SELECT count(*) FROM orders") == [(3,)]
