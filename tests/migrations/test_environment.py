"""``run_env()`` under the ``alembic`` command, seen from outside, and its refusals."""

from __future__ import annotations

import argparse
import logging
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from alembic import command
from alembic.util import CommandError

from sa_sqlite_pool import ConfigurationError, SQLiteDatabase, WriteTimeout
from sa_sqlite_pool.migrations import current, environment, upgrade
from tests.migrations.scripts import ENV, MODELS, REBUILD, Scripts, finish
from tests.turn.locks import blocked, wait_until

LOGGING = """
[loggers]
keys = root
[handlers]
keys = console
[formatters]
keys = plain
[logger_root]
level = INFO
handlers = console
[handler_console]
class = StreamHandler
args = (sys.stderr,)
formatter = plain
[formatter_plain]
format = AS THE INI SAYS %(message)s
"""


# -- commands -----------------------------------------------------------------------------------


def test_the_commands(scripts: Scripts) -> None:
    """Each works as Alembic's documentation describes."""
    scripts.alembic("upgrade", "head")
    assert scripts.alembic("current").out == "0001 (head)\n"
    assert scripts.alembic("heads").out == "0001 (head)\n"
    assert "<base> -> 0001 (head)" in scripts.alembic("history").out
    assert "No new upgrade operations detected." in scripts.alembic("check").out
    scripts.alembic("stamp", "base")
    assert scripts.alembic("current").out == ""
    scripts.alembic("stamp", "head")
    scripts.alembic("downgrade", "-1")
    assert scripts.query("SELECT name FROM sqlite_master WHERE type = 'table'") == [
        ("alembic_version",)
    ]


def test_autogenerate(scripts: Scripts) -> None:
    """After a model changes, a batch-mode revision is generated and applied; no change remains."""
    scripts.alembic("upgrade", "head")
    scripts.fill(parents=3, children=30)
    children = scripts.query("SELECT * FROM children")
    scripts.write_env(MODELS.replace('"n", sa.Integer', '"n", sa.String(9)') + ENV)
    said = scripts.alembic("check", fails=True)
    assert "New upgrade operations detected" in said.err + said.out

    scripts.alembic("revision", "--autogenerate", "-m", "longer", "--rev-id", "0002")

    written = (scripts.versions / "0002_longer.py").read_text()
    assert "with op.batch_alter_table('parents'" in written
    scripts.alembic("upgrade", "head")
    assert "No new upgrade operations detected." in scripts.alembic("check").out
    assert scripts.query("SELECT * FROM children") == children


def test_batch_mode_may_be_switched_off(scripts: Scripts) -> None:
    """``render_as_batch`` is the project's choice, and so are Alembic's other options."""
    scripts.migrate("head")
    more = "render_as_batch=False, include_object=lambda o, name, *_: name != 'm'"
    models = MODELS.replace('"n", sa.Integer)', '"n", sa.String(9)), sa.Column("m", sa.Integer)')
    scripts.write_env(models + ENV.replace("metadata=metadata", f"metadata=metadata, {more}"))
    scripts.alembic("revision", "--autogenerate", "-m", "longer", "--rev-id", "0002")
    written = (scripts.versions / "0002_longer.py").read_text()
    assert "op.alter_column('parents', 'n'" in written
    assert "'m'" not in written


def test_other_options_of_the_ini_file(scripts: Scripts) -> None:
    """Options such as ``sqlalchemy.echo`` are passed to the engine."""
    scripts.write_ini("sqlite+aiosqlite:///%(here)s/app.db\nsqlalchemy.echo = true")
    assert "BEGIN IMMEDIATE" in scripts.alembic("upgrade", "head").out


