"""Codes of sentences nobody spoke: what is said when is what the labels say, a step is a place of the whole, padding is not heard,
a small world is learnt, and what is distilled is what a Talker can learn from."""

from __future__ import annotations

import json

import pytest
import torch

from thinktalk.cli.main import main
from thinktalk.data.mixture import expand
from thinktalk.data.samples import Sample, parse
from thinktalk.data.shards import ShardWriter, scan
from thinktalk.data.speech import PHONES
from thinktalk.errors import InputError, WeightsError
from thinktalk.training import acoustic
from thinktalk.training.acoustic import (
    Acoustic,
    AcousticConfig,
    AcousticStage,
    Utterance,
    collate,
    timed,
)
from thinktalk.training.losses import IGNORE

CONFIG = AcousticConfig(
    voices=("af_heart", "bf_emma"), num_codes=120, codes_per_second=25.0, width=48, embedding=16, layers=2, memory=48,
    timing_width=32, dropout=0.0,
)  # fmt: skip
SPOKEN = "abdfimstu"
"""The phones of a small world, each with its own length."""


def model(seed: int = 0) -> Acoustic:
    torch.manual_seed(seed)
    return Acoustic(CONFIG).eval()


def lasts(phone: str) -> int:
    return 2 + SPOKEN.index(phone) % 3 * 2


def sample(phones: str, voice: str = "af_heart") -> Sample:
    """A phone's code, one more for each time it has been said in a row, and ten phones further for another voice."""
    durations = [4, *map(lasts, phones), 4]
    looks, _ = acoustic._looks(phones, durations, CONFIG)
    codes, before, run = [], -1, 0
    for phone in looks[:, 1].tolist():
        run = min(run + 1, 1) if phone == before else 0
        before = phone
        codes.append(2 * (phone % 25) + run + 60 * CONFIG.voices.index(voice))
    record = {
        "text": "Said.", "voice": voice, "speed": 1.0, "seconds": len(codes) / 25, "phones": phones, "durations": durations, "codes": codes,
        "codes_by": "me",
    }  # fmt: skip
    return Sample(where="here", record=record)


def words(count: int, seed: int) -> list[str]:
    draw = torch.Generator().manual_seed(seed)
    return ["".join(SPOKEN[i] for i in torch.randint(len(SPOKEN), (6,), generator=draw).tolist()) for _ in range(count)]  # fmt: skip


def batch(samples):
    return collate([timed(s, torch.Generator(), config=CONFIG, codes_by="me") for s in samples])


# ---------------------------------------------------------------------------------------------------------------- laws


def test_a_code_looks_at_the_phones_that_are_said_in_its_time():
    """A code lasts 40 ms, a frame 25: silence up to 50, a to 100, the mark and b to 150."""
    phones, stress = acoustic._looks("aˈb", [2, 2, 1, 1, 1], CONFIG)
    number = {p: n for n, p in enumerate(PHONES.symbols, 1)}
    a, b = number["a"], number["b"]
    assert phones.tolist() == [[0] * 4, [0, a, a, a], [a, a, b, b], [b, b, b, 0]]
    # the mark belongs to the next vowel, as espeak-ng writes it: b is said under it
    assert stress.tolist() == [[0] * 4, [0] * 4, [0, 0, 1, 1], [1, 1, 1, 0]]


def test_steps_are_the_whole(monkeypatch):
    """What is drawn step by step is what the whole gives after the same codes."""

    def apart() -> float:
        net = model()
        ((durations, codes),) = net.speak([Utterance("bf_emma", 1.0, "abdmstu")], temperature=0)
        phones, stress = acoustic._looks("abdmstu", durations, CONFIG)
        there = torch.ones(1, len(codes), dtype=torch.bool)
        context = net.voicing.context(phones[None], stress[None], torch.tensor([1]), there)
        before = torch.tensor([[CONFIG.num_codes, *codes[:-1]]])
        best = net.voicing(context, before)[0].argmax(-1)
        return float((best != torch.tensor(codes)).float().mean())

    assert apart() == 0
    real = acoustic.AcousticModel.step
    forgetful = lambda self, context, before, state: real(self, context, before, None)  # noqa: E731
    with torch.no_grad():
        monkeypatch.setattr(acoustic.AcousticModel, "forward", lambda self, c, b: real(self, c, b, None)[0])  # fmt: skip
        monkeypatch.setattr(acoustic.AcousticModel, "step", forgetful)
        assert apart() > 0, "a memory that is lost shows"


