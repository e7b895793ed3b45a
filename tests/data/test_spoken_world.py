"""The world of speech: what is said is what the record says, nobody kept for test is trained with, the same bytes again."""

from __future__ import annotations

import importlib.util
import json
from ctypes.util import find_library
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from thinktalk.cli.main import main
from thinktalk.data.checking import check_shards
from thinktalk.data.mixture import expand
from thinktalk.data.samples import Sample, parse
from thinktalk.data.shards import scan
from thinktalk.data.synth import espeak, flite, ogg, robots, speech, voices
from thinktalk.data.synth.kokoro import Kokoro, _with_output, as_phones, split_at
from thinktalk.data.synth.packages import cache_folder
from thinktalk.data.synth.robots import Espeak, Flite, frames_of
from thinktalk.data.synth.speech import SpeechWorld, make_speech, plan
from thinktalk.data.synth.voices import STOCK, TEST_VOICES, Voice, cast, own_voices
from thinktalk.data.words import word_times
from thinktalk.errors import ConfigError, InputError
from thinktalk.media.audio import load_audio

ROBOTS = SpeechWorld(engine="espeak", texts=("templates",), blends=12, seed=5)


def samples(out) -> dict[str, list[Sample]]:
    """By split."""
    found: dict[str, list[Sample]] = {}
    for path in expand(out):
        split = Path(path).name.partition("-")[0]
        found.setdefault(split, []).extend(map(parse, scan(path).entries))
    return found


# -------------------------------------------------------------------------------------------------------------- voices


def heard_in_training(engine: str) -> set[str]:
    """Every voice that training hears, parents of blends included."""
    return {name for v in cast(engine, "train", blends=100) for name in (v.name, *v.recipe)}


def test_test_voices_are_nobodys_parents(monkeypatch):
    assert not heard_in_training("kokoro") & TEST_VOICES
    assert {v.name for v in cast("kokoro", "test")} == set(STOCK) > TEST_VOICES - {"flite_rms"}
    assert "flite_rms" not in heard_in_training("flite")
    monkeypatch.setattr(voices, "TEST_VOICES", frozenset())
    assert heard_in_training("kokoro") >= TEST_VOICES - {"flite_rms"}, "the law above can fail"


def test_blends_are_voices_of_one_accent():
    for voice in cast("kokoro", "train", blends=50)[-50:]:
        assert len(voice.recipe) == 3 and {p[0] for p in voice.recipe} == {"b" if voice.british else "a"}  # fmt: skip
        assert sum(voice.recipe.values()) == pytest.approx(1, abs=2e-3)  # three decimals each
        assert max(voice.recipe.values()) <= 0.7
    assert cast("kokoro", "dev", blends=9) == cast("kokoro", "train", blends=9)
    with pytest.raises(ConfigError, match="engine 'siren' is unknown; have kokoro, espeak, flite"):
        cast("siren", "train")


def test_some_throats_are_kept_for_test():
    trained = {v.recipe["voice"].partition("+")[2] for v in cast("espeak", "train", blends=150)}
    tested = {v.recipe["voice"].partition("+")[2] for v in cast("espeak", "test", blends=150)}
    assert tested - trained and len(trained) > 30
    for engine in voices.ENGINES:
        assert len(own_voices(engine)) == 4
        lines = [t.lines["opus"] for t in plan(SpeechWorld(engine=engine, blends=150), "test", 0, 100, [("Hello.", "x")])]  # fmt: skip
        assert 30 < sum(voices.is_kept(line.voice) for line in lines) < 70


# -------------------------------------------------------------------------------------------------------------- robots


def silences(said: voices.Said) -> list[float]:
    """Loudness of what is said to be silence, before and after, against the whole."""
    ends = np.cumsum(said.durations) * round(said.frame_seconds * said.sample_rate)
    whole = np.sqrt((said.pcm**2).mean())
    return [float(np.sqrt((part**2).mean())) / whole for part in (said.pcm[: ends[0]], said.pcm[ends[-2] :]) if len(part)]  # fmt: skip


needs_flite = pytest.mark.skipif(
    find_library("flite") is None, reason="flite is not installed: apt-get install libflite1"
)
FLITE = [pytest.param(v, marks=needs_flite, id=v.name) for v in cast("flite", "test")]


