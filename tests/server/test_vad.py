"""The voice detector is the published one, and finds the turns of real speech."""

from __future__ import annotations

import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from realtime_rig import padded

from thinktalk.media.audio import load_audio
from thinktalk.server import g711
from thinktalk.server import turns as turns_module
from thinktalk.server.turns import FRAME_MS, Patience, Started, Stopped, Turns, patience
from thinktalk.server.vad import FRAME, load_vad

RATE = 16_000


def question() -> np.ndarray:
    return load_audio("examples/question.wav")


def events(turns: Turns, pcm: np.ndarray, sizes: tuple[int, ...] = (1000,)) -> list:
    """What became known, whatever the sizes of the chunks."""
    found, start, n = [], 0, 0
    while start < len(pcm):
        size = sizes[n % len(sizes)]
        found += [event for _, event in turns.feed(pcm[start : start + size]) if event is not None]
        start, n = start + size, n + 1
    return found


class Replay:
    """The detector's opinion of one sound, asked once and told again."""

    def __init__(self, pcm: np.ndarray):
        self.told = ours(pcm)

    def init_state(self) -> list[float]:
        return list(self.told)

    def step(self, frame: torch.Tensor, state: list[float]) -> float:
        return state.pop(0)


def published(pcm: np.ndarray) -> list[float]:
    """The package's own network, frame by frame."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its own format old
        threads = torch.get_num_threads()
        from silero_vad import load_silero_vad

        model = load_silero_vad()
        torch.set_num_threads(threads)  # the package sets it
        return [float(model(torch.from_numpy(pcm[i : i + FRAME]), RATE)) for i in range(0, len(pcm) - FRAME + 1, FRAME)]  # fmt: skip


def ours(pcm: np.ndarray, *, forget: bool = False) -> list[float]:
    vad = load_vad()
    state, found = vad.init_state(), []
    for start in range(0, len(pcm) - FRAME + 1, FRAME):
        found.append(float(vad.step(torch.from_numpy(pcm[start : start + FRAME])[None], state)))
        if forget:
            state.before = torch.zeros_like(state.before)
    return found


def test_our_network_is_the_published_one():
    pcm = question()[: 3 * RATE]
    theirs = np.array(published(pcm))
    # float32 in another order of sums
    assert np.abs(np.array(ours(pcm)) - theirs).max() < 1e-4
    # the planted fault: the 64 samples before each frame are forgotten
    assert np.abs(np.array(ours(pcm, forget=True)) - theirs).max() > 1e-2


def test_a_question_is_one_turn_wherever_the_chunks_end():
    pcm = padded(question(), before_s=1.0, after_s=1.5)
    found = events(Turns(load_vad(), patience=Patience(500)), pcm)
    assert [type(event) for event in found] == [Started, Stopped]
    assert 0.6 * RATE < found[0].at < 2.0 * RATE
    assert len(pcm) - 1.5 * RATE < found[1].at <= len(pcm)
    assert events(Turns(load_vad(), patience=Patience(500)), pcm, (7, 4000, 511)) == found


def test_longer_patience_ends_later_by_just_that():
    pcm = padded(question(), before_s=0.5, after_s=1.5)
    vad = Replay(pcm)
    ends = [events(Turns(vad, patience=Patience(ms)), pcm)[-1].at for ms in (320, 640, 960)]
    assert [b - a for a, b in pairwise(ends)] == [320 * 16, 320 * 16]
    real = events(Turns(load_vad(), patience=Patience(320)), pcm)[-1].at
    assert real == ends[0], "told again as it was"


def spoken_at(pcm: np.ndarray) -> tuple[int, int]:
    """Where it is within 40 dB of its loudest 10 ms: first and last sample."""
    levels = np.sqrt(np.square(pcm[: len(pcm) // 160 * 160].reshape(-1, 160)).mean(1))
    voiced = np.flatnonzero(levels > 0.01 * levels.max())
    return 160 * int(voiced[0]), 160 * int(voiced[-1] + 1)


@pytest.mark.parametrize("frames", [2, 12])
def test_a_voice_is_known_within_a_fifth_of_a_second(monkeypatch: pytest.MonkeyPatch, frames: int):
    monkeypatch.setattr(turns_module, "LEAST_FRAMES", frames)
    pcm = padded(question(), before_s=0.5, after_s=1.0)
    first, last = spoken_at(pcm)
    known = [(n * FRAME, event) for n, (_, event) in enumerate(Turns(load_vad()).feed(pcm), 1) if event]  # fmt: skip
    (began_at, began), (ended_at, _) = known
    soon = began_at - first < 0.2 * RATE
    assert soon is (frames == 2), "the planted fault, 12 frames of speech in a row, must show"
    assert abs(began.at - first) < 0.1 * RATE, "and where it began is known, whenever that was"
    assert -0.3 * RATE < ended_at - last - 0.5 * RATE < 0.2 * RATE


def music(count: int) -> np.ndarray:
    """Chords that decay, a melody with vibrato over them, and a drum."""
    rng, pcm, beat = np.random.default_rng(0), np.zeros(count), RATE // 2
    time = np.arange(beat) / RATE
    for at in range(0, count, beat):
        notes = np.array([(262, 330, 392), (220, 262, 330), (175, 220, 262)][at // beat % 3])
        chord = sum(np.sin(2 * np.pi * f * k * time) / k for f in notes for k in range(1, 5))
        tune = np.sin(2 * np.pi * 2 * rng.choice(notes) * (time + 6e-4 * np.sin(31 * time)))
        drum = rng.standard_normal(beat) * np.exp(-40 * time)
        pcm[at : at + beat] += chord * np.exp(-3 * time) + tune + drum
    return 0.05 * pcm


@pytest.mark.parametrize("kind", ["silence", "noise", "clicks", "tones", "music"])
def test_what_is_no_voice_begins_no_turn(kind: str):
    rng, count = np.random.default_rng(0), 4 * RATE
    time = np.arange(count) / RATE
    sounds = {
        "silence": np.zeros(count),
        "noise": 0.05 * rng.standard_normal(count),
        "clicks": (np.arange(count) % 8000 < 20) * 0.8,
        "tones": 0.2 * sum(np.sin(2 * np.pi * f * time) for f in (262, 330, 392)),
        "music": music(count),
    }
    assert not events(Turns(load_vad()), sounds[kind].astype(np.float32))


@pytest.mark.parametrize(("below_db", "interrupts"), [(20, True), (60, False)])
def test_our_own_answer_in_the_microphone(below_db: int, interrupts: bool):
    """Nothing here tells an echo from a user (docs/realtime.md): who plays the answer must cancel it, or wear headphones."""
    pcm = padded(question() * 10 ** (-below_db / 20), before_s=0.5, after_s=0.5)
    assert bool(events(Turns(load_vad()), pcm)) is interrupts


def test_words_that_are_judged_complete_end_soon_and_others_are_waited_for():
    pcm = padded(question(), before_s=0.5, after_s=3.0)
    vad, asked = Replay(pcm), []

    def end(likely: float | None, *, after: int = 0) -> int:
        """Where the turn ends; the judge answers when he was asked so often."""
        asked.clear()

        def finished(since: int) -> float | None:
            asked.append(since)
            return likely if len(asked) > after else None

        judged = patience("high", judged=True)
        return events(Turns(vad, patience=judged, finished=finished), pcm)[-1].at

    frame = FRAME_MS * 16
    soon, late, never = end(0.9), end(0.1), end(None)
    since = asked[-1]
    assert set(asked) == {since}, "one silence, one name"
    assert soon - since == pytest.approx(200 * 16, abs=frame)
    assert late - since == pytest.approx(2000 * 16, abs=frame)
    assert never - since == pytest.approx(450 * 16, abs=frame), "unknown: silence alone"
    assert end(0.9) == soon
    assert len(asked) == 1, "once it is known it is not asked again"
    assert end(0.9, after=3) == soon + 3 * frame, "as soon as it is known"
    assert end(0.9, after=10**6) == never


def test_eagerness_without_a_judge_is_a_length_of_silence():
    assert patience("low", judged=False) == Patience(1000)
    assert patience("auto", judged=False) == patience("medium", judged=False)


@pytest.mark.parametrize("law", ["mu", "a"])
def test_telephone_sound_comes_back_as_it_went(law: str):
    every = bytes(range(256))
    pcm = g711.decode(every, law)
    again = g711.encode(pcm, law)
    assert np.array_equal(g711.decode(again, law), pcm)
    assert len(set(pcm.tolist())) == (255 if law == "mu" else 256)
    tone = (0.3 * np.sin(np.arange(8000) * 0.3)).astype(np.float32)
    heard = g711.decode(g711.encode(tone, law), law)
    noise = np.square(heard - tone).mean() / np.square(tone).mean()
    assert noise < 10 ** (-36 / 10), "G.711 has about 38 dB"


def test_telephone_sound_is_what_the_standard_says():
    # ITU-T G.711: the loudest values, and mu-law's silence
    assert g711.decode(bytes([0x80, 0x00]), "mu").tolist() == [32124 / 32768, -32124 / 32768]
    assert g711.decode(bytes([0xAA, 0x2A]), "a").tolist() == [32256 / 32768, -32256 / 32768]
    assert g711.encode(np.zeros(1, np.float32), "mu") == b"\xff"
