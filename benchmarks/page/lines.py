"""A line for each contender, plotted over the number in which the loads of a series differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from ..report.results import LoadResult, Point, Spread, Summary
from .finding import summary
from .style import LOOKS, save, settings_of, tidy

_PANEL_INCHES = (5.75, 3.6)
_AROUND_INCHES = 0.8
"""The space for the title and the legend."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One series, and ``figure`` of each contender in each of its loads."""

    title: str
    series: Sequence[LoadResult]
    axis: str
    figure: Callable[[Summary], Spread]
    logarithmic: bool = True


def draw(rows: Sequence[Sequence[Panel]], title: str, directory: Path, name: str) -> None:
    """Draw the panels in rows; a contender looks the same in all of them."""
    width, height = _PANEL_INCHES
    size = (width * len(rows[0]), height * len(rows) + _AROUND_INCHES)
    drawn = Figure(figsize=size, layout="constrained")
    places = drawn.subplots(len(rows), len(rows[0]), squeeze=False)
    for row, panels in zip(places, rows, strict=True):
        for axes, panel in zip(row, panels, strict=True):
            _panel(axes, panel)
    drawn.suptitle(title, x=0.01, ha="left", fontsize=14)
    handles = _legend(drawn)
    drawn.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=5, frameon=False
    )
    save(drawn, directory, name)


def _legend(drawn: Figure) -> dict[str, Artist]:
    """Return the legend, in which contenders that look the same, in separate panels, are merged."""
    names: dict[tuple[str, str], dict[str, Artist]] = {}
    for axes in drawn.axes:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            names.setdefault(LOOKS[name], {})[name] = handle
    return {", ".join(found): next(iter(found.values())) for found in names.values()}


def _panel(axes: Axes, panel: Panel) -> None:
    points = [_point(load) for load in panel.series]
    numbers = [point.x for point in points]
    for contender in (one.contender for one in panel.series[0].summaries):
        if contender not in LOOKS:
            continue
        color, marker = LOOKS[contender]
        spreads = [panel.figure(summary(load, contender)) for load in panel.series]
        axes.plot(
            numbers,
            [spread.median for spread in spreads],
            color=color,
            marker=marker,
            markersize=5.5,
            label=contender,
        )
        axes.fill_between(
            numbers,
            [spread.least for spread in spreads],
            [spread.most for spread in spreads],
            color=color,
            alpha=0.13,
            linewidth=0,
        )
    axes.set_title(f"{panel.title}; {settings_of(panel.series[0])}", loc="left", fontsize=9.5)
    axes.set_xlabel(points[0].of)
    axes.set_xscale("log")
    axes.set_xticks(numbers, [f"{number:,}" for number in numbers])
    axes.xaxis.set_minor_locator(NullLocator())
    if panel.logarithmic:
        axes.set_ylabel(f"{panel.axis}, logarithmic")
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.set_ylabel(panel.axis)
        axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:,g}"))
    tidy(axes, "y")


def _point(load: LoadResult) -> Point:
    assert load.point is not None, "one of a series"
    return load.point
