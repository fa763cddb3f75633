"""The dashboard for Grafana: its structure, and that it queries metrics that the collector exports.

https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.stats.figure import FigureKind
from sa_sqlite_pool.stats.figures import FIGURES
from tests.helpers import create_items

pytest.importorskip("prometheus_client")

import prometheus_client

from sa_sqlite_pool.integrations import prometheus
from sa_sqlite_pool.integrations.prometheus import metric_name

DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana" / "sa_sqlite_pool.json"
_SUFFIXES = {
    FigureKind.COUNTER: ["_total"],
    FigureKind.GAUGE: [""],
    FigureKind.HISTOGRAM: ["_bucket", "_count", "_sum"],
}
LABELS = {
    f"{metric_name(figure)}{suffix}": {"database", *figure.attributes}
    | ({"le"} if suffix == "_bucket" else set())
    for figure in FIGURES
    for suffix in _SUFFIXES[figure.kind]
}
COLUMNS = 24


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def expressions(dashboard: dict[str, Any]) -> Iterator[str]:
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]


def test_its_shape(dashboard: dict[str, Any]) -> None:
    """It has the fields of the model; the data source is a variable, as is the database."""
    assert isinstance(dashboard["schemaVersion"], int)
    assert dashboard["title"]
    assert {"uid", "tags", "time", "refresh", "annotations", "version"} <= dashboard.keys()
    variables = {one["name"]: one for one in dashboard["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    assert variables["database"]["type"] == "query"
    assert variables["database"]["query"]["query"] == variables["database"]["definition"]


def test_its_panels(dashboard: dict[str, Any]) -> None:
    """Each panel is complete, and none overlaps another."""
    panels: list[dict[str, Any]] = dashboard["panels"]
    taken: set[tuple[int, int]] = set()
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= COLUMNS
        rows = range(place["y"], place["y"] + place["h"])
        cells = set(itertools.product(range(place["x"], place["x"] + place["w"]), rows))
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] == "row":
            continue
        assert panel["title"]
        assert panel["description"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert [target["refId"] for target in panel["targets"]] == [
            *"ABCDEFGH"[: len(panel["targets"])]
        ]
        assert all(target["expr"] and target["legendFormat"] for target in panel["targets"])


def test_its_queries_ask_for_what_there_is(dashboard: dict[str, Any]) -> None:
    """This includes every metric, and every label that selects, aggregates or names."""
    variables = [
        one["definition"] for one in dashboard["templating"]["list"] if "definition" in one
    ]
    found = list(expressions(dashboard))
    for query in [*variables, *found]:
        names = re.findall(r"sa_sqlite_pool_\w+", query)
        assert names, query
        for name in names:
            assert name in LABELS, query
        for name, selector in re.findall(r"(sa_sqlite_pool_\w+){([^}]*)}", query):
            assert set(re.findall(r'(\w+)(?:=~|=)"', selector)) <= LABELS[name], query
        grouped = {label for by in re.findall(r"by \((.*?)\)", query) for label in by.split(", ")}
        assert grouped <= set.intersection(*(LABELS[name] for name in names)), query
        assert query.count("(") == query.count(")")
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            (name, *_) = re.findall(r"sa_sqlite_pool_\w+", target["expr"])
            shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            assert shown <= LABELS[name]


async def test_a_database_exports_what_it_shows(
    db: SQLiteDatabase, dashboard: dict[str, Any]
) -> None:
    """It exports all of them from the start, so that no panel is empty for lack of a name."""
    registry = prometheus_client.CollectorRegistry()
    prometheus.register(db, registry)
    await create_items(db.writer_engine)
    exposition = prometheus_client.generate_latest(registry).decode()
    exported = set(re.findall(r"^sa_sqlite_pool_\w+", exposition, flags=re.MULTILINE))
    shown = set(re.findall(r"sa_sqlite_pool_\w+", "".join(expressions(dashboard))))
    assert shown <= exported


def test_its_counters_are_rates(dashboard: dict[str, Any]) -> None:
    """Counters are shown as rates, histograms as quantiles, and gauges as they are."""
    for query in expressions(dashboard):
        for name in re.findall(r"sa_sqlite_pool_\w+", query):
            grows = name.endswith(("_total", "_bucket"))
            assert bool(re.search(rf"(rate|increase)\({name}{{", query)) is grows, query


def test_every_figure_is_shown(dashboard: dict[str, Any]) -> None:
    """A few are left out, which are meant for a closer look."""
    shown = set(re.findall(r"sa_sqlite_pool_\w+", "".join(expressions(dashboard))))
    left_out = {
        figure.name
        for figure in FIGURES
        if not any(f"{metric_name(figure)}{suffix}" in shown for suffix in _SUFFIXES[figure.kind])
    }
    assert left_out == {"turn.process_requests", "connections.checkouts", "gaps"}
