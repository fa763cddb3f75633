"""A bar or a dot for each contender, with the least and the most of all rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from ..results import LoadResult, Spread, Summary
from ..tables import label
from .style import KINDS, color, save, settings_of, tidy

_WIDTH_INCHES = 9.5
_BAR_INCHES = 0.27
_PANEL_INCHES = 0.95
_LEGEND_INCHES = 0.5

_WHISKERS: dict[str, Any] = {"ecolor": "black", "elinewidth": 0.9, "capsize": 2.5}


@dataclass(frozen=True, slots=True)
class Figures:
    """What bars show: ``figure`` of a summary."""

    title: str
    unit: Callable[[LoadResult], str]
    figure: Callable[[Summary], Spread]
    logarithmic: bool = False


THROUGHPUT = Figures("throughput", lambda load: load.unit, lambda one: one.throughput)
LATENCY = Figures(
    "latency p99", lambda _load: "ms, logarithmic; less is better", lambda one: one.p99_ms, True
)


def draw(
    loads: Sequence[LoadResult], title: str, figures: Figures, directory: Path, name: str
) -> None:
    """One panel for each of ``loads``, one below the other."""
    heights = [_PANEL_INCHES + _BAR_INCHES * len(load.summaries) for load in loads]
    size = (_WIDTH_INCHES, sum(heights) + _LEGEND_INCHES)
    drawn = Figure(figsize=size, layout="constrained")
    panels = drawn.subplots(len(loads), 1, height_ratios=heights, squeeze=False)
    for axes, load in zip(panels[:, 0], loads, strict=True):
        _panel(axes, load, figures)
    drawn.suptitle(f"{title}: {figures.title}", x=0.01, ha="left", fontsize=13)
    kinds = [Patch(color=shade, label=kind) for kind, shade in KINDS.items()]
    drawn.legend(handles=kinds, loc="outside lower center", ncols=len(kinds), frameon=False)
    save(drawn, directory, name)


def _panel(axes: Axes, load: LoadResult, figures: Figures) -> None:
    spreads = [figures.figure(summary) for summary in load.summaries]
    colors = [color(summary.contender) for summary in load.summaries]
    if figures.logarithmic:
        _dots(axes, spreads, colors)
    else:
        _bars(axes, spreads, colors)
    names = [label(load, summary).replace(" (", "\n(") for summary in load.summaries]
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_title(f"{load.title}; {settings_of(load)}", loc="left", fontsize=9.5)
    axes.set_xlabel(figures.unit(load), fontsize=9)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _place: _short(value)))
    axes.tick_params(axis="x", labelsize=8.5)
    for place, spread in enumerate(spreads):
        _annotate(axes, place, spread)
    tidy(axes, "x")


def _bars(axes: Axes, spreads: Sequence[Spread], colors: Sequence[str]) -> None:
    """From zero."""
    medians = [spread.median for spread in spreads]
    axes.barh(
        range(len(spreads)),
        medians,
        height=0.72,
        color=colors,
        xerr=_errors(spreads),
        error_kw=_WHISKERS,
    )
    axes.set_xlim(0, (max(spread.most for spread in spreads) or 1.0) * 1.1)


def _dots(axes: Axes, spreads: Sequence[Spread], colors: Sequence[str]) -> None:
    """A logarithmic axis has no zero where a bar could begin."""
    medians = [spread.median for spread in spreads]
    axes.scatter(medians, range(len(spreads)), s=60, c=colors, zorder=3)
    axes.errorbar(
        medians, range(len(spreads)), xerr=_errors(spreads), fmt="none", zorder=4, **_WHISKERS
    )
    least, most = min(spread.least for spread in spreads), max(spread.most for spread in spreads)
    axes.set_xscale("log")
    axes.set_xlim(least / 1.5, most * (most / least) ** 0.1 * 1.2)
    axes.hlines(range(len(spreads)), *axes.get_xlim(), color="#EEEEEE", linewidth=0.7, zorder=1)


def _errors(spreads: Sequence[Spread]) -> tuple[list[float], list[float]]:
    below = [spread.median - spread.least for spread in spreads]
    return below, [spread.most - spread.median for spread in spreads]


def _annotate(axes: Axes, place: int, spread: Spread) -> None:
    axes.annotate(
        _short(spread.median),
        (spread.most, place),
        xytext=(7, 0),
        textcoords="offset points",
        va="center",
        fontsize=8.5,
    )


def _short(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
