"""Frames of ``sa-sqlite-pool status``, rendered from overviews that the tests construct."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from rich.console import Console

from sa_sqlite_pool import (
    ConnectionsStatistics,
    DatabaseStatistics,
    EngineStatistics,
    Holder,
    ReaderStatistics,
    StatementsStatistics,
    TransactionsStatistics,
    TurnStatistics,
    Waits,
    WalStatistics,
)
from sa_sqlite_pool.cli.status_view import frame
from sa_sqlite_pool.files.log_file import LogSize
from sa_sqlite_pool.publishing.asking import Answer
from sa_sqlite_pool.publishing.overview import Overview

MIB = 1024 * 1024
EMPTY = Overview("/data/app.db", datetime(2026, 1, 31, tzinfo=timezone.utc), 3 * MIB, (), (), None)


def text_of(overview: Overview, before: Overview | None = None, width: int = 200) -> str:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(frame(overview, before))
    return out.getvalue()


def answer(statistics: Any, pid: int = 4242, **more: Any) -> Answer:
    document = {"version": 1, "statistics": statistics}
    return Answer(f"app.db-status-{pid}-ab", pid, "uvicorn", document, **more)


def statistics(seconds: float = 10.0, runs: int = 40, commits: int = 20) -> DatabaseStatistics:
    holders = (Holder(task="task 'report'", seconds=3900.0, sql="SELECT 2", now_at="reports.py:7"),)
    return DatabaseStatistics(
        name="app.db",
        seconds=seconds,
        turn=TurnStatistics(
            holder=Holder(
                task="task 'import-42'",
                seconds=12.34,
                asked_at="jobs.py:80",
                now_at="jobs.py:88",
                sql="UPDATE items SET n = 1",
                idle_seconds=2.0,
            ),
            waiting=3,
            waits=Waits(at_once=100, waited=1300, longest_seconds=1.25),
        ),
        engines=(
            EngineStatistics(
                role="reader",
                connections=ConnectionsStatistics(capacity=4, on_loan=2),
                holders=holders,
                waiting=1,
                statements=StatementsStatistics(inline=runs // 2),
            ),
            EngineStatistics(
                role="writer",
                statements=StatementsStatistics(in_thread=runs // 2),
                transactions=TransactionsStatistics(commits=commits),
            ),
        ),
        oldest_reader=ReaderStatistics(3900.0, "task 'report'", long=False, outstayed=True),
        wal=WalStatistics(
            size=2 * MIB,
            frames=300,
            checkpointed=120,
            soft_limit=MIB,
            limit=None,
            last_checkpoint=None,
            held_back_by="task 'report'",
            oldest_reader=None,
            sqlite_version="3.50.0",
            reset_bug=False,
            outside_writers=(),
        ),
    )


def test_a_process_in_one_row() -> None:
    """A row has age, lines, readers and rates; the holders are below, the turn's first."""
    output = text_of(replace(EMPTY, processes=(answer(statistics().as_dict()),)))
    rows = [line.split() for line in output.splitlines()]
    row = next(found for found in rows if found[:2] == ["4242", "uvicorn"])
    assert row[2:] == ["10.0", "s", "4", "1,300", "1.2", "s", "2/4", "4.0", "2.0"]
    turn, reader = (found for found in rows if found[:1] == ["4242"] and "task" in found)
    assert " ".join(turn) == (
        "4242 writes task 'import-42', idle for 2.0 s 12.3 s jobs.py:88 UPDATE items SET n = 1"
    )
    assert " ".join(reader) == "4242 reads task 'report' 1 h 05 min reports.py:7 SELECT 2"


def test_rates_are_those_between_two_frames() -> None:
    """The first frame has the averages since the database was opened."""
    first = replace(EMPTY, processes=(answer(statistics().as_dict()),))
    then = replace(EMPTY, processes=(answer(statistics(12.0, 50, 21).as_dict()),))
    row = next(line for line in text_of(then, first).splitlines() if "2/4" in line)
    assert row.split()[-2:] == ["5.0", "0.5"]