@pytest.mark.parametrize("url", ["sqlite:///app.db", "sqlite+aiosqlite:///app.db", "app.db"])
def test_spellings_of_the_url(scripts: Scripts, url: str) -> None:
    """The plain URL, which synchronous tools require, and a path are accepted, too."""
    scripts.write_ini(url)
    scripts.alembic("upgrade", "head")
    assert scripts.query("PRAGMA journal_mode") == [("wal",)]
    assert scripts.query("SELECT version_num FROM alembic_version") == [("0001",)]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", r"there is no sqlalchemy\.url in .*alembic\.ini; add one such as"),
        ("mysql+aiomysql://localhost/app", "run_env.. needs a sqlite.aiosqlite URL, not mysql"),
        ("driver://user:pass@localhost/dbname", "needs a sqlite.aiosqlite URL, not driver"),
    ],
)
@pytest.mark.parametrize("more", [[], ["--sql"]])
def test_wrong_urls(scripts: Scripts, url: str, message: str, more: list[str]) -> None:
    """The command prints what to do, without a traceback."""
    scripts.write_ini(url)
    said = scripts.alembic("upgrade", "head", *more, fails=True)
    assert re.search(message, said.err + said.out)
    assert "Traceback" not in said.err


def test_a_violation_on_the_command_line(scripts: Scripts) -> None:
    """Violations are named, without a traceback."""
    scripts.migrate("head")
    scripts.fill(parents=3, children=30)
    scripts.add("op.execute('DELETE FROM parents')")
    said = scripts.alembic("upgrade", "head", fails=True)
    assert "children (rowid 9) refers to no row of parents; and 20 more" in said.err + said.out
    assert "Traceback" not in said.err


