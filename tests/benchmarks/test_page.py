"""docs/benchmarks.md and its pictures are written from a report."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import typer

from benchmarks.loads import LOADS
from benchmarks.page import blocks
from benchmarks.plots import main, read, together

from .calling import ROOT, Json, call

PAGE = ROOT / "docs" / "benchmarks.md"
BLOCK = re.compile(r"<!-- from the report: (.+?) -->\n(.*?)<!-- end -->", re.DOTALL)


def write(report: Path, page: Path, pictures: Path) -> str:
    """What the command wrote into a copy of the page."""
    done = call(
        *(str(report), "--page", str(page), "--pictures", str(pictures)), module="benchmarks.plots"
    )
    assert done.returncode == 0, done.stderr
    return page.read_text()


@pytest.fixture(scope="module")
def place(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the page and the pictures of the quick report."""
    directory = tmp_path_factory.mktemp("page")
    shutil.copy(PAGE, directory)
    write(written, directory / PAGE.name, directory / "benchmarks")
    return directory


def test_every_load_is_on_the_page() -> None:
    """By its name, or that of its series; the loads of several parts by that of each."""
    on_page = {name for name, _ in BLOCK.findall(PAGE.read_text())}
    parts = {f"mixed: {part}" for part in ("reads", "writes", "scans")}
    expected = (LOADS.keys() - {"mixed"}) | parts | {"answers", "asked", "environment", "settings"}
    assert on_page == expected


def test_the_tables_are_those_of_the_report(place: Path, written: Path) -> None:
    """Each load's contenders are there, with the throughput that the report has for them."""
    report: Json = json.loads(written.read_text())
    tables = dict(BLOCK.findall((place / PAGE.name).read_text()))
    assert report["environment"]["sqlalchemy"] in tables["environment"]
    for load in report["loads"]:
        point = load["point"]
        block = tables[load["load"] if point is None else point["series"]]
        lines = {line.split(" | ")[0].removeprefix("| "): line for line in block.splitlines()}
        for summary in load["summaries"]:
            line = lines[shown(summary)]
            if point is None and summary["throughput"]["median"] >= 10:
                assert f"| {summary['throughput']['median']:,.0f} |" in line


def shown(summary: Json) -> str:
    """Tables of one load say where the journal is not that of the others."""
    name: str = summary["contender"]
    return f"{name} (DELETE, FULL)" if name == "stock as it comes" else name


def test_each_picture_of_the_page_is_drawn(place: Path) -> None:
    """In both formats, and none that the page does not show."""
    shown = re.findall(r"\]\(benchmarks/(.+?)\.svg\)", (place / PAGE.name).read_text())
    names = {file.name for file in (place / "benchmarks").iterdir()}
    assert names == {f"{name}.{ending}" for name in shown for ending in ("svg", "png")}
    for name in shown:
        assert (place / "benchmarks" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (place / "benchmarks" / f"{name}.svg").read_text()


def test_the_page_of_the_project_has_its_pictures() -> None:
    """Those that it shows are in the repository."""
    for name in re.findall(r"\]\((benchmarks/.+?)\)", PAGE.read_text()):
        assert (PAGE.parent / name).exists(), name


@pytest.mark.parametrize("missing", ["point-reads", "turns"])
def test_a_report_of_some_loads_is_refused(written: Path, tmp_path: Path, missing: str) -> None:
    """The page is left as it was: old and new figures on one page would mislead."""
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
    """It is named."""
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
    """What stands between the markers is replaced."""
    page, report = (place / PAGE.name).read_text(), read(written)
    assert blocks.write(page, report) == page
    empty = BLOCK.sub(r"<!-- from the report: \1 -->\n<!-- end -->", page)
    assert blocks.write(empty, report) == page


def test_what_is_no_report_is_refused(tmp_path: Path) -> None:
    """With the name of the file and what writes one."""
    file = tmp_path / "other.json"
    file.write_text("{}")
    with pytest.raises(typer.BadParameter, match=r"other\.json is no report of"):
        main([file])


def test_of_two_loads_of_a_name_the_later_counts(written: Path) -> None:
    """And those of one report alone are kept; the environment is the first one's."""
    first = read(written)
    later = replace(first.loads[0], seconds=99.0)
    extra = replace(first.loads[0], load="another")
    other = replace(first, rounds=first.rounds + 1, loads=[later, extra])
    both = together([first, other])
    assert both.loads == [later, *first.loads[1:], extra]
    assert both.rounds == first.rounds
    assert together([first]) == first
