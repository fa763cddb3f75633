"""The pages can be found, and their links lead somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"

# What is read in one sitting. The tables of the benchmarks are generated, and read one at a time.
MOST_LINES = 400
GENERATED = {"benchmarks.md"}


def pages() -> Iterator[Path]:
    yield from ROOT.glob("*.md")
    for folder in ("docs", "benchmarks", "examples"):
        yield from (ROOT / folder).rglob("*.md")


def prose(text: str) -> str:
    """Return a page without its blocks and pieces of code."""
    return re.sub(r"^```.*?^```|`[^`\n]+`", "", text, flags=re.DOTALL | re.MULTILINE)


def links(text: str) -> list[str]:
    """Return the targets of links to other files, and to headings."""
    return re.findall(r"\]\((?!\w+:)([^)\s]+)\)", prose(text))


def anchors(text: str) -> set[str]:
    """Return the anchors that the page's headings have on GitHub, and those that it sets."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    headings = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
    return headings | set(re.findall(r'<a id="([^"]+)"', text))


def broken(page: Path, text: str) -> list[str]:
    """Return the links of a page whose file or heading does not exist."""
    found = []
    for link in links(text):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if target.is_dir() and anchor:
            target /= "README.md"  # which GitHub shows with the folder
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            found.append(link)
    return found


def test_links_lead_somewhere() -> None:
    """Each link to a file, and to a heading in it, has its target."""
    assert {
        page.relative_to(ROOT).as_posix(): gone
        for page in pages()
        if (gone := broken(page, page.read_text()))
    } == {}


def test_a_broken_link_is_noticed() -> None:
    """A file or a heading that is gone is noticed; other sites, and examples in code, are not."""
    page = DOCS / "design.md"
    assert broken(page, "[a](gone.md) [b](facts.md#gone) [c](#gone)") == [
        "gone.md",
        "facts.md#gone",
        "#gone",
    ]
    assert broken(page, "[a](facts.md#facts-that-bite) [b](#the-floors) [c](https://x/#y)") == []
    assert broken(page, "`[a](gone.md)`\n```\n[a](gone.md)\n```\n") == []


def test_the_index_names_each_page_once() -> None:
    """docs/README.md leads to every page."""
    named = [link for link in links((DOCS / "README.md").read_text()) if "/" not in link]
    assert sorted(named) == sorted(
        page.name for page in DOCS.glob("*.md") if page.name != "README.md"
    )


def test_a_page_can_be_read_in_one_sitting() -> None:
    """A longer page has a second subject."""
    for page in DOCS.glob("*.md"):
        if page.name not in GENERATED:
            assert len(page.read_text().splitlines()) <= MOST_LINES, page
