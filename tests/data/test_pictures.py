"""Pictures: the pixels say what the answer says."""

from __future__ import annotations

import io
import random
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from thinktalk.data.synth import drawing, pictures
from thinktalk.data.synth.world import Item, draw_item, record_of


def pixels(item: Item) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(item.media()["jpg"])).convert("RGB")).astype(int)


def near(image: np.ndarray, colour: str) -> np.ndarray:
    """(H, W) bool: where a pixel is nearer than 40 to the colour; JPEG and smooth edges move it a little."""
    return np.abs(image - np.array(drawing.COLOURS[colour])).max(-1) < 40


def is_there(item: Item, image: np.ndarray, thing: dict) -> bool:
    """Most pixels of this colour lie in the box of the thing that is said to have it."""
    H, W, _ = image.shape
    x0, y0, x1, y1 = thing["box"]
    mine = near(image, thing["colour"])
    inside = mine[max(0, int(y0 * H) - 1) : int(y1 * H) + 2, max(0, int(x0 * W) - 1) : int(x1 * W) + 2].sum()  # fmt: skip
    return inside >= 12 and inside >= 0.9 * mine.sum()


@pytest.mark.parametrize("skill", [pictures.colour, pictures.shape, pictures.where, pictures.describe], ids=lambda s: s.__name__)  # fmt: skip
def test_things_are_where_the_record_says(skill):
    draw = random.Random(3)
    for _ in range(12):
        item = skill(draw)
        # a grey ground or shading can be near to a colour of the list: judged on the pure styles
        if item.facts["style"] not in ("flat", "outlined"):
            continue
        image = pixels(item)
        for thing in item.facts["things"]:
            assert is_there(item, image, thing), (item.content, thing)
            # planted fault: a box that stands elsewhere
            x0, y0, x1, y1 = thing["box"]
            moved = [x0 + (0.5 if x0 < 0.4 else -0.5), y0, x1 + (0.5 if x0 < 0.4 else -0.5), y1]
            assert not is_there(item, image, {**thing, "box": [max(0.0, b) for b in moved]})


def test_answers_follow_from_the_things():
    draw = random.Random(0)
    for _ in range(150):
        item = pictures.ask(draw)
        things = item.facts["things"]
        names = Counter(t["name"] for t in things)
        centre = {t["name"]: ((t["box"][0] + t["box"][2]) / 2, (t["box"][1] + t["box"][3]) / 2) for t in things}  # fmt: skip
        match item.skill:
            case "count":
                seen = names[item.fields["kind"]]
                assert pictures.NUMBERS[seen] in item.answer.split() and len(things) >= 1
            case "colour":
                colours = {t["name"]: t["colour"] for t in things}
                assert item.answer.endswith(f" {colours[item.fields['shape']]}.")
            case "relation" | "where":
                one = item.fields.get("one") or next(n for n in centre if n != item.fields["other"])
                dx, dy = pictures.PLACES[item.fields["word"]]
                (x, y), (u, v) = centre[one], centre[item.fields["other"]]
                assert item.answer.startswith("No,") != ((x - u) * dx + (y - v) * dy > 0)
            case "describe":
                said = [t["name"] for t in sorted(things, key=lambda t: t["box"][0] + t["box"][2])]
                spots = [item.answer.index(name) for name in said]
                assert spots == sorted(spots)
            case "digits":
                assert item.answer == f"The number is {''.join(t['name'][-1] for t in things)}."
    answers = Counter(pictures.count(draw).answer.split()[2] for _ in range(300))
    assert set(answers) == set(pictures.NUMBERS)
    yes = sum(pictures.relation(draw).answer.startswith("Yes") for _ in range(300))
    assert 110 < yes < 190, "half of them, within three deviations and a little"


def test_neither_contents_nor_held_styles_of_the_test_are_trained():
    draw = random.Random(1)
    contents, styles = {}, {}
    for split, count in (("train", 300), ("test", 60)):
        items = [draw_item(pictures.ask, split, draw) for _ in range(count)]
        contents[split] = {(i.skill, i.content) for i in items}
        styles[split] = Counter(i.facts["style"] for i in items)
    held = {drawing.HELD_SHAPES, drawing.HELD_DIGITS}
    assert not contents["train"] & contents["test"] and not held & set(styles["train"])
    # a sixth of the styles: 10 of 60, more than two deviations to both sides
    assert 3 <= sum(styles["test"][s] for s in held) <= 22
    record = record_of(items[0], "test", draw)
    assert record["pixels"] == {"jpg": list(items[0].pixels["jpg"])} and "things" in record


@pytest.mark.parametrize("style", [*drawing.DIGIT_STYLES, drawing.HELD_DIGITS])
def test_digits_differ_in_every_style(style):
    """No two digits look alike (a seven-segment 6 without its bar is a 5)."""
    seen = [np.asarray(drawing.digits_image(d, 24, style, "black", random.Random(0)).resize((16, 24)).getchannel("A"), float) for d in "0123456789"]  # fmt: skip
    for i, one in enumerate(seen):
        for j in range(i):
            assert np.abs(one - seen[j]).mean() > 12, (i, j)


def test_words():
    assert pictures.listed(["cat"]) == "a cat"
    assert pictures.listed(["red ring", "ant", "cup"]) == "a red ring, an ant and a cup"
    assert [pictures.plural(n) for n in ("cross", "star", "hot dog")] == ["crosses", "stars", "hot dogs"]  # fmt: skip
