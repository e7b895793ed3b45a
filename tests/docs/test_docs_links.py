"""Every page of docs/ is reachable, and every link inside the repository leads somewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from pages import ROOT, anchors, links

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def check_links(page: Path, text: str) -> None:
    """AssertionError where a relative link of the page leads nowhere."""
    for link in links(text):
        if "://" in link or link.startswith("mailto:"):
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target) if target else page
        assert path.exists(), f"{page.name} links to {link}, which is not there"
        if anchor:
            assert anchor in anchors(path.read_text()), f"{page.name}: no heading for {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    check_links(page, page.read_text())


def test_planted_fault_is_found():
    page = ROOT / "README.md"
    with pytest.raises(AssertionError, match="not there"):
        check_links(page, "[a](docs/nowhere.md)")
    with pytest.raises(AssertionError, match="no heading"):
        check_links(page, "[a](docs/index.md#no-such-heading)")


def test_every_page_is_in_the_menu():
    menu = (ROOT / "mkdocs.yml").read_text()
    named = {word for word in menu.split() if word.endswith(".md")}
    assert named == {path.name for path in (ROOT / "docs").glob("*.md")}


def test_docs_do_not_link_out_of_docs():
    """mkdocs --strict refuses links to files outside docs/; name such files in `code` instead."""
    for page in (ROOT / "docs").glob("*.md"):
        assert not [link for link in links(page.read_text()) if link.startswith("..")], page.name
