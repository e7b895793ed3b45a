"""The Thinker's stages: what learns and what does not, losses of transformers, packed as alone, media gradients, phases."""

from __future__ import annotations

import warnings

import pytest
import torch
from reference import part_weights, tiny_reference
from thinker_house import CONFIG, IDS, batch, chat, examples, fresh, gradients, picture

from thinktalk.data.packing import pack
from thinktalk.errors import ConfigError
from thinktalk.training.config import TrainConfig
from thinktalk.training.loop import Trainer
from thinktalk.training.lora import LoraConfig
from thinktalk.training.losses import IGNORE
from thinktalk.training.optim import OptimConfig, ScheduleConfig
from thinktalk.training.p1_align import AlignStage
from thinktalk.training.p2_joint import JointStage
from thinktalk.training.p3_long import LongStage
from thinktalk.training.s1_sft import SftStage
from thinktalk.training.thinker_stage import KINDS, ThinkerStage, kinds_of

ADAPTERS = ("audio.norm", "audio.proj", "vision.merger")
CASES = {
    "p1 adapters": (lambda m: AlignStage(m, adapters_first=0.5), ADAPTERS),
    "p1 encoders": (lambda m: AlignStage(m, adapters_first=0.0), ("audio", "vision")),
    "p2": (JointStage, ("audio", "vision", "thinker")),
    "p3": (LongStage, ("audio", "vision", "thinker")),
    "s1": (SftStage, ("thinker",)),
    "s1 and adapters": (lambda m: SftStage(m, ("thinker", *ADAPTERS)), ("thinker", *ADAPTERS)),
    "s1 lora": (lambda m: SftStage(m, lora=LoraConfig(rank=2)), ()),
}


@pytest.mark.parametrize("case", CASES)
def test_gradients_reach_what_the_stage_unfreezes_and_nothing_else(case):
    make, learns = CASES[case]
    stage = make(fresh())
    _, found = gradients(stage, batch())
    if case == "s1 lora":
        expected = {n for n in found if n.endswith((".a", ".b"))}
        assert len(expected) == 2 * 7 * CONFIG.thinker.text.num_layers
    else:
        expected = {n for n in found if n.startswith(learns)} - {"audio.bos_eos.weight"}
    assert {n for n, grad in found.items() if grad is not None} == expected
    moved = {n for n in expected if found[n].abs().max() > 0}
    # A of LoRA waits for B, which begins at zero; a key's bias moves all scores of a query alike
    assert all(n.endswith((".a", "k.bias")) for n in expected - moved)


def test_features_are_asked_to_be_as_long_as_embeddings():
    row, model = batch(), fresh()
    stage, plain = (JointStage(model, ["audio", "vision"], length=length) for length in (0.5, 0.0))
    total, metrics = stage.loss(row, generator=torch.Generator())
    media, _ = stage.features(row)
    length = model.thinker.embed.weight.norm(dim=1).mean()
    each = [((x - x.mean(0)).norm(dim=1) / length).log().square().mean() for x in media.values()]
    unlike = torch.stack(each).mean().item()
    without = plain.loss(row, generator=torch.Generator())[0].item()
    # the same float32 numbers, added in another order
    assert float(metrics["unlike"]) == pytest.approx(unlike, rel=1e-5)
    assert total.item() == pytest.approx(without + 0.5 * unlike, rel=1e-5) and unlike > 0.01
    # a medium that is too long is pulled down
    model.audio.proj.weight.data *= 40
    assert float(stage.loss(row, generator=torch.Generator())[1]["unlike"]) > 2 * unlike
    # an encoder that does not learn is what it is
    alone = JointStage(model, ["thinker"], length=0.5)
    assert "unlike" not in alone.loss(row, generator=torch.Generator())[1]


def test_what_learns_is_what_is_exported():
    assert set(JointStage(fresh()).parts()) == {"audio", "vision", "thinker"}
    assert set(AlignStage(fresh()).parts()) == {"audio", "vision"}
    assert set(SftStage(fresh()).parts()) == {"thinker"}
    with pytest.raises(ConfigError, match="learns ears: no parameter begins so"):
        JointStage(fresh(), ("ears",))


# --------------------------------------------------------------------------------------------------------------- parity