def test_a_process_that_has_begun_anew_has_no_rates_below_zero() -> None:
    """Its counters do not continue from the earlier ones."""
    first = replace(EMPTY, processes=(answer(statistics(12.0, 50, 21).as_dict()),))
    then = replace(EMPTY, processes=(answer(statistics().as_dict()),))
    assert "-" not in next(line for line in text_of(then, first).splitlines() if "2/4" in line)


def test_the_log_and_what_pins_it() -> None:
    """It has the log's size and limits, and the process and task of the reader in the way."""
    output = text_of(
        replace(
            EMPTY,
            processes=(answer(statistics().as_dict()),),
            log=LogSize(2 * MIB, 300, 4120, (1, 2)),
        )
    )
    assert "log     2.0 MiB, 300 frames (1.2 MiB) in use, limits: soft 1.0 MiB\n" in " ".join(
        f"{line.rstrip()}\n" for line in output.splitlines()
    )
    assert "held back by task 'report' (process 4242 (uvicorn))" in output
    assert (
        "read for 1 h 05 min by task 'report' of process 4242 (uvicorn), and the log waits for it"
    ) in output


def test_a_terminal_obeys_nothing_of_another_process() -> None:
    """Control characters and markup in task names and SQL are shown as text, or left out."""
    hostile = "\x1b]0;gone\x07\x1b[2J[red]x[/red]\nnext"
    found = statistics().as_dict()
    found["turn"]["holder"] |= {"task": hostile, "sql": hostile, "now_at": hostile}
    found["oldest_reader"]["who"] = found["wal"]["held_back_by"] = hostile
    odd = answer(found)
    odd = replace(odd, process=hostile)
    failed = Answer("x-status-1-ab", 1, hostile, None, hostile)
    output = text_of(replace(EMPTY, processes=(odd, failed), log=LogSize(1, 1, 1)))
    assert "[red]x[/red] next" in output
    assert not {character for character in output if not character.isprintable()} - {"\n"}


def test_a_document_of_another_release_is_shown_as_far_as_it_goes() -> None:
    """Keys may be missing, or have other types."""
    other: list[dict[str, Any]] = [{}, {"turn": None, "engines": None, "wal": [], "seconds": "x"}]
    for found in other:
        output = text_of(replace(EMPTY, processes=(answer(found),)))
        assert "4242  uvicorn" in output


def test_a_process_that_closes_its_database() -> None:
    """The frame says so, and counts it as one that has not answered."""
    closing = answer(None, error="DatabaseClosedError: app.db is being closed")
    output = text_of(replace(EMPTY, processes=(closing,)))
    assert "1 process, 1 without an answer" in output
    assert "process 4242 (uvicorn): DatabaseClosedError: app.db is being closed" in output
    assert "SQL/s" not in output


def test_many_holders_are_counted() -> None:
    """The number of lines in a frame is limited."""
    found = statistics().as_dict()
    found["engines"][0]["holders"] *= 30
    output = text_of(replace(EMPTY, processes=(answer(found),)))
    assert output.count("reads") == 11
    assert "and 19 more" in output


def test_a_system_that_does_not_list_locks() -> None:
    """The turn is not called free there; holders that a process reports itself are shown."""
    assert "turn    free" in text_of(EMPTY)
    unknown = replace(EMPTY, locks_known=False)
    assert "turn    not known: this system does not list" in text_of(unknown)
    found = statistics().as_dict()
    taken = "turn    taken by process 4242 (uvicorn), as far as that knows"
    assert taken in text_of(replace(unknown, processes=(answer(found),)))
    found["turn"]["holder"]["waits_for"] = "process 8834 (jobs)"
    assert "turn    not known" in text_of(replace(unknown, processes=(answer(found),)))