@pytest.mark.parametrize("voice", [*(pytest.param(v, id=v.name) for v in own_voices("espeak")), *FLITE])  # fmt: skip
def test_robots_say_when_each_phone_is(voice):
    engine = Flite() if voice.name.startswith("flite") else Espeak()
    said = engine.say("Hello there. The black cat sits down!", voice)
    assert len(said.durations) == len(said.phones) + 2
    assert sum(said.durations) * said.frame_seconds == pytest.approx(said.seconds)
    assert said.phones.startswith("həl") and " " in said.phones.strip(), "a breath between them"
    assert max(silences(said)) < 0.1
    times = word_times({"phones": said.phones, "durations": said.durations, "frame_seconds": said.frame_seconds})  # fmt: skip
    assert len(times) == 7, "words are known in time"
    assert all(0 <= a < b <= c for (a, b), (c, _) in pairwise(times)) and times[-1][1] <= said.seconds  # fmt: skip
    early = voices.Said(said.pcm, said.sample_rate, said.phones, (*said.durations[:-2], 0, said.durations[-2] + said.durations[-1]), said.frame_seconds)  # fmt: skip
    assert max(silences(early)) > 0.1, "durations that end a phone too early are found out"


def test_the_same_text_is_the_same_sound_whatever_was_said_before():
    one, other = own_voices("espeak")[:2]
    first = Espeak().say("Good morning.", one)
    Espeak().say("Something else.", other, speed=1.4)
    again = Espeak().say("Good morning.", one)
    assert np.array_equal(first.pcm, again.pcm) and first.durations == again.durations
    # the library as it is, without a fresh start, does not hold it
    library, wave = espeak._library(), []
    for _ in range(2):
        library.heard = []
        library.lib.espeak_Synth(b"Good morning.", 14, 0, 1, 0, 1, None, None)
        wave.append(np.concatenate(library.heard))
    assert len(wave[0]) != len(wave[1]) or not np.array_equal(*wave)


@needs_flite
def test_a_word_of_flite_is_a_token():
    """Its own words are parts of these: dog 's, well known."""
    (voice, *_) = own_voices("flite")
    slow, quick = (Flite().say("The dog's well-known.", voice, speed=s) for s in (0.9, 1.1))
    assert slow.phones == quick.phones == "ðə dˈɔɡz wˈɛlnˈOn"
    assert slow.seconds > 1.15 * quick.seconds
    again = Flite().say("The dog's well-known.", voice, speed=0.9)
    assert np.array_equal(slow.pcm, again.pcm), "whatever was said before"


def test_flite_is_told_what_it_cannot_say():
    for text, voice, error in (("Hello.", "nobody", "voice 'nobody': is none of flite's"), ("...", "slt", "says nothing of it")):  # fmt: skip
        if voice in flite.VOICES and find_library("flite") is None:
            pytest.skip("flite is not installed: apt-get install libflite1")
        with pytest.raises(InputError, match=error):
            flite.speak(text, voice)


def test_frames_of_phones_add_up():
    assert frames_of([(0.0, "ˈaɪ"), (0.1, "")], 12, british=False) == ("ˈI", (0, 0, 8, 4))
    phones, durations = frames_of([(0.05, "a"), (0.1, ""), (0.2, ""), (0.3, "b")], 40, british=True)
    assert (phones, durations) == ("a b", (4, 4, 16, 16, 0))
    assert frames_of([], 7, british=False) == ("", (7, 0)), "nothing but silence"


def test_engines_that_are_not_there(monkeypatch):
    (voice, *_) = own_voices("flite")
    with monkeypatch.context() as without:
        without.setattr(flite.ctypes.util, "find_library", lambda name: None)
        flite._library.cache_clear()
        with pytest.raises(InputError, match="flite: its library flite is not installed"):
            Flite().say("Hello.", voice)
    with pytest.raises(InputError, match="voice 'xx': is none of espeak-ng's"):
        espeak.ipa("Hello.", "xx")
    with pytest.raises(InputError, match="says nothing of it"):
        espeak.speak("")
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "espeakng_loader" else real(name))  # fmt: skip
    monkeypatch.setattr(espeak.ctypes.util, "find_library", lambda name: None)
    with pytest.raises(InputError, match="espeak-ng: is not installed"):
        espeak._where()


# ----------------------------------------------------------------------------------------------------------------- ogg


@pytest.mark.parametrize("rate", [16_000, 24_000])
def test_opus_is_the_same_again_and_as_long_as_it_was(rate, monkeypatch):
    pcm = 0.3 * np.sin(np.arange(12_345) * 2 * np.pi * 300 / rate)
    content = ogg.opus(pcm, rate)
    decoded = load_audio(content, sample_rate=rate, name="opus")
    assert len(decoded) == 12_345
    # a codec for ears: the wave within a twentieth of its power, and not a sample late
    error = decoded[800:-800] - pcm[800:-800]
    assert (error**2).mean() < 0.05 * (pcm**2).mean()
    assert ((decoded[803:-797] - pcm[800:-800]) ** 2).mean() > 0.05 * (pcm**2).mean()
    assert ogg.opus(pcm, rate) == content
    monkeypatch.setattr(ogg, "EXACT", {})
    assert ogg.opus(pcm, rate) != ogg.opus(pcm, rate), "the stream's number is drawn by the clock"


# -------------------------------------------------------------------------------------------------------------- kokoro


