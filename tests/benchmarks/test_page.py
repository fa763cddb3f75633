"""docs/benchmarks.md and its pictures are written from a report."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from pydantic import TypeAdapter

from benchmarks.loads import LOADS
from benchmarks.measuring.cores import named
from benchmarks.page import blocks
from benchmarks.plots import main, together
from benchmarks.report.reports import read
from benchmarks.report.results import Report, Summary

from .calling import CORES, ROOT, Json, call

PAGE = ROOT / "docs" / "benchmarks.md"
BLOCK = re.compile(r"<!-- from the report: (.+?) -->\n(.*?)<!-- end -->", re.DOTALL)


def write(report: Path, page: Path, pictures: Path) -> str:
    """Write a report into a copy of the page, and return the page."""
    done = call(
        *(str(report), "--page", str(page), "--pictures", str(pictures)), module="benchmarks.plots"
    )
    assert done.returncode == 0, done.stderr
    return page.read_text()


@pytest.fixture(scope="module")
def place(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the page and the pictures of the quick report."""
    directory = tmp_path_factory.mktemp("page")
    shutil.copy(PAGE, directory)
    write(written, directory / PAGE.name, directory / "benchmarks")
    return directory


def test_every_load_is_on_the_page() -> None:
    """It is listed by its name, that of its series, or those of its parts."""
    on_page = {name for name, _ in BLOCK.findall(PAGE.read_text())}
    parts = {f"mixed: {part}" for part in ("reads", "writes", "scans")}
    others = {"answers", "asked", "cores", "environment", "settings"}
    assert on_page == (LOADS.keys() - {"mixed"}) | parts | others


def test_the_tables_are_those_of_the_report(place: Path, written: Path) -> None:
    """Each load's contenders are listed, with their throughput from the report."""
    report: Json = json.loads(written.read_text())
    tables = dict(BLOCK.findall((place / PAGE.name).read_text()))
    assert report["environment"]["sqlalchemy"] in tables["environment"]
    for load in report["loads"]:
        point = load["point"]
        block = tables[load["load"].split(":")[0] if open_loop(load) else series(load)]
        lines = lines_of(block, load["cores"])
        for summary in load["summaries"]:
            line = lines[shown(summary)]
            if point is None and not open_loop(load) and summary["throughput"]["median"] >= 10:
                assert f"| {summary['throughput']['median']:,.0f} |" in line
            if point is None:
                assert f"| {summary['process_us']['median']:,.0f} |" in line


def open_loop(load: Json) -> bool:
    """Return whether the load is an open loop, whose parts share a table without throughput."""
    found: bool = load["load"].startswith("open-loop")
    return found


def series(load: Json) -> str:
    """Return the name of the load's series, or of the load itself."""
    name: str = load["load"] if load["point"] is None else load["point"]["series"]
    return name


def lines_of(block: str, cores: int | None) -> dict[str, str]:
    """Return the lines of the table for this number of cores, by contender."""
    tables = re.split(r"\n\n(?=[^|])", block.strip())
    [table] = [one for one in tables if named(cores) in one.splitlines()[0]]
    return {line.split(" | ")[0].removeprefix("| "): line for line in table.splitlines()}


def shown(summary: Json) -> str:
    """Return the contender's name as shown in tables, with its journal mode if that differs."""
    name: str = summary["contender"]
    return f"{name} (DELETE, FULL)" if name == "stock as it comes" else name