def test_padding_is_not_heard(monkeypatch):
    """The same codes alone and beside a longer sentence."""
    short, long = Utterance("af_heart", 1.0, "abd"), Utterance("bf_emma", 0.9, "mstuabdfim" * 2)

    def same() -> bool:
        net = model(3)
        (alone,) = net.speak([short], temperature=0)
        beside, _ = net.speak([short, long], temperature=0)
        return alone == beside

    assert same()
    monkeypatch.setattr(acoustic, "_there", lambda lengths, device: torch.ones(len(lengths), max(lengths), device=device))  # fmt: skip
    assert not same(), "padding that is heard shows"


def test_drawing():
    logits = torch.tensor([[0.0, 3.0, 2.0, -5.0]]).repeat(500, 1)
    draw = torch.Generator().manual_seed(0)
    assert set(acoustic._draw(logits, 1.0, 1.0, draw).flatten().tolist()) >= {0, 1, 2}
    assert set(acoustic._draw(logits, 1.0, 0.8, draw).flatten().tolist()) == {1, 2}
    assert set(acoustic._draw(logits, 1.0, 0.5, draw).flatten().tolist()) == {1}
    assert set(acoustic._draw(logits, 0.0, 1.0, None).flatten().tolist()) == {1}


# ------------------------------------------------------------------------------------------------------------ learning


@pytest.fixture(scope="module")
def learnt() -> Acoustic:
    """Two hundred steps in the small world."""
    net = model().train()
    stage = AcousticStage(net, misheard=0.1, smoothing=0.0)
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    draw = torch.Generator().manual_seed(0)
    for step in range(150):
        voice = CONFIG.voices[step % 2]
        loss, seen = stage.loss(batch([sample(w, voice) for w in words(24, step)]), generator=draw)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert seen["right"] > 0.97 and seen["off"] < 0.1
    return net.eval()


def test_a_small_world_is_learnt(learnt):
    """Words that were never said, by both voices: when each phone is due, and what it sounds like."""
    new = [(w, v) for w in words(20, 999) for v in CONFIG.voices]
    said = learnt.speak([Utterance(v, 1.0, w) for w, v in new], temperature=0)
    right = total = 0
    for (word, voice), (durations, codes) in zip(new, said, strict=True):
        assert durations == [4, *map(lasts, word), 4]
        true = sample(word, voice).codes.tolist()
        right, total = right + sum(a == b for a, b in zip(codes, true, strict=True)), total + len(true)  # fmt: skip
    assert right / total > 0.97
    given = learnt.speak([Utterance("af_heart", 1.0, "ab", [4, 8, 8, 4])], temperature=0)[0]
    assert given[0] == [4, 8, 8, 4] and len(given[1]) == 15, "durations that are given are kept"


def test_what_is_counted():
    made = batch([sample("abd"), sample("mstua", "bf_emma")])
    stage = AcousticStage(model())
    assert stage.weight(made) == float((made.codes != IGNORE).sum()) == made.codes.ne(IGNORE).sum()
    loss, seen = stage.loss(made, generator=torch.Generator())
    assert loss.isfinite() and set(seen) == {"codes", "right", "durations", "off"}
    stage.model.train()
    before = [stage._before(made.codes, torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(before[0], before[1]) and not torch.equal(before[0], before[2])
    stage.model.eval()
    assert torch.equal(stage._before(made.codes, torch.Generator())[:, 1:], made.codes[:, :-1].clamp(min=0))  # fmt: skip


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"codes": None}, "expected codes, phones and durations"),
        ({"durations": [1, 2]}, "expected codes, phones and durations"),
        ({"frame_seconds": 0.0125}, "expected codes, phones and durations"),
        ({"codes_by": "another"}, "has codes of the tokenizer another, expected me"),
        ({"voice": "nobody"}, "voice 'nobody' is none of af_heart, bf_emma"),
    ],
)
def test_what_cannot_be_learnt_from(change, error):
    good = sample("abd")
    with pytest.raises(InputError, match=error):
        timed(Sample(where="x", record={**good.record, **change}), torch.Generator(), config=CONFIG, codes_by="me")  # fmt: skip


