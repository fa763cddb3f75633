"""One pool's run of the suite: batches of test files, each in separate processes."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import pytest

from . import plugin
from .outcomes import Outcomes, read

RECORDS = "records.jsonl"
PROJECT = Path(__file__).parents[2]

EXIT_CODES = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)

# Added to a test's own limit, for starting, collecting and exiting.
STARTING_OR_EXITING_S = 120.0


@dataclass(frozen=True)
class Settings:
    """The common settings of all batches of a run."""

    source: Path
    pool: str
    """``stock``, or ``SQLitePool``."""
    test_timeout: float
    """Seconds."""


def run_all(
    settings: Settings,
    batches: Sequence[Sequence[Path]],
    directory: Path,
    *,
    processes: int,
    on_progress: Callable[[str], object],
) -> Outcomes:
    """Run the batches, `processes` at a time, in subfolders of `directory`, which is emptied."""
    shutil.rmtree(directory, ignore_errors=True)
    outcomes = Outcomes()

    with ThreadPoolExecutor(processes) as executor:
        runs = [
            executor.submit(run_batch, settings, batch, directory / f"{number:02}")
            for number, batch in enumerate(batches)
        ]
        for number, run in enumerate(as_completed(runs), 1):
            outcomes.update(run.result())
            on_progress(
                f"{settings.pool} {number}/{len(batches)}: {len(outcomes.passed)} passed, "
                f"{len(outcomes.failed)} failed, {len(outcomes.skipped)} skipped"
            )
    return outcomes


def recorded(directory: Path) -> Outcomes:
    """Return the outcomes that an earlier run has recorded in `directory`."""
    outcomes = Outcomes()
    for path in sorted(directory.glob(f"*/{RECORDS}")):
        outcomes.update(read(path).outcomes)
    return outcomes


def run_batch(settings: Settings, files: Sequence[Path], directory: Path) -> Outcomes:
    """Run these files. A process that ends early is followed by one for the remaining tests.

    The test that was running then counts as failed, with the end of the log. Each process has its
    own folder, so none finds the tables of the previous one.
    """
    directory.mkdir(parents=True)
    records_file = directory / RECORDS
    ended_early: dict[str, str] = {}
    for number in itertools.count():
        code, log = _run_process(settings, files, directory / f"process{number}", records_file)
        records = read(records_file)
        if records.unfinished is None:
            break
        ended_early[records.unfinished] = log[-16_000:]
    if code not in EXIT_CODES or not records.is_finished:
        ended_early[f"{directory.name} (no test was running)"] = (
            f"exit code {code}\n{log[-16_000:]}"
        )
    outcomes = records.outcomes
    outcomes.failed |= ended_early
    outcomes.ended_early |= ended_early.keys()
    outcomes.passed -= ended_early.keys()
    return outcomes


def _run_process(
    settings: Settings, files: Sequence[Path], directory: Path, records_file: Path
) -> tuple[int, str]:
    """Run pytest until it ends, or until nothing has been recorded for too long.

    Return its exit code and its log.
    """
    # Without the user's site-packages (-s), the suite tests the installed SQLAlchemy, with its
    # compiled extensions (test/conftest.py). It creates its files in the working directory.
    command = [sys.executable, "-s", "-m", "pytest", "-p", "tests.sqlalchemy_suite.plugin"]
    command += [f"--rootdir={settings.source}", "-c", f"{settings.source / 'pyproject.toml'}"]
    command += ["-p", "no:cacheprovider", "--capture=sys", "--maxfail=1000000", "-q"]
    command += ["--continue-on-collection-errors", "--nomemory", "--nomypy"]
    command += ["--dburi=sqlite+aiosqlite:///suite.db", *(f"{path}" for path in files)]
    directory.mkdir()
    log = directory / "log.txt"
    records_file.touch()
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=_environment(settings, records_file),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait(process, records_file, settings.test_timeout + STARTING_OR_EXITING_S)
        finally:
            process.kill()
            code = process.wait()
    return code, log.read_text(errors="replace")


def _wait(process: subprocess.Popen[bytes], records_file: Path, longest_silence: float) -> None:
    """Wait until the process has ended, or has recorded nothing for ``longest_silence`` seconds."""
    started = time.time()
    while process.poll() is None:
        if time.time() - max(started, records_file.stat().st_mtime) > longest_silence:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.2)


def _environment(settings: Settings, records_file: Path) -> dict[str, str]:
    """Return an environment without settings of the caller's pytest."""
    inherited = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    return inherited | {
        "PYTHONPATH": f"{PROJECT}",
        "PYTHONHASHSEED": "0",  # the same order of sets for both pools
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        plugin.POOL: settings.pool,
        plugin.RECORDS: f"{records_file}",
        plugin.TEST_TIMEOUT: f"{settings.test_timeout}",
    }
