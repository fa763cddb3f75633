"""The shop on PostgreSQL, run as by `make demo-postgresql`, for one second each."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from examples.local_postgresql import PostgreSQL, create_primary, missing

ROOT = Path(__file__).parents[2]
SECONDS = 240
SHORT = ("--seconds=1", "--products=300", "--readers=4", "--writers=6", "--pause=0.05")

pytestmark = [
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
]


@contextmanager
def demo(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run the command, which creates its folder in ``folder``; kill it if it has not ended."""
    folder.mkdir(mode=0o755)
    pytest.importorskip("asyncpg")
    command = [sys.executable, "-m", "examples.shop.postgresql", *arguments]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TMPDIR": str(folder), "COLUMNS": "200"},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Provide a path that another user may enter."""
    made = Path("/tmp") / f"test-shop-{os.getpid()}-{tmp_path_factory.getbasetemp().name}"
    yield made
    assert list(made.iterdir()) == []
    made.rmdir()


def processes_of(folder: Path) -> list[str]:
    """Return the command lines of processes that name the folder."""
    found = []
    for one in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = one.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # the process has ended
            continue
        if str(folder) in line:
            found.append(line)
    return found


def test_customers_find_their_orders(folder: Path) -> None:
    """With tokens, all do; without them, some do not; the books balance, and nothing is left."""
    with demo(folder, *SHORT, "--lag=2000") as process:
        output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, output
    found = {
        name: (int(lost), int(looks))
        for lost, looks, name in re.findall(
            r"(\d+) customers who did not find their order, of (\d+): (.*)", output
        )
    }
    assert list(found) == ["SQLite", "PostgreSQL", "PostgreSQL, no tokens"]
    assert all(looks > 0 for _, looks in found.values())
    assert (found["SQLite"][0], found["PostgreSQL"][0]) == (0, 0)
    assert found["PostgreSQL, no tokens"][0] > 0
    for name in found:
        assert re.search(rf"The books balance: {name}\n", output), output
    _, sqlite, with_tokens, without = re.findall(
        r"│ (reads of the replica) +│ +(\S+) │ +(\S+) │ +(\S+) │", output
    )[0]
    assert (sqlite, without) == ("-", "100%")
    assert 0 < int(with_tokens.rstrip("%")) < 100
    assert processes_of(folder) == []


def to_the_group(process: subprocess.Popen[str]) -> None:
    """Send the signal to all processes, including PostgreSQL's, as a terminal does on Ctrl-C."""
    os.killpg(process.pid, signal.SIGINT)


@pytest.mark.parametrize(
    ("send", "number"),
    [(subprocess.Popen.terminate, signal.SIGTERM), (to_the_group, signal.SIGINT)],
)
def test_what_is_stopped_leaves_nothing(
    folder: Path, send: Callable[[subprocess.Popen[str]], None], number: signal.Signals
) -> None:
    """A signal while the servers run ends all of them, and removes their folder."""
    with demo(folder, *SHORT, "--seconds=60") as process:
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], SECONDS)[0]
        assert "PostgreSQL: primary on port" in process.stdout.readline()
        assert len(processes_of(folder)) >= 2
        send(process)
        output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 128 + number, output
    assert "Traceback" not in output
    assert processes_of(folder) == []


def test_a_start_that_is_interrupted_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while a server starts ends that server, which its caller cannot stop yet."""

    def interrupted(server: PostgreSQL) -> bool:
        assert server.running
        raise KeyboardInterrupt

    folder.mkdir(mode=0o755)
    monkeypatch.setattr(PostgreSQL, "accepts", interrupted)
    with pytest.raises(KeyboardInterrupt):
        create_primary(folder / "primary")
    assert processes_of(folder) == []
    shutil.rmtree(folder / "primary")


def test_an_error_leaves_nothing(folder: Path) -> None:
    """A demo without customers fails while the servers run: it says so, and leaves nothing."""
    with demo(folder, *SHORT, "--readers=0", "--writers=0") as process:
        output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert "the load client ended without a result" in output
    assert processes_of(folder) == []
