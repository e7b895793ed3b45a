"""The codec's recipes from shards on disk and a checkpoint to a checkpoint: what batches hold, what is exported, who is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from sample_house import tone, write_shards

from thinktalk.cli.main import main
from thinktalk.data.coding import fingerprint
from thinktalk.data.shards import ShardWriter
from thinktalk.errors import ConfigError, InputError
from thinktalk.layers.mel import log_mel
from thinktalk.recipes.init import InitRecipe
from thinktalk.recipes.recipe import change, find_recipe
from thinktalk.training import speech_batches
from thinktalk.training.acoustic import Acoustic
from thinktalk.training.loop import Trainer
from thinktalk.training.parallel import World
from thinktalk.training.reader import CodeReader
from thinktalk.weights import hf
from thinktalk.weights.voices import load_voices
from thinktalk.weights.wav2code import load_tokenizer

SMALL = {
    "c1_tokenizer": ["head_layers=1", "precision=fp32"],
    "c1_inverse": ["head_layers=1", "num_layers=1", "first_code=1", "choices=1000"],
    "c2_flow": ["flow.reference_frames=[8,16]", "flow.start_share=0.5", "precision=fp32"],
    "c3_vocoder": ["vocoder.crop_frames=8"],
}


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> str:
    """A first checkpoint of tiny size."""
    directory = tmp_path_factory.mktemp("start") / "model"
    InitRecipe(out="", voices=("voice1", "voice0")).make(directory)
    return str(directory)


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> str:
    """Spoken samples with codes, and a dialogue whose answer is spoken."""
    folder = tmp_path_factory.mktemp("speech")
    write_shards(folder, shards=1, samples=8)
    said = {
        "messages": [
            {"role": "user", "content": [{"type": "audio", "audio": "question.wav"}]},
            {"role": "assistant", "content": "Four."},
        ],
        "text": "Two and two?", "voice": "voice2", "seconds": 0.5, "codes": [7, 8, 9],
        "answer_voice": "voice0", "answer_seconds": 0.6, "answer_codes": [3] * 30,
    }  # fmt: skip
    with ShardWriter(folder / "dialogues") as writer:
        members = {"question.wav": tone(0.5), "answer.wav": tone(0.6, hertz=500)}
        writer.write("000000", {"json": json.dumps(said).encode(), **members})
    return str(folder / "*.tar")


def small(name: str, start: str, shards: str, out: Path, *more: str):
    common = [f"start={start}", f"shards={shards}", f"out={out}", "steps=2", "batch_seconds=2", "optim.lr=1e-3"]  # fmt: skip
    return change(find_recipe(name), [*common, *SMALL[name], *more])


@pytest.mark.parametrize("name", SMALL)
def test_a_checkpoint_becomes_the_next(name, start, shards, tmp_path):
    """From shards to a checkpoint that opens, in which only the part of this stage has changed."""
    recipe = small(name, start, shards, tmp_path / "run")
    settings = [f"--set={s}" for s in SMALL[name]]
    common = ["start=" + start, "shards=" + shards, "steps=2", "batch_seconds=2", "optim.lr=1e-3"]
    assert main(["train", name, "--out", recipe.out, *(f"--set={s}" for s in common), *settings, "--json"]) == 0  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2] and all(line["loss"] > 0 for line in lines)
    before, after = hf.load(start), hf.load(tmp_path / "run/model")
    trained = {"c2_flow": "dit", "c3_vocoder": "vocoder"}.get(name, "wav2code")
    for part, module in before.stages().items():
        same = all(torch.equal(t, after.stages()[part].state_dict()[n]) for n, t in module.state_dict().items())  # fmt: skip
        assert same == (part != trained), part
    old, new = load_tokenizer(start), load_tokenizer(tmp_path / "run/model")
    shared = old.state_dict().keys() & new.state_dict().keys()
    same = all(torch.equal(old.state_dict()[n], new.state_dict()[n]) for n in shared)
    assert same == (trained != "wav2code")
    assert (new.config.choices == 1000) == (name == "c1_inverse")


def test_c1_hears_what_the_shards_say(start, shards, tmp_path):
    recipe = small("c1_tokenizer", start, shards, tmp_path)
    stage = recipe.stage()
    batches = iter(recipe.data(World()))
    heads = stage.modules.heads
    assert heads.phones.out_features == 3 + 1 and heads.speakers.num_embeddings == 3 + 1
    texts, speakers = [], set()
    for batch in (next(batches) for _ in range(9)):
        speakers |= set(batch.speakers.tolist())
        for i, mel in enumerate(batch.mels):
            said = batch.labels[i, : batch.label_lengths[i]]
            texts.append(speech_batches.LETTERS.text(said.tolist()))
            assert not batch.labels[i, len(said) :].any()
            assert abs(len(batch.phones[i]) - mel.shape[1] / 2) <= 1
            assert {0, 1, 2, 3} >= set(batch.phones[i].tolist()) - {-100}
    assert {t[:15] for t in texts} == {"sentence number", "two and two", "four"}
    assert speakers == {1, 2, 3}


def test_c1_begins_with_the_ears_and_leaves_a_reader(start, shards, tmp_path):
    recipe = small("c1_tokenizer", start, shards, tmp_path)
    stage = recipe.stage()
    ears = recipe.load("audio").audio
    lower, upper = stage.modules.tokenizer.layers[0], stage.modules.heads.layers[0]
    assert torch.equal(lower.mlp.up.weight, ears.layers[0].mlp.up.weight)
    assert torch.equal(upper.mlp.up.weight, ears.layers[1].mlp.up.weight)
    deaf = small("c1_tokenizer", start, shards, tmp_path, "from_ears=false").stage()
    assert not torch.equal(deaf.modules.tokenizer.layers[0].mlp.up.weight, ears.layers[0].mlp.up.weight)  # fmt: skip
    again = small("c1_tokenizer", start, shards, tmp_path, "fresh=false").stage()
    assert torch.equal(again.modules.tokenizer.norm.weight, recipe.wav2code().norm.weight)
    # whatever is trained is the run's own memory, never that of the files
    assert all(p.requires_grad for p in again.modules.parameters())
    recipe.export(stage, tmp_path / "model")
    reader = CodeReader.load(tmp_path)
    codes = [torch.tensor([1, 500, 1000, 7])]
    assert torch.equal(reader.logits(codes)[0], stage.reader().logits(codes)[0])


def test_c2_codes_mels_and_who_speaks(start, shards, tmp_path):
    recipe = small("c2_flow", start, shards, tmp_path)
    batches = iter(recipe.data(World()))
    voices = set()
    mels = speech_batches.Mels(recipe.sources(coded=True), recipe.code2wav().mel)
    for batch in (next(batches) for _ in range(6)):
        for codes, mel, shown in zip(batch.codes, batch.mels, batch.references, strict=True):
            assert mel.shape == (80, 2 * len(codes)) and len(shown) == 80
            own = [v for v, entries in mels.of_voice.items() for e in entries if torch.equal(mels.of(e)[:, : mel.shape[1]], mel)]  # fmt: skip
            other = [v for v, entries in mels.of_voice.items() for e in entries if torch.equal(mels.of(e), shown)]  # fmt: skip
            assert own == other and not torch.equal(shown[:, : mel.shape[1]], mel)
            voices |= set(own)
    assert voices == {"voice0", "voice1", "voice2"}
    assert {len(entries) for entries in mels.of_voice.values()} == {
        3,
        4,
    }  # 8 samples, a question, an answer


def test_c2_ends_with_voices(start, shards, tmp_path):
    """A known name keeps its token, a new one gets one that nobody has; the first one is the default."""
    recipe = small("c2_flow", start, shards, tmp_path, 'voices=["voice2","voice1"]')
    recipe.export(recipe.stage(), tmp_path / "model")
    before, after = load_voices(start), load_voices(tmp_path / "model")
    assert set(after) == {"voice1", "voice2", "default"} and after["default"].name == "voice2"
    assert after["voice1"].bos_token == before["voice1"].bos_token != after["voice2"].bos_token
    assert after["voice2"].ref_mel.shape[1] == 16 and not after["voice2"].cond.any()
    assert not torch.equal(after["voice1"].ref_mel, after["voice2"].ref_mel)
    # without names it keeps its own voices, and those that the shards have are heard from now on
    own = small("c2_flow", start, shards, tmp_path).spoken_voices()
    assert list(own) == ["voice1", "voice0"]
    assert all(own[name].bos_token == before[name].bos_token for name in own)
    assert not before["voice1"].ref_mel.diff(dim=1).any() and own["voice1"].ref_mel.diff(dim=1).any()  # fmt: skip
    with pytest.raises(ConfigError, match=r"voices: 'nobody' is in no shard"):
        small("c2_flow", start, shards, tmp_path, 'voices=["nobody"]').spoken_voices()


def test_c1_inverse_hears_and_speaks(start, shards, tmp_path):
    """The two mels of a clip tell of one sound, another recording shows the voice, and codes are there to be counted."""
    recipe = small("c1_inverse", start, shards, tmp_path)
    stage, batch = recipe.stage(), next(iter(recipe.data(World())))
    assert stage.modules.tokenizer.config.num_codes == 1000
    for heard, spoken, shown in zip(batch.heard.mels, batch.mels, batch.references, strict=True):
        assert abs(heard.shape[1] - spoken.shape[1]) <= 1 and not torch.equal(spoken, shown)
    assert len(batch.codes) == len(batch.mels)
    assert not any(p.requires_grad for p in stage.modules.dit.parameters())
    with pytest.raises(ConfigError, match="choices 9000 from code 1: expected 1 to 8193"):
        small("c1_inverse", start, shards, tmp_path, "choices=9000").stage()


def test_codes_of_another_tokenizer_are_refused(start, shards, tmp_path):
    assert main(["data", "codes", "--model", start, shards.replace("*", "train0-00000"), "--out", str(tmp_path / "coded"), "--json"]) == 0  # fmt: skip
    coded = str(tmp_path / "coded/*.tar")
    next(iter(small("c2_flow", start, coded, tmp_path).data(World())))
    other = tmp_path / "c1/model"
    c1 = small("c1_tokenizer", start, shards, tmp_path)
    c1.export(c1.stage(), other)
    with pytest.raises(InputError, match=r"has codes of the tokenizer \w+, expected"):
        next(iter(small("c2_flow", str(other), coded, tmp_path).data(World())))


def test_c3_sound_is_at_the_vocoders_rate(start, shards, tmp_path):
    recipe = small("c3_vocoder", start, shards, tmp_path)
    assert recipe.stage().turns == ("generator",)  # no GPU: spectra alone
    assert small("c3_vocoder", start, shards, tmp_path, "vocoder.adversarial=true").stage().turns == ("discriminator", "generator")  # fmt: skip
    batch = next(iter(recipe.data(World())))
    assert all(0.49 * 24_000 < len(wave) < 0.67 * 24_000 for wave in batch.waves)
    assert log_mel(batch.waves[0][None]).isfinite().all()


def test_a_run_goes_on_from_start(start, shards, tmp_path):
    """fresh=false learns from a copy: the checkpoint it came from stays as it is."""
    recipe = small("c2_flow", start, shards, tmp_path / "run", "fresh=false")
    before = hf.load(start).dit.state_dict()
    stage = recipe.stage()
    assert all(torch.equal(t, before[n]) for n, t in stage.modules.dit.state_dict().items())
    Trainer(stage, recipe.data(World()), recipe).run()
    assert all(torch.equal(t, before[n]) for n, t in hf.load(start).dit.state_dict().items())
    assert any(not torch.equal(t, before[n]) for n, t in stage.modules.dit.state_dict().items())


def test_speech_that_comes_during_a_run_changes_nothing_of_its_heads(start, tmp_path):
    """nano's tokenizer could not be exported after 30 minutes: dialogues by new voices had been written beside those it read."""
    folder = tmp_path / "speech"
    folder.mkdir()
    write_shards(folder, shards=1, samples=4)
    recipe = small("c1_tokenizer", start, str(folder / "*.tar"), tmp_path / "run")
    shapes = {n: p.shape for n, p in recipe.stage().modules.named_parameters()}
    late = {"text": "Hello there.", "voice": "somebody new", "seconds": 0.5}
    with ShardWriter(folder / "late") as writer:
        writer.write("000000", {"json": json.dumps(late).encode(), "wav": tone(0.5)})
    again = {n: p.shape for n, p in recipe.stage().modules.named_parameters()}
    assert again == shapes
    # another run sees the voice
    other = small("c1_tokenizer", start, str(folder / "*.tar"), tmp_path / "other")
    assert {n: p.shape for n, p in other.stage().modules.named_parameters()} != shapes


def test_phones_to_codes(start, shards, tmp_path):
    """What a run of k0_acoustic leaves: the checkpoint it began with, and who says the codes of that tokenizer."""
    out = tmp_path / "run"
    settings = [f"start={start}", f"shards={shards}", "steps=2", "batch_seconds=2", "width=16", "memory=16"]  # fmt: skip
    assert main(["train", "k0_acoustic", "--out", str(out), *(f"--set={s}" for s in settings)]) == 0  # fmt: skip
    model, by = Acoustic.load(out)
    assert model.config.voices == ("voice0", "voice1", "voice2")
    assert by == fingerprint(load_tokenizer(start))
    before, after = hf.load(start), hf.load(out / "model")
    for part, module in before.stages().items():
        assert all(torch.equal(t, after.stages()[part].state_dict()[n]) for n, t in module.state_dict().items()), part  # fmt: skip
    recipe = change(find_recipe("k0_acoustic"), [f"start={start}", f"shards={shards}"])
    first, other = (r.stage().model.state_dict() for r in (recipe, change(recipe, ["seed=1"])))
    assert not all(torch.equal(t, other[name]) for name, t in first.items())
