"""The page of samples: media inside, labels as wide as they last, every token with its ids, nothing unescaped."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sample_house import RATE, record, tone

from thinktalk.config import tiny
from thinktalk.data.checking import check_shards
from thinktalk.data.samples import Sample, parse
from thinktalk.data.shards import scan
from thinktalk.data.show import spectrogram, write_page
from thinktalk.errors import InputError
from thinktalk.weights.tokenizer import build_tokenizer

CONFIG = tiny()
EXAMPLE = Path(__file__).parents[2] / "examples" / "worlds-00000.tar"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return build_tokenizer(CONFIG, tmp_path_factory.mktemp("tokenizer"))


class Page(HTMLParser):
    """Tags with their attributes; every one that must be closed is."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict]:
        return [attrs for name, attrs in self.tags if name == tag]


def page_of(sample, path, tokenizer) -> Page:
    assert write_page([sample], path, tokenizer=tokenizer, config=CONFIG) == 1
    page = Page(path.read_text(encoding="utf-8"))
    assert page.open == []
    return page


def test_a_spoken_sample(tmp_path, tokenizer):
    text = "<script>alert(1)</script> & more"
    sample = Sample(where='a.tar/"0"', record=record(0) | {"text": text}, media={"wav": tone(0.5)})
    page = page_of(sample, tmp_path / "page.html", tokenizer)
    assert not page.all("script")
    assert [a["src"][:22] for a in page.all("audio")] == ["data:audio/wav;base64,"]
    assert [a["width"] for a in page.all("img")] == ["50"]
    styles = [a["style"] for a in page.all("span")]
    widths = [float(re.search(r"width:([\d.]+)px", s)[1]) for s in styles if "width" in s]
    assert widths == [5.0, 7.5, 10.0, 12.5, 15.0]  # frames of 25 ms at 100 pixels a second
    cells = [a for a in page.all("span") if "title" in a]
    sound = [a for a in cells if "<|AUDIO|>" in a["title"]]
    assert len(sound) == 12  # 50 mel frames, 4 a token
    hues = [re.search(r"hsl\((\d+)", a["style"])[1] for a in sound]
    assert len(set(hues)) == 12  # each has a time id of its own
    learned = "".join(a["title"].split(" time")[0] for a in cells if "class" in a)
    assert "im_end" in learned and "AUDIO" not in learned


def test_pictures_and_faults(tmp_path, tokenizer):
    file = io.BytesIO()
    Image.new("RGB", (56, 84), "red").save(file, "PNG")
    messages = [
        {"role": "user", "content": [{"type": "image", "image": "0.png"}]},
        {"role": "assistant", "content": "Red."},
    ]
    media = {"0.png": file.getvalue(), "wav": b"no sound", "txt": b"?"}
    page = page_of(Sample(where="a", record={"messages": messages}, media=media), tmp_path / "p.html", tokenizer)  # fmt: skip
    cells = [a for a in page.all("span") if "<|IMAGE|>" in a.get("title", "")]
    assert len({a["title"].split("row")[1] for a in cells}) == len(cells) >= 6
    assert [a for a in page.all("p") if a.get("class") == "fault"]
    nothing = page_of(Sample(where="b", record={}), tmp_path / "q.html", tokenizer)
    assert [a for a in nothing.all("p") if a.get("class") == "fault"]


def test_a_spectrogram_has_its_tone_where_it_sounds():
    pcm = (0.3 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)).astype(np.float32)
    picture = np.asarray(Image.open(io.BytesIO(spectrogram(pcm, CONFIG)))).astype(float)
    bands, frames = picture.shape[:2]
    assert frames == 100
    low = bands - 1 - picture.sum(-1)[:, 50].argmax()
    high = np.sin(2 * np.pi * 3000 * np.arange(RATE) / RATE).astype(np.float32)
    other = np.asarray(Image.open(io.BytesIO(spectrogram(high, CONFIG)))).astype(float)
    assert low < bands - 1 - other.sum(-1)[:, 50].argmax()


def test_it_is_written_whole_or_not_at_all(tmp_path, tokenizer):
    with pytest.raises(InputError, match="cannot be written"):
        write_page([], tmp_path / "no" / "page.html", tokenizer=tokenizer, config=CONFIG)
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        write_page([], tmp_path / "folder", tokenizer=tokenizer, config=CONFIG)
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_what_a_world_says_is_shown_where_it_is(tmp_path, tokenizer):
    sound = {"seconds": 0.5, "text": "x", "events": [{"name": "<bell>", "start": 0.1, "end": 0.3}]}
    page = page_of(Sample(where="a", record=sound, media={"wav": tone(0.5)}), tmp_path / "a.html", tokenizer)  # fmt: skip
    assert "left:10.0px;width:20.0px" in [s.get("style") for s in page.all("span")]
    picture = io.BytesIO()
    Image.new("RGB", (56, 56), "red").save(picture, "PNG")
    seen = {"things": [{"name": "circle", "colour": "red", "box": [0.25, 0.5, 0.75, 1.0]}, "odd", {"name": "no box"}, {"name": "x", "box": ["a"]}], "messages": [{"role": "user", "content": [{"type": "image", "image": "png"}]}, {"role": "assistant", "content": "x"}]}  # fmt: skip
    page = page_of(Sample(where="b", record=seen, media={"png": picture.getvalue()}), tmp_path / "b.html", tokenizer)  # fmt: skip
    boxes = [s["style"] for s in page.all("span") if "top:" in s.get("style", "")]
    assert boxes == ["left:25.0%;top:50.0%;width:50.0%;height:50.0%"]
    assert ">red circle<" in (tmp_path / "b.html").read_text()


def test_the_example_of_the_worlds_is_whole(tmp_path, tokenizer):
    report = check_shards(EXAMPLE)
    assert report.faults == [] and set(report.members) == {"jpg", "opus", "mp4"}
    samples = [parse(entry) for entry in scan(EXAMPLE).entries]
    assert len({s.record["task"] for s in samples}) == len(samples) == 24
    page = tmp_path / "page.html"
    assert write_page(samples[::6], page, tokenizer=tokenizer, config=CONFIG) == 4
    assert 'class="fault"' not in page.read_text()
