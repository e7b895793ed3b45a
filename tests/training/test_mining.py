"""Preferences: what is wrong with each way to say something, which two are taken, and shards that go on where they stopped."""

from __future__ import annotations

import json
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
import torch
from spoken_house import SENTENCES, write_sentences
from talker_house import house, task

from thinktalk.code2wav.speaker import Voice
from thinktalk.config import Wav2CodeConfig
from thinktalk.data.mixture import Source
from thinktalk.data.samples import parse
from thinktalk.errors import ConfigError
from thinktalk.metrics.pauses import Word
from thinktalk.pipeline import Options, embed, recite, talk
from thinktalk.training import judges, mining
from thinktalk.training.judges import Heard, Listens, Reads, judge_of
from thinktalk.training.k1_icl import Context, InContext, Sentences
from thinktalk.training.mining import Mined, mine, say, speak
from thinktalk.training.reader import CodeReader
from thinktalk.training.scoring import MiningConfig, Said, best_and_worst, score
from thinktalk.training.talker_batches import Prefers, talker_cost

CONFIG = MiningConfig(samples=4, rows=3)


def heard(text: str, gap: float = 0.0) -> Heard:
    """Words of 0.2 s, `gap` between them."""
    return Heard([Word(w, n * (0.2 + gap), n * (0.2 + gap) + 0.2) for n, w in enumerate(text.split())])  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- scoring


def test_what_is_wrong_is_added_up():
    said = [Said([1] * n, complete) for n, complete in ((100, True), (100, True), (200, True), (90, False))]  # fmt: skip
    ears = [heard("no thanks", 0.2), heard("no", 0.2), heard("no thanks", 0.2), heard("no thanks")]
    scores = score("No, thanks.", said, ears, CONFIG, reference=None)
    assert scores[0].error == 0
    assert scores[1].error == scores[1].wer == 0.5
    assert scores[2].error == pytest.approx(np.log(2 / 1.25))  # the median is 100
    assert scores[3].error == 1 + 0.5 * 1  # did not stop, and the pause is missing
    # a recording of 200 codes whose pause is short turns it round
    told = score("No, thanks.", said, ears, CONFIG, reference=(200, heard("no thanks")))
    assert told[2].error == told[2].pauses * CONFIG.pause_weight == 0.5
    assert told[0].error == pytest.approx(np.log(0.8 / 0.5) + 0.5)


def test_which_two_are_taken():
    def taken(errors, lengths=(100, 100, 100), **numbers):
        said = [Said([1] * n, True) for n in lengths]
        scores = [replace(score("a", said[:1], [heard("a")], CONFIG)[0], error=e) for e in errors]
        return best_and_worst(said, scores, replace(CONFIG, **numbers))

    assert taken([0.3, 0.1, 0.9]) == (1, 2)
    assert taken([0.3, 0.25, 0.3]) is None  # too like each other
    assert taken([0.3, 0.25, 0.3], gap=0.04) == (1, 0)
    assert taken([0.9, 0.8, 2.0]) is None  # the best is bad
    assert taken([0.0, 0.5, 0.9], lengths=(100, 100, 201)) == (0, 1)  # length alone
    assert taken([0.0, 0.5, 0.9], lengths=(0, 100, 100)) == (1, 2)  # silence is no answer
    assert taken([1.1, 1.3, 1.4], worst_chosen=2.0) == (0, 2)
    with pytest.raises(ConfigError, match="expected at least 2"):
        MiningConfig(samples=1)


# -------------------------------------------------------------------------------------------------------------- saying


@pytest.fixture(scope="module")
def world(tiny_checkpoint, tmp_path_factory):
    """The rate of the tiny model is 50 codes a second: without a lower limit nothing random ever stops."""
    model, kit = house(tiny_checkpoint)
    sources = [Source(write_sentences(tmp_path_factory.mktemp("spoken"), copies=9))]
    return model, InContext(kit, Sentences.of(sources), Context(repeat=0.5)), sources[0]


