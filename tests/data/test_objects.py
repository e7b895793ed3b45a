"""Objects: names that packages give, cut-outs kept apart by hand and by picture, questions whose answers hold."""

from __future__ import annotations

import io
import json
import random
import tarfile
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image, ImageDraw

from thinktalk.data.checking import check_shards
from thinktalk.data.synth import things
from thinktalk.data.synth.objects import Objects
from thinktalk.data.synth.packages import Package
from thinktalk.data.synth.pictures import NUMBERS, PLACES, plural
from thinktalk.data.synth.things import Thing, catalogue, name_of_clip, names_in_caption
from thinktalk.data.synth.world import make_world

KINDS = ("cat", "bus", "apple", "bread", "owl", "key", "tree")


def cut_out(colour: str = "red", size: tuple[int, int] = (64, 48), margin: int = 0) -> bytes:
    """A PNG of an ellipse on nothing."""
    image = Image.new("RGBA", (size[0] + 2 * margin, size[1] + 2 * margin))
    ImageDraw.Draw(image).ellipse((margin, margin, margin + size[0] - 1, margin + size[1] - 1), fill=colour)  # fmt: skip
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def world(tmp_path) -> Objects:
    """Seven names, each by two hands of training and the held one."""
    some = []
    for n, name in enumerate(KINDS):
        for style, held in (("noto", False), ("stamps", False), (things.HELD_STYLE, True)):
            path = tmp_path / f"{name}-{style}-1.png"
            path.write_bytes(cut_out("red", (64 - 4 * n, 40 + 3 * n)))
            some.append(Thing(name, style, path, (64 - 4 * n, 40 + 3 * n), held))
    return Objects(some)


def check(item) -> None:
    """AssertionError where the things of the record do not give the answer."""
    seen = [t for t in item.facts["things"] if t["name"] != "card"]
    names = Counter(t["name"] for t in seen)
    centre = {t["name"]: ((t["box"][0] + t["box"][2]) / 2, (t["box"][1] + t["box"][3]) / 2) for t in seen}  # fmt: skip
    words = item.answer.strip(".").split()
    match item.skill:
        case "what":
            assert list(names) == [words[-1]]
        case "which":
            order = sorted(centre, key=lambda n: centre[n][0])
            assert all(a < b for a, b in pairwise([item.answer.index(n) for n in order]))
        case "where" | "relation":
            one, other = (item.fields.get("one") or words[1]), item.fields["other"]
            (x, y), (u, v), (dx, dy) = centre[one], centre[other], PLACES[item.fields["word"]]
            assert ((x - u) * dx + (y - v) * dy > 0) != item.answer.startswith("No,")
        case "count":
            kind = next(k for k in KINDS if plural(k) == item.fields["plural"])
            assert NUMBERS[names[kind]] == words[2]
        case "present":
            assert (item.fields["a"].split()[-1] in names) == item.answer.startswith("Yes")
        case "card":
            cards = {(c["box"][0] + c["box"][2], c["box"][1] + c["box"][3]): c["colour"] for c in item.facts["things"] if c["name"] == "card"}  # fmt: skip
            box = next(t["box"] for t in seen if t["name"] == item.fields["name"])
            nearest = min(cards, key=lambda c: abs(c[0] - box[0] - box[2]) + abs(c[1] - box[1] - box[3]))  # fmt: skip
            assert cards[nearest] == words[-1]


def test_answers_follow_from_what_is_there(world):
    draw, skills = random.Random(0), Counter()
    for _ in range(200):
        item = world(draw)
        skills[item.skill] += 1
        check(item)
        assert item.held == (things.HELD_STYLE in item.facts["style"])
    assert len(skills) == 7
    item = world.where(draw)
    word = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    item.fields["word"] = word[item.fields["word"]]
    with pytest.raises(AssertionError):
        check(item)


def test_the_picture_shows_them_in_their_boxes(world):
    draw = random.Random(1)
    item = world.what(draw)
    pixels = np.asarray(Image.open(io.BytesIO(item.media()["jpg"])).convert("RGB")).astype(int)
    red = (pixels[..., 0] > 180) & (pixels[..., 1] < 90) & (pixels[..., 2] < 90)
    y, x = np.nonzero(red)
    (thing,) = item.facts["things"]
    H, W = red.shape
    # half a pixel of rounding, two of JPEG; a turned figure's corners leave its box by a tenth
    expected = np.array(thing["box"]) * [W, H, W, H]
    assert np.abs(np.array([x.min(), y.min(), x.max() + 1, y.max() + 1]) - expected).max() < 0.12 * max(H, W)  # fmt: skip


