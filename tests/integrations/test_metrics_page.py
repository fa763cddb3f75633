"""docs/metrics.md has the same tables as the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sa_sqlite_pool.stats.figure import Figure, FigureKind
from sa_sqlite_pool.stats.figures import FIGURES

pytest.importorskip("prometheus_client")

from sa_sqlite_pool.integrations.prometheus import metric_name

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def row(figure: Figure) -> str:
    suffix = "_total" if figure.kind is FigureKind.COUNTER else ""
    name = f"`{metric_name(figure).removeprefix('sa_sqlite_pool_')}{suffix}`"
    attributes = ", ".join(f"`{attribute}`" for attribute in figure.attributes)
    return f"| {name} | {figure.kind.value} | {figure.unit} | {attributes} | {figure.meaning} |"


def test_every_figure_has_its_row() -> None:
    """The rows are in the order of the code, with type, unit, labels and meaning."""
    head = "|---|---|---|---|---|\n"
    table = PAGE.read_text().partition(head)[2].partition("\n\n")[0].splitlines()
    assert table == [row(figure) for figure in FIGURES]


def test_every_name_of_the_conventions_is_explained() -> None:
    """The page explains the ones that are recorded, and why others are not."""
    opentelemetry = pytest.importorskip("opentelemetry.semconv._incubating.metrics.db_metrics")
    names = {
        name
        for name in vars(opentelemetry).values()
        if isinstance(name, str)
        and re.fullmatch(r"db\.client\.(connection|operation|response)\..*", name)
    }
    text = PAGE.read_text().replace("`….idle.max`", "`db.client.connection.idle.max`")
    assert {name for name in names if f"`{name}`" not in text} == set()
