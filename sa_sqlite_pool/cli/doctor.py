"""``sa-sqlite-pool doctor FILE``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.padding import Padding
from rich.text import Text

from ..doctor import Finding, Report, Severity, examine
from ..doctor.findings import plural, size_text
from .files import FileArgument
from .output import ExitCode, JsonOption, bar, console, text_of, write_json, write_line

_STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "bold yellow", Severity.INFO: "bold blue"}
_CODES = {Severity.ERROR: ExitCode.ERROR, Severity.WARNING: ExitCode.WARNING}


def doctor(
    file: FileArgument,
    quick: Annotated[
        bool, typer.Option("--quick", help="Do not compare indexes with their tables.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Diagnose a database and suggest repairs. Changes nothing."""
    with bar("quick_check" if quick else "integrity_check"):
        report = examine(file, quick=quick)
    if json:
        write_json("doctor", as_json(report))
    else:
        show(report)
    worst = report.worst
    raise typer.Exit(_CODES.get(worst, 0) if worst is not None else 0)


def as_json(report: Report) -> dict[str, object]:
    """Return the report in the shape that docs/command.md promises."""
    figures = report.figures
    return {
        "path": report.path,
        "worst": None if report.worst is None else report.worst.value,
        "findings": [
            asdict(finding) | {"severity": finding.severity.value} for finding in report.findings
        ],
        "journal_mode": None if figures is None else figures.journal_mode,
        "page_size": None if figures is None else figures.page_size,
        "pages": None if figures is None else figures.pages,
        "free_pages": None if figures is None else figures.free_pages,
        "log_bytes": report.log_bytes,
        "checked": report.checked,
        "locks": [asdict(lock) for lock in report.locks],
        "sqlite_version": report.sqlite_version,
    }


def show(report: Report) -> None:
    write_line(f"{report.path}: {_summary(report)}")
    for finding in report.findings:
        _show_finding(finding)
    console.print()
    if report.figures is not None:
        console.print(Text(_figures(report)))
    for lock in report.locks:
        program = "" if lock.program is None else f" ({lock.program})"
        console.print(text_of(f"process {lock.pid}{program} holds SQLite's lock {lock.lock}"))


def _summary(report: Report) -> str:
    if not report.findings:
        return "nothing to mend"
    counts = {
        severity: sum(finding.severity is severity for finding in report.findings)
        for severity in Severity
    }
    nouns = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}
    return ", ".join(plural(count, nouns[severity]) for severity, count in counts.items() if count)


def _show_finding(finding: Finding) -> None:
    console.print()
    console.print(
        Text.assemble((finding.severity.value, _STYLES[finding.severity]), " ", finding.id)
    )
    console.print(Padding(text_of(finding.message), (0, 0, 0, 2)))
    write_line(f"  mend: {finding.mend}")


def _figures(report: Report) -> str:
    figures = report.figures
    assert figures is not None
    parts = [
        f"journal_mode {figures.journal_mode}",
        f"{plural(figures.pages, 'page')} of {figures.page_size} bytes",
        f"{figures.free_pages:,} free",
        f"log {size_text(report.log_bytes)}",
        *([report.checked] if report.checked is not None else []),
        f"SQLite {report.sqlite_version}",
    ]
    return ", ".join(parts)
