"""The command ``copy-to``, run in another process."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import make_url

from sa_sqlite_pool.cli import copy_to
from sa_sqlite_pool.copying.misfits import Misfit, Misfits
from sa_sqlite_pool.copying.report import CopyReport
from sa_sqlite_pool.postgresql.urls import server_url
from tests.commanding import ROOT, answer, run
from tests.copying.dirty import make_dirty
from tests.copying.files import tables_on
from tests.postgresql import App

MODELS = "tests.copying.dirty:metadata"


def test_a_copy(app: App, tmp_path: Path) -> None:
    """The output shows the rows and seconds of each table, and the next step."""
    make_dirty(tmp_path / "app.db", faults=False)
    url = str(app.url())
    done = run(tmp_path, "copy-to", "app.db", url, "--metadata", MODELS)
    assert (done.returncode, done.stderr) == (0, "")
    assert "dirty" in done.stdout
    assert "18 rows in " in done.stdout
    assert f"next: point the application at {url}" in done.stdout
    assert app.sql("SELECT count(*) FROM dirty") == "18"
    again = run(tmp_path, "copy-to", "app.db", url, "--metadata", MODELS)
    assert (again.returncode, again.stdout) == (3, "")
    assert again.stderr.startswith("sa-sqlite-pool: these tables already have rows on the server")


def test_json(app: App, tmp_path: Path) -> None:
    """JSON contains the same data, for programs."""
    make_dirty(tmp_path / "app.db", faults=False)
    found = answer(tmp_path, "copy-to", "app.db", str(app.url()), "--metadata", MODELS)
    assert set(found["seconds"]) == {"snapshot", "check", "copy", "finish", "verify"}
    assert (found["copied"], found["rows"], found["misfits"]) == (True, 18, [])
    assert [table["name"] for table in found["tables"]] == ["keyless", "parents", "dirty"]


@pytest.mark.parametrize("option", [(), ("--dry-run",)])
def test_misfits(app: App, tmp_path: Path, option: tuple[str, ...]) -> None:
    """They are listed, nothing is copied, and the exit code is 1."""
    make_dirty(tmp_path / "app.db")
    arguments = ("copy-to", "app.db", str(app.url()), "--metadata", MODELS, *option)
    done = run(tmp_path, *arguments)
    assert (done.returncode, done.stderr) == (1, "")
    assert "values that do not fit: 42; nothing was copied" in done.stdout
    assert "dirty.short: too-long, 1\n  id=1004: 'sixsix': longer than 5" in done.stdout
    found = answer(tmp_path, *arguments, code=1)
    assert found["copied"] is False
    assert {
        "table": "keyless",
        "column": "name",
        "kind": "too-long",
        "total": 1,
        "first": [{"key": {"rowid": 2}, "found": "'long'", "why": "longer than 3 characters: 4"}],
    } in found["misfits"]
    assert tables_on(app) == ""


def test_a_dry_run(app: App, tmp_path: Path) -> None:
    """It reports what would be copied, but copies nothing."""
    make_dirty(tmp_path / "app.db", faults=False)
    url = str(app.url())
    done = run(tmp_path, "copy-to", "app.db", url, "--metadata", MODELS, "--dry-run")
    assert done.stdout.startswith("app.db: all values fit; 18 rows would be copied\n")
    assert (done.returncode, tables_on(app)) == (0, "")


@pytest.mark.parametrize(
    ("url", "models", "reason"),
    [
        ("sqlite:///other.db", MODELS, "is not a PostgreSQL URL"),
        ("postgresql+psycopg2://host/name", MODELS, "the driver psycopg2, which is not supported"),
        ("nonsense", MODELS, "is not a URL"),
        ("postgresql://host/name", "models", "is not MODULE:OBJECT"),
        ("postgresql://host/name", "missing.models:Base", "No module named 'missing'"),
        ("postgresql://host/name", "tests.copying.dirty:Base", "has no attribute 'Base'"),
        ("postgresql://host/name", "tests.copying.dirty:FAULTS", "is a tuple, and no MetaData"),
        ("postgresql://host/name", ":Base", "':Base' is not MODULE:OBJECT"),
        ("postgresql://host/name", "..models:Base", "'..models:Base' is not MODULE:OBJECT"),
        ("postgresql+asyncpg://host/name?foo=bar", MODELS, "asyncpg has no option foo: leave it"),
        ("postgresql://host:99999/name", MODELS, "has a port that is not between 1 and 65535"),
        ("postgresql://host:abc/name", MODELS, "'postgresql://host:abc/name' is not a URL"),
    ],
)
def test_wrong_arguments(tmp_path: Path, url: str, models: str, reason: str) -> None:
    """They are refused, with the reason, before the file is opened."""
    done = run(tmp_path, "copy-to", "app.db", url, "--metadata", models)
    assert (done.returncode, done.stdout) == (4, "")
    assert reason in done.stderr


@pytest.mark.parametrize("url", ["u:se@cret@host/name", "postgresql://u:se@cret@host/name"])
def test_a_password_is_not_shown(tmp_path: Path, url: str) -> None:
    """It is hidden even if it cannot be told from the rest."""
    done = run(tmp_path, "copy-to", "app.db", url, "--metadata", MODELS)
    assert (done.returncode, done.stdout) == (4, "")
    assert "***@host/name' " in done.stderr
    assert "in a password, write %40 for @" in done.stderr
    assert "cret" not in done.stderr
    assert "se@" not in done.stderr


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import os; os.environ['DATABASE_URL_OF_NOBODY']", "KeyError: 'DATABASE_URL_OF_NOBODY'"),
        ("def (", "SyntaxError: invalid syntax (models.py, line 1)"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit('no settings')", "SystemExit: no settings"),
    ],
)
def test_models_that_raise(tmp_path: Path, program: str, reason: str) -> None:
    """One line names the error."""
    (tmp_path / "models.py").write_text(program)
    done = run(tmp_path, "copy-to", "app.db", "postgresql://host/name", "--metadata", "models:Base")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (4, "", 1)
    assert f"'models:Base' cannot be imported: it raised {reason}. See: " in done.stderr


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("postgres://u:p@host/name", "postgresql+asyncpg://u:p@host/name"),
        (
            "postgres+psycopg://host/name?sslmode=require",
            "postgresql+psycopg://host/name?sslmode=require",
        ),
        ("postgresql://host/name?sslmode=require", "postgresql+asyncpg://host/name?ssl=require"),
        ("postgresql+asyncpg://host/name?timeout=5", "postgresql+asyncpg://host/name?timeout=5"),
        ("postgresql+asyncpg:///name?host=/run", "postgresql+asyncpg:///name?host=/run"),
    ],
)
def test_urls_as_they_are_handed_out(given: str, taken: str) -> None:
    """URLs mean what their provider intends."""
    pytest.importorskip("asyncpg")
    found = server_url(given)
    assert found == make_url(taken)


def test_keys_that_json_does_not_have(app: App, tmp_path: Path) -> None:
    """They are printed as strings, so that the output is valid JSON for strict programs, too."""
    (tmp_path / "models.py").write_text(
        "from sqlalchemy import *\nmetadata = MetaData()\n"
        "Table('t', metadata, Column('id', String, primary_key=True), Column('s', String(1)))\n"
    )
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection, connection:
        connection.execute("CREATE TABLE t (id, s)")
        connection.execute(
            "INSERT INTO t VALUES (9e999, 'aa'), (CAST(x'ff' AS TEXT), 'aa'), (x'00', 'aa'), "
            "(1.5, 'aa'), ('é', 'aa'), (NULL, 'aa')"
        )
    url = str(app.url())
    done = run(tmp_path, "copy-to", "app.db", url, "--metadata", "models:metadata", "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout, parse_constant=pytest.fail)
    (long,) = [group for group in found["misfits"] if group["kind"] == "too-long"]
    keys = [misfit["key"]["id"] for misfit in long["first"]]
    assert keys == ["inf", "'\\udcff'", "b'\\x00'", 1.5, "é", None]


def test_models_that_the_server_refuses(app: App, tmp_path: Path) -> None:
    """They are listed like values, with the same exit code."""
    (tmp_path / "models.py").write_text(
        "from sqlalchemy import *\nmetadata = MetaData()\nTable('t', metadata, Column('id', "
        "Integer, primary_key=True), Column('s', Boolean, server_default=text('1')))\n"
    )
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, s)")
    url = str(app.url())
    done = run(tmp_path, "copy-to", "app.db", url, "--metadata", "models:metadata", "--dry-run")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith(
        "app.db: parts of the models that PostgreSQL does not accept: 1; nothing was copied\n\n"
        't: schema, 1\n  CREATE TABLE t: column "s" is of type boolean'
    )


def test_a_server_that_is_not_there(app: App, tmp_path: Path) -> None:
    """One line is printed, and the exit code is 3; this includes a missing database."""
    make_dirty(tmp_path / "app.db", faults=False)
    for url in (app.url().set(port=1), app.url().set(database="missing")):
        done = run(tmp_path, "copy-to", "app.db", str(url), "--metadata", MODELS)
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr.startswith("sa-sqlite-pool: ")
        assert done.stderr.count("\n") == 1


INTERRUPTED = """
import sys, threading
from sa_sqlite_pool.cli import copy_to
from sa_sqlite_pool.cli.app import run

