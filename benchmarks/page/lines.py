"""A line for each contender, over the number in which the loads of a series differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from ..results import LoadResult, Point, Spread, Summary
from .style import LOOKS, save, settings_of, tidy

_PANEL_INCHES = (6.2, 4.4)
_LEGEND_INCHES = 0.4


@dataclass(frozen=True, slots=True)
class Panel:
    """One series, and ``figure`` of each contender in each of its loads."""

    title: str
    series: Sequence[LoadResult]
    axis: str
    figure: Callable[[Summary], Spread]
    logarithmic: bool = True


def draw(panels: Sequence[Panel], title: str, directory: Path, name: str) -> None:
    """Beside each other; the contenders of all have the same colours."""
    width, height = _PANEL_INCHES
    size = (width * len(panels), height + _LEGEND_INCHES)
    drawn = Figure(figsize=size, layout="constrained")
    names = list(
        dict.fromkeys(
            one.contender for panel in panels for load in panel.series for one in load.summaries
        )
    )
    for axes, panel in zip(drawn.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _panel(axes, panel)
    drawn.suptitle(title, x=0.01, ha="left", fontsize=13)
    handles = {
        label: handle
        for axes in drawn.axes
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    drawn.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center",
        ncols=len(names),
        frameon=False,
    )
    save(drawn, directory, name)


def _panel(axes: Axes, panel: Panel) -> None:
    points = [_point(load) for load in panel.series]
    numbers = [point.x for point in points]
    for summary in panel.series[0].summaries:
        color, marker = LOOKS[summary.contender]
        spreads = [_spread(load, summary.contender, panel) for load in panel.series]
        axes.plot(
            numbers,
            [spread.median for spread in spreads],
            color=color,
            marker=marker,
            markersize=5,
            label=summary.contender,
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


def _spread(load: LoadResult, contender: str, panel: Panel) -> Spread:
    summary = load.summary(contender)
    assert summary is not None, "all loads of a series have the same contenders"
    return panel.figure(summary)