def test_what_is_said_is_what_talking_says(world, monkeypatch):
    """The same pieces, seeds and all; a row stops at its own limit."""
    monkeypatch.setattr(mining, "LEAST_SECONDS", 0.05)
    monkeypatch.setattr(mining, "LETTERS_PER_SECOND", 200.0)
    model, make, _ = world
    tasks = [task(0, 5), task(1, 5)]
    options = Options(generation=model.config.generation, seed=3)
    said = say(model, make, tasks, times=2, options=options)
    limits = [mining.limit_of(t.text, model) for t in tasks]
    assert limits[0] < limits[1] < 20
    asked = [make.kit.prompt(t) for t in tasks]
    thoughts = recite(model, embed(model, [p for p, _ in asked]), [r for _, r in asked])
    voices = [Voice("x", torch.zeros(1, 0), torch.zeros(1, 0, 0), make.kit.voices[t.voice]) for t in tasks]  # fmt: skip
    generation = replace(model.config.generation, max_codes=max(limits))
    for time in range(2):
        rows = talk(model, thoughts, voices, Options(generation=generation, seed=3 * 1009 + time))
        for row, codes in enumerate(rows):
            assert said[row][time] == Said(codes[: limits[row]], len(codes) < limits[row])
    assert said[0][0].codes != said[0][1].codes
    assert say(model, make, [], times=2, options=options) == []


# -------------------------------------------------------------------------------------------------------------- mining


def fake_say(model, make, tasks, *, times, options):
    """Codes drawn from the words and the seed; the first is the recording's own."""
    said = []
    for one in tasks:
        random = np.random.default_rng([len(one.text), options.seed])
        rows = [list(one.codes)] + [random.integers(0, 8000, len(one.codes)).tolist() for _ in range(times - 1)]  # fmt: skip
        said.append([Said(row, True) for row in rows])
    return said


def judge(codes):
    """Hears the right words where the first code is even, others where it is odd."""
    return [heard("good morning" if row and row[0] % 2 == 0 else "bad evening") for row in codes]


def test_pairs_are_found_written_and_read_again(world, tmp_path, monkeypatch):
    monkeypatch.setattr(mining, "say", fake_say)
    monkeypatch.setattr(mining, "CHUNK", 32)
    model, make, source = world
    config = replace(CONFIG, prompts=40)
    told: list[Mined] = []
    found = mine(model, source, make, judge, tmp_path, config, seed=1, watch=told.append)
    assert found.tried == 40 and 0 < found.pairs < 40 and [t.tried for t in told] == [32, 40]
    assert found.best < found.error
    shards = {path.name: path.read_bytes() for path in sorted(tmp_path.glob("*.tar"))}
    assert len(shards) == 2
    pairs = Source([str(tmp_path / name) for name in shards], measure=talker_cost)
    assert len(pairs) == found.pairs
    voices = set()
    for entry in pairs.entries:
        sample = parse(entry)
        record = sample.record
        assert record["text"] == "Good morning." and record["chosen_heard"] == "good morning"
        assert record["chosen"][0] % 2 == 0 and record["rejected"][0] % 2 == 1
        assert record["chosen_error"] + config.gap <= record["rejected_error"]
        voices.add(record["answer_voice"])
        pair = Prefers(make.kit)(sample, torch.Generator())
        assert pair.chosen.codes.tolist() == record["chosen"] and pair.rejected.complete
        assert torch.equal(pair.chosen.prompt.token_ids, pair.rejected.prompt.token_ids)
        # a sound that asks travels along, and nothing else
        assert len(sample.media) == len(pair.chosen.prompt.audio)
    assert voices <= {voice for voice, text in SENTENCES if text == "Good morning."}

    # going on: what is there stays, what was stopped in its middle is made again, to the bit
    monkeypatch.setattr(mining, "say", lambda *a, **k: pytest.fail("it was there"))
    assert mine(model, source, make, judge, tmp_path, config, seed=1) == found
    monkeypatch.setattr(mining, "say", fake_say)
    (tmp_path / "pairs-0of1-00001.json").unlink()
    assert mine(model, source, make, judge, tmp_path, config, seed=1) == found
    assert {p.name: p.read_bytes() for p in sorted(tmp_path.glob("*.tar"))} == shards
    with pytest.raises(ConfigError, match="made with other numbers"):
        mine(model, source, make, judge, tmp_path, replace(config, gap=0.2), seed=1)


def test_ranks_share_the_tasks(world, tmp_path, monkeypatch):
    """Two ranks try what one tries: every task once."""
    monkeypatch.setattr(mining, "say", fake_say)
    model, make, source = world
    config = replace(CONFIG, prompts=30)
    parts = [mine(model, source, make, judge, tmp_path, config, rank=r, ranks=2) for r in (0, 1)]
    assert sum(parts, Mined()).tried == 30 and {p.tried for p in parts} == {15}
    assert len(list(tmp_path.glob("pairs-?of2-00000.json"))) == 2


