"""Throughput, process time and latency of each contender, with minimum and maximum of all rounds.

The bars show all cores; a diamond is the median on one core.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from ..report.results import LoadResult, Spread, Summary
from ..report.tables import label
from .style import KINDS, color, save, settings_of, tidy

_WIDTH_INCHES = 14.5
_BAR_INCHES = 0.26
_PANEL_INCHES = 1.0
_AROUND_INCHES = 0.7
"""The space for the title and the legend."""

_TWO_DECADES = 100

_WHISKERS: dict[str, Any] = {"ecolor": "black", "elinewidth": 0.9, "capsize": 2.5}
_DIAMOND: dict[str, Any] = {
    "marker": "D",
    "markersize": 4.5,
    "color": "white",
    "markeredgecolor": "black",
    "markeredgewidth": 0.9,
}


def draw(
    loads: Sequence[tuple[LoadResult, LoadResult | None]], title: str, directory: Path, name: str
) -> None:
    """Draw ``loads`` below one another, on all cores, and on one core if it ran there."""
    heights = [_PANEL_INCHES + _BAR_INCHES * len(load.summaries) for load, _ in loads]
    size = (_WIDTH_INCHES, sum(heights) + _AROUND_INCHES)
    drawn = Figure(figsize=size, layout="constrained")
    drawn.suptitle(title, x=0.01, ha="left", fontsize=14)
    parts = drawn.subfigures(len(loads), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, (load, on_one) in zip(parts, loads, strict=True):
        part.suptitle(f"{load.title}; {settings_of(load)}", x=0.01, ha="left", fontsize=10)
        throughput, process_time, latency = part.subplots(1, 3)
        _throughput(throughput, load, on_one)
        _process_time(process_time, load, on_one)
        _latency(latency, load, on_one)
    handles: list[Artist] = [Patch(color=shade, label=kind) for kind, shade in KINDS.items()]
    handles += [Line2D([], [], linestyle="", label="one core", **_DIAMOND)]
    drawn.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    save(drawn, directory, name)


def _throughput(axes: Axes, load: LoadResult, on_one: LoadResult | None) -> None:
    spreads, marks = _figures(load, on_one, lambda one: one.throughput)
    _bars(axes, spreads, marks, _colors(load))
    names = [label(load, summary).replace(" (", "\n(") for summary in load.summaries]
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.set_xlabel(f"{load.unit}; more is better", fontsize=9)
    _finish(axes, spreads, marks)


def _process_time(axes: Axes, load: LoadResult, on_one: LoadResult | None) -> None:
    spreads, marks = _figures(load, on_one, lambda one: one.process_us)
    _dots(axes, spreads, marks, _colors(load))
    axes.set_yticks([])
    axes.set_xlabel("process time in µs, logarithmic; less is better", fontsize=9)
    _finish(axes, spreads, marks)


def _latency(axes: Axes, load: LoadResult, on_one: LoadResult | None) -> None:
    spreads, marks = _figures(load, on_one, lambda one: one.p99_ms)
    _dots(axes, spreads, marks, _colors(load))
    axes.set_yticks([])
    axes.set_xlabel("p99 in ms, logarithmic; less is better", fontsize=9)
    _finish(axes, spreads, marks)


def _figures(
    load: LoadResult, on_one: LoadResult | None, figure: Callable[[Summary], Spread | None]
) -> tuple[list[Spread], list[float]]:
    """Return the figures on all cores, and the medians on one core, if it ran there."""
    free, one = (
        [found for summary in of.summaries if (found := figure(summary))] if of else []
        for of in (load, on_one)
    )
    return free, [spread.median for spread in one]


def _colors(load: LoadResult) -> list[str]:
    return [color(summary.contender) for summary in load.summaries]


def _finish(axes: Axes, spreads: Sequence[Spread], marks: Sequence[float]) -> None:
    axes.plot(marks, range(len(marks)), linestyle="", zorder=5, **_DIAMOND)
    axes.set_ylim(len(spreads) - 0.4, -0.6)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _place: _short(value)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.tick_params(axis="x", labelsize=8.5)
    for place, spread in enumerate(spreads):
        _annotate(axes, place, spread.median, max([spread.most, *marks[place : place + 1]]))
    tidy(axes, "x")


def _bars(
    axes: Axes, spreads: Sequence[Spread], marks: Sequence[float], colors: Sequence[str]
) -> None:
    """Draw bars that start at zero."""
    medians = [spread.median for spread in spreads]
    axes.barh(
        range(len(spreads)),
        medians,
        height=0.72,
        color=colors,
        xerr=_errors(spreads),
        error_kw=_WHISKERS,
    )
    most = max([*(spread.most for spread in spreads), *marks])
    axes.set_xlim(0, (most or 1.0) * 1.17)
    axes.xaxis.set_major_locator(MaxNLocator(5))


def _dots(
    axes: Axes, spreads: Sequence[Spread], marks: Sequence[float], colors: Sequence[str]
) -> None:
    """Draw dots: a logarithmic axis has no zero at which a bar could start."""
    medians = [spread.median for spread in spreads]
    axes.scatter(medians, range(len(spreads)), s=60, c=colors, zorder=3)
    axes.errorbar(
        medians, range(len(spreads)), xerr=_errors(spreads), fmt="none", zorder=4, **_WHISKERS
    )
    least = min([*(spread.least for spread in spreads), *marks])
    most = max([*(spread.most for spread in spreads), *marks])
    axes.set_xscale("log")
    few_decades = most / least < _TWO_DECADES
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few_decades else (1.0,)))
    axes.set_xlim(least / 1.5, most * (most / least) ** 0.15 * 1.2)
    axes.hlines(range(len(spreads)), *axes.get_xlim(), color="#EEEEEE", linewidth=0.7, zorder=1)


def _errors(spreads: Sequence[Spread]) -> tuple[list[float], list[float]]:
    below = [spread.median - spread.least for spread in spreads]
    return below, [spread.most - spread.median for spread in spreads]


def _annotate(axes: Axes, place: int, figure: float, beyond: float) -> None:
    axes.annotate(
        _short(figure),
        (beyond, place),
        xytext=(7, 0),
        textcoords="offset points",
        va="center",
        fontsize=8.5,
    )


def _short(value: float) -> str:
    """Return three digits, or all digits before the point."""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
