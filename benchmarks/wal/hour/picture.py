"""A picture of the log over an hour."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MultipleLocator

from sa_sqlite_pool import WalSettings

from ..log_size import MIB
from .hour import Hour
from .phases import HOUR, Phase

_INCHES = (12.0, 6.5)
_DOTS_AN_INCH = 100
"""The picture is 1,200 dots wide."""

_OURS = "tab:blue"
_IN_USE = "#a9cbe8"
_STOCK = "tab:red"
_READ = "#fbf3d9"
"""The background while a reader keeps a snapshot."""


def draw(file: Path, title: str, *, stock: Hour, ours: Hour, settings: WalSettings) -> None:
    """Draw both logs over the simulated minutes, the limits, and the activity.

    A log file keeps its size when SQLite restarts it; only the frames in use show a restart.
    """
    figure = Figure(figsize=_INCHES, dpi=_DOTS_AN_INCH, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontsize=13, pad=46)
    _shade(axes, HOUR)
    used = [(sight.at, sight.in_use) for sight in ours.sights]
    axes.plot(*_curve(stock, stock.sizes), color=_STOCK, label="stock: log file")
    axes.plot(*_curve(ours, ours.sizes), color=_OURS, label="SQLiteDatabase: log file")
    axes.fill_between(
        *_curve(ours, used), color=_IN_USE, linewidth=0, label="SQLiteDatabase: frames in use"
    )
    _limits(axes, settings)
    axes.set_xlim(0, sum(phase.minutes for phase in HOUR))
    axes.xaxis.set_major_locator(MultipleLocator(5))
    axes.grid(axis="y", color="lightgrey", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("minute")
    axes.set_ylabel("MiB")
    handles, _ = axes.get_legend_handles_labels()
    kept = Patch(facecolor=_READ, edgecolor="lightgrey", label="somebody keeps a snapshot")
    axes.legend(handles=[*handles, kept], loc="upper left", framealpha=1)
    figure.savefig(file)


def _shade(axes: Axes, phases: Iterable[Phase]) -> None:
    minute = 0
    for number, phase in enumerate(phases):
        end = minute + phase.minutes
        color = "white" if phase.reader is None else _READ
        axes.axvspan(minute, end, color=color, linewidth=0, zorder=0)
        if number:
            axes.axvline(minute, color="lightgrey", linewidth=0.8)
        axes.text(
            minute + phase.minutes / 2,
            1.01,
            phase.label,
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="bottom",
            fontsize=9,
        )
        minute = end


def _limits(axes: Axes, settings: WalSettings) -> None:
    for name, limit in (("soft limit", settings.soft_limit), ("hard limit", settings.hard_limit)):
        if limit is not None:
            axes.axhline(limit / MIB, color="black", linestyle="--", linewidth=0.8)
            axes.annotate(
                f"{name}, {limit // MIB} MiB",
                (0, limit / MIB),
                xycoords=("axes fraction", "data"),
                xytext=(6, 3),
                textcoords="offset points",
                fontsize=9,
            )


def _curve(hour: Hour, samples: Iterable[tuple[float, int]]) -> tuple[list[float], list[float]]:
    """Return simulated minutes and MiB."""
    points = [(_minute(hour.moments, at), size / MIB) for at, size in samples]
    return [minute for minute, _ in points], [mib for _, mib in points]


def _minute(moments: Sequence[float], at: float) -> float:
    """Return the simulated minute; each phase has its minutes, however long it took."""
    minutes = list(accumulate((phase.minutes for phase in HOUR), initial=0))
    phase = min(max(bisect(moments, at), 1), len(HOUR))
    began, ended = moments[phase - 1], moments[phase]
    share = min(max((at - began) / (ended - began), 0.0), 1.0)
    return minutes[phase - 1] + share * HOUR[phase - 1].minutes
