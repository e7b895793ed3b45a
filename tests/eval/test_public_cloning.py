"""Seed-TTS-eval and the command: a stranger's voice from a prompt, heard by who hears that language; a report on paper."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from published_sets import MAKERS, put

import thinktalk
from thinktalk.cli.main import main
from thinktalk.errors import ConfigError, InputError
from thinktalk.eval.bench import Bench
from thinktalk.eval.heldout import HeldOut
from thinktalk.eval.judges import Judges
from thinktalk.eval.public import asking, cloning

OPTIONS = {"flow_points": 2, "flow_method": "euler", "max_codes": 12}


class Heard:
    """Judges that hear what they are told to, in a language, and know a voice by its energy in eight bands."""

    speakers = SimpleNamespace(name="bands")

    def __init__(self, **says: str):
        self.says, self.asked = says, []
        self.speakers = SimpleNamespace(name="bands", embed=self.embed)

    def listener(self, name: str, *, language: str = "en"):
        def listen(pcm: np.ndarray) -> str:
            self.asked.append((name, language, len(pcm)))
            return self.says[language]

        listen.name = f"{name} in {language}"  # type: ignore[attr-defined]
        return listen

    def embed(self, pcm: np.ndarray) -> np.ndarray:
        return np.array([np.abs(part).sum() for part in np.array_split(np.fft.rfft(pcm), 8)])


@pytest.fixture(scope="module")
def omni(tiny_checkpoint):
    return thinktalk.load(tiny_checkpoint)


def bench(tmp_path, omni, judges, **more) -> Bench:
    MAKERS["seed-tts"](tmp_path / "data")
    held = HeldOut(folder=tmp_path / "data")
    return Bench(omni=omni, model="tiny", sum="abc", held=held, out=tmp_path / "out", judges=judges, options=OPTIONS, **more)  # fmt: skip


def test_texts_in_the_voices_of_strangers(tmp_path, omni):
    before = omni.voices
    judges = Heard(en="Get the trust fund to the bank", zh="粉红凤凰花凤凰")
    one = bench(tmp_path, omni, judges, listeners=("pocketsphinx", "whisper-base", "paraformer"))
    rows = {row.key: row for row in cloning.seed_tts(one)}
    assert list(rows) == ["seed-tts/zh", "seed-tts/en", "seed-tts/en/voice", "seed-tts/hard", "seed-tts/hard/voice"]  # fmt: skip
    assert "zh/meta.lst: is not there" in rows["seed-tts/zh"].missing
    assert "seedtts_testset" in rows["seed-tts/zh"].missing
    assert rows["seed-tts/en"].tops == [pytest.approx(1 / 8)] and rows["seed-tts/en"].published == 2.33  # fmt: skip
    assert rows["seed-tts/hard"].tops == [0.0] and rows["seed-tts/hard"].tokens == 12
    # who hears what: the first that hears the language
    assert [(name, language) for name, language, _ in judges.asked] == [("pocketsphinx", "en"), ("whisper-base", "zh")]  # fmt: skip
    assert rows["seed-tts/en"].judge == "pocketsphinx in en"
    assert 0 < rows["seed-tts/en/voice"].tops[0] < 1 and "WavLM" in rows["seed-tts/en/voice"].note
    assert omni.voices == before, "no stranger stays"
    again = Heard()
    assert [r.tops for r in cloning.seed_tts(bench(tmp_path, omni, again, listeners=one.listeners))] == [r.tops for r in rows.values()]  # fmt: skip
    assert again.asked == [], "what is on disk is not said again"


def test_what_cannot_be_said_is_wrong(tmp_path, omni):
    judges = Heard(en="x", zh="x")
    one = bench(tmp_path, omni, judges)
    put(tmp_path / "data/seedtts_testset/en/prompt-wavs/cv_en_1.wav", b"no sound")
    rows = {row.key: row for row in cloning.seed_tts(one)}
    assert rows["seed-tts/en"].tops == [1.0] and rows["seed-tts/en"].faults == 1
    assert rows["seed-tts/en/voice"].tops == [0.0]


def test_who_cannot_speak_and_who_cannot_hear(tmp_path, omni):
    mute = SimpleNamespace(can_speak=False)
    with pytest.raises(ConfigError, match="expected a model that speaks"):
        list(cloning.seed_tts(bench(tmp_path, mute, Heard())))
    one = bench(tmp_path, omni, Heard(en="", zh=""), listeners=("pocketsphinx",))
    put(tmp_path / "data/seedtts_testset/zh/meta.lst", "a|b|prompt-wavs/10002287.wav|c")
    with pytest.raises(ConfigError, match="none hears 'zh'"):
        list(cloning.seed_tts(one))


def test_a_broken_list_is_named(tmp_path):
    put(tmp_path / "meta.lst", "a|b|c.wav|d\na|b\n")
    with pytest.raises(InputError, match=r"line 2 has 2 fields, expected name \| words"):
        cloning.meta(tmp_path / "meta.lst")
    put(tmp_path / "meta.lst", "")
    with pytest.raises(InputError, match="holds no items"):
        cloning.meta(tmp_path / "meta.lst")


def test_listeners_by_language_and_folder(tmp_path, monkeypatch):
    judges = Judges(tmp_path)
    with pytest.raises(ConfigError, match=r"'whisper-tiny\.en': does not hear 'zh'"):
        judges.listener("whisper-tiny.en", language="zh")
    with pytest.raises(ConfigError, match="'parrot' is unknown; have whisper-base"):
        judges.listener("parrot")


@pytest.mark.slow  # wants the packages of judges
def test_a_folder_without_a_listener(tmp_path):
    with pytest.raises(ConfigError, match=r"is no model of faster-whisper, expected a folder with model.bin"):  # fmt: skip
        Judges(tmp_path).listener(f"whisper:{tmp_path}")
    with pytest.raises(ConfigError, match=r"expected whisper:DIR"):
        Judges(tmp_path).listener("whisper")


def test_paraformer_is_asked_as_funasr_wants(monkeypatch):
    class AutoModel:
        def __init__(self, model, **options):
            if model == "nowhere":
                raise AssertionError("nowhere is not registered\n")
            self.model = model

        def generate(self, *, input, batch_size_s):
            return [{"text": f"{self.model} {len(input)}"}]

    monkeypatch.setitem(sys.modules, "funasr", SimpleNamespace(AutoModel=AutoModel))
    listen = Judges().listener("paraformer", language="zh")
    assert listen(np.zeros(7, np.float32)) == "paraformer-zh 7" and listen(np.zeros(0)) == ""
    assert listen.name.startswith("paraformer-zh (funasr ")
    with pytest.raises(ConfigError, match="nowhere is not registered"):
        Judges().listener("paraformer:nowhere", language="zh")
    monkeypatch.setitem(sys.modules, "funasr", None)
    with pytest.raises(ConfigError, match="pip install funasr"):
        Judges().listener("paraformer", language="zh")


def test_the_command_measures_several_sets(tiny_checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(asking, "LONGEST", 4)
    for name in ("librispeech", "meld"):
        MAKERS[name](tmp_path / "sets")
    words = ["eval", "librispeech", "meld", "--model", tiny_checkpoint, "--data", str(tmp_path / "sets"), "--out", str(tmp_path / "out"), "--batch", "2"]  # fmt: skip
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main([*words, "--n", "2"]) == 0
    assert capsys.readouterr().out == "" and not list((tmp_path / "out").glob("*.json"))
    monkeypatch.setenv("RANK", "0")
    assert main([*words, "--n", "2"]) == 0
    rows = {r["key"]: r for r in json.loads((tmp_path / "out/librispeech+meld.json").read_text())["rows"]}  # fmt: skip
    assert len(rows["librispeech/test-clean"]["tops"]) == 2 and rows["meld"]["published"] == 57.0
    assert "dev-other.tar.gz" in rows["librispeech/dev-other"]["missing"]
    out = capsys.readouterr().out
    assert "LibriSpeech test-clean" in out and "report 1.8 (" in out and "report 57 (" in out


def test_suites_that_are_not_there(tiny_checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for words, line in (
        (["meld", "librispeach"], "suite 'librispeach': is unknown; have nano, "),
        (["librispeach"], "such as librispeech"),
        (["librispeech", "--listen", "parrot"], "listener 'parrot' is unknown"),
    ):
        assert main(["eval", *words, "--model", tiny_checkpoint]) == 2
        err = capsys.readouterr().err
        assert line in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