def reference_loss(example) -> float:
    """transformers' own loss of one conversation, media and positions by its own ways."""
    inputs = {"input_ids": example.token_ids[None], "labels": example.labels[None]}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    if example.audio:
        longest = max(mel.shape[1] for mel in example.audio)
        padded = [torch.nn.functional.pad(mel, (0, longest - mel.shape[1])) for mel in example.audio]  # fmt: skip
        inputs["input_features"] = torch.stack(padded)
        inputs["feature_attention_mask"] = torch.stack(
            [(torch.arange(longest) < mel.shape[1]).long() for mel in example.audio]
        )
    if example.images:
        inputs["pixel_values"] = torch.cat([p for p, _ in example.images])
        inputs["image_grid_thw"] = torch.tensor([grid for _, grid in example.images])
    if example.videos:
        inputs["pixel_values_videos"] = torch.cat([p for p, _, _ in example.videos])
        inputs["video_grid_thw"] = torch.tensor([grid for _, grid, _ in example.videos])
        inputs["video_second_per_grid"] = torch.tensor([s for _, _, s in example.videos])
        inputs["use_audio_in_video"] = True
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return float(tiny_reference().thinker(**inputs).loss)


def reference_stage() -> JointStage:
    model = fresh()
    for part, module in model.stages().items():
        module.load_state_dict(part_weights(tiny_reference(), part))
    return JointStage(model)


def loss_of(stage: ThinkerStage, packed) -> float:
    with torch.no_grad():
        return float(stage.loss(packed, generator=torch.Generator())[0])


def test_the_loss_is_transformers():
    """Each conversation alone, and all in one row: the mean over learnt tokens."""
    stage, total, count = reference_stage(), 0.0, 0
    for example in examples():
        theirs = reference_loss(example)
        ours = loss_of(stage, batch(example.name))
        # float32 through encoders and Thinker, sums in another order
        assert ours == pytest.approx(theirs, rel=1e-5), example.name
        learnt = int((example.labels[1:] != IGNORE).sum())
        total, count = total + theirs * learnt, count + learnt
    assert loss_of(stage, batch()) == pytest.approx(total / count, rel=1e-5)
    assert stage.weight(batch()) == count
    packed = batch()  # planted fault: labels one place off
    packed.labels = packed.labels.roll(1, 1)
    assert loss_of(stage, packed) != pytest.approx(total / count, rel=1e-3)


# -------------------------------------------------------------------------------------------------------------- packing


def alone_and_packed(fault: str = "") -> float:
    """The largest difference, relative to the largest value, of gradients packed and alone; float64."""
    model = fresh().double()
    stage = JointStage(model)
    packed = batch()
    if fault == "one conversation":
        packed.segments[:] = 1
    if fault == "TMRoPE":
        packed.positions[:] = torch.arange(packed.positions.shape[2])
    if fault == "media":
        packed.images = packed.images[::-1]
    loss, together = gradients(stage, packed)
    total = stage.weight(packed)
    sums, apart = {}, 0.0
    for example in examples():
        single = pack([example], pad_id=IDS.pad)
        share = stage.weight(single) / total
        value, found = gradients(stage, single)
        apart += share * value
        for name, grad in found.items():
            if grad is not None:
                sums[name] = sums.get(name, 0) + share * grad
    differences = [abs(loss - apart)]
    for name, expected in sums.items():
        scale = max(float(expected.abs().max()), 1e-9)
        differences.append(float((together[name] - expected).abs().max()) / scale)
    return max(differences)


def test_a_row_teaches_what_its_conversations_teach_alone():
    """Loss and every gradient, those of encoders too, a video's sound among its pictures included."""
    assert alone_and_packed() < 1e-5


@pytest.mark.parametrize("fault", ["one conversation", "TMRoPE", "media"])
def test_planted_faults_of_packing_are_found(fault):
    assert alone_and_packed(fault) > 1e-3