def test_the_command_waits_for_long(scripts: Scripts, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's ``write_timeout`` does not apply: it waits as long as a migration may take."""
    assert environment.DEFAULT_TIMEOUT == 300
    monkeypatch.setattr(environment, "DEFAULT_TIMEOUT", 0.02)
    outsider = sqlite3.connect(scripts.database, isolation_level=None)
    outsider.execute("PRAGMA journal_mode = WAL")
    outsider.execute("BEGIN IMMEDIATE")
    with pytest.raises(WriteTimeout, match=r"waited 0\.02 s"):
        scripts.migrate("head")
    config = scripts.config
    config.cmd_opts = argparse.Namespace()  # as the command sets it: it prints no traceback then
    with pytest.raises(CommandError, match=r"waited 0\.02 s"):
        command.upgrade(config, "head")
    outsider.close()


def test_several_commands_at_once(scripts: Scripts) -> None:
    """One process migrates; the others wait, and then find nothing to do."""
    scripts.write_ini(more=LOGGING)
    with scripts.gate() as let_go_on:
        workers = [scripts.start("-m", "alembic", "upgrade", "head") for _ in range(3)]
        wait_until(lambda: blocked(scripts.database) == 2)
        let_go_on()
        printed = [finish(worker).err for worker in workers]
    assert sorted(one.count("Running upgrade") for one in printed) == [0, 0, 2]


# -- offline ------------------------------------------------------------------------------------


def run_script(scripts: Scripts, script: str) -> None:
    """Run the script as another SQLite client that enforces foreign keys."""
    with closing(sqlite3.connect(scripts.database)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.executescript(script)
        assert connection.execute("PRAGMA foreign_keys").fetchone() == (1,)
        assert connection.execute("SELECT * FROM sqlite_temp_master").fetchall() == []


REBUILD_OFFLINE = """
op.execute("CREATE TABLE new (id INTEGER NOT NULL PRIMARY KEY, n INTEGER DEFAULT 0)")
op.execute("INSERT INTO new SELECT * FROM parents")
op.execute("DROP TABLE parents")
op.execute("ALTER TABLE new RENAME TO parents")
"""


def test_offline_sql(scripts: Scripts) -> None:
    """It upgrades from nothing, and between revisions, and keeps every child row."""
    run_script(scripts, scripts.alembic("upgrade", "head", "--sql").out)
    assert scripts.query("SELECT version_num FROM alembic_version") == [("0001",)]
    scripts.fill(parents=3, children=30)
    scripts.add(REBUILD_OFFLINE)
    run_script(scripts, scripts.alembic("upgrade", "0001:0002", "--sql").out)
    assert scripts.query("SELECT version_num FROM alembic_version") == [("0002",)]
    assert scripts.query("SELECT count(*) FROM children") == [(30,)]
    script = scripts.alembic("downgrade", "0002:base", "--sql").out
    run_script(scripts, script)
    tables = {name for (name,) in scripts.query("SELECT name FROM sqlite_master")}
    assert not tables & {"parents", "children"}


def test_an_offline_script_rolls_violations_back(scripts: Scripts) -> None:
    """It does so in a client that stops at errors, and in one that continues."""
    scripts.migrate("head")
    scripts.fill(parents=3, children=30)
    scripts.add("op.execute('CREATE TABLE half (id INTEGER)')\nop.execute('DELETE FROM parents')")
    before = scripts.state()
    script = scripts.alembic("upgrade", "0001:0002", "--sql").out

    with pytest.raises(
        sqlite3.IntegrityError, match="foreign keys are violated, so everything is rolled"
    ):
        run_script(scripts, script)
    assert scripts.state() == before

    goes_on = sqlite3.connect(scripts.database, isolation_level=None)
    refused = list[str]()
    for statement in script.split(";"):
        try:
            goes_on.execute(statement)
        except sqlite3.Error as error:
            refused.append(str(error))
    goes_on.close()
    assert "cannot commit - no transaction is active" in refused
    assert scripts.state() == before


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="there is no sqlite3 shell")
def test_an_offline_script_in_the_shell(scripts: Scripts) -> None:
    """The shell continues after errors, and yet nothing is changed."""
    scripts.migrate("head")
    scripts.fill(parents=3, children=30)
    scripts.add("op.execute('DELETE FROM parents')")
    before = scripts.state()
    script = scripts.alembic("upgrade", "0001:0002", "--sql").out
    subprocess.run(["sqlite3", str(scripts.database)], input=script, text=True, check=False)
    assert scripts.state() == before


def test_autocommit_blocks_are_refused_offline(scripts: Scripts) -> None:
    """The script would contain a COMMIT in the middle."""
    scripts.add("with op.get_context().autocommit_block(): op.execute('VACUUM')")
    said = scripts.alembic("upgrade", "head", "--sql", fails=True)
    assert "a revision uses autocommit_block()" in said.err + said.out


# -- options ------------------------------------------------------------------------------------

REFUSED = {
    "connection": "None",
    "url": "'sqlite:///x'",
    "dialect": "None",
    "dialect_name": "'sqlite'",
    "dialect_opts": "{}",
    "transactional_ddl": "False",
    "transaction_per_migration": "True",
    "as_sql": "True",
    "literal_binds": "True",
    "starting_rev": "'0001'",
    "destination_rev": "'0001'",
    "purge": "True",
    "dont_mutate": "True",
    "fn": "None",
    "script": "None",
}


@pytest.mark.parametrize("option", REFUSED)
async def test_options_that_would_lift_a_guarantee(
    scripts: Scripts, db: SQLiteDatabase, option: str
) -> None:
    """The refusal gives the reason, before anything is done."""
    given = f"metadata=metadata, {option}={REFUSED[option]}"
    scripts.write_env(MODELS + ENV.replace("metadata=metadata", given))
    with pytest.raises(ConfigurationError, match=rf"leave {option} out of run_env\(\): .+"):
        await upgrade(db, "head", config=scripts.ini)
    assert scripts.query("SELECT * FROM sqlite_master") == []


def test_refusals_on_the_command_line(scripts: Scripts) -> None:
    """The message is printed without a traceback."""
    scripts.write_env(MODELS + ENV.replace("metadata=metadata", "metadata=metadata, as_sql=True"))
    said = scripts.alembic("upgrade", "head", fails=True)
    assert "`alembic upgrade head --sql`" in said.err + said.out
    assert "Traceback" not in said.err


def test_a_script_gets_the_error_itself(scripts: Scripts) -> None:
    """Only the command converts it to an error of its own."""
    scripts.write_ini(url="")
    with pytest.raises(ConfigurationError, match=r"there is no sqlalchemy\.url"):
        command.upgrade(scripts.config, "head")


def test_errors_of_alembic_under_the_command(scripts: Scripts) -> None:
    """They are raised unchanged."""
    with pytest.raises(CommandError, match="Can't locate revision"):
        command.upgrade(scripts.config, "nowhere")


# -- logging ------------------------------------------------------------------------------------


@contextmanager
def loggers_kept() -> Iterator[logging.Logger]:
    """Yield a logger of the application, and restore the root logger afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield logging.getLogger("application")
    finally:
        for handler in set(root.handlers) - set(handlers):
            handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)


def test_the_command_logs_as_the_ini_file_says(scripts: Scripts) -> None:
    """Existing loggers stay enabled; without logging sections, logging is not configured."""
    assert scripts.alembic("upgrade", "head").err == ""
    scripts.write_ini(more=LOGGING)
    scripts.write_env(
        "import logging\nmine = logging.getLogger('mine')\n"
        + MODELS
        + ENV
        + "mine.warning('heard')\n"
    )
    said = scripts.alembic("current").err
    assert "AS THE INI SAYS Context impl SQLiteImpl" in said
    assert "AS THE INI SAYS heard" in said


@pytest.mark.parametrize("options", [None, argparse.Namespace()])
async def test_an_applications_logging_is_left_alone(
    scripts: Scripts, db: SQLiteDatabase, options: argparse.Namespace | None
) -> None:
    """`await upgrade()` neither replaces nor disables it, even with a command line of its own."""
    scripts.write_ini(more=LOGGING)
    config = scripts.config
    config.cmd_opts = options
    with loggers_kept() as mine:
        before = logging.getLogger().handlers[:]
        await upgrade(db, "head", config=config)
        assert logging.getLogger().handlers == before
        assert not mine.disabled


def test_a_scripts_logging_is_left_alone(scripts: Scripts) -> None:
    """A program that calls Alembic's functions is not the command."""
    scripts.write_ini(more=LOGGING)
    with loggers_kept():
        before = logging.getLogger().handlers[:]
        command.upgrade(scripts.config, "head")
        assert logging.getLogger().handlers == before


def test_a_rebuild_on_the_command_line(scripts: Scripts) -> None:
    """The command gives the same protection."""
    scripts.migrate("head")
    scripts.fill(parents=3, children=30)
    scripts.add(REBUILD)
    scripts.alembic("upgrade", "head")
    assert scripts.query("SELECT count(*) FROM children") == [(30,)]


@pytest.mark.parametrize("name", ["alembic.ini", "pyproject.toml"])
@pytest.mark.parametrize("has_ini", [True, False])
async def test_a_pyproject_file(scripts: Scripts, name: str, has_ini: bool) -> None:
    """As `alembic init --template pyproject` creates it, it contains the scripts' location."""
    toml = scripts.directory / "pyproject.toml"
    toml.write_text('[tool.alembic]\nscript_location = "%(here)s/scripts"\n')
    scripts.ini.write_text("[alembic]\n")
    if not has_ini:
        scripts.ini.unlink()
    async with SQLiteDatabase(scripts.database) as db:
        if name == "alembic.ini" and not has_ini:
            with pytest.raises(ConfigurationError, match="give the path of alembic"):
                await upgrade(db, "head", config=scripts.directory / name)
            return
        await upgrade(db, "head", config=scripts.directory / name)
        assert await current(db, config=str(scripts.directory / name)) == ("0001",)


async def test_a_pyproject_file_of_other_tools(scripts: Scripts) -> None:
    """It has no effect."""
    (scripts.directory / "pyproject.toml").write_text("[tool.ruff]\nline-length = 100\n")
    async with SQLiteDatabase(scripts.database) as db:
        await upgrade(db, "head", config=scripts.ini)