def say(self, phase, done, total):
    if phase == "finish":
        print(phase, flush=True)
        sys.stdin.read(1)

copy_to._Bars.__call__ = say
run()
"""


def test_keys_that_json_has_no_word_for() -> None:
    """SQLite's REAL may be infinite, and ``Infinity`` is not valid JSON."""
    key = {"a": float("inf"), "b": float("-inf"), "c": 1.5, "d": b"x", "e": None}
    misfits = Misfits("t", "x", "value", 1, [Misfit(key, "'x'", "it is no number")])
    report = CopyReport([], {}, misfits=[misfits])
    printed = copy_to.as_json(Path("app.db"), make_url("postgresql://host/name"), report)
    found = json.loads(json.dumps(printed, allow_nan=False))["misfits"][0]["first"][0]["key"]
    assert found == {"a": "inf", "b": "-inf", "c": 1.5, "d": "b'x'", "e": None}


def test_ctrl_c(app: App, tmp_path: Path) -> None:
    """During a copy, it prints one line, exits with 130, and leaves the server unchanged."""
    make_dirty(tmp_path / "app.db", faults=False)
    arguments = ("copy-to", str(tmp_path / "app.db"), str(app.url()), "--metadata", MODELS)
    child = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "finish\n"
    child.send_signal(signal.SIGINT)
    output, errors = child.communicate("\n" * 1000, timeout=60)
    assert (child.returncode, errors) == (130, "sa-sqlite-pool: interrupted\n")
    assert output.replace("finish\n", "") == ""
    assert tables_on(app) == ""
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("sa_sqlite")] == []