def test_answers_are_spoken_once_in_voices_that_take_turns(world, tmp_path, monkeypatch):
    """What did not stop is left out; the shards are dialogues like any other."""

    def once(model, make, tasks, *, times, options):
        assert times == 1 and options.generation == model.config.generation
        return [[Said([len(t.text), 7], len(t.text) < 20)] for t in tasks]

    monkeypatch.setattr(mining, "say", once)
    model, make, source = world
    found = speak(model, source, make, ["Ethan"], tmp_path, rows=5)
    spoken = Source(str(tmp_path / "*.tar"), measure=talker_cost)
    assert found.tried == len(source) and found.pairs == len(spoken) > 0
    for entry in spoken.entries:
        task = make.task(parse(entry), torch.Generator())
        assert task.codes == [len(task.text), 7] and len(task.text) < 20
        assert task.voice in {voice for voice, text in SENTENCES if text == task.text}


# -------------------------------------------------------------------------------------------------------------- judges


def test_a_judge_that_reads_codes_knows_when():
    """A reader whose CTC head was replaced by a table: two words, 0.5 s apart."""
    config = Wav2CodeConfig(width=8, num_layers=1, num_heads=2, ffn_width=8)
    reader = CodeReader(config, num_layers=0)
    letters = {c: n for n, c in enumerate(" 'abcdefghijklmnopqrstuvwxyz0123456789", 1)}
    slots = [0] * 4 + [letters["n"], 0, letters["o"], letters["o"]] + [0] * 10 + [letters[" "]]
    slots += [0] * 11 + [letters["s"], 0, letters["o"], 0]
    logits = torch.nn.functional.one_hot(torch.tensor(slots), 39).float()
    reader.logits = lambda codes: [logits for _ in codes]
    words = Reads(reader, codes_per_second=25.0)([[1] * 17])[0].words
    assert [word.text for word in words] == ["no", "so"]
    # letters are two slots of 20 ms apart, so a word reaches one slot beyond its letters
    assert [(w.start_s, w.end_s) for w in words] == [(0.06, 0.14), (0.58, 0.66)]


def test_a_judge_that_reads_is_loaded_from_a_run(tmp_path):
    config = Wav2CodeConfig(width=8, num_layers=1, num_heads=2, ffn_width=8)
    CodeReader(config, num_layers=1).save(tmp_path / "reader.safetensors")
    found = judge_of(f"reader:{tmp_path}", codes_per_second=25.0)
    assert [len(h.words) for h in found([[1, 2, 3], []])] == [0, 0] or found([[1, 2, 3]])
    with pytest.raises(ConfigError, match="judge 'ears' is unknown; expected reader:RUN"):
        judge_of("ears", codes_per_second=25.0)


def test_a_judge_that_listens_gets_waves(tiny_checkpoint, monkeypatch):
    from thinktalk.weights.hf import load

    model = load(tiny_checkpoint, parts=("code2wav",))
    got = []

    def listen(wave, rate):
        got.append((wave.dtype, len(wave), rate))
        return heard("yes")

    monkeypatch.setattr(judges, "speak", lambda model, codes, voices, options: [np.zeros(480 * len(codes[0]), np.float32)])  # fmt: skip
    ears = Listens(model, model.voices["default"], listen)
    assert [h.text for h in ears([[1, 2, 3], []])] == ["yes", ""]
    assert got == [(np.float32, 1440, 24_000)]
    with pytest.raises(ConfigError, match="expected code2wav"):
        Listens(load(tiny_checkpoint, parts=("thinker",)), model.voices["default"], listen)


def test_whisper_gives_words_with_times(tmp_path, monkeypatch):
    """The package is large: a stand-in of the same face."""

    class WhisperModel:
        def __init__(self, path, **options):
            assert path == str(tmp_path)

        def transcribe(self, pcm, **options):
            assert options["word_timestamps"] and len(pcm) == 16_000
            word = types.SimpleNamespace(word=" yes", start=0.1, end=0.4)
            return [types.SimpleNamespace(words=[word])], None

    monkeypatch.setitem(sys.modules, "faster_whisper", types.SimpleNamespace(WhisperModel=WhisperModel))  # fmt: skip
    assert judges.whisper(tmp_path)(np.zeros(24_000, np.float32), 24_000).words == [Word("yes", 0.1, 0.4)]  # fmt: skip
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(ConfigError, match=r"pip install 'thinktalk\[judges\]'"):
        judges.whisper(tmp_path)
    with pytest.raises(ConfigError, match="no such directory"):
        judges.whisper(tmp_path / "x")


def test_numbers_of_a_search_are_added_by_their_tasks():
    total = Mined(1, 1, 0, 0.5, 0.1) + Mined(3, 1, 2, 0.1, 0.1)
    assert (total.tried, total.pairs, total.passed_by) == (4, 2, 2)
    assert total.error == pytest.approx(0.2) and total.best == pytest.approx(0.1)
    assert json.loads(json.dumps(vars(total)))["pairs"] == 2
