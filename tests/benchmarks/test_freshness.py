"""`python -m benchmarks.freshness`: no read with a token is stale, and the report is true."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from examples.local_postgresql import missing

from .calling import call

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

PAIRS = 240


def test_freshness(tmp_path: Path) -> None:
    """At each lag and with each driver, reads with a token are never stale; some without are."""
    pytest.importorskip("asyncpg")
    pytest.importorskip("psycopg")
    file = tmp_path / "report.json"
    options = ("--pairs", str(PAIRS), "--operations", "5", "--tasks", "7", "--lag", "0")
    asked = (*options, "--lag", "2000", "--json", str(file))
    done = call(*asked, module="benchmarks.freshness")
    assert done.returncode == 0, done.stderr
    report = json.loads(file.read_text())
    runs = {(run["lag_ms"], run["driver"]): run for run in report["runs"]}
    assert set(runs) == {(lag, driver) for lag in (0, 2000) for driver in ("asyncpg", "psycopg")}
    for (lag, driver), run in runs.items():
        fresh, without = run["with_tokens"], run["without"]
        assert (fresh["count"], fresh["stale"]) == (PAIRS // 2, 0)
        assert without["count"] == without["by_replicas"] == PAIRS // 20
        if lag:  # too short a time for the clients to wait that long
            assert (fresh["by_replicas"], without["stale"]) == (0, without["count"])
        assert fresh["p50_ms"] <= fresh["p95_ms"]
        assert re.search(rf"{lag:,} ms, {driver} +│ +{fresh['count']} │ +0 │", done.stdout)
        assert f"stale reads with tokens, {driver}, {lag:,} ms" in done.stdout
    assert all(one["kept"] for one in report["asked"])
    costs = {(cost["driver"], cost["operation"]) for cost in report["costs"]}
    assert len(costs) == len(report["costs"]) == 8
    for driver, operation in costs:
        assert f"{operation}, {driver}" in done.stdout