# --------------------------------------------------------------------------------------------------- files, distilling


def test_files(learnt, tmp_path):
    learnt.save(tmp_path / "run/acoustic.safetensors", codes_by="me")
    again, by = Acoustic.load(tmp_path / "run")
    u = [Utterance("bf_emma", 1.0, "fimst")]
    assert by == "me" and again.speak(u, temperature=0) == learnt.speak(u, temperature=0)
    with pytest.raises(WeightsError, match="expected what a run of k0_acoustic leaves"):
        Acoustic.load(tmp_path)
    whole = (tmp_path / "run/acoustic.safetensors").read_bytes()
    (tmp_path / "bad.safetensors").write_bytes(whole.replace(b"num_codes", b"num_cokes"))
    with pytest.raises(WeightsError, match="is no acoustic model"):
        Acoustic.load(tmp_path / "bad.safetensors")
    with pytest.raises(InputError, match="voice 'nobody': is none that was learnt, expected one of af_heart"):  # fmt: skip
        learnt.speak([Utterance("nobody", 1.0, "a")])


def distil(*words: object) -> int:
    return main(["data", "distill", *map(str, words)])


def read(folder) -> list[dict]:
    return [dict(parse(entry).record) for path in expand(folder) for entry in scan(path).entries]


def test_sentences_and_answers_are_distilled(learnt, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("thinktalk.training.distilling.SHARD_SAMPLES", 8)
    run, texts = tmp_path / "run", tmp_path / "texts.txt"
    learnt.save(run / "acoustic.safetensors", codes_by="me")
    texts.write_text("\n".join(f"This is sentence number {n}, and no other." for n in range(30)))
    first = tmp_path / "first"
    assert distil(run, "--texts", texts, "--count", 20, "--out", first, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    records = read(first)
    assert told["samples"] == len(records) == 20 and len(told["paths"]) == 3
    assert {r["voice"] for r in records} == set(CONFIG.voices), "those that answer, of those it knows"  # fmt: skip
    for r in records:
        assert len(r["durations"]) == len(r["phones"]) + 2 and "This is sentence" in r["text"]
        assert len(r["codes"]) == int(sum(r["durations"]) * 0.625 + 1e-6) and r["codes_by"] == "me"
    # what was stopped goes on, with the same bytes; another seed is another make
    gone = first / "train-00001.tar"
    bytes_before = gone.read_bytes()
    gone.unlink()
    assert distil(run, "--texts", texts, "--count", 20, "--out", first) == 0
    assert gone.read_bytes() == bytes_before
    assert distil(run, "--texts", texts, "--count", 20, "--out", first, "--seed", 1) == 2
    assert "of another make" in capsys.readouterr().err
    # answers of written conversations
    with ShardWriter(tmp_path / "talks") as writer:
        messages = [{"role": "user", "content": "3 and 4?"}, {"role": "assistant", "content": "3 and 4 is 7."}]  # fmt: skip
        writer.write("0", {"json": json.dumps({"messages": messages, "task": "sums"}).encode()})
    assert distil(run, "--dialogues", *writer.paths, "--voices", "bf_emma", "--out", tmp_path / "answers") == 0  # fmt: skip
    (one,) = read(tmp_path / "answers")
    assert one["answer_text"] == "three and four is seven." and one["messages"] == messages
    assert one["answer_voice"] == "bf_emma" and one["task"] == "sums" and one["answer_codes"]
    assert distil(run, "--texts", texts, "--voices", "am_adam", "--out", tmp_path / "no") == 2
    assert "is none that was learnt" in capsys.readouterr().err