def test_each_picture_of_the_page_is_drawn(place: Path) -> None:
    """Each is drawn in both formats, and there are no others."""
    shown = re.findall(r"\]\(benchmarks/(.+?)\.svg\)", (place / PAGE.name).read_text())
    names = {file.name for file in (place / "benchmarks").iterdir()}
    assert names == {f"{name}.{ending}" for name in shown for ending in ("svg", "png")}
    for name in shown:
        assert (place / "benchmarks" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (place / "benchmarks" / f"{name}.svg").read_text()


def test_the_page_of_the_project_has_its_pictures() -> None:
    """All pictures on the page are in the repository."""
    for name in re.findall(r"\]\((benchmarks/.+?)\)", PAGE.read_text()):
        assert (PAGE.parent / name).exists(), name


def test_one_core_and_all_stand_side_by_side(place: Path, written: Path) -> None:
    """Each contender's throughput and process time on both are shown, and why they differ."""
    report = read(written)
    block = dict(BLOCK.findall((place / PAGE.name).read_text()))["cores"]
    assert "under the interpreter lock" in block.replace("\n", " ")
    for name in ("point-reads", "orm-get", "one-row-writes", "session-writes"):
        for contender in ("stock", "asyncio.to_thread"):
            found = [
                load.summary(contender)
                for cores in CORES
                for load in report.loads
                if (load.load, load.cores) == (name, cores)
            ]
            figures = [shown_of(one) for one in found if one]
            assert len(figures) == len(CORES)
            assert f"| {contender} | {' | '.join(figures)} |" in block


def shown_of(one: Summary) -> str:
    """Return throughput, process time, and its ratio to synchronous SQLAlchemy's."""
    assert one.process_us
    process_us, ratio = one.process_us.median, one.process_ratio
    return f"{one.throughput.median:,.0f} | {process_us:,.0f} | {ratio:.2f}"


def test_a_report_of_all_cores_alone_is_enough(written: Path, tmp_path: Path) -> None:
    """It must be, because not every system can pin a process."""
    report = read(written)
    free = replace(report, loads=[load for load in report.loads if load.cores is None])
    file = tmp_path / "free.json"
    file.write_bytes(TypeAdapter(Report).dump_json(free))
    shutil.copy(PAGE, tmp_path)
    page = write(file, tmp_path / PAGE.name, tmp_path / "benchmarks")
    assert "no figures of one core" in page
    assert ", one core*" not in page


@pytest.mark.parametrize("missing", ["point-reads", "turns"])
def test_a_report_of_some_loads_is_refused(written: Path, tmp_path: Path, missing: str) -> None:
    """The page is unchanged, because old and new figures on one page would mislead."""
    report = json.loads(written.read_text())
    report["loads"] = [one for one in report["loads"] if not one["load"].startswith(missing)]
    file, page = tmp_path / "some.json", tmp_path / "page.md"
    file.write_text(json.dumps(report))
    shutil.copy(PAGE, page)
    with pytest.raises(typer.BadParameter, match=f"json: nothing of {missing}; run `python -m"):
        main([file], page, tmp_path)
    assert page.read_text() == PAGE.read_text()


def test_a_report_without_a_contender_that_is_asked_for_is_refused(
    written: Path, tmp_path: Path
) -> None:
    """The error names the contender."""
    report = json.loads(written.read_text())
    for load in report["loads"]:
        load["summaries"] = [
            one for one in load["summaries"] if one["contender"] != "stock as it comes"
        ]
    file, page = tmp_path / "some.json", tmp_path / "page.md"
    file.write_text(json.dumps(report))
    shutil.copy(PAGE, page)
    with pytest.raises(typer.BadParameter, match="nothing of stock as it comes in one-row-writes"):
        main([file], page, tmp_path)


def test_writing_the_page_again_changes_nothing(place: Path, written: Path) -> None:
    """Only the text between the markers is replaced."""
    page, report = (place / PAGE.name).read_text(), read(written)
    assert blocks.write(page, report) == page
    empty = BLOCK.sub(r"<!-- from the report: \1 -->\n<!-- end -->", page)
    assert blocks.write(empty, report) == page


def test_what_is_no_report_is_refused(tmp_path: Path) -> None:
    """The error names the file, and the command that writes a report."""
    file = tmp_path / "other.json"
    file.write_text("{}")
    with pytest.raises(typer.BadParameter, match=r"other\.json is no report of"):
        main([file])


def test_of_two_loads_of_a_name_the_later_counts(written: Path) -> None:
    """Loads that are in one report only are kept; the environment is the first report's."""
    first = read(written)
    later = replace(first.loads[0], seconds=99.0)
    extra = replace(first.loads[0], load="another")
    pinned = replace(first.loads[0], cores=7)
    other = replace(first, rounds=first.rounds + 1, loads=[later, extra, pinned])
    both = together([first, other])
    assert both.loads == [later, *first.loads[1:], extra, pinned]
    assert both.rounds == first.rounds
    assert together([first]) == first
