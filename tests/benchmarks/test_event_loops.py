"""The loads run on asyncio's event loop or on uvloop."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest
import typer

from benchmarks.measuring.event_loops import run_loop

from .calling import call


async def module_of_the_loop() -> str:
    return type(asyncio.get_running_loop()).__module__.split(".")[0]


def test_the_loop_that_was_asked_for() -> None:
    pytest.importorskip("uvloop")
    assert run_loop(uvloop=False)(module_of_the_loop()) == "asyncio"
    assert run_loop(uvloop=True)(module_of_the_loop()) == "uvloop"


def test_uvloop_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command says how to install it, whereas asyncio's loop needs nothing."""
    monkeypatch.setitem(sys.modules, "uvloop", None)
    with pytest.raises(typer.BadParameter, match="uvloop is not installed: `pip install uvloop`"):
        run_loop(uvloop=True)
    run_loop(uvloop=False)


def test_the_report_says_which_loop_ran(tmp_path: Path) -> None:
    """All contenders of a closed and of an open loop work on uvloop, without errors."""
    pytest.importorskip("uvloop")
    file = tmp_path / "report.json"
    done = call("point-reads", "open-loop", "--quick", "--uvloop", "--json", str(file))
    assert done.returncode == 0, done.stderr
    report = json.loads(file.read_text())
    assert report["environment"]["event_loop"].startswith("uvloop ")
    assert f"event loop of {report['environment']['event_loop']}" in done.stdout
    runs = [run for load in report["loads"] for run in load["runs"]]
    assert all(run["acknowledged"] and not run["errors"] for run in runs)
