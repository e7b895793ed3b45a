"""Spoken samples as stages take them: labels, the phone of every frame, and recordings that might have been elsewhere."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from sample_house import RATE, tone

from thinktalk.data.examples import IGNORED
from thinktalk.data.loader import Loader
from thinktalk.data.mixture import Mixture, Source
from thinktalk.data.plan import Buckets, Plan
from thinktalk.data.samples import Sample
from thinktalk.data.speech import (
    LETTERS,
    Augmentation,
    Decoded,
    Symbols,
    augment,
    frame_labels,
    spoken,
)
from thinktalk.errors import InputError

PHONES = Symbols(("a", "b", "ʌ"))
RECORD = {"text": "Ab!", "phones": "aˈʌ b", "durations": [2, 4, 2, 4, 3, 4, 1], "seconds": 0.5}
SAMPLE = Sample(where="t/0", record=RECORD, media={"wav": tone(0.5)})
PLAIN = Augmentation(speeds=(1.0,), room=0, noise=0, microphone=0, gain_db=(0, 0))


def test_letters_and_phones():
    assert LETTERS.text(LETTERS.numbers("Don’t  SAY Café—42!")) == "don't say cafe 42"
    assert Symbols.of([RECORD, {"phones": "ʌz."}, {}]).symbols == ("a", "b", "z", "ʌ")
    assert PHONES.numbers(RECORD["phones"]) == [1, 3, 2]
    assert PHONES.text([1, 0, 3]) == "aʌ" and len(PHONES) == 3


def check_frames(labels):
    """At 40 a second, the rate of the labels, each frame is its label; the stress mark's frames are the vowel's."""
    assert labels.tolist() == [0] * 2 + [1] * 4 + [3] * 6 + [0] * 3 + [2] * 4 + [0]


def test_every_frame_has_its_phone():
    label = functools.partial(frame_labels, SAMPLE, PHONES)
    check_frames(label(frames=20, rate=40.0))
    with pytest.raises(AssertionError):
        check_frames(label(frames=20, rate=40.0).roll(1))
    # at 80 a second each label is there twice; twice as fast, half as long
    assert torch.equal(label(frames=40, rate=80.0)[::2], label(frames=20, rate=40.0))
    check_frames(label(frames=20, rate=80.0, speed=2.0))
    assert label(frames=22, rate=40.0)[20:].tolist() == [IGNORED] * 2  # beyond what is known
    assert frame_labels(SAMPLE, Symbols(("a",)), frames=20, rate=40.0).unique().tolist() == [IGNORED, 0, 1]  # fmt: skip
    nothing = Sample(where="t/1", record={}, media={})
    assert frame_labels(nothing, PHONES, frames=3, rate=50.0).tolist() == [IGNORED] * 3


def test_augmentation_leaves_the_sound_where_it_is():
    """A click stays at its sample in rooms and noise, and moves with the speed alone."""
    pcm = np.zeros(8000, np.float32)
    pcm[3000:3008] = 0.9
    for seed in range(12):
        config = Augmentation(room=1.0, noise=1.0, snr_db=(20, 20), microphone=seed % 2)
        out, speed = augment(pcm, RATE, torch.Generator().manual_seed(seed), config)
        assert out.dtype == np.float32 and np.abs(out).max() <= 1
        assert abs(len(out) - 8000 / speed) <= 1
        # the click is 8 samples long, the resampling filter rings a little
        assert abs(int(np.abs(out).argmax()) - 3004 / speed) < 12


def test_augmentation_is_what_it_says():
    pcm = np.sin(np.arange(RATE) / 9).astype(np.float32) / 2
    generator = torch.Generator()
    same, _ = augment(pcm, RATE, generator.manual_seed(0), PLAIN)
    assert np.abs(same - pcm).max() < 1e-6
    for snr in (0.0, 20.0):
        config = Augmentation(
            speeds=(1.0,), room=0, noise=1, microphone=0, snr_db=(snr, snr), gain_db=(-6, -6)
        )
        noisy, _ = augment(pcm, RATE, generator.manual_seed(0), config)
        noise = noisy - pcm * 10 ** (-6 / 20)
        measured = 20 * np.log10(np.std(pcm) * 10 ** (-6 / 20) / np.std(noise))
        assert abs(measured - snr) < 0.1
    one, two = (augment(pcm, RATE, generator.manual_seed(5), Augmentation())[0] for _ in range(2))
    assert np.array_equal(one, two)
    assert not np.array_equal(one[:8000], augment(pcm, RATE, generator.manual_seed(6), Augmentation())[0][:8000])  # fmt: skip
    silence, _ = augment(np.zeros(1000, np.float32), RATE, generator, Augmentation(noise=1, room=1))
    assert np.isfinite(silence).all()


def test_a_microphone_has_a_gain_for_each_octave_and_half_of_the_lines_are_narrow():
    pcm = np.zeros(RATE, np.float32)
    pcm[RATE // 2] = 0.1
    config = Augmentation(speeds=(1.0,), room=0, noise=0, gain_db=(0, 0), microphone=1)
    low, high = [], []
    for seed in range(20):
        out, _ = augment(pcm, RATE, torch.Generator().manual_seed(seed), config)
        gain_db = 20 * np.log10(np.abs(np.fft.rfft(out.astype(np.float64))) / np.float64(pcm.max()))
        low.append(gain_db[62:3000])
        high.append(gain_db[RATE // 2 - 10 : RATE // 2].max())
    assert np.abs(low).max() < 10.5 and 2 < np.std(low) < 5
    # a second has a bin each Hz: no steps between neighbours
    assert np.abs(np.diff(low, axis=1)).max() < 0.5
    assert 4 <= sum(h < -11 for h in high) <= 16


def test_a_spoken_sample():
    make = functools.partial(spoken, sample_rate=RATE, symbols=PHONES, frame_rate=40.0)
    one = make(SAMPLE, torch.Generator())
    assert len(one.pcm) == 8000 and one.labels.tolist() == [1, 3, 2] and one.codes is None
    check_frames(one.frames)
    assert make(SAMPLE, torch.Generator(), letters=True).labels.tolist() == LETTERS.numbers("ab")
    fast = Augmentation(speeds=(1.25,), room=0, noise=0, microphone=0)
    quick = make(SAMPLE, torch.Generator(), augmentation=fast)
    assert len(quick.frames) == 16 and quick.frames[-1] == 0
    coded = Sample(where="t/2", record=RECORD | {"codes": [1, 2]}, media=SAMPLE.media)
    codes = make(coded, torch.Generator(), augmentation=PLAIN).codes
    assert codes is not None and codes.tolist() == [1, 2]
    assert make(coded, torch.Generator(), augmentation=fast).codes is None  # of another speed
    with pytest.raises(InputError, match="t/3: has no phones"):
        make(Sample(where="t/3", record={}, media=SAMPLE.media), torch.Generator())


def test_through_the_loader(speech):
    make = functools.partial(spoken, sample_rate=RATE, symbols=Symbols(("a", "b", "c")), augmentation=Augmentation())  # fmt: skip

    def waves(workers: int) -> list[torch.Tensor]:
        plan = Plan(Mixture([Source(speech)]), Buckets(4.0))
        batches = iter(Loader(plan, make, list, workers=workers))
        return [x.pcm for _ in range(6) for x in next(batches)]

    for one, two in zip(waves(0), waves(2), strict=True):
        assert torch.equal(one, two)  # noise belongs to the sample, not to the worker


def test_decoded_sound_is_kept_and_nothing_else_changes(speech, monkeypatch):
    """Two epochs and a resumed one: the same batches bit by bit, each recording decoded once where there is room."""
    count = [0]
    plain = Sample.pcm
    monkeypatch.setattr(Sample, "pcm", lambda sample, rate: (count.__setitem__(0, count[0] + 1), plain(sample, rate))[1])  # fmt: skip
    total = len(Source(speech))

    def loader(decode=Sample.pcm) -> Loader:
        make = functools.partial(spoken, sample_rate=RATE, symbols=PHONES, letters=True, augmentation=Augmentation(), decode=decode)  # fmt: skip
        return Loader(Plan(Mixture([Source(speech)]), Buckets(1.0)), make, list)

    def waves(one: Loader, samples: int) -> list[torch.Tensor]:
        given: list[torch.Tensor] = []
        batches = iter(one)
        while len(given) < samples:
            given += [x.pcm for x in next(batches)]
        return given

    true = waves(loader(lambda sample, rate: plain(sample, rate)), 3 * total)
    kept = loader(Decoded(64))
    first = waves(kept, 2 * total)
    assert count[0] == total
    resumed = loader(Decoded(64))
    resumed.load_state_dict(kept.state_dict())
    again = [*first, *waves(resumed, len(true) - len(first))]
    assert all(torch.equal(a, b) for a, b in zip(again, true, strict=True))

    count[0] = 0
    waves(loader(Decoded(0)), 2 * total)  # no room: decoded anew
    assert count[0] >= 2 * total

    class Confused(Decoded):  # planted: one recording for all
        def __call__(self, sample, sample_rate):
            return super().__call__(replace(sample, where="one"), sample_rate)

    other = waves(loader(Confused(64)), 2 * total)
    assert not all(torch.equal(a, b) for a, b in zip(other, true[: len(other)], strict=True))
