"""Videos, silent and with sound: the frames and samples that the Thinker gets decide every answer, and only those together."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from thinktalk.config import nano
from thinktalk.data.checking import check_shards
from thinktalk.data.examples import TokenCost, from_sample
from thinktalk.data.samples import Sample
from thinktalk.data.synth import drawing, moving, omni, videos
from thinktalk.data.synth.encode import RATE, mp4
from thinktalk.data.synth.world import Item, make_world, record_of
from thinktalk.media.text import Tokenizer
from thinktalk.media.video import Video, load_video
from thinktalk.weights.tokenizer import build_tokenizer

VISUAL = nano().visual


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    """One pure style on white, so that a colour is found in the pixels."""
    monkeypatch.setattr(videos, "draw_style", lambda draw: "flat")
    monkeypatch.setattr(omni, "draw_style", lambda draw: "flat")
    white = lambda size, draw: drawing.Image.new("RGB", size[::-1], (255, 255, 255))  # noqa: E731
    monkeypatch.setattr(drawing, "ground_image", white)


def seen(item: Item, *, want_audio: bool = False) -> Video:
    return load_video(item.media()["mp4"], visual=VISUAL, want_audio=want_audio)


def tracks(video: Video, colour: str) -> np.ndarray:
    """(T, 3): x, y and pixels of this colour in each frame that is seen, NaN where it is not; x, y from 0 to 1."""
    # of all colours the nearest, on every second pixel: small, compressed and quick
    palette = np.array([*drawing.COLOURS.values(), (255, 255, 255), (70, 60, 50)], np.int32)
    gaps = np.square(video.frames[:, ::2, ::2, None].astype(np.int32) - palette).sum(-1)
    near = (gaps.argmin(-1) == list(drawing.COLOURS).index(colour)) & (gaps.min(-1) < 4000)
    T, H, W = near.shape
    out = np.full((T, 3), np.nan)
    for t in range(T):
        y, x = np.nonzero(near[t])
        if len(x) > 4:
            out[t] = x.mean() / W, y.mean() / H, len(x)
    return out


def check_direction(item: Item, video: Video) -> None:
    colour = next(c for c in drawing.COLOURS if f"{c} {item.fields['shape']}" in item.content)
    x, y, _ = (tracks(video, colour)[-1] - tracks(video, colour)[0]).T
    way = ("to the right" if x > 0 else "to the left") if abs(x) > abs(y) else ("down" if y > 0 else "up")  # fmt: skip
    assert item.answer == f"The {item.fields['shape']} moves {way}."


def test_directions_are_seen():
    draw = random.Random(0)
    for _ in range(5):
        item = videos.direction(draw)
        video = seen(item)
        check_direction(item, video)
    video.frames = video.frames[::-1]
    with pytest.raises(AssertionError):
        check_direction(item, video)


def test_what_appears_vanishes_changes_and_races_is_seen():
    draw = random.Random(1)
    for _ in range(3):
        item = videos.order(draw)
        video = seen(item)
        names = item.content.split(" then ")
        first = [int(np.flatnonzero(~np.isnan(tracks(video, n.split()[0])[:, 0]))[0]) for n in names]  # fmt: skip
        assert first == sorted(set(first)), "each later than the one before, in what is seen"
        assert names[0 if item.fields["word"] == "first" else -1] in item.answer

        item = videos.vanishing(draw)
        colour = item.answer.split()[1]
        there = ~np.isnan(tracks(seen(item), colour)[:, 0])
        assert there.any() and not there.all() and item.answer.endswith("appears." if there[-1] else "vanishes.")  # fmt: skip

        item = videos.recolouring(draw)
        was, becomes = item.content.split()[1], item.content.split()[3]
        video = seen(item)
        assert np.isnan(tracks(video, was)[-1, 0]) and np.isnan(tracks(video, becomes)[0, 0])
        assert item.answer.endswith((f"becomes {becomes}.", f"was {was}."))

        item = videos.race(draw)
        fast, slow = (n.split()[0] for n in item.content.split(" before "))
        video = seen(item)
        ways = [np.nanmax(tracks(video, c)[:, 0]) - np.nanmin(tracks(video, c)[:, 0]) for c in (fast, slow)]  # fmt: skip
        assert ways[0] > 1.5 * ways[1] and fast in item.answer

        item = videos.growing(draw)
        words = item.content.split()
        pixels = tracks(seen(item), words[1])[:, 2]
        assert (pixels[-1] > 2 * np.nan_to_num(pixels[0])) == (words[0] == "grows")
        assert item.answer == f"The {words[2]} {words[0]}."


def low_points(y: np.ndarray) -> int:
    """Frames lower than both neighbours (a plateau is one) and in the lower part of the way."""
    low = y > y.min() + 0.45 * (y.max() - y.min())
    return int(np.sum(low & ~np.roll(low, 1)))


def test_bounces_are_counted_in_what_is_seen():
    draw = random.Random(2)
    for _ in range(5):
        item = videos.bounces(draw)
        number = int(item.content.split()[0])
        y = tracks(seen(item), item.content.split()[1])[:, 1]
        assert low_points(y) == number and videos.TIMES[number] in item.answer, item.content
    numbers = Counter(videos.bounces(draw).answer for _ in range(100))
    assert len(numbers) == 4


# ------------------------------------------------------------------------------------------------------- sound with video


def onsets_s(pcm: np.ndarray) -> list[float]:
    """Moments at which it becomes loud after half a second of quiet."""
    window = RATE // 50
    level = np.array([np.abs(pcm[i : i + window]).max() for i in range(0, len(pcm) - window, window)])  # fmt: skip
    loud = level > 0.2 * level.max()
    return [float(i / 50) for i in np.flatnonzero(loud) if not loud[max(0, i - 25) : i].any()]


def answer_by_both(item: Item, video: Video, sound_s: float) -> str:
    """What a perfect eye says when it is told when the sound came."""
    times = np.arange(len(video.frames)) / video.fps
    if item.skill == "which_sounds":
        names = item.content.partition(" among ")[2].partition(" as ")[0].split()
        pairs = [(names[i], names[i + 1]) for i in range(0, len(names), 2)]
        around = (times > sound_s - 0.1) & (times < sound_s + omni.HOP_S + 0.1)
        if not around.any():
            return "Nobody is seen then."
        heights = [np.nanmin(tracks(video, colour)[around, 1]) for colour, _ in pairs]
        return "The {} {} makes the sound.".format(*pairs[int(np.argmin(heights))])
    x = tracks(video, item.facts["ball"])[:, 0]
    wall_right = x[np.abs(x - 0.5).argmax()] < 0.5  # it waits far from the wall
    hit_s = float(times[x.argmax() if wall_right else x.argmin()])
    if item.skill == "together":
        return "Yes, they come together." if abs(hit_s - sound_s) < 0.7 else "No, they do not come together."  # fmt: skip
    noise = item.fields["noise"]
    return f"The {noise} comes {'before' if sound_s < hit_s else 'after'} the hit."


@pytest.mark.parametrize("skill", [omni.which, omni.together, omni.before_after], ids=lambda s: s.__name__)  # fmt: skip
def test_both_together_tell_and_a_moved_sound_tells_something_else(skill):
    draw, changed = random.Random(4), 0
    for _ in range(3):
        item = skill(draw)
        item.facts["ball"] = next((c for c in drawing.COLOURS if c in item.content.split()), None)
        video = seen(item, want_audio=True)
        (sound_s,) = onsets_s(video.audio)
        (told,) = (e["at"] for e in item.facts["events"] if e["what"] == "sounds")
        assert sound_s == pytest.approx(told, abs=0.06), (
            "the file keeps sound and pictures together"
        )
        assert answer_by_both(item, video, sound_s) == item.answer
        seconds = len(video.audio) / RATE
        moved = (sound_s + seconds / 2) % seconds
        changed += answer_by_both(item, video, moved) != item.answer
    # half a clip later something else is true, but a No mostly stays one
    assert changed >= (1 if skill is omni.together else 2)


def test_neither_alone_tells():
    """What an ear and an eye alone know is drawn alike for every answer."""
    draw = random.Random(5)
    moments: dict[str, list[float]] = {}
    hits: dict[str, list[float]] = {}
    for _ in range(600):
        item = omni.together(draw)
        at = {e["what"]: e["at"] for e in item.facts["events"]}
        moments.setdefault(item.answer, []).append(at["sounds"])
        hits.setdefault(item.answer, []).append(at["hits"])
        assert item.facts["chance"] == 0.5
    for drawn in (moments, hits):
        yes, no = (np.array(drawn[a]) for a in sorted(drawn))
        # means of 300 draws of deviation 1.2 s: apart by 0.1 s at one deviation
        assert abs(yes.mean() - no.mean()) < 0.35 and 220 < len(yes) < 380
    early = [(i.facts["events"][1]["at"] < 4.3) == ("before" in i.answer) for i in (omni.before_after(draw) for _ in range(400))]  # fmt: skip
    assert 0.5 < np.mean(early) < 0.68, "the ear alone: 60 %"
    item = omni.hit_sound(draw)
    assert item.fields["one"] in item.wordings[0].format(**item.fields)


def test_sound_begins_where_it_was_put():
    """The encoder's delay of AAC was played as silence once: everything came 64 ms late."""
    pcm = np.zeros(2 * RATE, np.float32)
    pcm[RATE : RATE + 200] = 0.9
    frames = np.zeros((16, 56, 56, 3), np.uint8)
    content = mp4(frames, moving.FPS, pcm)
    video = load_video(content, visual=VISUAL)
    assert np.flatnonzero(np.abs(video.audio) > 0.2)[0] == pytest.approx(RATE, abs=200)
    assert content == mp4(frames, moving.FPS, pcm)