def test_no_held_picture_in_training(world, tmp_path):
    counts = {"train": 40, "test": 20}
    make_world(world, tmp_path / "shards", counts=counts)
    report = check_shards(tmp_path / "shards")
    assert report.faults == [] and report.samples == 60
    styles = {}
    for split in counts:
        content = b"".join(p.read_bytes() for p in (tmp_path / "shards").glob(f"{split}-*.tar"))
        styles[split] = things.HELD_STYLE.encode() in content
    assert styles == {"train": False, "test": True}


@pytest.mark.parametrize(
    ("caption", "name"),
    [("A cat.", "cat"), ("A little penguin.", "penguin"), ("A steam locomotive.", None), ("A sea lion.", None),
     ("An airplane.", "airplane"), ("A pickup truck.", "truck"), ("Boom!!!", None), ("The sun. Hot!", "sun"),
     ("A palm tree.", "palm tree"), ("A hen and many more words than that: cat.", None)],
)  # fmt: skip
def test_names_in_captions(caption, name):
    assert names_in_caption(caption) == name


@pytest.mark.parametrize(
    ("path", "name"),
    [("animals/fish/dolphin_01.png", "dolphin"), ("food/fruit/apple_juice_box.png", None), ("food/fruit/apple_mateya_01.png", None),
     ("transportation/bike_tobias_jakobs_.png", "bicycle"), ("transportation/roadsigns/train.png", None),
     ("computer/icons/house.png", None), ("electronics/bulb/light_bulb_karl_bartel_01.png", "lamp")],
)  # fmt: skip
def test_names_of_clips(path, name):
    assert name_of_clip(path) == name


def archive(path, content: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def test_a_catalogue_is_unpacked_once(tmp_path, monkeypatch):
    """Small archives of the packages' shapes: what has a name and is a cut-out is taken, at most SIDE pixels large."""
    emoji = json.dumps([{"short_name": "cat", "image": "1f431.png"}, {"short_name": "sunny", "image": "2600-fe0f.png"}]).encode()  # fmt: skip
    stamps = "usr/share/tuxpaint/stamps"
    archives = {
        "noto": {"package/emoji.json": emoji, "package/img/google/64/1f431.png": cut_out("blue"), "package/img/google/64/2600-fe0f.png": cut_out("gold"), "package/img/google/64/1f4a9.png": cut_out()},
        "twemoji": {"package/img/twitter/64/1f431.png": cut_out("green")},
        "fluent": {"package/assets/2600.webp": cut_out("gold", (300, 300), 20)},
        "stamps": {f"{stamps}/animals/cat.txt": b"A cat.\nen=...", f"{stamps}/animals/cat.png": cut_out(), f"{stamps}/symbols/star.txt": b"A star.", f"{stamps}/symbols/star.png": cut_out()},
        "clipart": {"usr/share/openclipart/png/food/apple.png": cut_out(), "usr/share/openclipart/png/food/pear.png": cut_out("red", (8, 8))},
    }  # fmt: skip
    for style, content in archives.items():
        archive(tmp_path / style, content)
    monkeypatch.setattr(things, "fetch", lambda package, cache: tmp_path / package.name)
    monkeypatch.setattr(things, "PACKAGES", {s: Package("npm", s, "1", "") for s in archives})
    found = catalogue(tmp_path / "cache")
    got = {(t.name, t.style) for t in found}
    assert got == {("cat", "noto"), ("sun", "noto"), ("cat", "twemoji"), ("sun", "fluent"), ("cat", "stamps"), ("apple", "clipart")}  # fmt: skip
    sizes = {(t.name, t.style): t.size for t in found}
    assert sizes["sun", "fluent"] == (things.SIDE, things.SIDE), "margins are cut, large ones are reduced"  # fmt: skip
    assert [t.style for t in found if t.held] == ["twemoji"]
    monkeypatch.setattr(things, "fetch", None)  # the second time nothing is fetched
    assert catalogue(tmp_path / "cache") == found


def test_a_name_keeps_two_pictures_to_be_taught_with(tmp_path, monkeypatch):
    files = [f"cat-noto-{n}.png" for n in range(40)]
    folder = tmp_path / "things-0"
    folder.mkdir()
    (folder / "index.json").write_text(json.dumps([("cat", "noto", f, (9, 9)) for f in files] + [("owl", "noto", f, (9, 9)) for f in files[:2]]))  # fmt: skip
    monkeypatch.setattr(things, "cache_folder", lambda cache: tmp_path)
    monkeypatch.setattr(things.hashlib, "sha256", type("Sum", (), {"__init__": lambda s, b: None, "hexdigest": lambda s: "0"}))  # fmt: skip
    monkeypatch.setattr(things, "split_of", lambda text, salt: "test")
    held = [t for t in catalogue() if t.held]
    assert len(held) == 38 and {t.name for t in held} == {"cat"}