def test_phones_in_the_models_alphabet():
    assert as_phones("həlˈo^ʊ ðˈɛ^ɹ") == "həlˈO ðˈɛɹ"
    assert as_phones("nˈa^ɪn", british=True) == "nˈIn" and as_phones("bˈɜːd") == "bˈɜɹd"
    assert split_at("Well... yes, no") == [("Well", "."), ("yes", ","), ("no", "")]


def test_an_output_is_added_at_the_end_of_a_graph():
    """By the wire format: graph (7) { output (12) { name (1): "d" } }, each with its length."""
    assert _with_output(b"MODEL", "d") == b"MODEL" + bytes([0x3A, 5, 0x62, 3, 0x0A, 1]) + b"d"


class Graph:
    """Kokoro's graph but for the speech: four frames of 600 samples a token."""

    def run(self, outputs, feed):
        self.feed = feed
        count = feed["tokens"].shape[1]
        return [np.full(count * 4 * 600, 2.0, np.float32), np.full(count, 4.0)]


def kokoro() -> Kokoro:
    speaker = object.__new__(Kokoro)
    speaker._session = Graph()
    speaker._types = {"tokens": "tensor(int64)", "style": "tensor(float)", "speed": "tensor(float)"}
    speaker.vocabulary = {p: n for n, p in enumerate("həlOˈ. ", 1)}
    rows = np.arange(510, dtype=np.float32)[:, None].repeat(256, 1)
    speaker.voices = {"af_one": rows, "af_two": rows + 1000}
    return speaker


def test_kokoro_is_fed_what_it_was_trained_with():
    speaker = kokoro()
    said = speaker.say("Hello.", Voice("new", False, {"af_one": 0.25, "af_two": 0.75}), speed=0.9)
    feed = speaker._session.feed
    assert said.phones == "həlˈO." and feed["tokens"].tolist() == [[0, 1, 2, 3, 5, 4, 6, 0]]
    assert feed["style"][0, 0] == 6 + 750, "the style of six phones, a quarter and three of them"
    assert feed["speed"] == np.float32(0.9)
    assert said.durations == (4,) * 8 and said.seconds == 32 * 0.025 and said.pcm.max() == 1.0
    with pytest.raises(ConfigError, match="voice 'xx' is unknown; have af_one, af_two"):
        speaker.style({"xx": 1.0})
    for text in ("", "hello " * 200):
        with pytest.raises(InputError, match="phones, expected 1 to 500"):
            speaker.say(text, Voice("one", False, {"af_one": 1.0}))


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime") is None or not (cache_folder() / "npm-kokoro-js-1.2.1").exists(),
    reason="needs onnxruntime, and Kokoro in the cache: thinktalk data make --world speech fetches it",
)  # fmt: skip
def test_kokoro_itself():
    speaker = Kokoro()
    voice = cast("kokoro", "train", blends=1)[-1]
    said, again = (speaker.say("Hello there, how are you?", voice) for _ in range(2))
    assert np.array_equal(said.pcm, again.pcm) and max(silences(said)) < 0.3  # breath
    assert len(said.pcm) == 600 * sum(said.durations) and len(said.durations) == len(said.phones) + 2  # fmt: skip
    assert {v.name for v in cast("kokoro", "test")} == set(speaker.voices)


