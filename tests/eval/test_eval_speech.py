"""Hearing and speaking, measured: held-out speech that is held out, rows that count what was heard, voices that come and go."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

import thinktalk
from thinktalk import config as cfg
from thinktalk.data.prompts import split_of
from thinktalk.errors import InputError
from thinktalk.eval import heldout
from thinktalk.eval.bench import Bench, weights_sums
from thinktalk.eval.heldout import HeldOut
from thinktalk.eval.suites import codes, nano_codec, nano_speech, spoken
from thinktalk.wav2code.encoder import SpeechTokenizer
from thinktalk.weights.wav2code import save_tokenizer

N = 2


class FakeJudges:
    """They hear what they are told to, and know voices by their loudness in eight bands."""

    def __init__(self, says: str = "good morning"):
        self.says, self.heard = says, 0
        self.speakers = SimpleNamespace(name="bands", embed=self.embed)
        self.quality = Quality()

    def listener(self, name: str):
        def listen(pcm: np.ndarray) -> str:
            assert pcm.dtype == np.float32 and np.abs(pcm).max(initial=0) <= 1
            self.heard += 1
            return self.says

        listen.name = f"fake {name}"  # type: ignore[attr-defined]
        return listen

    def embed(self, pcm: np.ndarray) -> np.ndarray:
        if not len(pcm):
            raise InputError("sound: is nothing but silence")
        return np.array([np.abs(part).sum() for part in np.array_split(np.fft.rfft(pcm), 8)])


class Quality:
    name = "fake quality"

    def __call__(self, pcm: np.ndarray) -> dict[str, float]:
        return {"p808": 3.0, "ovrl": 2.5}


@pytest.fixture(scope="module")
def held(tmp_path_factory) -> HeldOut:
    """Robots, two of a kind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heldout, "SHARD_SAMPLES", 1)  # small shards are whole, too
        held = HeldOut(folder=tmp_path_factory.mktemp("held"), n=N, engine="espeak")
        for split in ("dev", "test"):
            held.sentences(split)
        held.dialogues()
    return HeldOut(folder=held.folder, n=N, engine="espeak", make=False)


@pytest.fixture
def bench(tiny_checkpoint, tmp_path, held) -> Bench:
    directory = Path(shutil.copytree(tiny_checkpoint, tmp_path / "model"))
    torch.manual_seed(0)
    save_tokenizer(SpeechTokenizer(cfg.Wav2CodeConfig(width=16, num_layers=1, num_heads=2, ffn_width=16, pool=1)), directory)  # fmt: skip
    omni = thinktalk.load(directory)
    options = {"flow_points": 2, "flow_method": "euler", "max_codes": 12, "max_text_tokens": 4}
    return Bench(omni=omni, model="tiny", sum=weights_sums(directory)[""], held=held, out=tmp_path / "out", judges=FakeJudges(), n=N, listeners=("a", "b"), options=options)  # type: ignore[arg-type]  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------- data


def check_held_out(samples, split: str) -> None:
    assert samples and all(split_of(s.text) == split for s in samples)


def test_held_out_is_held_out(held):
    dev, test = held.sentences("dev"), held.sentences("test")
    assert len(dev) == N and len(test) == 2 * N
    check_held_out(dev, "dev")
    check_held_out(test, "test")
    with pytest.raises(AssertionError):  # planted: the wrong split
        check_held_out(dev, "test")
    assert len({item.key for item in spoken.named([*dev, *test])}) == 3 * N
    (first, *_) = held.dialogues()
    assert first.record["asked"] and "answer.opus" in first.media
    with pytest.raises(InputError, match="--make-data"):
        held.human()  # nothing is fetched where nothing is to be made


PROMPTS = """; Core Asterisk Sounds in English

activated: Activated.
agent-user: Agent login.  Please enter your agent number.
beep: [this is a simple beep tone]
digits/pound: the pound key
vm-press: Press <star> to go back.
goodbye Goodbye, see you.
"""


def test_prompts_are_phrases():
    assert heldout.prompts(PROMPTS) == [
        ("agent-user", "Agent login. Please enter your agent number."),
        ("pound", "the pound key"),
    ]


