"""Loads of a report."""

from __future__ import annotations

from ..measuring.cores import Cores
from ..report.results import LoadResult, Report, Summary


class MissingError(Exception):
    """The page needs something that is missing from the report."""


def load(report: Report, name: str) -> LoadResult:
    """Return the load of that name, on all cores."""
    found = pinned(report, name, None)
    if found is None:
        raise MissingError(name)
    return found


def pinned(report: Report, name: str, cores: Cores) -> LoadResult | None:
    """Return the load on that number of cores; None if it did not run on them."""
    found = (one for one in report.loads if (one.load, one.cores) == (name, cores))
    return next(found, None)


def with_all_cores(report: Report, name: str) -> list[LoadResult]:
    """Return the load of that name on all cores, and on each other number of cores."""
    first = load(report, name)
    return [first, *(one for one in report.loads if one.load == name and one is not first)]


def series(report: Report, name: str) -> list[LoadResult]:
    """Return the loads of a series, in their order, on all cores."""
    found = _series_by_cores(report, name).get(None)
    if not found:
        raise MissingError(name)
    return found


def series_with_all_cores(report: Report, name: str) -> list[list[LoadResult]]:
    """Return the series on all cores, and on each other number of cores."""
    first = series(report, name)
    others = _series_by_cores(report, name).items()
    return [first, *(found for cores, found in others if cores is not None)]


def _series_by_cores(report: Report, name: str) -> dict[Cores, list[LoadResult]]:
    found: dict[Cores, list[LoadResult]] = {}
    for one in report.loads:
        if one.point is not None and one.point.series == name:
            found.setdefault(one.cores, []).append(one)
    return found


def summary(of: LoadResult, contender: str) -> Summary:
    """Return the summary of ``contender``."""
    found = of.summary(contender)
    if found is None:
        raise MissingError(f"{contender} in {of.load}")
    return found
