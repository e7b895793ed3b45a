"""The page of a report: all in one file, nothing run, the worst once, and what changed."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from report_house import ATTACK, TITLE, make_report

from thinktalk.cli.main import main
from thinktalk.errors import InputError
from thinktalk.eval import drawn, page, provenance, report
from thinktalk.eval.rows import Row
from thinktalk.eval.worst import keep_sound, worst


@pytest.fixture(scope="module")
def reports(tmp_path_factory) -> tuple[Path, Path]:
    """Now, and before: that one had twice the errors."""
    folder = tmp_path_factory.mktemp("reports")
    return make_report(folder / "now"), make_report(folder / "before", errors=24, model="older")


@pytest.fixture(scope="module")
def text(reports) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib", None)  # what it draws is tested in Chromium
        rows, about = report.load(reports[0])
        return page.html(rows, about, folder=reports[0].parent, before=report.load(reports[1]))


def test_numbers_are_beside_the_published_ones(text: str):
    cells = re.findall(r"<td>(.*?)</td>", text.partition("<h2>Measured")[2])
    assert cells[0] == TITLE and cells[1].startswith("16.2 % (")  # 78 of 480 words
    assert "1.42 (table 9)" in cells and "+14.83" in cells
    assert "whisper 1.1" in cells and "900" in cells
    assert "not measured: data/mmlu: is not there, expected parquet" in text


def test_changes_are_by_item(text: str):
    changed = text.partition("Changed since older")[2].partition("<h2>")[0]
    assert '<span class="better">better</span>' in changed and 'class="worse"' not in changed
    assert "model: older → out/nano" in changed and "seed" not in changed
    assert "0 of 3 rows significantly worse, 2 better" in changed


def test_nothing_is_run_and_nothing_is_loaded(text: str):
    assert "<script" not in text and "onerror=&quot;" in text
    sources = re.findall(r'(?:src|href)="(.*?)"', text)
    assert sources and all(source.startswith(("data:", "#item-")) for source in sources)
    with pytest.raises(AssertionError):  # planted: a page that trusts what a model says
        assert "<script" not in text.replace("&lt;", "<")


def test_the_worst_are_shown_once_with_their_sound(text: str):
    assert text.count("<audio") == 10 and text.count('alt="spectrogram"') == 10
    assert text.count("stands above") == 10  # the second judge's
    assert 'href="#item-0"' in text and 'id="item-0"' in text
    assert "Colours: who is taken for whom." in text


def test_markdown_says_the_same(reports, tmp_path: Path):
    rows, about = report.load(reports[0])
    for _ in range(2):
        page.write_markdown(tmp_path / "nano.md", rows, about, folder=reports[0].parent, before=report.load(reports[1]))  # fmt: skip
    text = (tmp_path / "nano.md").read_text()
    assert text.count("### Changed") == 1 and "| better |" in text and "1.42 (table 9)" in text
    assert f"{TITLE}: its worst" in text and (tmp_path / "nano" / "colours.png").exists()


def test_the_verb(reports, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    out = tmp_path / "a" / "page.html"
    words = [str(reports[1]), "--against", str(reports[0]), "--html", str(out)]
    assert main(["report", *words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["changes"] == {"read": "worse", "read/tiny": "worse", "questions": "as before"}
    assert main(["report", *words]) == 0
    assert "2 of 3 rows significantly worse" in capsys.readouterr().out
    assert 'class="worse"' in out.read_text()
    for wrong in ([str(tmp_path / "none.json")], [str(reports[0]), "--html", str(tmp_path)]):
        assert main(["report", *wrong]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_report_reads_no_file_outside_of_its_folder(reports, tmp_path: Path):
    sound = next((reports[0].parent / "sounds").iterdir())
    for place, heard in (("here/sounds", True), ("sounds", False)):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "s.ogg").write_bytes(sound.read_bytes())
        name = "sounds/s.ogg" if heard else "../sounds/s.ogg"
        row = Row(key="k", title="k", missing="x", worst=[{"key": "k", "sound": name}])
        text = page.html([row], {}, folder=tmp_path / "here")
        assert ("<audio" in text) is heard and ("is not beside the report" in text) is not heard


def test_the_worst_are_chosen():
    results = [{"key": k, "codes": [1, 2], "said": k} for k in "abcd"]
    errors = dict(tops=[0.0, 3.0, 1.0, 2.0], bottoms=[4.0, 4.0, 1.0, 0.0])
    chosen = worst(results, **errors, lower_is_better=True, perfect=0.0, most=2)
    assert [(r["key"], r["score"]) for r in chosen] == [("d", 2.0), ("c", 1.0)]
    assert "codes" not in chosen[0]
    assert [r["key"] for r in worst(results, [0.5, 1.0, 0.5, 0.1])] == ["d", "a", "c", "b"]


def test_sounds_are_kept_once(tmp_path: Path):
    wave = np.zeros(2205, np.float32)
    names = [keep_sound(tmp_path, wave, rate) for rate in (22_050, 22_050)]
    assert names[0] == names[1] and len(list((tmp_path / "sounds").iterdir())) == 1
    assert keep_sound(tmp_path, wave[:0], 24_000) == ""
    assert drawn.spectrogram(tmp_path / names[0]).startswith(b"\x89PNG")
    (tmp_path / "no.ogg").write_bytes(b"noise")
    assert drawn.spectrogram(tmp_path / "no.ogg") is None


def test_provenance_names_commit_and_machine(monkeypatch, tmp_path: Path):
    told = provenance.provenance()
    assert re.fullmatch(r"\S+( [0-9a-f]{10}\+?)?", told["thinktalk"])
    assert "torch" in told["versions"] and told["machine"]
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    assert provenance.commit() == ""


def test_what_cannot_be_written_is_said(tmp_path: Path):
    with pytest.raises(InputError, match="cannot be written"):
        page.write_page(tmp_path, [], {}, folder=tmp_path)
    assert ATTACK not in page.html([], {"model": ATTACK}, folder=tmp_path)