@pytest.mark.parametrize("module", [videos, omni], ids=["videos", "omni"])
def test_shards_of_videos(module, tmp_path):
    counts = {"train": 4, "test": 1}
    _, skills = make_world(module.ask, tmp_path, counts=counts, seed=1)
    report = check_shards(tmp_path)
    assert report.faults == [] and report.samples == 5 == skills.total()
    item = module.ask(random.Random(0))
    record = record_of(item, "train", random.Random(0))
    (part,) = (p for p in record["messages"][0]["content"] if p["type"] == "video")
    assert part["use_audio"] == (module is omni)
    assert seen(item).seconds == pytest.approx(record["seconds"])


@pytest.mark.parametrize("module", [videos, omni], ids=["videos", "omni"])
def test_planned_cost_is_never_too_small(module, tmp_path):
    """Sound counts where the video is heard; a pair of frames that the sampling rounds away may be counted."""
    config = nano()
    build_tokenizer(config, tmp_path)
    cost = TokenCost(Tokenizer.load(tmp_path), config)
    draw = random.Random(0)
    for _ in range(3):
        item = module.ask(draw)
        record = record_of(item, "train", draw)
        sample = Sample(where="x", record=record, media=item.media())
        actual = from_sample(sample, tokenizer=cost.tokenizer, config=config).length
        assert actual <= cost(record) <= 1.5 * actual + 40
