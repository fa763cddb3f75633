"""Loads of a report."""

from __future__ import annotations

from ..results import LoadResult, Report, Summary


class MissingError(Exception):
    """The page wants something that the report does not have."""


def load(report: Report, name: str) -> LoadResult:
    """The load of that name."""
    for one in report.loads:
        if one.load == name:
            return one
    raise MissingError(name)


def series(report: Report, name: str) -> list[LoadResult]:
    """The loads of a series, in their order."""
    found = [one for one in report.loads if one.point is not None and one.point.series == name]
    if not found:
        raise MissingError(name)
    return found


def summary(of: LoadResult, contender: str) -> Summary:
    """That contender's."""
    found = of.summary(contender)
    if found is None:
        raise MissingError(f"{contender} in {of.load}")
    return found
