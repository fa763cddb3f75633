"""The examples of docs/ run, and print what the pages show."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integrations.serving import serve
from tests.postgresql import App, until

DOCS = Path(__file__).parent.parent / "docs"


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def run(page: str, directory: Path, program: str = "", number: int = 0) -> str:
    """Return the output of a program of a page."""
    program = program or Path(page).with_suffix(".py").name
    (directory / program).write_text(blocks(page, "python")[number])
    done = subprocess.run(
        [sys.executable, program],
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
        env={"PYTHONUNBUFFERED": "1"},
    )
    return done.stdout


def test_stopping(tmp_path: Path) -> None:
    """The program prints the output of the page, line numbers included."""
    output = re.sub(r"idle for \d\.\d s", "idle for 0.5 s", run("stopping.md", tmp_path))
    assert output == blocks("stopping.md", "text")[0]


def test_testing(tmp_path: Path) -> None:
    """The tests of the page pass, with warnings turned into errors."""
    names = ("notes.py", "conftest.py", "test_notes.py")
    for name, block in zip(names, blocks("testing.md", "python"), strict=True):
        (tmp_path / name).write_text(block)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nfilterwarnings = error\nasyncio_default_fixture_loop_scope = function\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert "3 passed" in done.stdout, done.stdout + done.stderr


def test_logging(tmp_path: Path) -> None:
    """The program prints the page's output, except for seconds. logging.py would hide Python's."""
    output = re.sub(r"\d+\.\d+ s", "N s", run("logging.md", tmp_path, "notes.py"))
    output = re.sub(r'("seconds_\w+": )\d+\.\d+', r"\1N", output)
    shown = re.sub(r"\d+\.\d+ s", "N s", blocks("logging.md", "text")[0])
    assert output == re.sub(r'("seconds_\w+": )\d+\.\d+', r"\1N", shown)


def test_wal(tmp_path: Path) -> None:
    """The program prints the page's output, except for sizes and seconds."""
    output = re.sub(r"\d+\.\d (MiB|s)", r"N \1", run("wal.md", tmp_path))
    assert output == blocks("wal.md", "text")[0]


def test_backup(tmp_path: Path) -> None:
    """The program prints the page's output."""
    assert run("backup.md", tmp_path) == blocks("backup.md", "text")[0]


def test_the_nightly_backup_and_the_restore_from_a_shell(tmp_path: Path) -> None:
    """They work as shown, for the database that the page's first program creates."""
    run("backup.md", tmp_path)
    (tmp_path / "backups").mkdir()
    (tmp_path / "backup.py").write_text(blocks("backup.md", "python")[1])
    command = [sys.executable, "backup.py", "app.db", "backups"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=60)
    (copy,) = (tmp_path / "backups").iterdir()
    program = re.findall("python -c '(.*)'", blocks("backup.md", "console")[0])[0]
    command = [sys.executable, "-c", program, str(copy), "restored.db"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=60)
    with contextlib.closing(sqlite3.connect(tmp_path / "restored.db")) as restored:
        assert restored.execute("SELECT count(*) FROM notes").fetchone() == (2,)


def test_closures(tmp_path: Path) -> None:
    """The program prints the page's output."""
    assert run("closures.md", tmp_path) == blocks("closures.md", "text")[0]


def test_prepared(tmp_path: Path) -> None:
    """The program prints the page's output."""
    assert run("prepared.md", tmp_path) == blocks("prepared.md", "text")[0]


def test_drivers(tmp_path: Path) -> None:
    """The program prints the page's output."""
    assert run("drivers.md", tmp_path) == blocks("drivers.md", "text")[0]


def test_drop_in(tmp_path: Path) -> None:
    """The program prints the page's output; the imports above it, and SQLModel's, work."""
    (tmp_path / "drop_in.py").write_text(blocks("drop_in.md", "python")[1])
    command = [sys.executable, "-W", "error", "drop_in.py"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == (blocks("drop_in.md", "text")[0], "")
    others = [block for number, block in enumerate(blocks("drop_in.md", "python")) if number != 1]
    for block in others:
        if "sqlmodel" not in block or importlib.util.find_spec("sqlmodel") is not None:
            subprocess.run([sys.executable, "-c", block], check=True, timeout=60)


def test_statistics(tmp_path: Path) -> None:
    """The program prints the page's output, except for seconds."""
    output = re.sub(r"\d+\.\d+(e-\d+)?", "N", run("statistics.md", tmp_path, "app.py"))
    assert output == blocks("statistics.md", "text")[0]


@pytest.mark.parametrize(("number", "needs"), [(0, "prometheus_client"), (2, "opentelemetry.sdk")])
def test_metrics(tmp_path: Path, number: int, needs: str) -> None:
    """The programs print the page's output."""
    pytest.importorskip(needs)
    output = run("metrics.md", tmp_path, number=number)
    assert output == blocks("metrics.md", "text")[number // 2]


def test_tracing(tmp_path: Path) -> None:
    """The program prints the page's output, line numbers included."""
    pytest.importorskip("opentelemetry.sdk")
    pytest.importorskip("opentelemetry.instrumentation.sqlalchemy")
    assert run("tracing.md", tmp_path) == blocks("tracing.md", "text")[0]


async def test_servers(app: App) -> None:
    """The page's application works: a client finds its own order, and so does another client."""
    source = next(one for one in blocks("servers.md", "python") if "FreshnessMiddleware" in one)
    for host, server in zip(("db1", "db2", "db3"), app.cluster.servers, strict=True):
        shown = f'"postgresql+asyncpg://app@{host}/app"'
        assert shown in source
        url = app.url(server).render_as_string(hide_password=False)
        source = source.replace(shown, repr(url))
    program: dict[str, Any] = {"__name__": "servers"}
    exec(compile(source, "servers.md", "exec", dont_inherit=True), program)
    async with serve(program["app"]) as (client, _):
        async with program["db"].writer_engine.begin() as connection:
            await connection.run_sync(program["Base"].metadata.create_all)
        await until(app.cluster.caught_up)
        for number in range(20):
            answer = await client.post("/orders", params={"what": f"lamp {number}"})
            assert answer.status_code == 201
            assert (await client.get("/orders")).json()[-1] == f"lamp {number}"