def test_what_is_right_is_told_by_kind(tmp_path):
    """Kinds are those of conversations; numbers agree with logits computed for the whole row."""
    stage, packed = JointStage(fresh()), batch(capacity=700)
    kinds = kinds_of(packed, IDS)
    per = {}
    for row, segments in enumerate(packed.segments):
        for number in range(1, int(segments.max()) + 1):
            (kind,) = set(kinds[row][segments == number].tolist())
            per[packed.names[len(per)]] = KINDS[kind]
    assert per == {"text": "text", "sound": "sound", "picture": "picture", "both": "picture", "video": "video"}  # fmt: skip
    run(stage, packed, tmp_path, steps=4, lr=1e-2)
    with torch.no_grad():
        _, numbers = stage.loss(packed, generator=torch.Generator())
        assert 0 < numbers["right"] < 1  # the fixture: some are right
        alone = {n: stage.loss(batch(n), generator=torch.Generator())[1] for n in ("text", "sound", "video")}  # fmt: skip
    assert set(numbers) == {"tokens", "conversations", "right", *(f"right_{k}" for k in KINDS)}
    for name, seen in alone.items():
        assert float(numbers[f"right_{name}"]) == pytest.approx(float(seen["right"]))


def held(stage: ThinkerStage, packed) -> int:
    """Bytes that encoding keeps for the backward pass, weights aside."""
    kept = {}

    def pack_hook(tensor):
        if (
            not isinstance(tensor, torch.nn.Parameter)
            and tensor.untyped_storage().data_ptr() not in weights
        ):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    weights = {p.untyped_storage().data_ptr() for p in stage.modules.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(pack_hook, lambda tensor: tensor):
        stage.features(packed)
    return sum(kept.values())


def test_long_media_are_computed_again_in_pieces(monkeypatch):
    """The same loss and gradients as p2, and next to nothing kept."""
    monkeypatch.setattr("thinktalk.training.p3_long.PASS_BLOCKS", 1)
    monkeypatch.setattr("thinktalk.training.p3_long.PASS_PATCHES", 32)
    joint, long = JointStage(fresh()), LongStage(fresh())
    (a, one), (b, two) = gradients(joint, batch()), gradients(long, batch())
    assert a == pytest.approx(b, rel=1e-6)
    for name in ("audio.conv1.weight", "vision.patch_embed.weight", "thinker.embed.weight"):
        # float32; pieces one by one instead of all together
        assert torch.allclose(one[name], two[name], rtol=1e-3, atol=1e-5), name
    assert held(long, batch()) < 0.1 * held(joint, batch())


# ---------------------------------------------------------------------------------------------------------------- runs


class Same:
    """One batch for ever."""

    def __init__(self, packed):
        self.packed = packed

    def __iter__(self):
        while True:
            yield self.packed

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def run(stage: ThinkerStage, packed, out, *, steps: int, lr: float = 5e-3) -> list[dict]:
    lines = []
    config = TrainConfig(
        out=str(out), steps=steps, device="cpu", save_seconds=0, explosion=0, optim=OptimConfig(lr=lr, weight_decay=0.0),
        schedule=ScheduleConfig(shape="constant"),
    )  # fmt: skip
    Trainer(stage, Same(packed), config, watch=lambda _, n: lines.append(dict(n))).run()
    return lines


OVERFIT = {  # stage, steps, learning rate, how far the loss must fall
    "p2": (JointStage, 15, 1e-2, 0.1),
    "p3": (LongStage, 15, 1e-2, 0.1),
    "s1": (SftStage, 15, 1e-2, 0.1),
    "s1 lora": (lambda m: SftStage(m, lora=LoraConfig(rank=8)), 30, 1e-2, 0.1),
}


@pytest.mark.parametrize("name", OVERFIT)
def test_each_stage_learns_one_batch_by_heart(name, tmp_path):
    make, steps, lr, share = OVERFIT[name]
    lines = run(make(fresh()), batch("text", "sound", "picture"), tmp_path, steps=steps, lr=lr)
    assert lines[-1]["loss"] < share * lines[0]["loss"], [line["loss"] for line in lines]


def test_new_eyes_learn_to_tell_a_thinker_what_they_see(tmp_path):
    """p1: the Thinker knows two pictures by other eyes; the question is the same, so only what is seen can tell."""
    pictures = [{"type": "image", "image": picture(seed)} for seed in (0, 1)]
    pair = [chat(f"c{i}", [p, "Which?"], a) for i, (p, a) in enumerate(zip(pictures, ("One.", "The other."), strict=True))]  # fmt: skip
    packed, model = pack(pair, pad_id=IDS.pad), fresh()
    knows = run(JointStage(model), packed, tmp_path / "joint", steps=15, lr=1e-2)
    model.vision = fresh(seed=1).vision
    lines = run(AlignStage(model, adapters_first=0.3), packed, tmp_path / "p1", steps=30, lr=1e-2)
    assert lines[0]["loss"] > 10 * knows[-1]["loss"], "the fixture: other eyes are not understood"
    assert lines[-1]["loss"] < 0.1 * lines[0]["loss"]


def test_adapters_learn_first_and_encoders_after(tmp_path):
    stage = AlignStage(fresh(), adapters_first=0.5)
    before = {n: p.detach().clone() for n, p in stage.modules.named_parameters()}
    changed = []

    class Watched(Same):
        def __iter__(self):
            for packed in super().__iter__():
                now = stage.modules.named_parameters()
                changed.append({n for n, p in now if not torch.equal(p, before[n])})
                yield packed

    config = TrainConfig(out=str(tmp_path), steps=4, device="cpu", save_seconds=0, explosion=0)
    Trainer(stage, Watched(batch("sound", "picture")), config).run()
    first, later = changed[1], {n for n, p in stage.modules.named_parameters() if not torch.equal(p, before[n])}  # fmt: skip
    assert first and all(n.startswith(ADAPTERS) for n in first)
    assert {"audio.conv1.weight", "vision.patch_embed.weight"} <= later
    assert not any(n.startswith("thinker") for n in later)


def test_a_batch_without_media_is_no_accident(tmp_path):
    """A frozen Thinker and text alone: nothing to learn, gradients of zero, the run goes on."""
    lines = run(AlignStage(fresh(), adapters_first=0.0), batch("text"), tmp_path, steps=2)
    assert [line["norm"] for line in lines] == [0, 0]


def test_half_precision(tmp_path):
    """bf16 autocast on a CPU, and a frozen base held in bfloat16 beside adapters in float32."""
    whole = loss_of(JointStage(fresh()), batch())
    with torch.autocast("cpu", torch.bfloat16):
        assert loss_of(JointStage(fresh()), batch()) == pytest.approx(whole, rel=0.02)  # 8 bits
    stage = SftStage(fresh(), lora=LoraConfig(rank=4))
    stage.half()
    kinds = {n: p.dtype for n, p in stage.modules.named_parameters()}
    assert {kinds[n] for n in kinds if n.endswith((".a", ".b"))} == {torch.float32}
    assert {kinds[n] for n in kinds if not n.endswith((".a", ".b"))} == {torch.bfloat16}
    with torch.autocast("cpu", torch.bfloat16):
        loss, found = gradients(stage, batch())
    assert loss == pytest.approx(whole, rel=0.02)
    assert {g.dtype for g in found.values() if g is not None} == {torch.float32}


# --------------------------------------------------------------------------------------------------------------- cache


def test_frozen_encoders_see_a_medium_once():
    plain, kept = SftStage(fresh()), SftStage(fresh(), cache_mb=1)
    calls = []
    audio, vision = kept.audio.encode, kept.vision.encode
    kept.audio.encode = lambda mels: calls.append("heard") or audio(mels)
    kept.vision.encode = lambda *x: calls.append("seen") or vision(*x)
    expected = loss_of(plain, batch())
    # float32: alone instead of together
    assert loss_of(kept, batch()) == pytest.approx(expected, rel=1e-5)
    assert sorted(calls) == ["heard"] * 3 + ["seen"] * 4
    first = loss_of(kept, batch("sound", "both"))
    assert len(calls) == 7
    assert first == loss_of(SftStage(fresh(), cache_mb=1), batch("sound", "both"))  # bit by bit
    kept.cache.kept = dict(zip(kept.cache.kept, reversed(list(kept.cache.kept.values())), strict=True))  # fmt: skip
    with pytest.raises(AssertionError):  # planted fault: media mixed up
        assert loss_of(kept, batch("sound", "both")) == pytest.approx(first, rel=1e-5)


def test_a_full_cache_computes_again():
    stage = SftStage(fresh(), cache_mb=1)
    stage.cache.free = 0
    expected = loss_of(SftStage(fresh()), batch())
    assert loss_of(stage, batch()) == pytest.approx(expected, rel=1e-5)
    assert not stage.cache.kept
