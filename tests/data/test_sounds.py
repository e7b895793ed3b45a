"""Sounds: what is measured in the samples is what the answer says."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from thinktalk.data.checking import check_shards
from thinktalk.data.synth import noises, sounds
from thinktalk.data.synth.encode import RATE
from thinktalk.data.synth.ogg import opus
from thinktalk.data.synth.world import make_world, record_of
from thinktalk.media.audio import load_audio


def heard(item) -> tuple[np.ndarray, dict]:
    """Its sound as the Thinker gets it, and the record."""
    record = record_of(item, "train", random.Random(0))
    return load_audio(item.media()["opus"], sample_rate=RATE), record


def hertz(pcm: np.ndarray) -> float:
    """The strongest frequency; the first partial of a tone is its strongest."""
    spectrum = np.abs(np.fft.rfft(pcm * np.hanning(len(pcm))))
    return float(np.argmax(spectrum)) * RATE / len(pcm)


def onsets(pcm: np.ndarray, name: str) -> int:
    """Times that the level of 20 ms rises over a tenth of the highest after 100 ms below it."""
    window = RATE // 50
    level = np.array([np.abs(pcm[i : i + window]).max() for i in range(0, len(pcm) - window, window)])  # fmt: skip
    loud = level > 0.1 * level.max()
    return sum(loud[i] and not loud[max(0, i - 5) : i].any() for i in range(len(loud)))


def test_every_kind_sounds_and_no_two_alike():
    spectra = {}
    for name in (*noises.EVENTS, *noises.TEXTURES):
        rng = np.random.default_rng(0)
        pcm = noises.noise_of(name, rng, seconds=1.5)
        assert pcm.dtype == np.float32 and np.isfinite(pcm).all()
        assert np.abs(pcm).max() == pytest.approx(1.0) and abs(pcm[0]) < 1e-3 and abs(pcm[-1]) < 0.02  # fmt: skip
        again = noises.noise_of(name, np.random.default_rng(0), seconds=1.5)
        other = noises.noise_of(name, np.random.default_rng(1), seconds=1.5)
        assert np.array_equal(pcm, again)
        assert len(other) != len(pcm) or np.abs(other - pcm).max() > 0.1, name
        power = np.abs(np.fft.rfft(pcm, RATE)) ** 2
        bands = np.add.reduceat(power, np.unique(np.geomspace(20, RATE // 2, 40).astype(int)))
        spectra[name] = np.append(bands / np.linalg.norm(bands), len(pcm) / RATE / 3)
    assert len(spectra) >= 24
    names = list(spectra)
    for i, one in enumerate(names):
        for other in names[:i]:
            assert np.linalg.norm(spectra[one] - spectra[other]) > 0.02, (one, other)


def check_pitch(pcm: np.ndarray, record: dict, answer: str) -> None:
    start, end = (round(record["events"][n][k] * RATE) for n, k in ((0, "start"), (-1, "end")))
    edge = min(RATE // 5, (end - start) // 4)
    rises = hertz(pcm[end - edge : end]) > hertz(pcm[start : start + edge])
    assert answer == f"The pitch {'rises' if rises else 'falls'}."


def test_pitch_is_measured():
    draw = random.Random(0)
    for _ in range(5):
        item = sounds.pitch(draw)
        pcm, record = heard(item)
        check_pitch(pcm, record, item.answer)
    with pytest.raises(AssertionError):
        check_pitch(pcm[::-1], record, item.answer)
    for _ in range(3):
        item = sounds.higher(draw)
        pcm, record = heard(item)
        one, two = (hertz(pcm[round(e["start"] * RATE) : round(e["end"] * RATE)]) for e in record["events"])  # fmt: skip
        assert item.answer == f"The second tone is {'higher' if two > one else 'lower'}."


def test_counts_are_measured():
    """Clear events are counted by their onsets in the decoded file; a louder ground would be a fault of the world."""
    draw = random.Random(1)
    counted = 0
    while counted < 5:
        item = sounds.count(draw)
        if item.content.split()[1] not in ("beep", "clap", "knock", "click", "drum", "quack"):
            continue
        pcm, record = heard(item)
        number = len(record["events"])
        assert f" {sounds.NUMBERS[number]} " in item.answer
        assert onsets(pcm, item.skill) == number, item.content
        # planted fault: without its last event it is one fewer
        if number > 1:
            last = round((record["events"][-1]["start"] - 0.02) * RATE)
            assert onsets(pcm[:last], item.skill) == number - 1
        counted += 1
    numbers = Counter(sounds.count(draw).content.split()[0] for _ in range(300))
    assert set(numbers) == set("123456")


def test_levels_lengths_and_orders_follow_from_the_samples():
    draw = random.Random(2)
    for _ in range(4):
        item = sounds.louder(draw)
        pcm, record = heard(item)
        peaks = [np.abs(pcm[round(e["start"] * RATE) : round(e["end"] * RATE)]).max() for e in record["events"]]  # fmt: skip
        assert ("first" if peaks[0] > peaks[1] else "second") in item.answer.split()
        item = sounds.longer(draw)
        lengths = [e["end"] - e["start"] for e in heard(item)[1]["events"]]
        assert ("first" if lengths[0] > lengths[1] else "second") in item.answer.split()
        item = sounds.order(draw)
        names = [e["name"] for e in record_of(item, "train", draw)["events"]]
        said = names[0 if item.fields["word"] == "first" else 1]
        assert item.answer.lower().startswith(f"the {said} comes {item.fields['word']}")
        item = sounds.present(draw)
        names = {e["name"] for e in record_of(item, "train", draw)["events"]}
        assert item.answer.startswith("Yes") == any(sounds.called(n) == item.fields["a"] for n in names)  # fmt: skip
    yes = sum(sounds.present(draw).answer.startswith("Yes") for _ in range(300))
    assert 110 < yes < 190


def test_events_lie_where_the_record_says():
    track = sounds.Track([sounds.Sound("a", lambda: np.ones(800)), sounds.Sound("b", lambda: np.ones(400))], [0.1, 0.2, 0.3], 0)  # fmt: skip
    pcm, events = track.made
    assert [(e["start"], e["end"]) for e in events] == [(0.1, 0.15), (0.35, 0.375)]
    loud = np.flatnonzero(pcm > 0.3)
    assert loud[0] == 1600 and loud[-1] == 5999 and len(pcm) == 10_800
    assert opus(pcm, RATE) == opus(pcm, RATE)


def test_shards_of_sounds(tmp_path):
    paths, skills = make_world(sounds.ask, tmp_path, counts={"train": 6, "test": 2}, seed=1)
    report = check_shards(tmp_path)
    assert report.faults == [] and report.samples == 8 == skills.total()
    assert report.members == {"opus": 8} and report.seconds > 8 and len(paths) == 2
