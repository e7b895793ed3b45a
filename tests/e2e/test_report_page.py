"""A report's page in Chromium, from a file, with no network: every picture seen, every sound playable, nothing run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from browser import chromium, screenshot

from thinktalk.eval import page as pages
from thinktalk.eval import report

sys.path.append(str(Path(__file__).parents[1] / "eval"))
from report_house import TITLE, make_report


def test_the_page_is_whole(tmp_path: Path):
    pytest.importorskip("matplotlib")
    now, before = make_report(tmp_path / "now"), make_report(tmp_path / "before", errors=24)
    rows, about = report.load(now)
    file = tmp_path / "page.html"
    pages.write_page(file, rows, about, folder=now.parent, before=report.load(before))
    with chromium() as browser:
        page = browser.new_context(viewport={"width": 1200, "height": 900}).new_page()
        asked, problems = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda line: line.type == "error" and problems.append(line.text))
        page.goto(file.as_uri())
        assert page.title() == "What out/nano can do"
        images = page.evaluate("[...document.images].map(i => i.naturalWidth)")
        assert len(images) == 2 + 1 + 10 and all(images)  # two plots, a picture, spectrograms
        sounds = page.evaluate(
            "Promise.all([...document.querySelectorAll('audio')].map(a => new Promise(done => {"
            "a.preload = 'auto'; a.addEventListener('loadedmetadata', () => done(a.duration)); a.addEventListener('error', () => done(-1)); a.load() })))"
        )
        assert len(sounds) == 10 and all(0.25 < s < 0.5 for s in sounds), sounds
        assert page.get_by_text(TITLE).first.is_visible()
        assert page.locator(".better").first.evaluate("e => getComputedStyle(e).color") == "rgb(10, 122, 47)"  # fmt: skip
        assert not problems
        assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]
        screenshot(page, "report")
        # planted: without its policy and its escapes the page is another's
        file.write_text(file.read_text().replace("Content-Security-Policy", "x").replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", '"'))  # fmt: skip
        page.goto(file.as_uri())
        assert page.title() in ("stolen", "1")