# -------------------------------------------------------------------------------------------------------------- shards


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Seven sentences to train with, in shards of four, and three of each other split."""
    out = tmp_path_factory.mktemp("speech") / "sentences"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speech, "SHARD_SAMPLES", 4)
        make_speech(ROBOTS, out, counts={"train": 7, "dev": 3, "test": 3})
    return out


def test_sentences_are_samples(made):
    report = check_shards(made)
    assert report.faults == [] and report.samples == 13
    found = samples(made)
    assert [len(found[s]) for s in ("train", "dev", "test")] == [7, 3, 3]
    for sample in (s for split in found.values() for s in split):
        assert sample.text and sample.voice and len(sample.phones) > 5
        assert len(sample.pcm(24_000)) == pytest.approx(sample.seconds * 24_000, abs=1)
    assert len({s.text for split in found.values() for s in split}) == 13


def test_a_make_goes_on_with_the_shards_that_are_missing(made, tmp_path, monkeypatch):
    monkeypatch.setattr(speech, "SHARD_SAMPLES", 4)
    out, lines = tmp_path / "again", []
    counts = {"train": 4, "dev": 3, "test": 3}
    make_speech(ROBOTS, out, counts=counts)
    again = make_speech(ROBOTS, out, counts={**counts, "train": 7}, report=lines.append)
    assert len(lines) == 1 and again.samples == {"train": 3, "dev": 0, "test": 0}
    assert {p.name for p in out.iterdir()} == {p.name for p in made.iterdir()}
    for path in made.iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes()
    with pytest.raises(InputError, match="of another make"):
        make_speech(SpeechWorld(engine="espeak", seed=6), out, counts=counts)


def test_dialogues_are_asked_and_answered_aloud(tmp_path):
    world = SpeechWorld(engine="espeak", kind="dialogues", blends=8, seed=2)
    tasks = plan(world, "train", 0, 40)
    long = next(n for n, t in enumerate(tasks) if len(t.lines) > 2)  # a memory of earlier turns
    counts = {"train": long + 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speech, "plan", lambda *_: [tasks[0], tasks[long]])
        make_speech(world, tmp_path / "out", counts=counts)
    assert check_shards(tmp_path / "out").faults == []
    own = {v.name for v in own_voices("espeak")}
    for sample, turns in zip(samples(tmp_path / "out")["train"], (1, len(tasks[long].lines) - 1), strict=True):  # fmt: skip
        record = sample.record
        assert len(sample.messages) == 2 * turns == 2 * len(record["asked"])
        heard = [m["content"][0]["audio"] for m in sample.messages[0::2]]
        assert heard == [f"{n}.opus" for n in range(turns)] and set(sample.media) == {*heard, "answer.opus"}  # fmt: skip
        assert record["answer_voice"] in own and sample.text == speech.aloud(record["asked"][0])
        assert record["answer_text"] == speech.aloud(sample.messages[-1]["content"])
        assert len(record["answer_durations"]) == len(record["answer_phones"]) + 2
        for member, seconds in record["seconds_of"].items():
            assert len(sample.pcm(24_000, member=member)) == pytest.approx(seconds * 24_000, abs=3)
        assert (record["seconds"], record["answer_seconds"]) == (record["seconds_of"]["0.opus"], record["seconds_of"]["answer.opus"])  # fmt: skip


def test_a_question_is_in_one_split_only():
    world = SpeechWorld(kind="dialogues", seed=1)
    asked = {
        split: {
            (t.record["task"], t.record["messages"][-1]["content"])
            for t in plan(world, split, 0, 150)
            if t.record["task"] in ("arithmetic", "spelling", "clock")
        }
        for split in ("train", "test")
    }
    arithmetic = {s: {a for task, a in found if task == "arithmetic"} for s, found in asked.items()}
    assert len(arithmetic["test"]) > 5 and not arithmetic["train"] & arithmetic["test"]


def test_own_voices_read_their_share():
    own = {v.name for v in own_voices("kokoro")}
    for percent, expected in ((0, (0, 8)), (50, (40, 65)), (100, (100, 100))):
        tasks = plan(SpeechWorld(own_percent=percent), "train", 0, 100, [("Hello.", "x")])
        share = sum(t.lines["opus"].voice.name in own for t in tasks)
        assert expected[0] <= share <= expected[1], percent


def test_what_cannot_be_said_is_named_and_passed_by(tmp_path, monkeypatch):
    real = Espeak.say

    def say(self, text, voice, *, speed=1.0):
        if "the" in text.split():
            raise InputError(f"{text!r}: is not said here")
        return real(self, text, voice, speed=speed)

    monkeypatch.setattr(robots.Espeak, "say", say)
    made = make_speech(ROBOTS, tmp_path / "out", counts={"train": 8})
    assert made.faults and made.samples["train"] == 8 - len(made.faults) > 0
    assert "train-00000.tar/00000" in str(made.faults[0]) and "not said" in made.faults[0].reason
    monkeypatch.setattr(robots.Espeak, "say", lambda *a, **k: say(None, "the", None))
    with pytest.raises(InputError, match="nothing of it could be said"):
        make_speech(ROBOTS, tmp_path / "none", counts={"train": 2})
    assert list((tmp_path / "none").iterdir()) == [], "nothing stays behind"


@pytest.mark.slow
def test_several_processes_give_the_same_bytes(tmp_path):
    counts = {"train": 12, "dev": 4, "test": 4}
    one, two = (tmp_path / name for name in ("one", "two"))
    make_speech(ROBOTS, one, counts=counts)
    make_speech(ROBOTS, two, counts=counts, jobs=2)
    assert {p.name: p.read_bytes() for p in one.iterdir()} == {p.name: p.read_bytes() for p in two.iterdir()}  # fmt: skip


def test_the_command(tmp_path, capsys):
    out = str(tmp_path / "out")
    command = ["data", "make", "--world", "speech", "--engine", "espeak", "--texts", "templates", "--out", out]  # fmt: skip
    assert main([*command, "--count", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["samples"] == {"train": 2, "dev": 1, "test": 1} and len(told["paths"]) == 3
    assert main([*command, "--count", "2"]) == 0
    assert "train" in capsys.readouterr().out
    assert main([*command, "--kind", "dialogues"]) == 2
    assert "--texts: is given with --kind dialogues" in capsys.readouterr().err