def test_recordings_are_read(tmp_path):
    import av

    pcm = (8000 * np.sin(np.arange(16_000) / 8)).astype(np.int16)
    with av.open(str(tmp_path / "a.g722"), "w", format="g722") as out:
        stream = out.add_stream("g722", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate = 16_000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            out.mux(packet)
    content = (tmp_path / "a.g722").read_bytes()
    read, rate = soundfile.read(io.BytesIO(heldout.as_wav(content)), dtype="int16")
    assert rate == 16_000 and abs(len(read) - len(pcm)) < 400
    # the codec delays by 22 samples; 6 bits a sample in the lower band
    assert np.corrcoef(read[22:15_000], pcm[: 15_000 - 22])[0, 1] > 0.99
    heldout._write_prompts(tmp_path / "human", {"pound": content}, PROMPTS)
    (sample,) = HeldOut(folder=tmp_path, make=False).human()
    assert (sample.text, sample.voice) == ("the pound key", "allison")
    assert len(sample.pcm(16_000)) == len(read)


# ---------------------------------------------------------------------------------------------------------------- rows


def test_hearing(bench, monkeypatch):
    rows = {row.key: row for row in nano_speech.hear(bench)}
    assert list(rows) == ["hear/known", "hear/new", "hear/human"]
    assert rows["hear/human"].missing and rows["hear/human"].value is None
    known = rows["hear/known"]
    assert known.value is not None and known.value.samples == N
    assert known.bottoms == [len(s.text.split()) for s in bench.held.sentences("dev")]
    assert known.lower_is_better and known.reach == ("20 %", "8 %", "3 %")
    # a model that hears all, and one that cannot be asked
    samples = {len(s.pcm(16_000)): s.text for s in bench.held.sentences("dev")}
    monkeypatch.setattr(bench.omni, "transcribe", lambda audio, **_: samples[len(audio[0])])
    bench.seed = 1
    assert next(iter(nano_speech.hear(bench))).value.value == 0
    monkeypatch.setattr(bench.omni, "transcribe", refuses)
    bench.seed = 2
    row = next(iter(nano_speech.hear(bench)))
    assert row.value.value == 1 and row.faults == N, "what cannot be answered is all wrong"


def refuses(*_, **__):
    raise InputError("too long: cannot be heard")


def test_reading_and_answering(bench):
    rows = {row.key: row for row in [*nano_speech.read(bench), *nano_speech.answer(bench)]}
    assert list(rows) == ["read", "read/b", "read/p808", "read/ovrl", "read/voice", "answer", "answer/b", "answer/source"]  # fmt: skip
    assert rows["read"].judge == "fake a" and rows["read/b"].judge == "fake b"
    assert rows["read/p808"].value.value == 3.0
    assert rows["read/voice"].missing, "tiny has none of the voices that were recorded"
    assert len(rows["read"].keys) == N and rows["read"].keys == rows["read/b"].keys
    heard = bench.judges.heard
    assert heard == 2 * 2 * N + N
    again = list(nano_speech.read(bench))
    assert bench.judges.heard == heard and again[0].value == rows["read"].value, "from disk"


def test_a_voice_of_a_recording(bench, monkeypatch):
    (source, *_) = bench.held.sentences("dev")
    before = dict(bench.omni.model.voices)
    with spoken.guest(bench, source, seconds=0.5) as name:
        voice = bench.omni.model.voices[name]
        config = bench.omni.config
        assert voice.bos_token == config.talker.text_start
        assert abs(voice.ref_mel.shape[1] - 0.5 * config.code2wav.mel.frames_per_second) <= 1
        assert bench.omni.say("hello", voice=name, **bench.options).audio is not None
    assert bench.omni.model.voices == before
    with pytest.raises(InputError), spoken.guest(bench, source):
        raise InputError("something went wrong")
    assert bench.omni.model.voices == before

    # whose voice it is: two people, and a model that gives back what it is given
    low, high = (np.sin(np.arange(60_000) * f).astype(np.float32) for f in (0.1, 2.0))
    voices = [("ann", low), ("bob", high), ("ann", low), ("bob", high)]
    samples = [
        SimpleNamespace(where=f"set/test-0/{n}", text="a word", voice=v, new=True, pcm=lambda rate, w=w: w)
        for n, (v, w) in enumerate(voices)
    ]  # fmt: skip
    samples.append(SimpleNamespace(where="set/test-0/9", text="other words", voice="old", new=False))  # fmt: skip
    monkeypatch.setattr(HeldOut, "sentences", lambda self, split: samples)
    monkeypatch.setattr(nano_speech, "is_new", lambda sample: sample.new)
    mels = {}

    def say(text, *, voice, **_):
        assert text == "other words"
        mel = bench.omni.model.voices[voice].ref_mel[0]
        mels[voice] = mel
        wave = low if mel[:, :20].mean() > mel[:, 40:].mean() else high
        return SimpleNamespace(audio=wave, codes=[])

    monkeypatch.setattr(bench.omni, "say", say)
    monkeypatch.setattr(spoken, "at_heard_hz", lambda wave, bench: wave)
    rows = list(nano_speech.sample(bench))
    assert rows[0].key == "sample/nearest" and rows[0].value.value == 1 and rows[0].chance == 0.5
    assert rows[1].value.value > 0.9


def test_codes_and_back(bench):
    bench.n = 1
    rows = {row.key: row for row in nano_codec.copy(bench)}
    assert list(rows) == ["copy", "copy/b", "copy/source/a", "copy/p808", "copy/source/p808", "copy/voice", "codes/used", "codes/perplexity"]  # fmt: skip
    assert rows["copy"].value == rows["copy/source/a"].value  # the judge hears the same in all
    assert -1 <= rows["copy/voice"].value.value <= 1
    used, perplexity = rows["codes/used"].value, rows["codes/perplexity"].value
    assert 0 < used.value <= 1 and used.high == used.value
    assert 1 <= perplexity.value <= 1000 * used.value + 1e-6
    bench.omni.directory = None
    (row,) = nano_codec.copy(bench)
    assert row.missing == "the model has no speech tokenizer"


def test_streamed_is_compared_with_whole(bench):
    (row,) = nano_codec.stream(bench)
    assert row.key == "stream" and row.value.value == 0 and row.other_tops == row.tops
    assert bench.judges.heard == 2 * N


def test_perplexity_is_what_it_means():
    alike = np.full(7, 3)
    assert codes.perplexity(alike) == pytest.approx(7)
    assert codes.perplexity(np.array([9, 0, 0])) == pytest.approx(1)
    # -sum p log p of (1/2, 1/4, 1/4) is 1.5 bits
    assert codes.perplexity(np.array([2, 1, 1])) == pytest.approx(2**1.5)
    results = [{"key": str(n), "codes": [1 + n % 4, 1 + (n + 1) % 4]} for n in range(40)]
    bench = SimpleNamespace(seed=0)
    used, perplexity = codes.code_rows(bench, results, first=1, book=8)  # type: ignore[arg-type]
    assert used.value.value == 0.5 and perplexity.value.value == pytest.approx(4)
    assert perplexity.value.low <= 4 <= perplexity.value.high
    with pytest.raises(ValueError):  # planted: codes counted from 0 although the null code is 0
        list(codes.code_rows(bench, [{"key": "a", "codes": [0]}], first=1, book=8))  # type: ignore[arg-type]
